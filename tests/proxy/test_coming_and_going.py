"""Clients and backends that come and go as they like; `tests/fuzz` is about what they say."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.proxy.harness import Stack
from tests.proxy.scripted import Reply, Seen, request, reset, running, until

SEEDS = [
    request(b"GET", b"/p/a?q=1", b"X-A: 1", b"Cookie: a=b; c=d"),
    request(b"POST", b"/p/b", body=b"0123456789"),
    request(b"POST", b"/p/c", b"Transfer-Encoding: chunked", body=b"5\r\n01234\r\n0\r\n\r\n"),
    request(b"HEAD", b"/p/e", b"Expect: 100-continue"),
    b"GET http://a/p/f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE /p/g HTTP/1.0\r\nHost: a\r\n\r\n",
]


@pytest.mark.parametrize("seed", range(4))
async def test_clients_and_backends_that_come_and_go_at_random_leave_nothing(
    seed: int, fast_ticks: None
) -> None:
    random_ = random.Random(seed)

    def respond(seen: Seen) -> Reply | bytes:
        body = b"y" * random_.choice([0, 1, 5_000, 400_000])
        data = random_.choice(
            [
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
                b"HTTP/1.1 200 OK\r\n\r\n" + body,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
                % (len(body) + 1, body + b"z"),
                b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
                b"rubbish\r\n\r\n",
            ]
        )
        if random_.random() < 0.3:
            data = data[: random_.randrange(len(data))]
        return Reply(data, random_.choice(["keep", "keep", "close", "reset", "half_close", "stall"]))

    async def client(stack: Stack) -> None:
        for _ in range(8):
            reader, writer = await stack.connect()
            data = b"".join(random_.choice(SEEDS) for _ in range(random_.randrange(1, 4)))
            if random_.random() < 0.3:
                data = data[: random_.randrange(len(data))]
            at = random_.randrange(len(data) + 1)
            for part in (data[:at], data[at:]):
                writer.write(part)
                for _ in range(random_.randrange(4)):
                    await asyncio.sleep(0)
            if random_.random() < 0.5:
                try:
                    await asyncio.wait_for(reader.read(random_.choice([1, 100_000])), 0.05)
                except (TimeoutError, ConnectionError):
                    pass
            random_.choice([reset, asyncio.StreamWriter.close])(writer)

    async with running(respond) as (stack, _):
        await asyncio.gather(*(client(stack) for _ in range(30)))
        context = stack.context
        await until(lambda: not context.connections)
        await until(lambda: all(c["open"] == c["idle"] for c in context.pools.counts().values()))
        assert "internal_error" not in {reason for reason, _ in stack.reports}
