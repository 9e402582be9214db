"""A whole worker, documents and all, before a WebSocket server: for tunnels that outlive what let them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from authgate_fast.auth.api_key import key_digest
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.proxy.context import Context
from authgate_fast.server.worker import Address, Worker, WorkerOptions
from tests.proxy.harness import BOUND_S
from tests.proxy.tunnels import echo

KEY = {"X-Api-Key": "the-key"}
APP = {"api_key_sha256": key_digest("the-key"), "roles": ["reader"]}


@dataclass
class Running:
    """A worker, the documents it serves, and the server behind it."""

    configuration: Configuration
    worker: Worker
    ended: list[ServerConnection]

    @property
    def context(self) -> Context:
        return self.worker._context

    def put(self, kind: str, name: str, document: dict[str, Any] | None) -> None:
        """Change one document, as whoever syncs them does."""
        raw = None if document is None else orjson.dumps(document)
        self.configuration.apply({DocumentKey(kind, "shop", name): raw})
        assert not self.configuration.refused, self.configuration.refused

    def dial(self, path: str = "/s", **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.worker.port}{path}", proxy=None, **options)


@asynccontextmanager
async def running(
    *,
    auth: dict[str, Any] | None = None,
    consumers: dict[str, dict[str, Any]] | None = None,
    limits: Limits = DEFAULTS,
    drain_timeout_s: float = 5.0,
    handler: Callable[[ServerConnection], Awaitable[None]] = echo,
    port: int = 0,
    **more: Any,
) -> AsyncIterator[Running]:
    """PUBLIC /p, SECURE /s and /r (for readers); `more` goes into the routes' documents."""
    ended: list[ServerConnection] = []

    async def serving(connection: ServerConnection) -> None:
        try:
            await handler(connection)
        finally:
            await connection.wait_closed()
            ended.append(connection)

    async with serve(serving, "127.0.0.1", 0, max_size=None) as server:
        port = port or next(iter(server.sockets)).getsockname()[1]
        documents: dict[DocumentKey, dict[str, Any]] = {
            DocumentKey("gateway", "shop", "shop"): {"hosts": ["*"], "auth": auth or {"type": "API_KEY"}},
            DocumentKey("service", "shop", "api"): {"target_url": f"http://127.0.0.1:{port}"},
        }
        for name, fields in {
            "p": {"security": "PUBLIC"},
            "s": {"security": "SECURE"},
            "r": {"security": "SECURE", "roles": ["reader"]},
        }.items():
            route = {"method": "GET", "public_path": f"/{name}", "service": "api", **fields, **more}
            documents[DocumentKey("route", "shop", name)] = route
        for name, fields in ({"app": APP} if consumers is None else consumers).items():
            documents[DocumentKey("consumer", "shop", name)] = fields
        configuration = Configuration(limits)
        configuration.replace_all({key: orjson.dumps(document) for key, document in documents.items()})
        assert not configuration.refused, configuration.refused
        options = WorkerOptions((Address("127.0.0.1", 0),), None, limits, drain_timeout_s)
        worker = Worker(configuration, None, options)
        await worker.start()
        await worker.listen()
        try:
            yield Running(configuration, worker, ended)
        finally:
            for connection in list(worker._context.connections):
                connection.abort()
            await worker.drain()


async def closed(client: ClientConnection, bound_s: float = BOUND_S) -> int | None:
    """Wait for the end; return the code that the Close frame had (1006: there was none)."""
    try:
        async with asyncio.timeout(bound_s):
            while True:
                await client.recv()
    except ConnectionClosed:
        return client.close_code
