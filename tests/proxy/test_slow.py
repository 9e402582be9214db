"""Clients that move a little all the time: minimum rates of bodies and of readers, and who is not meant by them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.pace import body_is_too_slow
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import (
    answers,
    read_answer,
    read_on,
    request,
    running,
    small_window,
    stop_reading,
    until,
)

pytestmark = pytest.mark.usefixtures("fast_ticks")

FAST_BODIES = Limits(min_body_rate_bytes_s=2_000, rate_grace_s=0.3)
FRAMES = {
    "length": (b"Content-Length: 100000", b"x"),
    "chunked": (b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
}


async def drip(writer: asyncio.StreamWriter, piece: bytes, every_s: float = 0.02) -> None:
    """Send a piece at a time, at a hostile client's pace."""
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(every_s)


def hits(stack: Stack) -> dict[str, int]:
    return stack.context.counters.limit_hits


@pytest.mark.parametrize("framing", FRAMES)
async def test_a_body_that_drips_is_408_at_min_body_rate_bytes_s(framing: str) -> None:
    line, piece = FRAMES[framing]
    async with running(limits=FAST_BODIES) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", line))
        dripping = asyncio.create_task(drip(writer, piece))
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"POST")
        dripping.cancel()
        assert (answer.status, answer.get(b"connection")) == (408, b"close")
        assert hits(stack) == {"min_body_rate_bytes_s": 1}
        await until(lambda: recorder.open == 0)
        assert recorder.seen == []


async def test_a_body_above_the_rate_may_take_as_long_as_it_likes() -> None:
    async with running(limits=FAST_BODIES) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 20000"))
        for _ in range(20):
            writer.write(b"x" * 1_000)
            await asyncio.sleep(0.05)  # the client's pace: 20,000 bytes a second at most
        assert (await read_answer(reader, b"POST")).status == 200
        assert recorder.seen[0].body == b"x" * 20_000
        assert hits(stack) == {}


async def test_a_body_that_began_well_may_pause() -> None:
    """The rate is an average since the start: what came early counts for later."""
    async with running(limits=FAST_BODIES) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 30000") + b"x" * 29_999)
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 1.5)
        writer.write(b"x")
        assert (await read_answer(reader, b"POST")).status == 200


async def test_each_body_of_a_connection_is_judged_by_itself() -> None:
    async with running(limits=FAST_BODIES) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 100000") + b"x" * 99_999)
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 0.2)
        writer.write(b"x")
        assert (await read_answer(reader, b"POST")).status == 200
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 100000"))
        dripping = asyncio.create_task(drip(writer, b"x"))
        assert (await read_answer(reader, b"POST")).status == 408
        dripping.cancel()


async def test_the_time_of_a_slow_backend_does_not_count() -> None:
    reads = asyncio.Event()
    size = 30_000_000

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stop_reading(writer)
        await reads.wait()
        read_on(writer)
        left = size
        while left:
            left -= len(await reader.read(262_144))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read(-1)

    limits = Limits(min_body_rate_bytes_s=25_000_000, rate_grace_s=1.0)
    async with backend(handler) as port, gateway(make_snapshot(port, limits), limits) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: %d" % size) + b"x" * size)
        await until(lambda: any(each.read_paused for each in stack.context.connections))
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 1.5)
        reads.set()
        assert (await read_answer(reader, b"POST", 3 * BOUND_S)).status == 204
        assert hits(stack) == {}


@pytest.mark.parametrize("read_paused", [False, True])
async def test_only_time_in_which_a_body_was_wanted_counts(read_paused: bool) -> None:
    connection = Downstream(Context(asyncio.get_running_loop(), Limits(rate_grace_s=10)))
    connection.read_paused = read_paused
    judged = [body_is_too_slow(connection, 0, float(second)) for second in range(30)]
    assert any(judged) is not read_paused
    assert not any(judged[:10])


# --- slow readers -----------------------------------------------------------------------------------------


@asynccontextmanager
async def reading(limits: Limits, size: int) -> AsyncIterator[tuple[Stack, socket.socket]]:
    """A client with a small window asks for `size` bytes; the gateway's side of the socket is small too."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with running(lambda _: data, limits) as (stack, _):
        with small_window() as client:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", stack.port))
            await until(lambda: len(stack.context.connections) == 1)
            (connection,) = stack.context.connections
            inner = connection.transport.get_extra_info("socket")
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            await loop.sock_sendall(client, request(b"GET", b"/p/a"))
            yield stack, client


async def sip(client: socket.socket, size: int) -> int:
    """Take up to `size` bytes in small sips until all are there or the gateway cuts; return how many came."""
    loop = asyncio.get_running_loop()
    got = 0
    try:
        while got < size:
            data = await asyncio.wait_for(loop.sock_recv(client, 1_024), BOUND_S)
            if not data:
                break
            got += len(data)
            await asyncio.sleep(0.02)  # a hostile client's pace: 51,200 bytes a second at most
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("size", [60_000, 5_000_000], ids=["its backend is done", "its backend is paused"])
async def test_a_reader_that_sips_is_cut_at_min_send_rate_bytes_s(size: int) -> None:
    limits = Limits(min_send_rate_bytes_s=1_000_000, send_timeout_s=0.4)
    async with reading(limits, size) as (stack, client):
        sipping = asyncio.create_task(sip(client, size))
        await until(lambda: not stack.context.connections)
        assert hits(stack) == {"min_send_rate_bytes_s": 1}
        assert await sipping < size


async def test_a_reader_above_the_rate_gets_everything() -> None:
    limits = Limits(min_send_rate_bytes_s=1_000, send_timeout_s=0.4)
    size = 60_000
    async with reading(limits, size) as (stack, client):
        assert await sip(client, size) >= size
        assert hits(stack) == {}


async def test_a_reader_that_pauses_for_less_than_send_timeout_s_is_not_too_slow() -> None:
    limits = Limits(min_send_rate_bytes_s=10_000, send_timeout_s=1.0)
    size = 400_000
    async with reading(limits, size) as (stack, client):
        loop = asyncio.get_running_loop()
        await until(lambda: all(each.write_paused for each in stack.context.connections))
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 0.5)
        got = 0
        while got < size:
            data = await asyncio.wait_for(loop.sock_recv(client, 65_536), BOUND_S)
            assert data
            got += len(data)
        assert hits(stack) == {}
