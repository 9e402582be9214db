"""The retry budget: a fifth of the requests, and a floor for those with few."""

from __future__ import annotations

from authgate_fast.balance.budget import FLOOR, FLOOR_PER_S, RATIO, RetryBudget


def spend(budget: RetryBudget, requests: int) -> int:
    spent = 0
    while budget.take(requests):
        spent += 1
    return spent


def test_a_service_with_little_traffic_has_the_floor() -> None:
    budget = RetryBudget()
    assert spend(budget, 0) == FLOOR
    budget.second_passed(0)
    assert spend(budget, 0) == FLOOR_PER_S


def test_requests_fill_it_by_a_fifth() -> None:
    budget = RetryBudget()
    spend(budget, 0)
    assert spend(budget, 1_000) == RATIO * 1_000


def test_a_dead_backend_does_not_get_much_more_than_a_fifth_more() -> None:
    budget = RetryBudget()
    retries = requests = 0
    for _ in range(60):
        for _ in range(100):
            requests += 1
            retries += budget.take(requests)
        budget.second_passed(requests)
    assert retries <= RATIO * requests + FLOOR + 60 * FLOOR_PER_S


def test_what_was_saved_in_quiet_times_is_bounded() -> None:
    budget = RetryBudget()
    requests = 0
    for _ in range(1_000):
        requests += 100
        budget.second_passed(requests)
    assert spend(budget, requests) <= FLOOR + RATIO * 100 * 10 + 1
    for _ in range(200):
        budget.second_passed(requests)
    assert spend(budget, requests) <= FLOOR + 1
