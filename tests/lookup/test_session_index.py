"""The lists by which a logout at the provider finds every session, whatever happens at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from authgate_fast.auth.session import session_name
from authgate_fast.auth.tokens import TokenError
from authgate_fast.lookup import session_index
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.redis_store import RedisStateStore
from authgate_fast.lookup.session_index import SessionIndex
from authgate_fast.lookup.sessions import Sessions
from authgate_fast.lookup.store import StateStore, StateUnavailableError
from tests.auth.bff_world import BffWorld, record
from tests.redis_server import RedisServer

PREFIX = "authgate:state:session:"


def name(number: int) -> str:
    return session_name("shop", str(number).encode())


async def begin(store: StateStore, number: int, sid: str = "s-1", sub: str = "u-1") -> None:
    """What a login does."""
    await SessionIndex(store).add("shop", record(sid=sid, claims={"sub": sub}), name(number), 60)
    await store.put(name(number), b"x", 60)


async def left(store: StateStore) -> set[str]:
    return set(await store.names(PREFIX, 10_000))


async def test_all_sessions_of_a_sign_in_end_and_nobody_elses() -> None:
    store = MemoryStore()
    for number, sid in enumerate(("s-1", "s-2", "s-1", "", "s-1")):
        await begin(store, number, sid)
    assert await SessionIndex(store).end_sign_in("shop", "s-1") == 3
    assert await left(store) == {name(1), name(3)}
    assert await SessionIndex(store).end_sign_in("shop2", "s-2") == 0
    assert await SessionIndex(store).end_user("shop", "u-2") == 0
    assert await SessionIndex(store).end_user("shop", "u-1") == 2
    assert await left(store) == set()


async def test_a_sign_in_goes_on_after_its_sessions_ended() -> None:
    store = MemoryStore()
    for number in range(3):
        await begin(store, number)
        assert await SessionIndex(store).end_sign_in("shop", "s-1") == 1


async def test_a_full_list_first_loses_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_index, "MAX_PER_SIGN_IN", 3)
    store = MemoryStore()
    for number in range(3):
        await begin(store, number)
    await store.delete(name(1))
    await begin(store, 3)
    assert await left(store) == {name(0), name(2), name(3)}
    assert await SessionIndex(store).end_sign_in("shop", "s-1") == 3


@pytest.mark.parametrize(("limit", "sub"), [("MAX_PER_SIGN_IN", False), ("MAX_PER_USER", True)])
async def test_of_too_many_the_oldest_end_and_none_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, limit: str, sub: bool
) -> None:
    monkeypatch.setattr(session_index, limit, 3)
    store = MemoryStore()
    for number in range(6):
        await begin(store, number)
    assert await left(store) == {name(3), name(4), name(5)}
    index = SessionIndex(store)
    assert await (index.end_user("shop", "u-1") if sub else index.end_sign_in("shop", "s-1")) == 3
    assert await left(store) == set()


async def test_logins_at_the_same_moment_are_all_listed(redis_server: RedisServer) -> None:
    store = RedisStateStore(redis_server.url)
    try:
        await asyncio.gather(*(begin(store, number) for number in range(20)))
        assert len(await left(store)) == 20
        assert await SessionIndex(store).end_user("shop", "u-1") == 20
        assert await left(store) == set()
        assert await SessionIndex(store).end_user("shop", "u-1") == 0
    finally:
        await store.close()


async def test_a_list_ends_with_the_last_of_its_sessions() -> None:
    now = 0.0
    store = MemoryStore(lambda: now)
    await begin(store, 1)
    now = 59.0
    await begin(store, 2)
    now = 118.0
    assert await store.names("authgate:state:sid:", 10)
    now = 120.0
    assert not await store.names("authgate:state:s", 10)


async def test_a_logout_that_failed_on_the_way_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for number in range(20):
        await begin(store, number)
    deletions = 0

    async def delete(name: str) -> bool:
        nonlocal deletions
        deletions += 1
        if deletions > 10:
            raise StateUnavailableError("away")
        return await MemoryStore.delete(store, name)

    with monkeypatch.context() as failing:
        failing.setattr(store, "delete", delete)
        with pytest.raises(StateUnavailableError):
            await SessionIndex(store).end_user("shop", "u-1")
    assert await left(store)
    await SessionIndex(store).end_user("shop", "u-1")
    assert await left(store) == set()


class RacingStore(MemoryStore):
    """Has something else happen just before or after a session is stored, or just before a list is emptied."""

    before: Callable[[], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    before_emptying: Callable[[], Awaitable[object]] | None = None

    async def put(self, name: str, value: bytes, ttl_s: float | None) -> None:
        if self.before is not None and name.startswith(PREFIX):
            await self.before()
        await super().put(name, value, ttl_s)
        if self.after is not None and name.startswith(PREFIX):
            await self.after()

    async def swap(self, name: str, old: bytes, new: bytes, ttl_s: float | None) -> bool:
        if self.before_emptying is not None and not new:
            meanwhile, self.before_emptying = self.before_emptying, None
            await meanwhile()
        return await super().swap(name, old, new, ttl_s)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("sub", [True, False])
async def test_a_logout_in_the_middle_of_a_login_wins(moment: str, sub: bool) -> None:
    world, store = BffWorld(), RacingStore()
    sessions = Sessions(store, world.sessions.renewer._issuers)

    async def log_out() -> None:
        await (sessions.index.end_user("kit", "u-1") if sub else sessions.index.end_sign_in("kit", "s-1"))

    setattr(store, moment, log_out)
    with pytest.raises(TokenError):
        await sessions.begin(world.authenticator, record(sid="s-1"))
    assert await left(store) == set()


async def test_a_login_in_the_middle_of_a_logout_ends_too() -> None:
    store = RacingStore()
    await begin(store, 1)
    await SessionIndex(store).add("shop", record(sid="s-1"), name(2), 60)
    store.before_emptying = lambda: store.put(name(2), b"x", 60)  # it finds itself listed, and goes on
    await SessionIndex(store).end_sign_in("shop", "s-1")
    assert await left(store) == set()

    await begin(store, 3)
    store.before_emptying = lambda: begin(store, 4)
    await SessionIndex(store).end_sign_in("shop", "s-1")
    assert await left(store) == set()
