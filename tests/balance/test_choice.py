"""Choosing among members: fair by weight, smooth, sticky where it should be, and moving no more than it must."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.balance.choice import (
    SLOTS,
    highest_ranked,
    least_connections,
    round_robin,
    slot_of,
)
from tests.balance.kit import member

weights = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@given(weights)
def test_round_robin_gives_each_exactly_its_weight_in_a_round(shares: list[int]) -> None:
    members = [member(f"m{at}", weight) for at, weight in enumerate(shares)]
    for _ in range(2):
        seen = Counter(id(round_robin(members)) for _ in range(sum(shares)))
        assert [seen[id(m)] for m in members] == shares


def test_round_robin_spreads_a_heavy_ones_turns() -> None:
    members = [member("a", 5), member("b"), member("c")]
    assert "".join(round_robin(members).target.host for _ in range(7)) == "aabacaa"


@given(weights, st.data())
def test_least_connections_is_least_for_the_weight(shares: list[int], data: st.DataObject) -> None:
    members = [member(f"m{at}", weight) for at, weight in enumerate(shares)]
    for each in members:
        each.active = data.draw(st.integers(0, 50))
    chosen = least_connections(members)
    assert all(chosen.active * other.weight <= other.active * chosen.weight for other in members)


@given(weights)
def test_least_connections_of_idle_members_takes_turns_by_weight(shares: list[int]) -> None:
    members = [member(f"m{at}", weight) for at, weight in enumerate(shares)]
    seen = Counter(id(least_connections(members)) for _ in range(sum(shares)))
    assert [seen[id(m)] for m in members] == shares


@given(weights, st.integers(1, 300))
def test_requests_that_stay_are_spread_by_weight(shares: list[int], requests: int) -> None:
    members = [member(f"m{at}", weight) for at, weight in enumerate(shares)]
    for _ in range(requests):
        least_connections(members).active += 1
    total = sum(shares)
    for each in members:
        assert abs(each.active - requests * each.weight / total) <= len(members)


def owners(members: list[object]) -> list[str]:
    return [highest_ranked(slot, members).target.host for slot in range(2_048)]  # type: ignore[arg-type]


def test_hashing_gives_each_its_weight_of_the_slots() -> None:
    seen = Counter(owners([member("a", 1), member("b", 2), member("c", 5)]))
    for name, weight in (("a", 1), ("b", 2), ("c", 5)):
        assert seen[name] / 2_048 == pytest.approx(weight / 8, rel=0.15)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_a_member_that_comes_takes_only_its_share_and_one_that_goes_leaves_only_its_own(
    shares: list[int],
) -> None:
    members = [member(f"m{at}", weight) for at, weight in enumerate(shares)]
    before, after = owners(members), owners([*members, member("new", 2)])  # type: ignore[list-item]
    assert all(new in (old, "new") for old, new in zip(before, after, strict=True))
    assert after.count("new") / 2_048 == pytest.approx(2 / (sum(shares) + 2), rel=0.35)


def test_more_weight_moves_slots_to_that_member_only() -> None:
    before = owners([member("a"), member("b"), member("c")])
    after = owners([member("a"), member("b", 2), member("c")])
    assert all(new in (old, "b") for old, new in zip(before, after, strict=True))


def test_a_slot_is_the_same_everywhere_and_keys_spread_over_all() -> None:
    assert slot_of(b"tenant-1") == 149  # a change would send everybody's keys elsewhere
    assert len({slot_of(b"%d" % number) for number in range(50_000)}) > 0.99 * SLOTS
