"""Runtime state in Redis: what every store promises, and that Redis gone, hung or full costs a bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from authgate_fast.lookup.redis_store import CALL_TIMEOUT_S, RedisStateStore
from authgate_fast.lookup.store import StateStore, StateUnavailableError
from tests.lookup.store_kit import OTHER, SECRET, SESSION, StoreKit, at_work, eventually
from tests.redis_server import RedisServer, running

pytestmark = pytest.mark.redis


@asynccontextmanager
async def connected(server: RedisServer) -> AsyncIterator[RedisStateStore]:
    store = RedisStateStore(server.url)
    async with at_work(store):
        await eventually(lambda: store.connected)
        yield store


class TestRedisStateStore(StoreKit):
    @pytest.fixture(autouse=True)
    def _take_server(self, redis_server: RedisServer) -> None:
        self.server = redis_server

    @asynccontextmanager
    async def working(self) -> AsyncIterator[StateStore]:
        async with connected(self.server) as store:
            yield store


async def refused(store: RedisStateStore) -> str:
    """Return why a call fails; it does so within its time."""
    start = time.monotonic()
    with pytest.raises(StateUnavailableError) as caught:
        await store.get(OTHER + "a")
    assert time.monotonic() - start < CALL_TIMEOUT_S + 0.5
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_one_worker_is_told_what_another_changed(redis_server: RedisServer) -> None:
    async with connected(redis_server) as one, connected(redis_server) as two:
        told: list[str] = []
        two.on_change.append(told.append)
        await one.put(SESSION + "a", b"1", 30)
        await eventually(lambda: told == [SESSION + "a"])
        assert await two.get(SESSION + "a") == b"1"


async def test_a_change_by_hand_is_told(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        told: list[str] = []
        store.on_change.append(told.append)
        with redis_server.client() as client:
            client.set(SECRET, b"1")
            client.set("authgate:consumer:shop:app", b"{}")
            client.delete(SECRET)
        await eventually(lambda: told.count(SECRET) == 2)
        assert set(told) == {SECRET}


async def test_a_gap_is_told_when_the_connection_comes_back(redis_server: RedisServer) -> None:
    store = RedisStateStore(redis_server.url)
    gaps: list[bool] = []
    store.on_gap.append(lambda: gaps.append(store.connected))
    async with at_work(store):
        await eventually(lambda: gaps)
        redis_server.kill()
        await eventually(lambda: not store.connected)
        assert "cannot reach Redis" in await refused(store)
        assert gaps == [True]
        redis_server.start()
        await eventually(lambda: len(gaps) == 2)
        await store.put(OTHER + "a", b"1", 30)
        assert await store.get(OTHER + "a") == b"1"
        assert store.status()["last_error"] is None


async def test_a_gap_is_told_after_a_flush(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        gaps: list[int] = []
        store.on_gap.append(lambda: gaps.append(1))
        with redis_server.client() as client:
            client.set(SESSION + "a", b"1")
            client.flushdb()
        await eventually(lambda: gaps)


async def test_the_first_call_after_a_restart_finds_the_new_server(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        await asyncio.gather(*(store.get(OTHER + "a") for _ in range(20)))
        redis_server.restart()
        await asyncio.sleep(0.01)
        await store.put(OTHER + "a", b"1", 30)
        assert await store.get(OTHER + "a") == b"1"


async def test_a_connection_that_was_closed_meanwhile_is_not_used(redis_server: RedisServer) -> None:
    store = RedisStateStore(redis_server.url)  # nobody listens, so nobody says that it is closed
    await store.put(OTHER + "a", b"1", 30)
    redis_server.restart()
    await asyncio.sleep(0.01)
    assert await store.get(OTHER + "a") is None
    await store.close()


async def test_every_call_to_a_hung_redis_ends_in_time(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        await store.put(OTHER + "a", b"1", 30)
        redis_server.pause()
        try:
            start = time.monotonic()
            outcomes = await asyncio.gather(
                *(store.get(OTHER + "a") for _ in range(30)),
                store.put(OTHER + "b", b"1", 30),
                store.add(OTHER + "c", b"1", 30),
                store.take(OTHER + "a"),
                store.swap(OTHER + "a", b"1", b"2", 30),
                store.delete(OTHER + "a"),
                store.touch(OTHER + "a", 30),
                store.names(OTHER, 10),
                return_exceptions=True,
            )
            assert time.monotonic() - start < CALL_TIMEOUT_S + 1
            assert {type(outcome) for outcome in outcomes} == {StateUnavailableError}
            assert "did not answer in time" in str(outcomes[0])
            await eventually(lambda: not store.connected)
        finally:
            redis_server.resume()
        await eventually(lambda: store.connected)
        assert isinstance(await store.names(OTHER, 10), list)


async def test_calls_in_flight_when_redis_dies_fail_at_once(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        redis_server.pause()
        calls = [asyncio.create_task(store.get(OTHER + "a")) for _ in range(20)]
        await asyncio.sleep(0.05)
        start = time.monotonic()
        redis_server.kill()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - start < 1
        assert {type(outcome) for outcome in outcomes} == {StateUnavailableError}


async def test_a_cancelled_call_leaves_no_answer_for_the_next_one(redis_server: RedisServer) -> None:
    store = RedisStateStore(redis_server.url, max_links=1)
    async with at_work(store):
        await store.put(OTHER + "a", b"of a", 30)
        await store.put(OTHER + "b", b"of b", 30)
        for steps in range(6):
            call = asyncio.create_task(store.get(OTHER + "a"))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert await store.get(OTHER + "b") == b"of b"


async def test_no_more_connections_than_allowed(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        await asyncio.gather(*(store.get(OTHER + "a") for _ in range(200)))
        with redis_server.client() as client:
            names = [link["name"] for link in client.client_list()]
        assert names.count("authgate-state") <= 8
        assert names.count("authgate-state-listen") == 1


async def test_more_waiting_calls_than_make_sense_are_refused_at_once(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        redis_server.pause()
        try:
            outcomes = await asyncio.gather(
                *(store.get(OTHER + "a") for _ in range(1_100)), return_exceptions=True
            )
        finally:
            redis_server.resume()
        assert sum("too many calls" in str(outcome) for outcome in outcomes) == 100


async def test_a_wrong_password_is_said_without_the_password() -> None:
    with running(password="right-one") as server:
        store = RedisStateStore(server.url.replace("right-one", "wrong-one"))
        async with at_work(store):
            await eventually(lambda: store.last_error)
            said = await refused(store)
        for text in (said, str(store.status())):
            assert "refused the user name or password" in text
            assert "wrong-one" not in text


async def test_a_full_redis_is_said(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        with redis_server.client() as client:
            client.config_set("maxmemory", "1")
        with pytest.raises(StateUnavailableError, match="no memory left"):
            await store.put(OTHER + "a", b"1", 30)
        assert await store.get(OTHER + "a") is None


async def test_a_value_of_another_kind_is_an_error_not_a_value(redis_server: RedisServer) -> None:
    async with connected(redis_server) as store:
        with redis_server.client() as client:
            client.hset(OTHER + "a", "field", "value")
            client.set(OTHER + "b", b"x" * 5_000_000)
        for name in (OTHER + "a", OTHER + "b"):
            with pytest.raises(StateUnavailableError):
                await store.get(name)
        await store.put(OTHER + "c", b"1", 30)
        assert await store.get(OTHER + "c") == b"1"


async def test_a_user_with_the_documented_rights_can_do_all_of_it(redis_server: RedisServer) -> None:
    rules = [
        "+hello",
        "+client",
        "+ping",
        "+get",
        "+set",
        "+del",
        "+pexpire",
        "+scan",
        "+eval",
        "~authgate:*",
        "on",
        ">pass",
    ]
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "gate", *rules)
    store = RedisStateStore(redis_server.url.replace("unix://", "unix://gate:pass@"))
    async with at_work(store):
        await eventually(lambda: store.connected)
        assert await store.add(OTHER + "a", b"1", 30)
        assert await store.swap(OTHER + "a", b"1", b"2", 30)
        assert await store.touch(OTHER + "a", 30)
        assert await store.names(OTHER, 10) == [OTHER + "a"]
        assert await store.take(OTHER + "a") == b"2"
        assert not await store.delete(OTHER + "a")
