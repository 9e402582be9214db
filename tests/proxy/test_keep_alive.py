"""Backend connections: reused when nothing about them is in doubt, retried when they were stale, and else ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authgate_fast.limits import Limits
from tests.proxy.harness import Stack, backend, gateway, make_snapshot, read_head
from tests.proxy.scripted import (
    Recorder,
    Reply,
    Seen,
    exchange,
    ok,
    read_answer,
    request,
    reset,
    running,
    until,
    within,
)


def idle(stack: Stack) -> int:
    return sum(counts["idle"] for counts in stack.context.pools.counts().values())


async def test_one_backend_connection_serves_request_after_request() -> None:
    async with running() as (stack, recorder):
        for _ in range(3):  # client connections
            reader, writer = await stack.connect()
            for n in range(5):
                assert (await exchange(reader, writer, request(b"GET", b"/p/%d" % n))).body == b"/%d" % n
            writer.close()
    assert recorder.connections == 1
    assert len(recorder.seen) == 15


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
async def test_a_connection_on_which_an_announced_body_may_still_come_is_not_reused(method: bytes) -> None:
    """A body that a backend wrongly sends after HEAD or 304 would be read as the next client's answer."""
    status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
    async with running(lambda _: b"HTTP/1.1 %b\r\nContent-Length: 41\r\n\r\n" % status) as (stack, recorder):
        reader, writer = await stack.connect()
        for _ in range(2):
            writer.write(request(method, b"/p/a"))
            assert status in await read_head(reader)
        writer.close()
    assert recorder.connections == 2


@pytest.mark.parametrize(
    "respond",
    [
        lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
        lambda _: b'HTTP/1.1 304 Not Modified\r\nETag: "e"\r\n\r\n',
        lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
        lambda _: b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        lambda _: Reply([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"]),
    ],
    ids=["204", "304", "chunked", "after_100", "in_pieces"],
)
async def test_an_answer_that_ends_as_framed_leaves_a_reusable_connection(
    respond: Callable[[Seen], Reply | bytes],
) -> None:
    async with running(respond) as (stack, recorder):
        reader, writer = await stack.connect()
        for _ in range(3):
            assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status < 400
        writer.close()
    assert recorder.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nX",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
async def test_a_connection_with_any_doubt_is_not_reused(data: bytes) -> None:
    async with running(lambda seen: Reply(data, "stall") if seen.turn == 1 else b"never") as (
        stack,
        recorder,
    ):
        reader, writer = await stack.connect()
        for _ in range(3):
            answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
            assert answer.status < 400
            assert answer.body in (b"", b"ok")
        writer.close()
        assert idle(stack) == 0
    assert recorder.connections == 3


async def test_interim_answers_are_counted_for_each_request_alone() -> None:
    def respond(seen: Seen) -> Reply | bytes:
        interim = b"HTTP/1.1 103 X\r\n\r\n" * 6
        return Reply(b"", "close") if (seen.connection, seen.turn) == (1, 5) else interim + ok(seen)

    async with running(respond) as (stack, recorder):
        reader, writer = await stack.connect()
        for n in range(6):
            answer = await exchange(reader, writer, request(b"GET", b"/p/%d" % n))
            assert (answer.status, answer.body, len(answer.interim)) == (200, b"/%d" % n, 6)
        writer.close()
        assert stack.context.counters.retries == 1  # what came of earlier answers is not of this one
    assert recorder.connections == 2


async def test_a_body_in_answer_to_HEAD_is_dropped_with_its_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with running(lambda _: Reply(data, "stall")) as (stack, recorder):
        reader, writer = await stack.connect()
        for _ in range(2):
            answer = await exchange(reader, writer, request(b"HEAD", b"/p/a"), b"HEAD")
            assert (answer.get(b"content-length"), answer.body) == (b"2", b"")
        writer.close()
    assert recorder.connections == 2


async def test_bytes_behind_an_answer_touch_no_other_answer() -> None:
    """The rest of a lie stays in no parser: neither fields nor status reach this answer or the next one."""
    lies = [b"HTTP/1.1 ", b"HTTP/1.1 299 X\r\nX-Evil: ", b"HTTP/1.1 299 X\r\nX-Evil: 1\r\n", b"H"]

    def respond(seen: Seen) -> Reply | bytes:
        body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        return Reply(body + lies[int(seen.path[2:])], "stall") if seen.path.startswith(b"/l") else ok(seen)

    async with running(respond) as (stack, _):
        reader, writer = await stack.connect()
        for n in range(len(lies)):
            first = await exchange(reader, writer, request(b"GET", b"/p/l%d" % n))
            second = await exchange(reader, writer, request(b"GET", b"/p/true"))
            assert (first.status, second.status, second.body) == (200, 200, b"/true")
            assert first.get(b"x-evil") is None
            assert second.get(b"x-evil") is None
        writer.close()


Move = Callable[[asyncio.StreamWriter], Awaitable[None] | None]


@pytest.mark.parametrize(
    "move",
    [lambda w: w.write(b"X"), lambda w: w.write(ok(Seen(0, 0, b"GET / x", b""))), lambda w: w.close(), reset],
    ids=["byte", "answer", "close", "reset"],
)
async def test_whatever_an_idle_backend_does_ends_its_connection(move: Move) -> None:
    writers: list[asyncio.StreamWriter] = []
    recorder = Recorder()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await recorder.handle(reader, writer)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/a"))
        assert idle(stack) == 1
        move(writers[0])
        await until(lambda: idle(stack) == 0)
        answer = await exchange(reader, writer, request(b"POST", b"/p/b", body=b"x"))
        assert (answer.status, answer.body) == (200, b"/b")
        writer.close()
    assert recorder.connections == 2


async def test_an_idle_connection_is_not_kept_longer_than_the_backend_says(fast_ticks: None) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=1\r\n\r\n"
    async with running(lambda _: data) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/a"))
        await within(recorder.all_ended)
        assert stack.context.pools.counts() == {} or idle(stack) == 0
        writer.close()


async def test_an_idle_connection_ends_at_pool_idle_timeout_s(fast_ticks: None) -> None:
    async with running(limits=Limits(pool_idle_timeout_s=0.05)) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/a"))
        await within(recorder.all_ended)
        writer.close()


# --- retries ------------------------------------------------------------------------------------------


def stale(seen: Seen) -> Reply | bytes:
    """Answer the first request of the first connection; take its second one and close without a byte."""
    return Reply(b"", "close") if seen.connection == 1 and seen.turn == 2 else ok(seen)


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
async def test_an_idempotent_request_on_a_stale_connection_is_sent_once_more(
    method: bytes, then: str
) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", then) if seen.connection == 1 and seen.turn == 2 else ok(seen)

    body = b"put" * 1_000 if method == b"PUT" else b""
    async with running(respond) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        answer = await exchange(reader, writer, request(method, b"/p/again", body=body), method)
        assert answer.status == 200
        assert stack.context.counters.retries == 1
        writer.close()
    assert [(seen.connection, seen.path, seen.body) for seen in recorder.seen] == [
        (1, b"/warm", b""),
        (1, b"/again", body),
        (2, b"/again", body),
    ]


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
@pytest.mark.parametrize("body", [b"", b"once"])
async def test_a_request_that_is_not_idempotent_is_never_sent_twice(method: bytes, body: bytes) -> None:
    async with running(stale) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        answer = await exchange(reader, writer, request(method, b"/p/once", body=body), method)
        assert answer.status == 502
        assert b"upstream_unreachable" in answer.body
        writer.close()
    assert [seen.path for seen in recorder.seen] == [b"/warm", b"/once"]


async def test_a_request_is_retried_once_and_not_again() -> None:
    async with running(lambda s: ok(s) if s.path == b"/warm" else Reply(b"", "close")) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502
        writer.close()
    assert [seen.path for seen in recorder.seen] == [b"/warm", b"/a", b"/a"]


async def test_a_fresh_connection_is_not_stale_so_nothing_is_retried() -> None:
    async with running(lambda _: Reply(b"", "close")) as (stack, recorder):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502
        writer.close()
    assert len(recorder.seen) == 1


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_no_retry_once_a_response_byte_has_come(begun: bytes) -> None:
    async with running(lambda s: ok(s) if s.path == b"/warm" else Reply(begun, "close")) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
        assert answer.status == 502
        assert b"upstream_protocol_error" in answer.body
        writer.close()
    assert [seen.path for seen in recorder.seen] == [b"/warm", b"/a"]


@pytest.mark.parametrize(
    "cut", [0, 1, 999, 1_000], ids=["head_alone", "one_byte", "all_but_one", "in_one_read"]
)
@pytest.mark.parametrize(("size", "sends"), [(1_000, 2), (1_001, 1)])
async def test_a_body_is_replayed_up_to_max_replay_bytes(size: int, sends: int, cut: int) -> None:
    """However the body arrived."""
    async with running(stale, Limits(max_replay_bytes=1_000)) as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        data = request(b"PUT", b"/p/a", body=b"b" * size)
        at = len(data) if cut == 1_000 else len(data) - size + cut
        writer.write(data[:at])
        await until(lambda: at == len(data) or any(c.exchange is not None for c in stack.context.connections))
        writer.write(data[at:])
        answer = await read_answer(reader, b"PUT")
        assert answer.status == (200 if sends == 2 else 502)
        writer.close()
    bodies = [seen.body for seen in recorder.seen if seen.path == b"/a"]
    assert bodies == [b"b" * size] * sends


async def test_a_stale_connection_found_in_the_middle_of_an_upload_is_replaced_without_loss() -> None:
    """The retry sends what has come so far, and the rest follows."""
    writers: list[asyncio.StreamWriter] = []
    recorder = Recorder()
    took = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if len(writers) > 1:
            await recorder.handle(reader, writer)
            return
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"first ")
        took.set()
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        data = request(b"PUT", b"/p/a", body=b"first second third")
        writer.write(data[:-12])
        await within(took)
        writers[0].close()
        await until(lambda: stack.context.counters.retries == 1)
        writer.write(data[-12:-6])
        writer.write(data[-6:])
        assert (await read_answer(reader, b"PUT")).status == 200
        writer.close()
    assert [seen.body for seen in recorder.seen] == [b"first second third"]
