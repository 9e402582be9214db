"""Addresses, links, and what a user is told when they fail; never the password."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from authgate_fast.config import redis_link
from authgate_fast.config.redis_link import (
    FAILURES,
    MAX_VALUE_BYTES,
    Link,
    RedisAddress,
    RedisUrlError,
    parse_address,
)
from authgate_fast.config.redis_texts import TooLarge
from tests.redis_server import RedisServer, running

SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://", "redis://localhost:6379"),
        ("redis://r.test:7000/3", "redis://r.test:7000/3"),
        ("redis://[::1]:7000/0", "redis://[::1]:7000"),
        (f"redis://user:{SECRET}@r.test:7000/2", "redis://r.test:7000/2"),
        (f"rediss://:{SECRET}@r.test", "rediss://r.test:6379"),
        (f"unix://:{SECRET}@/run/redis.sock", "unix:///run/redis.sock"),
        (f"unix:///run/redis.sock?db=2&password={SECRET}", "unix:///run/redis.sock"),
        (f"redis://r.test?password={SECRET}&socket_timeout=2", "redis://r.test:6379"),
        ("redis://r.test?max_connections=5", "redis://r.test:6379"),
    ],
)
def test_a_good_url_is_shown_without_its_password(url: str, shown: str) -> None:
    address = parse_address(url)
    assert address.shown == shown
    assert SECRET not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis//localhost",
        f"redis://:{SECRET}#x@h",
        f"redis://:x/{SECRET}@h:6379",
        f"redis://:{SECRET}@h:port",
        f"redis://:{SECRET}@h:99999",
        f"redis://:{SECRET}@h/one",
        f"redis://:{SECRET}@h/0/1",
        f"redis://:{SECRET}@h?no_such_option=1",
        f"redis://:{SECRET}@h?db=one",
        "unix://",
    ],
)
def test_a_bad_url_is_refused_in_a_sentence_without_its_password(url: str) -> None:
    with pytest.raises(RedisUrlError) as caught:
        parse_address(url)
    assert "Redis URL" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_tls_checks_the_name_of_the_server_unless_told_otherwise() -> None:
    assert parse_address("rediss://r.test").options["ssl_check_hostname"] is True
    assert "ssl_check_hostname" not in parse_address("rediss://r.test?ssl_cert_reqs=none").options
    assert parse_address("rediss://r.test?ssl_check_hostname=no").options["ssl_check_hostname"] is False


@contextlib.asynccontextmanager
async def pretender(*answers: bytes) -> AsyncIterator[str]:
    """Listen as something that is no Redis: give one answer for each piece that arrives, then close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            if not await reader.read(65_536):
                break
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"redis://:{SECRET}@127.0.0.1:{port}/0"
    finally:
        server.close()
        await server.wait_closed()


async def said_of(url: str) -> str:
    address = parse_address(url)
    link = Link(address, "test")
    with pytest.raises(FAILURES) as caught:
        await link.open()
    await link.close()
    return address.explain(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer like Redis"),
        (b"", "closed the connection"),
        (
            b"-ERR unknown command `HELLO`, with args: `3`, `AUTH`, `default`, `%b`\r\n" % SECRET.encode(),
            "too old",
        ),
        (b"-ERR something with %b in it\r\n" % SECRET.encode(), "***"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "user name or password"),
        (b"-NOAUTH Authentication required.\r\n", "user name or password"),
        (b"-NOPERM this user has no permissions to run the 'hello' command\r\n", "ACL"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "still loading"),
        (b"-READONLY You can't write against a read only replica.\r\n", "master's address"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "maxmemory"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "lost its master"),
    ],
)
async def test_each_failure_is_explained_in_one_line_without_the_password(answer: bytes, words: str) -> None:
    async with pretender(answer) as url:
        said = await said_of(url)
    assert words in said
    assert "127.0.0.1" in said
    assert "\n" not in said
    assert SECRET not in said


async def test_an_address_where_nobody_listens_is_explained() -> None:
    async with pretender() as url:
        pass
    said = await said_of(url)
    assert "cannot reach Redis" in said
    assert "is it running" in said
    assert SECRET not in said


@pytest.mark.redis
async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "REPLY_TIMEOUT_S", 0.1)
    with running() as server:
        server.pause()
        assert "did not answer in time" in await said_of(server.url)


@pytest.mark.redis
async def test_a_text_that_is_too_large_is_never_held(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("huge", b"x" * (20 * MAX_VALUE_BYTES))
        client.set("largest", b"y" * MAX_VALUE_BYTES)
        client.set("small", b"z")
    link = Link(parse_address(redis_server.url), "test")
    await link.open()
    try:
        small, huge, largest, again = await link.texts("MGET", "small", "huge", "largest", "small")
        assert isinstance(huge, TooLarge)
        assert huge.size == 20 * MAX_VALUE_BYTES
        assert not isinstance(largest, TooLarge)
        assert len(largest) == MAX_VALUE_BYTES
        assert (small, again) == (b"z", b"z")
        assert await link.call("PING") == b"PONG"
    finally:
        await link.close()


def test_an_address_keeps_its_password_from_explanations_of_any_error() -> None:
    address: RedisAddress = parse_address("redis://:p%40ss%2Fw@h")
    assert address.explain(OSError("p@ss/w and p%40ss%2Fw")).count("***") == 2
