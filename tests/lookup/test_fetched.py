"""One fetch for all, old values that go on working, and pauses after failures."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.lookup.fetched import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    LONGEST_STALE_PAUSE_S,
    Backoff,
    Fetched,
    IssuerUnavailableError,
)


class Source:
    """Something to fetch, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fetches = 0
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.fetched = Fetched("it", self.fetch, 10.0, lambda: self.now)

    async def fetch(self) -> int:
        self.fetches += 1
        mine = self.fetches
        await self.gate.wait()
        if self.broken:
            raise IssuerUnavailableError(f"try {mine} failed")
        return mine

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_many_share_one_fetch() -> None:
    source = Source()
    source.gate.clear()
    waiting = [asyncio.create_task(source.fetched.get()) for _ in range(20)]
    await source.settle()
    source.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 20
    assert await source.fetched.get() == 1
    assert source.fetches == 1


async def test_one_waiter_that_leaves_does_not_end_it_for_the_others() -> None:
    source = Source()
    source.gate.clear()
    first, second = asyncio.create_task(source.fetched.get()), asyncio.create_task(source.fetched.get())
    await source.settle()
    first.cancel()
    await source.settle()
    source.gate.set()
    assert await second == 1


async def test_an_old_value_goes_on_working_while_a_new_one_is_fetched() -> None:
    source = Source()
    await source.fetched.get()
    source.now += 10
    source.gate.clear()
    assert await source.fetched.get() == 1
    assert await source.fetched.get() == 1
    source.gate.set()
    await source.settle()
    assert await source.fetched.get() == 2
    assert source.fetches == 2


async def test_an_old_value_outlives_its_source_which_is_not_hammered() -> None:
    source = Source()
    await source.fetched.get()
    source.broken = True
    source.now += 10
    for _ in range(1_000):
        assert await source.fetched.get() == 1
        await asyncio.sleep(0)
        source.now += 1
    assert source.fetches <= 6 + 1_000 / LONGEST_STALE_PAUSE_S


async def test_without_a_value_a_failure_is_told_at_once_until_the_pause_is_over() -> None:
    source = Source()
    source.broken = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError, match="try 1 failed"):
            await source.fetched.get()
    source.now += FIRST_PAUSE_S
    with pytest.raises(IssuerUnavailableError, match="try 2 failed"):
        await source.fetched.get()
    source.now += LONGEST_PAUSE_S
    source.broken = False
    assert await source.fetched.get() == 3


async def test_a_renewal_is_shared_and_not_done_again_within_the_pause() -> None:
    source = Source()
    await source.fetched.get()
    assert await source.fetched.renewed(30) == 1
    source.now += 30
    assert await asyncio.gather(*(source.fetched.renewed(30) for _ in range(20))) == [2] * 20
    source.now += 29
    assert await source.fetched.renewed(30) == 2
    assert source.fetches == 2


async def test_a_renewal_that_fails_is_told_and_leaves_the_value() -> None:
    source = Source()
    await source.fetched.get()
    source.now += 60
    source.broken = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError):
            await source.fetched.renewed(30)
    assert source.fetches == 2
    assert source.fetched.value == 1


async def test_closing_ends_a_fetch() -> None:
    source = Source()
    source.gate.clear()
    waiting = asyncio.create_task(source.fetched.get())
    await source.settle()
    await source.fetched.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await source.fetched.close()


def test_tolerated_failures_cost_no_pause_and_a_success_forgets_all() -> None:
    backoff = Backoff(tolerance=2)
    for _ in range(2):
        backoff.failed(0.0)
    assert not backoff.is_pausing(0.0, 5.0)
    backoff.failed(0.0)
    assert backoff.is_pausing(0.9, 5.0)
    assert not backoff.is_pausing(1.0, 5.0)
    for _ in range(50):
        backoff.failed(0.0)
    assert backoff.is_pausing(4.9, 5.0)
    assert not backoff.is_pausing(5.0, 5.0)
    backoff.succeeded()
    assert not backoff.is_pausing(0.0, 5.0)
