"""Size limits, each at its edge: the largest thing that passes and the smallest that does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from authgate_fast.http import head_start
from authgate_fast.limits import Limits
from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import Answer, answers, exchange, read_answer, request, running, until, within

SMALL = Limits(max_head_bytes=2_000, max_target_bytes=1_000, max_fields=10, max_body_bytes=100)


async def status_of(stack: Stack, *parts: bytes) -> int:
    (answer,) = answers(await stack.talk(*parts), b"GET")
    if answer.status >= 400:
        assert answer.get(b"connection") == b"close"
    return answer.status


def head_of(size: int) -> bytes:
    """A request head of exactly `size` bytes."""
    bare = request(b"GET", b"/p/a", b"X-Pad: ", close=True)
    return bare.replace(b"X-Pad: ", b"X-Pad: " + b"p" * (size - len(bare)))


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(("size", "status"), [(2_000, 200), (2_001, 431), (20_000, 431)])
async def test_max_head_bytes(size: int, status: int, step: int) -> None:
    data = head_of(size)[:2_200] if step == 1 else head_of(size)
    async with running(limits=SMALL) as (stack, recorder):
        parts = [data[at : at + step] for at in range(0, len(data), step)]
        assert await status_of(stack, *parts) == status
        assert len(recorder.seen) == (status == 200)


@pytest.mark.parametrize("step", [500, 100_000])
async def test_max_head_bytes_counts_below_max_target_bytes_too(step: int) -> None:
    data = head_of(1_500)
    async with running(limits=replace(SMALL, max_head_bytes=1_200, max_target_bytes=4_000)) as (
        stack,
        recorder,
    ):
        assert await status_of(stack, *[data[at : at + step] for at in range(0, len(data), step)]) == 431
        assert not recorder.seen


async def test_a_head_that_drips_is_looked_at_once_and_not_from_its_start_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = 0
    pattern = head_start._BARE_LINE_END

    class Counting:
        def search(self, data: bytes, start: int, end: int) -> object:
            nonlocal looked_at
            looked_at += min(len(data), end) - start
            return pattern.search(data, start, end)

    monkeypatch.setattr(head_start, "_BARE_LINE_END", Counting())
    data = head_of(1_500)
    async with running(limits=SMALL) as (stack, _):
        assert await status_of(stack, *[data[at : at + 1] for at in range(len(data))]) == 200
    assert looked_at < 4 * len(data)


@pytest.mark.parametrize("bad", [b"A: b\n", b"A: b\rc", b"A: b\r\n\n"])
async def test_a_bare_line_end_is_400_at_once_wherever_a_drip_puts_it(bad: bytes) -> None:
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        for byte in b"GET /p/a HTTP/1.1\r\n" + bad:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), 1.0), b"GET")
        assert answer.status == 400


async def test_a_head_without_end_is_431_as_soon_as_it_is_too_large() -> None:
    async with running(limits=SMALL) as (stack, _):
        assert await status_of(stack, b"GET /p/a HTTP/1.1\r\n" + b"X-A: 1\r\n" * 300) == 431


@pytest.mark.parametrize(("count", "status"), [(10, 200), (11, 431)])
async def test_max_fields(count: int, status: int) -> None:
    async with running(limits=SMALL) as (stack, _):
        data = request(b"GET", b"/p/a", *[b"X-%d: 1" % n for n in range(count - 2)], close=True)
        assert await status_of(stack, data) == status


@pytest.mark.parametrize("cut", [0, 5, 1_000])
@pytest.mark.parametrize(("size", "status"), [(1_000, 200), (1_001, 414), (1_500, 414), (5_000, 414)])
async def test_max_target_bytes(size: int, status: int, cut: int) -> None:
    """However it is cut, and also when the head as a whole would be too large."""
    data = request(b"GET", b"/p/" + b"a" * (size - 3), close=True)
    async with running(limits=SMALL) as (stack, _):
        assert await status_of(stack, *([data[:cut], data[cut:]] if cut else [data])) == status


@pytest.mark.parametrize(
    ("head", "target", "size", "status"),
    [
        (2_000, 1_000, 1_000, 200), (2_000, 1_000, 1_001, 414), (2_000, 1_000, 1_900, 414), (1_200, 4_000, 1_150, 200),
        (1_200, 4_000, 1_200, 431),
    ],
)  # fmt: skip
async def test_the_limits_hold_for_a_head_like_the_last_one(
    head: int, target: int, size: int, status: int
) -> None:
    limits = replace(SMALL, max_head_bytes=head, max_target_bytes=target)
    async with running(limits=limits) as (stack, recorder):
        reader, writer = await stack.connect()
        for _ in range(3):
            assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200
        (connection,) = stack.context.connections
        assert connection.shape is not None
        assert connection.shape.has_served
        long = request(b"GET", b"/p/".ljust(size, b"a"))
        assert (await exchange(reader, writer, long)).status == status
        assert len(recorder.seen) == 3 + (status == 200)


async def test_a_request_line_without_end_is_414_at_once() -> None:
    async with running(limits=SMALL) as (stack, _):
        assert await status_of(stack, b"GET /" + b"a" * 1_100) == 414


async def test_a_Content_Length_over_max_body_bytes_is_413_before_the_body_comes() -> None:
    async with running(limits=SMALL) as (stack, recorder):
        assert await status_of(stack, request(b"POST", b"/p/a", b"Content-Length: 101")) == 413
        assert recorder.connections == 0
        assert await status_of(stack, request(b"POST", b"/p/a", body=b"x" * 100, close=True)) == 200


@pytest.mark.parametrize("size", [1, 50, 101])
async def test_a_chunked_body_over_max_body_bytes_is_413_and_its_backend_connection_ends(size: int) -> None:
    async with running(limits=SMALL) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Transfer-Encoding: chunked"))
        await within(recorder.began)
        for _ in range(101 // size + 1):
            writer.write(b"%x\r\n%b\r\n" % (size, b"x" * size))
            await asyncio.sleep(0)
        (answer,) = answers(await asyncio.wait_for(reader.read(-1), BOUND_S), b"POST")
        assert (answer.status, answer.get(b"connection")) == (413, b"close")
        await within(recorder.all_ended)
        assert recorder.seen == []


async def test_a_chunked_body_of_max_body_bytes_passes_whatever_its_chunks() -> None:
    async with running(limits=SMALL) as (stack, recorder):
        data = request(
            b"POST", b"/p/a", b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 100 + b"0\r\n\r\n"
        )
        reader, writer = await stack.connect()
        writer.write(data)
        assert (await read_answer(reader, b"POST")).status == 200
        assert recorder.seen[0].body == b"x" * 100


async def test_endless_tiny_chunks_are_refused() -> None:
    """Framing that outweighs its data by far is work without a purpose."""
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        writer.write(
            request(b"POST", b"/p/a", b"Transfer-Encoding: chunked") + b"1;a=bcdefghijkl\r\nx\r\n" * 20_000
        )
        assert (await read_answer(reader, b"POST")).status == 400


async def test_max_connections_are_served_and_further_ones_closed() -> None:
    async with running(limits=Limits(max_connections=2)) as (stack, _):
        first = [await stack.connect() for _ in range(2)]
        await until(lambda: len(stack.context.connections) == 2)
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        try:
            assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        except ConnectionResetError:
            pass
        for reader, writer in first:
            writer.write(request(b"GET", b"/p/a"))
            assert (await read_answer(reader)).status == 200
            writer.close()
        await until(lambda: not stack.context.connections)
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        answer: Answer = await read_answer(reader)
        assert answer.status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS ClientHello
        b"\x80\x2e\x01\x00\x02",  # SSLv2
        b"\x00",
        b"\x05\x01\x00",  # SOCKS
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1\n",
        b"GET /\r GET",
        b"{}\n",
        b"SSH-2.0-Go\n",
        b"\xff\xfe",
    ],
)
async def test_bytes_that_cannot_become_a_request_are_400_at_once(garbage: bytes) -> None:
    """No wait for a head that will never end: the answer comes long before head_timeout_s."""
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        writer.write(garbage)
        raw = await asyncio.wait_for(reader.read(-1), 1.0)
        (answer,) = answers(raw, b"GET")
        assert (answer.status, answer.get(b"connection")) == (400, b"close")
