"""A request goes out again only where that does no harm; a backend that counts is the witness."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.http.request import IDEMPOTENT, METHODS
from authgate_fast.limits import Limits
from authgate_fast.proxy.retry import (
    ANSWERED,
    CONNECTING,
    MAX_SENDS,
    MAX_SENDS_IN_ALL,
    SENT,
    may_retry,
)
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import (
    Recorder,
    Reply,
    Seen,
    a_target,
    exchange,
    ok,
    read_answer,
    request,
    running,
    until,
)

# --- the function alone -------------------------------------------------------------------------------------

FACTS = st.fixed_dictionaries(
    {
        "reused": st.booleans(),
        "replayable": st.booleans(),
        "sends": st.integers(0, 5),
        "other_targets": st.integers(0, 3),
    }
)
PHASES = (CONNECTING, SENT, ANSWERED)


@given(st.sampled_from(sorted(METHODS)), st.sampled_from(PHASES), FACTS)
def test_a_retry_is_bounded_harmless_and_has_a_chance(
    method: bytes, phase: int, facts: dict[str, int]
) -> None:
    if not may_retry(method, phase, **facts):  # type: ignore[arg-type]
        return
    assert phase == CONNECTING or facts["sends"] < MAX_SENDS_IN_ALL
    assert facts["other_targets"] or facts["sends"] < MAX_SENDS
    assert phase != ANSWERED
    assert facts["replayable"]
    assert phase == CONNECTING or method in IDEMPOTENT
    assert facts["other_targets"] or (facts["reused"] and phase == SENT)


@pytest.mark.parametrize(
    ("method", "phase", "reused", "other_targets", "expected"),
    [
        (b"GET", SENT, True, 0, True),
        (b"HEAD", SENT, True, 0, True),
        (b"PUT", SENT, True, 0, True),
        (b"DELETE", SENT, True, 0, True),
        (b"OPTIONS", SENT, True, 0, True),
        (b"POST", SENT, True, 0, False),
        (b"PATCH", SENT, True, 0, False),
        (b"LOCK", SENT, True, 0, False),
        (b"get", SENT, True, 0, False),
        (b"GET", SENT, False, 0, False),
        (b"GET", SENT, False, 1, True),
        (b"POST", SENT, False, 1, False),
        (b"POST", SENT, True, 2, False),
        (b"GET", CONNECTING, False, 0, False),
        (b"POST", CONNECTING, False, 0, False),
        (b"GET", CONNECTING, False, 1, True),
        (b"POST", CONNECTING, False, 1, True),
        (b"GET", ANSWERED, True, 0, False),
        (b"GET", ANSWERED, True, 3, False),
    ],
)
def test_when_a_request_is_tried_again(
    method: bytes, phase: int, reused: bool, other_targets: int, expected: bool
) -> None:
    def decide(*, replayable: bool, sends: int) -> bool:
        return may_retry(
            method,
            phase,
            reused=reused,
            replayable=replayable,
            sends=sends,
            other_targets=other_targets,
        )

    assert decide(replayable=True, sends=1) is expected
    assert decide(replayable=False, sends=1) is False
    assert decide(replayable=True, sends=MAX_SENDS) is (expected and other_targets > 0)
    # A connect that fails sends nothing; the targets that are left bound it.
    assert decide(replayable=True, sends=MAX_SENDS_IN_ALL) is (expected and phase == CONNECTING)


def test_what_is_idempotent_is_what_the_rfc_says_and_safe_methods_of_webdav() -> None:
    """RFC 9110 section 9.2.2; RFC 4918, 3253, 5323 and the QUERY draft call theirs safe."""
    assert {b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"} <= IDEMPOTENT
    assert not IDEMPOTENT & {b"POST", b"PATCH", b"LOCK", b"CONNECT", b"MKCOL", b"COPY", b"MOVE", b"TRACE"}


# --- a backend that counts ----------------------------------------------------------------------------------

BODIES = {
    "none": ((), b""),
    "length": ((b"Content-Length: 6",), b"a body"),
    "chunks": ((b"Transfer-Encoding: chunked",), b"3\r\na b\r\n3\r\nody\r\n0\r\n\r\n"),
    "too long to keep": ((b"Content-Length: 5000",), b"b" * 5_000),
}
LOST = {
    "no byte, then a close": Reply(b"", "close"),
    "no byte, then a reset": Reply(b"", "reset"),
    "a first byte": Reply(b"H", "close"),
    "an interim answer": Reply(b"HTTP/1.1 103 X\r\n\r\n", "close"),
    "half a head": Reply(b"HTTP/1.1 200 OK\r\nContent-", "reset"),
    "half a body": Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "close"),
}
RETRIED_METHODS = (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"POST", b"PATCH")


@pytest.mark.parametrize("reused", [True, False], ids=["kept", "fresh"])
@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("method", RETRIED_METHODS)
async def test_a_backend_that_counts_sees_a_request_twice_only_where_that_is_harmless(
    method: bytes, lost: str, reused: bool
) -> None:
    def respond(seen: Seen) -> Reply | bytes:
        return LOST[lost] if seen.path == b"/once" and seen.connection == 1 else ok(seen)

    for lines, body in BODIES.values():
        async with running(respond, Limits(max_replay_bytes=1_000)) as (stack, recorder):
            reader, writer = await stack.connect()
            if reused:
                await exchange(reader, writer, request(b"GET", b"/p/warm"))
            writer.write(request(method, b"/p/once", *lines, body=body))
            again = reused and method in IDEMPOTENT and len(body) < 1_000 and lost.startswith("no byte")
            if lost == "half a body":
                assert b"half" not in await reader.read(10) or method == b"HEAD"
            else:
                assert (await read_answer(reader, method)).status == (200 if again else 502)
        times = [seen.body for seen in recorder.seen if seen.path == b"/once"]
        assert len(times) == (2 if again else 1)
        assert len(set(times)) == 1
        assert stack.context.counters.retries == (1 if again else 0)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_refused_connect_is_not_tried_again_where_there_is_one_target(method: bytes) -> None:
    async with backend(Recorder().handle) as port:
        pass
    async with gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(method, b"/p/a"), method)).status == 502
        assert stack.context.counters.retries == 0
        assert len(stack.reports) == 1


async def test_a_second_try_that_meets_a_refused_connect_is_the_last() -> None:
    recorder = Recorder(lambda seen: ok(seen) if seen.path == b"/warm" else Reply(b"", "close"))
    async with backend(recorder.handle) as port, gateway(make_snapshot(port)) as stack:
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        pool = stack.context.pools.get(a_target(stack))
        pool._port = 1  # nobody listens there
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502
        assert stack.context.counters.retries == 1
    assert [seen.path for seen in recorder.seen] == [b"/warm", b"/a"]


async def test_under_random_kills_nothing_is_done_twice_that_may_be_done_once() -> None:
    """Connections die at random times, seeded: before, within and behind each request, kept and fresh ones."""
    random_ = random.Random(4)
    writers: set[asyncio.StreamWriter] = set()

    def respond(seen: Seen) -> Reply | bytes:
        chance = random_.random()
        if chance < 0.15:
            return Reply(b"", random_.choice(["close", "reset"]))
        if chance < 0.25:
            data = ok(seen)
            return Reply(data[: random_.randrange(len(data))], random_.choice(["close", "reset"]))
        return ok(seen)

    recorder = Recorder(respond)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await recorder.handle(reader, writer)
        finally:
            writers.discard(writer)

    numbers = itertools.count()
    done = {"right": 0, "wrong": 0}

    async def client(stack: Stack) -> None:
        for _ in range(40):
            number = next(numbers)
            method = random_.choice((b"GET", b"PUT", b"POST", b"PATCH"))
            body = b"%d" % number if method in (b"PUT", b"POST") else b""
            if random_.random() < 0.1 and writers:
                random_.choice(sorted(writers, key=id)).transport.abort()
            raw = await stack.talk(request(method, b"/p/%b-%d" % (method, number), body=body, close=True))
            done["right" if raw.endswith(b"\r\n\r\n/%b-%d" % (method, number)) else "wrong"] += 1

    async with backend(handler) as port, gateway(make_snapshot(port)) as stack:
        async with asyncio.timeout(3 * BOUND_S):
            await asyncio.gather(*(client(stack) for _ in range(20)))
        assert stack.context.counters.retries > 10
        await until(lambda: all(c["open"] == c["idle"] for c in stack.context.pools.counts().values()))
    assert done["right"] > 400
    assert done["wrong"] > 50
    seen = [(seen.method, seen.path) for seen in recorder.seen]
    for each in set(seen):
        assert seen.count(each) == 1 or (each[0] in IDEMPOTENT and seen.count(each) == 2)
