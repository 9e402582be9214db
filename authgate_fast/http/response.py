"""A response head from a backend: read once, refused where its framing is in any doubt. Sans-IO.

RFC 9112 section 6.3 from the side of a proxy: a response whose length two readers could see
differently is an upstream_protocol_error, never repaired.
"""

from __future__ import annotations

import re

from authgate_fast.http.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    KEEP_ALIVE,
    TRANSFER_ENCODING,
    classify_response,
    connection_options,
    lower,
    response_codes,
    without_fields,
)

_LENGTH = re.compile(rb"[0-9]{1,18}")
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:.*[, ])?timeout=([0-9]{1,6})(?:[, ].*)?")

_NO_NAMES: frozenset[bytes] = frozenset()
_NOT_NOMINATED = {b"set-cookie", b"content-type", b"content-encoding", b"date", b"vary", b"cache-control"}


class ResponseHead:
    """One response head.

    ``lines`` are the end-to-end field lines as they go to the client (framing fields are not among
    them). ``content_length`` is -1 when there is none. ``keep_alive_s`` is what the backend announces
    in ``Keep-Alive: timeout=`` (-1: nothing). ``error`` says what is wrong, or None.
    """

    __slots__ = ("chunked", "close", "content_length", "error", "has_date", "keep_alive_s", "lines", "minor", "nominated", "status")

    def __init__(self, status: int, minor: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.minor = minor
        self.lines: list[bytes] = []
        self.content_length = -1
        self.chunked = False
        self.close = minor == 0
        self.has_date = False
        self.keep_alive_s = -1
        self.error: str | None = None
        self.nominated: frozenset[bytes] = _NO_NAMES
        lines = self.lines
        for name, value in fields:
            code = response_codes(name)
            if code is None:
                code = classify_response(name)
            if not code:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif code == DATE:
                self.has_date = True
                lines.append(b"%b: %b\r\n" % (name, value))
            elif code == CONTENT_LENGTH:
                if self.content_length != -1 or _LENGTH.fullmatch(value) is None:
                    self.error = "a doubled or malformed Content-Length"
                    return
                self.content_length = int(value)  # plain ASCII digits, checked above
            else:
                self._read_special(code, value)
        if self.nominated:
            self.lines = without_fields(lines, self.nominated - _NOT_NOMINATED)
        if self.chunked and self.content_length != -1:
            self.error = "Content-Length together with Transfer-Encoding"

    def _read_special(self, code: int, value: bytes) -> None:
        if code == CONNECTION:
            if value in (b"keep-alive", b"close"):
                self.close = self.close or value == b"close"
                return
            for option in connection_options(value):
                if option == b"close":
                    self.close = True
                elif option != b"keep-alive":
                    self.nominated |= {option}
        elif code == TRANSFER_ENCODING:
            if self.chunked or self.minor == 0 or lower(value.strip(b" \t")) != b"chunked":
                self.error = "a Transfer-Encoding other than one 'chunked' on HTTP/1.1"
            self.chunked = True
        elif code == KEEP_ALIVE:
            match = _KEEP_ALIVE_TIMEOUT.fullmatch(lower(value))
            if match is not None:
                self.keep_alive_s = int(match.group(1))  # 1 to 6 ASCII digits

    def has_no_body(self, method: bytes) -> bool:
        """RFC 9112 section 6.3, rule 1: these end with their head, whatever their fields say."""
        return method == b"HEAD" or self.status in (204, 304) or self.status < 200
