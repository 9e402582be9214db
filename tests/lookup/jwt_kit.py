"""JWT gateways over real sockets: workers on one store, a backend, and a client that logs in."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.lookup.resolver import Resolver
from authgate_fast.lookup.store import StateStore
from tests.auth.users import cheap_hash
from tests.lookup.store_kit import eventually
from tests.proxy.harness import Stack, answer, backend, gateway

PASSWORD = "correct horses"


@dataclass
class Answer:
    """What a client got."""

    status: int
    head: bytes
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def code(self) -> str:
        return str(self.json["code"])

    def field(self, name: str) -> str | None:
        prefix = name.lower().encode() + b": "
        for line in self.head.split(b"\r\n"):
            if line.lower().startswith(prefix):
                return line[len(prefix) :].decode()
        return None


class JwtWorker:
    """One worker: its configuration, its resolver, its sockets."""

    def __init__(
        self, configuration: Configuration, resolver: Resolver, stack: Stack, received: list[bytes]
    ) -> None:
        self.configuration = configuration
        self.resolver = resolver
        self.stack = stack
        self.received = received

    def put(self, kind: str, name: str, fields: dict[str, Any] | None) -> None:
        raw = None if fields is None else orjson.dumps(fields)
        self.configuration.apply({DocumentKey(kind, "shop", name): raw})
        self.stack.context.snapshot = self.configuration.snapshot

    async def send(
        self, method: str, path: str, body: bytes = b"", *lines: str, host: str = "shop.test"
    ) -> Answer:
        """Send one request on a connection of its own."""
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
        if body or method == "POST":
            head.append(f"Content-Length: {len(body)}")
        raw = await self.stack.talk("\r\n".join([*head, "", ""]).encode() + body)
        answer_head, _, answer_body = raw.partition(b"\r\n\r\n")
        return Answer(int(raw[9:12]), answer_head, answer_body)

    async def post(self, path: str, fields: Any, *lines: str, host: str = "shop.test") -> Answer:
        return await self.send(
            "POST", path, orjson.dumps(fields), "Content-Type: application/json", *lines, host=host
        )

    async def login(self, username: str = "ann", password: str = PASSWORD, host: str = "shop.test") -> Answer:
        return await self.post("/auth/login", {"username": username, "password": password}, host=host)

    async def tokens(self, username: str = "ann") -> dict[str, Any]:
        found = await self.login(username)
        assert found.status == 200, found
        return found.json

    async def refresh(self, token: str) -> Answer:
        return await self.post("/auth/refresh", {"refresh_token": token})

    async def use(self, token: str, *lines: str, path: str = "/s", host: str = "shop.test") -> int:
        """Return the status of a SECURE route with a token."""
        return (await self.send("GET", path, b"", f"Authorization: Bearer {token}", *lines, host=host)).status


def basic(username: str, password: str) -> str:
    return f"Authorization: Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def consumer(password: str = PASSWORD, **fields: Any) -> dict[str, Any]:
    return {"password_hash": cheap_hash(password), **fields}


def documents(
    port: int, auth: dict[str, Any], consumers: dict[str, dict[str, Any]], more: dict[str, Any]
) -> Any:
    """Return two gateways, shop and other, with the same consumers."""
    found: dict[DocumentKey, dict[str, Any]] = {}
    for name in ("shop", "other"):
        found[DocumentKey("gateway", name, name)] = {
            "hosts": [f"{name}.test"], "auth": {"type": "JWT", **auth}, **more
        }  # fmt: skip
        found[DocumentKey("service", name, "api")] = {"target_url": f"http://127.0.0.1:{port}"}
        for route, security, extra in (
            ("s", "SECURE", {}),
            ("p", "PUBLIC", {}),
            ("admin", "SECURE", {"roles": ["admin"]}),
            ("scoped", "SECURE", {"scopes": ["orders:write"]}),
        ):
            found[DocumentKey("route", name, route)] = {
                "method": "GET", "public_path": f"/{route}", "service": "api", "security": security, **extra
            }  # fmt: skip
        for consumer_name, fields in consumers.items():
            found[DocumentKey("consumer", name, consumer_name)] = fields
    return {key: orjson.dumps(fields) for key, fields in found.items()}


@asynccontextmanager
async def jwt_worker(
    store: StateStore,
    *,
    auth: dict[str, Any] | None = None,
    limits: Limits = DEFAULTS,
    sealing_key: bytes | None = None,
    consumers: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> AsyncIterator[JwtWorker]:
    """Run one worker on a store of its own; afterwards nothing of it is left running."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer())

    async with backend(serve) as port:
        configuration = Configuration(limits)
        people = {"ann": consumer(roles=["reader"])} if consumers is None else consumers
        configuration.replace_all(documents(port, auth or {}, people, more))
        assert not configuration.refused, configuration.refused
        resolver = Resolver(store, sealing_key)
        running = asyncio.create_task(resolver.run(), name="resolver")
        try:
            await eventually(lambda: store.status()["connected"])
            async with gateway(configuration.snapshot, limits) as stack:
                stack.context.resolver = resolver
                yield JwtWorker(configuration, resolver, stack, received)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await resolver.close()
