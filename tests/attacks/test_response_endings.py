"""Where and when a backend speaks or ends: at every byte, before it was asked, and before it has been told all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.attacks.responses_case import CHUNKED, OK, STOLEN, TWO
from tests.attacks.responses_stage import ask, is_over, nothing_is_left, stage
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, a_target, answers, read_answer, request, reset, until

WHOLE = {
    "length": OK + b"Content-Length: 5\r\nX-A: 1\r\n\r\nhello",
    "length 1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "interim": b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
}


async def read_to_the_end(stack: Stack, minor: int) -> tuple[bytes, bool]:
    """Return what a client gets that asks once, and whether it ended with a reset."""
    reader, writer = await stack.connect()
    writer.write(b"GET /p/case HTTP/1.%d\r\nHost: a\r\nConnection: close\r\n\r\n" % minor)
    raw = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65_536), BOUND_S):
            raw += piece
    except ConnectionResetError:
        return raw, True
    return raw, False


@pytest.mark.parametrize("minor", [1, 0])
@pytest.mark.parametrize("then", ["close", "reset", "half_close"])
@pytest.mark.parametrize("name", WHOLE)
async def test_a_client_can_tell_an_answer_that_ends_at_any_byte_but_its_last(
    name: str, then: str, minor: int
) -> None:
    data = WHOLE[name]
    async with stage() as (stack, actor):
        actor.then = then
        for at in range(len(data)):
            actor.pieces = [data[:at]] if at % 2 else [data[: at // 2], data[at // 2 : at]]
            raw, was_reset = await read_to_the_end(stack, minor)
            for answer in answers(raw, b"GET"):
                assert was_reset or answer.status == 502 or not answer.whole, (at, raw)
        actor.pieces = [data]
        raw, was_reset = await read_to_the_end(stack, minor)
        (answer,) = answers(raw, b"GET")
        assert (answer.status, answer.body, answer.whole, was_reset) == (200, b"hello", True, False)
        await nothing_is_left(stack)


# --- bytes before the request -------------------------------------------------------------------------------


class Held:
    """A backend whose connections the test holds in its hands, as sockets that act at once."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.sockets: list[socket.socket] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = socket.socket(fileno=writer.get_extra_info("socket").dup().detach())
        self.sockets.append(own)
        await self.recorder.handle(reader, writer)


@asynccontextmanager
async def one_idle() -> AsyncIterator[tuple[Stack, Held, socket.socket]]:
    """Yield a gateway with one idle backend connection, and a client that acts at once."""
    held = Held()
    loop = asyncio.get_running_loop()
    async with backend(held.handle) as port, gateway(make_snapshot(port)) as stack:
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", stack.port))
        try:
            await loop.sock_sendall(client, request(b"GET", b"/p/before"))
            assert (await loop.sock_recv(client, 65_536)).endswith(b"/before")
            yield stack, held, client
        finally:
            client.close()
            for each in held.sockets:
                each.close()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("early", [STOLEN, b"X", b"\r\n", b"HTTP/1.1 ", b"", b"reset"])
async def test_what_a_backend_said_or_did_before_a_request_is_no_part_of_its_answer(
    early: bytes, method: bytes
) -> None:
    """Both happen before the loop looks: the request first, which is how the gateway learns of it first."""
    async with one_idle() as (stack, held, client):
        client.send(request(method, b"/p/mine"))
        if early == b"reset":
            held.sockets[0].shutdown(socket.SHUT_RDWR)
        elif early:
            held.sockets[0].send(early)
        else:
            held.sockets[0].shutdown(socket.SHUT_WR)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65_536), BOUND_S)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"/mine")
        assert b"X-Stolen" not in answer
        assert stack.context.counters.retries == 0  # nothing had been sent
    mine = [seen.connection for seen in held.recorder.seen if seen.path == b"/mine"]
    assert mine == [2]


async def test_a_fresh_connection_on_which_the_backend_speaks_first_serves_nobody() -> None:
    """It would be one answer ahead for ever: each client would get the one before it."""
    asked = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        writer.write(STOLEN)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            writer.write(OK + b"Content-Length: 4\r\n\r\nlate")

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        for _ in range(20):
            one, other = await stack.connect(), await stack.connect()
            first, second = await asyncio.gather(ask(one, b"/a"), ask(other, b"/b"))
            for answer, _ in (first, second):
                assert answer is None or answer.body != b"late"
        await nothing_is_left(stack)
    assert asked <= 40


@pytest.mark.parametrize("ended", [False, True])
async def test_a_fresh_connection_with_unread_bytes_or_an_end_takes_no_request(ended: bool) -> None:
    """The moment at which a connect is done, played with a connection that is known to the test."""
    async with one_idle() as (stack, held, _):
        pool = stack.context.pools.get(a_target(stack))
        upstream = pool.idle.pop()
        upstream.counted = False
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/mine", b"Content-Length: 2"))
        await until(lambda: any(c.exchange and c.exchange.upstream for c in stack.context.connections))
        (exchange,) = [c.exchange for c in stack.context.connections if c.exchange]
        if ended:
            upstream.abort()
        else:
            held.sockets[0].send(STOLEN)
        pool._failed_s = stack.context.loop.time()
        pool.down_since_s = pool._failed_s - 60  # it has been down for long: nobody waits for it any more
        pool._connected(exchange, upstream)
        answer = await read_answer(reader, b"POST")
        assert answer.status == 502
        assert b"upstream_unreachable" in answer.body
    assert [seen.path for seen in held.recorder.seen] == [b"/before"]


# --- answers before the request is whole --------------------------------------------------------------------


EARLY = {
    "length": OK + b"Content-Length: 5\r\n\r\nearly",
    "chunks": CHUNKED + b"5\r\nearly\r\n0\r\n\r\n",
    "to the end": OK + b"\r\nearly",
    "413": b"HTTP/1.1 413 X\r\nContent-Length: 5\r\n\r\nearly",
    "413 that closes": b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly",
}


@pytest.mark.parametrize("then", ["keep", "close"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("name", EARLY)
async def test_an_answer_before_the_body_ends_both_connections(name: str, framing: bytes, then: str) -> None:
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(TWO)
            await reader.read(-1)
            return
        writer.write(EARLY[name])
        if then == "keep" and name != "to the end":
            await reader.read(-1)
            ended.set()
        else:
            ended.set()

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", framing))
        answer = await read_answer(reader, b"POST")
        assert (answer.body, answer.get(b"connection")) == (b"early", b"close")
        writer.write(request(b"GET", b"/p/never"))  # what a body might hold
        await is_over((reader, writer))
        await asyncio.wait_for(ended.wait(), BOUND_S)
        other, _ = await ask(await stack.connect(), b"/a")
        assert other is not None
        assert other.body == b"ok"
        await nothing_is_left(stack)


async def test_a_reset_before_the_body_is_a_refusal_and_its_rest_goes_nowhere() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        reset(writer)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 1000"))
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.get(b"connection")) == (502, b"close")
        writer.write(request(b"GET", b"/p/never"))
        await is_over((reader, writer))
    assert len(seen) == 1


async def test_a_connection_that_answered_a_body_it_has_not_taken_is_not_reused() -> None:
    """The gateway has the whole request, and sent it; the backend, which reads no more, cannot have it."""
    body = b"b" * 60_000
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        first = (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST")
        if first:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await go_on.wait()
        writer.write(TWO)
        await reader.read(-1)

    go_on = asyncio.Event()
    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        sent = 0
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 60000000"))
        (connection,) = await a_connection(stack)
        while not unsent(connection):  # fill the kernel's buffers, and then a little of ours
            writer.write(body)
            sent += len(body)
            await writer.drain()
            await asyncio.sleep(0)
        connection.exchange.left = 1  # type: ignore[union-attr]  # so that one more byte is the whole of it
        writer.write(b"b")
        await until(lambda: connection.exchange.request_done)  # type: ignore[union-attr]
        assert not connection.exchange.upstream.write_paused  # type: ignore[union-attr]
        go_on.set()
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.body) == (200, b"ok")
        other, _ = await ask((reader, writer), b"/a")
        assert other is not None
        assert connections == 2


async def a_connection(stack: Stack) -> list[object]:
    await until(
        lambda: any(c.exchange is not None and c.exchange.upstream for c in stack.context.connections)
    )
    return list(stack.context.connections)


def unsent(connection: object) -> bool:
    return bool(connection.exchange.upstream.transport.get_write_buffer_size())  # type: ignore[attr-defined]
