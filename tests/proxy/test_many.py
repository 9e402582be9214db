"""Many clients at once: no answer goes to another request than its own."""

from __future__ import annotations

import asyncio
import random

import h11
import pytest

from tests.proxy.harness import BOUND_S, Stack, gateway, make_snapshot
from tests.proxy.harness import backend as serve
from tests.proxy.scripted import Recorder, Reply, Seen, read_answer, request, reset, running, until

CONNECTIONS = 200
REQUESTS = 50


def numbered(seen: Seen) -> bytes:
    """Answer with the request's number, in one of the framings, in a body of its own length."""
    number = int(seen.path[1:])
    body = b"%d:" % number + seen.body + b"." * (number % 701)
    if number % 3:
        return b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: %d\r\n\r\n%b" % (number, len(body), body)
    return (
        b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-T: %d\r\n\r\n"
        % (number, len(body), body, number)
    )


def ask(number: int, *, chunked: bool) -> bytes:
    body = b"body %d" % number
    if number % 2:
        return request(b"GET", b"/p/%d" % number)
    if chunked:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return request(b"PUT", b"/p/%d" % number, b"Transfer-Encoding: chunked", body=framed)
    return request(b"PUT", b"/p/%d" % number, body=body)


def expected(number: int) -> bytes:
    return b"%d:" % number + (b"" if number % 2 else b"body %d" % number) + b"." * (number % 701)


@pytest.mark.slow
async def test_200_connections_with_50_numbered_requests_each_cross_nothing() -> None:
    async def client(stack: Stack, first: int) -> None:
        reader, writer = await stack.connect()
        for number in range(first, first + REQUESTS):
            writer.write(ask(number, chunked=number % 4 == 0))
            answer = await read_answer(reader, bound_s=3 * BOUND_S)
            assert answer.status == 200
            assert answer.get(b"x-number") == b"%d" % number
            assert answer.body == expected(number)
        writer.close()

    async with running(numbered) as (stack, recorder):
        await asyncio.gather(*(client(stack, n * REQUESTS) for n in range(CONNECTIONS)))
        assert len(recorder.seen) == CONNECTIONS * REQUESTS
        assert len({seen.path for seen in recorder.seen}) == CONNECTIONS * REQUESTS
        assert recorder.connections <= CONNECTIONS
        await until(lambda: not stack.context.connections)


async def test_numbered_requests_cross_nothing_while_clients_leave_and_backends_break() -> None:
    """Whatever else goes wrong: an answer is the right one, an error of ours, or visibly cut."""
    random_ = random.Random(2)
    outcomes = {"right": 0, "error": 0, "cut": 0, "left": 0}

    def respond(seen: Seen) -> Reply | bytes:
        data = numbered(seen)
        chance = random_.random()
        if chance < 0.05:
            return Reply(data[: random_.randrange(len(data))], random_.choice(["close", "reset"]))
        if chance < 0.08:
            return Reply(data + b"HTTP/1.1 200 OK\r\nX-Number: lie\r\nContent-Length: 3\r\n\r\nlie", "stall")
        if chance < 0.11:
            return Reply(data, "close")
        return data

    async def client(stack: Stack, first: int) -> None:
        reader, writer = await stack.connect()
        for number in range(first, first + 30):
            data = ask(number, chunked=number % 4 == 0)
            if random_.random() < 0.03:
                writer.write(data[: random_.randrange(len(data))])
                await asyncio.sleep(0)
                random_.choice([reset, asyncio.StreamWriter.close])(writer)
                outcomes["left"] += 1
                reader, writer = await stack.connect()
                continue
            writer.write(data)
            try:
                answer = await read_answer(reader)
            except (h11.RemoteProtocolError, ConnectionResetError):
                outcomes["cut"] += 1
                reader, writer = await stack.connect()
                continue
            if answer.status == 200:
                assert answer.get(b"x-number") == b"%d" % number
                assert answer.body == expected(number)
                outcomes["right"] += 1
            else:
                assert answer.status == 502
                outcomes["error"] += 1
                if answer.get(b"connection") == b"close":
                    reader, writer = await stack.connect()
        writer.close()

    recorder = Recorder(respond)
    async with serve(recorder.handle) as port, gateway(make_snapshot(port)) as stack:
        await asyncio.gather(*(client(stack, n * 30) for n in range(40)))
        assert all(outcomes.values()), outcomes
        assert outcomes["right"] > 800
        await until(lambda: not stack.context.connections)
        await until(lambda: all(c["open"] == c["idle"] for c in stack.context.pools.counts().values()))
