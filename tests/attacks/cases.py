"""How an attack is written down: its bytes, and what has to become of them.

Behind the bytes of every case the runner sends `SMUGGLED`, a whole request of its own. Where the case is refused it
must never be read; where the case is one well-formed request it is the next one, and served as such.
"""

from __future__ import annotations

from dataclasses import dataclass

SMUGGLED = b"GET /p/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"X-Api-Key: agk_test"


@dataclass(frozen=True)
class Refused:
    """Answered once with one of ``statuses`` and closed; no backend sees a whole request.

    Without ``in_body`` the case alone decides it, whatever comes behind. ``in_body``: the head was good, so a backend may have seen it and the beginning of a body that never ends. ``at_once``: the case
    alone decides it all the same.
    """

    statuses: tuple[int, ...] = (400,)
    in_body: bool = False
    at_once: bool = False


@dataclass(frozen=True)
class Answered:
    """Answered by the gateway itself with ``status``; the framing was in no doubt, so the connection goes on.

    ``closes`` None: it depends on whether the body had come when the answer was due.
    """

    status: int
    closes: bool | None = False


@dataclass(frozen=True)
class Forwarded:
    """The backend gets exactly one request: this start line, this body, these lines, none of these names.

    ``closes``: the connection ends after the answer, and what is behind it is not read.
    """

    start: bytes = b"GET /a HTTP/1.1"
    body: bytes = b""
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    closes: bool = False
    consumer: bool = False


@dataclass(frozen=True)
class Swallowed:
    """One request that is never whole: what is behind it belongs to its body, and no request comes of it."""


Expect = Refused | Answered | Forwarded | Swallowed
Cases = dict[str, tuple[bytes, Expect]]

REFUSED = Refused()
IN_BODY = Refused(in_body=True)
NOT_IMPLEMENTED = Refused((501,))
VERSION = Refused((505,))
INVALID_PATH = Answered(400)
NOT_FOUND = Answered(404)
NO_KEY = Answered(401)


def head(start: bytes, *lines: bytes) -> bytes:
    """Write a head from its lines."""
    return b"\r\n".join((start, *lines, b"", b""))


def get(*lines: bytes, target: bytes = b"/p/a", method: bytes = b"GET", host: bytes = b"a") -> bytes:
    """Write a request without a body."""
    return head(b"%b %b HTTP/1.1" % (method, target), b"Host: " + host, *lines)


def post(*lines: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    """Write a request with a body, framed by `lines` alone."""
    return get(*lines, method=method) + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    """Write a request with a chunked body, given as it is on the wire."""
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


def posted(body: bytes = b"", **more: object) -> Forwarded:
    """Expect the POST of `post` at the backend."""
    return Forwarded(b"POST /a HTTP/1.1", body, **more)  # type: ignore[arg-type]  # fields of a Forwarded


def show(text: bytes) -> str:
    """Return bytes as a part of a case's name."""
    shown = text if len(text) <= 40 else b"%b..(%d)" % (text[:30], len(text))
    return ascii(shown)[2:-1]
