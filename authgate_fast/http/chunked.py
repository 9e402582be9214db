"""The chunked transfer coding, strictly (RFC 9112 section 7.1). Sans-IO.

Stance: stricter than the RFC asks. Lines end in CRLF only; sizes are 1 to 15 hex digits; extensions
are checked against the grammar, then ignored; trailer fields are checked, counted and dropped. What
follows the last chunk is never looked at, so the caller knows to the byte where the message ended.
"""

from __future__ import annotations

import re
from typing import Final

_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:[ \t]*;[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?:[ \t]*=[ \t]*(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb'|"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*"))?)*'
)
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t \x21-\x7e\x80-\xff]*")

MAX_LINE_BYTES: Final = 1_024
"""One chunk-size line; no honest sender comes near it."""
MAX_TRAILER_BYTES: Final = 8_192
"""All trailer fields of a message together."""
MAX_TRAILER_FIELDS: Final = 100
"""As many as a head may have by default (``max_fields``)."""
MAX_OVERHEAD_BYTES: Final = 65_536
"""Framing bytes a client may spend beyond one for each body byte: stops floods of tiny chunks."""
MAX_RESPONSE_OVERHEAD_BYTES: Final = 16_777_216
"""The same for a backend, which may well flush word by word."""

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4


class FramingError(ValueError):
    """The body's framing is broken; the connection it came on cannot be used any more."""


def encode_chunk(data: bytes) -> bytes:
    """Frame `data`, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_pieces(pieces: list[bytes]) -> bytes:
    """Frame pieces as one chunk, with one copy of each; b"" without a byte, for an empty chunk ends the body."""
    size = 0
    for piece in pieces:
        size += len(piece)
    if not size:
        return b""
    return b"".join([b"%x\r\n" % size, *pieces, b"\r\n"])


LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkedDecoder:
    """Decodes one message body; `feed` it until `done`. ``limit`` names the bound that a refused body broke, if any."""

    __slots__ = (
        "_left", "_line", "_max_overhead_bytes", "_overhead", "_state", "_trailer_bytes", "_trailers", "done", "limit",
    )  # fmt: skip

    def __init__(self, max_overhead_bytes: int = MAX_OVERHEAD_BYTES) -> None:
        self._max_overhead_bytes = max_overhead_bytes
        self.done = False
        self.limit = ""
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._overhead = 0
        self._trailer_bytes = 0
        self._trailers = 0

    def feed(self, data: bytes, pieces: list[bytes]) -> int:
        """Append the body bytes in `data` to `pieces`; return how many bytes of it belong to this message.

        The count is less than ``len(data)`` only when the message ended. Raises FramingError.
        """
        at = 0
        size = len(data)
        while at < size:
            state = self._state
            if state == _DATA:
                end = at + self._left
                if end <= size:
                    pieces.append(data[at:end])
                    self._left = 0
                    self._state = _DATA_END
                    at = end
                else:
                    pieces.append(data[at:] if at else data)
                    self._left = end - size
                    return size
            elif state == _DONE:
                return at
            else:
                line, at = self._take_line(data, at)
                if line is None:
                    return at
                self._line_complete(line)
                if self.done:
                    return at
        return at

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Return the line that starts at `at` without its CRLF, or None when `data` ends inside it."""
        newline = data.find(b"\n", at)
        stop = len(data) if newline == -1 else newline + 1
        if len(self._line) + stop - at > MAX_LINE_BYTES and self._state != _TRAILER:
            self.limit = "max_chunk_line_bytes"
            raise FramingError("a chunk-size line is too long")
        line = self._line + data[at:stop]
        if len(line) + self._trailer_bytes > MAX_TRAILER_BYTES and self._state == _TRAILER:
            self.limit = "max_trailer_bytes"
            raise FramingError("the trailer section is too long")
        if newline == -1:
            if self._state == _DATA_END and line not in (b"\r", b""):
                raise FramingError("chunk data does not end where its size says")
            if b"\r" in line.removesuffix(b"\r"):
                raise FramingError("a line of the chunked framing holds a bare CR")
            self._line = line
            return None, stop
        self._line = b""
        if line[-2:-1] != b"\r":
            raise FramingError("a line of the chunked framing ends in a bare LF")
        return line[:-2], stop

    def _line_complete(self, line: bytes) -> None:
        state = self._state
        if state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise FramingError("a chunk size is not a plain hexadecimal number")
            digits = match.group(1)
            self._left = int(digits, 16)  # digits were checked above: 1 to 15 hex digits, nothing else
            self._state = _DATA if self._left else _TRAILER
            self._overhead += len(line) + 4 - self._left
            if self._overhead < 0:
                self._overhead = 0
            elif self._overhead > self._max_overhead_bytes:
                self.limit = "max_chunk_overhead_bytes"
                raise FramingError("too much framing for too little data")
        elif state == _DATA_END:
            if line:
                raise FramingError("chunk data does not end where its size says")
            self._state = _SIZE
        elif line:
            if _TRAILER_LINE.fullmatch(line) is None:
                raise FramingError("a trailer field is malformed")
            self._trailer_bytes += len(line) + 2
            self._trailers += 1
            if self._trailers > MAX_TRAILER_FIELDS:
                self.limit = "max_trailer_fields"
                raise FramingError("too many trailer fields")
        else:
            self._state = _DONE
            self.done = True
