"""Sessions between memory, store and provider: checked, touched, renewed once, ended for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from authgate_fast.auth.bff import SessionLookup
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.session import open_record, session_key, session_name
from authgate_fast.errors import Reason
from authgate_fast.lookup import session_refresh, sessions
from authgate_fast.lookup.issuer import IssuerUnavailableError, TokenRefusedError, TokenSet
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.store import StateUnavailableError
from authgate_fast.snapshot import Identity
from tests.auth.bff_world import NOW, BffWorld, record


class ScriptedIssuers:
    """A provider's token endpoint: rotates refresh tokens, takes a second use for theft, and can be slow or away."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.revoked: list[str] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_call: Callable[[], Any] | None = None
        self.ttl_s: float | None = 3_600

    async def refresh(self, _client: object, refresh_token: str) -> TokenSet:
        used_before = refresh_token in self.calls
        self.calls.append(refresh_token)
        await self.gate.wait()
        if self.on_call is not None:
            await self.on_call()
        if self.error is not None:
            raise self.error
        if used_before:
            raise TokenRefusedError("invalid_grant", "reused")
        number = len(self.calls) + 1
        return TokenSet(f"access-{number}", "Bearer", self.ttl_s, f"refresh-{number}", None, None)

    async def revoke(self, _client: object, token: str, _hint: str) -> None:
        self.revoked.append(token)


@pytest.fixture
def issuers() -> ScriptedIssuers:
    return ScriptedIssuers()


@pytest.fixture
def world(issuers: ScriptedIssuers) -> BffWorld:
    return BffWorld(issuers=issuers)


async def begun(world: BffWorld, **changes: Any) -> bytes:
    return await world.sessions.begin(world.authenticator, record(world.now, **changes))


def name_of(world: BffWorld, cookie: bytes) -> str:
    return session_name(world.authenticator.gateway, cookie)


async def token(world: BffWorld, cookie: bytes) -> str:
    found = await world.ask(cookie)
    assert isinstance(found, Identity), found.reason
    return found.token_line.decode().split()[2]


async def reason(world: BffWorld, cookie: bytes) -> Reason:
    found = await world.ask(cookie)
    assert isinstance(found, Denial)
    return found.reason


class AwayStore:
    """Makes a world's store fail."""

    def __init__(self, world: BffWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.patch, self.asked = world, monkeypatch, 0

    async def _fail(self, *_: object) -> Any:
        self.asked += 1
        raise StateUnavailableError("the store is away")

    def go(self) -> None:
        for name in ("get", "put", "add", "take", "swap", "delete", "touch"):
            self.patch.setattr(self.world.store, name, self._fail)

    def come_back(self) -> None:
        self.patch.undo()


@pytest.fixture
def away(world: BffWorld, monkeypatch: pytest.MonkeyPatch) -> AwayStore:
    return AwayStore(world, monkeypatch)


# --- checking and touching ----------------------------------------------------------------------------------------


async def test_use_keeps_a_session_alive_and_costs_the_store_little(world: BffWorld) -> None:
    cookie = await begun(world)
    for _ in range(1_800):
        world.now += 2
        assert isinstance(await world.ask(cookie), Identity)
    assert world.store.gets <= 3_600 / 30 + 3
    assert 3_600 / 60 - 2 <= world.store.touches <= 3_600 / 60 + 2


async def test_without_use_it_ends_with_its_idle_time(world: BffWorld) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    world.now += 1_799
    assert isinstance(await world.ask(cookie), Identity)
    world.now += 1_801
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


async def test_its_absolute_end_comes_however_much_it_is_used(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    cookie = await begun(world, ends_at=NOW + 100)
    for _ in range(99):
        world.now += 1
        assert isinstance(await world.ask(cookie), Identity)
    world.now = NOW + 100
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert await world.store.get(name_of(world, cookie)) is None


async def test_a_shorter_absolute_time_in_the_settings_counts_for_old_sessions_too() -> None:
    world = BffWorld()
    cookie = await begun(world, created_at=NOW - 43_190, ends_at=NOW + 1_000_000)
    assert isinstance(await world.ask(cookie), Identity)
    world.now += 10
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


async def test_touches_of_two_workers_do_not_chase_each_other(world: BffWorld) -> None:
    other = BffWorld()
    other.store, other.sessions._store = world.store, world.store
    world.store.on_change.append(other.sessions._changed)
    listening = asyncio.create_task(world.store.run())
    cookie = await begun(world)
    for _ in range(600):
        world.now += 1
        other.now = world.now
        for one in (world, other):
            assert isinstance(await one.ask(cookie), Identity)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    listening.cancel()
    assert world.store.touches <= 600 / 60 + 3
    assert world.store.gets <= 2 * (600 / 30 + 600 / 60 + 3)


async def test_requests_at_once_share_one_look_up(world: BffWorld) -> None:
    cookie = await begun(world)
    found = await asyncio.gather(*(world.ask(cookie) for _ in range(50)))
    assert len({id(one) for one in found}) == 1
    assert world.store.gets == 1


async def test_a_client_that_leaves_does_not_end_the_look_up_of_the_others(world: BffWorld) -> None:
    cookie = await begun(world)
    first, second = asyncio.create_task(world.ask(cookie)), asyncio.create_task(world.ask(cookie))
    await asyncio.sleep(0)
    first.cancel()
    assert isinstance(await second, Identity)


async def test_a_session_of_another_provider_or_client_is_not_taken_over(world: BffWorld) -> None:
    for changes in ({"issuer": "https://other.test"}, {"client_id": "other"}):
        assert await reason(world, await begun(world, **changes)) is Reason.CREDENTIALS_INVALID


async def test_what_somebody_wrote_into_the_store_is_no_session(world: BffWorld) -> None:
    forged = b"A" * 43
    good = await begun(world)
    for value in (b"", b"{}", await world.store.get(name_of(world, good)) or b""):
        await world.store.put(name_of(world, forged), value, 100)
        world.authenticator.dead.clear()
        assert await reason(world, forged) is Reason.CREDENTIALS_INVALID


# --- ends ---------------------------------------------------------------------------------------------------------


async def test_the_end_of_a_session_is_told_and_lasts(world: BffWorld) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    await world.store.delete(name_of(world, cookie))
    world.sessions._changed(name_of(world, cookie))
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    gets = world.store.gets
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert world.store.gets == gets


async def test_the_end_of_a_session_that_was_known_is_no_failed_guess(world: BffWorld) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    await world.store.delete(name_of(world, cookie))
    world.now += 30
    found = await world.ask(cookie)
    assert isinstance(found, Denial)
    assert not found.is_failure
    unknown = await world.ask(b"A" * 43)
    assert isinstance(unknown, Denial)
    assert unknown.is_failure


async def test_a_stream_on_the_worker_that_logs_out_ends_at_once(world: BffWorld) -> None:
    cookie = await begun(world)
    found = await world.ask(cookie)
    assert isinstance(found, Identity)
    assert found.session is not None
    await world.sessions.end(world.authenticator, cookie)
    assert world.sessions.has_ended(found.session)


async def test_a_session_that_ends_while_it_is_read_is_not_remembered(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)
    real_get = world.store.get

    async def slow_get(name: str) -> bytes | None:
        value = await real_get(name)
        if value is not None:  # what another worker does between the store's answer and its arrival here
            await MemoryStore.delete(world.store, name)
            world.sessions._changed(name)
        return value

    monkeypatch.setattr(world.store, "get", slow_get)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert not world.authenticator.sessions


async def test_a_session_that_this_worker_ends_while_it_is_read_is_not_remembered(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)
    real_get = world.store.get

    async def slow_get(name: str) -> bytes | None:
        value = await real_get(name)
        await world.sessions.end(world.authenticator, cookie)
        return value

    monkeypatch.setattr(world.store, "get", slow_get)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert not world.authenticator.sessions


async def test_a_known_session_that_this_worker_ends_while_it_is_checked_is_forgotten(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    world.now += 30  # to be checked, and not to be touched
    real_get = world.store.get

    async def slow_get(name: str) -> bytes | None:
        value = await real_get(name)
        await world.sessions.end(world.authenticator, cookie)
        return value

    monkeypatch.setattr(world.store, "get", slow_get)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert not world.authenticator.sessions


async def test_a_session_that_ends_between_reading_and_touching_is_over(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)

    async def too_late(name: str, _ttl_s: float) -> bool:
        await world.store.delete(name)
        return False

    monkeypatch.setattr(world.store, "touch", too_late)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


async def test_a_session_that_this_worker_ends_while_it_is_touched_is_not_remembered(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)
    real_touch = world.store.touch

    async def slow_touch(name: str, ttl_s: float) -> bool:
        touched = await real_touch(name, ttl_s)
        await world.sessions.end(world.authenticator, cookie)
        return touched

    monkeypatch.setattr(world.store, "touch", slow_touch)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert not world.authenticator.sessions


async def test_a_session_that_changes_all_the_time_is_read_each_time(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world)
    real_get = world.store.get

    async def restless_get(name: str) -> bytes | None:
        value = await real_get(name)
        world.sessions._changed(name)
        return value

    monkeypatch.setattr(world.store, "get", restless_get)
    for number in (1, 2):
        assert isinstance(await world.ask(cookie), Identity)
        assert world.store.gets == number * sessions.MAX_READS


async def test_a_dead_cookie_costs_the_store_nothing(world: BffWorld) -> None:
    await world.ask(b"A" * 43)
    gets = world.store.gets
    assert await world.sessions.session_of(world.authenticator, b"A" * 43) is None
    assert world.store.gets == gets


async def test_a_change_that_was_missed_is_found_after_the_gap(world: BffWorld) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    await world.store.delete(name_of(world, cookie))
    assert isinstance(await world.ask(cookie), Identity)
    world.sessions._missed()
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


async def test_a_change_that_nobody_told_of_is_found_within_the_check_time(world: BffWorld) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    await world.store.delete(name_of(world, cookie))
    world.now += 30
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


# --- streams ------------------------------------------------------------------------------------------------------


async def settled(world: BffWorld) -> None:
    while world.sessions._rechecks:
        await asyncio.wait(world.sessions._rechecks)


async def test_a_stream_learns_of_the_end_within_a_minute_without_being_told(world: BffWorld) -> None:
    cookie = await begun(world)
    found = await world.ask(cookie)
    assert isinstance(found, Identity)
    session = found.session
    assert session is not None
    assert not world.sessions.has_ended(session)
    await world.store.delete(name_of(world, cookie))
    for _ in range(21):
        world.now += 1
        world.sessions.has_ended(session)
        await settled(world)
    assert world.sessions.has_ended(session)


async def test_a_stream_asks_seldom_and_keeps_no_session_alive(world: BffWorld) -> None:
    cookie = await begun(world)
    found = await world.ask(cookie)
    assert isinstance(found, Identity)
    assert found.session is not None
    gets, touches = world.store.gets, world.store.touches
    ended_at = None
    for _ in range(2_000):
        world.now += 1
        if world.sessions.has_ended(found.session):
            ended_at = world.now - NOW
            break
        await settled(world)
    assert ended_at is not None
    assert 1_800 <= ended_at <= 1_860
    assert world.store.touches == touches
    assert world.store.gets - gets <= 1_860 / 20 + 1


async def test_a_stream_beside_requests_does_not_stop_them_from_keeping_the_session_alive(
    world: BffWorld,
) -> None:
    cookie = await begun(world)
    found = await world.ask(cookie)
    assert isinstance(found, Identity)
    assert found.session is not None
    for _ in range(2_500):
        world.now += 1
        assert not world.sessions.has_ended(found.session)
        await settled(world)
        assert isinstance(await world.ask(cookie), Identity)


async def test_a_stream_is_told_at_once_what_the_store_tells(world: BffWorld) -> None:
    found = await world.ask(cookie := await begun(world))
    assert isinstance(found, Identity)
    assert found.session is not None
    await world.store.delete(name_of(world, cookie))
    world.sessions._changed(name_of(world, cookie))
    assert not world.sessions.has_ended(found.session)
    await settled(world)
    assert world.sessions.has_ended(found.session)
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID


async def test_a_stream_ends_with_the_absolute_end(world: BffWorld) -> None:
    found = await world.ask(await begun(world, ends_at=NOW + 50))
    assert isinstance(found, Identity)
    assert found.session is not None
    world.now = NOW + 49
    assert not world.sessions.has_ended(found.session)
    world.now = NOW + 50
    assert world.sessions.has_ended(found.session)
    await settled(world)


async def test_a_stream_goes_on_for_a_minute_without_the_store(world: BffWorld, away: AwayStore) -> None:
    found = await world.ask(await begun(world))
    assert isinstance(found, Identity)
    assert found.session is not None
    away.go()
    for _ in range(60):
        world.now += 1
        assert not world.sessions.has_ended(found.session)
        await settled(world)
    assert away.asked <= 10
    world.now += 1
    assert world.sessions.has_ended(found.session)


# --- the store away -----------------------------------------------------------------------------------------------


async def test_without_the_store_a_known_session_goes_on_for_a_minute_and_no_longer(
    world: BffWorld, away: AwayStore
) -> None:
    cookie, unknown = await begun(world), await begun(world)
    await world.ask(cookie)
    away.go()
    for _ in range(59):
        world.now += 1
        assert isinstance(await world.ask(cookie), Identity)
    assert away.asked <= 8
    world.now += 1
    with pytest.raises(StateUnavailableError):
        await world.ask(cookie)
    with pytest.raises(StateUnavailableError):
        await world.ask(unknown)
    away.come_back()
    assert isinstance(await world.ask(cookie), Identity)


async def test_a_session_that_may_have_ended_gets_no_grace(world: BffWorld, away: AwayStore) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    world.sessions._changed(name_of(world, cookie))
    away.go()
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            await world.ask(cookie)


async def test_logging_out_without_the_store_does_not_pretend(world: BffWorld, away: AwayStore) -> None:
    cookie = await begun(world)
    await world.ask(cookie)
    away.go()
    with pytest.raises(StateUnavailableError):
        await world.sessions.end(world.authenticator, cookie)
    away.come_back()
    assert isinstance(await world.ask(cookie), Identity)


# --- renewing -----------------------------------------------------------------------------------------------------

DUE = {"access_ends_at": NOW + 20, "access_ttl_s": 300.0}
OVER = {"access_ends_at": NOW - 1, "access_ttl_s": 300.0}


async def test_a_token_that_is_due_is_renewed_once_for_all(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **DUE)
    tokens = await asyncio.gather(*(token(world, cookie) for _ in range(50)))
    assert set(tokens) == {"access-2"}
    assert issuers.calls == ["refresh-1"]
    value = await world.store.get(name_of(world, cookie))
    assert value is not None
    assert open_record(session_key(cookie), name_of(world, cookie), value).refresh_token == "refresh-2"


async def test_a_live_token_is_left_alone(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world)
    assert await token(world, cookie) == "access-1"
    world.now += 1_000
    assert await token(world, cookie) == "access-1"
    assert issuers.calls == []


async def test_many_workers_renew_a_token_once(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **OVER)
    workers = [BffWorld(issuers=issuers) for _ in range(4)]
    for worker in workers:
        worker.sessions._store = worker.sessions.renewer._store = world.store
    issuers.gate.clear()
    asking = [asyncio.create_task(token(worker, cookie)) for worker in workers for _ in range(5)]
    await asyncio.sleep(0.1)
    issuers.gate.set()
    assert set(await asyncio.gather(*asking)) == {"access-2"}
    assert issuers.calls == ["refresh-1"]


async def test_who_gets_the_lock_after_another_has_renewed_asks_nobody(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    cookie = await begun(world, **OVER)
    name, key = name_of(world, cookie), session_key(cookie)
    first = await world.sessions.renewer.renew(world.authenticator.settings, name, key)
    world.now += 1  # the lock is free again
    assert await world.sessions.renewer.renew(world.authenticator.settings, name, key) == first
    assert issuers.calls == ["refresh-1"]


async def test_a_refused_refresh_token_ends_the_session(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **DUE)
    issuers.error = TokenRefusedError("invalid_grant")
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert await world.store.get(name_of(world, cookie)) is None


@pytest.mark.parametrize("error", [IssuerUnavailableError("away"), TokenRefusedError("invalid_client")])
async def test_a_provider_that_fails_ends_no_session(
    world: BffWorld, issuers: ScriptedIssuers, error: Exception
) -> None:
    cookie = await begun(world, **DUE)
    issuers.error = error
    for _ in range(20):
        assert await token(world, cookie) == "access-1"
        world.now += 0.9
    assert len(issuers.calls) <= 5
    assert world.store.gets <= 16
    world.now = NOW + 20
    assert await reason(world, cookie) is Reason.AUTH_UNAVAILABLE
    issuers.error = None
    issuers.calls.clear()
    world.now += 10
    assert await token(world, cookie) == "access-2"


async def test_a_provider_that_failed_is_left_alone_for_a_while(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    cookie = await begun(world, **OVER)
    issuers.error = IssuerUnavailableError("away")
    for _ in range(10):
        assert await reason(world, cookie) is Reason.AUTH_UNAVAILABLE
    assert len(issuers.calls) == 1


async def test_a_slow_provider_holds_a_request_up_only_while_it_must(
    world: BffWorld, issuers: ScriptedIssuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PATIENCE_S", 0.05)
    issuers.gate.clear()
    cookie = await begun(world, **DUE)
    assert await token(world, cookie) == "access-1"
    world.now = NOW + 21
    waiting = asyncio.create_task(token(world, cookie))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    issuers.gate.set()
    assert await waiting == "access-2"
    assert issuers.calls == ["refresh-1"]


async def test_a_call_that_was_sent_is_finished_although_its_client_left(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    issuers.gate.clear()
    cookie = await begun(world, **OVER)
    waiting = asyncio.create_task(token(world, cookie))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.sleep(0.02)
    issuers.gate.set()
    assert await token(world, cookie) == "access-2"
    assert issuers.calls == ["refresh-1"]


async def test_a_provider_that_never_answers_is_given_up(
    world: BffWorld, issuers: ScriptedIssuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_refresh, "CALL_S", 0.05)
    issuers.gate.clear()
    assert await reason(world, await begun(world, **OVER)) is Reason.AUTH_UNAVAILABLE


async def test_a_holder_that_never_comes_back_is_not_waited_for_without_end(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_refresh, "WAIT_S", 0.1)
    cookie = await begun(world, **OVER)
    lock = name_of(world, cookie).replace("session", "session-lock")
    assert await world.store.add(lock, b"of a dead worker", session_refresh.LOCK_TTL_S)
    assert await reason(world, cookie) is Reason.AUTH_UNAVAILABLE
    world.now += session_refresh.LOCK_TTL_S
    assert await token(world, cookie) == "access-2"


async def test_the_lock_is_free_again_afterwards(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **DUE)
    await token(world, cookie)
    world.now += 1
    assert await world.store.names("authgate:state:session-lock:", 10) == []


async def test_a_logout_during_a_renewal_wins(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **OVER)

    async def log_out() -> None:
        await world.sessions.end(world.authenticator, cookie)

    issuers.on_call = log_out
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert await world.store.get(name_of(world, cookie)) is None
    assert issuers.revoked == ["refresh-2"]
    assert not world.authenticator.sessions


async def test_a_logout_elsewhere_during_a_renewal_wins(world: BffWorld, issuers: ScriptedIssuers) -> None:
    cookie = await begun(world, **OVER)

    async def log_out() -> None:
        await world.store.delete(name_of(world, cookie))

    issuers.on_call = log_out
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert await world.store.get(name_of(world, cookie)) is None


async def test_a_rotated_token_is_stored_although_the_store_stumbles(
    world: BffWorld, issuers: ScriptedIssuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await begun(world, **DUE)
    real, failures = world.store.swap, [1, 1]

    async def stumbling(name: str, *rest: Any) -> bool:
        if "lock" not in name and failures:
            failures.pop()
            raise StateUnavailableError("away for a moment")
        return await real(name, *rest)

    monkeypatch.setattr(world.store, "swap", stumbling)
    assert await token(world, cookie) == "access-2"
    value = await world.store.get(name_of(world, cookie))
    assert value is not None
    assert open_record(session_key(cookie), name_of(world, cookie), value).refresh_token == "refresh-2"


async def test_without_a_refresh_token_a_session_ends_with_its_access_token(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    cookie = await begun(world, refresh_token="", access_ends_at=NOW + 50)
    world.now = NOW + 49
    assert isinstance(await world.ask(cookie), Identity)
    world.now = NOW + 50
    assert await reason(world, cookie) is Reason.CREDENTIALS_INVALID
    assert issuers.calls == []


async def test_a_token_whose_end_nobody_names_is_never_renewed(
    world: BffWorld, issuers: ScriptedIssuers
) -> None:
    cookie = await begun(world, access_ends_at=float("inf"), access_ttl_s=float("inf"))
    world.now += 1_700
    assert await token(world, cookie) == "access-1"
    assert issuers.calls == []


async def test_a_renewed_session_is_the_same_for_its_streams(world: BffWorld) -> None:
    cookie = await begun(world, access_ends_at=NOW + 100, access_ttl_s=300.0)
    first = await world.ask(cookie)
    world.now += 80
    second = await world.ask(cookie)
    assert isinstance(first, Identity)
    assert isinstance(second, Identity)
    assert first is not second
    assert first.session is second.session


async def test_closing_lets_a_renewal_come_to_its_end(world: BffWorld, issuers: ScriptedIssuers) -> None:
    issuers.gate.clear()
    cookie = await begun(world, **OVER)
    waiting = asyncio.create_task(token(world, cookie))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(world.sessions.close())
    await asyncio.sleep(0.02)
    issuers.gate.set()
    await closing
    assert await waiting == "access-2"


async def test_held_work_is_bounded_in_number_and_time(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_HELD", 1)
    monkeypatch.setattr(sessions, "HELD_S", 0.05)
    first = asyncio.create_task(world.sessions.hold(asyncio.sleep(60)))
    await asyncio.sleep(0)
    with pytest.raises(StateUnavailableError):
        await world.sessions.hold(asyncio.sleep(0))
    with pytest.raises(TimeoutError):
        await first
    assert await world.sessions.hold(asyncio.sleep(0, "done")) == "done"


async def test_closing_lets_held_work_come_to_its_end_and_no_longer(
    world: BffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "CLOSE_S", 0.2)
    done: list[str] = []

    async def work(what: str, for_s: float) -> None:
        await asyncio.sleep(for_s)
        done.append(what)

    callers = [
        asyncio.create_task(world.sessions.hold(work(what, for_s)))
        for what, for_s in (("soon", 0.02), ("never", 60))
    ]
    await asyncio.sleep(0)
    callers[0].cancel()  # its client left
    await world.sessions.close()
    assert done == ["soon"]
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*callers, return_exceptions=True)
    )


async def test_a_look_up_knows_whose_it_is(world: BffWorld) -> None:
    found = world.identify(await begun(world))
    assert isinstance(found, SessionLookup)
    assert found.account == b""
