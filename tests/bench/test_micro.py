"""The micro bench: every case can be prepared, builds are compared in turn, and what is wrong is said."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bench import micro_cases
from bench.micro import Runner, _measure, _render, main
from bench.micro_world import World
from bench.processes import BenchError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("micro"))
    yield made
    made.close()


def test_every_case_runs_and_can_be_repeated(world: World) -> None:
    cases, missing = micro_cases.make_cases(world, list(micro_cases.CASES))
    assert missing == {}
    for made in cases.values():
        for _ in range(2):
            if made.reset is not None:
                made.reset()
            assert micro_cases.sample(made.action, 2) > 0


def test_a_case_that_a_revision_cannot_run_is_named(world: World, monkeypatch) -> None:
    def broken(_: World) -> micro_cases.Case:
        raise AttributeError("no such step yet")

    monkeypatch.setitem(micro_cases.CASES, "new", ("a step", broken))
    assert micro_cases.make_cases(world, ["new"]) == ({}, {"new": "AttributeError: no such step yet"})


def test_a_run_prints_and_writes_the_cases_asked_for(tmp_path, capsys) -> None:
    file = tmp_path / "micro.json"
    assert main(["--pure", "--rounds", "3", "--only", "match", "--only", "auth-k", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ns,", "match", "auth-key"]
    written = json.loads(file.read_text())
    assert written["builds"] == ["here pure"]
    assert [len(samples) for (samples,) in written["ns"].values()] == [3, 3]
    assert all(100 < ns < 1_000_000 for (samples,) in written["ns"].values() for ns in samples)


def test_two_builds_take_turns_and_are_compared_within_a_round() -> None:
    asked = []

    class Fake:
        def __init__(self, name: str, ns: float, cases: list[str]) -> None:
            self.name, self.ns, self.cases = name, ns, cases

        def sample(self, case: str, loops: int) -> float:
            asked.append((self.name, case))
            return self.ns

    ours, theirs = Fake("here", 1_000.0, ["match", "record"]), Fake("REV", 1_250.0, ["match"])
    samples = _measure([ours, theirs], ["match", "record"], 2)  # type: ignore[list-item]  # asked for the same
    turns = [name for name, case in asked if case == "match"][-4:]
    assert turns == ["here", "REV", "REV", "here"]
    table = _render(samples, ["here pure", "REV pure"]).splitlines()
    assert table[1].split()[:4] == ["match", "1,000", "1,250", "1.250"]
    assert table[2].split() == ["record", "1,000", "-"]


def test_a_process_that_ends_by_itself_is_told(tmp_path) -> None:
    (tmp_path / "authgate_fast").mkdir()
    (tmp_path / "authgate_fast" / "__init__.py").write_text("raise SystemExit(3)\n")
    with (
        Runner("here", tmp_path, ["match"]) as runner,
        pytest.raises(BenchError, match=r"here: .* ended by itself"),
    ):
        runner.greet()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--only", "no-such-step"], 2, "no case has no-such-step in its name"),
        (["--pure", "--against", "no-such-revision"], 1, "--against no-such-revision"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, code, message, capsys) -> None:
    assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_rounds_are_bounded() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--rounds", "1001"])
    assert caught.value.code == 2
