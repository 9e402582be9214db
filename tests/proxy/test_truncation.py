"""A response that breaks off breaks off for the client too: it can always tell (DESIGN section 5)."""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import Reply, answers, exchange, ok, read_answer, request, running, until

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n12345"


async def read_all(stack: Stack, data: bytes) -> tuple[bytes, bool]:
    """Return what comes, and whether it ended with a reset."""
    reader, writer = await stack.connect()
    writer.write(data)
    raw = b""
    try:
        while True:
            piece = await asyncio.wait_for(reader.read(65_536), BOUND_S)
            if not piece:
                return raw, False
            raw += piece
    except ConnectionResetError:
        return raw, True


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        LENGTH[:-5],
        LENGTH,
        CHUNKED[:-10],
        CHUNKED[:-8],
        CHUNKED[:-5],
        CHUNKED,
        CHUNKED + b"0\r\n",
        CHUNKED + b"0\r\nX-T: 1\r\n",
    ],
)
async def test_a_client_can_tell_a_cut_body_by_its_framing(data: bytes, then: str) -> None:
    async with running(lambda _: Reply(data, then)) as (stack, _):
        raw, _ = await read_all(stack, request(b"GET", b"/p/a"))
        for answer in answers(raw, b"GET"):
            assert answer.status == 502 or not answer.whole
        await until(lambda: not stack.context.connections)


async def test_a_body_until_close_that_is_reset_has_no_last_chunk() -> None:
    async with running(lambda _: Reply(UNTIL_CLOSE, "reset")) as (stack, _):
        raw, _ = await read_all(stack, request(b"GET", b"/p/a"))
        assert not any(answer.whole and answer.status == 200 for answer in answers(raw, b"GET"))


@pytest.mark.parametrize(
    ("data", "then"),
    [(CHUNKED, "close"), (CHUNKED, "reset"), (CHUNKED + b"xx\r\n", "stall"), (UNTIL_CLOSE, "reset")],
)
async def test_an_HTTP_1_0_client_is_reset_where_only_the_close_ends_a_body(data: bytes, then: str) -> None:
    """An orderly close would say that the body is whole."""
    async with running(lambda _: Reply(data, then)) as (stack, _):
        raw, was_reset = await read_all(stack, b"GET /p/a HTTP/1.0\r\nHost: a\r\n\r\n")
        assert was_reset or raw.startswith(b"HTTP/1.1 502 ")


async def test_an_HTTP_1_0_client_can_tell_a_cut_body_by_its_length() -> None:
    async with running(lambda _: Reply(LENGTH, "close")) as (stack, _):
        raw, _ = await read_all(stack, b"GET /p/a HTTP/1.0\r\nHost: a\r\n\r\n")
        (answer,) = answers(raw, b"GET")
        assert (answer.get(b"content-length"), answer.whole) == (b"10", False)


@pytest.mark.parametrize("then", ["close", "reset", "half_close"])
@pytest.mark.parametrize(
    "data", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]
)
async def test_a_backend_that_leaves_before_its_head_is_whole_is_502(data: bytes, then: str) -> None:
    async with running(lambda s: Reply(data, then) if s.path == b"/cut" else ok(s)) as (stack, _):
        reader, writer = await stack.connect()
        answer = await exchange(reader, writer, request(b"GET", b"/p/cut"))
        assert answer.status == 502
        assert answer.get(b"connection") is None  # the client's connection is as good as before
        assert (await exchange(reader, writer, request(b"GET", b"/p/next"))).body == b"/next"


async def test_a_backend_that_leaves_after_its_answer_harms_nobody() -> None:
    async with running(lambda s: Reply(ok(s), "close")) as (stack, recorder):
        reader, writer = await stack.connect()
        for n in range(5):
            assert (await exchange(reader, writer, request(b"GET", b"/p/%d" % n))).body == b"/%d" % n
            await until(lambda: not recorder.open)
            await until(lambda: not any(c["open"] for c in stack.context.pools.counts().values()))


async def test_pipelined_requests_behind_a_cut_answer_are_not_served() -> None:
    async with running(lambda s: Reply(LENGTH, "close") if s.path == b"/cut" else ok(s)) as (stack, recorder):
        raw, _ = await read_all(stack, request(b"GET", b"/p/cut") + request(b"GET", b"/p/never"))
        (answer,) = answers(raw, b"GET", b"GET")
        assert not answer.whole
        assert [seen.path for seen in recorder.seen] == [b"/cut"]


async def test_a_backend_that_leaves_in_an_upload_is_answered_502() -> None:
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()

        async def leaving(
            connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.readuntil(b"part")

        recorder._serve = leaving  # type: ignore[method-assign]
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 100") + b"part")
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.get(b"connection")) == (502, b"close")
