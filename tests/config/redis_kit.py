"""A `RedisSource` under test: documents to write, a source that follows, and waiting with a bound."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import orjson
import redis

from authgate_fast.config.redis_source import RedisSource
from authgate_fast.config.state_dir import StateDir
from authgate_fast.config.store import Configuration

GATEWAY: dict[str, Any] = {"hosts": ["shop.test"], "auth": {"type": "API_KEY"}}
SERVICE: dict[str, Any] = {"target_url": "http://catalog:8080"}
ROUTE: dict[str, Any] = {"method": "GET", "public_path": "/a/{id}", "service": "api", "security": "SECURE"}


def key_of(name: str) -> str:
    """Return the made-up API key of a consumer."""
    return f"key-of-{name}"


def consumer(name: str, **fields: Any) -> bytes:
    return orjson.dumps({"api_key_sha256": hashlib.sha256(key_of(name).encode()).hexdigest(), **fields})


def put(client: redis.Redis, **consumers: dict[str, Any]) -> None:
    """Write a gateway, a service, a route and some consumers in one MULTI."""
    with client.pipeline(transaction=True) as pipe:
        pipe.set("authgate:gateway:shop", orjson.dumps(GATEWAY))
        pipe.set("authgate:service:shop:api", orjson.dumps(SERVICE))
        pipe.set("authgate:route:shop:item", orjson.dumps(ROUTE))
        for name, fields in consumers.items():
            pipe.set(f"authgate:consumer:shop:{name}", consumer(name, **fields))
        pipe.execute()


def accepts(configuration: Configuration, name: str) -> bool:
    """Tell whether the gateway knows the consumer's key at this moment."""
    gateway = configuration.snapshot.gateways.get("shop")
    return (
        gateway is not None
        and hashlib.sha256(key_of(name).encode()).digest() in gateway.consumers.keys.holders
    )


async def eventually(condition: Callable[[], object], within_s: float = 8.0) -> float:
    """Look every millisecond until the condition holds; return the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, "this did not come true in time"
        await asyncio.sleep(0.001)
    return time.monotonic() - start


class Followed(Protocol):
    """Something at a URL."""

    url: str


class Follower:
    """A source at work and what it feeds."""

    def __init__(self, source: RedisSource, configuration: Configuration) -> None:
        self.source = source
        self.configuration = configuration

    def accepts(self, name: str) -> bool:
        return accepts(self.configuration, name)

    @property
    def size(self) -> int:
        return len(self.configuration.documents)


@contextlib.asynccontextmanager
async def following(
    server: Followed, *, wait: bool = True, state_dir: StateDir | None = None, **how: Any
) -> AsyncIterator[Follower]:
    """Follow the server for the length of a block; afterwards nothing of it is left running."""
    configuration = Configuration()
    source = RedisSource(server.url, configuration, state_dir, **how)
    before = asyncio.all_tasks()
    task = asyncio.create_task(source.run(), name="redis-source")
    try:
        if wait:
            await eventually(lambda: source.connected)
        yield Follower(source, configuration)
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == before
    assert not source.connected
