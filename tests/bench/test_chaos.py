"""A small run of the chaos, and its judge: a gateway that crosses, loses or doubles an answer must not pass."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from bench.chaos import Backends, Report, _judge_the_rest, run
from bench.chaos_backend import BY_CHUNKS, BY_CLOSE, BY_LENGTH, STOLEN, answer, framing, render
from bench.chaos_client import Asked, Tally, talk

NUMBERS = {
    how: next(n for n in range(30, 99) if framing(n) == how) for how in (BY_LENGTH, BY_CHUNKS, BY_CLOSE)
}
REFUSAL = (
    b'HTTP/1.1 502 X\r\nContent-Type: application/problem+json\r\nContent-Length: 12\r\n\r\n{"code":"x"}'
)
NEXT = 1_000


@pytest.mark.slow
def test_numbered_answers_survive_killed_and_lying_backends() -> None:
    report = run(requests=1_500, connections=40, backends=3, seed=7, kill_every_s=0.5)
    assert report.faults == []
    assert report.kills > 0
    assert report.tally.counts["right"] > 500
    assert report.tally.counts["refused"] > 0
    assert report.tally.counts["cut"] > 0
    assert len(report.lies) > 8


def asked(number: int, method: bytes = b"GET") -> Asked:
    return Asked(number, method, b"", b"%d\n" % number)


async def served(*raws: bytes, method: bytes = b"GET", number: int = NUMBERS[BY_LENGTH]) -> Tally:
    """Return what becomes of one request and one more behind it, when a gateway answers with `raws`, one for each."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for raw in raws:
            await reader.readline()
            writer.write(raw)
        writer.close()

    return await played(handler, asked(number, method), asked(NEXT))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def played(handler: Handler, *requests: Asked) -> Tally:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    tally = Tally()
    try:
        await talk(server.sockets[0].getsockname()[1], iter([list(requests)]), tally)
    finally:
        server.close()
    return tally


def right(number: int, method: bytes = b"GET") -> bytes:
    return render(number, method, answer(number, b""))


@pytest.mark.parametrize("how", NUMBERS)
async def test_a_right_answer_is_counted_as_such(how: int) -> None:
    number = NUMBERS[how]
    raws = [right(number)] if how == BY_CLOSE else [right(number), right(NEXT)]
    tally = await served(*raws, number=number)
    assert tally.faults == []
    assert tally.counts == ({"right": 1, "unserved": 1} if how == BY_CLOSE else {"right": 2})


async def test_a_refusal_and_a_cut_are_no_faults() -> None:
    tally = await served(REFUSAL, right(NEXT)[:-1])
    assert (tally.faults, tally.counts) == ([], {"refused": 1, "cut": 1})


@pytest.mark.parametrize(
    ("word", "raws"),
    [
        ("crossed", (right(31), right(NEXT))),
        ("crossed", (STOLEN, right(NEXT))),
        ("crossed", (right(NUMBERS[BY_LENGTH]).replace(b"answer to", b"ANSWER TO"), right(NEXT))),
        ("crossed", (b"HTTP/1.1 103 X\r\nX-Number: 1\r\n\r\n" + right(NUMBERS[BY_LENGTH]), right(NEXT))),
        ("crossed", (right(NEXT), right(NUMBERS[BY_LENGTH]))),
        ("not the gateway's own", (REFUSAL.replace(b"problem", b"other"), right(NEXT))),
        ("not the gateway's own", (REFUSAL[:-1], b"")),
        ("lost", (b"", b"")),
        ("lost", (right(NUMBERS[BY_LENGTH]), b"")),
        ("lost", (b"HTTP/1.1 103 X\r\n\r\n", b"")),
        ("doubled", (right(NUMBERS[BY_LENGTH]), right(NEXT) + right(NEXT))),
        ("doubled", (right(NUMBERS[BY_LENGTH]), right(NEXT) + b"X")),
    ],
)
async def test_a_gateway_that_crosses_loses_or_doubles_an_answer_is_found_out(
    word: str, raws: tuple[bytes, ...]
) -> None:
    tally = await served(*raws)
    assert any(word in fault for fault in tally.faults), tally


async def test_a_body_in_answer_to_HEAD_is_found_out() -> None:
    tally = await served(right(NUMBERS[BY_LENGTH]), right(NEXT), method=b"HEAD")
    assert tally.faults


class Said(Backends):
    """Backends that only remember what they saw."""

    def __init__(self, *lines: tuple[str, int, str]) -> None:
        self._lines = lines

    def seen(self):  # type: ignore[no-untyped-def]
        return iter(self._lines)


@pytest.mark.parametrize(
    ("lines", "shortened", "after", "word"),
    [
        ([("S", 1, "POST"), ("S", 1, "POST")], set(), (9.0, 9), "seen 2 times"),
        ([("S", 2, "GET")] * 3, set(), (9.0, 9), "seen 3 times"),
        ([("S", 3, "GET")], set(), (9.0, 9), "nobody sent"),
        ([("S", 1, "GET")], set(), (9.0, 9), "nobody sent"),
        ([("L", 2, "long")], {2}, (9.0, 9), "shortened by the gateway"),
        ([], set(), (9.0, 10), "descriptors"),
        ([], set(), (29.0, 9), "memory"),
    ],
)
def test_what_backends_saw_and_what_is_held_is_judged_too(
    lines: list[tuple[str, int, str]], shortened: set[int], after: tuple[float, int], word: str
) -> None:
    tally = Tally(methods={1: b"POST", 2: b"GET"}, shortened=shortened)
    report = Report(tally, 0, Counter(), (9.0, 9), after, 1.0)
    _judge_the_rest(report, Said(*lines))
    assert any(word in fault for fault in report.faults)
    assert any(line.startswith("FAULT") for line in report.lines())


def test_what_may_be_is_no_fault() -> None:
    tally = Tally(methods={1: b"POST", 2: b"GET"}, shortened={2})
    report = Report(tally, 0, Counter(), (9.0, 9), (10.0, 9), 1.0)
    _judge_the_rest(report, Said(("S", 1, "POST"), ("S", 2, "GET"), ("S", 2, "GET"), ("L", 2, "short")))
    assert report.faults == []
