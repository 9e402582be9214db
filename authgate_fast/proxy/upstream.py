"""A connection to a backend: reads one response at a time and passes it on as it comes.

It serves one `Exchange` at a time and goes back to its pool only when the response ended exactly where
its framing says, the request was sent whole, and neither side asked for a close. A byte or an EOF on
an idle connection ends it.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.http.chunked import (
    LAST_CHUNK,
    MAX_RESPONSE_OVERHEAD_BYTES,
    ChunkedDecoder,
    FramingError,
    encode_chunk,
    encode_pieces,
)
from authgate_fast.http.head_start import response_start_problem
from authgate_fast.http.response import ResponseHead

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.proxy.pool import Pool

_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3

WRITE_HIGH_WATER: Final = 131_072
"""Bytes that may wait to be sent before the other side is paused."""


def _not_connected(_timeout_ms: int) -> object:
    raise RuntimeError("a connection is asked before it was made")


class Upstream:
    """An `asyncio.Protocol` by its methods only: a base class that is not compiled would slow every access.

    Fields by lifetime: the connection's first, then those of one exchange, which end as they began.
    """

    __slots__ = (
        "address",
        "buffer",
        "chunk_out",
        "closed",
        "context",
        "counted",
        "decoder",
        "eof",
        "exchange",
        "idle_until_s",
        "interim",
        "keep_alive_s",
        "left",
        "must_close",
        "phase",
        "poll",
        "pool",
        "read_paused",
        "serial",
        "since_s",
        "transport",
        "write_paused",
    )

    def __init__(self, context: Context, pool: Pool) -> None:
        self.context = context
        self.pool = pool
        self.address = ""
        self.serial = 0  # of the pool's addresses, when it was last known to lead to one of them
        self.poll: Callable[[int], object] = _not_connected
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else is called
        self.closed = False
        self.eof = False
        self.counted = False  # by the pool, once it is connected
        self.read_paused = False
        self.write_paused = False
        self.idle_until_s = 0.0
        self.keep_alive_s = -1
        self.exchange: Exchange | None = None
        self.phase = _HEAD
        self.buffer = b""
        self.left = 0
        self.decoder: ChunkedDecoder | None = None
        self.chunk_out = False
        self.must_close = False
        self.interim = 0
        self.since_s = context.now_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, for TCP and TLS alike
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0]
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.poll = poll.poll

    def is_silent(self) -> bool:
        """Ask the kernel whether the backend has sent nothing, no end and no reset either, that we did not read."""
        return not self.poll(0)

    def write(self, data: bytes) -> None:
        """Send request bytes."""
        if not self.closed:
            self.transport.write(data)

    def abort(self) -> None:
        """End the connection at once; nobody is told."""
        self.exchange = None
        self.closed = True
        self.transport.abort()

    # --- the response -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.abort()  # bytes that no request asked for
            return
        phase = self.phase
        if phase == _HEAD:
            looked_at = len(self.buffer)
            if looked_at:
                data = self.buffer + data
                self.buffer = b""
            else:
                self.since_s = self.context.now_s  # of a head's first byte: a drip is no progress
            self._read_head(data, exchange, looked_at)
            return
        self.since_s = self.context.now_s
        if phase == _LENGTH:
            size = len(data)
            if size < self.left:
                self.left -= size
                exchange.downstream.write(data)
            else:
                if size > self.left:
                    data = data[: self.left]
                    self.must_close = True
                exchange.downstream.write(data)
                self._complete(exchange)
        elif phase == _CHUNKED:
            self._read_chunks(data, exchange, b"")
        else:
            exchange.downstream.write(encode_chunk(data) if self.chunk_out else data)

    def _read_head(self, data: bytes, exchange: Exchange, looked_at: int) -> None:
        limits = self.context.limits
        reader = self.context.response_reader
        while True:
            end = reader.known_end(data) or data.find(b"\r\n\r\n") + 4
            if end < 4:
                problem = response_start_problem(data, looked_at, limits.max_head_bytes)
                if problem is None:
                    self.context.took(len(data))
                    self.buffer = data
                else:
                    self._fail(exchange, problem)
                return
            if end > limits.max_head_bytes:
                self._fail(exchange, "a response head over max_head_bytes")
                return
            response: ResponseHead | str | None = reader.read_plain(data[: end - 4], limits.max_fields)
            if response is None:
                response = reader.read_parsed(data, end, limits.max_fields)
            if not isinstance(response, ResponseHead):
                self._fail(exchange, str(response))
                return
            if response.error is not None:
                self._fail(exchange, response.error)
                return
            body = data[end:]
            if response.status >= 200:
                break
            if response.status == 101:
                exchange.switch(response, body)
                return
            self.interim += 1
            if self.interim > limits.max_interim_responses:
                self.context.counters.hit("max_interim_responses")
                self._fail(exchange, f"more than {limits.max_interim_responses} interim responses")
                return
            if response.status != 100:
                exchange.send_interim(response)
            if not body:
                return
            data = body
            looked_at = 0
        self._read_body_start(response, body, exchange)

    def _read_body_start(self, response: ResponseHead, body: bytes, exchange: Exchange) -> None:
        """Choose the framing of the body (RFC 9112 section 6.3) and pass on head and first bytes in one write."""
        # Bytes of a refused tunnel may be on their way: nobody's next request may meet them (CVE-2026-73548).
        self.must_close = response.close or exchange.head.upgrade != b""
        self.keep_alive_s = response.keep_alive_s
        have = len(body)
        length = response.content_length
        if response.has_no_body(exchange.method):
            # A body that was announced may still come, wrongly: it must not become the next answer. After HEAD, no
            # announcement is one too: a body until the end.
            if body or length > 0 or response.chunked or (length < 0 and exchange.method == b"HEAD"):
                self.must_close = True
            exchange.downstream.write(exchange.response_head(response, b""))
            self._complete(exchange)
        elif length >= 0:
            if have > length:
                self.must_close = True
                body = body[:length]
                have = length
            exchange.downstream.write(exchange.response_head(response, b"", body))
            if have == length:
                self._complete(exchange)
            else:
                self.phase = _LENGTH
                self.left = length - have
        else:
            self.chunk_out = exchange.head.minor == 1
            if not self.chunk_out:
                exchange.close_after = exchange.ends_with_connection = True
            head = exchange.response_head(
                response, b"Transfer-Encoding: chunked\r\n" if self.chunk_out else b""
            )
            if response.chunked:
                self.phase = _CHUNKED
                self.decoder = ChunkedDecoder(MAX_RESPONSE_OVERHEAD_BYTES)
                self._read_chunks(body, exchange, head)
                return
            self.phase = _UNTIL_CLOSE
            exchange.downstream.write(head + encode_chunk(body) if body and self.chunk_out else head + body)

    def _read_chunks(self, data: bytes, exchange: Exchange, head: bytes) -> None:
        """Check the backend's chunks and frame them anew, one chunk for each read."""
        decoder = self.decoder
        assert decoder is not None  # set with the phase
        pieces: list[bytes] = []
        try:
            used = decoder.feed(data, pieces)
        except FramingError as error:
            if decoder.limit:
                self.context.counters.hit(decoder.limit)
            if head:
                exchange.downstream.write(head)
            self._fail(exchange, str(error))
            return
        if not self.chunk_out:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            body = encode_pieces(pieces)
            if decoder.done:
                body += LAST_CHUNK
        if head or body:
            exchange.downstream.write(head + body)
        if decoder.done:
            self.decoder = None
            if used < len(data):
                self.must_close = True
            self._complete(exchange)

    def _complete(self, exchange: Exchange) -> None:
        self.exchange = None
        if self.must_close or self.write_paused or not exchange.request_done or self._owes_bytes(exchange):
            self.abort()
        else:
            if self.read_paused:
                self.resume()
            self.phase = _HEAD
            self.interim = 0
            self.pool.release(self)
        exchange.complete()
        exchange.downstream.exchange_done(close=exchange.close_after, request_done=exchange.request_done)

    def _owes_bytes(self, exchange: Exchange) -> bool:
        """Tell whether the backend answered before it could have read all of the body."""
        head = exchange.head
        return (head.chunked or head.content_length > 0) and self.transport.get_write_buffer_size() > 0

    def _fail(self, exchange: Exchange, what: str) -> None:
        exchange.refuse(Reason.UPSTREAM_PROTOCOL_ERROR, what)

    # --- backpressure and the end -------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
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
        self.since_s = self.context.now_s
        if self.exchange is not None and not self.exchange.request_done:
            self.exchange.downstream.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.since_s = self.context.now_s
        if self.exchange is not None and not self.exchange.request_done:
            self.exchange.downstream.resume()

    def eof_received(self) -> bool:
        """The backend ended its stream; over TLS only a close_notify says so, and a cut does not come here."""
        self.eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.forget(self)
        exchange = self.exchange
        self.exchange = None
        if exchange is None:
            return
        if self.phase == _UNTIL_CLOSE and exc is None and self.eof:
            if self.chunk_out:
                exchange.downstream.write(LAST_CHUNK)
            exchange.complete()
            exchange.downstream.exchange_done(close=exchange.close_after, request_done=exchange.request_done)
            return
        if exc is not None and not isinstance(exc, OSError):  # a bug of ours: the loop ends what raised it
            exchange.refuse(Reason.INTERNAL_ERROR, f"{type(exc).__name__}: {exc}")
            return
        what = (
            f"the backend closed the connection ({exc})" if exc else "the backend closed the connection early"
        )
        exchange.upstream_lost(what, begun=self.phase != _HEAD or bool(self.buffer) or self.interim > 0)
