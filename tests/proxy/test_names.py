"""Names of targets: resolved on their own, all addresses used, link-local ones never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.proxy.names import NEXT_ADDRESS_AFTER_S, race
from authgate_fast.snapshot import Service, Target
from tests.proxy.balanced import Backend
from tests.proxy.harness import Stack, gateway, make_snapshot
from tests.proxy.scripted import Answer, exchange, full_listener, request, until

HOST = "backend.test"


class Dns:
    """What names lead to; ``asked`` counts look-ups. An error is raised."""

    def __init__(self, *addresses: str) -> None:
        self.answer: list[str] | OSError = list(addresses)
        self.asked = 0
        self.held: asyncio.Event | None = None

    async def __call__(self, host: str) -> list[str]:
        assert host == HOST
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        if isinstance(self.answer, OSError):
            raise self.answer
        return list(self.answer)


@asynccontextmanager
async def named(
    dns: Dns, hosts: list[str], limits: Limits = DEFAULTS
) -> AsyncIterator[tuple[Stack, list[Backend]]]:
    """Run a gateway whose one target is `HOST`, and a backend on the same port of each of `hosts`."""
    async with AsyncExitStack() as everything:
        backends: list[Backend] = []
        for host in hosts:
            backends.append(Backend(host=host, port=backends[0].port if backends else 0))
            await backends[-1].start()
            everything.push_async_callback(backends[-1].stop)
        port = backends[0].port if backends else 9
        target = Target("http", HOST, port, b"", b"Host: b\r\n")
        snapshot = make_snapshot(0, limits, service=Service("svc", (target,)))
        stack = await everything.enter_async_context(gateway(snapshot, limits))
        stack.context.pools.names.resolve = dns
        yield stack, backends


async def ask(stack: Stack, path: bytes = b"/p/a") -> Answer:
    reader, writer = await stack.connect()
    return await exchange(reader, writer, request(b"GET", path, close=True))


async def test_a_name_is_asked_about_once_and_its_addresses_are_used_in_turn() -> None:
    dns = Dns("127.0.0.2", "127.0.0.3", "127.0.0.4")
    limits = Limits(max_idle_upstream=1)
    async with named(dns, ["127.0.0.2", "127.0.0.3", "127.0.0.4"], limits) as (stack, backends):
        for each in backends:
            each.respond = lambda seen: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        for _ in range(6):
            assert (await ask(stack)).status == 200
        assert [len(b.seen) for b in backends] == [2, 2, 2]
        assert dns.asked == 1


async def test_requests_that_need_the_same_name_share_one_look_up() -> None:
    dns = Dns("127.0.0.2")
    dns.held = asyncio.Event()
    async with named(dns, ["127.0.0.2"]) as (stack, _):
        asking = [asyncio.ensure_future(ask(stack)) for _ in range(5)]
        await until(lambda: stack.context.counters.requests == 5)
        dns.held.set()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 5
        assert dns.asked == 1


async def test_an_address_that_does_not_answer_is_passed_over() -> None:
    dns = Dns("127.0.0.3", "127.0.0.2")
    async with named(dns, ["127.0.0.2"]) as (stack, backends):
        for _ in range(3):
            assert (await ask(stack)).status == 200
        assert len(backends[0].seen) == 3


async def test_a_name_that_leads_elsewhere_takes_the_traffic_along(fast_ticks: None) -> None:
    dns = Dns("127.0.0.2")
    async with named(dns, ["127.0.0.2", "127.0.0.3"], Limits(dns_refresh_s=0.05)) as (stack, backends):
        old, new = backends
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/a"))
        old.respond = lambda seen: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"
        writer.write(request(b"GET", b"/p/a"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\nab"), 5)  # in flight while the name changes
        dns.answer = ["127.0.0.3"]
        await until(lambda: stack.context.pools.names.status() == {HOST: ["127.0.0.3"]})
        assert (await ask(stack)).status == 200
        assert (len(old.seen), len(new.seen)) == (2, 1)
        (server_side,) = old._writers
        server_side.write(b"cde")
        await asyncio.wait_for(reader.readexactly(3), 5)
        assert (await exchange(reader, writer, request(b"GET", b"/p/b"))).status == 200
        assert (len(old.seen), len(new.seen)) == (2, 2)
        await until(lambda: old.open == 0)


async def test_idle_connections_to_an_address_that_stays_are_kept(fast_ticks: None) -> None:
    dns = Dns("127.0.0.2", "127.0.0.3")
    async with named(dns, ["127.0.0.2", "127.0.0.3"], Limits(dns_refresh_s=0.05)) as (stack, backends):
        await ask(stack)
        stays = next(b for b in backends if b.seen)
        dns.answer = [stays.host]
        await until(lambda: stack.context.pools.names.status() == {HOST: [stays.host]})
        for _ in range(3):
            await ask(stack)
        assert stays.connections == 1


async def test_a_look_up_that_fails_keeps_the_last_good_addresses(fast_ticks: None) -> None:
    dns = Dns("127.0.0.2")
    async with named(dns, ["127.0.0.2"], Limits(dns_refresh_s=0.05)) as (stack, backends):
        await ask(stack)
        dns.answer = OSError("no resolver")
        before = dns.asked
        await until(lambda: dns.asked > before + 1)
        await backends[0].stop()
        await backends[0].start()
        assert (await ask(stack)).status == 200


async def test_a_name_is_not_asked_about_again_while_the_answer_is_awaited(fast_ticks: None) -> None:
    dns = Dns("127.0.0.2")
    async with named(dns, ["127.0.0.2"], Limits(dns_refresh_s=0.05)) as (stack, _):
        await ask(stack)
        dns.held = asyncio.Event()
        before = dns.asked
        await until(lambda: dns.asked > before)
        await asyncio.sleep(0.3)  # several times the refresh
        assert dns.asked == before + 1
        assert (await ask(stack)).status == 200  # from what is known
        dns.held.set()
        await until(lambda: dns.asked > before + 1)


async def test_a_name_that_is_not_known_is_502_and_not_asked_about_for_each_request() -> None:
    dns = Dns()
    dns.answer = OSError("unknown")
    async with named(dns, []) as (stack, _):
        for _ in range(5):
            assert (await ask(stack)).status == 502
        assert dns.asked == 1
        assert "the name cannot be resolved (unknown)" in stack.reports[0][1]


async def test_a_name_without_traffic_is_no_longer_asked_about(fast_ticks: None) -> None:
    dns = Dns("127.0.0.2")
    async with named(dns, ["127.0.0.2"], Limits(dns_refresh_s=0.05)) as (stack, _):
        await ask(stack)
        names = stack.context.pools.names
        names._by_host[HOST].used_s -= 61  # a minute passes
        stack.context.pools.get(next(iter(stack.context.snapshot.gateways["gw"].services)).targets[0]).close()
        await until(lambda: names.status() == {})


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254"])
async def test_a_name_that_leads_to_a_link_local_address_is_refused_at_the_connect(address: str) -> None:
    async with named(Dns(address), []) as (stack, _):
        assert (await ask(stack)).status == 502
        assert "link-local or metadata address" in stack.reports[0][1]


async def test_the_link_local_address_of_several_is_passed_over() -> None:
    async with named(Dns("169.254.169.254", "127.0.0.2"), ["127.0.0.2"]) as (stack, _):
        for _ in range(3):
            assert (await ask(stack)).status == 200


async def test_a_service_may_allow_link_local_addresses() -> None:
    async with named(Dns("169.254.0.1"), []) as (stack, _):
        names = stack.context.pools.names
        assert await names.addresses(HOST, allow_link_local=True) == ["169.254.0.1"]
        with pytest.raises(OSError, match="allow_link_local is not set"):
            await names.addresses(HOST, allow_link_local=False)


# --- racing -------------------------------------------------------------------------------------------


async def test_the_next_address_is_tried_at_once_after_a_failure_and_soon_after_silence() -> None:
    loop = asyncio.get_running_loop()
    begun: list[tuple[str, float]] = []
    start_s = loop.time()

    async def connect(address: str) -> str:
        begun.append((address, loop.time() - start_s))
        if address == "refuses":
            raise ConnectionRefusedError
        if address == "silent":
            await asyncio.sleep(10)
        return address

    assert await race(["refuses", "silent", "good"], connect, lambda _: None) == "good"
    assert [name for name, _ in begun] == ["refuses", "silent", "good"]
    assert begun[1][1] < NEXT_ADDRESS_AFTER_S / 2
    assert begun[2][1] >= NEXT_ADDRESS_AFTER_S


async def test_all_that_fail_fail_with_the_last_error_and_a_late_winner_is_given_up() -> None:
    async def refuse(address: str) -> str:
        raise ConnectionRefusedError(address)

    with pytest.raises(ConnectionRefusedError, match="b"):
        await race(["a", "b"], refuse, lambda _: None)

    given_up: list[str] = []

    async def stubborn(address: str) -> str:
        try:
            await asyncio.sleep(NEXT_ADDRESS_AFTER_S * 1.2 if address == "b" else 10)
        except asyncio.CancelledError:
            return address  # it was connected when it heard that it is too late
        return address

    assert await race(["a", "b"], stubborn, given_up.append) == "b"
    assert given_up == ["a"]


async def test_a_silent_address_costs_a_quarter_of_a_second_and_no_more() -> None:
    with full_listener() as port:
        target = Backend(host="127.0.0.2", port=port)
        await target.start()
        try:
            dns = Dns("127.0.0.2", "127.0.0.1")
            service = Service("svc", (Target("http", HOST, port, b"", b"Host: b\r\n"),))
            async with gateway(make_snapshot(0, service=service)) as stack:
                stack.context.pools.names.resolve = dns
                for _ in range(2):  # one of them begins with the silent one
                    assert (await ask(stack)).status == 200
        finally:
            await target.stop()
