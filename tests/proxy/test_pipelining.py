"""Pipelined clients: answers in order, and nothing behind a closing refusal is read as HTTP."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy.downstream import WRITE_HIGH_WATER, Downstream
from tests.proxy.harness import BOUND_S, backend, gateway, make_snapshot
from tests.proxy.scripted import (
    Reply,
    Seen,
    answers,
    ok,
    read_answer,
    read_on,
    request,
    running,
    stop_reading,
    until,
    within,
)


async def test_answers_come_in_the_order_of_the_requests() -> None:
    data = b"".join(request(b"GET", b"/p/%d" % n) for n in range(50)) + request(b"GET", b"/p/50", close=True)
    async with running() as (stack, recorder):
        got = answers(await stack.talk(data), *[b"GET"] * 51)
    assert [answer.body for answer in got] == [b"/%d" % n for n in range(51)]
    assert recorder.connections == 1


async def test_a_slow_answer_is_not_overtaken_by_a_refusal() -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
        await reader.read(-1)

    async with backend(slow) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/slow") + request(b"GET", b"/nowhere", close=True))
        await until(lambda: any(each.exchange is not None for each in stack.context.connections))
        release.set()
        got = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"GET", b"GET")
        writer.close()
    assert [answer.status for answer in got] == [200, 404]


async def test_refusals_that_keep_the_connection_stand_between_answers() -> None:
    data = (
        request(b"GET", b"/p/1")
        + request(b"GET", b"/nowhere")
        + request(b"POST", b"/nowhere", body=b"skipped")
        + request(b"GET", b"/s/2")
        + request(b"OPTIONS", b"*")
        + request(b"HEAD", b"/nowhere")
        + request(b"GET", b"/p/3", close=True)
    )
    methods = (b"GET", b"GET", b"POST", b"GET", b"OPTIONS", b"HEAD", b"GET")
    async with running() as (stack, recorder):
        got = answers(await stack.talk(data), *methods)
    assert [answer.status for answer in got] == [200, 404, 404, 401, 204, 404, 200]
    assert [seen.path for seen in recorder.seen] == [b"/1", b"/3"]


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"GET /p/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"BREW /p/x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /p/x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /p/x HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        (b"GET /p/x HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", 400),
        (b"POST /p/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 404),
        (b"POST /p/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
async def test_nothing_behind_a_closing_refusal_is_served(bad: bytes, status: int) -> None:
    data = request(b"GET", b"/p/first") + bad + request(b"GET", b"/p/never", close=True)
    async with running() as (stack, recorder):
        for parts in ([data], [request(b"GET", b"/p/first") + bad, request(b"GET", b"/p/never")]):
            recorder.seen.clear()
            got = answers(await stack.talk(*parts), b"GET", b"GET", b"GET")
            assert [answer.status for answer in got] == [200, status]
            assert got[-1].get(b"connection") == b"close"
            assert [seen.path for seen in recorder.seen] == [b"/first"]


async def test_nothing_behind_a_request_that_closes_is_served() -> None:
    data = request(b"GET", b"/p/last", close=True) + request(b"GET", b"/p/never")
    async with running() as (stack, recorder):
        got = answers(await stack.talk(data), b"GET", b"GET")
    assert [answer.body for answer in got] == [b"/last"]
    assert len(recorder.seen) == 1


async def test_a_closing_answer_survives_what_is_pipelined_behind_it() -> None:
    """Unread bytes at the close would make the kernel reset the connection and lose the answer."""
    body = b"x" * 3_000_000
    async with running(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as (
        stack,
        _,
    ):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", close=True) + request(b"GET", b"/p/never") * 20_000)
        answer = await read_answer(reader)
        assert answer.body == body
        writer.close()


@pytest.mark.replaces_insides
@pytest.mark.parametrize("path", [b"/p/x", b"/nowhere"])
async def test_a_deep_pipeline_is_answered_whole_in_bounded_memory(
    path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = 0
    consume = Downstream._consume

    def watched(self: Downstream, data: bytes, looked_at: int = 0) -> None:
        nonlocal held
        consume(self, data, looked_at)
        held = max(held, len(self.buffer) + self.transport.get_write_buffer_size())

    monkeypatch.setattr(Downstream, "_consume", watched)
    one = request(b"GET", path, b"X-Pad: " + b"p" * 200)
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        writer.write(one * 1_999 + request(b"GET", path, close=True))
        raw = await asyncio.wait_for(reader.read(-1), BOUND_S)
        writer.close()
    got = answers(raw, *[b"GET"] * 2_000)
    assert len(got) == 2_000
    assert {answer.status for answer in got} == {200 if path == b"/p/x" else 404}
    assert held < WRITE_HIGH_WATER + 300_000  # one read of uvloop's is at most 256 KiB


async def test_a_client_that_pipelines_and_does_not_read_is_not_read_either() -> None:
    """Refusals cost no backend, so only backpressure bounds what a client can make us hold."""
    one = request(b"GET", b"/nowhere")
    total = 100_000
    async with running(limits=Limits(max_requests_per_connection=total + 1)) as (stack, _):
        reader, writer = await stack.connect()
        stop_reading(writer)
        writer.write(one * total)
        await until(lambda: any(each.write_paused for each in stack.context.connections))
        (connection,) = stack.context.connections
        served = stack.context.counters.requests
        for _ in range(50):
            await asyncio.sleep(0)
        assert stack.context.counters.requests == served < total
        assert connection.transport.get_write_buffer_size() < WRITE_HIGH_WATER + 1_000
        assert len(connection.buffer) < 300_000
        read_on(writer)
        writer.write(request(b"GET", b"/nowhere", close=True))
        raw = await asyncio.wait_for(reader.read(-1), 3 * BOUND_S)
        assert raw.count(b"HTTP/1.1 404 Not Found\r\n") == total + 1
        writer.close()


async def test_pipelined_requests_of_a_half_closed_client_are_all_answered() -> None:
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        writer.write(b"".join(request(b"GET", b"/p/%d" % n) for n in range(5)))
        writer.write_eof()
        got = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), *[b"GET"] * 6)
        writer.close()
    assert [answer.body for answer in got] == [b"/%d" % n for n in range(5)]


async def test_a_response_without_a_length_leaves_room_for_the_next_pipelined_request() -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"HTTP/1.1 200 OK\r\n\r\nend", "close") if seen.path == b"/eof" else ok(seen)

    async with running(respond) as (stack, recorder):
        data = request(b"GET", b"/p/eof") + request(b"GET", b"/p/next", close=True)
        got = answers(await stack.talk(data), b"GET", b"GET")
        assert [answer.body for answer in got] == [b"end", b"/next"]
        assert recorder.connections == 2
        await within(recorder.began)
