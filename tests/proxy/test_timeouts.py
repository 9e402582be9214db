"""Every timeout of limits.py that the proxy keeps: who is waited for, and what the client sees."""

from __future__ import annotations

import asyncio
import socket

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy.phases import HEAD, IDLE
from tests.proxy.harness import BOUND_S, backend, gateway, make_snapshot
from tests.proxy.scripted import (
    Recorder,
    Reply,
    answers,
    exchange,
    full_listener,
    ok,
    read_answer,
    request,
    running,
    small_window,
    stop_reading,
    until,
    within,
)

pytestmark = pytest.mark.usefixtures("fast_ticks")

SOON = 0.1
"""Timeouts under test; everything else stays at its default of seconds."""


async def test_a_slow_head_is_408_and_closes() -> None:
    async with running(limits=Limits(head_timeout_s=SOON)) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(b"GET /p/a HTTP/1.1\r\nHost: a\r\n")
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET")
        assert (answer.status, answer.get(b"connection")) == (408, b"close")
        assert b"request_timeout" in answer.body


async def test_an_empty_line_in_two_pieces_begins_no_head() -> None:
    """Some clients end a body with a line end too many (RFC 9112 section 2.2); a 408 would answer their next request."""
    async with running(limits=Limits(head_timeout_s=SOON)) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        assert (await read_answer(reader)).status == 200
        (connection,) = stack.context.connections
        writer.write(b"\r")
        await until(lambda: connection.phase == HEAD)
        writer.write(b"\n")
        await until(lambda: connection.phase == IDLE)
        await asyncio.sleep(3 * SOON)
        writer.write(request(b"GET", b"/p/b"))
        assert (await read_answer(reader)).status == 200


async def test_empty_lines_in_pieces_keep_no_connection_open() -> None:
    async with running(limits=Limits(head_timeout_s=3 * SOON, idle_timeout_s=3 * SOON)) as (stack, _):
        for first in (b"", request(b"GET", b"/p/a")):
            reader, writer = await stack.connect()
            writer.write(first)
            if first:
                await read_answer(reader)
            sending = asyncio.create_task(reader.read(-1))
            for piece in (b"\r", b"\n") * 1_000:
                if sending.done() or writer.transport.is_closing():
                    break
                writer.write(piece)
                await asyncio.sleep(0.005)
            await asyncio.wait([sending], timeout=SOON)
            assert sending.done()
            await asyncio.gather(sending, return_exceptions=True)
            await until(lambda: not stack.context.connections)


async def test_a_head_that_drips_does_not_live_longer() -> None:
    """The time counts from the first byte, not from the last one."""
    async with running(limits=Limits(head_timeout_s=SOON)) as (stack, _):
        reader, writer = await stack.connect()

        async def drip() -> None:
            for _ in range(10_000):
                writer.write(b"X")
                await asyncio.sleep(0.005)

        writer.write(b"GET /p/a HTTP/1.1\r\nX-Drip: ")
        dripping = asyncio.create_task(drip())
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        dripping.cancel()
        assert raw.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_never_says_anything_is_closed_without_a_word() -> None:
    async with running(limits=Limits(head_timeout_s=SOON)) as (stack, _):
        reader, _ = await stack.connect()
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""


async def test_empty_lines_do_not_keep_a_connection_open() -> None:
    async with running(limits=Limits(head_timeout_s=SOON, idle_timeout_s=SOON)) as (stack, _):
        reader, writer = await stack.connect()

        async def drip() -> None:
            for _ in range(10_000):
                writer.write(b"\r\n")
                await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        try:
            assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        except ConnectionResetError:
            pass
        dripping.cancel()


async def test_an_idle_connection_is_closed_at_idle_timeout_s_without_a_word() -> None:
    async with running(limits=Limits(idle_timeout_s=SOON)) as (stack, recorder):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        assert recorder.open == 1


async def test_a_request_under_way_is_not_idle() -> None:
    async with running(lambda _: Reply(b"", "stall"), Limits(idle_timeout_s=SOON, head_timeout_s=SOON)) as (
        stack,
        recorder,
    ):
        _, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await until(lambda: bool(recorder.seen))
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 4 * SOON)
        assert len(stack.context.connections) == 1


@pytest.mark.parametrize("part", [b"", b"part"])
async def test_a_body_without_progress_is_408_and_its_backend_connection_ends(part: bytes) -> None:
    async with running(limits=Limits(body_timeout_s=SOON)) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 100") + part)
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"POST")
        assert (answer.status, answer.get(b"connection")) == (408, b"close")
        await within(recorder.all_ended)
        assert recorder.seen == []


async def test_a_body_that_makes_progress_may_take_as_long_as_it_likes() -> None:
    async with running(limits=Limits(body_timeout_s=2 * SOON)) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 20"))
        for _ in range(20):
            writer.write(b"x")
            await asyncio.sleep(SOON / 4)  # the client's pace
        assert (await read_answer(reader, b"POST")).status == 200
        assert recorder.seen[0].body == b"x" * 20


async def test_the_time_a_connection_was_idle_does_not_count_for_a_body() -> None:
    async with running(limits=Limits(body_timeout_s=0.5)) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/a"))
        idle_since_s = stack.context.now_s
        await until(lambda: stack.context.now_s > idle_since_s + 0.7)
        recorder.began.clear()
        writer.write(request(b"PUT", b"/p/a", b"Content-Length: 4"))
        await within(recorder.began)
        begun_s = stack.context.now_s
        await until(lambda: stack.context.now_s > begun_s + 0.15)  # some sweeps
        writer.write(b"body")
        assert (await read_answer(reader, b"PUT")).status == 200


async def test_a_backend_that_does_not_answer_is_504() -> None:
    async with running(
        lambda s: Reply(b"", "stall") if s.path == b"/slow" else ok(s), Limits(first_byte_timeout_s=SOON)
    ) as (stack, recorder):
        reader, writer = await stack.connect()
        answer = await exchange(reader, writer, request(b"GET", b"/p/slow"))
        assert (answer.status, answer.get(b"connection")) == (504, None)
        assert b"upstream_timeout" in answer.body
        await within(recorder.all_ended)
        assert (await exchange(reader, writer, request(b"GET", b"/p/next"))).body == b"/next"


async def test_a_stale_connection_that_is_silent_is_504_and_never_a_second_try() -> None:
    async with running(
        lambda s: Reply(b"", "stall") if s.path == b"/slow" else ok(s), Limits(first_byte_timeout_s=SOON)
    ) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        assert (await exchange(reader, writer, request(b"GET", b"/p/slow"))).status == 504
        assert [seen.path for seen in recorder.seen] == [b"/warm", b"/slow"]


async def test_a_head_that_stops_halfway_is_504() -> None:
    async with running(
        lambda _: Reply(b"HTTP/1.1 200 OK\r\nX-A: ", "stall"), Limits(first_byte_timeout_s=SOON)
    ) as (stack, _):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 504


async def test_the_time_of_an_upload_does_not_count_for_the_first_byte() -> None:
    limits = Limits(first_byte_timeout_s=2 * SOON)
    async with running(limits=limits) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 10"))
        for _ in range(10):
            writer.write(b"x")
            await asyncio.sleep(SOON / 2)  # the client's pace
        assert (await read_answer(reader, b"POST")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
    ],
)
async def test_a_response_that_stops_is_cut_at_between_bytes_timeout_s(data: bytes) -> None:
    async with running(lambda _: Reply(data, "stall"), Limits(between_bytes_timeout_s=SOON)) as (
        stack,
        recorder,
    ):
        raw = await stack.talk(request(b"GET", b"/p/a"))
        (answer,) = answers(raw, b"GET")
        assert (answer.status, answer.body, answer.whole) == (200, b"abc", False)
        await within(recorder.all_ended)


async def test_a_backend_that_stops_reading_an_upload_is_504() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stop_reading(writer)
        await asyncio.get_running_loop().create_future()

    limits = Limits(between_bytes_timeout_s=SOON, body_timeout_s=10 * BOUND_S)
    async with backend(deaf) as port, gateway(make_snapshot(port, limits), limits) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 50000000") + b"x" * 50_000_000)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        assert head.startswith(b"HTTP/1.1 504 ")
        assert b"Connection: close\r\n" in head


async def test_a_client_that_stops_reading_is_cut_at_send_timeout_s() -> None:
    size = 50_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with running(lambda _: Reply([head, b"x" * size], "stall"), Limits(send_timeout_s=SOON)) as (
        stack,
        recorder,
    ):
        _, writer = await stack.connect()
        stop_reading(writer)
        writer.write(request(b"GET", b"/p/a"))
        await until(lambda: bool(recorder.seen))
        await until(lambda: not stack.context.connections)
        await within(recorder.all_ended)


@pytest.mark.parametrize("lines", [(), (b"Connection: close",)])
async def test_a_client_that_never_takes_the_last_bytes_is_cut_too(lines: tuple[bytes, ...]) -> None:
    """Also when so little waits for it that its backend was never paused."""
    limits = Limits(send_timeout_s=SOON, idle_timeout_s=3 * SOON, linger_timeout_s=SOON)
    async with running(lambda _: ok_of(60_000), limits) as (stack, _):
        with small_window() as client:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", stack.port))
            await until(lambda: len(stack.context.connections) == 1)
            (connection,) = stack.context.connections
            inner = connection.transport.get_extra_info("socket")
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            await loop.sock_sendall(client, request(b"GET", b"/p/a", *lines))
            await until(lambda: connection.transport.get_write_buffer_size() > 0)
            await until(lambda: not stack.context.connections)


def ok_of(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


async def test_a_slow_reader_of_a_closing_answer_gets_all_of_it() -> None:
    """Lingering is about what the client sends; what it still has to read keeps the connection."""
    limits = Limits(linger_timeout_s=SOON)
    size = 100_000

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok_of(size))
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port, limits), limits) as stack:
        with small_window() as client:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", stack.port))
            await until(lambda: len(stack.context.connections) == 1)
            (connection,) = stack.context.connections
            inner = connection.transport.get_extra_info("socket")
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            await loop.sock_sendall(client, request(b"POST", b"/p/a", b"Content-Length: 1000"))
            raw = b""
            while len(raw) < size:
                await asyncio.sleep(0.01)  # the client's pace
                piece = await asyncio.wait_for(loop.sock_recv(client, 4_096), BOUND_S)
                assert piece, f"cut after {len(raw)} bytes"
                raw += piece
            assert raw.endswith(b"x" * 1_000)


async def test_a_refused_sender_that_never_stops_is_cut_at_linger_timeout_s() -> None:
    async with running(limits=Limits(linger_timeout_s=SOON)) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/nowhere", b"Content-Length: 1000000000"))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)).startswith(b"HTTP/1.1 404 ")

        async def flood() -> None:
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
                await asyncio.sleep(0.005)

        flooding = asyncio.create_task(flood())
        await until(lambda: not stack.context.connections)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


# --- reaching a backend -------------------------------------------------------------------------------


async def test_a_refused_connect_is_502_and_nothing_stays_open() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connects are refused
        async with gateway(make_snapshot(closed.getsockname()[1])) as stack:
            reader, writer = await stack.connect()
            for _ in range(3):
                answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
                assert answer.status == 502
                assert b"upstream_unreachable" in answer.body
                assert b"127.0.0.1" not in answer.body  # a backend's address is the operator's alone
            assert not any(counts["open"] for counts in stack.context.pools.counts().values())
            assert stack.reports[0][0] == "upstream_unreachable"


async def test_a_connect_that_takes_too_long_is_504() -> None:
    with full_listener() as port:
        loop = asyncio.get_running_loop()
        limits = Limits(connect_timeout_s=SOON)
        begun_s = loop.time()
        async with gateway(make_snapshot(port, limits), limits) as stack:
            reader, writer = await stack.connect()
            answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
            assert answer.status == 504
            assert loop.time() - begun_s < 3
            assert not any(counts["open"] for counts in stack.context.pools.counts().values())


async def test_a_backend_that_accepts_and_closes_at_once_is_502() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502
        await until(lambda: not any(c["open"] for c in stack.context.pools.counts().values()))


async def test_a_backend_that_speaks_first_is_502() -> None:
    """What comes before the request was sent cannot be its answer, unless by chance it looks like one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502


async def test_at_most_max_upstream_connections_are_opened() -> None:
    recorder = Recorder(lambda s: Reply(b"", "stall") if s.path == b"/slow" else ok(s))
    limits = Limits(max_upstream_connections=2)
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, limits), limits) as stack:
        for _ in range(2):
            _, writer = await stack.connect()
            writer.write(request(b"GET", b"/p/slow"))
        await until(lambda: len(recorder.seen) == 2)
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a") + request(b"GET", b"/p/b"))
        for _ in range(2):
            answer = await read_one(reader)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
        assert recorder.connections == 2


async def read_one(reader: asyncio.StreamReader) -> bytes:
    """Read one problem response, and leave what is behind it."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
    at = head.index(b"Content-Length: ") + 16
    return head + await reader.readexactly(int(head[at : head.index(b"\r", at)]))
