"""The stage on which response cases are played: a real gateway, a raw backend, and a client that reads with h11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11

from authgate_fast.limits import DEFAULTS, Limits
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Answer, read_answer, request, reset, until

HASTY = Limits(first_byte_timeout_s=0.1, between_bytes_timeout_s=0.1)


@dataclass
class Backend:
    """Answers each request with its path, but ``/case`` as it is told; every connection and request is counted."""

    pieces: Sequence[bytes] = ()
    then: str = "keep"
    connections: int = 0
    ended: set[int] = field(default_factory=set)
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    """(connection, path) of each request."""
    sent: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while await self._serve_one(number, reader, writer):
                pass
        finally:
            self.ended.add(number)

    async def _serve_one(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        self.seen.append((number, path))
        if path != b"/case":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            return True
        try:
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            self.sent.set()
        if self.then == "reset":
            reset(writer)
        elif self.then == "half_close":
            writer.write_eof()
            await reader.read(-1)
        elif self.then == "drip":
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.01)
        return self.then == "keep"

    def connection_of(self, path: bytes) -> int:
        """Return the last connection on which this path was asked for."""
        return [number for number, seen in self.seen if seen == path][-1]


@asynccontextmanager
async def stage(*, hasty: bool = False) -> AsyncIterator[tuple[Stack, Backend]]:
    limits = HASTY if hasty else DEFAULTS
    actor = Backend()
    async with backend(actor.handle) as port, gateway(make_snapshot(port, limits), limits) as stack:
        yield stack, actor


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection, path: bytes, method: bytes = b"GET") -> tuple[Answer | None, bytes]:
    """Send a request; return the answer, or None where it broke off, and the raw bytes that came."""
    reader, writer = connection
    recording = Recording(reader)
    writer.write(request(method, b"/p" + path))
    try:
        return await read_answer(recording, method), recording.raw  # type: ignore[arg-type]  # reads like a reader
    except (h11.RemoteProtocolError, ConnectionResetError):
        return None, recording.raw


class Recording:
    """A stream reader that remembers what it gave."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.raw = b""

    async def read(self, size: int) -> bytes:
        data = await self._reader.read(size)
        self.raw += data
        return data


async def is_over(connection: Connection) -> None:
    """Wait for the end of a client's connection; not a byte may come before it."""
    try:
        assert await asyncio.wait_for(connection[0].read(-1), BOUND_S) == b""
    except ConnectionResetError:
        pass


async def nothing_is_left(stack: Stack) -> None:
    """Wait until every backend connection is either idle or gone."""
    await until(lambda: all(c["open"] == c["idle"] for c in stack.context.pools.counts().values()))
