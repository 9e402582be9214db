"""Failed checks are counted: a few mistakes are forgiven, a guesser is held to the limit, memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth import failures
from authgate_fast.auth.failures import FailureGuard, address_name

START = 1_900_000_000.0
ADDRESS = "192.0.2.1"
WINDOWS = st.floats(1, 3_600)
LIMITS = st.integers(1, 100)


def try_at(guard: FailureGuard, now: float, address: str = ADDRESS, account: bytes = b"") -> bool:
    """Try once, wrongly; tell whether the attempt was let through."""
    if guard.retry_after_s(address, account, now):
        return False
    guard.failed(address, account, now)
    return True


@given(limit=LIMITS, window_s=WINDOWS)
def test_just_the_limit_is_let_through_at_once(limit: int, window_s: float) -> None:
    guard = FailureGuard(limit, 1_000, window_s)
    assert [try_at(guard, START) for _ in range(limit + 3)] == [True] * limit + [False] * 3


@given(limit=LIMITS, window_s=WINDOWS)
def test_an_account_has_its_limit_whatever_the_addresses(limit: int, window_s: float) -> None:
    guard = FailureGuard(1_000, limit, window_s)
    tries = [try_at(guard, START, f"192.0.2.{number}", b"gw/ann") for number in range(limit + 3)]
    assert tries == [True] * limit + [False] * 3
    assert try_at(guard, START, "192.0.2.1", b"gw/bob")
    assert try_at(guard, START, "192.0.2.1", b"")


@given(limit=st.integers(1, 30), window_s=WINDOWS, per_window=st.floats(0.1, 500), windows=st.integers(1, 6))
def test_a_steady_guesser_gets_the_limit_in_each_window_and_a_first_burst(
    limit: int, window_s: float, per_window: float, windows: int
) -> None:
    guard = FailureGuard(limit, 1_000, window_s)
    tries = int(windows * per_window)
    through = sum(try_at(guard, START + number * window_s / per_window) for number in range(tries))
    assert through <= limit * (windows + 1)
    if per_window <= limit:
        assert through == tries, "who stays below the limit is never blocked"


@given(limit=LIMITS, window_s=WINDOWS)
def test_after_the_time_that_a_caller_is_told_it_is_let_in(limit: int, window_s: float) -> None:
    guard = FailureGuard(limit, 1_000, window_s)
    for _ in range(limit + 5):
        guard.failed(ADDRESS, b"", START)  # also past the limit: checks that were under way
    wait_s = guard.retry_after_s(ADDRESS, b"", START)
    assert isinstance(wait_s, int)
    assert 1 <= wait_s <= 2 * window_s / limit + 1
    assert try_at(guard, START + wait_s)


@given(limit=LIMITS, window_s=WINDOWS)
def test_all_is_forgotten_a_window_after_the_last_failure(limit: int, window_s: float) -> None:
    guard = FailureGuard(limit, 1_000, window_s)
    for _ in range(10 * limit):
        guard.failed(ADDRESS, b"", START)
    later = START + window_s * (1 + 1 / limit) + 0.001
    assert [try_at(guard, later) for _ in range(limit + 1)] == [True] * limit + [False]


@given(limit=LIMITS, window_s=WINDOWS, back_s=st.floats(1, 1e6))
def test_a_clock_that_is_set_back_shuts_nobody_out(limit: int, window_s: float, back_s: float) -> None:
    guard = FailureGuard(limit, 1_000, window_s)
    for _ in range(limit):
        guard.failed(ADDRESS, b"", START)
    wait_s = guard.retry_after_s(ADDRESS, b"", START - back_s)
    assert wait_s <= 2 * window_s / limit + 1
    assert not guard.retry_after_s(ADDRESS, b"", START - back_s + wait_s)


def test_what_one_did_is_not_counted_against_another() -> None:
    guard = FailureGuard(1, 1, 60)
    guard.failed("192.0.2.1", b"gw/ann", START)
    assert guard.retry_after_s("192.0.2.1", b"gw/bob", START)
    assert guard.retry_after_s("192.0.2.2", b"gw/ann", START)
    assert not guard.retry_after_s("192.0.2.2", b"gw/bob", START)
    assert not guard.retry_after_s("192.0.2.2", b"192.0.2.1", START), (
        "an account may be called like an address"
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8:0:0:ffff::", True),
        ("2001:db8::1", "2001:DB8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::1", "::ffff:192.0.2.1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_ipv6_customer_is_one_address_and_a_mapped_one_is_ipv4(one: str, other: str, same: bool) -> None:
    assert (address_name(one) == address_name(other)) is same


@pytest.mark.parametrize("text", ["", "unix:/run/socket", "::g", "1.2.3.4:80"])
def test_what_is_no_address_is_its_own_name(text: str) -> None:
    assert address_name(text) == text


def test_the_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_NAMES", 100)
    guard = FailureGuard(1, 1, 60)
    for number in range(1_000):
        guard.failed(f"10.0.{number // 250}.{number % 250}", b"gw/%d" % number, START)
        guard.failed("192.0.2.1", b"", START)
    blocked = [
        number
        for number in range(1_000)
        if guard.retry_after_s(f"10.0.{number // 250}.{number % 250}", b"", START)
    ]
    assert blocked == list(range(901, 1_000))
    assert guard.retry_after_s("192.0.2.1", b"", START), "who goes on failing is not the oldest"


def test_addresses_do_not_wash_accounts_out_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_NAMES", 100)
    guard = FailureGuard(1_000, 1, 60)
    guard.failed(ADDRESS, b"gw/ann", START)
    for number in range(1_000):
        guard.failed(f"10.0.{number // 250}.{number % 250}", b"", START)
    assert guard.retry_after_s("192.0.2.2", b"gw/ann", START)


def test_a_rounding_error_is_no_wait() -> None:
    guard = FailureGuard(1, 1_000, 2731.9999999999995)
    for _ in range(6):
        guard.failed(ADDRESS, b"", START)
    assert not guard.retry_after_s(ADDRESS, b"", START + guard.retry_after_s(ADDRESS, b"", START))
