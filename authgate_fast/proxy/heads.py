"""Head parsing, by `http.plain` where it can, else with httptools, one parser per worker and direction.

A parser only ever sees complete heads (up to and with the empty line), so it is busy only inside one
call and every connection can share it; what follows a head is framed by `http.chunked` or by a
count, so that the end of a message is known to the byte. A parser that may hold state from a message is
replaced. Callbacks stay free of exceptions: httptools would swallow them.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from authgate_fast.errors import Reason
from authgate_fast.http.fields import plain_response_names
from authgate_fast.http.plain import Memo, read_plain_request, read_plain_response
from authgate_fast.http.request import RequestHead
from authgate_fast.http.response import ResponseHead
from authgate_fast.http.shape import MAX_SHAPE_BYTES, Shape, may_serve, read_shaped
from authgate_fast.snapshot import Snapshot

# The first 12 bytes of a status line -> (status, minor version). The parser has checked what follows them.
_STATUS: Final = {
    b"HTTP/1.%d %d" % (minor, status): (status, minor) for minor in (0, 1) for status in range(100, 1000)
}
# RFC 9112 section 4: behind the code a space and text, of which nothing is passed on. Stricter than the parser, which
# lets control bytes pass; looser than the RFC, for the space may be missing, as many servers have it.
_REASON: Final = re.compile(rb"(?: [\t -~\x80-\xff]*)?")
_SHORTEST_FIELD: Final = 4  # bytes of "a:" and CRLF
_METHOD_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32} ")
_HTTP_2: Final = b"PRI * HTTP/2.0\r\n"  # how its preface begins (RFC 9113 section 3.4)
_OTHER_VERSION: Final = re.compile(rb"HTTP/[0-9](?:\.[0-9])?\r\n")


class _Sink:
    """Collects what the parser finds in one head.

    ``open_head`` and ``open_message`` hold a mark until the parser has seen the end of the head and of the
    message; those callbacks are the lists' own ``clear``, which costs no Python frame.
    """

    __slots__ = ("fields", "on_headers_complete", "on_message_complete", "open_head", "open_message")

    def __init__(self) -> None:
        self.open_head: list[None] = []
        self.open_message: list[None] = []
        self.on_headers_complete = self.open_head.clear
        self.on_message_complete = self.open_message.clear
        self.reset()

    def reset(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.open_head.append(None)
        self.open_message.append(None)


class _RequestSink(_Sink):
    __slots__ = ("target",)

    def reset(self) -> None:
        self.fields = []
        self.target = b""
        self.open_head.append(None)
        self.open_message.append(None)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class _ResponseSink(_Sink):
    """``fields`` are only those whose name means something to a proxy; the others go on as they came."""

    __slots__ = ()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name not in plain_response_names:
            self.fields.append((name, value))


class RequestReader:
    """Reads request heads."""

    __slots__ = ("_memo", "_parser", "_sink", "_snapshot")

    def __init__(self) -> None:
        self._memo = Memo()
        self._snapshot: Snapshot | None = None  # the one that the memo's lines were classified for
        self._sink = _RequestSink()
        self._parser = httptools.HttpRequestParser(self._sink)

    def read(
        self, data: bytes, max_fields: int, snapshot: Snapshot | None = None, shape: Shape | None = None
    ) -> RequestHead | Reason:
        """Parse `data`, one complete request head and nothing else.

        With a `snapshot`, a plain head is also read for its gateways, and needs no parser. `shape` is that of the
        connection's last head.
        """
        if snapshot is not None:
            if snapshot is not self._snapshot:
                self._snapshot = snapshot
                self._memo = Memo()
            head = read_plain_request(
                data, max_fields, self._memo, snapshot.field_memo, snapshot.credential_fields, shape
            )
            if head is not None:
                return head
        sink = self._sink
        sink.reset()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # The shared parser may be at its end after a "Connection: close": judge with a new one.
            reason = self._read_anew(data)
            if reason is not None:
                return reason
        method = self._parser.get_method()
        if sink.open_message:
            self._parser = httptools.HttpRequestParser(sink)
            if sink.open_head:
                return Reason.VERSION_NOT_SUPPORTED if data.startswith(_HTTP_2) else Reason.BAD_REQUEST
        target = sink.target
        at = len(method) + len(target) + 2
        if data.startswith(b"HTTP/1.1\r\n", at):
            minor = 1
        elif data.startswith(b"HTTP/1.0\r\n", at):
            minor = 0
        elif _OTHER_VERSION.match(data, at):
            return Reason.VERSION_NOT_SUPPORTED
        else:
            return Reason.BAD_REQUEST  # two spaces, HTTP/0.9, RTSP, ICE
        if len(sink.fields) > max_fields:
            return Reason.HEAD_TOO_LARGE
        return RequestHead(method, target, minor, sink.fields)

    def read_like_last(
        self, data: bytes, max_fields: int, snapshot: Snapshot, shape: Shape
    ) -> RequestHead | None:
        """Read `data` if it is one whole head like the connection's last one, and nothing more.

        Whoever asks need not know where the head ends. Longer reads are left to who looks for that first: they may
        hold many heads, and each would be looked at as often as there are others before it.
        """
        if (
            snapshot is not self._snapshot
            or len(data) > MAX_SHAPE_BYTES
            or not may_serve(shape, self._memo, max_fields)
        ):
            return None
        return read_shaped(data, shape)

    def start_problem(self, line: bytes) -> Reason | None:
        """Judge a request line whose fields have not come yet, as `read` would."""
        head = self.read(line + b"\r\n", 0)
        return None if isinstance(head, RequestHead) else head

    def _read_anew(self, data: bytes) -> Reason | None:
        sink = self._sink
        sink.reset()
        self._parser = httptools.HttpRequestParser(sink)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return None  # CONNECT, or an Upgrade field: the head itself is whole
        except httptools.HttpParserInvalidMethodError:
            self._parser = httptools.HttpRequestParser(sink)
            if _METHOD_TOKEN.match(data):
                return Reason.METHOD_NOT_IMPLEMENTED
            return Reason.BAD_REQUEST
        except httptools.HttpParserError:
            self._parser = httptools.HttpRequestParser(sink)
            return Reason.VERSION_NOT_SUPPORTED if data.startswith(_HTTP_2) else Reason.BAD_REQUEST
        return None


class ResponseReader:
    """Reads response heads."""

    __slots__ = ("_memo", "_parser", "_sink")

    def __init__(self) -> None:
        self._memo = Memo()
        self._sink = _ResponseSink()
        self._parser = httptools.HttpResponseParser(self._sink)

    def read(self, data: bytes, end: int, max_fields: int) -> ResponseHead | str:
        """Parse the head in ``data[:end]``; a str says what is wrong with it.

        A plain one needs no parser. Else the usual response is a head with its whole body in one read: it is
        fed whole, which leaves the parser clean for the next one. Bytes behind the head that cannot be body
        might have reached the same callbacks (trailers, another response): then the head is read again, alone.
        """
        plain = self.read_plain(data[: end - 4], max_fields)
        return plain if plain is not None else self.read_parsed(data, end, max_fields)

    def known_end(self, data: bytes) -> int:
        """Return where the head in `data` ends if it is the last one again, else 0. Backends repeat their heads."""
        last = self._memo.last_head
        size = len(last)
        if size and data.startswith(last) and data[size : size + 4] == b"\r\n\r\n":
            return size + 4
        return 0

    def read_plain(self, head: bytes, max_fields: int) -> ResponseHead | None:
        """Read a head without its empty line if it is a plain one."""
        return read_plain_response(head, max_fields, self._memo)

    def read_parsed(self, data: bytes, end: int, max_fields: int) -> ResponseHead | str:
        """Do what `read` does, with the parser."""
        sink = self._sink
        sink.reset()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._read_alone(data[:end], max_fields)
        response = self._response(data, end, max_fields)
        extra = len(data) - end
        if not isinstance(response, ResponseHead) or response.error is not None or sink.open_head:
            return self._read_alone(data[:end], max_fields)
        if extra and not response.expects(extra):
            return self._read_alone(data[:end], max_fields)
        if sink.open_message:
            self._parser = httptools.HttpResponseParser(sink)
        return response

    def _response(self, data: bytes, end: int, max_fields: int) -> ResponseHead | str:
        known = _STATUS.get(data[:12])
        if known is None:
            return "a status line that is not HTTP/1.1 or HTTP/1.0 with a code from 100 to 999"
        line_end = data.index(b"\r\n")
        if _REASON.fullmatch(data, 12, line_end) is None:
            return "a control byte in the reason phrase"
        block = data[line_end : end - 2]
        if len(block) > _SHORTEST_FIELD * max_fields and block.count(b"\n") > max_fields + 1:
            return "too many fields"
        response = ResponseHead(*known)
        response.read(self._sink.fields, block)
        return response

    def _read_alone(self, head: bytes, max_fields: int) -> ResponseHead | str:
        """Read a head with a parser of its own, and leave a new one for the next."""
        sink = self._sink
        sink.reset()
        self._parser = httptools.HttpResponseParser(sink)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self._parser = httptools.HttpResponseParser(sink)
            return f"a malformed head ({error})"
        self._parser = httptools.HttpResponseParser(sink)
        return "a malformed head" if sink.open_head else self._response(head, len(head), max_fields)
