"""The replies of SCAN and MGET, cut at every byte; and everything that is no such reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004  # redis-py's own
    InvalidResponse,
    NoPermissionError,
)

from authgate_fast.config.redis_link import Link, parse_address
from authgate_fast.config.redis_texts import TextsReader, TooLarge
from tests.redis_server import RedisServer

MAX_BYTES = 20

MGET = (
    b"*7\r\n$3\r\nabc\r\n$-1\r\n_\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n$21\r\n123456789012345678901\r\n$2\r\nzz\r\n"
)
TEXTS = [b"abc", None, None, b"", b"\r\n\r\n", TooLarge(21), b"zz"]


async def read(data: bytes, cut: int, how: Callable[[TextsReader], Awaitable[Any]]) -> Any:
    stream = asyncio.StreamReader()
    stream.feed_data(data[:cut])
    task = asyncio.ensure_future(how(TextsReader(stream, MAX_BYTES)))
    await asyncio.sleep(0)
    if data[cut:]:
        stream.feed_data(data[cut:])
    stream.feed_eof()
    return await task


async def test_texts_are_read_wherever_they_are_cut() -> None:
    for cut in range(len(MGET) + 1):
        found = await read(MGET, cut, TextsReader.texts)
        assert found == TEXTS
        assert isinstance(found[5], TooLarge)


async def test_a_page_is_read_wherever_it_is_cut() -> None:
    reply = b"*2\r\n$3\r\n288\r\n*3\r\n$1\r\na\r\n$2\r\nbb\r\n$0\r\n\r\n"
    for cut in range(len(reply) + 1):
        assert await read(reply, cut, TextsReader.page) == (b"288", [b"a", b"bb", b""])


async def test_what_follows_a_reply_is_no_part_of_it() -> None:
    for reply in (b"*2\r\n_\r\n$-1\r\n$1\r\na\r\n", b"*2\r\n$-1\r\n_\r\n_\r\n"):
        assert await read(reply, len(reply), TextsReader.texts) == [None, None]


async def test_a_reply_that_ends_early_is_a_lost_connection() -> None:
    for cut in range(len(MGET) - 1):
        with pytest.raises(ConnectionError):
            await read(MGET[: cut + 1], cut, TextsReader.texts)


@pytest.mark.parametrize(
    "reply",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"$1\r\na\r\n",
        b"*1\r\n\r\n\r\n",
        b"*2\r\n\r\n\r\n$1\r\na\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*0\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$+1\r\na\r\n",
        b"*1\r\n$1_0\r\n0123456789\r\n",
        b"*1\r\n$2\r\nabc\r\n",
        b"*1\r\n$2\r\nab\rx",
        b"*1\r\n>2\r\n$1\r\na\r\n",
        b"*" + b"1" * 70_000,
    ],
)
async def test_any_other_reply_is_refused(reply: bytes) -> None:
    for cut in (0, len(reply) // 2, len(reply)):
        with pytest.raises(InvalidResponse):
            await read(reply, cut, TextsReader.texts)


async def test_an_error_of_redis_is_its_error() -> None:
    for said, kind in (("NOPERM no", NoPermissionError), ("LOADING wait", BusyLoadingError)):
        with pytest.raises(kind):
            await read(f"-{said}\r\n".encode(), 0, TextsReader.texts)


@pytest.mark.redis
async def test_a_real_redis_is_read_and_the_connection_goes_on(redis_server: RedisServer) -> None:
    values = {b"k%d" % n: b"\r\n" * n for n in range(600)}
    with redis_server.client() as client:
        client.mset(values)  # type: ignore[arg-type]  # bytes are keys too
        client.lpush("list", 1)
    link = Link(parse_address(redis_server.url), "test")
    await link.open()
    try:
        assert await link.texts("MGET", *values, "absent", "list") == [*values.values(), None, None]
        found, cursor = set(), b"0"
        while True:
            await link.ask(("SCAN", cursor, "MATCH", "k*", "COUNT", 50), ("MGET", "k3", "absent"))
            told, texts = await link.answers()
            assert texts == [values[b"k3"], None]
            assert told is not None
            cursor, page = told
            found.update(page)
            if cursor == b"0":
                break
        assert found == values.keys()
        assert await link.call("PING") == b"PONG"
    finally:
        await link.close()
