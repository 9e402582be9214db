"""A client's connection: cuts the byte stream into requests and serves them one after the other.

Pipelined requests wait as raw bytes, unparsed, until the one before is answered; behind a refusal that
closes, nothing is read as HTTP any more. Answers therefore leave in order, and memory is bounded by
one head, one read and the write buffer.
"""

from __future__ import annotations

import re
import struct
from socket import SO_LINGER, SOL_SOCKET
from time import perf_counter
from typing import TYPE_CHECKING, Final

from authgate_fast.decision import Client, Refusal
from authgate_fast.errors import Reason
from authgate_fast.http.head_start import is_line_too_long, new_first_line, start_problem
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import plan
from authgate_fast.proxy.acting import act, answered, looked_up
from authgate_fast.proxy.own_answers import refuse, refuse_unread
from authgate_fast.proxy.phases import BUSY, CLOSED, HEAD, IDLE, LINGER

if TYPE_CHECKING:
    import asyncio

    from authgate_fast.auth.interface import Denial
    from authgate_fast.decision import Reply
    from authgate_fast.http.shape import Shape
    from authgate_fast.proxy.context import Context, Meet
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.proxy.pace import Pace
    from authgate_fast.proxy.waiting import LocalExchange, Waiting
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
        "address_name",
        "begun_s",
        "body_pace",
        "buffer",
        "client",
        "consuming",
        "context",
        "eof",
        "exchange",
        "head_bytes",
        "id_base",
        "meet",
        "phase",
        "read_paused",
        "send_pace",
        "sent_before",
        "sequence",
        "shape",
        "since_s",
        "transport",
        "unsent",
        "unsent_since_s",
        "write_paused",
        "written",
    )

    def __init__(self, context: Context, meet: Meet | None = None) -> None:
        self.context = context
        self.meet = meet
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else is called
        self.client = Client("")
        self.address_name = ""
        self.id_base = b""
        self.sequence = 0
        self.shape: Shape | None = None
        self.phase = IDLE
        self.buffer = b""
        self.read_paused = False
        self.write_paused = False
        self.written = 0
        self.send_pace: Pace | None = None
        self.body_pace: Pace | None = None
        self.unsent = 0
        self.unsent_since_s = 0.0
        self.eof = False
        self.consuming = False
        self.sent_before = 0
        self.head_bytes = 0
        self.begun_s = 0.0
        self.exchange: Exchange | Waiting | LocalExchange | None = None
        self.since_s = context.now_s

    # --- the connection -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self.context
        self.transport = transport  # type: ignore[assignment]  # a stream transport
        meet = self.meet
        if meet is None:
            peer = transport.get_extra_info("peername")
            self.client = Client(peer[0] if isinstance(peer, tuple) else "", guard=context.guard)
        else:
            self.meet = None
            self.client = meet(transport) or self.client
        self.client.tracing = context.tracing
        if not context.admission.admit(context, self):
            self.phase = CLOSED
            self.transport.abort()
            return
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
            return self.transport.can_write_eof()  # TLS ends both ways at once
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = CLOSED
        self.context.admission.forget(self.context, self)
        self.buffer = b""
        self.shape = None
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
                self.context.took(len(data))
                self.pause()
                break
            if data.startswith(b"\r\n"):
                # RFC 9112 section 2.2. All of them: how many one read holds must make no difference.
                data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # matches anything
                looked_at = 0
                self.phase = IDLE  # if the first of them came in two pieces, that was no head's beginning
            head = self._like_the_last(data)
            end = data.find(b"\r\n\r\n") + 4 if head is None else len(data)
            if end < 4:
                if data:
                    self._await_head(data, looked_at)
                break
            limits = self.context.limits
            if end > limits.max_head_bytes or (
                end > limits.max_target_bytes and is_line_too_long(data, limits.max_target_bytes)
            ):
                self._refuse_start(self._start_problem(data, looked_at) or Reason.HEAD_TOO_LARGE, data)
                break
            if end < len(data):
                self._begin(data[:end], data[end:])
            else:
                self._begin(data, b"", head)
            data = self.buffer
            served += 1
            if self.phase != IDLE or not data:
                break
            if served == MAX_SERVED_AT_ONCE:
                self.context.took(len(data))
                self.pause()
                self.context.loop.call_soon(self._go_on)
                self.consuming = False
                return
            self.buffer = b""
            looked_at = 0
        self.consuming = False
        if self.phase <= HEAD and not self.write_paused:
            if self.eof:
                self.close_after_answer(linger=False)  # all that a half-closed client asked for is served
            elif self.read_paused:
                self.resume()

    def _like_the_last(self, data: bytes) -> RequestHead | None:
        """Read one head like the last one, if `data` is that and nothing more: nobody has to look for its end."""
        shape = self.shape
        if shape is None:
            return None
        context = self.context
        return context.request_reader.read_like_last(data, context.limits.max_fields, context.snapshot, shape)

    def _go_on(self) -> None:
        """Serve what a client pipelined, after the others have had their turn."""
        if self.phase <= HEAD and self.buffer and not self.consuming and not self.write_paused:
            self._consume(self.buffer)

    def _await_head(self, data: bytes, looked_at: int) -> None:
        """Keep an unfinished head, unless it can no longer become a good one."""
        reason = self._start_problem(data, looked_at)
        if reason is not None:
            self._refuse_start(reason, data)
            return
        self.buffer = data
        self.context.took(len(data) - looked_at)
        if self.phase == IDLE:
            self.phase = HEAD
            if data != b"\r":  # half an empty line is no progress either
                self.since_s = self.context.now_s

    def _start_problem(self, data: bytes, looked_at: int) -> Reason | None:
        """Judge the beginning of a head as if it had come byte by byte: first its first line, then what follows."""
        limits = self.context.limits
        line = new_first_line(data, looked_at)
        if line and not is_line_too_long(data, limits.max_target_bytes):
            # What can be no request, such as HTTP/0.9, is not waited for.
            problem = start_problem(line, looked_at, limits.max_head_bytes, limits.max_target_bytes)
            if problem is None:
                problem = self.context.request_reader.start_problem(line)
            if problem is not None:
                return problem
        return start_problem(data, looked_at, limits.max_head_bytes, limits.max_target_bytes)

    def _refuse_start(self, reason: Reason, data: bytes) -> None:
        """Refuse what cannot become a good head any more."""
        if reason is Reason.HEAD_TOO_LARGE:
            self.context.counters.hit("max_head_bytes")
        refuse_unread(self, reason, data)

    def _begin(self, head_bytes: bytes, rest: bytes, known: RequestHead | None = None) -> None:
        """Begin a request; `known` is its head if that has been read already."""
        context = self.context
        context.counters.requests += 1
        self.phase = IDLE
        self.begun_s = perf_counter()
        self.head_bytes = len(head_bytes)
        self.sent_before = self.written
        self.sequence += 1
        sequence = self.sequence
        request_id = b"%b-%b" % (
            self.id_base,
            _HEX[sequence] if sequence < len(_HEX) else b"%x" % sequence,
        )
        head: RequestHead | Reason = Reason.INTERNAL_ERROR
        try:
            head = known or context.request_reader.read(
                head_bytes, context.limits.max_fields, context.snapshot, self.shape
            )
            if not isinstance(head, RequestHead):
                if head is Reason.HEAD_TOO_LARGE:  # its bytes were counted before
                    context.counters.hit("max_fields")
                refuse_unread(self, head, head_bytes, request_id)
                return
            self.shape = head.shape
            if sequence >= context.limits.max_requests_per_connection:
                head.close = True
                context.counters.hit("max_requests_per_connection")
            if len(head.target) > context.limits.max_target_bytes:
                refuse(self, Refusal(Reason.TARGET_TOO_LONG, request_id), head, rest)
                return
            act(self, plan(head, context.snapshot, self.client, context.wall_s, request_id), head, rest)
        except Exception as error:  # a bug of ours must not take the worker with it
            known = head if isinstance(head, RequestHead) else None
            self.drop_exchange()
            context.report(Reason.INTERNAL_ERROR, None, request_id, f"{type(error).__name__}: {error}")
            refuse(self, Refusal(Reason.INTERNAL_ERROR, request_id), known, rest)

    def looked_up(self, waiting: Waiting, found: Identity | Denial) -> None:
        """A look-up is done: go on with the request that waited for it."""
        if self.exchange is waiting:
            looked_up(self, waiting, found)

    def answered(self, exchange: LocalExchange, answer: Reply | Denial) -> None:
        """One of the gateway's own endpoints has its answer."""
        if self.exchange is exchange:
            answered(self, exchange, answer)

    def drop_exchange(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.cancel()
            if exchange.response_begun:
                self.abort()

    def next_id(self) -> bytes:
        self.sequence += 1
        return b"%b-%x" % (self.id_base, self.sequence)

    def hold(self, data: bytes) -> None:
        """Keep what arrived behind the current request; past a bound, take no more.

        Reading on is how a client that leaves is noticed, so a short pipeline does not end it.
        """
        self.buffer += data
        self.context.took(len(data))
        if len(self.buffer) > self.context.limits.max_head_bytes:
            self.pause()

    def exchange_done(self, *, close: bool, request_done: bool) -> None:
        """The response has been written whole."""
        self.exchange = None
        if close or not request_done:
            self.close_after_answer(linger=not request_done)
        elif self.buffer or self.read_paused or self.eof:
            self.next_request()
        else:
            self.phase = IDLE
            self.since_s = self.context.now_s

    def after_answer(self, *, keep: bool) -> None:
        if not keep:
            self.close_after_answer(linger=True)
        else:
            self.phase = IDLE
            self.since_s = self.context.now_s

    def next_request(self) -> None:
        self.phase = IDLE
        self.since_s = self.context.now_s
        if self.buffer:
            if self.consuming:
                return  # the loop in `_consume` goes on with it
            data = self.buffer
            self.resume()
            self._consume(data)
        elif self.eof:
            self.close_after_answer(linger=False)
        elif self.read_paused:
            self.resume()

    def close_after_answer(self, *, linger: bool) -> None:
        """Close; with `linger`, read and drop for a while what the client still sends. A TLS transport does so anyway.

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
            size = len(data)
            self.written += size
            self.context.took(size)
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
        refuse(self, Refusal(Reason.REQUEST_TIMEOUT, self.next_id()), None, b"")

    def give_up(self) -> None:
        """The client is gone, or as good as gone."""
        self.drop_exchange()
        self.abort()

    def close_idle(self) -> bool:
        """Close if no request is under way; tell whether it did."""
        if self.phase != IDLE or self.buffer:
            return False
        self.phase = CLOSED
        self.transport.close()
        return True
