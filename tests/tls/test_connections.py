"""A connection over TLS from its first request to its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from authgate_fast.limits import Limits
from tests.proxy.harness import BOUND_S, answer, read_head
from tests.proxy.scripted import until
from tests.tls.kit import GET, client_context, connected, door, read_all, write_pair

KEEP = b"GET /p/x HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_requests_follow_each_other_on_one_connection(authority: trustme.CA, tmp_path: Path) -> None:
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost")) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        for _ in range(3):
            writer.write(KEEP)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)  # the echoed head
        writer.write(KEEP + KEEP + GET)
        assert (await read_all(reader)).count(b"HTTP/1.1 200 OK\r\n") == 3
        assert here.entrance.handshakes == 1


async def test_large_bodies_come_through_unchanged_both_ways(authority: trustme.CA, tmp_path: Path) -> None:
    body = bytes(range(256)) * 8_000
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost")) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        head = b"POST /p/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        assert (await read_all(reader)).endswith(body)


async def test_an_upload_that_is_refused_early_gets_its_answer(authority: trustme.CA, tmp_path: Path) -> None:
    limits = Limits(max_body_bytes=1_000)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        writer.write(b"POST /p/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
        for _ in range(60):  # much more than any buffer between us holds
            if writer.transport.is_closing():
                break
            writer.write(b"x" * 65_536)
            try:
                await asyncio.wait_for(writer.drain(), 0.05)
            except TimeoutError:
                break
            except ConnectionError:
                break
        assert (await read_all(reader)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("request_", [GET, b"GET /p/x HTTP/1.0\r\nHost: a\r\n\r\n", b"BAD\r\n\r\n"])
async def test_the_end_of_a_connection_is_said_in_tls(
    authority: trustme.CA, tmp_path: Path, request_: bytes
) -> None:
    """close_notify tells an end from a cut (RFC 8446 section 6.1): `suppress_ragged_eofs` would hide its absence."""
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:

        def talk() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", here.port), timeout=BOUND_S) as raw,
                client_context(authority).wrap_socket(
                    raw, server_hostname="localhost", suppress_ragged_eofs=False
                ) as tls,
            ):
                tls.sendall(request_)
                return b"".join(iter(lambda: tls.recv(65_536), b""))

        assert (await asyncio.to_thread(talk)).startswith(b"HTTP/1.1 ")
        await until(lambda: not here.stack.context.connections)


async def test_a_response_that_breaks_off_does_not_end_cleanly_for_http_1_0(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()

    async with door(write_pair(authority, tmp_path, "p", "localhost"), handler=half) as here:

        def talk() -> bytes:
            data = b""
            with (
                socket.create_connection(("127.0.0.1", here.port), timeout=BOUND_S) as raw,
                client_context(authority).wrap_socket(
                    raw, server_hostname="localhost", suppress_ragged_eofs=False
                ) as tls,
            ):
                tls.sendall(b"GET /p/x HTTP/1.0\r\nHost: a\r\n\r\n")
                while True:
                    data += tls.recv(65_536) or pytest.fail(f"a clean end after {data!r}")

        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(talk)


async def test_a_client_that_ends_tls_before_its_answer_takes_the_request_with_it(
    authority: trustme.CA, tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    gone = asyncio.Event()
    seen = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.set()
        await reader.read(-1)
        gone.set()

    async with door(write_pair(authority, tmp_path, "p", "localhost"), handler=slow) as here:
        async with connected(here.port, client_context(authority)) as (_, writer):
            writer.write(KEEP)
            await asyncio.wait_for(seen.wait(), BOUND_S)
            writer.close()
            await asyncio.wait_for(gone.wait(), BOUND_S)
        await until(lambda: not here.stack.context.connections)
    assert "eof_received" not in caplog.text


@pytest.mark.usefixtures("fast_ticks")
async def test_a_client_that_never_answers_the_end_of_tls_does_not_keep_the_connection(
    authority: trustme.CA, tmp_path: Path
) -> None:
    limits = Limits(linger_timeout_s=0.1, idle_timeout_s=0.1)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        writer.write(KEEP)
        await read_head(reader)
        writer.transport.pause_reading()
        await until(lambda: not here.stack.context.connections)


@pytest.mark.usefixtures("fast_ticks")
async def test_a_slow_reader_gets_the_whole_of_its_last_answer(authority: trustme.CA, tmp_path: Path) -> None:
    body = b"z" * 3_000_000

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(body))
        await writer.drain()

    limits = Limits(linger_timeout_s=0.02)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits, handler=large) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        writer.write(GET)
        head = await read_head(reader)
        got = 0
        while piece := await asyncio.wait_for(reader.read(65_536), BOUND_S):
            got += len(piece)
            await asyncio.sleep(0.01)  # it is slow
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got == len(body)


@pytest.mark.usefixtures("fast_ticks")
async def test_what_waits_below_tls_is_not_cut_off_either(authority: trustme.CA, tmp_path: Path) -> None:
    """All of it has left TLS and is in the loop's and the kernel's hands, who deliver as the client reads."""
    body = b"z" * 60_000

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(body))
        await writer.drain()

    def talk(port: int) -> bytes:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.settimeout(BOUND_S)
            raw.connect(("127.0.0.1", port))
            with client_context(authority).wrap_socket(raw, server_hostname="localhost") as tls:
                tls.sendall(GET)
                got = tls.recv(1)
                time.sleep(0.4)  # many sweeps
                return got + b"".join(iter(lambda: tls.recv(65_536), b""))

    pair = write_pair(authority, tmp_path, "p", "localhost")
    limits = Limits(linger_timeout_s=0.02)
    async with door(pair, limits=limits, handler=respond, send_buffer=4_096) as here:
        got = await asyncio.to_thread(talk, here.port)
    assert got.endswith(body)


@pytest.mark.usefixtures("fast_ticks")
async def test_an_idle_connection_is_closed_in_time(authority: trustme.CA, tmp_path: Path) -> None:
    limits = Limits(idle_timeout_s=0.1)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        writer.write(KEEP)
        await read_head(reader)
        assert b"HTTP/1.1 4" not in await read_all(reader)
        await until(lambda: not here.stack.context.connections)


@pytest.mark.usefixtures("fast_ticks")
async def test_a_head_that_does_not_end_is_408(authority: trustme.CA, tmp_path: Path) -> None:
    limits = Limits(head_timeout_s=0.1)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port, client_context(authority)) as (reader, writer),
    ):
        writer.write(KEEP[:-2])
        assert (await read_all(reader)).startswith(b"HTTP/1.1 408 ")
