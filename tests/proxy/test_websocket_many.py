"""A thousand WebSockets through one worker: all answered, none mixed up, in bounded time and memory."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import replace

import pytest
from websockets.asyncio.client import ClientConnection

from authgate_fast.limits import DEFAULTS
from tests.proxy.scripted import until
from tests.proxy.tunnels import dial, next_message, websocket_stack

COUNT = 1_000
DESCRIPTORS = 4 * COUNT + 512


@pytest.fixture
def many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS) if hard != -1 else hard)
        )


def memory_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_thousand_at_once_each_get_their_own_echo(many_descriptors: None) -> None:
    limits = replace(DEFAULTS, max_upstream_connections=64)  # tunnels do not count
    async with websocket_stack(limits=limits) as stack:
        clients: list[ClientConnection] = []

        async def open_some() -> None:
            for _ in range(COUNT // 20):
                clients.append(await dial(stack, compression=None, ping_interval=None))

        begun = time.monotonic()
        await asyncio.gather(*(open_some() for _ in range(20)))
        assert len(stack.context.tunnels) == COUNT

        async def talk(number: int, client: ClientConnection) -> None:
            for turn in range(3):
                message = f"{number}/{turn}/" + "x" * (number % 500)
                await client.send(message)
                assert await next_message(client) == message

        before = memory_kib()
        for first in range(0, COUNT, 250):
            some = range(first, first + 250)
            await asyncio.gather(*(talk(number, clients[number]) for number in some))
        # Both ends and the gateway live in this process; a tunnel alone may not keep what went through it.
        assert memory_kib() - before < 60_000
        await asyncio.gather(*(client.close() for client in clients))
        await until(lambda: not stack.context.tunnels and not stack.context.connections)
        assert time.monotonic() - begun < 120
        assert stack.context.counters.tunnels == COUNT
        assert stack.reports == []
