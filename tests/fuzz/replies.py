"""Answers of a backend: good ones, and the same mutated by one who knows how proxies were broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.fuzz import strict
from tests.fuzz.arena import cut
from tests.fuzz.backend import Script
from tests.fuzz.grammar import CRLF, chunks, content
from tests.fuzz.mutate import cuts as places_to_cut
from tests.fuzz.strict import COMPLETE, INCOMPLETE
from tests.fuzz.tricks import (
    CHUNK_LINES,
    CODING_NAMES,
    CODINGS,
    LENGTH_NAMES,
    LENGTHS,
    LINE_ENDS,
    SPACES,
    STRANGE_FIELDS,
    TOKENS,
)

OTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
"""An answer that nobody asked for."""
FIELDS = (
    b"Content-Type: text/plain", b"Set-Cookie: a=b", b"Set-Cookie: c=d; Path=/", b"Date: Sun, 06 Nov 1994 08:49:37 GMT", b"X-A: 1", b"x-b:2", b"X-Empty:", b"X-High: caf\xe9", b"ETag: \"x\"", b"Server: lie/1", b"Location: /x",
    b"Keep-Alive: timeout=5", b"Connection: keep-alive", b"Connection: X-A", b"Trailer: X-T", b"Proxy-Authenticate: Basic", b"X-Request-ID: theirs", b"Via: 1.0 other", b"Cache-Control: no-store", b"Upgrade: h2c", b"Vary: *", b"X-Long: " + b"y" * 150,
)  # fmt: skip
STATUS_LINES = (
    b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 X", b"HTTP/1.1 600 X", b"HTTP/1.1 999 X", b"HTTP/1.1 000 X", b"HTTP/1.1 101 X", b"HTTP/1.1 100 X", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 X", b"HTTP/1.1 205 X",
    b"HTTP/1.0 200 OK", b"HTTP/1.0 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1 200\x00OK", b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 2\xb20 OK", b"HTTP/1.1 200 caf\xe9", b"HTTP/1.1 200OK", b"200 OK", b"", b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1 0200 OK", b"RTSP/1.0 200 OK", b"HTTP/11 200 OK", b"HTTP/1.1 200 OK ", b"HTTP/1.1 2 0 OK",
)  # fmt: skip
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 199 X\r\nX-A: b\r\n\r\n", b"HTTP/1.1 100\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 100 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.0 100 X\r\n\r\n", b"HTTP/1.1 103 X\r\nX Y: b\r\n\r\n", b"HTTP/1.1 103 X\nX: b\n\n",
)  # fmt: skip


@dataclass(slots=True)
class Lie:
    """One answer of a backend to a request with `method` in HTTP/1.`minor`, cut and ended in a certain way."""

    method: bytes
    minor: int
    data: bytes
    cuts: list[int] = field(default_factory=list)
    then: str = "keep"
    late: bool = False
    """Bytes behind the answer may come when the connection is idle; nobody else may use it meanwhile."""

    asks: bytes = b""
    """The protocol that the request asks to switch to."""

    def read(self) -> strict.Message:
        """Read it with the strict parser."""
        return strict.read_response(self.data, 0, self.method, eof=self.then != "reset", upgrade=self.asks)

    def script(self) -> Script:
        """Return it as a backend plays it."""
        answer = self.read()
        whole = answer.state == COMPLETE
        leaves = whole and answer.end < len(self.data)
        marks = self.cuts
        if leaves:
            marks = [at for at in marks if at < answer.end] + ([answer.end] if self.late else [])
        open_end = self.then == "keep" and (not whole or answer.framing in ("close", "tunnel"))
        return Script(cut(self.data, marks), self.then, self.method == b"POST", open_end, leaves)


@dataclass(slots=True)
class _Draft:
    line: bytes
    fields: list[bytes]
    body: list[bytes]
    before: bytes = b""

    def render(self) -> bytes:
        return self.before + CRLF.join([self.line, *self.fields, b"", b""]) + b"".join(self.body)


def lie(rng: Random, corpus: list[Lie]) -> Lie:
    """Make an answer; about every eighth is a good one."""
    made = Lie(
        rng.choice((b"GET", b"GET", b"GET", b"GET", b"HEAD", b"POST")), 0 if rng.random() < 0.15 else 1, b""
    )
    made.then = rng.choice(("keep", "keep", "keep", "close", "half", "reset"))
    one = _good(rng, made)
    if rng.random() < 0.06:
        _upgrade(rng, made, one)
    kind = rng.random()
    if corpus and kind < 0.08:
        known = rng.choice(corpus)
        made.method, made.minor, made.then, made.asks = known.method, known.minor, known.then, known.asks
        made.data = _bytes(rng, known.data)
    elif kind < 0.2:
        made.data = one.render()
    else:
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
            rng.choice(_MUTATORS)(rng, one)
        made.data = one.render()
        if rng.random() < 0.3:
            made.data = _bytes(rng, made.data)
    made.cuts = places_to_cut(rng, len(made.data)) if rng.random() < 0.7 else []
    made.late = rng.random() < 0.15
    return made


def _good(rng: Random, made: Lie) -> _Draft:
    body = content(rng)
    status = rng.choice(
        (
            b"200 OK",
            b"200 OK",
            b"200 OK",
            b"404 Not Found",
            b"500 Oops",
            b"204 No Content",
            b"304 Not Modified",
            b"301 Moved",
            b"201 ",
        )
    )
    one = _Draft(b"HTTP/1.1 " + status, rng.sample(FIELDS, rng.choice((0, 1, 2, 4))), [])
    if status.startswith((b"204", b"304")):
        return one
    framing = rng.random()
    if framing < 0.4:
        one.fields.append(b"Content-Length: %d" % len(body))
        one.body = [body] if body else []
    elif framing < 0.8:
        one.fields.append(b"Transfer-Encoding: chunked")
        one.body = chunks(rng, body)
    else:
        if rng.random() < 0.5:
            one.line = one.line.replace(b"HTTP/1.1", b"HTTP/1.0")
        one.body = [body] if body else []
        made.then = rng.choice(("close", "half", "close", "reset"))
    if made.method == b"HEAD":
        one.body = []
    if rng.random() < 0.1:
        one.fields.append(b"Connection: close")
    if rng.random() < 0.1:
        one.before = rng.choice(INTERIM[:5])
    rng.shuffle(one.fields)
    return one


def _upgrade(rng: Random, made: Lie, one: _Draft) -> None:
    made.method, made.minor, made.asks = b"GET", 1, b"websocket"
    made.then = rng.choice(("close", "half"))
    if rng.random() < 0.8:
        lines = [
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ]
        if rng.random() < 0.3:
            lines[rng.randrange(2)] = rng.choice(
                (b"Upgrade: h2c", b"Upgrade: websocket, h2c", b"Connection: close", b"X-A: b")
            )
        one.line, one.fields, one.body = b"HTTP/1.1 101 Switching Protocols", lines, [content(rng)]


def _bytes(rng: Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randint(0, len(data))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + rng.choice((1, 1, 2, 8)) :]
        elif kind == 2:
            data = data[: at + rng.choice((1, 4, 16))] + data[at:]
        elif kind == 3 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 4:
            ends = [match.start() for match in re.finditer(rb"\r\n", data)]
            if ends:
                at = rng.choice(ends)
                data = data[:at] + rng.choice(LINE_ENDS) + data[at + 2 :]
        elif kind == 5:
            data = data[:at]
        elif kind == 6:
            data += rng.choice((OTHER, b"x", CRLF, b"0\r\n\r\n", b"\x00"))
        else:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at:]
    return data


def _line(rng: Random, one: _Draft) -> None:
    one.line = rng.choice(STATUS_LINES)


def _length(rng: Random, one: _Draft) -> None:
    _put(
        rng,
        one,
        rng.choice(LENGTH_NAMES if rng.random() < 0.3 else LENGTH_NAMES[:1]) + b": " + rng.choice(LENGTHS),
        b"content-length",
    )


def _coding(rng: Random, one: _Draft) -> None:
    _put(
        rng,
        one,
        rng.choice(CODING_NAMES if rng.random() < 0.3 else CODING_NAMES[:1]) + b": " + rng.choice(CODINGS),
        b"transfer-encoding",
    )


def _put(rng: Random, one: _Draft, line: bytes, name: bytes) -> None:
    places = [at for at, known in enumerate(one.fields) if known.lower().startswith(name)]
    if places and rng.random() < 0.5:
        one.fields[places[0]] = line
    else:
        one.fields.insert(rng.randint(0, len(one.fields)), line)


def _both(rng: Random, one: _Draft) -> None:
    one.fields += rng.choice(
        (
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Content-Length: 5", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 6"),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        )
    )


def _no_framing(rng: Random, one: _Draft) -> None:
    one.fields = [
        line for line in one.fields if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]


def _field(rng: Random, one: _Draft) -> None:
    one.fields.insert(
        rng.randint(0, len(one.fields)), rng.choice(STRANGE_FIELDS if rng.random() < 0.5 else FIELDS)
    )


def _space(rng: Random, one: _Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        name, colon, value = one.fields[at].partition(b":")
        space = rng.choice(SPACES)
        one.fields[at] = rng.choice(
            (name + space + colon + value, name + colon + space + value, name + colon + value + space)
        )


def _fold(rng: Random, one: _Draft) -> None:
    if one.fields:
        one.fields[rng.randrange(len(one.fields))] += rng.choice(
            (b"\r\n more", b"\r\n\tmore", b"\nX: y", b"\rX: y", *LINE_ENDS)
        )


def _many(rng: Random, one: _Draft) -> None:
    one.fields += [b"X-%d: %d" % (number, number) for number in range(rng.choice((20, 30, 31, 32, 33, 60)))]


def _long(rng: Random, one: _Draft) -> None:
    one.fields.append(b"X-Long: " + b"l" * rng.choice((1_000, 3_900, 4_096, 5_000)))


def _chunk(rng: Random, one: _Draft) -> None:
    if one.body:
        at = rng.randrange(len(one.body))
        piece = one.body[at]
        if piece == CRLF:
            one.body[at] = rng.choice((*LINE_ENDS, b"XX", b"\r\r", b"\n\n", b"\rX"))
        elif piece.endswith(CRLF):
            one.body[at] = rng.choice((rng.choice(CHUNK_LINES), piece[:-2] + rng.choice(LINE_ENDS)))
        else:
            one.body[at] = rng.choice((piece[:-1], piece + b"x", piece * 2))


def _piece(rng: Random, one: _Draft) -> None:
    if one.body:
        at = rng.randrange(len(one.body))
        if rng.random() < 0.5:
            one.body.pop(at)
        else:
            one.body.insert(at, rng.choice((CRLF, b"0\r\n\r\n", b"5\r\n", b"x", b"X-T: 1\r\n", one.body[at])))


def _interim(rng: Random, one: _Draft) -> None:
    one.before += rng.choice(INTERIM) * rng.choice((1, 1, 1, 2, 16, 17))


def _after(rng: Random, one: _Draft) -> None:
    one.body.append(rng.choice((OTHER, OTHER, b"x", CRLF, b"0\r\n\r\n", b"\x00", OTHER[:20])))


def _truncate(rng: Random, one: _Draft) -> None:
    if one.body:
        del one.body[rng.randrange(len(one.body)) :]


_MUTATORS: tuple[Callable[[Random, _Draft], None], ...] = (
    _line, _line, _length, _length, _coding, _coding, _both, _no_framing, _field, _field, _space, _fold, _many, _long, _chunk, _chunk, _chunk, _piece, _interim, _after, _after, _truncate,
)  # fmt: skip
__all__ = ["INCOMPLETE", "OTHER", "Lie", "lie"]
