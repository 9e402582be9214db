"""Too many connections: who is let in, who has to leave for it, and who is never touched."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.decision import Client
from authgate_fast.limits import Limits
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import Reply, answers, exchange, ok, read_answer, request, running, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(stack: Stack, source: str = "127.0.0.1") -> Streams:
    """Connect from an address of loopback's /8, and wait until the gateway has decided about it."""
    before = stack.context.counters.connections, sum(stack.context.counters.limit_hits.values())
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port, local_addr=(source, 0))
    stack.writers.append(writer)
    await until(
        lambda: (
            (stack.context.counters.connections, sum(stack.context.counters.limit_hits.values())) != before
        )
    )
    return reader, writer


async def served(stack: Stack, source: str = "127.0.0.1") -> Streams:
    """Connect and be answered once."""
    streams = await connect(stack, source)
    assert (await exchange(*streams, request(b"GET", b"/p/a"))).status == 200
    return streams


async def is_closed(streams: Streams) -> bool:
    try:
        return await asyncio.wait_for(streams[0].read(-1), BOUND_S) == b""
    except ConnectionResetError:
        return True


async def still_serves(streams: Streams) -> bool:
    return (await exchange(*streams, request(b"GET", b"/p/again"))).status == 200


def grow_old(stack: Stack, by_s: float = 5.0) -> None:
    """Let every connection be what it is since a while longer, and so the list of who could leave."""
    stack.context.admission._listed_s -= by_s
    for connection in stack.context.connections:
        connection.since_s -= by_s


def hits(stack: Stack, limit: str) -> int:
    return stack.context.counters.limit_hits.get(limit, 0)


async def test_the_oldest_idle_connection_makes_room_for_a_new_one() -> None:
    async with running(limits=Limits(max_connections=3)) as (stack, _):
        oldest = await served(stack)
        grow_old(stack)
        others = [await served(stack) for _ in range(2)]
        new = await served(stack)
        assert await is_closed(oldest)
        for streams in (*others, new):
            assert await still_serves(streams)
        assert hits(stack, "max_connections") == 1


async def test_a_connection_that_serves_a_request_is_never_closed_for_another() -> None:
    async with running(
        lambda s: Reply(b"", "stall") if s.path == b"/slow" else ok(s), Limits(max_connections=2)
    ) as (stack, recorder):
        for number in (1, 2):
            _, writer = await connect(stack)
            writer.write(request(b"GET", b"/p/slow"))
            await until(lambda number=number: len(recorder.seen) == number)
        grow_old(stack)
        assert await is_closed(await connect(stack))
        assert len(stack.context.connections) == 2
        assert recorder.open == 2


@pytest.mark.parametrize(
    "said", [b"", b"GET /p/a HTTP/1.1\r\nHo", b"no HTTP\n"], ids=["nothing", "part of a head", "rubbish"]
)
async def test_who_never_said_what_it_wants_goes_before_who_was_served(said: bytes) -> None:
    async with running(limits=Limits(max_connections=3)) as (stack, _):
        good = await served(stack)
        grow_old(stack)  # the oldest of all
        flood = [await connect(stack) for _ in range(2)]
        for _, writer in flood:
            writer.write(said)
        if said:
            await until(lambda: all(c.sequence or c.buffer for c in stack.context.connections))
        grow_old(stack)
        for _ in range(2):
            await served(stack)
        assert await still_serves(good)
        for reader, _ in flood:
            try:
                (await asyncio.wait_for(reader.read(-1), BOUND_S)).startswith(b"HTTP/1.1 400 ")
            except ConnectionResetError:
                pass


async def test_who_has_just_come_is_given_time_to_speak() -> None:
    async with running(limits=Limits(max_connections=2)) as (stack, _):
        fresh = [await connect(stack) for _ in range(2)]
        assert await is_closed(await connect(stack))
        for streams in fresh:
            assert await still_serves(streams)


async def test_a_flood_of_silent_connections_ends_by_itself_and_keeps_nobody_out() -> None:
    """One hundred that say nothing where fifty have room; each good client still gets in."""
    async with running(limits=Limits(max_connections=50)) as (stack, _):
        for _ in range(100):
            await connect(stack)
        for _ in range(5):
            grow_old(stack)
            assert await still_serves(await served(stack))
        assert len(stack.context.connections) <= 50
        assert hits(stack, "max_connections") >= 55


async def test_one_address_has_no_more_than_its_share_and_others_are_served() -> None:
    limits = Limits(max_connections=10, max_connections_per_address=3)
    async with running(limits=limits) as (stack, _):
        flood = [await connect(stack, "127.0.0.2") for _ in range(3)]
        assert await is_closed(await connect(stack, "127.0.0.2"))
        assert hits(stack, "max_connections_per_address") == 1
        assert await still_serves(await served(stack, "127.0.0.3"))
        flood[0][1].close()
        await until(lambda: stack.context.admission.by_address["127.0.0.2"] == 2)
        assert await still_serves(await served(stack, "127.0.0.2"))


async def test_an_address_at_its_share_loses_its_own_idle_connection_and_nobody_elses() -> None:
    limits = Limits(max_connections=10, max_connections_per_address=2)
    async with running(limits=limits) as (stack, _):
        other = await served(stack, "127.0.0.3")
        grow_old(stack)
        first = await served(stack, "127.0.0.2")
        grow_old(stack)
        second = await served(stack, "127.0.0.2")
        assert await still_serves(await served(stack, "127.0.0.2"))
        assert await is_closed(first)
        assert await still_serves(second)
        assert await still_serves(other)


async def test_nothing_is_remembered_of_who_has_left() -> None:
    limits = Limits(max_connections=4, max_connections_per_address=3)
    async with running(limits=limits) as (stack, _):
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.4") * 2:
            await connect(stack, source)
            grow_old(stack)
        for writer in stack.writers:
            writer.transport.abort()
        await until(lambda: not stack.context.connections)
        assert stack.context.admission.by_address == {}
        assert stack.context.admission._could_leave == []


async def test_a_64_of_IPv6_is_one_address() -> None:
    context = Context(asyncio.get_running_loop(), Limits(max_connections_per_address=1))
    context.now_s = 1e6
    context.admission._listed_s = context.now_s  # nobody could leave

    def admits(address: str) -> bool:
        connection = Downstream(context)
        connection.client = Client(address)
        return context.admission.admit(context, connection)

    assert admits("2001:db8:0:1::1")
    assert not admits("2001:db8:0:1:ffff::2")
    assert admits("2001:db8:0:2::1")
    assert admits("::ffff:192.0.2.1")
    assert not admits("192.0.2.1")
    assert not admits("")


@pytest.mark.parametrize("path", [b"/p/a", b"/nowhere"])
async def test_a_connection_serves_max_requests_per_connection_and_closes(path: bytes) -> None:
    async with running(limits=Limits(max_requests_per_connection=3)) as (stack, _):
        reader, writer = await stack.connect()
        for last in (False, False, True):
            answer = await exchange(reader, writer, request(b"GET", path))
            assert (answer.get(b"connection") == b"close") is last
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        assert hits(stack, "max_requests_per_connection") == 1


async def test_what_is_pipelined_behind_the_last_request_of_a_connection_is_not_served() -> None:
    async with running(limits=Limits(max_requests_per_connection=3)) as (stack, recorder):
        raw = await stack.talk(b"".join(request(b"GET", b"/p/%d" % n) for n in range(5)))
        got = answers(raw, *[b"GET"] * 5)
        assert [answer.body for answer in got] == [b"/0", b"/1", b"/2"]
        assert len(recorder.seen) == 3


async def test_a_request_under_the_limit_is_not_counted_as_a_hit() -> None:
    async with running(limits=Limits(max_requests_per_connection=3)) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        assert (await read_answer(reader)).get(b"connection") is None
        assert stack.context.counters.limit_hits == {}
