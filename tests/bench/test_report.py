from __future__ import annotations

from dataclasses import replace

import pytest

from bench.load import Sample
from bench.report import Ratio, as_json, cpu_ratio, doubts, faults, rate_ratio, ratio_of, render

_SAMPLE = Sample(
    requests=80_000,
    requests_per_s=20_000.0,
    p50_ms=1.5,
    p99_ms=4.0,
    cpu_us_per_request=20.0,
    busy=0.4,
    foreign=0.0,
    memory_mb=40.0,
    refused=0,
    socket_errors=0,
    not_forwarded=0,
)


def _rounds(*cpu_us: float) -> list[Sample]:
    return [replace(_SAMPLE, cpu_us_per_request=us, requests_per_s=1e6 / us) for us in cpu_us]


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
    text = render({"authgate": ours, "haproxy": _rounds(21.0, 21.0, 420.0)})
    row = next(line for line in text.splitlines() if line.startswith("authgate "))
    assert row.split() == ["authgate", "47,619", "1.50", "4.00", "21.0", "40%", "40.0", "7", "3"]
    against = [line for line in text.splitlines() if line.startswith("haproxy")][1]
    assert against.split() == ["haproxy", "1.05", "(1.00", "..", "1.05)", "1.05", "(1.00", "..", "1.05)"]


def test_without_others_there_are_no_ratios() -> None:
    assert "against" not in render({"authgate": _rounds(20.0)})


@pytest.mark.parametrize("field", ["refused", "socket_errors", "not_forwarded"])
def test_any_answer_that_was_not_the_work_is_a_fault_with_its_count(field: str) -> None:
    good, bad = _SAMPLE, replace(_SAMPLE, **{field: 7})
    assert faults({"authgate": [good, good], "haproxy": [good]}) == []
    (fault,) = faults({"authgate": [good, good], "haproxy": [bad, bad]})
    assert fault.startswith("haproxy: 14 ")


def test_a_core_shared_with_others_puts_a_contestant_in_doubt() -> None:
    assert doubts({"authgate": [replace(_SAMPLE, foreign=0.04)]}) == []
    (doubt,) = doubts({"authgate": [_SAMPLE, replace(_SAMPLE, foreign=0.2), _SAMPLE]})
    assert "20%" in doubt


def test_the_file_holds_every_sample_and_ratio() -> None:
    data = as_json({"authgate": _rounds(20.0, 20.0), "haproxy": _rounds(30.0, 10.0)})
    assert [s["cpu_us_per_request"] for s in data["samples"]["haproxy"]] == [30.0, 10.0]
    assert data["ratios"]["haproxy"]["cpu_per_request"] == {"median": 1.0, "low": 0.5, "high": 1.5}
