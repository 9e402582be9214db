"""Durations fall into the bucket whose upper bound is the first that they do not pass."""

from __future__ import annotations

import pytest

from authgate_fast.tally import BOUNDS_S, Histogram


@pytest.mark.parametrize("at", range(len(BOUNDS_S)))
def test_a_bound_belongs_to_its_own_bucket_and_what_is_longer_to_the_next(at: int) -> None:
    times = Histogram()
    times.observe(BOUNDS_S[at])
    assert times.counts() == [int(n == at) for n in range(len(BOUNDS_S) + 1)]
    times.observe(BOUNDS_S[at] * 1.000001)
    assert times.counts() == [int(n in (at, at + 1)) for n in range(len(BOUNDS_S) + 1)]
    assert times.sum_s == pytest.approx(2 * BOUNDS_S[at], rel=1e-5)


@pytest.mark.parametrize(("duration_s", "at"), [(0.0, 0), (3_600.0, len(BOUNDS_S))])
def test_there_is_a_bucket_for_any_duration(duration_s: float, at: int) -> None:
    times = Histogram()
    times.observe(duration_s)
    assert times.counts()[at] == 1
