"""A short run of each fault, and the judge of its answers: a gateway that loses, crosses or doubles one must not pass."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from bench import faults
from bench.faults_stage import Outcome, p99_ms
from bench.faults_tls import Authority, Shown
from bench.numbered import ANSWERED, CUT, REFUSED, UNANSWERED, UNSENT, WRONG, Load
from tests.redis_server import find_binary

SHORT = {
    "seconds": 0.8,
    "events": 1,
    "connections": 10,
    "workers": 1,
    "think_ms": 10.0,
    "timed": False,
    "spare": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["backend", "gone", "certificates"])
def test_a_short_run_breaks_no_promise(kind: str) -> None:
    outcome = faults.run(kind, **SHORT)  # type: ignore[arg-type]
    assert outcome.faults == []
    assert outcome.load.outcomes[ANSWERED] > 20
    assert outcome.lines()[0].startswith(f"{kind}: ")


@pytest.mark.slow
def test_a_short_soak_leaves_nothing_behind() -> None:
    outcome = faults.run("soak", **{**SHORT, "events": 0})  # type: ignore[arg-type]
    assert outcome.faults == []
    assert outcome.load.outcomes[ANSWERED] > 20
    assert any(note.startswith("0 faults in ") for note in outcome.notes)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize("kind", ["redis", "documents"])
def test_a_short_run_breaks_no_promise_when_documents_are_in_Redis(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.faults_redis.find_redis", find_binary)
    monkeypatch.setattr("bench.faults_redis.DOCUMENTS", 100)
    outcome = faults.run(kind, **SHORT)  # type: ignore[arg-type]
    assert outcome.faults == []
    assert outcome.load.outcomes[ANSWERED] > 20
    assert len(outcome.recoveries_s) == 1


def loaded(**outcomes: int) -> Load:
    load = Load(1, 1)
    load.outcomes.update(outcomes)
    return load


@pytest.mark.parametrize("what", [WRONG, REFUSED, UNSENT, CUT, UNANSWERED])
def test_nothing_but_answers_is_taken_where_none_may_fail(what: str) -> None:
    outcome = Outcome("x", loaded(**{ANSWERED: 9, what: 1}))
    outcome.judge()
    assert outcome.faults
    assert "BROKEN" in outcome.lines()[-1]


@pytest.mark.parametrize("what", [WRONG, UNSENT])
def test_a_wrong_answer_is_never_allowed(what: str) -> None:
    outcome = Outcome("x", loaded(answered=9), [("y", loaded(**{ANSWERED: 9, what: 1}))])
    outcome.judge(refusals=True, failures=True)
    assert outcome.faults == [f"1 {what}"]


def test_a_share_of_failures_may_be_allowed() -> None:
    for least, is_broken in ((0.9, False), (0.91, True)):
        outcome = Outcome("x", loaded(answered=9, refused=1))
        outcome.judge(refusals=True, failures=True, least=least)
        assert bool(outcome.faults) is is_broken


def test_a_run_without_an_answer_shows_nothing() -> None:
    outcome = Outcome("x", loaded())
    outcome.judge(failures=True)
    assert "nothing was answered" in outcome.faults


def test_the_99th_percentile_of_a_stretch_is_of_what_was_answered_in_it() -> None:
    load = Load(1, 1, answered_at=[1.0, 2.0, 3.0, 4.0], took_s=[0.1, 0.2, 0.3, 0.4])
    assert load.took_between(2.0, 4.0) == [0.2, 0.3]
    assert p99_ms([number / 1e3 for number in range(1_000)]) == 990.0
    assert p99_ms([]) == 0.0


def test_an_old_certificate_is_stale_only_for_connections_begun_after_the_new_one_was_in_use() -> None:
    shown = Shown(b"one")
    shown.note(1.0, b"one")
    shown.replaced(b"two")
    shown.note(2.0, b"one")
    shown.in_use()
    shown.note(3.0, b"one")  # begun long before
    assert (shown.handshakes, shown.stale) == (3, 0)
    shown.note(float("inf"), b"two")
    shown.note(float("inf"), b"one")
    assert (shown.handshakes, shown.stale) == (5, 1)


async def test_a_client_over_tls_renews_its_connection_and_tells_what_it_was_shown(tmp_path: Path) -> None:
    authority = Authority()
    certificate = authority.issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "shop.crt", tmp_path / "shop.key")
    asked: list[bytes] = []
    enough = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            asked.append(head)
            if len(asked) == 5:
                enough.set()
            body = b"number %d " % int(head.split(b" ")[1].rpartition(b"/")[2]) + b"x" * 400
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    shown: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        load = Load(
            port, 1, tls=authority.context(), renew_every=2, on_connect=lambda _, seen: shown.append(seen)
        )
        async with load, asyncio.timeout(20):
            await enough.wait()
    assert load.outcomes.keys() == {ANSWERED}
    assert len(shown) == (len(asked) + 1) // 2
    assert set(shown) == {certificate}
