"""A client's connection: cuts the byte stream into requests and serves them one after the other.

Pipelined requests wait as raw bytes, unparsed, until the one before is answered; behind a refusal that
closes, nothing is read as HTTP any more. Answers therefore leave in order, and memory is bounded by
one head, one read and the write buffer.
"""

from __future__ import annotations

import re
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Final

from authgate_fast.decision import Allowed, Client, Forward, Local, Pending, Plan, Redirect, Refusal, Reply
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.head_start import start_problem, what_is_too_large
from authgate_fast.http.problem import own_response, problem_response
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import finish, finish_local, plan
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.phases import BUSY, CLOSED, HEAD, IDLE, LINGER
from authgate_fast.proxy.waiting import LocalExchange, Waiting

if TYPE_CHECKING:
    import asyncio

    from authgate_fast.auth.interface import Denial
    from authgate_fast.proxy.context import Context
    from authgate_fast.snapshot import Identity

WRITE_HIGH_WATER: Final = 131_072
"""Bytes that may wait for a slow client before its backend is paused."""
MAX_SERVED_AT_ONCE: Final = 32
"""Pipelined requests that the gateway answers by itself before it turns to other connections."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_HEX: Final = [b"%x" % number for number in range(4_096)]
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")


class Downstream:
    """An `asyncio.Protocol` by its methods only: a base class that is not compiled would slow every access.

    Fields by lifetime: the connection's, then the current request's.
    """

    __slots__ = (
        "buffer",
        "client",
        "consuming",
        "context",
        "eof",
        "exchange",
        "id_base",
        "phase",
        "read_paused",
        "sequence",
        "since_s",
        "transport",
        "unsent",
        "unsent_since_s",
        "write_paused",
    )

    def __init__(self, context: Context) -> None:
        self.context = context
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else is called
        self.client = Client("")
        self.id_base = b""
        self.sequence = 0
        self.phase = IDLE
        self.buffer = b""
        self.read_paused = False
        self.write_paused = False
        self.unsent = 0
        self.unsent_since_s = 0.0
        self.eof = False
        self.consuming = False
        self.exchange: Exchange | Waiting | LocalExchange | None = None
        self.since_s = context.now_s

    # --- the connection -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self.context
        self.transport = transport  # type: ignore[assignment]  # a stream transport
        peer = transport.get_extra_info("peername")
        self.client = Client(peer[0] if isinstance(peer, tuple) else "", guard=context.guard)
        if len(context.connections) >= context.limits.max_connections or self.client.address == "":
            self.phase = CLOSED
            self.transport.abort()  # a client already gone has no address (CVE-2024-49769)
            return
        context.connections.add(self)
        counters = context.counters
        counters.connections += 1
        self.id_base = b"%b-%x" % (context.id_prefix, counters.connections)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase == IDLE:
            self._consume(data)
        elif phase == HEAD:
            self._consume(self.buffer + data, len(self.buffer))
        elif phase == BUSY:
            exchange = self.exchange
            if exchange is not None and not exchange.request_done:
                self.since_s = self.context.now_s
                exchange.request_data(data)
            else:
                self.hold(data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if self.phase == BUSY and exchange is not None and exchange.request_done:
            # A half-closed client may still read. One that is gone looks the same: `proxy.timeouts` decides.
            self.eof = True
            self.since_s = self.context.now_s
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = CLOSED
        self.context.connections.discard(self)
        self.buffer = b""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.cancel()

    # --- requests -------------------------------------------------------------------------------------

    def _consume(self, data: bytes, looked_at: int = 0) -> None:
        """Serve the requests in `data` as far as they can be served now.

        The first `looked_at` bytes are a head's beginning that was good so far: looking again at each byte
        that comes would let a head that drips cost time in the square of its length.
        """
        self.consuming = True
        self.buffer = b""
        served = 0
        while True:
            if self.write_paused:
                self.buffer = data
                self.pause()
                break
            if data.startswith(b"\r\n"):
                # RFC 9112 section 2.2. All of them: how many one read holds must make no difference.
                data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # matches anything
                looked_at = 0
            start, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                if data:
                    self._await_head(data, looked_at)
                break
            end = len(start) + 4
            if end > self.context.limits.max_head_bytes:
                reason = what_is_too_large(data, self.context.limits.max_target_bytes)
                self._refuse(Refusal(reason, self._next_id()), None, b"")
                break
            self._begin(data[:end] if rest else data, rest)
            data = self.buffer
            served += 1
            if self.phase != IDLE or not data:
                break
            if served == MAX_SERVED_AT_ONCE:
                self.pause()
                self.context.loop.call_soon(self._go_on)
                self.consuming = False
                return
            self.buffer = b""
            looked_at = 0
        self.consuming = False
        if self.phase <= HEAD and not self.write_paused:
            if self.eof:
                self._close_after_answer(linger=False)  # all that a half-closed client asked for is served
            elif self.read_paused:
                self.resume()

    def _go_on(self) -> None:
        """Serve what a client pipelined, after the others have had their turn."""
        if self.phase <= HEAD and self.buffer and not self.consuming and not self.write_paused:
            self._consume(self.buffer)

    def _await_head(self, data: bytes, looked_at: int) -> None:
        """Keep an unfinished head, unless it can no longer become a good one."""
        limits = self.context.limits
        reason = start_problem(data, looked_at, limits.max_head_bytes, limits.max_target_bytes)
        if reason is not None:
            self._refuse(Refusal(reason, self._next_id()), None, b"")
            return
        self.buffer = data
        if self.phase == IDLE:
            self.phase = HEAD
            self.since_s = self.context.now_s

    def _begin(self, head_bytes: bytes, rest: bytes) -> None:
        context = self.context
        context.counters.requests += 1
        self.phase = IDLE
        self.sequence += 1
        sequence = self.sequence
        request_id = b"%b-%b" % (
            self.id_base,
            _HEX[sequence] if sequence < len(_HEX) else b"%x" % sequence,
        )
        head: RequestHead | Reason = Reason.INTERNAL_ERROR
        try:
            head = context.request_reader.read(head_bytes, context.limits.max_fields, context.snapshot)
            if head.__class__ is not RequestHead:
                self._refuse(Refusal(head, request_id), None, rest)  # type: ignore[arg-type]  # it is a Reason
                return
            if len(head.target) > context.limits.max_target_bytes:
                self._refuse(Refusal(Reason.TARGET_TOO_LONG, request_id), head, rest)
                return
            self._act(plan(head, context.snapshot, self.client, context.wall_s, request_id), head, rest)
        except Exception as error:  # a bug of ours must not take the worker with it
            known = head if isinstance(head, RequestHead) else None
            self._drop_exchange()
            context.report(Reason.INTERNAL_ERROR, None, request_id, f"{type(error).__name__}: {error}")
            self._refuse(Refusal(Reason.INTERNAL_ERROR, request_id), known, rest)

    def _act(self, decision: Plan, head: RequestHead, rest: bytes) -> None:
        """Do what was decided. `rest` is what has arrived behind the head."""
        kind = decision.__class__
        if kind is Forward:
            self.phase = BUSY
            self.exchange = exchange = Exchange(self, head, decision)  # type: ignore[arg-type]  # its class was looked at
            exchange.start(rest)
        elif kind is Refusal:
            self._refuse(decision, head, rest)  # type: ignore[arg-type]  # as above
        elif isinstance(decision, Pending):
            if not self.context.may_look_up(decision.gateway.name):
                self._refuse(Refusal(Reason.OVERLOADED, decision.request_id), head, rest)
                return
            self.phase = BUSY
            self.since_s = self.context.now_s
            self.exchange = waiting = Waiting(self, decision)
            if rest:
                self.hold(rest)
            waiting.start()
        elif isinstance(decision, Local):
            self.phase = BUSY
            self.since_s = self.context.now_s
            self.exchange = local = LocalExchange(self, decision)
            local.start(rest)
        elif isinstance(decision, Allowed):
            self._answer(decision.request_id, head, rest, 204, b"Allow: %b\r\n" % decision.allow)
        elif isinstance(decision, Redirect):
            lines = b"Location: %b\r\nCache-Control: no-store\r\n" % decision.location
            self._answer(decision.request_id, head, rest, 302, lines)

    def looked_up(self, waiting: Waiting, found: Identity | Denial) -> None:
        """A look-up is done: go on with the request that waited for it."""
        if self.exchange is not waiting:
            return
        self.exchange = None
        rest = self.buffer
        self.buffer = b""
        self._go_on_with(finish(waiting.pending, found, self.context.wall_s), waiting.head, rest)

    def answered(self, exchange: LocalExchange, answer: Reply | Denial) -> None:
        """One of the gateway's own endpoints has its answer."""
        if self.exchange is not exchange:
            return
        if isinstance(answer, Reply):
            close = exchange.close_after or self.context.draining
            self.write(
                own_response(
                    answer.status,
                    answer.lines,
                    answer.body,
                    request_id=exchange.request_id,
                    date_line=self.context.date_line,
                    close=close,
                    with_body=exchange.method != b"HEAD",
                )
            )
            self.exchange_done(close=close, request_done=True)
            return
        self.exchange = None
        rest = self.buffer
        self.buffer = b""
        head = exchange.head
        head.content_length, head.chunked, head.expect_continue = -1, False, False  # the body has been read
        self._go_on_with(finish_local(exchange.local, answer, self.context.wall_s), head, rest)

    def _go_on_with(self, decision: Plan, head: RequestHead, rest: bytes) -> None:
        try:
            self.phase = IDLE
            self._act(decision, head, rest)
            if self.phase == IDLE:
                self._next_request()
            elif self.eof and self.exchange is not None and not self.exchange.request_done:
                self.give_up()  # the rest of this request will never come
        except Exception as error:  # as in `_begin`
            self._drop_exchange()
            self.context.report(Reason.INTERNAL_ERROR, None, b"-", f"{type(error).__name__}: {error}")
            self.abort()

    def _drop_exchange(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.cancel()
            if exchange.response_begun:
                self.abort()

    def _next_id(self) -> bytes:
        self.sequence += 1
        return b"%b-%x" % (self.id_base, self.sequence)

    def hold(self, data: bytes) -> None:
        """Keep what arrived behind the current request; past a bound, take no more.

        Reading on is how a client that leaves is noticed, so a short pipeline does not end it.
        """
        self.buffer += data
        if len(self.buffer) > self.context.limits.max_head_bytes:
            self.pause()

    # --- answers of the gateway's own -------------------------------------------------------------------

    def _refuse(self, refusal: Refusal, head: RequestHead | None, rest: bytes) -> None:
        """Answer an unserved request; keep the connection only if the next request's start is known."""
        reason = refusal.reason
        counters = self.context.counters
        counters.refused[reason.value] = counters.refused.get(reason.value, 0) + 1
        if refusal.why:
            self.context.report(reason, None, refusal.request_id, refusal.why)
        keep = self._skip_body(head, rest) if head is not None and not TABLE[reason].closes else False
        self.write(
            problem_response(
                reason,
                request_id=refusal.request_id,
                date_line=self.context.date_line,
                detail=refusal.detail,
                extra_lines=refusal.extra_lines,
                retry_after_s=refusal.retry_after_s,
                close=not keep,
                with_body=head is None or head.method != b"HEAD",
            )
        )
        self._after_answer(keep=keep)

    def _answer(self, request_id: bytes, head: RequestHead, rest: bytes, status: int, lines: bytes) -> None:
        keep = self._skip_body(head, rest)
        self.write(
            own_response(
                status,
                lines,
                request_id=request_id,
                date_line=self.context.date_line,
                close=not keep,
            )
        )
        self._after_answer(keep=keep)

    def _skip_body(self, head: RequestHead, rest: bytes) -> bool:
        """Step over a body that nobody reads, if it has arrived whole; else the connection must close."""
        length = max(head.content_length, 0)
        if head.close or head.chunked or head.expect_continue or length > len(rest) or self.context.draining:
            return False
        self.buffer = rest[length:]
        return True

    def exchange_refused(self, exchange: Exchange | LocalExchange, reason: Reason) -> None:
        """An exchange ends without a response from the backend."""
        self.exchange = None
        counters = self.context.counters
        counters.refused[reason.value] = counters.refused.get(reason.value, 0) + 1
        close = (
            exchange.close_after or not exchange.request_done or TABLE[reason].closes or self.context.draining
        )
        self.write(
            problem_response(
                reason,
                request_id=exchange.request_id,
                date_line=self.context.date_line,
                close=close,
                with_body=exchange.method != b"HEAD",
            )
        )
        if close:
            self._close_after_answer(linger=not exchange.request_done or TABLE[reason].closes)
        else:
            self._next_request()

    def exchange_done(self, *, close: bool, request_done: bool) -> None:
        """The response has been written whole."""
        self.exchange = None
        if close or not request_done:
            self._close_after_answer(linger=not request_done)
        elif self.buffer or self.read_paused or self.eof:
            self._next_request()
        else:
            self.phase = IDLE
            self.since_s = self.context.now_s

    def _after_answer(self, *, keep: bool) -> None:
        if not keep:
            self._close_after_answer(linger=True)
        else:
            self.phase = IDLE
            self.since_s = self.context.now_s

    def _next_request(self) -> None:
        self.phase = IDLE
        self.since_s = self.context.now_s
        if self.buffer:
            if self.consuming:
                return  # the loop in `_consume` goes on with it
            data = self.buffer
            self.resume()
            self._consume(data)
        elif self.eof:
            self._close_after_answer(linger=False)
        elif self.read_paused:
            self.resume()

    def _close_after_answer(self, *, linger: bool) -> None:
        """Close; with `linger`, read and drop for a while what the client still sends.

        Closing a socket with unread bytes makes the kernel reset the connection, and the client would
        lose the answer (RFC 9112 section 9.6).
        """
        unread = self.read_paused or bool(self.buffer)
        self.buffer = b""
        transport = self.transport
        if self.phase == CLOSED or transport.is_closing():
            return
        if (linger or unread) and not self.eof and transport.can_write_eof():
            self.phase = LINGER
            self.since_s = self.context.now_s
            transport.write_eof()
            self.resume()
        else:
            self.phase = CLOSED
            self.since_s = self.context.now_s
            transport.close()

    # --- writing and backpressure -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self.phase < LINGER:
            self.transport.write(data)

    def abort(self) -> None:
        """Cut the connection: the client must see that the response is not whole."""
        exchange = self.exchange
        self.exchange = None
        self.phase = CLOSED
        if exchange is not None:
            if exchange.head.minor == 0 and exchange.response_begun:
                # Where the close is the end of the body, only a reset tells that this is not it.
                self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
            exchange.cancel()
        self.transport.abort()

    def cut(self) -> None:
        """Deliver what was written, then close: the client sees that the rest is missing."""
        self.exchange = None
        self.phase = CLOSED
        self.since_s = self.context.now_s
        self.transport.close()

    def pause(self) -> None:
        """Stop reading from the client."""
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            self.since_s = self.context.now_s
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.unsent = self.transport.get_write_buffer_size()
        self.unsent_since_s = self.context.now_s
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.resume()
        elif self.phase <= HEAD and self.buffer and not self.consuming:
            data = self.buffer
            self.resume()
            self._consume(data)

    # --- time (proxy.timeouts decides) ----------------------------------------------------------------------

    def head_overdue(self) -> None:
        """A head did not come to its end in time."""
        self._refuse(Refusal(Reason.REQUEST_TIMEOUT, self._next_id()), None, b"")

    def give_up(self) -> None:
        """The client is gone, or as good as gone."""
        self._drop_exchange()
        self.abort()

    def close_idle(self) -> bool:
        """Close if no request is under way; tell whether it did."""
        if self.phase != IDLE or self.buffer:
            return False
        self.phase = CLOSED
        self.transport.close()
        return True
