"""A client that leaves, at whatever moment: its backend connection ends and nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from authgate_fast.proxy import timeouts
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.upstream import Upstream
from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import (
    Recorder,
    Reply,
    answers,
    ok,
    request,
    reset,
    running,
    stop_reading,
    until,
    within,
)

BIG = 50_000_000
GONE_S = 3.0
"""Within this a client that left must be noticed."""

Leave = Callable[[asyncio.StreamWriter], None]


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


LEAVE = pytest.mark.parametrize("leave", [close, reset])


async def nothing_left(stack: Stack, recorder: Recorder, bound_s: float = GONE_S) -> None:
    """Wait until neither a client's connection nor a backend's that is in use remains."""
    context = stack.context

    def busy() -> int:
        return sum(counts["open"] - counts["idle"] for counts in context.pools.counts().values())

    await until(lambda: not context.connections and not busy(), bound_s)
    await until(lambda: recorder.open == sum(c["idle"] for c in context.pools.counts().values()), bound_s)


def alive(kind: type) -> int:
    gc.collect()
    return sum(1 for each in gc.get_objects() if type(each) is kind)


@LEAVE
async def test_before_a_byte_and_within_the_head(leave: Leave) -> None:
    async with running() as (stack, recorder):
        for data in (b"", b"G", b"GET /p/a HTTP/1.1\r\nHos"):
            _, writer = await stack.connect()
            writer.write(data)
            await until(lambda: len(stack.context.connections) == 1)
            leave(writer)
            await nothing_left(stack, recorder)
        assert recorder.connections == 0


@LEAVE
async def test_within_the_request_body(leave: Leave) -> None:
    async with running() as (stack, recorder):
        _, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 100") + b"part")
        await within(recorder.began)
        leave(writer)
        await nothing_left(stack, recorder)
        assert recorder.seen == []


@LEAVE
async def test_while_waiting_for_the_answer(leave: Leave, fast_ticks: None) -> None:
    async with running(lambda _: Reply(b"", "stall")) as (stack, recorder):
        _, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await until(lambda: bool(recorder.seen))
        leave(writer)
        await nothing_left(stack, recorder)


@LEAVE
async def test_while_waiting_with_more_requests_pipelined(leave: Leave, fast_ticks: None) -> None:
    async with running(lambda _: Reply(b"", "stall")) as (stack, recorder):
        _, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a") + request(b"GET", b"/p/b") * 3)
        await until(lambda: bool(recorder.seen))
        leave(writer)
        await nothing_left(stack, recorder)
        assert len(recorder.seen) == 1


@LEAVE
async def test_within_a_response_that_goes_on(leave: Leave) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG
    async with running(lambda _: Reply([head, b"x" * BIG], "stall")) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await asyncio.wait_for(reader.readexactly(100_000), BOUND_S)
        leave(writer)
        await nothing_left(stack, recorder)


@LEAVE
async def test_within_a_response_that_pauses(leave: Leave, fast_ticks: None) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with running(lambda _: Reply(data, "stall")) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await asyncio.wait_for(reader.readuntil(b"abc\r\n"), BOUND_S)
        leave(writer)
        await nothing_left(stack, recorder)


@LEAVE
async def test_while_it_does_not_read_a_response(leave: Leave) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG
    async with running(lambda _: Reply([head, b"x" * BIG], "stall")) as (stack, recorder):
        _, writer = await stack.connect()
        stop_reading(writer)
        writer.write(request(b"GET", b"/p/a"))
        await until(lambda: any(each.write_paused for each in stack.context.connections))
        leave(writer)
        await nothing_left(stack, recorder)


@LEAVE
async def test_while_idle_between_requests(leave: Leave) -> None:
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await asyncio.wait_for(reader.readuntil(b"/a"), BOUND_S)
        leave(writer)
        await nothing_left(stack, recorder)
        assert recorder.open == 1  # the backend's connection is as good as before


async def test_a_half_closed_client_still_gets_a_fast_answer(fast_ticks: None) -> None:
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        writer.write_eof()
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert answer.body == b"/a"
        await nothing_left(stack, recorder)


async def test_a_half_closed_client_gets_the_whole_of_a_download_that_takes_long(
    fast_ticks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-closed and gone look the same only while nothing is sent: writing to one that is gone fails."""
    monkeypatch.setattr(timeouts, "CLIENT_GONE_AFTER_S", 0.2)
    pieces = 12
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % pieces
    eof_seen = asyncio.Event()

    async with running() as (stack, recorder):

        async def dripping(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await within(eof_seen)
            writer.write(head)
            for _ in range(pieces):
                writer.write(b"x")
                await asyncio.sleep(0.04)  # this is the pace of the download, and waits for nothing
            await reader.read(-1)

        recorder._serve = dripping  # type: ignore[method-assign,assignment]
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        writer.write_eof()
        await until(lambda: any(each.eof for each in stack.context.connections))
        eof_seen.set()
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert (answer.body, answer.whole) == (b"x" * pieces, True)


async def test_nothing_is_left_of_an_exchange_however_it_ended(fast_ticks: None) -> None:
    def respond(seen: object) -> Reply | bytes:
        path = getattr(seen, "path", b"")
        if path == b"/stall":
            return Reply(b"", "stall")
        if path == b"/cut":
            return Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "close")
        if path == b"/bad":
            return Reply(b"garbage\r\n\r\n", "stall")
        return ok(seen)  # type: ignore[arg-type]

    async with running(respond) as (stack, recorder):
        for path in (b"/p/ok", b"/p/stall", b"/p/cut", b"/p/bad", b"/nowhere", b"/p/a/../b", b"/p/ok"):
            for ending in (close, reset):
                reader, writer = await stack.connect()
                writer.write(request(b"GET", path) + request(b"POST", path, body=b"b"))
                if path != b"/p/stall":
                    await asyncio.wait_for(reader.read(1), BOUND_S)
                else:
                    await until(lambda: bool(recorder.seen) and recorder.seen[-1].path == b"/stall")
                ending(writer)
                await nothing_left(stack, recorder)
        kept = sum(counts["idle"] for counts in stack.context.pools.counts().values())
        await until(lambda: alive(Exchange) == 0)
        await until(lambda: alive(Downstream) == 0)
        await until(lambda: alive(Upstream) == kept)


async def test_exchanges_are_freed_without_the_garbage_collector() -> None:
    """Cycles would pile up until a collection; counting references must be enough."""
    async with running() as (stack, _):
        gc.collect()
        gc.disable()
        try:
            data = request(b"GET", b"/p/a") * 20 + request(b"GET", b"/p/b", close=True)
            assert (await stack.talk(data)).count(b"200 OK") == 21
            await until(lambda: not stack.context.connections)
            assert not [each for each in gc.get_objects() if type(each) is Exchange]
        finally:
            gc.enable()
