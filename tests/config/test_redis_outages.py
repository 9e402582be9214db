"""Redis dies, freezes, loads, loses its data or comes back changed: the last good configuration stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from authgate_fast.config import redis_link, redis_source
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.state_dir import StateDir
from authgate_fast.config.store import Configuration
from tests.config.redis_kit import GATEWAY, consumer, eventually, following, put
from tests.redis_server import RedisServer, running

pytestmark = pytest.mark.redis


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_source, "QUIET_S", 0.1)
    monkeypatch.setattr(redis_source, "SILENCE_S", 0.3)
    monkeypatch.setattr(redis_source, "SETTLE_S", 0.05)
    monkeypatch.setattr(redis_source, "MAX_BACKOFF_S", 0.2)
    monkeypatch.setattr(redis_link, "REPLY_TIMEOUT_S", 0.3)


async def test_a_killed_redis_takes_nothing_away(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        snapshot = it.configuration.snapshot
        redis_server.kill()
        await eventually(lambda: not it.source.connected)
        await eventually(lambda: "cannot reach Redis" in str(it.source.last_error))
        assert it.configuration.snapshot is snapshot
        assert it.accepts("app")


async def test_a_restart_with_other_data_is_followed(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client, app={}, old={})
    async with following(redis_server) as it:
        client.save()
        redis_server.kill()
        await eventually(lambda: not it.source.connected)
        redis_server.start()
        with redis_server.client() as client_after, client_after.pipeline(transaction=True) as pipe:
            pipe.delete("authgate:consumer:shop:old")
            pipe.set("authgate:consumer:shop:new", consumer("new"))
            pipe.set("authgate:gateway:shop", orjson.dumps({**GATEWAY, "hosts": ["other.test"]}))
            pipe.execute()
        await eventually(lambda: it.accepts("new") and not it.accepts("old"))
        await eventually(lambda: b"other.test" in it.configuration.snapshot.exact)
        assert it.accepts("app")
        assert it.source.last_error is None


async def test_a_redis_that_restarts_empty_is_not_believed(
    redis_server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        redis_server.restart(empty=True)
        await eventually(lambda: it.source.suspect_empty)
        assert it.accepts("app")
        assert it.size == 4
        assert it.source.status()["suspect_empty"] is True
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "authgate apply FILE" in record.getMessage()
        assert "FLUSHDB" in record.getMessage()


async def test_a_lost_configuration_is_replaced_once_documents_appear_again(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        redis_server.restart(empty=True)
        await eventually(lambda: it.source.suspect_empty)
        sizes = []
        it.configuration.on_swap.append(lambda _: sizes.append(it.size))
        with redis_server.client() as writer:
            # One by one, as a shell script would: no half of it may come into force.
            writer.set("authgate:consumer:shop:other", consumer("other"))
            writer.set("authgate:gateway:shop", orjson.dumps(GATEWAY))
        await eventually(lambda: it.accepts("other") and not it.accepts("app"))
        await eventually(lambda: not it.source.suspect_empty)
        assert it.size == 2
        assert sizes[0] == 2


async def test_a_flush_says_that_an_empty_redis_is_meant(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        redis_server.restart(empty=True)
        await eventually(lambda: it.source.suspect_empty)
        with redis_server.client() as writer:
            writer.flushdb()
        await eventually(lambda: it.size == 0)
        assert not it.source.suspect_empty


async def test_rubbish_alone_does_not_replace_a_lost_configuration(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        redis_server.restart(empty=True)
        await eventually(lambda: it.source.suspect_empty)
        with redis_server.client() as writer:
            writer.rpush("authgate:route:shop:item", "a list")
            writer.set("authgate:gateway:Not A Name", "{}")
            scans = writer.info("commandstats")["cmdstat_scan"]["calls"]
            await eventually(lambda: writer.info("commandstats")["cmdstat_scan"]["calls"] > scans)
        assert it.source.suspect_empty
        assert it.accepts("app")


async def test_a_flush_while_only_the_connection_was_lost_is_believed(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        with client.pipeline(transaction=True) as pipe:
            pipe.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            pipe.flushall()
            pipe.execute()
        await eventually(lambda: it.size == 0)
        assert not it.source.suspect_empty


async def test_a_replica_that_is_emptied_by_its_master_is_not_believed(impatient: None) -> None:
    with running(tcp=True) as master, running("--replicaof", "127.0.0.1", str(master.port)) as replica:
        with master.client() as client:
            put(client, app={})
        with replica.client() as client:
            await eventually(lambda: client.exists("authgate:gateway:shop"), 20)
        async with following(replica) as it:
            assert it.accepts("app")
            master.restart(empty=True)
            await eventually(lambda: it.source.suspect_empty, 20)
            assert it.accepts("app")


async def test_a_killed_connection_loses_no_change(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client)
    async with following(redis_server) as it:
        for number in range(5):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.set(f"authgate:consumer:shop:c{number}", consumer(f"c{number}"))
            await eventually(lambda name=f"c{number}": it.accepts(name))  # type: ignore[misc]


async def test_a_silent_redis_is_noticed_and_followed_again(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        redis_server.pause()
        try:
            await eventually(lambda: not it.source.connected, 3)
            assert it.accepts("app")
            await eventually(lambda: "did not answer in time" in str(it.source.last_error), 3)
        finally:
            redis_server.resume()
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: it.accepts("late"))
        assert (it.source.sync_lag_s or 9) < 3


async def test_a_quiet_redis_is_not_taken_for_a_dead_one(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    put(client)
    async with following(redis_server):
        connections = client.info("stats")["total_connections_received"]
        await eventually(lambda: client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] > 15)
        assert client.info("stats")["total_connections_received"] == connections


async def test_a_redis_that_is_still_loading_takes_nothing_away(
    redis_server: RedisServer, client: redis.Redis, impatient: None
) -> None:
    if int(client.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("an older redis-server cannot be made to answer while it loads so little")
    put(client, app={})
    with client.pipeline() as pipe:
        for number in range(1_000):
            pipe.set(f"ballast:{number}", "x" * 100)
        pipe.execute()
    async with following(redis_server) as it:
        client.set("authgate:consumer:shop:late", consumer("late"))
        redis_server.stop(save=True)
        await eventually(lambda: not it.source.connected)
        slowly = ("--key-load-delay", "1500", "--loading-process-events-interval-bytes", "1024")
        redis_server.start(*slowly, wait=False)
        await eventually(lambda: "still loading" in str(it.source.last_error))
        assert it.accepts("app")
        assert it.size >= 4
        await eventually(lambda: it.source.connected, 10)
        assert it.accepts("late")
        assert it.size == 5


async def test_a_node_starts_from_its_state_directory_while_redis_is_away(
    redis_server: RedisServer, client: redis.Redis, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, app={})
    state = StateDir(f"{tmp_path}/state", debounce_s=0.01)
    async with following(redis_server, state_dir=state):
        pass
    redis_server.kill()
    async with following(redis_server, state_dir=state, wait=False) as it:
        await eventually(lambda: it.configuration.snapshot.ready)
        assert it.accepts("app")
        assert not it.source.connected
        redis_server.start()
        await eventually(lambda: it.source.suspect_empty)  # and this new Redis never held a document
        with redis_server.client() as writer:
            put(writer, other={})
        await eventually(lambda: it.accepts("other") and not it.accepts("app"))
    state.close()


async def test_redis_comes_before_the_state_directory(
    redis_server: RedisServer, client: redis.Redis, tmp_path: object
) -> None:
    put(client, app={}, leaver={})
    state = StateDir(f"{tmp_path}/state", debounce_s=0.01)
    async with following(redis_server, state_dir=state):
        pass
    client.delete("authgate:consumer:shop:leaver")
    async with following(redis_server, state_dir=state, wait=False) as it:
        seen = []
        it.configuration.on_swap.append(lambda _: seen.append(it.accepts("leaver")))
        await eventually(lambda: it.source.connected)
        assert seen == [False]
    state.close()


async def test_a_node_and_a_redis_that_both_restart_keep_the_saved_documents(
    redis_server: RedisServer, client: redis.Redis, tmp_path: object
) -> None:
    put(client, app={})
    state = StateDir(f"{tmp_path}/state", debounce_s=0.01)
    async with following(redis_server, state_dir=state):
        pass
    redis_server.restart(empty=True)
    async with following(redis_server, state_dir=state) as it:
        assert it.source.suspect_empty
        assert it.accepts("app")
    assert DocumentKey("consumer", "shop", "app") in state.load()
    state.close()


async def test_a_failing_redis_is_said_once_and_not_at_every_attempt(
    redis_server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    put(client)
    async with following(redis_server) as it:
        redis_server.kill()
        attempts = 0

        async def count() -> None:
            nonlocal attempts
            attempts += 1
            await real()

        real = it.source._session
        it.source._session = count  # type: ignore[method-assign]
        await eventually(lambda: attempts > 5)
        assert len([record for record in caplog.records if "cannot reach" in record.getMessage()]) == 1


async def test_a_cancellation_at_any_moment_ends_it(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, app={})
    monkeypatch.setattr(redis_source, "QUIET_S", 0.0005)  # so that it nearly always sends a ping
    for attempt in range(150):
        task = asyncio.create_task(redis_source.RedisSource(redis_server.url, Configuration()).run())
        await asyncio.sleep(attempt % 50 * 0.0004)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=2)
        assert done, attempt


async def test_what_is_not_whole_yet_is_not_saved(
    redis_server: RedisServer, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(f"{tmp_path}/state", debounce_s=0.01)
    put(client, **{f"c{number}": {} for number in range(1_000)})
    monkeypatch.setattr(redis_source, "MANY_CHANGES", 100)
    noted: list[int] = []
    monkeypatch.setattr(state, "note_change", lambda: noted.append(it.size))
    async with following(redis_server, state_dir=state, wait=False) as it:
        await eventually(lambda: it.source.connected)
        assert noted == [1_003]
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: noted == [1_003, 1_004])
    state.close()


async def test_saved_documents_that_come_in_force_during_the_first_read_are_compared_too(
    redis_server: RedisServer, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(f"{tmp_path}/state", debounce_s=0.01)
    put(client, old={})
    async with following(redis_server, state_dir=state):
        pass
    client.delete("authgate:consumer:shop:old")
    put(client, new={})
    monkeypatch.setattr(redis_source, "STATE_GRACE_S", 0.0)
    answers = redis_link.Link.answers

    async def late(link: redis_link.Link) -> Any:
        told, texts = await answers(link)
        if told is not None:
            await eventually(lambda: it.configuration.snapshot.ready)
        return told, texts

    monkeypatch.setattr(redis_link.Link, "answers", late)
    async with following(redis_server, state_dir=state, wait=False) as it:
        await eventually(lambda: it.accepts("old"))
        await eventually(lambda: it.source.connected)
        assert it.accepts("new")
        assert not it.accepts("old")
    state.close()
