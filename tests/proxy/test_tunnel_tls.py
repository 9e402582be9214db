"""Tunnels over TLS on either side. TLS has no half-close: the end of one stream is the end of the tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from authgate_fast.proxy.downstream import Downstream
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot, read_head
from tests.proxy.scripted import read_on, request, reset, stop_reading, until
from tests.proxy.tunnels import ASK, MAX_BYTES, UPGRADES, RawBackend, dial, echo, next_message, raw_stack


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Trust `authority` and nobody else; return what its server at localhost shows."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@asynccontextmanager
async def stack_before(port: int) -> AsyncIterator[Stack]:
    async with gateway(make_snapshot(port, scheme="https", host="localhost", upgrades=UPGRADES)) as stack:
        yield stack


@asynccontextmanager
async def raw_tls(
    tls: ssl.SSLContext,
) -> AsyncIterator[
    tuple[
        Stack,
        tuple[asyncio.StreamReader, asyncio.StreamWriter],
        tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ]
]:
    """Yield the gateway, and both ends of an open tunnel."""
    raw = RawBackend()
    async with backend(raw.handle, tls) as port, stack_before(port) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", *ASK))
        assert b" 101 " in await read_head(reader)
        yield stack, (reader, writer), await raw.next()


async def test_messages_pass_and_close_codes_too(tls: ssl.SSLContext) -> None:
    async with serve(echo, "127.0.0.1", 0, ssl=tls, max_size=MAX_BYTES) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with stack_before(port) as stack:
            async with dial(stack) as client:
                for message in ("text", b"x" * 3_000_000):
                    await client.send(message)
                    assert await next_message(client) == message
            await until(lambda: not stack.context.tunnels and not stack.context.connections)


async def test_the_server_s_close_code_reaches_the_client(tls: ssl.SSLContext) -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.close(4321, "enough")

    async with serve(closing, "127.0.0.1", 0, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with stack_before(port) as stack, dial(stack) as client:
            with pytest.raises(ConnectionClosed):
                await next_message(client)
            assert (client.close_code, client.close_reason) == (4321, "enough")
            await until(lambda: not stack.context.tunnels and not stack.context.connections)


async def test_all_that_a_backend_sent_before_it_closed_arrives(tls: ssl.SSLContext) -> None:
    async with raw_tls(tls) as (stack, client, server):
        data = b"z" * 2_000_000
        server[1].write(data)
        await server[1].drain()
        server[1].close()
        assert await asyncio.wait_for(client[0].read(-1), BOUND_S) == data
        client[1].close()
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


async def test_all_that_a_client_sent_before_it_ended_its_stream_arrives(tls: ssl.SSLContext) -> None:
    async with raw_tls(tls) as (stack, client, server):
        data = b"y" * 2_000_000
        client[1].write(data)
        client[1].write_eof()
        assert await asyncio.wait_for(server[0].read(-1), BOUND_S) == data
        server[1].close()
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_reset_ends_both(tls: ssl.SSLContext, by_client: bool) -> None:
    async with raw_tls(tls) as (stack, client, server):
        reset((client if by_client else server)[1])
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for((server if by_client else client)[0].read(-1), BOUND_S) == b""
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


@pytest.mark.parametrize("to_backend", [True, False])
async def test_a_slow_reader_pauses_the_other_side(tls: ssl.SSLContext, to_backend: bool) -> None:
    async with raw_tls(tls) as (stack, client, server):
        source, target = (client, server) if to_backend else (server, client)
        stop_reading(target[1])
        total = 24 * 1_048_576

        async def sending() -> None:
            for _ in range(24):
                source[1].write(b"x" * 1_048_576)
                await source[1].drain()

        task = asyncio.create_task(sending())
        (tunnel,) = stack.context.tunnels
        paused = tunnel.client if to_backend else tunnel.backend
        await until(lambda: paused.read_paused)
        assert paused.other.transport.get_write_buffer_size() < 1_500_000
        read_on(target[1])
        left = total
        while left:
            left -= len(await asyncio.wait_for(target[0].read(1 << 20), BOUND_S))
        await task


async def test_a_goodbye_reaches_both_ends(tls: ssl.SSLContext) -> None:
    async with raw_tls(tls) as (stack, client, server):
        (tunnel,) = stack.context.tunnels
        tunnel.say_goodbye(1001)
        assert await asyncio.wait_for(client[0].readexactly(4), BOUND_S) == b"\x88\x02\x03\xe9"
        assert (await asyncio.wait_for(server[0].readexactly(8), BOUND_S))[:2] == b"\x88\x82"
        client[1].write(b"\x88\x82mask\x00\x00")
        server[1].write(b"\x88\x02\x03\xe9")
        assert await asyncio.wait_for(client[0].read(-1), BOUND_S) == b""
        assert await asyncio.wait_for(server[0].read(-1), BOUND_S) == b""
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


# --- TLS to the client ------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_tls(tls: ssl.SSLContext, **options: Any) -> AsyncIterator[tuple[Stack, RawBackend, int]]:
    """Let the gateway's clients come over TLS, to a plain backend; yield their port too."""
    async with raw_stack(**options) as (stack, raw):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Downstream(stack.context), "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type, return-value]
        try:
            yield stack, raw, server.sockets[0].getsockname()[1]
        finally:
            server.close()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_client_over_tls_opens_talks_and_closes(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    async with serve(echo, "127.0.0.1", 0, max_size=MAX_BYTES) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
            loop = asyncio.get_running_loop()
            front = await loop.create_server(lambda: Downstream(stack.context), "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type, return-value]
            url = f"wss://localhost:{front.sockets[0].getsockname()[1]}/p/chat"
            async with connect(url, ssl=trusting(authority), proxy=None, max_size=MAX_BYTES) as client:
                for message in ("text", b"x" * 3_000_000):
                    await client.send(message)
                    assert await next_message(client) == message
            await until(lambda: not stack.context.tunnels and not stack.context.connections)
            front.close()


async def test_the_last_bytes_of_a_backend_arrive_over_tls_and_then_the_end(
    authority: trustme.CA, tls: ssl.SSLContext
) -> None:
    async with behind_tls(tls) as (stack, raw, port):
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting(authority))
        writer.write(request(b"GET", b"/p/a", *ASK) + b"early")
        assert b" 101 " in await read_head(reader)
        backend_reader, backend_writer = await raw.next()
        assert await asyncio.wait_for(backend_reader.readexactly(5), BOUND_S) == b"early"
        data = b"z" * 2_000_000
        backend_writer.write(data)
        backend_writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == data
        assert await asyncio.wait_for(backend_reader.read(-1), BOUND_S) == b""
        writer.close()
        backend_writer.close()
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


async def test_a_client_over_tls_that_closes_ends_the_backend_s_stream(
    authority: trustme.CA, tls: ssl.SSLContext
) -> None:
    async with behind_tls(tls) as (stack, raw, port):
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting(authority))
        writer.write(request(b"GET", b"/p/a", *ASK))
        assert b" 101 " in await read_head(reader)
        backend_reader, backend_writer = await raw.next()
        data = b"y" * 1_000_000
        writer.write(data)
        await writer.drain()
        writer.close()
        assert await asyncio.wait_for(backend_reader.read(-1), BOUND_S) == data
        backend_writer.close()
        await until(lambda: not stack.context.tunnels and not stack.context.connections)
