"""Rubbish of every kind under our keys: each is refused by itself, said clearly, and taken back when mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis

from authgate_fast.config.redis_link import MAX_VALUE_BYTES
from authgate_fast.config.redis_read import SCAN_PATTERN
from tests.config.redis_kit import GATEWAY, ROUTE, SERVICE, consumer, eventually, following, put
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

Write = Callable[[redis.Redis, str], Any]


def text(value: bytes | str) -> Write:
    return lambda client, key: client.set(key, value)


def fields(**changes: Any) -> Write:
    """Write the good document of the key's kind with some fields changed, or taken out (None)."""

    def write(client: redis.Redis, key: str) -> None:
        good = {
            "gateway": GATEWAY,
            "service": SERVICE,
            "route": ROUTE,
            "consumer": orjson.loads(consumer("app")),
        }
        document = {**good[key.split(":")[1]], **changes}
        client.set(key, orjson.dumps({name: value for name, value in document.items() if value is not None}))

    return write


G, S = "authgate:gateway:shop", "authgate:service:shop:api"
R, C = "authgate:route:shop:item", "authgate:consumer:shop:app"

RUBBISH: list[tuple[str, str, Write, str]] = [
    ("an empty text", R, text(""), "not JSON"),
    ("no JSON", G, text("hosts: [shop.test]"), "not JSON"),
    ("half of a document", C, text('{"api_key_sha256": "'), "not JSON"),
    ("two documents", S, text('{"target_url": "http://a"}{"target_url": "http://b"}'), "not JSON"),
    ("bytes that are no text", R, text(b"\xff\xfe\x00{}"), "not JSON"),
    ("a byte order mark", R, text(b"\xef\xbb\xbf{}"), "not JSON"),
    ("null", C, text("null"), "mapping"),
    ("a number", S, text("12"), "mapping"),
    ("a JSON list", R, text("[]"), "mapping"),
    ("an empty object", G, text("{}"), "required"),
    ("a field twice", S, text('{"target_url": "http://a", "target_url": "http://b"}'), "twice"),
    ("an unknown field", R, fields(metod="GET"), "metod"),
    ("a missing field", R, fields(security=None), "security"),
    ("a method in lower case", R, fields(method="get"), "GET"),
    ("a template with a name twice", R, fields(public_path="/a/{id}/{id}"), "id"),
    ("a target that is no URL", S, fields(target_url="catalog"), "http://"),
    ("a cloud metadata address", S, fields(target_url="http://169.254.169.254/"), "link-local"),
    ("a host with a port", G, fields(hosts=["shop.test:80"]), "port"),
    ("another version's auth", G, fields(auth={"type": "LDAP"}), "API_KEY"),
    ("a hash that is too short", C, fields(api_key_sha256="abc"), "64 hex digits"),
    ("a time without a zone", C, fields(expires_at="2030-01-01T00:00:00"), "zone"),
    ("a role with a line break", C, fields(roles=["a\r\nX-Admin: 1"]), "roles"),
    ("a Redis list", R, lambda client, key: client.rpush(key, "{}"), "holds a list"),
    ("a Redis hash", G, lambda client, key: client.hset(key, "hosts", "shop.test"), "holds a hash"),
    ("a Redis set", S, lambda client, key: client.sadd(key, "x"), "holds a set"),
    ("a Redis sorted set", C, lambda client, key: client.zadd(key, {"x": 1}), "holds a zset"),
    ("a Redis stream", C, lambda client, key: client.xadd(key, {"x": "1"}), "holds a stream"),
    ("a huge text", R, text(b"x" * (MAX_VALUE_BYTES + 1)), f"{MAX_VALUE_BYTES + 1} bytes"),
]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


async def test_each_rubbish_is_refused_by_itself_and_taken_back_when_mended(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    assert len(RUBBISH) >= 24
    put(client, app={})
    good = {key: client.get(key) for key in (G, S, R, C)}
    async with following(redis_server) as it:
        refused = it.configuration.refused
        for what, key, write, words in RUBBISH:
            with client.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                write(pipe, key)
                pipe.set("authgate:consumer:shop:other", consumer(what))
                pipe.execute()
            await eventually(lambda: refused, 2)
            assert len(refused) == 1, what
            (problem,) = refused.values()
            assert problem.where == key, what
            assert words in str(problem), (what, str(problem))
            await eventually(lambda name=what: it.accepts(name), 2)  # type: ignore[misc]
            assert it.accepts("app"), what
            assert b"shop.test" in it.configuration.snapshot.exact, what
            with client.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                pipe.set(key, good[key])
                pipe.execute()
            await eventually(lambda: not refused, 2)
        assert it.size == 5


async def test_rubbish_from_before_the_start_is_refused_too(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    for number, (_, key, write, _) in enumerate(RUBBISH):
        kind = key.split(":")[1]
        name = f"authgate:gateway:bad{number}" if kind == "gateway" else f"authgate:{kind}:shop:bad{number}"
        write(client, name)
    async with following(redis_server) as it:
        assert len(it.configuration.refused) == len(RUBBISH)
        assert it.accepts("app")
        for key in client.keys("authgate:*:bad*"):
            client.delete(key)
        await eventually(lambda: not it.configuration.refused)
        assert it.accepts("app")


MALFORMED = [
    b"authgate:gateway:",
    b"authgate:gateway:Shop",
    b"authgate:gateway:shop:extra",
    b"authgate:route:shop",
    b"authgate:route:shop:item\n",
    b"authgate:consumer:shop:\xff\xfe",
    "authgate:consumer:shop:\u0663".encode(),
    b"authgate:service:shop:" + b"a" * 64,
]


async def test_a_key_that_names_no_document_is_reported_until_it_is_gone(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    for raw in MALFORMED[:4]:
        client.set(raw, "{}")
    async with following(redis_server) as it:
        assert len(it.configuration.refused) == 4
        for raw in MALFORMED[4:]:
            client.set(raw, "{}")
        await eventually(lambda: len(it.configuration.refused) == len(MALFORMED))
        assert it.accepts("app")
        client.delete(*MALFORMED[::2])
        await eventually(lambda: len(it.configuration.refused) == len(MALFORMED) // 2)
        with client.pipeline(transaction=True) as pipe:
            pipe.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            pipe.delete(*MALFORMED)
            pipe.execute()
        await eventually(lambda: not it.configuration.refused)


async def test_keys_of_runtime_state_and_secrets_are_not_read(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    for name in ("state:bff:session", "secret:shop", "stat:x", "gatewayx:shop", "routes:shop:a", "other"):
        client.set(f"authgate:{name}", "rubbish")
    found = b" ".join(client.keys(SCAN_PATTERN))
    assert found.count(b"authgate:") >= 4
    assert b"state:" not in found
    assert b"secret:" not in found
    async with following(redis_server) as it:
        client.set("authgate:state:another", "rubbish")
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: it.accepts("late"))
        assert not it.configuration.refused
