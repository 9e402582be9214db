"""The bytes that a worker holds for all of its clients have one bound, and those who hold the most go first."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy import timeouts
from authgate_fast.proxy.memory import held_bytes, keep_budget
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Reply, exchange, ok, read_answer, request, running, stop_reading, until

KIB = 1_024
BUDGET = 512 * KIB
ONE_READ = 256 * KIB
LIMITS = Limits(max_buffered_bytes=BUDGET)


@pytest.fixture(params=[True, False], ids=["swept", "between two sweeps"])
def swept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the once-a-second sweep runs; without it, only growth can trigger a measurement."""
    monkeypatch.setattr(timeouts, "TICK_S", 0.01 if request.param else 3_600.0)
    return bool(request.param)


class Watch:
    """Looks at what is held whenever the loop turns."""

    def __init__(self, stack: Stack) -> None:
        self.most = 0
        self._stack = stack
        self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            held = sum(held_bytes(connection) for connection in self._stack.context.connections)
            self.most = max(self.most, held)
            await asyncio.sleep(0)


def shed(stack: Stack) -> int:
    return stack.context.counters.limit_hits.get("max_buffered_bytes", 0)


async def flood(
    stack: Stack, count: int, hostile: Callable[[int], Awaitable[None]], bound_bytes: int
) -> None:
    """Let `count` hostile clients do their worst, one after the other, while a good one asks again and again."""
    reader, writer = await stack.connect()
    assert (await exchange(reader, writer, request(b"GET", b"/p/good"))).body == b"/good"
    watch = Watch(stack)
    for number in range(count):
        await hostile(number)
        assert (await exchange(reader, writer, request(b"GET", b"/p/good"))).body == b"/good"
    await until(lambda: shed(stack) > 0)
    watch.stop()
    assert watch.most <= bound_bytes
    keep_budget(stack.context)
    assert stack.context.buffered_bytes <= BUDGET
    assert any(reason == "overloaded" for reason, _ in stack.reports)


@pytest.mark.usefixtures("swept")
async def test_unfinished_heads_are_held_within_the_budget_and_the_rest_is_503() -> None:
    async with running(limits=LIMITS) as (stack, _):
        clients = []

        async def hostile(_: int) -> None:
            reader, writer = await stack.connect()
            clients.append((reader, writer))
            writer.write(b"GET /p/a HTTP/1.1\r\nX-Pad: " + b"p" * 30_000)
            await until(lambda: len(stack.context.connections) == len(clients) + 1 or shed(stack) > 0)

        await flood(stack, 40, hostile, BUDGET + BUDGET // 8)
        heads = [asyncio.create_task(reader.readuntil(b"\r\n\r\n")) for reader, _ in clients]
        done, still_held = await asyncio.wait(heads, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            assert task.result().startswith(b"HTTP/1.1 503 ")
            assert b"Connection: close\r\n" in task.result()
        for task in still_held:
            task.cancel()
        assert len(still_held) < 20


@pytest.mark.usefixtures("swept")
async def test_answers_that_nobody_reads_are_held_within_the_budget() -> None:
    size = 8_000_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with running(lambda s: data if s.path == b"/big" else ok(s), LIMITS) as (stack, recorder):

        async def hostile(number: int) -> None:
            _, writer = await stack.connect()
            stop_reading(writer)
            writer.write(request(b"GET", b"/p/big"))
            await until(lambda: sum(seen.path == b"/big" for seen in recorder.seen) > number)
            await until(
                lambda: (
                    sum(each.write_paused for each in stack.context.connections) > number or shed(stack) > 0
                )
            )

        await flood(stack, 6, hostile, BUDGET + BUDGET // 8 + 2 * ONE_READ)


@pytest.mark.usefixtures("swept")
async def test_uploads_for_a_backend_that_does_not_read_are_held_within_the_budget() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST "):
                stop_reading(writer)
                await asyncio.get_running_loop().create_future()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n/good")

    async with backend(handler) as port, gateway(make_snapshot(port, LIMITS), LIMITS) as stack:
        clients = []

        async def hostile(number: int) -> None:
            reader, writer = await stack.connect()
            clients.append((reader, writer))
            writer.write(request(b"POST", b"/p/up", b"Content-Length: 20000000") + b"x" * 20_000_000)
            await until(
                lambda: (
                    sum(each.read_paused for each in stack.context.connections) > number or shed(stack) > 0
                )
            )

        await flood(stack, 6, hostile, BUDGET + BUDGET // 8 + 2 * ONE_READ)


@pytest.mark.usefixtures("swept")
async def test_pipelines_behind_a_slow_request_are_held_within_the_budget() -> None:
    def respond(seen: object) -> Reply | bytes:
        return Reply(b"", "stall") if seen.path == b"/slow" else ok(seen)  # type: ignore[attr-defined, arg-type]

    async with running(respond, LIMITS) as (stack, _):
        count = 0

        async def hostile(_: int) -> None:
            nonlocal count
            _, writer = await stack.connect()
            count += 1
            writer.write(request(b"GET", b"/p/slow") + request(b"GET", b"/p/a") * 700)
            await until(
                lambda: (
                    sum(bool(each.buffer) for each in stack.context.connections) == count or shed(stack) > 0
                )
            )

        await flood(stack, 40, hostile, BUDGET + BUDGET // 8)


@pytest.mark.usefixtures("swept")
async def test_a_client_that_keeps_up_is_not_the_one_that_is_cut() -> None:
    """It downloads far more than the budget while others hold theirs without progress."""
    size = 8_000_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with running(lambda s: data if s.path == b"/big" else ok(s), LIMITS) as (stack, _):
        for _ in range(6):
            _, writer = await stack.connect()
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            writer.write(b"GET /p/a HTTP/1.1\r\nX-Pad: " + b"p" * 30_000)
        await until(lambda: sum(bool(each.buffer) for each in stack.context.connections) == 6)
        for connection in stack.context.connections:
            connection.since_s -= 5
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/big"))
        answer = await read_answer(reader, bound_s=3 * BOUND_S)
        assert len(answer.body) == size


@pytest.mark.usefixtures("fast_ticks")
async def test_what_is_held_is_measured_once_a_second_and_falls_again() -> None:
    async with running() as (stack, _):
        _, writer = await stack.connect()
        writer.write(b"GET /p/a HTTP/1.1\r\nX-Pad: " + b"p" * 10_000)
        await until(lambda: stack.context.buffered_bytes > 10_000)
        writer.transport.abort()
        await until(lambda: stack.context.buffered_bytes == 0)
        assert shed(stack) == 0
