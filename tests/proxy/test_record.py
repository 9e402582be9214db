"""Each request is counted and logged exactly once, when it has ended, however it ends."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from authgate_fast.limits import DEFAULTS, Limits, with_settings
from authgate_fast.proxy.access_line import Clock, Entry, json_line
from authgate_fast.snapshot import Route
from authgate_fast.tally import ACCEPTED, AUTH_CODES, FORBIDDEN, INVALID, MISSING, NO_CHECK
from tests.proxy.harness import BOUND_S, KEY, Handler, Stack, answer, backend, echo, gateway, make_snapshot

DIGEST = hashlib.sha256(KEY.encode()).digest()


class Log(list[Entry]):
    """The entries so far."""

    __call__ = list.append

    @property
    def only(self) -> Entry:
        (entry,) = self
        return entry


@asynccontextmanager
async def recorded(handler: Handler = echo, limits: Limits = DEFAULTS) -> AsyncIterator[tuple[Stack, Log]]:
    async with (
        backend(handler) as port,
        gateway(make_snapshot(port, limits, key_digest=DIGEST), limits) as stack,
    ):
        log = Log()
        stack.context.recorder.log = log
        yield stack, log


def counts(stack: Stack) -> dict[tuple[str, int, int], int]:
    """Return the counts by (route, status class, auth result)."""
    return {
        (tally.route, key // AUTH_CODES, key % AUTH_CODES): count
        for tally in stack.context.recorder.tallies.values()
        for key, count in tally.counts().items()
    }


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not done():  # noqa: ASYNC110  # nobody tells of an entry
            await asyncio.sleep(0.005)


def get(path: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    return b"".join(
        (method, b" ", path, b" HTTP/1.1\r\nHost: a\r\n", *(line + b"\r\n" for line in lines), b"\r\n")
    )


CLOSE = b"Connection: close"
WITH_KEY = b"X-Api-Key: " + KEY.encode()
CASES = {
    "PUBLIC": (get(b"/p/1?token=secret", CLOSE), ("p", 2, NO_CHECK), 200, b"complete", b""),
    "SECURE with a key": (get(b"/s/1", WITH_KEY, CLOSE), ("s", 2, ACCEPTED), 200, b"complete", b""),
    "HEAD": (get(b"/p/1", CLOSE, method=b"HEAD"), ("p", 2, NO_CHECK), 200, b"complete", b""),
    "no key": (get(b"/s/1", CLOSE), ("s", 4, MISSING), 401, b"refused", b"credentials_missing"),
    "a wrong key": (get(b"/s/1", b"X-Api-Key: agk_wrong", CLOSE), ("s", 4, INVALID), 401, b"refused", b"credentials_invalid"),
    "no route": (get(b"/nowhere", CLOSE), ("", 4, NO_CHECK), 404, b"refused", b"route_not_found"),
    "a path in doubt": (get(b"/p/../s", CLOSE), ("", 4, NO_CHECK), 400, b"refused", b"invalid_path"),
    "no HTTP": (b"\x16\x03\x01\x02\r\n\r\n", ("", 4, NO_CHECK), 400, b"refused", b"bad_request"),
    "OPTIONS *": (get(b"*", CLOSE, method=b"OPTIONS"), ("", 2, NO_CHECK), 204, b"complete", b""),
    "bad chunks": (
        get(b"/p/1", b"Transfer-Encoding: chunked", method=b"POST") + b"x\r\n",
        ("p", 4, NO_CHECK), 400, b"refused", b"bad_request",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_is_counted_and_logged_once(case: str) -> None:
    request, key, status, outcome, code = CASES[case]
    async with recorded() as (stack, log):
        raw = await stack.talk(request)
        await until(lambda: bool(log))
        entry = log.only
        assert counts(stack) == {key: 1}
        assert (entry.status, entry.outcome, entry.code) == (status, outcome, code)
        assert entry.response_bytes == len(raw)
        assert stack.context.recorder.response_bytes == len(raw)
        assert stack.context.recorder.request_bytes == entry.request_bytes
        assert entry.request_id in raw
        assert b"secret" not in json_line(entry, Clock())


async def test_what_is_known_of_a_request_stands_in_its_entry() -> None:
    async with recorded() as (stack, log):
        await stack.talk(get(b"/s/a%20b?q=1", WITH_KEY, b"User-Agent: curl/8", b"Referer: /x", CLOSE))
        entry = log.only
        assert (entry.gateway, entry.route, entry.service) == ("gw", "s", "svc")
        assert (entry.method, entry.host, entry.path) == (b"GET", b"a", b"/s/a%20b")
        assert (entry.consumer, entry.credential) == ("app", "default")
        assert (entry.agent, entry.referrer, entry.protocol) == (b"curl/8", b"/x", b"HTTP/1.1")
        assert entry.client == "127.0.0.1"
        assert entry.upstream.startswith("http://127.0.0.1:")
        assert 0 < entry.upstream_s <= entry.duration_s < BOUND_S
        assert entry.retries == 0
        assert abs(entry.wall_s - time.time()) < BOUND_S


@pytest.mark.parametrize(
    ("body", "lines"),
    [(b"12345", b"Content-Length: 5"), (b"5\r\n12345\r\n0\r\n\r\n", b"Transfer-Encoding: chunked")],
)
async def test_the_bytes_of_a_body_count(body: bytes, lines: bytes) -> None:
    head = get(b"/p/1", lines, CLOSE, method=b"POST")
    async with recorded() as (stack, log):
        await stack.talk(head + body)
        assert log.only.request_bytes == len(head) + 5


async def test_each_connection_is_logged_with_its_own_user_agent_however_often_it_asks() -> None:
    agents = [b"one/1", b"two/2"]
    async with recorded() as (stack, log):
        connections = [await stack.connect() for _ in agents]
        for _ in range(4):
            for (reader, writer), agent in zip(connections, agents, strict=True):
                writer.write(get(b"/p/1", b"User-Agent: " + agent, b"Referer: https://a/" + agent))
                async with asyncio.timeout(BOUND_S):
                    await reader.readuntil(b"\r\n\r\n")
        await until(lambda: len(log) == 8)
    assert sorted(entry.agent for entry in log) == sorted(agents * 4)
    assert all(entry.referrer == b"https://a/" + entry.agent for entry in log)


async def test_pipelined_requests_have_their_own_entries_in_order() -> None:
    async with recorded() as (stack, log):
        requests = [get(b"/p/%d" % number) for number in range(5)]
        raw = await stack.talk(b"".join((*requests, get(b"/p/5", CLOSE))))
        assert [entry.path for entry in log] == [b"/p/%d" % number for number in range(6)]
        assert sum(entry.response_bytes for entry in log) == len(raw)
        assert counts(stack) == {("p", 2, NO_CHECK): 6}


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")


async def test_a_response_that_breaks_off_is_its_status_and_broken() -> None:
    async with recorded(broken) as (stack, log):
        await stack.talk(get(b"/p/1"))
        assert (log.only.status, log.only.outcome) == (200, b"upstream_broken")
        assert counts(stack) == {("p", 2, NO_CHECK): 1}


async def test_a_backend_that_speaks_no_http_is_a_refusal_with_its_route() -> None:
    async with recorded(nonsense) as (stack, log):
        await stack.talk(get(b"/p/1", CLOSE))
        entry = log.only
        assert (entry.status, entry.code, entry.route) == (502, b"upstream_protocol_error", "p")
        assert entry.upstream_s == -1.0
        assert counts(stack) == {("p", 5, NO_CHECK): 1}


def waiting(begin: bytes) -> tuple[Handler, Callable[[], Awaitable[object]]]:
    """Return a backend that begins with `begin` and says no more, and what waits until a request is there."""
    there = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        there.set()
        await reader.read()

    return handler, there.wait


@pytest.mark.parametrize(
    ("begin", "status", "key"),
    [
        (b"", 499, ("p", 4, NO_CHECK)),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n1", 201, ("p", 2, NO_CHECK)),
    ],
)
async def test_a_client_that_leaves_is_counted_with_what_it_had(
    begin: bytes, status: int, key: tuple[str, int, int]
) -> None:
    handler, there = waiting(begin)
    async with recorded(handler) as (stack, log):
        reader, writer = await stack.connect()
        writer.write(get(b"/p/1"))
        await there()
        if begin:
            await reader.read(1)
        writer.transport.abort()
        await until(lambda: bool(log))
        assert (log.only.status, log.only.outcome) == (status, b"client_closed")
        assert counts(stack) == {key: 1}


async def test_a_head_that_never_ends_is_an_entry_too() -> None:
    limits = with_settings(DEFAULTS, ["head_timeout_s=0.1"])
    async with recorded(limits=limits) as (stack, log):
        raw = await stack.talk(b"GET /p/1 HTTP/1.1\r\n")
        entry = log.only
        assert (entry.status, entry.code, entry.method) == (408, b"request_timeout", b"")
        assert entry.response_bytes == len(raw)


async def test_a_retry_shows() -> None:
    seen = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            seen += 1
            if seen == 2:
                return  # this connection looked alive and is not
            writer.write(answer())

    async with recorded(once) as (stack, log):
        await stack.talk(get(b"/p/1") + get(b"/p/2", CLOSE))
        assert [entry.retries for entry in log] == [0, 1]
        assert counts(stack) == {("p", 2, NO_CHECK): 2}


async def test_durations_are_kept_by_service_and_live_on_in_the_next_snapshot() -> None:
    async with backend(echo) as port, gateway(make_snapshot(port)) as stack:
        for _ in range(2):
            await stack.talk(get(b"/p/1", CLOSE))
            stack.context.snapshot = make_snapshot(port)
        recorder = stack.context.recorder
        (times,) = recorder.services.values()
        assert (times.gateway, times.service) == ("gw", "svc")
        assert sum(times.total.counts()) == sum(times.upstream.counts()) == 2
        assert 0 < times.upstream.sum_s <= times.total.sum_s < BOUND_S
        assert counts(stack) == {("p", 2, NO_CHECK): 2}


async def test_a_refused_role_is_forbidden() -> None:
    async with backend(echo) as port:
        snapshot = make_snapshot(port, key_digest=DIGEST)
        leaf = snapshot.default.trie.match([b"s", b"1"])  # type: ignore[union-attr]
        assert leaf is not None
        plain = leaf.any_route
        assert plain is not None
        leaf.any_route = Route(
            plain.name,
            plain.method,
            plain.public_path,
            plain.secure,
            plain.service_name,
            plain.service,
            plain.pieces,
            plain.settings,
            roles=frozenset({"admin"}),
        )
        async with gateway(snapshot) as stack:
            await stack.talk(get(b"/s/1", WITH_KEY, CLOSE))
            assert counts(stack) == {("s", 4, FORBIDDEN): 1}
