"""What every `StateStore` promises. A module of tests subclasses `StoreKit` and gives it a store at work.

Ends are waited for in real time, so they are short; a store in memory and one in Redis pass the same tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from authgate_fast.lookup.store import StateStore

SESSION = "authgate:state:session:"
OTHER = "authgate:state:refresh:shop:"
SECRET = "authgate:secret:shop"


async def eventually(condition: Callable[[], object], within_s: float = 8.0) -> float:
    """Look every millisecond until the condition holds; return the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, "this did not come true in time"
        await asyncio.sleep(0.001)
    return time.monotonic() - start


async def until_gone(store: StateStore, name: str, within_s: float = 8.0) -> None:
    start = time.monotonic()
    while await store.get(name) is not None:
        assert time.monotonic() - start < within_s, f"{name} did not end"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def at_work(store: StateStore) -> AsyncIterator[StateStore]:
    """Run a store for the length of a block; afterwards nothing of it is left."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(store.run(), name="store")
    try:
        yield store
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()
    assert asyncio.all_tasks() == before


class StoreKit:
    """The promises."""

    def working(self) -> AbstractAsyncContextManager[StateStore]:
        """Return a fresh store, running and connected, for the length of a block."""
        raise NotImplementedError

    async def test_what_was_put_is_there(self) -> None:
        async with self.working() as store:
            assert await store.get(OTHER + "a") is None
            await store.put(OTHER + "a", b"\x00\xff\r\n one", None)
            assert await store.get(OTHER + "a") == b"\x00\xff\r\n one"
            await store.put(OTHER + "a", b"two", 30)
            assert await store.get(OTHER + "a") == b"two"
            await store.put(OTHER + "a", b"", None)
            assert await store.get(OTHER + "a") == b""

    async def test_a_value_ends(self) -> None:
        async with self.working() as store:
            await store.put(OTHER + "put", b"1", 0.05)
            assert await store.add(OTHER + "add", b"1", 0.05)
            await store.put(OTHER + "swap", b"1", None)
            assert await store.swap(OTHER + "swap", b"1", b"2", 0.05)
            await store.put(OTHER + "stays", b"1", 0.05)
            await store.put(OTHER + "stays", b"2", None)
            for name in ("put", "add", "swap"):
                await until_gone(store, OTHER + name)
            assert await store.get(OTHER + "stays") == b"2"
            assert not await store.touch(OTHER + "put", 30)
            assert not await store.delete(OTHER + "put")
            assert await store.take(OTHER + "put") is None
            assert not await store.swap(OTHER + "put", b"1", b"2", None)
            assert await store.names(OTHER, 10) == [OTHER + "stays"]
            assert await store.add(OTHER + "put", b"new", None)

    async def test_add_never_overwrites(self) -> None:
        async with self.working() as store:
            assert await store.add(SECRET, b"first", None)
            assert not await store.add(SECRET, b"second", 30)
            assert await store.get(SECRET) == b"first"

    async def test_of_many_that_add_at_once_one_does(self) -> None:
        async with self.working() as store:
            done = await asyncio.gather(*(store.add(SECRET, b"%d" % n, None) for n in range(30)))
            assert done.count(True) == 1
            assert await store.get(SECRET) == b"%d" % done.index(True)

    async def test_of_many_that_take_at_once_one_gets_it(self) -> None:
        async with self.working() as store:
            await store.put(OTHER + "a", b"once", 30)
            got = await asyncio.gather(*(store.take(OTHER + "a") for _ in range(30)))
            assert sorted(value for value in got if value is not None) == [b"once"]
            assert await store.get(OTHER + "a") is None

    async def test_of_many_that_swap_at_once_one_does(self) -> None:
        async with self.working() as store:
            await store.put(OTHER + "a", b"old", 30)
            done = await asyncio.gather(*(store.swap(OTHER + "a", b"old", b"%d" % n, 30) for n in range(30)))
            assert done.count(True) == 1
            assert await store.get(OTHER + "a") == b"%d" % done.index(True)

    async def test_swap_changes_only_what_was_seen(self) -> None:
        async with self.working() as store:
            assert not await store.swap(OTHER + "a", b"", b"new", None)
            assert await store.get(OTHER + "a") is None
            await store.put(OTHER + "a", b"one", None)
            assert not await store.swap(OTHER + "a", b"on", b"new", None)
            assert await store.swap(OTHER + "a", b"one", b"new", None)
            assert await store.get(OTHER + "a") == b"new"

    async def test_delete_tells_whether_there_was_one(self) -> None:
        async with self.working() as store:
            await store.put(OTHER + "a", b"1", 30)
            assert await store.delete(OTHER + "a")
            assert not await store.delete(OTHER + "a")
            assert await store.get(OTHER + "a") is None

    async def test_touch_moves_the_end_both_ways(self) -> None:
        async with self.working() as store:
            await store.put(OTHER + "a", b"1", 0.05)
            assert await store.touch(OTHER + "a", 30)
            await store.put(OTHER + "b", b"1", 0.05)
            await until_gone(store, OTHER + "b")
            await asyncio.sleep(0.05)
            assert await store.get(OTHER + "a") == b"1"
            assert await store.touch(OTHER + "a", 0.05)
            await until_gone(store, OTHER + "a")

    async def test_names_are_found_by_their_start(self) -> None:
        async with self.working() as store:
            for name in ("a1", "a2", "b1", "a*", "[a]"):
                await store.put(OTHER + name, b"1", 30)
            assert sorted(await store.names(OTHER + "a", 10)) == [OTHER + "a*", OTHER + "a1", OTHER + "a2"]
            assert await store.names(OTHER + "a*", 10) == [OTHER + "a*"]
            assert await store.names(OTHER + "[a]", 10) == [OTHER + "[a]"]
            assert len(await store.names(OTHER, 2)) == 2
            assert await store.names(OTHER + "c", 10) == []

    async def test_every_change_under_a_watched_prefix_is_told(self) -> None:
        async with self.working() as store:
            told: list[str] = []
            store.on_change.append(told.append)
            await store.put(SESSION + "a", b"1", 30)
            await eventually(lambda: told == [SESSION + "a"])
            assert await store.swap(SESSION + "a", b"1", b"2", 30)
            await eventually(lambda: told == [SESSION + "a"] * 2)
            assert await store.take(SESSION + "a") == b"2"
            await eventually(lambda: told == [SESSION + "a"] * 3)
            assert await store.add(SECRET, b"1", None)
            await eventually(lambda: told[3:] == [SECRET])
            assert await store.delete(SECRET)
            await eventually(lambda: told[3:] == [SECRET] * 2)

    async def test_an_end_is_told(self) -> None:
        async with self.working() as store:
            told: list[str] = []
            await store.put(SESSION + "a", b"1", 0.2)
            store.on_change.append(told.append)
            await eventually(lambda: SESSION + "a" in told)
            assert await store.get(SESSION + "a") is None

    async def test_what_nobody_remembers_changes_in_silence(self) -> None:
        async with self.working() as store:
            told: list[str] = []
            store.on_change.append(told.append)
            await store.put(OTHER + "a", b"1", 30)
            await store.put(SESSION + "a", b"1", 30)
            await eventually(lambda: told)
            assert told == [SESSION + "a"]

    async def test_nobody_is_told_from_within_a_call(self) -> None:
        async with self.working() as store:
            told: list[str] = []
            store.on_change.append(told.append)
            call = store.put(SESSION + "a", b"1", 30)
            inside: list[bool] = []
            store.on_change.append(lambda _name: inside.append(asyncio.current_task() is me))
            me = asyncio.current_task()
            await call
            await eventually(lambda: told)
            assert inside == [False]

    async def test_it_says_what_it_is(self) -> None:
        async with self.working() as store:
            status = store.status()
            assert status["type"] in ("memory", "redis")
            assert status["connected"] is True
