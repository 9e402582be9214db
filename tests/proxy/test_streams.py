"""Server-sent events and long polls flow without delay, and end with their client."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from authgate_fast.limits import DEFAULTS
from tests.proxy.harness import BOUND_S, Stack, answer, backend, gateway, make_snapshot, read_head
from tests.proxy.scripted import request, reset, within

PROMPT_S = 0.25
"""Below the delay of any timer that could hold an event back, far above what passing it on needs."""

FRAMINGS = {
    "chunked": (b"Transfer-Encoding: chunked\r\n", lambda event: b"%x\r\n%b\r\n" % (len(event), event)),
    "chunk_in_two_pieces": (b"Transfer-Encoding: chunked\r\n", lambda event: b"%x\r\n%b\r\n" % (len(event), event)),
    "until_close": (b"", lambda event: event),
    "length": (b"Content-Length: 1000000\r\n", lambda event: event),
}  # fmt: skip


class Events:
    """A backend that sends an event whenever the test says so."""

    def __init__(self, framing: str) -> None:
        self.fields, self.frame = FRAMINGS[framing]
        self.in_two = framing == "chunk_in_two_pieces"
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.writer = writer
        self.asked.set()
        try:
            await reader.read(-1)
        finally:
            self.gone.set()

    async def send(self, event: bytes) -> None:
        assert self.writer is not None
        data = self.frame(event)
        if self.in_two:
            self.writer.write(data[:1])
            await asyncio.sleep(0.01)
            data = data[1:]
        self.writer.write(data)

    def begin(self) -> None:
        assert self.writer is not None
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % self.fields)


async def ask(stack: Stack, minor: int = 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await stack.connect()
    head = request(b"GET", b"/p/events", b"Accept: text/event-stream")
    writer.write(head if minor else head.replace(b"HTTP/1.1", b"HTTP/1.0"))
    return reader, writer


@pytest.mark.parametrize("minor", [1, 0])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_each_event_is_passed_on_as_it_arrives(framing: str, minor: int) -> None:
    events = Events(framing)
    async with backend(events.handle) as port, gateway(make_snapshot(port)) as stack:
        reader, _ = await ask(stack, minor)
        await within(events.asked)
        events.begin()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")  # before any event
        delays = []
        for number in range(11):
            event = b"data: %d\n\n" % number
            begun = time.monotonic()
            await events.send(event)
            await asyncio.wait_for(reader.readuntil(event), BOUND_S)
            delays.append(time.monotonic() - begun)
        assert sorted(delays)[5] < PROMPT_S  # a machine may be busy once


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_client_that_leaves_a_stream_ends_the_backend_s_request_at_once(framing: str) -> None:
    events = Events(framing)
    async with backend(events.handle) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await ask(stack)
        await within(events.asked)
        events.begin()
        await read_head(reader)
        await events.send(b"data: 1\n\n")
        await reader.readuntil(b"data: 1")
        reset(writer)
        await within(events.gone, 1.0)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_closes_in_order_ends_the_backend_s_request_within_seconds(begun: bool) -> None:
    """For a second it may be one that half-closed and still reads."""
    events = Events("chunked")
    async with backend(events.handle) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await ask(stack)
        await within(events.asked)
        if begun:
            events.begin()
            await read_head(reader)
        writer.close()
        await within(events.gone, 3.0)


async def test_a_long_poll_is_answered_when_the_backend_has_something_to_say() -> None:
    asked, news = asyncio.Event(), asyncio.Event()

    async def polled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await news.wait()
            writer.write(answer(b"news"))

    async with backend(polled) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        delays = []
        for _ in range(3):
            asked.clear()
            news.clear()
            writer.write(request(b"GET", b"/p/poll"))
            await within(asked)
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            news.set()
            await asyncio.wait_for(reader.readuntil(b"news"), BOUND_S)
            delays.append(time.monotonic() - begun)
        assert sorted(delays)[1] < PROMPT_S


@pytest.mark.usefixtures("fast_ticks")
async def test_a_long_poll_may_take_first_byte_timeout_s_and_no_longer() -> None:
    limits = replace(DEFAULTS, first_byte_timeout_s=0.4)
    events = Events("length")
    async with backend(events.handle) as port, gateway(make_snapshot(port, limits), limits) as stack:
        reader, _ = await ask(stack)
        begun = time.monotonic()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 504 ")
        assert time.monotonic() - begun > 0.35
        await within(events.gone)


@pytest.mark.usefixtures("fast_ticks")
async def test_a_stream_lives_as_long_as_it_says_something() -> None:
    limits = replace(DEFAULTS, between_bytes_timeout_s=0.3)
    events = Events("chunked")
    async with backend(events.handle) as port, gateway(make_snapshot(port, limits), limits) as stack:
        reader, _ = await ask(stack)
        await within(events.asked)
        events.begin()
        for _ in range(6):
            await events.send(b":\n\n")
            await asyncio.wait_for(reader.readuntil(b":\n\n"), BOUND_S)
            await asyncio.sleep(0.1)
        assert b"0\r\n\r\n" not in await asyncio.wait_for(reader.read(-1), BOUND_S)
