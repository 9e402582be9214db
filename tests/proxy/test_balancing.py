"""Several targets over real sockets: spread, retries, ejection and return, hashing, changes of configuration."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.limits import Limits
from authgate_fast.snapshot import HealthCheck, Service, Target
from tests.proxy.balanced import balanced
from tests.proxy.harness import gateway, make_snapshot
from tests.proxy.scripted import Reply, Seen, exchange, full_listener, ok, request, reset, until, within

IDEMPOTENT = [b"GET", b"PUT", b"DELETE"]


async def test_requests_are_spread_by_weight_each_with_its_targets_own_head() -> None:
    async with balanced(weights=[1, 2, 0]) as world:
        assert await world.spread(9) == {0: 3, 1: 6}
        heads = [seen.head for seen in world.backends[1].seen]
        assert all(head.startswith(b"GET /b1/a HTTP/1.1\r\nHost: b1\r\n") for head in heads)


async def test_least_connections_avoids_a_target_that_is_slow() -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", "stall") if seen.path == b"/b0/slow" else ok(seen)

    async with balanced(2, respond=respond) as world:
        _, writer = await world.stack.connect()
        writer.write(request(b"GET", b"/p/slow"))  # the first of all goes to the first target
        await within(world.backends[0].began)
        assert await world.spread(6) == {1: 6}
        assert world.target(0)["in_flight"] == 1
        reset(writer)
        await until(lambda: world.target(0)["in_flight"] == 0)
        assert (await world.spread(6))[0] >= 3


async def test_equal_keys_go_to_one_target_and_to_the_next_while_it_is_out() -> None:
    async with balanced(method="hash", hash_field=b"x-tenant", max_failures=2, slow_start_s=0.0) as world:
        homes = {n: next(iter(await world.spread(2, b"X-Tenant: %d" % n))) for n in range(12)}
        assert len(set(homes.values())) > 1
        away = homes[0]
        await world.backends[away].stop()
        for tenant, home in homes.items():
            seen = await world.spread(2, b"X-Tenant: %d" % tenant)
            assert home == away or set(seen) == {home}


@pytest.mark.parametrize("method", [*IDEMPOTENT, b"POST"])
async def test_a_target_that_refuses_connections_costs_no_request(method: bytes) -> None:
    async with balanced(max_failures=4) as world:
        await world.backends[0].stop()
        for _ in range(12):
            assert (await world.ask(method=method, body=b"abc")).status == 200
        assert world.target(0)["state"] == "ejected"
        assert world.group()["ejections_total"] == 1
        assert sum(len(b.seen) for b in world.backends) == 12
        assert world.stack.reports == []
        told = [text for text in world.told if "gets no requests" in text]
        assert len(told) == 1
        assert f"http://127.0.0.1:{world.backends[0].port}/b0 gets no requests for" in told[0]


@pytest.mark.parametrize("method", [*IDEMPOTENT, b"POST"])
async def test_a_connection_lost_before_an_answer_is_made_up_for_only_if_that_does_no_harm(
    method: bytes,
) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", "reset") if seen.path.startswith(b"/b0") else ok(seen)

    async with balanced(respond=respond, method="round_robin") as world:
        answers = [await world.ask(method=method, body=b"abc") for _ in range(3)]
        if method == b"POST":
            assert [a.status for a in answers] == [502, 200, 200]
            assert sum(len(b.seen) for b in world.backends) == 3
        else:
            assert [a.status for a in answers] == [200] * 3
            assert sum(len(b.seen) for b in world.backends) == 4
        assert world.target(0)["failures_total"] == 1


async def test_what_has_begun_to_be_answered_is_never_sent_again() -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"HTTP/1.1 103 Early Hints\r\n\r\n", "close")

    async with balanced(respond=respond) as world:
        assert (await world.ask()).status == 502
        assert sum(len(b.seen) for b in world.backends) == 1


async def test_targets_that_do_not_answer_a_connect_are_not_tried_one_after_the_other() -> None:
    loop = asyncio.get_running_loop()
    with full_listener() as port:
        targets = tuple(Target("http", "127.0.0.1", port, b"/%d" % n, b"Host: b\r\n") for n in range(6))
        limits = Limits(connect_timeout_s=0.1)
        async with gateway(make_snapshot(0, limits, service=Service("svc", targets)), limits) as stack:
            reader, writer = await stack.connect()
            begun_s = loop.time()
            assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 504
            assert 0.2 <= loop.time() - begun_s < 0.5
            assert stack.context.counters.retries == 1


async def test_a_request_that_brings_backends_down_is_not_taken_to_all_of_them() -> None:
    async with balanced(5, respond=lambda seen: Reply(b"", "reset")) as world:
        assert (await world.ask()).status == 502
        assert sum(len(b.seen) for b in world.backends) == 3


async def test_retries_of_what_was_sent_have_a_budget() -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", "reset") if seen.path.startswith(b"/b0") else ok(seen)

    async with balanced(2, respond=respond, method="round_robin", max_failures=1_000) as world:
        statuses = [(await world.ask()).status for _ in range(300)]
        # About 150 go to the bad target first; the floor is 50, a fifth of 300 is 60, and each second adds 5.
        assert 20 <= statuses.count(502) <= 60


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "close"),
        Reply(b"nonsense\r\n\r\n", "close"),
        Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "close"),
    ],
    ids=["truncated", "not HTTP", "bad chunk"],
)
async def test_a_target_whose_answers_are_broken_is_ejected(reply: Reply) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return reply if seen.path.startswith(b"/b0") else ok(seen)

    async with balanced(2, respond=respond, max_failures=3) as world:
        for _ in range(6):
            reader, writer = await world.stack.connect()
            writer.write(request(b"GET", b"/p/a", close=True))
            await asyncio.wait_for(reader.read(-1), 5)
        assert world.target(0)["state"] == "ejected"
        assert await world.spread(4) == {1: 4}


async def test_a_target_that_does_not_answer_in_time_is_ejected(fast_ticks: None) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", "stall") if seen.path.startswith(b"/b0") else ok(seen)

    limits = Limits(first_byte_timeout_s=0.05)
    async with balanced(2, respond=respond, limits=limits, max_failures=1) as world:
        assert (await world.ask()).status == 504
        assert await world.spread(4) == {1: 4}


async def test_statuses_count_as_failures_where_the_service_says_so() -> None:
    def respond(seen: Seen) -> bytes:
        if seen.path.startswith(b"/b0"):
            return b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
        return ok(seen)

    async with balanced(2, respond=respond, max_failures=2, failure_statuses=frozenset({503})) as world:
        statuses = [(await world.ask()).status for _ in range(10)]
        assert statuses.count(503) == 2  # passed on as they are, until it is out
        assert world.target(0)["state"] == "ejected"
    async with balanced(2, respond=respond, max_failures=2) as world:
        assert [(await world.ask()).status for _ in range(10)].count(503) == 5


async def test_a_client_that_errs_or_leaves_is_no_failure_of_the_target() -> None:
    async with balanced(
        1, respond=lambda seen: Reply(b"", "stall"), max_connections=9, max_failures=1
    ) as world:
        _, writer = await world.stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await within(world.backends[0].began)
        reset(writer)
        await until(lambda: world.target(0)["in_flight"] == 0)
        reader, writer = await world.stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Transfer-Encoding: chunked") + b"zz\r\n")
        await asyncio.wait_for(reader.readuntil(b"400"), 5)
        await until(lambda: world.target(0)["in_flight"] == 0)
        assert world.target(0)["failures_total"] == 0


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_kept_connection_that_was_stale_is_no_failure_of_the_target(method: bytes) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return Reply(b"", "reset") if seen.turn > 1 else ok(seen)

    async with balanced(1, respond=respond, max_connections=9) as world:
        assert (await world.ask()).status == 200
        assert (await world.ask(method=method)).status == (200 if method == b"GET" else 502)
        assert world.target(0)["failures_total"] == 0


async def test_a_target_comes_back_by_one_trial_and_then_slowly(fast_ticks: None) -> None:
    async with balanced(2, max_failures=2, eject_s=0.1, slow_start_s=60.0, method="round_robin") as world:
        await world.backends[0].stop()
        assert await world.spread(4) == {1: 4}
        await world.backends[0].start()
        ((_, group),) = world.stack.context.groups.items()
        await until(lambda: group.members[0].is_due(world.stack.context.now_s))
        assert (await world.spread(1)) == {0: 1}
        assert world.target(0)["state"] == "slow_start"
        assert (await world.spread(20))[0] <= 4
        assert [text.rpartition("/b0 ")[2] for text in world.told][1:] == ["is back in use: it answered"]


async def test_when_all_are_out_all_are_used(fast_ticks: None) -> None:
    async with balanced(2, max_failures=1, eject_s=60.0, limits=Limits(connect_retry_s=0.05)) as world:
        for each in world.backends:
            await each.stop()
        assert (await world.ask()).status == 502
        assert [world.target(at)["state"] for at in (0, 1)] == ["ejected", "ejected"]
        assert world.told[-1].endswith("no target is up, so all are used")
        await world.backends[1].start()
        assert (await world.spread(6)) == {1: 6}
        assert world.target(1)["state"] == "up"
        assert world.target(0)["state"] == "ejected"


async def test_what_is_known_of_targets_survives_a_change_and_nothing_in_flight_is_lost() -> None:
    async with balanced(3, max_failures=2, eject_s=60.0) as world:
        await world.backends[0].stop()
        await world.spread(4)
        assert world.target(0)["state"] == "ejected"
        slow = world.backends[1]
        slow.respond = lambda seen: Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "stall")
        world.backends[2].respond = slow.respond
        slow.began.clear()
        reader, writer = await world.stack.connect()
        writer.write(request(b"GET", b"/p/slow"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\nab"), 5)
        idle_before = world.stack.context.pools.counts()
        world.use(world.snapshot(only=[0, 2], weights=[5, 1, 1]))
        assert world.target(0)["state"] == "ejected"
        assert world.target(0)["weight"] == 5
        assert world.stack.context.pools.counts() == idle_before
        world.backends[2].respond = ok
        assert await world.spread(4) == {2: 4}
        reset(writer)
        await until(lambda: world.group()["in_flight"] == 0)


async def test_a_service_that_is_gone_is_forgotten_when_its_last_request_has_ended() -> None:
    async with balanced(2, respond=lambda seen: Reply(b"", "stall")) as world:
        _, writer = await world.stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        await within(world.backends[0].began)
        groups = world.stack.context.groups
        single = world.snapshot(only=[0])
        world.use(single)
        assert len(groups.status()) == 1
        reset(writer)
        await until(lambda: world.group()["in_flight"] == 0)
        world.use(single)
        assert groups.status() == {}


async def test_a_gateway_that_comes_back_as_it_was_is_watched_over_again() -> None:
    async with balanced(2) as world:
        before = world.stack.context.snapshot
        world.use(world.snapshot(only=[0]))
        assert world.stack.context.groups.status() == {}
        world.use(before)
        await world.ask()
        assert world.group()["requests_total"] == 1


async def test_an_upgraded_connection_keeps_its_place_until_its_end() -> None:
    switch = Reply(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", "stall")
    upgrades = frozenset({b"echo"})
    async with balanced(2, respond=lambda seen: switch, upgrades=upgrades) as world:
        reader, writer = await world.stack.connect()
        writer.write(request(b"GET", b"/p/a", b"Connection: upgrade", b"Upgrade: echo"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert world.group()["in_flight"] == 1
        assert world.target(0)["in_flight"] == 1
        reset(writer)
        await until(lambda: world.group()["in_flight"] == 0)
        assert world.target(0)["in_flight"] == 0


# --- active checks ------------------------------------------------------------------------------------


async def test_a_target_that_fails_its_checks_gets_nothing_until_it_passes_them() -> None:
    well = True

    def respond(seen: Seen) -> bytes:
        if seen.path == b"/healthz?deep":
            assert b"Host: b0\r\n" in seen.head or b"Host: b1\r\n" in seen.head
            assert b"User-Agent: authgate-health-check/" in seen.head
            is_first = b"Host: b0\r\n" in seen.head
            return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % (200 if well or not is_first else 500)
        return ok(seen)

    check = HealthCheck(b"/healthz?deep", 0.02, 1.0, 2, 2, None, b"")
    async with balanced(2, respond=respond, check=check, slow_start_s=0.0) as world:
        await until(lambda: world.target(0).get("last_check") == "good (200)")
        assert await world.spread(4) == {0: 2, 1: 2}
        well = False
        await until(lambda: world.target(0)["state"] == "checked_down")
        assert await world.spread(4) == {1: 4}
        assert world.target(0)["last_check"] == "500"
        well = True
        await until(lambda: world.target(0)["state"] == "up")
        assert await world.spread(4) == {0: 2, 1: 2}
        assert len(world.told) == 2
        assert world.stack.context.counters.requests == 12  # a check is no request


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(b"", "close"), "the connection was closed without an answer"),
        (Reply(b"HTTP/2 200\r\n\r\n"), "no HTTP status line"),
        (Reply(b"HTTP/1.1 200 OK\r\n", "stall"), "no answer within 0.1 s"),
        (Reply(b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 204 OK\r\n\r\n"), "204"),
        (Reply(b"A" * 20_000, "stall"), "a head without an end"),
        (Reply(b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\n\r\n"), "301"),
    ],
    ids=["closed", "not HTTP", "slow", "interim", "endless", "redirect"],
)
async def test_a_check_comes_to_one_status_or_says_why_not(reply: Reply, found: str) -> None:
    check = HealthCheck(b"/h", 0.02, 0.1, 1, 1, frozenset({200}), b"Host: health\r\n")
    async with balanced(1, respond=lambda seen: reply, check=check) as world:
        await until(lambda: bool(world.target(0).get("last_check")))
        assert world.target(0)["last_check"] == found
        assert world.target(0)["state"] == "checked_down"
        assert all(b"Host: health\r\n" in seen.head for seen in world.backends[0].seen)


async def test_checks_end_with_the_service_and_go_on_through_other_changes() -> None:
    check = HealthCheck(b"/h", 0.02, 1.0, 1, 1, None, b"")
    async with balanced(2, check=check) as world:
        first, second = world.backends
        await until(lambda: len(first.seen) > 1 and len(second.seen) > 1)
        tasks = set(asyncio.all_tasks())
        world.use(world.snapshot(check=check, weights=[3, 1]))
        assert {task for task in asyncio.all_tasks() if task.get_name() == "health-check"} <= tasks
        world.use(world.snapshot(check=check, only=[0]))
        await until(lambda: len([t for t in asyncio.all_tasks() if t.get_name() == "health-check"]) == 1)
        world.use(world.snapshot())
        await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "health-check"])


# --- max_connections and the queue --------------------------------------------------------------------


async def test_requests_over_the_limit_wait_in_order_and_their_bodies_are_not_read(fast_ticks: None) -> None:
    async with balanced(2, max_connections=1, max_queue=3) as world:
        for each in world.backends:
            each.respond = lambda seen: Reply(b"", "stall") if seen.path.endswith(b"/0") else ok(seen)
        _, first = await world.stack.connect()
        first.write(request(b"GET", b"/p/0"))
        await until(lambda: world.group()["in_flight"] == 1)
        clients = []
        for number in (1, 2, 3):
            reader, writer = await world.stack.connect()
            writer.write(request(b"POST", b"/p/%d" % number, body=b"x" * 10))
            await until(lambda wanted=number: world.group()["waiting"] == wanted)
            clients.append((reader, writer))
        refused = await world.ask(path=b"/p/4")
        assert (refused.status, refused.get(b"retry-after")) == (503, b"1")
        assert b"overloaded" in refused.body
        reset(clients[1][1])
        await until(lambda: world.group()["waiting"] == 2)
        reset(first)
        for reader, _ in (clients[0], clients[2]):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 200")
        served = [s.path[-2:] for b in world.backends for s in b.seen]
        assert sorted(served) == [b"/0", b"/1", b"/3"]
        assert world.group()["in_flight"] == 0
        assert (world.group()["queued_total"], world.group()["queue_full_total"]) == (3, 1)


async def test_an_upload_that_waits_is_not_read() -> None:
    async with balanced(1, respond=lambda seen: Reply(b"", "stall"), max_connections=1) as world:
        _, first = await world.stack.connect()
        first.write(request(b"GET", b"/p/a"))
        await until(lambda: world.group()["in_flight"] == 1)
        _, second = await world.stack.connect()
        second.write(request(b"POST", b"/p/a", b"Content-Length: 9000000") + b"x" * 1_000)
        await until(lambda: world.group()["waiting"] == 1)
        assert [c.read_paused for c in world.stack.context.connections].count(True) == 1


async def test_who_waits_for_longer_than_the_queue_timeout_gets_503(fast_ticks: None) -> None:
    stall = Reply(b"", "stall")
    async with balanced(1, respond=lambda seen: stall, max_connections=1, queue_timeout_s=0.05) as world:
        _, first = await world.stack.connect()
        first.write(request(b"GET", b"/p/a"))
        await until(lambda: world.group()["in_flight"] == 1)
        answer = await world.ask()
        assert (answer.status, answer.get(b"retry-after")) == (503, b"1")
        assert len(world.backends[0].seen) == 1
        assert world.group()["queue_timeouts_total"] == 1


async def test_no_more_requests_than_the_limit_are_ever_in_flight() -> None:
    most = 0

    def respond(seen: Seen) -> bytes:
        nonlocal most
        most = max(most, int(world.group()["in_flight"]))  # type: ignore[call-overload]
        return ok(seen)

    async with balanced(2, respond=respond, max_connections=3, max_queue=100) as world:
        answers = await asyncio.gather(*[world.ask(path=b"/p/%d" % n) for n in range(60)])
        assert [a.status for a in answers] == [200] * 60
        assert most == 3
        assert world.group()["in_flight"] == 0


async def test_a_pipelining_client_does_not_jump_the_queue() -> None:
    order: list[bytes] = []

    def respond(seen: Seen) -> bytes:
        order.append(seen.path[-1:])
        return ok(seen)

    async with balanced(1, max_connections=1) as world:
        stall = world.backends[0]
        stall.respond = lambda seen: Reply(b"", "stall")
        _, first = await world.stack.connect()
        first.write(request(b"GET", b"/p/a"))
        await until(lambda: world.group()["in_flight"] == 1)
        stall.respond = respond
        greedy_reader, greedy = await world.stack.connect()
        greedy.write(request(b"GET", b"/p/1") + request(b"GET", b"/p/2"))
        await until(lambda: world.group()["waiting"] == 1)
        patient_reader, patient = await world.stack.connect()
        patient.write(request(b"GET", b"/p/3"))
        await until(lambda: world.group()["waiting"] == 2)
        reset(first)
        await asyncio.wait_for(patient_reader.readuntil(b"/3"), 5)
        await asyncio.wait_for(greedy_reader.readuntil(b"/b0/2"), 5)
        assert order == [b"1", b"3", b"2"]


async def test_an_expectation_is_answered_only_when_there_is_a_place() -> None:
    async with balanced(1, max_connections=1) as world:
        world.backends[0].respond = lambda seen: (
            Reply(b"", "stall") if seen.path.endswith(b"/slow") else ok(seen)
        )
        _, first = await world.stack.connect()
        first.write(request(b"GET", b"/p/slow"))
        await until(lambda: world.group()["in_flight"] == 1)
        reader, writer = await world.stack.connect()
        writer.write(request(b"POST", b"/p/up", b"Content-Length: 3", b"Expect: 100-continue"))
        await until(lambda: world.group()["waiting"] == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.05)
        reset(first)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 100")
        writer.write(b"abc")
        assert (await exchange(reader, writer, b"")).status == 200
