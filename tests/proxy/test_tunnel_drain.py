"""A worker that drains says goodbye to its tunnels: between two frames, one after the other, and in time."""

from __future__ import annotations

import asyncio
import time

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from authgate_fast.proxy.farewell import GOODBYES_PER_SECOND
from tests.proxy.harness import BOUND_S, answer, backend, read_head
from tests.proxy.scripted import answers, request, stop_reading, until
from tests.proxy.tunnel_worker import closed, running
from tests.proxy.tunnels import ASK, GRANT, RawBackend

CLOSE_1001 = b"\x88\x02\x03\xe9"


async def open_raw(port: int, *lines: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(request(b"GET", b"/p", *(lines or ASK)))
    assert b" 101 " in await read_head(reader)
    return reader, writer


async def test_both_ends_get_1001_and_the_worker_ends_long_before_its_timeout() -> None:
    async with running(drain_timeout_s=20) as world, world.dial("/p") as client:
        await client.send("before")
        assert await client.recv() == "before"
        begun = time.monotonic()
        drained = asyncio.create_task(world.worker.drain())
        assert await closed(client) == 1001
        await asyncio.wait_for(drained, BOUND_S)
        assert time.monotonic() - begun < 8
        await until(lambda: bool(world.ended))
        assert world.ended[0].close_code == 1001


async def test_a_goodbye_never_lands_inside_a_frame() -> None:
    async def streaming(connection: ServerConnection) -> None:
        try:
            await connection.recv()
            while True:
                await connection.send([b"a" * 50_000, b"b" * 70_000, b"c" * 3])
                await asyncio.sleep(0)
        except ConnectionClosed:
            pass

    async with running(handler=streaming) as world:
        clients = [await world.dial("/p", max_size=None, compression=None) for _ in range(5)]
        for client in clients:
            await client.send("go")
        codes = [asyncio.create_task(closed(client)) for client in clients]
        await until(lambda: world.context.counters.tunnel_bytes > 5_000_000)
        await asyncio.wait_for(world.worker.drain(), BOUND_S)
        # A frame torn apart would be 1002, a cut 1006.
        assert await asyncio.gather(*codes) == [1001] * 5
        await until(lambda: len(world.ended) == 5)
        assert {connection.close_code for connection in world.ended} == {1001}


@pytest.mark.parametrize("to_client", [True, False])
async def test_it_waits_for_the_end_of_the_frame_that_is_under_way(to_client: bool) -> None:
    raw = RawBackend()
    async with backend(raw.handle) as port, running(port=port) as world:
        client = await open_raw(world.worker.port)
        server = await raw.next()
        source, target = (server, client) if to_client else (client, server)
        begun = b"\x82" + (b"\x05" if to_client else b"\x85mask") + b"ab"
        source[1].write(begun)
        assert await target[0].readexactly(len(begun)) == begun
        drained = asyncio.create_task(world.worker.drain())
        # The other direction is between two frames, and is told at once.
        told = await asyncio.wait_for(source[0].readexactly(4 if not to_client else 8), BOUND_S)
        assert told[:2] == (b"\x88\x82" if to_client else b"\x88\x02")
        source[1].write(b"cde" + b"\x81\x03new"[: 5 if to_client else 0])
        seen = await asyncio.wait_for(target[0].readexactly(3 + (4 if to_client else 8)), BOUND_S)
        assert seen[:3] == b"cde"
        assert seen[3:5] == (b"\x88\x02" if to_client else b"\x88\x82")
        answer_of_client, answer_of_server = b"\x88\x82mask" + b"\x00\x00", CLOSE_1001
        source[1].write(answer_of_server if to_client else answer_of_client)
        target[1].write(answer_of_client if to_client else answer_of_server)
        await asyncio.wait_for(drained, BOUND_S)
        assert await target[0].read(-1) == b""
        client[1].close()


async def test_another_protocol_gets_the_end_of_its_stream() -> None:
    raw = RawBackend(GRANT.replace(b"websocket", b"my-proto"))
    async with backend(raw.handle) as port, running(port=port, upgrades=["my-proto"]) as world:
        reader, writer = await open_raw(world.worker.port, b"Connection: upgrade", b"Upgrade: my-proto")
        backend_reader, backend_writer = await raw.next()
        writer.write(b"\x88\x02 no frame")
        assert await backend_reader.readexactly(11) == b"\x88\x02 no frame"
        drained = asyncio.create_task(world.worker.drain())
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        assert await asyncio.wait_for(backend_reader.read(-1), BOUND_S) == b""
        writer.close()
        backend_writer.close()
        await asyncio.wait_for(drained, BOUND_S)


async def test_what_is_no_websocket_at_all_gets_no_frame() -> None:
    raw = RawBackend()
    async with backend(raw.handle) as port, running(port=port) as world:
        reader, writer = await open_raw(world.worker.port)
        backend_reader, backend_writer = await raw.next()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        backend_writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert await backend_reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
        assert await reader.readexactly(19) == b"HTTP/1.1 200 OK\r\n\r\n"
        drained = asyncio.create_task(world.worker.drain())
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        assert await asyncio.wait_for(backend_reader.read(-1), BOUND_S) == b""
        writer.close()
        backend_writer.close()
        await asyncio.wait_for(drained, BOUND_S)


@pytest.mark.parametrize("stuck", ["silent", "reads_nothing"])
async def test_who_does_not_answer_a_goodbye_is_cut_within_the_timeout(stuck: str) -> None:
    raw = RawBackend()
    async with backend(raw.handle) as port, running(port=port, drain_timeout_s=1.0) as world:
        reader, writer = await open_raw(world.worker.port)
        _, backend_writer = await raw.next()
        if stuck == "reads_nothing":
            stop_reading(writer)
            (tunnel,) = world.context.tunnels
            while not tunnel.client.write_paused:
                backend_writer.write(b"\x82\x7f" + (1_000_000).to_bytes(8, "big") + bytes(1_000_000))
                await asyncio.sleep(0.005)
        begun = time.monotonic()
        await asyncio.wait_for(world.worker.drain(), BOUND_S)
        assert time.monotonic() - begun < 3
        assert not world.context.tunnels
        if stuck == "silent":
            assert await asyncio.wait_for(reader.read(-1), BOUND_S) == CLOSE_1001
        writer.transport.abort()


async def test_many_are_not_told_all_at_once() -> None:
    count = 60
    async with running(drain_timeout_s=4.0) as world:
        clients = [await world.dial("/p") for _ in range(count)]
        moments: list[float] = []

        async def waiting(index: int) -> None:
            assert await closed(clients[index]) == 1001
            moments.append(time.monotonic())

        waits = [asyncio.create_task(waiting(index)) for index in range(count)]
        begun = time.monotonic()
        await asyncio.wait_for(world.worker.drain(), BOUND_S)
        await asyncio.gather(*waits)
        spread = count / GOODBYES_PER_SECOND
        assert max(moments) - min(moments) > spread / 2
        assert max(moments) - begun < spread + 3.0


async def test_an_upgrade_that_comes_while_draining_is_refused() -> None:
    async with running() as world, world.dial("/p") as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.worker.port)
        writer.write(request(b"GET", b"/p", *ASK)[:-2])  # a connection with a request under way
        await until(lambda: any(one.buffer for one in world.context.connections))
        drained = asyncio.create_task(world.worker.drain())
        await until(lambda: world.context.draining)
        writer.write(b"\r\n")
        (found,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert (found.status, found.get(b"connection")) == (503, b"close")
        assert await closed(client) == 1001
        await asyncio.wait_for(drained, BOUND_S)
        writer.close()


async def test_a_request_beside_a_tunnel_is_finished_in_a_drain() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go.wait()
        writer.write(answer(b"done"))

    async with backend(slow) as port, running(port=port) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.worker.port)
        writer.write(request(b"GET", b"/p"))
        await asyncio.wait_for(asked.wait(), BOUND_S)
        drained = asyncio.create_task(world.worker.drain())
        await until(lambda: world.context.draining)
        go.set()
        (found,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert found.body == b"done"
        await asyncio.wait_for(drained, BOUND_S)
        writer.close()
