"""A backend that lies or breaks harms nobody but the client whose answer it spoils, and that one can tell."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.http.response import ResponseHead
from authgate_fast.proxy import timeouts
from authgate_fast.proxy.heads import ResponseReader
from tests.attacks import responses_ends, responses_framing, responses_heads
from tests.attacks.responses_case import CUT, GOOD, REFUSED, TOO_LATE, Case
from tests.attacks.responses_stage import Backend, Connection, ask, is_over, nothing_is_left, stage
from tests.proxy.harness import BOUND_S, Stack
from tests.proxy.scripted import Answer, until

CASES = {
    case.name: case for case in (*responses_framing.CASES, *responses_heads.CASES, *responses_ends.CASES)
}
# What the gateway itself adds or may keep. Anything else that is hop-by-hop is a fault.
HOP_BY_HOP = {b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer", b"upgrade"}
MAX_PIECES = 400


@pytest.fixture(autouse=True)
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep for timeouts every 40 ms instead of every second."""
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)


def test_there_are_at_least_200_cases_and_no_name_is_taken_twice() -> None:
    count = len(responses_framing.CASES) + len(responses_heads.CASES) + len(responses_ends.CASES)
    assert len(CASES) == count
    assert count >= 200


def judge(case: Case, answer: Answer | None, raw: bytes) -> None:
    """Say whether the client saw what it must see."""
    if case.sees == GOOD:
        assert answer is not None, f"broke off: {raw[:200]!r}"
        assert (answer.status, answer.body, tuple(answer.interim)) == (case.status, case.body, case.interim)
        assert answer.whole
        assert raw.count(b"\r\nX-Request-ID: ") == 1
        assert raw.count(b"\r\nVia: 1.1 authgate\r\n") == 1
    elif case.sees == CUT:
        assert answer is None or answer.status in (502, 504), answer
    else:
        assert answer is not None, f"broke off: {raw[:200]!r}"
        assert answer.status == {REFUSED: 502, TOO_LATE: 504}[case.sees]
        assert answer.get(b"content-type") == b"application/problem+json"
        code = {REFUSED: b"upstream_", TOO_LATE: b"upstream_timeout"}[case.sees]
        assert code in answer.body or case.method == b"HEAD"
    if answer is not None:
        assert not HOP_BY_HOP & {name for name, _ in answer.fields}
    for line in case.has:
        assert line in raw, line
    for line in case.lacks:
        assert line.lower() not in raw.lower(), line


async def play(case: Case, stack: Stack, actor: Backend, pieces: list[bytes]) -> None:
    actor.pieces, actor.then = pieces, case.then
    first, second = await stack.connect(), await stack.connect()
    before, _ = await ask(second, b"/before")
    assert before is not None
    assert before.body == b"/before"
    answer, raw = await ask(first, b"/case", case.method)
    judge(case, answer, raw)
    lied_on = actor.connection_of(b"/case")
    if len(pieces) > 1:  # what comes late belongs to the case too
        await asyncio.wait_for(actor.sent.wait(), BOUND_S)
    if not case.reused:
        await until(lambda: lied_on in actor.ended or actor.then == "half_close")
    closed = answer is None or answer.get(b"connection") == b"close"
    if closed:
        await is_over(first)
        first = await stack.connect()
    await their_own_answers(first, second)
    if case.reused:
        assert actor.connection_of(b"/after") == lied_on
    else:
        assert {number for number, path in actor.seen if path in (b"/after", b"/other", b"/last")}.isdisjoint(
            {lied_on}
        )
    await nothing_is_left(stack)


async def their_own_answers(first: Connection, second: Connection) -> None:
    for connection, path in ((first, b"/after"), (second, b"/other"), (first, b"/last")):
        answer, raw = await ask(connection, path)
        assert answer is not None, (path, raw)
        assert (answer.status, answer.body) == (200, path)
        assert answer.get(b"x-stolen") is None


@pytest.mark.parametrize("name", CASES)
async def test_a_client_sees_the_right_answer_or_that_there_is_none(name: str) -> None:
    case = CASES[name]
    async with stage(hasty=case.hasty) as (stack, actor):
        pieces = [case.sends] if isinstance(case.sends, bytes) else list(case.sends)
        await play(case, stack, actor, pieces)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.whole) <= MAX_PIECES])
async def test_nothing_changes_when_it_comes_byte_by_byte(name: str) -> None:
    case = CASES[name]
    async with stage(hasty=case.hasty) as (stack, actor):
        await play(case, stack, actor, [case.whole[at : at + 1] for at in range(len(case.whole))])


FOUND = (
    "block",
    "chunked",
    "close",
    "content_length",
    "error",
    "has_date",
    "keep_alive_s",
    "may_upgrade",
    "minor",
    "own_cookies",
    "status",
    "upgrade",
)


FOUND_LATER = ("sharing",)
"""What is looked for in a block when somebody asks."""


def test_all_that_a_reader_finds_is_compared() -> None:
    slots = getattr(ResponseHead, "__slots__", FOUND)  # the compiled class has none
    assert tuple(name for name in slots if name not in FOUND_LATER) == FOUND


def as_read(head: ResponseHead | str | None) -> object:
    if not isinstance(head, ResponseHead):
        return None
    return {name: getattr(head, name) for name in FOUND}


@pytest.mark.parametrize("name", CASES)
def test_the_quick_reader_takes_only_what_the_parser_takes_and_finds_the_same(name: str) -> None:
    data = CASES[name].whole
    reader = ResponseReader()
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        parsed = reader.read_parsed(data, len(head) + 4, 100)
        alone = ResponseReader().read_parsed(head + b"\r\n\r\n", len(head) + 4, 100)
        assert as_read(parsed) == as_read(alone)
        for _ in range(2):  # the second time from memory
            plain = reader.read_plain(head, 100)
            if plain is not None:
                assert as_read(plain) == as_read(parsed)
        if not isinstance(parsed, ResponseHead) or parsed.status >= 200:
            break
        data = rest
