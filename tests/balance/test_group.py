"""A group's decisions: who is chosen, ejected, tried, brought back, and what survives a change of configuration."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.balance.group import CONNECT_FAILURE
from authgate_fast.balance.member import EJECTED, MAX_EJECT_S, TRIAL, UP
from tests.balance.kit import CHECK, eject, group, member_of, name_of, pick, picks, service


def test_a_drained_target_gets_nothing() -> None:
    g = group({"a": 1, "b": 0})
    assert picks(g, 10) == {"a": 10}
    g = group({"a": 1, "b": 0}, method="hash")
    assert {pick(g, key=b"%d" % number) for number in range(100)} == {"a"}


def test_failures_in_a_row_eject_and_a_success_between_them_does_not() -> None:
    g = group("ab", max_failures=3)
    a = member_of(g, "a")
    for _ in range(5):
        assert not g.failed(a, 0.0, 0.5)
        assert not g.failed(a, 0.0, 0.5)
        g.succeeded(a, 0.0)
    assert not g.failed(a, 0.0, 0.5)
    assert not g.failed(a, 0.0, 0.5)
    assert g.failed(a, 0.0, 0.5)
    assert (a.state, g.ejections_total, a.failures_total) == (EJECTED, 1, 13)
    assert picks(g, 10, 1.0) == {"b": 10}


def test_a_connect_that_fails_counts_double() -> None:
    g = group("ab", max_failures=4)
    a = member_of(g, "a")
    assert not g.failed(a, 0.0, 0.5, CONNECT_FAILURE)
    assert g.failed(a, 0.0, 0.5, CONNECT_FAILURE)


def test_an_ejection_lasts_twice_as_long_each_time_up_to_a_bound() -> None:
    g = group("ab", eject_s=10.0)
    a = member_of(g, "a")
    now_s, lengths = 0.0, []
    eject(g, "a", now_s)
    for _ in range(7):
        lengths.append(a.until_s - now_s)
        now_s = a.until_s
        assert g.choose(b"", None, now_s) is a
        assert g.failed(a, now_s, 0.5)
        g.left(a, is_trial=True)
    assert lengths == [10.0, 20.0, 40.0, 80.0, 160.0, MAX_EJECT_S, MAX_EJECT_S]


@pytest.mark.parametrize(("jitter", "length_s"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
def test_an_ejection_differs_a_little_in_length(jitter: float, length_s: float) -> None:
    g = group("ab", max_failures=1)
    g.failed(member_of(g, "a"), 0.0, jitter)
    assert member_of(g, "a").until_s == pytest.approx(length_s)


def test_a_target_that_stayed_up_for_long_begins_anew() -> None:
    g = group("ab", eject_s=10.0, slow_start_s=0.0)
    a = member_of(g, "a")
    eject(g, "a", 0.0)
    a.state = UP
    a.up_since_s = 10.0
    a.failures = 0
    eject(g, "a", 12.0)
    assert a.until_s == 32.0
    a.state = UP
    a.up_since_s = 32.0
    a.failures = 0
    eject(g, "a", 52.0)
    assert a.until_s == 62.0


def test_one_request_at_a_time_tries_a_target_whose_time_is_over() -> None:
    g = group("abc", eject_s=10.0, slow_start_s=0.0)
    a = member_of(g, "a")
    eject(g, "a")
    assert "a" not in picks(g, 20, 9.9)
    assert g.choose(b"", None, 10.0) is a
    assert g.chose_trial
    assert a.state == TRIAL
    assert "a" not in picks(g, 20, 10.0)
    assert g.succeeded(a, 10.1)
    g.left(a, is_trial=True)
    assert (a.state, a.failures) == (UP, 0)
    assert picks(g, 30, 10.1)["a"] == 10


def test_a_trial_without_an_outcome_is_made_again_and_another_request_does_not_end_it() -> None:
    g = group("ab", eject_s=10.0)
    a = member_of(g, "a")
    earlier = g.choose(b"", [member_of(g, "b")], 0.0)
    assert earlier is a
    eject(g, "a")
    assert g.choose(b"", None, 10.0) is a
    g.left(a, is_trial=False)  # the earlier request
    assert a.state == TRIAL
    g.left(a, is_trial=True)
    assert a.state == EJECTED
    assert g.choose(b"", None, 10.0) is a


def test_a_trial_that_fails_ejects_at_once() -> None:
    g = group("ab", eject_s=10.0, max_failures=50)
    a = member_of(g, "a")
    eject(g, "a")
    g.choose(b"", None, 10.0)
    assert g.failed(a, 10.0, 0.5)
    assert a.until_s == 30.0


def test_what_an_ejected_target_had_begun_before_does_not_bring_it_back() -> None:
    g = group("ab")
    eject(g, "a")
    assert not g.succeeded(member_of(g, "a"), 1.0)
    assert member_of(g, "a").state == EJECTED


def test_a_retry_is_no_trial_while_another_target_is_up() -> None:
    g = group("abc", eject_s=10.0)
    eject(g, "a")
    assert pick(g, 10.0, tried="b") == "c"
    assert pick(g, 10.0, tried="bc") == "a"


def test_when_all_are_out_all_are_used_and_the_first_success_brings_one_back() -> None:
    g = group("ab", eject_s=10.0)
    eject(g, "a")
    assert not g.is_last_resort()
    eject(g, "b")
    assert g.is_last_resort()
    assert picks(g, 10, 1.0) == {"a": 5, "b": 5}
    assert g.succeeded(member_of(g, "b"), 1.0)
    assert picks(g, 10, 1.0) == {"b": 10}
    assert member_of(g, "b").share == 1.0


def test_the_only_target_is_always_used() -> None:
    g = group("a", max_connections=5)
    eject(g, "a")
    assert picks(g, 5, 1.0) == {"a": 5}
    assert pick(g, 1.0, tried="a") == ""


@settings(max_examples=200)
@given(
    st.sampled_from(["least_connections", "round_robin", "hash"]),
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["fail", "good", "wait"])), max_size=60),
    st.binary(max_size=3),
)
def test_one_that_is_out_is_never_chosen_while_another_is_up(
    method: str, history: list[tuple[str, str]], key: bytes
) -> None:
    g = group("abcd", method=method, max_failures=2, eject_s=5.0, slow_start_s=3.0)
    now_s = 0.0
    for name, what in history:
        m = member_of(g, name)
        if what == "fail":
            g.failed(m, now_s, 0.5)
        elif what == "good":
            g.succeeded(m, now_s)
        else:
            now_s += 1.0
        out = {m.target.host for m in g.members if m.state != UP and m.until_s > now_s}
        chosen = g.choose(key, None, now_s)
        assert chosen is not None
        assert name_of(chosen) not in out or len(out) == 4
        g.left(chosen, is_trial=g.chose_trial)
        assert all(m.active == 0 for m in g.members)


def test_a_slow_start_grows_from_a_tenth_to_the_whole_share() -> None:
    g = group("ab", eject_s=10.0, slow_start_s=20.0, method="round_robin")
    a = member_of(g, "a")
    eject(g, "a")
    g.choose(b"", None, 10.0)
    g.succeeded(a, 10.0)
    g.left(a, is_trial=True)
    assert picks(g, 110, 10.0)["a"] == 10
    assert picks(g, 300, 20.0)["a"] == pytest.approx(100, abs=2)
    assert not g.is_settled
    assert picks(g, 100, 30.0)["a"] == pytest.approx(50, abs=1)
    assert g.is_settled


# --- hashing ------------------------------------------------------------------------------------------


def test_a_hash_key_sticks_and_moves_only_while_its_target_is_out() -> None:
    g = group("abc", method="hash", eject_s=10.0, slow_start_s=0.0)
    keys = [b"user-%d" % number for number in range(300)]
    before = {key: pick(g, key=key) for key in keys}
    assert before == {key: pick(g, key=key) for key in keys}
    assert set(before.values()) == set("abc")
    eject(g, "b")
    moved = {key: pick(g, 1.0, key=key) for key in keys}
    assert all(moved[key] == before[key] for key in keys if before[key] != "b")
    assert {moved[key] for key in keys if before[key] == "b"} == {"a", "c"}
    member_of(g, "b").recover(11.0, 0.0)
    assert before == {key: pick(g, 11.0, key=key) for key in keys}


def test_an_ejected_target_is_tried_by_a_key_of_its_own() -> None:
    g = group("abc", method="hash", eject_s=10.0)
    keys = [b"user-%d" % number for number in range(300)]
    before = {key: pick(g, key=key) for key in keys}
    eject(g, "b")
    for key in keys:
        assert pick(g, 10.0, key=key) == before[key]


def test_a_request_without_a_hash_key_goes_to_who_has_the_least_to_do() -> None:
    assert picks(group("abc", method="hash"), 30) == {"a": 10, "b": 10, "c": 10}


# --- active checks ------------------------------------------------------------------------------------


def check(g: object, name: str, outcomes: str, now_s: float = 0.0) -> list[bool]:
    return [
        g.checked(member_of(g, name), good=outcome == "+", healthy=2, unhealthy=3, now_s=now_s)  # type: ignore[attr-defined,arg-type]
        for outcome in outcomes
    ]


def test_bad_checks_in_a_row_put_a_target_out_and_good_ones_bring_it_back() -> None:
    g = group("ab", check=CHECK, slow_start_s=0.0)
    assert check(g, "a", "--+--") == [False] * 5
    assert check(g, "a", "-") == [True]
    assert picks(g, 10) == {"b": 10}
    assert check(g, "a", "--+-+") == [False] * 5
    assert check(g, "a", "+") == [True]
    assert picks(g, 10) == {"a": 5, "b": 5}
    assert (member_of(g, "a").checks_total, member_of(g, "a").checks_failed_total) == (12, 8)


def test_a_good_check_does_not_end_an_ejection() -> None:
    g = group("ab", check=CHECK)
    eject(g, "a")
    check(g, "a", "+++")
    assert picks(g, 10, 1.0) == {"b": 10}


def test_a_target_that_fails_its_checks_is_not_tried() -> None:
    g = group("ab", check=CHECK, eject_s=10.0)
    eject(g, "a")
    check(g, "a", "---")
    assert picks(g, 10, 20.0) == {"b": 10}


# --- changes of configuration -------------------------------------------------------------------------


def test_what_is_known_of_a_target_survives_a_change_and_a_new_one_starts_slowly() -> None:
    g = group("ab", eject_s=60.0)
    eject(g, "a")
    held = g.choose(b"", None, 0.0)
    g.configure(service({"c": 1, "a": 4, "b": 1}, slow_start_s=10.0), 5.0)
    assert [m.target.host for m in g.members] == ["c", "a", "b"]
    a, b, c = (member_of(g, name) for name in "abc")
    assert (a.state, a.weight, a.failures) == (EJECTED, 4, 5)
    assert held is b
    assert b.active == 1
    assert c.share == pytest.approx(0.1)
    assert b.share == 1.0


def test_a_target_that_is_gone_gets_nothing_and_its_last_request_may_end() -> None:
    g = group("ab")
    gone = member_of(g, "a")
    assert g.choose(b"", [member_of(g, "b")], 0.0) is gone
    g.configure(service({"b": 1}), 1.0)
    assert picks(g, 5) == {"b": 5}
    g.succeeded(gone, 2.0)
    g.left(gone, is_trial=False)
    assert gone.active == 0


def test_a_target_that_was_drained_comes_back_slowly() -> None:
    g = group({"a": 1, "b": 0})
    g.configure(service({"a": 1, "b": 1}, slow_start_s=10.0), 1.0)
    assert member_of(g, "b").share == pytest.approx(0.1)


def test_a_service_that_is_no_longer_checked_forgets_its_checks() -> None:
    g = group("ab", check=CHECK)
    check(g, "a", "---")
    g.configure(service({"a": 1, "b": 1}), 1.0)
    assert g.is_settled


# --- places and the queue -----------------------------------------------------------------------------


def test_places_are_given_first_come_first_served() -> None:
    g = group("a", max_connections=2, max_queue=3)
    g.active = 1
    assert g.has_place()
    g.active = 2
    assert not g.has_place()
    assert [g.wait(name, 0.0) for name in "xyzw"] == [True, True, True, False]
    assert g.next_in_line() is None
    g.leave_queue("y")
    g.active = 1
    assert not g.has_place()  # those that wait come first
    assert g.next_in_line() == "x"
    assert g.next_in_line() == "z"
    assert g.next_in_line() is None
    assert (g.queued_total, g.queue_full_total) == (3, 1)


def test_who_waits_too_long_is_taken_out() -> None:
    g = group("a", max_connections=1, queue_timeout_s=2.0)
    g.active = 1
    g.wait("x", 0.0)
    g.wait("y", 1.0)
    assert g.overdue(1.9) is None
    assert g.overdue(2.0) == "x"
    assert g.overdue(2.0) is None
    assert g.overdue(3.0) == "y"
    assert g.queue_timeouts_total == 2


def test_a_higher_limit_lets_the_queue_go_on() -> None:
    g = group("a", max_connections=1)
    g.active = 1
    g.wait("x", 0.0)
    g.configure(service({"a": 1}, max_connections=2), 1.0)
    assert g.next_in_line() == "x"
    g.wait("y", 1.0)
    g.configure(service({"a": 1}), 1.0)
    assert g.next_in_line() == "y"


def test_without_a_limit_everybody_has_a_place() -> None:
    g = group("ab")
    g.active = 10_000
    assert g.has_place()


def test_others_counts_who_has_not_been_tried() -> None:
    g = group({"a": 1, "b": 1, "c": 0})
    assert g.others(None) == 2
    assert g.others([member_of(g, "a")]) == 1
    assert Counter(pick(g, tried="a") for _ in range(5)) == {"b": 5}
    assert pick(g, tried="ab") == ""
