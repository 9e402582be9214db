from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cases import CASES, Case
from bench.load import Sample
from bench.report import (
    Outcome,
    Ratio,
    as_json,
    cpu_ratio,
    doubts,
    faults,
    rate_ratio,
    ratio_of,
    render,
    scaling,
    verdicts,
)
from bench.results import render_results

_SAMPLE = Sample(
    per_s=20_000.0,
    p50_ms=1.5,
    p99_ms=4.0,
    cpu_us_each=20.0,
    busy=0.4,
    foreign=0.0,
    memory_mb=40.0,
    refused=0,
    socket_errors=0,
    not_forwarded=0,
)


def _rounds(*cpu_us: float) -> list[Sample]:
    return [replace(_SAMPLE, cpu_us_each=us, per_s=1e6 / us) for us in cpu_us]


def _outcome(samples: dict[str, list[Sample]], case: Case = CASES["key"]) -> Outcome:
    return Outcome(case, samples, [], {})


def test_a_ratio_is_taken_within_each_round_and_then_the_median() -> None:
    # The medians alone, 30 over 20, would say 1.5; round by round the machine's slowness cancels out.
    assert ratio_of([10.0, 30.0, 80.0], [20.0, 15.0, 80.0]) == Ratio(1.0, 0.5, 2.0)


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError):
        ratio_of([1.0, 2.0], [1.0])


def test_both_ratios_are_above_one_when_the_gateway_is_cheaper() -> None:
    ours, other = _rounds(20.0, 40.0), _rounds(30.0, 60.0)
    assert cpu_ratio(ours, other) == Ratio(1.5, 1.5, 1.5)
    assert rate_ratio(ours, other).median == pytest.approx(1.5)
    assert cpu_ratio(other, ours).median < 1 > rate_ratio(other, ours).median


def test_the_table_shows_medians_sums_of_errors_and_each_peer_against_the_first() -> None:
    ours = _rounds(20.0, 21.0, 400.0)
    ours[0] = replace(ours[0], refused=2, socket_errors=3)
    ours[2] = replace(ours[2], refused=5)
    text = render(_outcome({"authgate": ours, "haproxy": _rounds(21.0, 21.0, 420.0)}))
    row = next(line for line in text.splitlines() if line.startswith("authgate "))
    assert row.split() == ["authgate", "21.0", "47,619", "47,619", "1.50", "4.00", "40%", "40.0", "7", "3"]
    against = [line for line in text.splitlines() if line.startswith("haproxy")][1]
    assert against.split() == ["haproxy", "1.05", "(1.00", "..", "1.05)", "1.05", "(1.00", "..", "1.05)"]


def test_without_others_there_are_no_ratios() -> None:
    assert "against" not in render(_outcome({"authgate": _rounds(20.0)}))


@pytest.mark.parametrize("field", ["refused", "socket_errors", "not_forwarded"])
def test_any_answer_that_was_not_the_work_is_a_fault_with_its_count(field: str) -> None:
    good, bad = _SAMPLE, replace(_SAMPLE, **{field: 7})
    assert faults(_outcome({"authgate": [good, good], "haproxy": [good]})) == []
    (fault,) = faults(_outcome({"authgate": [good, good], "haproxy": [bad, bad]}))
    assert fault.startswith("key: haproxy: 14 ")


def test_a_core_shared_with_others_puts_a_contestant_in_doubt() -> None:
    assert doubts(_outcome({"authgate": [replace(_SAMPLE, foreign=0.04)]})) == []
    (doubt,) = doubts(_outcome({"authgate": [_SAMPLE, replace(_SAMPLE, foreign=0.2), _SAMPLE]}))
    assert "20%" in doubt


def test_the_file_holds_every_sample_and_ratio() -> None:
    data = as_json(_outcome({"authgate": _rounds(20.0, 20.0), "haproxy": _rounds(30.0, 10.0)}))
    assert [s["cpu_us_each"] for s in data["samples"]["haproxy"]] == [30.0, 10.0]
    assert data["ratios"]["haproxy"]["CPU"] == {"median": 1.0, "low": 0.5, "high": 1.5}


def test_targets_are_judged_by_the_median_as_it_is_shown() -> None:
    ours = _rounds(20.0, 20.0, 20.0)
    samples = {"authgate": ours, "nginx+lua": _rounds(21.92, 30.0, 10.0), "envoy": _rounds(59.0, 59.0, 99.0)}
    outcome = _outcome(samples)
    judged = {(v.target.peer, v.target.measure): v.is_met for v in verdicts(outcome)}
    assert judged["nginx", "CPU"] is True  # 1.096 reads 1.10
    assert judged["envoy", "CPU"] is False
    assert judged["haproxy", "CPU"] is judged["haproxy", "rate"] is None
    page = render_results({"date": "today"}, [outcome])
    assert "| key | CPU | envoy | >= 3 | 2.95 (2.95 .. 4.95) | **not met** |" in page
    assert "| key | CPU | haproxy | >= 1.1 | - | not measured |" in page


@pytest.mark.parametrize(
    ("case", "field", "met", "missed"), [("half-rate", "p99_ms", 6.0, 6.1), ("idle", "kib_each", 8.0, 8.1)]
)
def test_latencies_and_memory_have_ceilings(case: str, field: str, met: float, missed: float) -> None:
    for figure, wanted in ((met, True), (missed, False)):
        ours, theirs = replace(_SAMPLE, **{field: figure}), _SAMPLE
        (verdict, *_) = verdicts(_outcome({"authgate": [ours], "nginx+lua": [theirs]}, CASES[case]))
        assert verdict.is_met is wanted


def test_scaling_is_by_rate_and_by_the_cost_of_a_request() -> None:
    one = _outcome({"authgate": _rounds(20.0), "envoy": _rounds(50.0)}, CASES["workers-1"])
    two = _outcome({"authgate": [replace(_SAMPLE, cpu_us_each=25.0, per_s=75_000.0)]}, CASES["workers-2"])
    (only,) = scaling(one, two)
    assert (only.name, only.rate, only.cores) == ("authgate", 1.5, 1.6)
    assert "| authgate | 1.50 | 1.60 |" in render_results({}, [one, two])


def test_figures_without_samples_are_judged_and_shown() -> None:
    figures = {"authgate": {"load s": 21.0, "MB a worker": 400.0, "change live, p99 ms": 50.1}}
    outcome = Outcome(CASES["consumers-1m"], {}, [], {}, figures)
    assert [v.is_met for v in verdicts(outcome)] == [True, False, False]
    assert "21.0" in render(outcome)
    assert faults(outcome) == doubts(outcome) == []
    assert as_json(outcome)["figures"] == figures


def test_a_case_that_failed_has_nothing_but_its_failure() -> None:
    outcome = Outcome(CASES["key"], {}, [], {}, failure="envoy ended by itself")
    assert faults(outcome) == ["key: envoy ended by itself"]
    assert {v.is_met for v in verdicts(outcome)} == {None}
    assert "envoy ended by itself" in render_results({}, [outcome])
    assert as_json(outcome)["samples"] == {}
    assert render(outcome)
