"""A backend that keeps every byte and reads it by the letter of RFC 9112. It shares no code with the gateway."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

_START = re.compile(rb"[A-Z-]+ /[!-~]* HTTP/1\.1")
_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_SIZE = re.compile(rb"(0|[1-9a-f][0-9a-f]{0,7})\r\n")

# RFC 9110 section 7.6.1; a gateway uses each of them up.
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"te", b"trailer",
    b"upgrade", b"http2-settings", b"expect",
}  # fmt: skip


@dataclass
class Seen:
    """One request as it came in."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of a lower-case name, as backends that fold names find them."""
        return [value for key, value in self.fields if fold(key) == name]


def fold(name: bytes) -> bytes:
    """Read ``_`` and ``.`` as ``-``, as CGI, WSGI and PHP do."""
    return name.lower().replace(b"_", b"-").replace(b".", b"-")


@dataclass
class StrictBackend:
    """``seen`` are whole requests, ``faults`` what no gateway may send, ``raw`` each connection's bytes."""

    seen: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)
    unfinished: int = 0
    """Connections that are in the middle of a request."""

    def clear(self) -> None:
        self.seen.clear()
        self.faults.clear()
        for each in self.raw:
            each.clear()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = bytearray()
        self.raw.append(raw)
        data = b""
        inside = False
        try:
            while more := await reader.read(65_536):
                raw += more
                data += more
                if not inside:
                    inside = True
                    self.unfinished += 1
                while data and (found := self._read(data)) is not None:
                    seen, data = found
                    self.seen.append(seen)
                    head_only = seen.start.startswith(b"HEAD ")
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if head_only else b"ok")
                    )
                if self.faults:
                    break
                if not data:
                    inside = False
                    self.unfinished -= 1
        finally:
            self.unfinished -= inside
            self.raw.remove(raw)

    def _read(self, data: bytes) -> tuple[Seen, bytes] | None:
        """Return the first request in `data` and the rest, or None: not whole yet, or not one at all."""
        text, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return None
        start, *lines = text.split(b"\r\n")
        seen = Seen(start, [])
        if _START.fullmatch(start) is None:
            return self._fault(f"start line {start!r}")
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                return self._fault(f"field line {line!r}")
            seen.fields.append((match[1], match[2] or b""))
        names = [key for key, _ in seen.fields]
        for name in names:
            if fold(name) in _HOP_BY_HOP:
                return self._fault(f"hop-by-hop field {name!r}")
        if len(seen.values(b"host")) != 1:
            return self._fault("Host is not there once")
        lengths, codings = seen.values(b"content-length"), seen.values(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            return self._fault("more than one framing field")
        if lengths:
            if re.fullmatch(rb"0|[1-9][0-9]*", lengths[0]) is None:
                return self._fault(f"length {lengths[0]!r}")
            size = int(lengths[0])
            if len(rest) < size:
                return None
            seen.body, rest = rest[:size], rest[size:]
        elif codings:
            if codings[0] != b"chunked":
                return self._fault(f"coding {codings[0]!r}")
            return self._read_chunks(seen, rest)
        return seen, rest

    def _read_chunks(self, seen: Seen, rest: bytes) -> tuple[Seen, bytes] | None:
        while True:
            match = _SIZE.match(rest)
            if match is None:
                return self._fault(f"chunk size {rest[:20]!r}") if b"\n" in rest[:20] else None
            size = int(match[1], 16)
            rest = rest[match.end() :]
            if len(rest) < size + 2:
                return None
            if rest[size : size + 2] != b"\r\n":
                return self._fault("a chunk without its end, or trailers")
            seen.body += rest[:size]
            rest = rest[size + 2 :]
            if not size:
                return seen, rest

    def _fault(self, what: str) -> None:
        self.faults.append(what)
