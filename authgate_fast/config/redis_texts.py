"""Asks Redis for the two replies that are as long as the configuration, those of SCAN and MGET, and reads them.

A client library spends microseconds on each text of a reply, and a start reads hundreds of thousands. This reads
nothing but arrays of bulk strings, straight from the connection's stream; whatever else comes is an error. A text
over the bound is read past, never held.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import IncompleteReadError
from collections.abc import Sequence
from typing import NamedTuple

from redis._parsers import BaseParser
from redis.exceptions import ConnectionError, InvalidResponse  # noqa: A004  # see redis_link

_CHUNK_BYTES = 262_144
_MAX_LINE_BYTES = 65_536
_is_header = re.compile(rb"[*$](-1|[0-9]{1,10})").fullmatch
_MAX_DIGITS = 10
_SIZES = [b"$%d" % size for size in range(256)]
_NULLS = (b"$-1", b"_")


class TooLarge(NamedTuple):
    """Stands for a text longer than the bound; ``size`` is its length in bytes."""

    size: int


Text = bytes | TooLarge | None


def pack_command(words: Sequence[str | bytes | int]) -> bytes:
    """Return a command as it goes over the wire: an array of bulk strings."""
    lines = [b"*%d" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        size = len(raw)
        lines.append(_SIZES[size] if size < len(_SIZES) else b"$%d" % size)
        lines.append(raw)
    lines.append(b"")
    return b"\r\n".join(lines)


class TextsReader:
    """Reads replies, one by one. Only for a connection on which nothing but those can come."""

    __slots__ = ("_at", "_data", "_is_new", "_max_bytes", "_stream")

    def __init__(self, stream: asyncio.StreamReader, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0
        self._is_new = False  # whether there is data that nobody has cut into lines

    async def texts(self) -> list[Text]:
        """Return an array of texts, such as MGET's reply."""
        count = await self._header(b"*")
        found: list[Text] = []
        self._is_new = True
        while len(found) < count:
            self._take_whole(found, count)
            if len(found) < count:
                found.append(await self._text())
        return found

    async def page(self) -> tuple[bytes, list[bytes]]:
        """Return a cursor and the texts of its page: SCAN's reply."""
        if await self._header(b"*") != 2:
            raise InvalidResponse("not a page of SCAN")
        cursor, texts = await self._text(), await self.texts()
        if not isinstance(cursor, bytes) or None in texts:
            raise InvalidResponse("not a page of SCAN")
        return cursor, [text for text in texts if isinstance(text, bytes)]  # no document has a name so long

    def _take_whole(self, found: list[Text], count: int) -> None:
        """Take the texts that have arrived whole and need no second look."""
        if self._is_new:
            self._is_new = False
            self._take_lines(found, count)
        data, at = self._data, self._at
        max_bytes = self._max_bytes
        for _ in range(count - len(found)):
            end = data.find(b"\r\n", at, at + 16)
            if end < 0 or data[at : at + 1] != b"$":
                break
            digits = data[at + 1 : end]
            if not digits.isdigit():  # bytes: ASCII digits only
                break
            size = int(digits)  # at most 13 digits, checked above
            start = end + 2
            end = start + size
            if size > max_bytes or data[end : end + 2] != b"\r\n":
                break
            found.append(data[start:end])
            at = end + 2
        self._at = at

    def _take_lines(self, found: list[Text], count: int) -> None:
        """Take texts from the first on while each is one line, as a document mostly is.

        All lines are cut at once, and most sizes are the one before: a third of what text by text costs.
        """
        at, max_bytes = self._at, self._max_bytes
        lines = self._data[at:].split(b"\r\n", 2 * (count - len(found)))
        last = len(lines) - 1  # what follows the last end of a line is no line yet
        index = size = 0
        header = b"\r\n"  # no line is that
        while index < last and len(found) < count:
            line = lines[index]
            if line != header:
                if line in _NULLS:
                    found.append(None)
                    at += len(line) + 2
                    index += 1
                    continue
                digits = line[1:]
                if line[:1] != b"$" or len(digits) > _MAX_DIGITS or not digits.isdigit():
                    break
                header, size = line, int(digits)  # at most 10 ASCII digits, checked above
                if size > max_bytes:
                    break
            index += 1
            if index == last or len(lines[index]) != size:
                break
            found.append(lines[index])
            at += len(header) + size + 4
            index += 1
        self._at = at

    async def _text(self) -> Text:
        size = await self._header(b"$")
        if size < 0:
            return None
        if size > self._max_bytes:
            await self._skip(size + 2)
            return TooLarge(size)
        end = self._at + size
        while len(self._data) < end + 2:
            await self._more()
            end = self._at + size
        text = self._data[self._at : end]
        if self._data[end : end + 2] != b"\r\n":
            raise InvalidResponse("a text that does not end where its size says")
        self._at = end + 2
        return text

    async def _header(self, kind: bytes) -> int:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            if len(self._data) - self._at > _MAX_LINE_BYTES:
                raise InvalidResponse("a line without an end")
            await self._more()
        line = self._data[self._at : end]
        self._at = end + 2
        if line == b"_":  # RESP3's null
            return -1
        if line[:1] == b"-":
            raise BaseParser.parse_error(line[1:].decode("utf-8", "replace"))  # type: ignore[no-untyped-call]  # redis-py has no type for it
        if line[:1] != kind or _is_header(line) is None:
            raise InvalidResponse("another kind of reply than the command has")
        return int(line[1:])  # ASCII digits or -1, checked above

    async def _more(self) -> None:
        data = await self._stream.read(_CHUNK_BYTES)
        if not data:
            raise ConnectionError("Connection closed by server.")
        self._data = self._data[self._at :] + data
        self._at = 0
        self._is_new = True

    async def _skip(self, size: int) -> None:
        have = len(self._data) - self._at
        if have >= size:
            self._at += size
            return
        self._data, self._at = b"", 0
        left = size - have
        try:
            while left:
                left -= len(await self._stream.readexactly(min(left, _CHUNK_BYTES // 4)))
        except IncompleteReadError as error:
            raise ConnectionError("Connection closed by server.") from error
