"""Bodies stream in bounded memory, whoever is slow (DESIGN section 5)."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authgate_fast.proxy.upstream import Upstream
from tests.proxy.harness import BOUND_S, Handler, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import (
    full_listener,
    ok,
    read_answer,
    read_on,
    request,
    running,
    small_window,
    stop_reading,
    until,
)

MIB = 1_048_576
PIECE = b"\xa5" * 65_536
HELD_BYTES = 2 * MIB
"""What the gateway itself may hold of a body, both directions together."""
KERNEL_BYTES = 32 * MIB
"""What the socket buffers of four ends may hold at most, by the kernel's own tuning."""


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held(stack: Stack) -> int:
    """Return the body bytes that wait inside the gateway."""
    total = 0
    for connection in stack.context.connections:
        total += len(connection.buffer) + connection.transport.get_write_buffer_size()
        exchange = connection.exchange
        if exchange is not None:
            total += sum(map(len, exchange.sent or ()))
            if exchange.upstream is not None:
                total += len(exchange.upstream.buffer) + exchange.upstream.transport.get_write_buffer_size()
    return total


class Flow:
    """A backend of one big body either way; `sent` and `received` count it."""

    def __init__(self, size: int, *, chunked: bool) -> None:
        self.size = size
        self.chunked = chunked
        self.sent = 0
        self.received = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def download(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        framing = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % self.size
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        await self.stream(writer)
        await reader.read(-1)

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        while self.sent < self.size:
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if self.chunked else PIECE)
            self.sent += len(PIECE)
            await writer.drain()
        if self.chunked:
            writer.write(b"0\r\n\r\n")

    async def upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not self.reads.is_set():
            stop_reading(writer)
            await self.reads.wait()
            read_on(writer)
        tail = b""
        while self.received < self.size or (self.chunked and not tail.endswith(b"\r\n0\r\n\r\n")):
            data = await reader.read(262_144)
            assert data
            self.received += data.count(PIECE[:1]) if self.chunked else len(data)
            tail = (tail + data)[-16:]
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read(-1)


@asynccontextmanager
async def flowing(handler: Handler) -> AsyncIterator[Stack]:
    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        yield stack


async def stalled(flow: Flow, stack: Stack) -> None:
    """Wait until nothing moves any more: many turns of the loop without progress."""
    still = 0
    while still < 200:
        before = flow.sent
        await asyncio.sleep(0.001)
        assert held(stack) < HELD_BYTES
        still = still + 1 if flow.sent == before else 0


FRAMINGS = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@FRAMINGS
async def test_a_client_that_stops_reading_stops_the_backend(chunked: bool) -> None:
    flow = Flow(256 * MIB, chunked=chunked)
    async with flowing(flow.download) as stack:
        gc.collect()
        before = rss()
        _, writer = await stack.connect()
        stop_reading(writer)
        writer.write(request(b"GET", b"/p/a"))
        await until(lambda: any(each.write_paused for each in stack.context.connections))
        await stalled(flow, stack)
        assert flow.sent < KERNEL_BYTES
        (connection,) = stack.context.connections
        assert connection.exchange is not None
        assert connection.exchange.upstream is not None
        assert connection.exchange.upstream.read_paused
        assert rss() - before < 16 * MIB


@FRAMINGS
async def test_a_backend_that_stops_reading_stops_the_client(chunked: bool) -> None:
    flow = Flow(256 * MIB, chunked=chunked)
    flow.reads.clear()
    async with flowing(flow.upload) as stack:
        gc.collect()
        before = rss()
        _, writer = await stack.connect()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % flow.size
        writer.write(request(b"POST", b"/p/a", framing))
        sending = asyncio.create_task(flow.stream(writer))
        await until(lambda: any(each.read_paused for each in stack.context.connections))
        await stalled(flow, stack)
        assert flow.sent < KERNEL_BYTES
        assert rss() - before < 16 * MIB
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@FRAMINGS
async def test_a_backend_that_is_not_reached_yet_stops_the_client(chunked: bool) -> None:
    """A listener whose queue is full lets a connect wait for as long as it likes."""
    flow = Flow(64 * MIB, chunked=chunked)
    with full_listener() as port:
        async with gateway(make_snapshot(port)) as stack:
            await check_upload_stops(flow, stack)


@FRAMINGS
async def test_a_backend_that_is_slow_from_the_first_byte_on_stops_the_client(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while the connection was made may be more already than it takes."""
    made = Upstream.connection_made

    def narrow(self: Upstream, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)

    monkeypatch.setattr(Upstream, "connection_made", narrow)
    flow = Flow(64 * MIB, chunked=chunked)
    flow.reads.clear()
    async with flowing(flow.upload) as stack:
        await check_upload_stops(flow, stack)


async def check_upload_stops(flow: Flow, stack: Stack) -> None:
    """Upload until nothing moves: the first read brings more body than a backend is asked to hold."""
    _, writer = await stack.connect()
    framing = b"Transfer-Encoding: chunked" if flow.chunked else b"Content-Length: %d" % flow.size
    first = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if flow.chunked else PIECE
    writer.write(request(b"POST", b"/p/a", framing) + first * 4)
    flow.sent = 4 * len(PIECE)
    sending = asyncio.create_task(flow.stream(writer))
    await until(lambda: any(each.exchange is not None for each in stack.context.connections))
    await stalled(flow, stack)
    assert flow.sent < KERNEL_BYTES
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.slow
@FRAMINGS
async def test_a_large_download_comes_whole_in_bounded_memory(chunked: bool) -> None:
    """It starts with a client that does not read, goes on at full speed, and stops once more in the middle."""
    flow = Flow(128 * MIB, chunked=chunked)
    async with flowing(flow.download) as stack:
        gc.collect()
        before = rss()
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        got = 0
        paused = False
        while got < flow.size:
            data = await asyncio.wait_for(reader.read(262_144), BOUND_S)
            assert data
            got += data.count(PIECE[:1]) if chunked else len(data)
            assert held(stack) < HELD_BYTES
            if got > flow.size // 2 and not paused:
                paused = True
                stop_reading(writer)
                await until(lambda: any(each.write_paused for each in stack.context.connections))
                read_on(writer)
        assert got == flow.size
        assert rss() - before < 64 * MIB


@pytest.mark.slow
@FRAMINGS
async def test_a_large_upload_arrives_whole_in_bounded_memory(chunked: bool) -> None:
    flow = Flow(128 * MIB, chunked=chunked)
    flow.reads.clear()
    async with flowing(flow.upload) as stack:
        gc.collect()
        before = rss()
        reader, writer = await stack.connect()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % flow.size
        writer.write(request(b"POST", b"/p/a", framing))
        sending = asyncio.create_task(flow.stream(writer))
        await until(lambda: any(each.read_paused for each in stack.context.connections))
        flow.reads.set()
        while flow.received < flow.size and not sending.done():
            assert held(stack) < HELD_BYTES
            await asyncio.sleep(0.005)
        answer = await read_answer(reader, b"POST", 6 * BOUND_S)
        assert (answer.status, flow.received) == (204, flow.size)
        assert rss() - before < 64 * MIB
        await sending


async def test_a_backend_connection_that_was_paused_by_its_last_bytes_reads_on() -> None:
    """The answer is whole, so nothing of it will ever call for more; the next answer must."""
    body = b"x" * 160_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    loop = asyncio.get_running_loop()
    async with running(lambda s: data if s.turn == 1 else ok(s)) as (stack, recorder):
        with small_window() as client:
            await loop.sock_connect(client, ("127.0.0.1", stack.port))
            await until(lambda: len(stack.context.connections) == 1)
            (connection,) = stack.context.connections
            inner = connection.transport.get_extra_info("socket")
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            await loop.sock_sendall(client, request(b"GET", b"/p/a"))
            await until(lambda: connection.write_paused and connection.exchange is None)
            got = 0
            while got < len(body):
                got += len(await asyncio.wait_for(loop.sock_recv(client, 65_536), BOUND_S))
            await loop.sock_sendall(client, request(b"GET", b"/p/next"))
            raw = b""
            while not raw.endswith(b"/next"):
                raw += await asyncio.wait_for(loop.sock_recv(client, 65_536), BOUND_S)
        assert recorder.connections == 1


async def test_a_paused_backend_connection_is_as_good_as_new_afterwards() -> None:
    flow = Flow(8 * MIB, chunked=False)
    connections: set[Upstream] = set()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            flow.sent = 0
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % flow.size)
            await flow.stream(writer)
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        for _ in range(3):
            stop_reading(writer)
            writer.write(request(b"GET", b"/p/a"))
            await until(lambda: any(each.write_paused for each in stack.context.connections))
            (connection,) = stack.context.connections
            assert connection.exchange is not None
            assert connection.exchange.upstream is not None
            connections.add(connection.exchange.upstream)
            read_on(writer)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
            await asyncio.wait_for(reader.readexactly(flow.size), BOUND_S)
    assert len(connections) == 1
