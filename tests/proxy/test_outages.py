"""A backend that is away for a moment: who can wait for it does, and who cannot is told at once."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.limits import Limits
from tests.proxy.balanced import Backend
from tests.proxy.harness import gateway, make_snapshot
from tests.proxy.scripted import Answer, exchange, full_listener, request, reset, until


async def ask(stack: object, method: bytes = b"GET", body: bytes = b"", path: bytes = b"/p/a") -> Answer:
    reader, writer = await stack.connect()  # type: ignore[attr-defined]
    try:
        return await exchange(reader, writer, request(method, path, body=body), method)
    finally:
        writer.close()


async def away() -> Backend:
    """Return a backend that has a port and does not listen on it."""
    backend = Backend()
    await backend.start()
    await backend.stop()
    return backend


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_requests_wait_for_a_backend_that_restarts(method: bytes) -> None:
    backend = await away()
    async with gateway(make_snapshot(backend.port)) as stack:
        asking = [asyncio.ensure_future(ask(stack, method, b"abc")) for _ in range(20)]
        await until(lambda: stack.context.counters.requests == 20)
        await asyncio.sleep(0.1)  # it takes its time
        await backend.start()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 20
        assert len(backend.seen) == 20
        assert [seen.body for seen in backend.seen] == [b"abc"] * 20
        await backend.stop()


async def test_one_connect_at_a_time_asks_for_all_who_wait() -> None:
    backend = await away()
    async with gateway(make_snapshot(backend.port), Limits(connect_retry_s=30)) as stack:
        asking = [asyncio.ensure_future(ask(stack)) for _ in range(50)]
        pool = stack.context.pools.get(stack.context.snapshot.gateways["gw"].services[0].targets[0])
        await until(lambda: len(pool._parked) >= 49)
        asking += [asyncio.ensure_future(ask(stack)) for _ in range(20)]  # later ones wait with them
        await until(lambda: stack.context.counters.requests == 70)
        for _ in range(50):
            assert pool.open <= 1
            await asyncio.sleep(0.002)
        await backend.start()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
        await backend.stop()


async def test_a_backend_that_is_away_for_longer_gets_a_quick_refusal() -> None:
    loop = asyncio.get_running_loop()
    backend = await away()
    async with gateway(make_snapshot(backend.port), Limits(connect_retry_s=0.1)) as stack:
        assert (await ask(stack)).status == 502
        begun_s = loop.time()
        for _ in range(10):
            assert (await ask(stack)).status == 502
        assert loop.time() - begun_s < 0.1
        await backend.start()
        assert (await ask(stack)).status == 200
        await backend.stop()
        asking = asyncio.ensure_future(ask(stack))  # another outage: patience begins anew
        await until(lambda: stack.context.counters.requests == 13)
        await backend.start()
        assert (await asking).status == 200
        await backend.stop()


async def test_an_idempotent_request_survives_the_restart_that_cut_it() -> None:
    backend = Backend()
    await backend.start()
    async with gateway(make_snapshot(backend.port)) as stack:
        assert (await ask(stack)).status == 200
        backend.began.clear()
        hold = asyncio.Event()
        backend.respond = lambda seen: (hold.set(), b"")[1]  # type: ignore[func-returns-value]
        asking = asyncio.ensure_future(ask(stack))
        await asyncio.wait_for(hold.wait(), 5)
        await backend.stop()
        backend.respond = lambda seen: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        await backend.start()
        assert (await asking).status == 200
        await backend.stop()


async def test_a_client_that_leaves_while_it_waits_is_forgotten() -> None:
    backend = await away()
    async with gateway(make_snapshot(backend.port)) as stack:
        _, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/gone"))
        await until(lambda: stack.context.counters.requests == 1)
        reset(writer)
        await until(lambda: not stack.context.connections)
        await backend.start()
        assert (await ask(stack)).status == 200
        assert [seen.path for seen in backend.seen] == [b"/a"]
        await backend.stop()


async def test_a_connect_that_is_not_answered_is_not_waited_for_again() -> None:
    with full_listener() as port:
        async with gateway(make_snapshot(port, Limits(connect_timeout_s=0.1))) as stack:
            assert (await ask(stack)).status == 504
            pool = stack.context.pools.get(stack.context.snapshot.gateways["gw"].services[0].targets[0])
            assert not pool._parked
