"""Signing keys between the store and the authenticators: made once, shared, followed, and never overwritten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from authgate_fast.auth.jwt import JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.signing import PUBLISH_S, Keyring, new_key, parse_keyring
from authgate_fast.lookup.keyring import READ_BURST, SETTLE_S, Keyrings
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.rotation import rotate
from authgate_fast.lookup.store import StateUnavailableError
from authgate_fast.snapshot import Consumers
from tests.lookup.store_kit import at_work, eventually

NAME = "authgate:secret:shop"
NOW = 1_900_000_000.0
SEALING = bytes(range(32))


class Store(MemoryStore):
    """Counts reads; can be away, or slow."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.is_away = False
        self.gate: asyncio.Event | None = None

    async def get(self, name: str) -> bytes | None:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise StateUnavailableError("away")
        return await super().get(name)


def authenticator(gateway: str = "shop", algorithm: str = "EdDSA") -> JwtAuthenticator:
    return JwtAuthenticator(
        gateway,
        f"https://{gateway}.example",
        Consumers(),
        access_ttl_s=900,
        refresh_ttl_s=3_600,
        algorithm=algorithm,
    )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def keyrings_on(store: MemoryStore, **how: Any) -> AsyncIterator[Keyrings]:
    keyrings = Keyrings(store, **how)
    async with at_work(store):
        try:
            yield keyrings
        finally:
            await keyrings.close()


async def stored(store: MemoryStore) -> Keyring:
    text = await MemoryStore.get(store, NAME)
    assert text is not None
    return parse_keyring(text, NAME)


async def test_verifying_makes_no_keys() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        await keyrings.refresh(one)
        assert one.keys == {}
        assert await store.names("", 10) == []


async def test_the_first_need_makes_the_keys_once_for_all_who_need_them() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        made = await asyncio.gather(*(keyrings.signing_key(one) for _ in range(20)))
        assert len({id(key) for key in made}) == 1
        (key,) = (await stored(store)).keys
        assert key.kid == made[0].kid
        assert one.keys is not None
        assert one.keys.keys() == {key.kid}


async def test_of_two_workers_that_make_keys_at_once_both_use_the_first() -> None:
    store = MemoryStore()
    workers = [Keyrings(store) for _ in range(5)]
    made = await asyncio.gather(*(worker.signing_key(authenticator()) for worker in workers))
    assert len({key.kid for key in made}) == 1
    for worker in workers:
        await worker.close()


async def test_one_read_serves_all_who_wait() -> None:
    store = Store()
    store.gate = asyncio.Event()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        waiting = [asyncio.create_task(keyrings.refresh(one)) for _ in range(50)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()  # who leaves does not end it for the others
        store.gate.set()
        await asyncio.gather(*waiting[1:])
        assert store.reads == 1


async def test_invented_kids_cannot_flood_the_store() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        await keyrings.signing_key(one)
        store.reads = 0
        for n in range(500):
            await keyrings.refresh(one, SigningKeysLookup(f"{n:016}"))
        assert 1 <= store.reads <= READ_BURST


async def test_a_known_kid_or_none_reads_nothing() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        key = await keyrings.signing_key(one)
        store.reads = 0
        await keyrings.refresh(one, SigningKeysLookup(key.kid))
        await keyrings.refresh(one, SigningKeysLookup())
        await keyrings.refresh(one)
        assert store.reads == 0


async def test_an_unknown_kid_finds_a_key_whose_change_was_not_told() -> None:
    store = Store()
    keyrings = Keyrings(store)  # nobody runs the store, so nothing is told
    one = authenticator()
    await keyrings.signing_key(one)
    key = new_key("EdDSA", name=NAME, now=NOW, active_at=NOW)
    await store.put(NAME, (await stored(store)).with_new(key).dump(), None)
    assert one.keys is not None
    assert key.kid not in one.keys
    await keyrings.refresh(one, SigningKeysLookup(key.kid))
    assert key.kid in one.keys
    await keyrings.close()


async def test_a_change_in_the_store_reaches_every_authenticator() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        await keyrings.signing_key(one)
        key = await rotate(store, "shop", "EdDSA", revoke=True)
        await eventually(lambda: one.keys is not None and one.keys.keys() == {key.kid})
        assert (await keyrings.signing_key(one)).kid == key.kid


async def test_a_request_with_an_older_document_does_not_take_the_keys_from_the_newer_one() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        older, newer = authenticator(), authenticator()
        for one in (older, newer, older):  # it began before the change, and asks after it
            await keyrings.signing_key(one)
        key = await rotate(store, "shop", "EdDSA", revoke=True)
        await eventually(lambda: newer.keys is not None and newer.keys.keys() == {key.kid})
        assert older.keys == newer.keys


async def test_a_change_while_the_store_is_away_is_taken_in_later() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        await keyrings.signing_key(one)
        store.is_away = True
        key = new_key("EdDSA", name=NAME, now=NOW, active_at=NOW)
        await store.put(NAME, Keyring((key,)).dump(), None)
        await eventually(lambda: store.reads >= 2)
        assert one.keys
        store.is_away = False
        await eventually(lambda: one.keys is not None and one.keys.keys() == {key.kid})


async def test_a_change_during_a_read_is_read_after_it() -> None:
    class Slow(Store):
        async def get(self, name: str) -> bytes | None:
            value = await MemoryStore.get(self, name)
            self.reads += 1
            if self.gate is not None:
                await self.gate.wait()
            return value

    store = Slow()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        await keyrings.signing_key(one)
        await eventually(lambda: store.reads == 2 and keyrings._catching_up is None)  # told of its own change
        store.gate, store.reads = asyncio.Event(), 0
        reading = asyncio.create_task(keyrings.refresh(one, SigningKeysLookup("A" * 16)))
        await eventually(lambda: store.reads == 1)
        key = new_key("EdDSA", name=NAME, now=NOW, active_at=NOW)
        await store.put(NAME, Keyring((key,)).dump(), None)
        await asyncio.sleep(0.01)
        store.gate.set()
        await reading
        await eventually(lambda: one.keys is not None and one.keys.keys() == {key.kid})


async def test_a_gap_reads_all_keyrings_again_one_after_the_other() -> None:
    store = Store()
    keyrings = Keyrings(store)
    ones = [authenticator(f"shop-{n}") for n in range(5)]
    for one in ones:
        await keyrings.refresh(one)
    store.reads = 0
    for listener in store.on_gap:
        listener()
    await eventually(lambda: store.reads == 5)
    await keyrings.close()


async def test_deleted_keys_end_all_tokens_and_the_next_need_makes_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        first = await keyrings.signing_key(one)
        await store.delete(NAME)
        await eventually(lambda: one.keys == {})
        assert "are gone from the store" in caplog.text
        assert (await keyrings.signing_key(one)).kid != first.kid


async def test_a_new_authenticator_of_a_gateway_gets_the_known_keys_without_a_read() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        key = await keyrings.signing_key(authenticator())
        store.reads = 0
        again = authenticator()
        await keyrings.refresh(again)
        assert again.keys is not None
        assert again.keys.keys() == {key.kid}
        assert store.reads == 0
        await store.put(NAME, Keyring((new_key("EdDSA", name=NAME, now=NOW, active_at=NOW),)).dump(), None)
        await eventually(lambda: again.keys is not None and key.kid not in again.keys)


async def test_another_algorithm_makes_the_next_key_and_old_tokens_go_on() -> None:
    store, clock = Store(), Clock()
    async with keyrings_on(store, clock=clock) as keyrings:
        old = await keyrings.signing_key(authenticator())
        changed = authenticator(algorithm="ES256")
        assert (await keyrings.signing_key(changed)).kid == old.kid, "two workers must not make keys in turns"
        clock.now += SETTLE_S
        assert (await keyrings.signing_key(changed)).kid == old.kid, "published before it signs"
        clock.now += PUBLISH_S
        new = await keyrings.signing_key(changed)
        assert new.algorithm == "ES256"
        assert changed.keys is not None
        assert changed.keys.keys() == {old.kid, new.kid}
        first, second = (await stored(store)).keys
        assert not first.may_sign, "the private half of the old key is gone"
        assert second.may_sign


async def test_work_that_comes_in_the_moment_in_which_other_work_ends_is_done() -> None:
    store, clock = Store(), Clock()
    keyrings = Keyrings(store, clock=clock)
    await keyrings.signing_key(authenticator())
    clock.now += SETTLE_S
    one = authenticator(algorithm="ES256")
    ended = asyncio.create_task(asyncio.sleep(0))
    ring = keyrings._ring(one)
    ring.flight = ended
    await asyncio.wait([ended])
    await keyrings.signing_key(one)
    assert len((await stored(store)).keys) == 2
    await keyrings.close()


async def test_two_workers_at_odds_about_the_algorithm_make_no_more_keys_than_may_be() -> None:
    store, clock = Store(), Clock()
    workers = [Keyrings(store, clock=clock) for _ in range(2)]
    ones = [authenticator(algorithm="EdDSA"), authenticator(algorithm="ES256")]
    for _ in range(200):
        clock.now += 1
        for worker, one in zip(workers, ones, strict=True):
            await worker.refresh(one, SigningKeysLookup("A" * 16))
            await worker.signing_key(one)
    assert len((await stored(store)).keys) <= 16
    for worker in workers:
        await worker.close()


@pytest.mark.parametrize("text", [b"rubbish", b'{"version":2}', b""])
async def test_a_keyring_that_cannot_be_read_is_an_error_and_stays(
    text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        await store.put(NAME, text, None)
        one = authenticator()
        for _ in range(3):
            with pytest.raises(StateUnavailableError, match=NAME):
                await keyrings.signing_key(one)
            with pytest.raises(StateUnavailableError, match=NAME):
                await keyrings.refresh(one)
        assert await store.get(NAME) == text
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1, "said once"


async def test_a_keyring_that_is_spoilt_leaves_the_last_good_keys_in_force() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        key = await keyrings.signing_key(one)
        reads = store.reads
        await store.put(NAME, b"rubbish", None)
        await eventually(lambda: store.reads > reads)
        await asyncio.sleep(0)
        assert one.keys is not None
        assert one.keys.keys() == {key.kid}


async def test_a_wrong_sealing_key_signs_nothing_and_overwrites_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    right = Keyrings(store, SEALING)
    key = await right.signing_key(authenticator())
    before = await store.get(NAME)
    for wrong in (b"x" * 32, None):
        keyrings = Keyrings(store, wrong)
        one = authenticator()
        with pytest.raises(StateUnavailableError, match="--secret-key-file"):
            await keyrings.signing_key(one)
        assert one.keys is not None
        assert one.keys.keys() == {key.kid}, "verifying needs no private key"
        await keyrings.close()
    assert await store.get(NAME) == before
    assert SEALING.hex() not in caplog.text
    await right.close()


class LooksLikeRedis(MemoryStore):
    def status(self) -> dict[str, object]:
        return {**super().status(), "type": "redis"}


async def test_keys_that_are_stored_as_they_are_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for sealing_key, warnings in ((None, 1), (SEALING, 0)):
        caplog.clear()
        keyrings = Keyrings(LooksLikeRedis(), sealing_key)
        for _ in range(3):
            await keyrings.signing_key(authenticator())
        said = [record for record in caplog.records if "--secret-key-file" in record.getMessage()]
        assert len(said) == warnings
        await keyrings.close()


async def test_the_public_keys_are_made_on_first_need_too() -> None:
    store = Store()
    async with keyrings_on(store) as keyrings:
        one = authenticator()
        text = await keyrings.jwks(one)
        assert (await keyrings.signing_key(one)).kid.encode() in text


async def test_closing_ends_what_is_under_way() -> None:
    store = Store()
    store.gate = asyncio.Event()
    keyrings = Keyrings(store)
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(keyrings.refresh(authenticator()))
    await asyncio.sleep(0.01)
    await keyrings.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert asyncio.all_tasks() == before
