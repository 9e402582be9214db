from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager

import h11
import pytest

from authgate_fast.server.small_http import Bounds, Request, Response, SmallServer, json_response
from tests.plain_client import ask, send_raw

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
Handle = Callable[[Request], Coroutine[None, None, Response]]


async def echo(request: Request) -> Response:
    return json_response(200, {"path": request.path.decode(), "body": request.body.decode()})


@asynccontextmanager
async def serving(handler: Handle = echo, bounds: Bounds | None = None) -> AsyncIterator[SmallServer]:
    server = SmallServer("test", handler, bounds or Bounds())
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def connected(server: SmallServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        for byte in b"POST /a?b HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc":
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await read_to_end(reader)).endswith(b'{"path":"/a","body":"abc"}\n')


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ],
)
async def test_a_malformed_request_is_400_and_the_end_of_the_connection(data: bytes) -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(data + GET)
        raw = await read_to_end(reader)
        assert raw.startswith(b"HTTP/1.1 400 ")
        assert raw.count(b"HTTP/1.1 ") == 1


async def test_a_head_over_the_bound_is_431() -> None:
    async with serving(bounds=Bounds(max_head_bytes=1_000)) as server:
        (answer,) = await send_raw(server.port, b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 2_000)
        assert answer.status == 431


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 11\r\n\r\n12345678901", b"Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n"],
)
async def test_a_body_over_the_bound_is_413(framing: bytes) -> None:
    async with serving(bounds=Bounds(max_body_bytes=10)) as server:
        (answer,) = await send_raw(server.port, b"POST / HTTP/1.1\r\nHost: test\r\n" + framing)
        assert answer.status == 413
        assert answer.fields["connection"] == "close"


async def test_a_request_that_stops_halfway_is_408() -> None:
    async with serving(bounds=Bounds(request_timeout_s=0.05)) as server:
        (answer,) = await send_raw(server.port, b"GET / HTTP/1.1\r\nHo")
        assert answer.status == 408


async def test_an_idle_connection_is_closed_without_an_answer() -> None:
    async with serving(bounds=Bounds(idle_timeout_s=0.05)) as server, connected(server) as (reader, _):
        assert await read_to_end(reader) == b""


async def test_a_handler_that_hangs_is_500() -> None:
    async def hang(_: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(hang, Bounds(handler_timeout_s=0.05)) as server:
        assert (await ask(server.port, "/")).status == 500


async def test_one_connection_too_many_is_closed_and_a_place_is_free_again_afterwards() -> None:
    async with serving(bounds=Bounds(max_connections=1)) as server:
        async with connected(server) as (reader, writer):
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            async with connected(server) as (second, _):
                assert await read_to_end(second) == b""
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            await read_to_end(reader)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await ask(server.port, "/")).status == 200
                    break
                except (OSError, h11.RemoteProtocolError):  # the first one is not quite gone
                    await asyncio.sleep(0)


async def test_100_continue_is_sent_to_a_client_that_waits_for_it() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"ok")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")


async def test_a_streamed_response_waits_for_its_reader_and_keeps_one_chunk() -> None:
    made = 0

    def chunks() -> Iterator[bytes]:
        nonlocal made
        for _ in range(1_024):
            made += 1
            yield bytes(65_536)

    async def stream(_: Request) -> Response:
        return Response(200, chunks=chunks(), length=1_024 * 65_536)

    async with serving(stream) as server, connected(server) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        stalled = -1
        async with asyncio.timeout(5):
            while stalled != made:  # no progress over many turns of the loop: it waits for us
                stalled = made
                for _ in range(200):
                    await asyncio.sleep(0)
        assert made < 512, "the server must not run ahead of a client that reads nothing"
        assert len(await reader.readexactly(1_024 * 65_536)) == 1_024 * 65_536
        assert made == 1_024


async def test_a_client_that_reads_nothing_is_dropped_after_the_send_timeout() -> None:
    ended = asyncio.Event()

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65_536)
        finally:
            ended.set()

    async def stream(_: Request) -> Response:
        return Response(200, chunks=chunks(), length=1 << 40)

    async with serving(stream, Bounds(send_timeout_s=0.05)) as server, connected(server) as (_, writer):
        writer.write(GET)
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_connection_goes_on_after_head() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"HEAD /one HTTP/1.1\r\nHost: test\r\n\r\nGET /two HTTP/1.1\r\nHost: test\r\n\r\n")
        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        second = await asyncio.wait_for(reader.readuntil(b"}\n"), 5)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 200 ")
        assert second.endswith(b'{"path":"/two","body":""}\n')
