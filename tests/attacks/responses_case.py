"""A case: what a backend sends, and what a client must see of it. The tables are in ``responses_*.py``."""

from __future__ import annotations

from dataclasses import dataclass

GOOD = "good"
"""The one right answer, whole."""
REFUSED = "502"
"""A problem of the gateway's own: ``upstream_protocol_error`` or ``upstream_unreachable``."""
TOO_LATE = "504"
"""A problem of the gateway's own: ``upstream_timeout``."""
CUT = "cut"
"""An answer that visibly broke off, or a refusal; never one that ended cleanly."""

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"Content-Length: 2\r\n\r\nok"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
STOLEN = b"HTTP/1.1 200 OK\r\nX-Stolen: 1\r\nContent-Length: 6\r\n\r\nstolen"
"""A whole answer that nobody asked for."""


@dataclass(frozen=True)
class Case:
    """`then` is what the backend does behind `sends`: ``keep`` (serve the next request on the same connection, if
    one should come), ``close``, ``reset``, ``half_close``, ``drip`` (a byte now and then, for ever).

    `reused` says that the backend's connection may serve another request; else none may ever reach it.
    """

    name: str
    sends: bytes | tuple[bytes, ...]
    sees: str = REFUSED
    status: int = 200
    body: bytes = b"ok"
    then: str = "keep"
    method: bytes = b"GET"
    reused: bool = False
    interim: tuple[int, ...] = ()
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    hasty: bool = False
    """Run with small time limits."""

    @property
    def whole(self) -> bytes:
        return self.sends if isinstance(self.sends, bytes) else b"".join(self.sends)


def fields(*lines: bytes, body: bytes = b"ok") -> bytes:
    """Write a 200 with these field lines."""
    return OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def good(name: str, sends: bytes | tuple[bytes, ...], body: bytes = b"ok", **more: object) -> Case:
    """Make a case of an honest backend; its connection lives on unless it says otherwise."""
    more.setdefault("reused", True)
    return Case(name, sends, GOOD, body=body, **more)  # type: ignore[arg-type]
