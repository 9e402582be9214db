"""Random bytes, cuts and closes. h11 reads both what goes in and what comes out, and may not disagree."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from typing import TypeVar

import h11
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import Recorder, Reply, Seen, answers, ok, request, reset, running, until

Outcome = TypeVar("Outcome")

FUZZ = settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SEEDS = [
    request(b"GET", b"/p/a?q=1", b"X-A: 1", b"Cookie: a=b; c=d"),
    request(b"POST", b"/p/b", body=b"0123456789"),
    request(b"POST", b"/p/c", b"Transfer-Encoding: chunked", body=b"5\r\n01234\r\n0\r\n\r\n"),
    request(b"PUT", b"/p/d", b"Transfer-Encoding: chunked", body=b"1;x=y\r\na\r\n0\r\nX-T: 1\r\n\r\n"),
    request(b"HEAD", b"/p/e", b"Expect: 100-continue"),
    b"GET http://a/p/f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE /p/g HTTP/1.0\r\nHost: a\r\n\r\n",
]
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b"0", b"\r\n\r\n", b"chunked",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n",
    b"Connection: close\r\n", b"Content-Length : 1\r\n", b" folded\r\n", b"X\xff: \xff\r\n", b"HTTP/1.1",
    b"GET /p/x HTTP/1.1\r\nHost: a\r\n\r\n", b"+", b"-", b"0x", b"_", b"\x0b", b"\x85",
]  # fmt: skip

EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")

mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat"]),
        st.floats(0, 1),
        st.sampled_from(TOKENS),
        st.integers(1, 6),
    ),
    max_size=3,
)


def mutate(data: bytes, changes: list[tuple[str, float, bytes, int]]) -> bytes:
    for kind, where, token, length in changes:
        at = int(where * len(data))
        if kind == "insert":
            data = data[:at] + token + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + length :]
        elif kind == "replace":
            data = data[:at] + token + data[at + len(token) :]
        else:
            data = data[: at + length] + data[at:]
    return data


def as_h11_reads(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return (method, body) of each request in `data` that h11 reads to its end."""
    found: list[tuple[bytes, bytes]] = []
    while data := EMPTY_LINES.sub(b"", data):  # RFC 9112 section 2.2; h11 is stricter
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        server.receive_data(data)
        try:
            event = server.next_event()
            if not isinstance(event, h11.Request):
                break
            method, body = event.method, b""
            while isinstance(part := server.next_event(), h11.Data):
                body += bytes(part.data)
            if not isinstance(part, h11.EndOfMessage):
                break
        except h11.RemoteProtocolError:
            break
        found.append((method, body))
        if server.their_state is h11.MUST_CLOSE:
            break
        data = server.trailing_data[0]
    return found


async def send_and_leave(stack: Stack, data: bytes) -> bytes:
    """Send `data`, say that this was all, and read until the gateway closes."""
    reader, writer = await stack.connect()
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(-1), BOUND_S)
    except ConnectionResetError:
        return b""


@FUZZ
@given(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3), mutations)
def test_what_is_forwarded_is_what_h11_reads_too(
    seeds: list[bytes], changes: list[tuple[str, float, bytes, int]]
) -> None:
    """Stricter than h11 is fine; another reading of the same bytes is a way to smuggle."""
    data = mutate(b"".join(seeds), changes)

    async def run() -> tuple[Recorder, bytes]:
        async with running() as (stack, recorder):
            raw = await send_and_leave(stack, data)
            await until(lambda: not stack.context.connections)
            assert "internal_error" not in {reason for reason, _ in stack.reports}
        return recorder, raw

    recorder, raw = run_on_uvloop(run)
    ours = [(seen.method, seen.body) for seen in recorder.seen]
    theirs = iter(as_h11_reads(data))
    assert all(each in theirs for each in ours), (data, ours, as_h11_reads(data))  # a subsequence, in order
    answers_to_methods(raw, data)


def answers_to_methods(raw: bytes, data: bytes) -> None:
    """What came back is nothing but responses; HEAD is the only method that changes how they are read."""
    methods = [method for method, _ in as_h11_reads(data)] + [b"GET"]
    if b"HEAD" not in data:
        answers(raw, *methods, *[b"GET"] * 5)


def run_on_uvloop(main: Callable[[], Coroutine[None, None, Outcome]]) -> Outcome:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main(), 3 * BOUND_S))


@FUZZ
@given(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
            b"HTTP/1.1 103 X\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello",
        ]
    ),
    mutations,
    st.lists(st.floats(0, 1), max_size=3),
)
def test_whatever_a_backend_sends_the_client_gets_HTTP_and_the_next_one_its_own_answer(
    data: bytes, changes: list[tuple[str, float, bytes, int]], cuts: list[float]
) -> None:
    data = mutate(data, changes)
    marks = sorted(int(cut * len(data)) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]

    async def run() -> tuple[bytes, bytes]:
        def respond(seen: Seen) -> Reply | bytes:
            return ok(seen) if seen.path != b"/lie" else Reply(pieces, "close")

        async with running(respond) as (stack, _):
            first = await send_and_leave(stack, request(b"GET", b"/p/lie"))
            second = await send_and_leave(stack, request(b"GET", b"/p/true"))
            assert "internal_error" not in {reason for reason, _ in stack.reports}
        return first, second

    first, second = run_on_uvloop(run)
    answers(first, b"GET")
    (answer,) = answers(second, b"GET")
    assert (answer.status, answer.body) == (200, b"/true")


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
