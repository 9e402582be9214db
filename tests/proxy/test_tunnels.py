"""A tunnel's bytes, ends and limits, with ends that do whatever they like."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from authgate_fast.limits import DEFAULTS
from authgate_fast.proxy import timeouts
from tests.proxy.harness import BOUND_S, KEY, Stack, read_head
from tests.proxy.scripted import answers, read_on, request, reset, small_window, stop_reading, until
from tests.proxy.tunnels import ASK, GRANT, RawBackend, raw_stack

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = request(b"GET", b"/p/a", *ASK)
OWN = (b"Connection: upgrade", b"Upgrade: my-proto")
OWN_GRANT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: my-proto\r\nConnection: Upgrade\r\n\r\n"


async def opened(stack: Stack, raw: RawBackend, lines: tuple[bytes, ...] = ASK) -> tuple[Streams, Streams]:
    """Open a tunnel; return the client's and the backend's streams."""
    reader, writer = await stack.connect()
    writer.write(request(b"GET", b"/p/a", *lines))
    assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
    return (reader, writer), await raw.next()


async def read(streams: Streams, size: int) -> bytes:
    return await asyncio.wait_for(streams[0].readexactly(size), BOUND_S)


async def rest(streams: Streams) -> bytes:
    """Return all that comes until the end of the stream."""
    return await asyncio.wait_for(streams[0].read(-1), BOUND_S)


async def gone(stack: Stack) -> None:
    """Wait until nothing is left of any tunnel."""
    await until(lambda: not stack.context.tunnels and not stack.context.connections)


# --- bytes --------------------------------------------------------------------------------------------


async def test_bytes_pass_both_ways_as_they_are() -> None:
    async with raw_stack() as (stack, raw):
        client, backend = await opened(stack, raw)
        for size in (1, 7, 1_000, 300_000):
            data = bytes(range(256)) * (size // 256 + 1)
            for source, target in ((client, backend), (backend, client)):
                source[1].write(data)
                assert await read(target, len(data)) == data
        counters = stack.context.counters
        assert (counters.tunnels, len(stack.context.tunnels)) == (1, 1)
        assert counters.tunnel_bytes == 2 * sum(256 * (size // 256 + 1) for size in (1, 7, 1_000, 300_000))


async def test_what_comes_behind_the_101_in_the_same_read_comes_first() -> None:
    async with raw_stack(GRANT + b"early") as (stack, raw):
        client, backend = await opened(stack, raw)
        backend[1].write(b" and late")
        assert await read(client, 14) == b"early and late"


async def test_bytes_before_the_101_are_held_until_it_comes() -> None:
    async with raw_stack(b"") as (stack, raw):
        _, writer = await stack.connect()
        writer.write(HEAD + b"at once, ")
        backend = await raw.next()
        writer.write(b"and then")
        await until(lambda: any(one.buffer == b"at once, and then" for one in stack.context.connections))
        assert raw.heads[0].endswith(b"\r\n\r\n")
        backend[1].write(GRANT)
        assert await read(backend, 17) == b"at once, and then"
        writer.write(b"!")
        assert await read(backend, 1) == b"!"


async def test_no_more_is_held_than_a_head_may_have() -> None:
    limits = replace(DEFAULTS, max_head_bytes=4_096)
    async with raw_stack(b"", limits) as (stack, raw):
        _, writer = await stack.connect()
        writer.write(HEAD)
        backend = await raw.next()
        data = b"x" * 8_000_000
        writer.write(data)
        await until(lambda: any(one.read_paused for one in stack.context.connections))
        (connection,) = stack.context.connections
        assert len(connection.buffer) < 4_096 + 300_000
        backend[1].write(GRANT)
        assert await read(backend, len(data)) == data


async def test_a_pooled_connection_becomes_a_tunnel_and_never_comes_back() -> None:
    async with raw_stack() as (stack, raw):
        raw.grant = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/plain"))
        await read_head(reader)
        backend = await raw.next()
        (pool,) = stack.context.pools.counts().values()
        assert pool == {"open": 1, "idle": 1}
        writer.write(HEAD)
        assert (await asyncio.wait_for(backend[0].readuntil(b"\r\n\r\n"), BOUND_S)).startswith(b"GET /a ")
        backend[1].write(GRANT)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert list(stack.context.pools.counts().values()) in ([], [{"open": 0, "idle": 0}])
        writer.write(b"through")
        assert await read(backend, 7) == b"through"
        writer.close()
        backend[1].close()
        await gone(stack)


async def test_an_upgrade_that_met_a_stale_connection_goes_to_a_fresh_one_once() -> None:
    async with raw_stack() as (stack, raw):
        raw.grant = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/plain"))
        await read_head(reader)
        stale = await raw.next()
        raw.grant = GRANT
        writer.write(HEAD)
        await asyncio.wait_for(stale[0].readuntil(b"\r\n\r\n"), BOUND_S)
        reset(stale[1])
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert stack.context.counters.retries == 1


# --- backpressure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_backend", [True, False])
async def test_a_slow_reader_pauses_the_other_side_and_memory_stays_bounded(to_backend: bool) -> None:
    async with raw_stack() as (stack, raw):
        client, backend = await opened(stack, raw)
        source, target = (client, backend) if to_backend else (backend, client)
        stop_reading(target[1])
        total = 64 * 1024 * 1024
        sending = asyncio.create_task(_send(source[1], total))
        (tunnel,) = stack.context.tunnels
        side, other = (tunnel.client, tunnel.backend) if to_backend else (tunnel.backend, tunnel.client)
        await until(lambda: other.write_paused and side.read_paused)
        held = stack.context.counters.tunnel_bytes
        assert other.transport.get_write_buffer_size() < 600_000
        assert not sending.done()
        # The other direction goes on meanwhile.
        target[1].write(b"hello")
        assert await read(source, 5) == b"hello"
        assert stack.context.counters.tunnel_bytes == held + 5
        read_on(target[1])
        left = total
        while left:
            left -= len(await asyncio.wait_for(target[0].read(1 << 20), BOUND_S))
        await sending


async def _send(writer: asyncio.StreamWriter, total: int) -> None:
    block = b"x" * 1_048_576
    for _ in range(total // len(block)):
        writer.write(block)
        await writer.drain()


@pytest.mark.parametrize("to_backend", [True, False])
async def test_who_reads_nothing_for_too_long_is_cut(fast_ticks: None, to_backend: bool) -> None:
    limits = replace(DEFAULTS, send_timeout_s=0.3)
    async with raw_stack(GRANT, limits) as (stack, raw):
        client, backend = await opened(stack, raw)
        source, target = (client, backend) if to_backend else (backend, client)
        stop_reading(target[1])
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_send(source[1], 1 << 30), BOUND_S)
        await gone(stack)
        assert stack.context.counters.limit_hits == {"send_timeout_s": 1}


async def test_who_reads_slowly_is_not_cut(fast_ticks: None) -> None:
    limits = replace(DEFAULTS, send_timeout_s=0.6)
    async with raw_stack(GRANT, limits) as (stack, raw):
        with small_window() as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", stack.port))
            await loop.sock_sendall(sock, HEAD)
            backend = await raw.next()
            backend[1].write(b"x" * 6_000_000)
            (tunnel,) = stack.context.tunnels
            await until(lambda: tunnel.client.write_paused)
            for _ in range(90):
                await asyncio.wait_for(loop.sock_recv(sock, 65_536), BOUND_S)
                await asyncio.sleep(0.012)
            assert tunnel.client.transport.get_write_buffer_size() > 0
        assert stack.context.counters.limit_hits == {}


# --- the ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("lines", [ASK, OWN], ids=["websocket", "my-proto"])
async def test_one_side_ends_its_stream_and_the_other_direction_goes_on(
    by_client: bool, lines: tuple[bytes, ...]
) -> None:
    async with raw_stack(GRANT if lines is ASK else OWN_GRANT) as (stack, raw):
        client, backend = await opened(stack, raw, lines)
        first, second = (client, backend) if by_client else (backend, client)
        data = b"y" * 3_000_000
        first[1].write(data)
        first[1].write_eof()
        assert await rest(second) == data
        assert len(stack.context.tunnels) == 1
        second[1].write(data)
        second[1].write_eof()
        assert await rest(first) == data
        await gone(stack)


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("noticed_by", ["a_sweep", "a_write"])
async def test_a_reset_behind_the_end_of_a_stream_costs_none_of_its_bytes(
    by_client: bool, noticed_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if noticed_by == "a_sweep":
        monkeypatch.setattr(timeouts, "TICK_S", 0.01)
    async with raw_stack() as (stack, raw):
        client, backend = await opened(stack, raw)
        first, second = (client, backend) if by_client else (backend, client)
        (tunnel,) = stack.context.tunnels
        side = tunnel.client if by_client else tunnel.backend
        stop_reading(second[1])
        # As much as fills the kernel's buffers, so that the gateway itself still has some of it.
        sent = 0
        while not side.other.transport.get_write_buffer_size():
            first[1].write(b"z" * 32_768)
            sent += 32_768
            await until(lambda: stack.context.counters.tunnel_bytes == sent)  # noqa: B023
            await asyncio.sleep(0.001)
        data = b"z" * sent
        first[1].write_eof()
        await until(lambda: side.eof)
        assert not side.other.write_paused
        reset(first[1])
        if noticed_by == "a_write":
            await asyncio.sleep(0.05)  # the reset is there first
            second[1].write(b"too late for you")
        await until(lambda: side.closed)
        read_on(second[1])
        assert await rest(second) == data
        await gone(stack)


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_reset_of_one_side_ends_the_other_at_once(by_client: bool) -> None:
    async with raw_stack() as (stack, raw):
        client, backend = await opened(stack, raw)
        first, second = (client, backend) if by_client else (backend, client)
        reset(first[1])
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(second[0].read(-1), 1.0) == b""
        await until(lambda: not stack.context.tunnels and not stack.context.connections, 1.0)


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_reset_is_noticed_while_reading_is_paused(fast_ticks: None, by_client: bool) -> None:
    async with raw_stack() as (stack, raw):
        client, backend = await opened(stack, raw)
        first, second = (client, backend) if by_client else (backend, client)
        stop_reading(second[1])
        sending = asyncio.create_task(_send(first[1], 1 << 28))
        (tunnel,) = stack.context.tunnels
        side = tunnel.client if by_client else tunnel.backend
        await until(lambda: side.read_paused)
        sending.cancel()
        reset(first[1])
        await gone(stack)


@pytest.mark.parametrize("by_client", [True, False])
async def test_after_half_a_close_silence_is_short(fast_ticks: None, by_client: bool) -> None:
    limits = replace(DEFAULTS, tunnel_half_closed_timeout_s=0.2)
    async with raw_stack(GRANT, limits) as (stack, raw):
        client, backend = await opened(stack, raw)
        first, second = (client, backend) if by_client else (backend, client)
        first[1].write_eof()
        assert await rest(second) == b""
        for _ in range(8):
            second[1].write(b"more")
            assert await read(first, 4) == b"more"
            await asyncio.sleep(0.05)
        assert stack.context.counters.limit_hits == {}
        await gone(stack)
        assert stack.context.counters.limit_hits == {"tunnel_half_closed_timeout_s": 1}


async def test_a_client_that_ends_its_stream_before_the_101_still_gets_its_tunnel() -> None:
    async with raw_stack(b"") as (stack, raw):
        reader, writer = await stack.connect()
        writer.write(HEAD + b"all I have to say")
        backend = await raw.next()
        writer.write_eof()
        await until(lambda: any(one.eof for one in stack.context.connections))
        backend[1].write(GRANT + b"answer")
        assert await rest(backend) == b"all I have to say"
        assert b"101 Switching" in await read_head(reader)
        backend[1].close()
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b"answer"
        await gone(stack)


@pytest.mark.parametrize("phase", ["before_the_101", "in_the_101"])
async def test_a_backend_that_dies_before_its_101_is_502(phase: str) -> None:
    async with raw_stack(b"" if phase == "before_the_101" else GRANT[:50]) as (stack, raw):
        reader, writer = await stack.connect()
        writer.write(HEAD)
        _, backend_writer = await raw.next()
        await backend_writer.drain()
        await asyncio.sleep(0.02)  # the half of a head should be there first
        reset(backend_writer)
        (found,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert found.status == 502
        await gone(stack)


@pytest.mark.parametrize("phase", ["before_the_101", "in_the_101"])
async def test_a_client_that_leaves_before_the_101_ends_the_backend_s_work(phase: str) -> None:
    async with raw_stack(b"" if phase == "before_the_101" else GRANT[:50]) as (stack, raw):
        _, writer = await stack.connect()
        writer.write(HEAD)
        backend = await raw.next()
        reset(writer)
        with contextlib.suppress(ConnectionResetError):
            assert await rest(backend) == b""
        await gone(stack)


# --- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [ASK, OWN], ids=["websocket", "my-proto"])
async def test_silence_in_both_directions_ends_it_with_a_goodbye(
    fast_ticks: None, lines: tuple[bytes, ...]
) -> None:
    limits = replace(DEFAULTS, tunnel_idle_timeout_s=0.3, tunnel_goodbye_timeout_s=0.3)
    async with raw_stack(GRANT if lines is ASK else OWN_GRANT, limits) as (stack, raw):
        client, backend = await opened(stack, raw, lines)
        for _ in range(6):  # one direction alone keeps it
            client[1].write(b"\x89\x80....")
            await read(backend, 6)
            await asyncio.sleep(0.1)
        assert len(stack.context.tunnels) == 1
        seen = await rest(client)
        assert seen == (b"\x88\x02\x03\xe9" if lines is ASK else b"")
        await gone(stack)
        assert stack.context.counters.limit_hits["tunnel_idle_timeout_s"] == 1


async def test_more_tunnels_than_allowed_are_refused_and_requests_are_served() -> None:
    limits = replace(DEFAULTS, max_tunnels=2)
    async with raw_stack(GRANT, limits) as (stack, raw):
        first = await opened(stack, raw)
        await opened(stack, raw)
        (found,) = answers(await stack.talk(HEAD + b"bytes"), b"GET")
        assert (found.status, found.get(b"connection"), found.get(b"retry-after")) == (503, b"close", b"1")
        assert b'"overloaded"' in found.body
        assert stack.context.counters.limit_hits == {"max_tunnels": 1}
        raw.grant = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        (plain,) = answers(await stack.talk(request(b"GET", b"/p/a", close=True)), b"GET")
        assert plain.status == 200
        for _, end in first:
            end.close()
        await until(lambda: len(stack.context.tunnels) == 1)
        raw.grant = GRANT
        raw.opened = asyncio.Queue()
        await opened(stack, raw)


async def test_two_that_ask_at_once_do_not_both_get_the_last_place() -> None:
    limits = replace(DEFAULTS, max_tunnels=1)
    async with raw_stack(b"", limits) as (stack, raw):
        clients = [await stack.connect() for _ in range(2)]
        backends = []
        for _, writer in clients:
            writer.write(HEAD)
            backends.append(await raw.next())
        for _, writer in backends:
            writer.write(GRANT)
        heads = sorted([await read_head(reader) for reader, _ in clients])
        assert [head.split(b" ")[1] for head in heads] == [b"101", b"503"]


async def test_tunnels_do_not_take_the_places_of_requests_at_a_backend() -> None:
    limits = replace(DEFAULTS, max_upstream_connections=2)
    async with raw_stack(GRANT, limits) as (stack, raw):
        for _ in range(5):
            await opened(stack, raw)
        assert len(stack.context.tunnels) == 5


async def test_both_sockets_ask_the_kernel_to_look_after_the_peer() -> None:
    import socket

    async with raw_stack() as (stack, raw):
        await opened(stack, raw)
        (tunnel,) = stack.context.tunnels
        for side in (tunnel.client, tunnel.backend):
            sock = side.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_a_secure_route_wants_its_credential_and_says_who_it_is() -> None:
    import hashlib

    digest = hashlib.sha256(KEY.encode()).digest()
    async with raw_stack(key_digest=digest) as (stack, raw):
        for lines, status in (((), 401), ((b"X-Api-Key: wrong",), 401)):
            (found,) = answers(await stack.talk(request(b"GET", b"/s/a", *ASK, *lines) + b"bytes"), b"GET")
            assert (found.status, found.get(b"connection")) == (status, b"close")
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/s/a", *ASK, b"X-Api-Key: " + KEY.encode(), b"X-Consumer-Id: admin"))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        await raw.next()
        assert raw.heads[0].count(b"X-Consumer-Id: app\r\n") == 1
        assert KEY.encode() not in raw.heads[0]
        assert b"admin" not in raw.heads[0]
