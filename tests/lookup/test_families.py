"""A client that logs in for each request does not fill the store, and ends nobody's family but its own."""

from __future__ import annotations

import orjson
import pytest

from authgate_fast.lookup import families
from authgate_fast.lookup.families import LIST_PREFIX, count_family
from authgate_fast.lookup.memory_store import MemoryStore
from tests.lookup.jwt_kit import consumer, jwt_worker

PREFIX = "authgate:state:refresh:shop:"


async def login(store: MemoryStore, sid: str, used_at: float, consumer: str = "ann") -> None:
    await store.put(PREFIX + sid, orjson.dumps({"issued_at": used_at}), 3_600)
    await count_family(store, prefix=PREFIX, gateway="shop", consumer=consumer, sid=sid, ttl_s=3_600)


async def living(store: MemoryStore) -> set[str]:
    return {name.removeprefix(PREFIX) for name in await store.names(PREFIX, 10_000)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MAX_FAMILIES", 10)
    monkeypatch.setattr(families, "DROPPED_AT_ONCE", 3)


async def test_the_families_of_one_consumer_are_bounded_and_the_longest_unused_go_first() -> None:
    store = MemoryStore()
    await login(store, "in-use", used_at=1_000_000)
    await login(store, "of-bob", used_at=0, consumer="bob")
    for n in range(100):
        await login(store, f"s{n}", used_at=n)
        assert len(await living(store)) <= 11
    alive = await living(store)
    assert {"in-use", "of-bob", "s99", "s98"} <= alive
    assert "s50" not in alive


async def test_families_that_have_ended_make_room_before_a_living_one_does() -> None:
    store = MemoryStore()
    await login(store, "old", used_at=0)
    for n in range(100):
        await login(store, f"s{n}", used_at=n)
        await store.delete(f"{PREFIX}s{n}")
    assert await living(store) == {"old"}


async def test_a_spoilt_list_begins_anew() -> None:
    store = MemoryStore()
    for text in (b"rubbish", b"{}", b'{"families":7}', b'{"families":[7]}'):
        await store.put(LIST_PREFIX + "shop:ann", text, None)
        await login(store, "a", used_at=0)
        assert await store.get(LIST_PREFIX + "shop:ann") == b'{"families":["a"]}'


async def test_a_login_for_each_request_over_sockets() -> None:
    store = MemoryStore()
    async with jwt_worker(store, consumers={"ann": consumer(), "bob": consumer()}) as worker:
        kept = await worker.tokens("bob")
        for _ in range(30):
            last = await worker.tokens("ann")
        assert len(await living(store)) <= 12
        assert (await worker.refresh(last["refresh_token"])).status == 200
        assert (await worker.refresh(kept["refresh_token"])).status == 200
