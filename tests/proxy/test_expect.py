"""`Expect: 100-continue`: asked for after the check, so that a refused upload never starts; and answers that come early."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from authgate_fast.limits import Limits
from tests.proxy.harness import BOUND_S, KEY, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, answers, exchange, read_answer, request, running, until, within

EXPECT = b"Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = request(b"POST", b"/p/up", EXPECT, b"Content-Length: 6")


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)


@pytest.mark.parametrize("framing", [b"Content-Length: 6", b"Transfer-Encoding: chunked"])
async def test_a_request_that_passes_the_check_is_told_to_continue(framing: bytes) -> None:
    body = b"upload" if framing.startswith(b"C") else b"6\r\nupload\r\n0\r\n\r\n"
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()
        for _ in range(2):  # on a fresh backend connection, and on a kept one
            writer.write(request(b"POST", b"/p/up", EXPECT, framing))
            assert await head_of(reader) == CONTINUE
            assert (await exchange(reader, writer, body, b"POST")).status == 200
    assert [seen.body for seen in recorder.seen] == [b"upload"] * 2
    assert not any(b"expect" in head.lower() for head in recorder.heads)


async def test_100_is_sent_once_also_when_the_backend_sends_its_own() -> None:
    async with running(lambda s: CONTINUE + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (stack, _):
        reader, writer = await stack.connect()
        writer.write(HEAD)
        assert await head_of(reader) == CONTINUE
        answer = await exchange(reader, writer, b"upload", b"POST")
        assert (answer.status, answer.interim) == (200, [])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request(b"POST", b"/s/up", EXPECT, b"Content-Length: 6"), 401),
        (request(b"POST", b"/s/up", EXPECT, b"Content-Length: 6", b"X-Api-Key: wrong"), 401),
        (request(b"POST", b"/nowhere", EXPECT, b"Content-Length: 6"), 404),
        (request(b"POST", b"/p/up", EXPECT, b"Content-Length: 11"), 413),
        (request(b"POST", b"/p/up", b"Expect: 200-ok", b"Content-Length: 6"), 417),
        (request(b"POST", b"/p/up", b"Expect: 100-continue, x", b"Content-Length: 6"), 417),
    ],
)
async def test_a_refused_upload_is_not_asked_for_and_never_read(head: bytes, status: int) -> None:
    async with running(limits=Limits(max_body_bytes=10)) as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(head)
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.interim, answer.get(b"connection")) == (status, [], b"close")
        writer.write(request(b"GET", b"/p/smuggled"))  # if this were a body, it would not be a request
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""
        assert recorder.connections == 0


async def test_a_key_that_is_right_gets_its_upload_through() -> None:
    recorder = Recorder()
    digest = hashlib.sha256(KEY.encode()).digest()
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, key_digest=digest)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/s/up", EXPECT, b"Content-Length: 6", b"X-Api-Key: " + KEY.encode()))
        assert await head_of(reader) == CONTINUE
        assert (await exchange(reader, writer, b"upload", b"POST")).status == 200
    assert b"X-Consumer-Id: app\r\n" in recorder.heads[0]
    assert KEY.encode() not in recorder.heads[0]


async def test_a_client_that_does_not_wait_is_not_told_to_continue() -> None:
    async with running() as (stack, _):
        raw = await stack.talk(request(b"POST", b"/p/up", EXPECT, body=b"upload", close=True))
    (answer,) = answers(raw, b"POST")
    assert (answer.status, answer.interim) == (200, [])


async def test_an_HTTP_1_0_client_is_not_told_to_continue() -> None:
    data = b"POST /p/up HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
    async with running() as (stack, _):
        raw = await stack.talk(data, b"upload")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_backend_that_is_away_is_answered_502_without_100() -> None:
    async with gateway(make_snapshot(1)) as stack:
        reader, writer = await stack.connect()
        writer.write(HEAD)
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.interim, answer.get(b"connection")) == (502, [], b"close")


# --- answers that come while the upload is under way --------------------------------------------------


async def test_an_early_answer_reaches_the_client_and_ends_both_connections() -> None:
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        while await reader.read(65_536):
            pass
        ended.set()

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 1000000") + b"x" * 1_000)
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.body, answer.get(b"connection")) == (413, b"big", b"close")
        await within(ended)
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b""


async def test_an_uploader_that_writes_first_and_reads_later_still_gets_the_early_answer() -> None:
    """A reset would take the answer away; so the gateway reads on for a while and drops what it reads."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 50000000"))
        for _ in range(300):
            writer.write(b"x" * 10_000)
            await asyncio.wait_for(writer.drain(), BOUND_S)
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.body) == (413, b"big")


async def test_an_early_answer_streams_on_while_the_upload_does() -> None:
    """Both directions at once, as in a bidirectional stream: each chunk is answered before the next is sent."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await reader.readuntil(b"\r\n")) != b"0\r\n":
            data = await reader.readexactly(int(line, 16) + 2)
            writer.write(line + data)
        writer.write(b"0\r\n\r\n")
        await reader.read(-1)

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Transfer-Encoding: chunked"))
        assert b"200 OK" in await head_of(reader)
        for n in range(20):
            chunk = b"2\r\n%02d\r\n" % n
            writer.write(chunk)
            assert await asyncio.wait_for(reader.readexactly(len(chunk)), BOUND_S) == chunk
        writer.write(b"0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b"0\r\n\r\n"
        await until(lambda: not stack.context.connections)


async def test_an_early_answer_with_a_close_is_read_although_the_upload_fails() -> None:
    """A backend that answers and closes makes our writes fail; what it said is passed on all the same."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        writer.write_eof()
        while await reader.read(65_536):
            pass

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 5000000"))
        writer.write(b"x" * 1_000_000)
        answer = await read_answer(reader, b"POST")
        assert (answer.status, answer.body) == (403, b"no")
