"""Runtime state in memory: what every store promises, and that it never grows without a limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.store import StateStore, StateUnavailableError
from tests.lookup.store_kit import OTHER, SECRET, SESSION, StoreKit, at_work, eventually


class TestMemoryStore(StoreKit):
    @asynccontextmanager
    async def working(self) -> AsyncIterator[StateStore]:
        async with at_work(MemoryStore()) as store:
            yield store


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_full_store_refuses_what_is_new_and_keeps_what_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore(max_entries=3)
    for n in range(3):
        await store.put(f"{OTHER}{n}", b"1", 30)
    for _ in range(2):
        with pytest.raises(StateUnavailableError, match=r"full .* needs Redis"):
            await store.put(OTHER + "new", b"1", 30)
    with pytest.raises(StateUnavailableError):
        await store.add(OTHER + "new", b"1", 30)
    assert [r.levelno for r in caplog.records] == [logging.ERROR], "a full store is logged once"
    assert store.status()["full"] is True
    await store.put(OTHER + "1", b"changed", 30)
    assert await store.swap(OTHER + "1", b"changed", b"2", 30)
    assert [await store.get(f"{OTHER}{n}") for n in range(3)] == [b"1", b"2", b"1"]


async def test_a_flood_of_one_kind_does_not_shut_out_the_others() -> None:
    store = MemoryStore(max_entries=2)
    for n in range(2):
        await store.put(f"authgate:state:login:{n}", b"1", 30)
    await store.put(SESSION + "a", b"1", 30)
    await store.put(SECRET, b"1", None)
    with pytest.raises(StateUnavailableError):
        await store.put("authgate:state:login:3", b"1", 30)


async def test_the_size_of_all_values_is_bounded() -> None:
    store = MemoryStore(max_bytes=100)
    await store.put(OTHER + "a", b"x" * 90, 30)
    with pytest.raises(StateUnavailableError):
        await store.put(OTHER + "b", b"x" * 11, 30)
    with pytest.raises(StateUnavailableError):
        await store.swap(OTHER + "a", b"x" * 90, b"x" * 101, 30)
    await store.put(OTHER + "a", b"x" * 80, 30)
    await store.put(OTHER + "b", b"x" * 20, 30)
    await store.delete(OTHER + "a")
    await store.delete(OTHER + "b")
    assert store.status()["bytes"] == 0


async def test_what_has_ended_makes_room_without_anybody_running() -> None:
    clock = Clock()
    store = MemoryStore(clock, max_entries=2)
    await store.put(OTHER + "a", b"1", 5)
    await store.put(OTHER + "b", b"1", 5)
    clock.now = 5.0
    await store.put(OTHER + "c", b"1", 5)
    assert store.status()["entries"] == 1


async def test_what_has_ended_is_swept_although_nobody_asks() -> None:
    clock = Clock()
    async with at_work(MemoryStore(clock)) as store:
        for n in range(100):
            await store.put(f"{OTHER}{n}", b"1", 5)
        await store.put(OTHER + "longer", b"1", 5)
        await store.touch(OTHER + "longer", 50)
        clock.now = 6.0
        await eventually(lambda: store.status()["entries"] == 1)
        clock.now = 51.0
        await eventually(lambda: store.status()["entries"] == 0)


async def test_values_that_come_and_go_leave_nothing_behind() -> None:
    store = MemoryStore()
    store.on_change.append(lambda _name: None)
    for n in range(30_000):
        await store.put(f"{SESSION}{n}", b"1", 600)
        await store.delete(f"{SESSION}{n}")
    assert len(store._ends) < 5_000
    assert len(store._changed) <= 10_000
    assert store._counts == {}


async def test_more_changes_than_can_be_remembered_are_told_as_a_gap() -> None:
    store = MemoryStore()
    gaps: list[int] = []
    told: list[str] = []
    store.on_change.append(told.append)
    store.on_gap.append(lambda: gaps.append(1))
    for n in range(10_001):
        await store.put(f"{SESSION}{n}", b"1", 600)
    async with at_work(store):
        await eventually(lambda: gaps)
        assert not told
        await store.put(SESSION + "again", b"1", 600)
        await eventually(lambda: told == [SESSION + "again"])
    await asyncio.sleep(0)
