"""A gateway and a scripted backend on loopback, for tests of the protocol over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from authgate_fast.auth.api_key import ApiKeyAuthenticator
from authgate_fast.config.compile import build_snapshot
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.pool import Pools
from authgate_fast.proxy.timeouts import Ticker
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.template import parse_public, parse_target, target_pieces
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import (
    Consumers,
    Gateway,
    Identity,
    Route,
    Service,
    Snapshot,
    Target,
    TimeoutSettings,
)
from tests.known_keys import keys_of

BOUND_S = 10.0
KEY = "agk_test"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def settings(limits: Limits = DEFAULTS) -> TimeoutSettings:
    return TimeoutSettings(
        limits.max_body_bytes,
        limits.body_timeout_s,
        limits.connect_timeout_s,
        limits.first_byte_timeout_s,
        limits.between_bytes_timeout_s,
        limits.tunnel_idle_timeout_s,
    )


def make_snapshot(
    port: int,
    limits: Limits = DEFAULTS,
    *,
    key_digest: bytes = b"",
    scheme: str = "http",
    host: str = "127.0.0.1",
    upgrades: frozenset[bytes] = frozenset(),
    service: Service | None = None,
) -> Snapshot:
    """Two routes on any host, every method: PUBLIC /p/{rest*} and SECURE /s/{rest*}, both to /{rest*}."""
    host_line = f"Host: {host}:{port}\r\n".encode("ascii")
    service = service or Service("svc", (Target(scheme, host, port, b"", host_line),))
    items = []
    for name, secure in (("p", False), ("s", True)):
        public, target = parse_public(f"/{name}/{{rest*}}"), parse_target("/{rest*}")
        route = Route(
            name,
            b"ANY",
            public.text,
            secure,
            "svc",
            service,
            target_pieces(public, target),
            settings(limits),
            upgrades=upgrades,
        )
        items.append((public, route))
    credential = Identity(
        "app", "default", frozenset(), float("inf"), b"X-Consumer-Id: app\r\n", name=key_digest
    )
    consumers = Consumers(keys_of({key_digest: credential}))
    gateway = Gateway(
        "gw",
        ("*",),
        ApiKeyAuthenticator("gw", "X-Api-Key", consumers),
        consumers,
        build_trie(items),
        PathPolicy(),
        (),
        b"Via: 1.1 authgate\r\nX-Gateway-Id: gw\r\n",
        services=(service,),
    )
    return build_snapshot(1, [gateway])


@dataclass
class Stack:
    """A running gateway; `context` is its insides, `reports` what it told the operator."""

    port: int
    context: Context
    reports: list[tuple[str, str]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a client connection; it is closed with the gateway at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        self.writers.append(writer)
        return reader, writer

    async def talk(self, *parts: bytes) -> bytes:
        """Send `parts` one by one, each in a read of its own, and return all that comes until the close."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(-1), BOUND_S)
        finally:
            writer.close()


@asynccontextmanager
async def backend(
    handler: Handler, tls: ssl.SSLContext | None = None, *, path: Path | None = None
) -> AsyncIterator[int]:
    """Serve every connection with `handler`; yield the port, 0 for a Unix socket at `path`."""
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    if path is None:
        server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    else:
        server = await asyncio.start_unix_server(accepted, path)
    try:
        yield 0 if path is not None else server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def gateway(snapshot: Snapshot, limits: Limits = DEFAULTS) -> AsyncIterator[Stack]:
    """Run the request path for `snapshot`."""
    loop = asyncio.get_running_loop()
    context = Context(loop, limits)
    context.pools = Pools(context)
    context.snapshot = snapshot
    ticker = Ticker(context)
    ticker.start()
    server = await loop.create_server(lambda: Downstream(context), "127.0.0.1", 0)  # type: ignore[arg-type, return-value]
    stack = Stack(server.sockets[0].getsockname()[1], context)
    context.report = lambda reason, forward, request_id, what: stack.reports.append((reason.value, what))
    try:
        yield stack
    finally:
        server.close()
        for writer in stack.writers:
            writer.transport.abort()
        for connection in list(context.connections):
            connection.abort()
        await context.groups.checks.close()
        await context.pools.close()
        ticker.stop()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Read one message head."""
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)


def answer(body: bytes = b"ok", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), extra, body)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with the request as it was received, byte for byte."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        seen = head
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            while True:
                line = await reader.readuntil(b"\r\n")
                size = int(line, 16)
                data = await reader.readexactly(size + 2)
                seen += line + data
                if size == 0:
                    break
        elif b"content-length: " in lowered:
            at = lowered.index(b"content-length: ") + 16
            length = int(lowered[at : lowered.index(b"\r", at)])
            seen += await reader.readexactly(length)
        writer.write(answer(b"" if head.startswith(b"HEAD ") else seen))
        await writer.drain()
