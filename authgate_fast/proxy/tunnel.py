"""A connection that has left HTTP (RFC 9110 section 7.8): bytes go both ways until a side, time or the gateway ends it.

From its 101 on a `TunnelSide` is the protocol of each transport. Bytes are passed on as they came, in the order they
came; a side that does not keep up pauses the other. The end of a side's stream is passed on behind what it sent, an
error ends both at once. When the gateway ends a tunnel it says goodbye in both directions, for WebSocket with a Close
frame between two frames (RFC 6455 section 5.5.1), and cuts what is left after ``tunnel_goodbye_timeout_s``.
"""

from __future__ import annotations

import select
from fcntl import ioctl
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL
from sys import byteorder
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.http.problem import STATUS_STARTS
from authgate_fast.http.response import without_own_cookies
from authgate_fast.http.upgrade import WEBSOCKET, upgrade_lines
from authgate_fast.http.websocket import GOING_AWAY, POLICY_VIOLATION, FrameTracker, close_frame
from authgate_fast.proxy.access import lost_access
from authgate_fast.proxy.phases import TUNNEL
from authgate_fast.proxy.record import tunnel_ended

if TYPE_CHECKING:
    import asyncio

    from authgate_fast.decision import Forward
    from authgate_fast.http.request import RequestHead
    from authgate_fast.http.response import ResponseHead
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.proxy.upstream import Upstream

# A peer that is gone without a word is noticed after two minutes, by the kernel alone.
_KEEPALIVE: Final = (
    (SOL_SOCKET, SO_KEEPALIVE, 1),
    (IPPROTO_TCP, TCP_KEEPIDLE, 60),
    (IPPROTO_TCP, TCP_KEEPINTVL, 15),
    (IPPROTO_TCP, TCP_KEEPCNT, 4),
)


class TunnelSide:
    """The client or the backend: an `asyncio.Protocol` by its methods only.

    ``eof``: it has ended its stream; ``finished``: we have ended ours to it; ``closed``: its transport is gone.
    ``frames`` follows what it sends, where that is WebSocket. In a goodbye, ``code`` waits for the end of a frame that
    this side is sending, and ``muted`` means that nothing of what it sends is passed on any more.
    """

    __slots__ = (
        "closed",
        "code",
        "eof",
        "finished",
        "frames",
        "is_client",
        "muted",
        "other",
        "read_paused",
        "received",
        "transport",
        "tunnel",
        "unsent",
        "unsent_since_s",
        "write_paused",
    )

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport, *, is_client: bool) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.is_client = is_client
        self.other: TunnelSide = self  # until both are there
        self.frames: FrameTracker | None = FrameTracker(masked=is_client) if tunnel.is_websocket else None
        self.closed = False
        self.received = 0
        self.eof = False
        self.finished = False
        self.read_paused = False
        self.write_paused = False
        self.muted = False
        self.code = 0
        self.unsent = 0
        self.unsent_since_s = 0.0

    # --- bytes ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        tunnel = self.tunnel
        context = tunnel.context
        tunnel.since_s = context.now_s
        context.counters.tunnel_bytes += len(data)
        context.took(len(data))
        self.received += len(data)
        if self.code or self.muted:
            self._data_at_goodbye(data)
            return
        if self.frames is not None:
            self.frames.feed(data)
        self.other.write(data)

    def write(self, data: bytes) -> None:
        """Send bytes to this side."""
        if not self.finished:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.write_paused = True
        self.other.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.other.resume()

    def pause(self) -> None:
        """Stop reading: the other side does not keep up."""
        if not (self.read_paused or self.eof or self.muted or self.transport.is_closing()):
            self.read_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            if not (self.eof or self.transport.is_closing()):
                self.transport.resume_reading()

    # --- the end ----------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """Pass the end of the stream on. Return whether the transport stays open for the other direction."""
        self.eof = True
        self.tunnel.since_s = self.tunnel.context.now_s
        other = self.other
        if self.code or not self.muted:
            other.finish()
        if self.finished or self.muted:
            self.close()
            if not self.muted:
                other.close()
            return False
        return self.transport.can_write_eof()  # TLS has no half-close

    def finish(self) -> None:
        """End the stream to this side, behind what is still to be sent."""
        if not self.finished:
            self.finished = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()

    def close(self) -> None:
        """Close, behind what is still to be sent."""
        self.finished = True
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.finished = True
        if not self.closed:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.finished = True
        tunnel = self.tunnel
        if self.is_client:
            tunnel.downstream.connection_lost(exc)
        other = self.other
        if other.closed:
            tunnel.ended()
            if tunnel.placement is not None:
                tunnel.placement.complete()
        elif self.muted and not self.code and self.frames is not None and not self.frames.broken:
            pass  # the other has been told, and has its time to answer
        elif exc is None or self.eof:
            other.close()  # it gets all that was sent in order
        else:
            other.abort()

    # --- the gateway's goodbye --------------------------------------------------------------------

    def end_stream(self, code: int) -> None:
        """End what this side sends: between two frames the other is told `code`, or its stream just ends."""
        frames = self.frames
        if frames is not None and not frames.at_boundary and not frames.broken and not self.eof:
            self.code = code
            return
        self.muted = True
        self.resume()  # to see it answer
        if frames is None or frames.broken:
            self.other.finish()
        elif not frames.closed:
            self.other.write(close_frame(code, masked=self.is_client))

    def _data_at_goodbye(self, data: bytes) -> None:
        frames = self.frames
        if frames is None:
            return
        if self.code:
            end = frames.feed(data, stop=True)
            self.other.write(data[:end])
            if frames.at_boundary or frames.broken:
                code, self.code = self.code, 0
                self.end_stream(code)
                data = data[end:]
            else:
                return
        frames.feed(data)
        if frames.closed and self.other.muted:
            self.close()  # both have said goodbye: RFC 6455 section 7.1.1

    def is_stuck(self, now_s: float) -> bool:
        """Tell whether it has taken nothing of what waits for it for too long."""
        if self.closed:
            return False
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            # The kernel takes more from us in large steps only: a slow reader shows in what it has not delivered.
            descriptor = self.transport.get_extra_info("socket").fileno()
            if descriptor >= 0:
                unsent += int.from_bytes(ioctl(descriptor, TIOCOUTQ, bytes(4)), byteorder)
        if not unsent or unsent != self.unsent:
            if unsent < self.unsent:
                self.tunnel.since_s = now_s
            self.unsent = unsent
            self.unsent_since_s = now_s
            return False
        return now_s - self.unsent_since_s > self.tunnel.context.limits.send_timeout_s

    def is_reset(self) -> bool:
        """Ask the kernel for a reset: nobody tells us of one while reading is paused, or over."""
        if self.finished or not (self.read_paused or self.eof):
            return False
        descriptor = self.transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return False  # it is on its way out already
        poll = select.poll()
        poll.register(descriptor, 0)
        return bool(poll.poll(0))


class Tunnel:
    """Two sides and what they have in common. ``goodbye_s`` is when the gateway began to end it, or 0."""

    __slots__ = (
        "backend",
        "client",
        "context",
        "downstream",
        "forward",
        "goodbye_s",
        "head",
        "is_websocket",
        "placement",
        "since_s",
    )

    is_websocket: bool

    def __init__(self, exchange: Exchange, upstream: Upstream) -> None:
        downstream = exchange.downstream
        self.context: Context = exchange.context
        self.downstream: Downstream = downstream
        self.forward: Forward = exchange.forward
        self.head: RequestHead = exchange.head
        self.is_websocket = exchange.head.upgrade.lower() == WEBSOCKET  # bytes: ASCII letters only
        self.placement = exchange.placement  # its place at the service is kept until both sides are closed
        self.goodbye_s = 0.0
        self.since_s = self.context.now_s
        self.client = TunnelSide(self, downstream.transport, is_client=True)
        self.backend = TunnelSide(self, upstream.transport, is_client=False)
        self.client.other = self.backend
        self.backend.other = self.client

    def start(self, head: bytes, data: bytes, held: bytes) -> None:
        """Begin with what has come behind the heads already: `data` of the backend, `held` of the client."""
        client, backend, downstream = self.client, self.backend, self.downstream
        self.context.tunnels.add(self)
        self.context.counters.tunnels += 1
        client.read_paused = downstream.read_paused
        client.write_paused = downstream.write_paused
        client.transport.set_protocol(client)  # type: ignore[arg-type]  # a protocol by its methods
        backend.transport.set_protocol(backend)  # type: ignore[arg-type]  # as above
        _keep_alive(client.transport)
        _keep_alive(backend.transport)
        if backend.frames is not None:
            backend.frames.feed(data)
        client.write(head + data)
        if held:
            client.data_received(held)
        if downstream.eof:
            client.eof = True
            backend.finish()
        if not backend.write_paused:
            client.resume()
        if client.write_paused:
            backend.pause()

    def ended(self) -> None:
        """Both sides are gone."""
        self.context.tunnels.discard(self)
        tunnel_ended(self.downstream, self.forward, self.head, self.client.received, self.backend.received)

    def say_goodbye(self, code: int) -> None:
        """End it; for WebSocket `code` tells both sides why (RFC 6455 section 7.4.1)."""
        if not self.goodbye_s:
            self.goodbye_s = self.context.now_s
            self.client.end_stream(code)
            self.backend.end_stream(code)

    def held_bytes(self) -> int:
        """Return what waits to be sent, both ways."""
        held = 0
        for side in (self.client, self.backend):
            if not side.closed:
                held += side.transport.get_write_buffer_size()
        return held

    def abort(self) -> None:
        """End it at once."""
        self.client.abort()
        self.backend.abort()

    def check_time(self, now_s: float) -> None:
        """Called about once a second."""
        client, backend = self.client, self.backend
        limits = self.context.limits
        if self.goodbye_s:
            if now_s - self.goodbye_s > limits.tunnel_goodbye_timeout_s:
                self._overdue("tunnel_goodbye_timeout_s")
            return
        if client.is_stuck(now_s) or backend.is_stuck(now_s):
            self._overdue("send_timeout_s")
            return
        for side in (client, backend):
            if side.is_reset():
                if side.eof:
                    side.abort()  # the other still gets all that it had sent
                else:
                    self.abort()
                return
        silent_s = now_s - self.since_s
        if client.eof or backend.eof or client.closed or backend.closed:
            if silent_s > limits.tunnel_half_closed_timeout_s:
                self._overdue("tunnel_half_closed_timeout_s")
        elif silent_s > self.forward.route.settings.tunnel_idle_timeout_s:
            self.context.counters.hit("tunnel_idle_timeout_s")
            self.say_goodbye(GOING_AWAY)
        elif self.forward.identity is not None:
            lost = lost_access(self.context, self.forward)
            if lost:
                what = f"{lost} before the tunnel did"
                self.context.report(Reason.CREDENTIALS_INVALID, self.forward, self.forward.request_id, what)
                self.say_goodbye(POLICY_VIOLATION)

    def _overdue(self, limit: str) -> None:
        self.context.counters.hit(limit)
        self.abort()


def open_tunnel(exchange: Exchange, upstream: Upstream, response: ResponseHead, data: bytes) -> None:
    """Turn both connections of an exchange into a tunnel; `data` has come behind the backend's 101."""
    downstream = exchange.downstream
    block = response.block
    if response.own_cookies:
        block = without_own_cookies(block)
    head = b"%b%b%bVia: 1.1 authgate\r\nX-Request-ID: %b\r\n\r\n" % (
        STATUS_STARTS[101],
        block,
        upgrade_lines(exchange.head.upgrade),
        exchange.request_id,
    )
    tunnel = Tunnel(exchange, upstream)
    exchange.response_begun = exchange.finished = True
    exchange.upstream = None
    if exchange.placement is not None:
        exchange.placement.answered(101)
        exchange.placement = None  # it is the tunnel's now
    upstream.exchange = None
    upstream.pool.forget(upstream)  # it is no connection that a request could use
    upstream.counted = False
    held = downstream.buffer
    downstream.buffer = b""
    downstream.exchange = None
    downstream.phase = TUNNEL
    tunnel.start(head, data, held)


def may_open(context: Context) -> bool:
    """Tell whether there may be one tunnel more; in a drain it would only be told to go."""
    return len(context.tunnels) < context.limits.max_tunnels and not context.draining


def _keep_alive(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    for level, option, value in _KEEPALIVE:
        try:
            connection.setsockopt(level, option, value)
        except OSError:  # the peer is gone already, or it is no TCP
            return
