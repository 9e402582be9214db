"""The backends of the fuzzed world: they keep what they see, and answer with what it was, or as a script says."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz import strict
from tests.fuzz.strict import COMPLETE, INCOMPLETE, Message

if TYPE_CHECKING:
    from tests.fuzz.arena import Arena

OPEN_END_S = 0.3
"""How long a backend that never ends its answer keeps the connection."""


@dataclass(slots=True)
class Sight:
    """A request as a backend saw it; `whole` is false where the connection ended before it did."""

    serial: int
    service: str
    raw: bytes
    message: Message
    whole: bool = True


@dataclass(slots=True)
class Script:
    """What the backend answers to one request: `pieces` in reads of their own, then `then`: keep, close, half or reset."""

    pieces: list[bytes]
    then: str = "keep"
    early: bool = False
    """Answer as soon as the head is there."""
    open_end: bool = False
    """The answer has no end, or is none."""
    leaves_bytes: bool = False
    """Behind the answer come bytes that belong to nothing: the connection must not be used again."""
    sent: int = 0
    ended: bool = False


@dataclass(slots=True)
class Seen:
    """What a client got, and what the backends saw of it."""

    raw: bytes = b""
    was_reset: bool = False
    hung: bool = False
    sights: list[Sight] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    """Filled by the judge."""


class Backend(asyncio.Protocol):
    """Reads requests with the strict parser, keeps them, and answers each with what it was."""

    def __init__(self, arena: Arena, service: str) -> None:
        self.arena = arena
        self.service = service
        self.buffer = b""
        self.poisoned = False
        self.has_ended = False
        self.script: Script | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream transport
        self.arena.backends.add(self)

    def data_received(self, data: bytes) -> None:
        if self.has_ended:
            if not self.transport.is_closing():
                self.transport.abort()  # the gateway could not know yet
            return
        self.buffer += data
        if self.poisoned:
            self.poisoned = False
            self.arena.faults.append(
                f"a connection that had bytes behind an answer was used again: {self.buffer!r}"
            )
        message = strict.read_request(self.buffer)
        if message.state == INCOMPLETE:
            script = self.arena.scripts.get(message.target) if message.head_read else None
            if script is not None and script.early and self.script is None:
                self._play(script)
            return
        raw = self.buffer
        self.buffer = b""
        self.arena.serial += 1
        sight = Sight(self.arena.serial, self.service, raw, message, message.state == COMPLETE)
        self._owner(message).sights.append(sight)
        if self.script is not None:
            return  # it has been answered already
        if message.state != COMPLETE:
            self.transport.close()
            return
        script = self.arena.scripts.get(message.target)
        if script is not None:
            self._play(script)
        else:
            self.transport.write(echo(sight))

    def _owner(self, message: Message) -> Seen:
        addresses = message.values(b"x-forwarded-for")
        seen = self.arena.whose(addresses[0]) if len(addresses) == 1 else None
        if seen is None:
            self.arena.faults.append(f"a request of nobody's: {message.start!r} {message.fields!r}")
            return Seen()
        return seen

    def _play(self, script: Script) -> None:
        self.script = script
        self._next(script, 0)

    def _next(self, script: Script, at: int) -> None:
        if self.transport.is_closing():
            script.ended = True
            return
        if at < len(script.pieces):
            self.transport.write(script.pieces[at])
            script.sent += len(script.pieces[at])
        if at + 1 < len(script.pieces):
            self.arena.loop.call_soon(self._next, script, at + 1)
        else:
            self._then(script)  # at once: the next request may already be on its way

    def _then(self, script: Script) -> None:
        script.ended = True
        self.poisoned = script.leaves_bytes
        self.has_ended = script.then != "keep"
        if not script.early:
            self.script = None
        if script.then == "close":
            self.transport.close()
        elif script.then == "half":
            try:
                self.transport.write_eof()
            except OSError:
                pass  # the gateway has gone
        elif script.then == "reset":
            self.arena.loop.call_soon(self._reset)
        elif script.open_end:
            self.arena.loop.call_later(OPEN_END_S, self.transport.close)

    def _reset(self) -> None:
        if self.transport.is_closing():
            return
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.arena.backends.discard(self)
        if self.buffer:
            message = strict.read_request(self.buffer)
            if message.head_read:
                sight = Sight(self.arena.serial, self.service, self.buffer, message, whole=False)
                self._owner(message).sights.append(sight)
            else:
                self.arena.faults.append(f"a backend saw a part of a head: {self.buffer!r}")
            self.buffer = b""


def echo(sight: Sight) -> bytes:
    """Answer with the request's number and line; every fourth time in chunks."""
    body = echoed(sight)
    head = b"HTTP/1.1 200 OK\r\nX-Echo: %d\r\nX-Service: %b\r\n" % (sight.serial, sight.service.encode())
    if sight.message.method == b"HEAD":
        return head + b"Content-Length: %d\r\n\r\n" % len(body)
    if sight.serial % 4:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def echoed(sight: Sight) -> bytes:
    """Return the body of `echo`."""
    return b"%d %b %b" % (sight.serial, sight.message.method, sight.message.target)
