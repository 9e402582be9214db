"""Tunnels through a gateway: `websockets` at both ends, and ends that speak no WebSocket at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from authgate_fast.limits import DEFAULTS, Limits
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot

UPGRADES = frozenset((b"websocket", b"my-proto"))
MAX_BYTES = 32 * 1024 * 1024
KEY_LINES = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
ASK = (b"Connection: Upgrade", b"Upgrade: websocket", *KEY_LINES)
GRANT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def websocket_stack(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo, limits: Limits = DEFAULTS, **options: Any
) -> AsyncIterator[Stack]:
    """Run a gateway before a WebSocket server."""
    async with serve(handler, "127.0.0.1", 0, max_size=MAX_BYTES, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(make_snapshot(port, limits, upgrades=UPGRADES), limits) as stack:
            yield stack


def dial(stack: Stack, path: str = "/p/chat", **options: Any) -> connect:
    """Open a WebSocket through the gateway."""
    return connect(
        f"ws://127.0.0.1:{stack.port}{path}", max_size=MAX_BYTES, proxy=None, open_timeout=BOUND_S, **options
    )


async def next_message(client: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(client.recv(), BOUND_S)


class RawBackend:
    """A backend that takes one upgrade request on each connection, answers `grant`, and hands the streams out."""

    def __init__(self, grant: bytes = GRANT) -> None:
        self.grant = grant
        self.heads: list[bytes] = []
        self.opened: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.grant)
        self.opened.put_nowait((reader, writer))
        await asyncio.Event().wait()

    async def next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(self.opened.get(), BOUND_S)


@asynccontextmanager
async def raw_stack(
    grant: bytes = GRANT, limits: Limits = DEFAULTS, **options: Any
) -> AsyncIterator[tuple[Stack, RawBackend]]:
    raw = RawBackend(grant)
    async with (
        backend(raw.handle) as port,
        gateway(make_snapshot(port, limits, upgrades=UPGRADES, **options), limits) as stack,
    ):
        yield stack, raw
