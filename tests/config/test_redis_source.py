"""The gateway follows a real Redis: every change, whoever makes it, and nothing that is not one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis

from authgate_fast.config import redis_source
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.redis_link import Link
from authgate_fast.config.redis_source import RedisSource, RedisUrlError
from authgate_fast.config.store import Configuration
from tests.config.redis_kit import GATEWAY, ROUTE, consumer, eventually, following, key_of, put
from tests.redis_server import RedisServer, running

pytestmark = pytest.mark.redis


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


async def test_a_start_reads_every_document(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client, app={}, partner={"roles": ["reader"]})
    async with following(redis_server) as it:
        assert {(key.kind, key.name) for key in it.configuration.documents} == {
            ("gateway", "shop"),
            ("service", "api"),
            ("route", "item"),
            ("consumer", "app"),
            ("consumer", "partner"),
        }
        assert it.configuration.snapshot.ready
        assert it.accepts("app")


async def test_an_empty_redis_makes_a_new_gateway_ready_and_empty(redis_server: RedisServer) -> None:
    async with following(redis_server) as it:
        assert it.configuration.snapshot.ready
        assert it.size == 0
        assert not it.source.suspect_empty


async def test_more_documents_than_a_page_are_read_whole(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)
    with client.pipeline() as pipe:
        for number in range(2_000):
            pipe.set(f"authgate:consumer:shop:c{number}", consumer(f"c{number}"))
            pipe.set(f"authgate:state:session:{number}", "x")
            pipe.set(f"authgate:secret:s{number}", "x")
        pipe.execute()
    async with following(redis_server) as it:
        assert it.size == 2_003
        assert not it.configuration.refused


def put_many(client: redis.Redis, count: int, **fields: Any) -> None:
    put(client)
    with client.pipeline() as pipe:
        for number in range(count):
            pipe.set(
                f"authgate:consumer:shop:c{number:04}",
                consumer(f"c{number}") if not fields else orjson.dumps(fields),
            )
        pipe.execute()


class Watched:
    """What a source reads and applies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[bytes] = []
        self.applied: list[tuple[int, bool]] = []
        ask, apply = Link.ask, RedisSource._apply

        async def watched_ask(link: Link, scan: Any, mget: Any) -> None:
            self.read += [] if mget is None else mget[1:]
            await ask(link, scan, mget)

        async def watched_apply(source: RedisSource, changes: Any, *, is_all: bool = False) -> None:
            self.applied.append((len(changes), is_all))
            await apply(source, changes, is_all=is_all)

        monkeypatch.setattr(Link, "ask", watched_ask)
        monkeypatch.setattr(RedisSource, "_apply", watched_apply)


async def test_a_large_configuration_comes_in_force_in_parts_and_is_ready_with_the_last(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many(client, 2_000)
    monkeypatch.setattr(redis_source, "MANY_CHANGES", 300)
    watched = Watched(monkeypatch)
    async with following(redis_server, compare_interval_s=0.2) as it:
        assert it.size == len(watched.read) == 2_003  # each is read once
        assert len(watched.applied) > 3
        assert max(size for size, _ in watched.applied) < 300 + redis_source.PAGE_KEYS
        assert [is_whole for _, is_whole in watched.applied] == [False] * (len(watched.applied) - 1) + [True]
        watched.read.clear()
        await eventually(lambda: len(watched.read) == 2_003)
        assert len(set(watched.read)) == 2_003  # a comparison reads each once, too
        assert not it.configuration.refused


async def test_of_many_that_have_one_key_the_first_by_name_holds_it_wherever_it_is_read(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many(client, 1_500, api_key_sha256="ab" * 32)
    monkeypatch.setattr(redis_source, "MANY_CHANGES", 100)
    async with following(redis_server) as it:
        holders = it.configuration.snapshot.gateways["shop"].consumers.keys.holders
        assert holders == {b"\xab" * 32: "c0000"}
        assert len(it.configuration.refused) == 1_499


async def test_what_is_gone_is_found_by_comparison_in_a_large_configuration(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many(client, 1_000)
    client.set("authgate:consumer:shop:bad", "{")
    monkeypatch.setattr(redis_source, "MANY_CHANGES", 100)
    async with following(redis_server, compare_interval_s=0.2) as it:
        assert list(it.configuration.refused) == ["consumer shop/bad"]
        monkeypatch.setattr(it.source, "_take_push", lambda push: None)  # nothing is told any more
        client.delete("authgate:consumer:shop:bad", *(f"authgate:consumer:shop:c{n:04}" for n in range(400)))
        put(client, fresh={})
        await eventually(lambda: it.size == 604 and it.accepts("fresh"))
        assert not it.configuration.refused


async def test_keys_that_move_between_consumers_are_one_change_to_a_comparison(
    redis_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_many(client, 2_000)
    async with following(redis_server, compare_interval_s=0.3) as it:
        monkeypatch.setattr(it.source, "_take_push", lambda push: None)  # nothing is told any more
        keys = {
            f"authgate:consumer:shop:c{number:04}": consumer(f"c{1_999 - number}") for number in range(2_000)
        }
        client.mset(keys)
        holders = it.configuration.snapshot.gateways["shop"].consumers.keys.holders
        digest = hashlib.sha256(key_of("c0").encode()).digest()
        await eventually(lambda: holders.get(digest) == "c1999")
        assert not it.configuration.refused
        assert "not in force" not in caplog.text


def during_a_scan(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something once the names of a full read are told and before the documents in force are read."""
    answers, scans = Link.answers, []

    async def interrupted(link: Link) -> Any:
        told, texts = await answers(link)
        if told is not None and told[0] == b"0":
            scans.append(link)
            if len(scans) == number:
                act()
        return told, texts

    monkeypatch.setattr(Link, "answers", interrupted)


async def test_what_is_renamed_during_a_comparison_stays_in_force(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)

    def rename_all() -> None:
        with client.pipeline(transaction=True) as pipe:
            pipe.delete("authgate:gateway:shop", "authgate:service:shop:api", "authgate:route:shop:item")
            pipe.set("authgate:gateway:new", orjson.dumps(GATEWAY))
            pipe.execute()
        time.sleep(0.05)  # let it be told

    during_a_scan(monkeypatch, 2, rename_all)
    async with following(redis_server, compare_interval_s=0.3) as it:
        seen: set[tuple[str, ...]] = set()
        it.configuration.on_swap.append(lambda snapshot: seen.add(tuple(snapshot.gateways)))
        await eventually(lambda: it.size == 1)
        await asyncio.sleep(1.0)
        assert list(it.configuration.snapshot.gateways) == ["new"]
        assert () not in seen
        assert not it.source.suspect_empty


async def test_what_all_becomes_unreadable_keeps_its_last_good_version(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    client.set("authgate:gateway:shop", orjson.dumps(GATEWAY))
    async with following(redis_server, compare_interval_s=0.1) as it:
        with client.pipeline(transaction=True) as pipe:
            pipe.delete("authgate:gateway:shop")
            pipe.hset("authgate:gateway:shop", "a", "b")
            pipe.execute()
        await eventually(lambda: it.configuration.refused)
        await asyncio.sleep(0.5)
        assert list(it.configuration.refused) == ["gateway shop"]
        assert list(it.configuration.snapshot.gateways) == ["shop"]


async def test_a_malformed_key_that_is_told_during_a_comparison_stays_reported(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)

    def write() -> None:
        client.set("authgate:gateway:NOT-A-NAME", "{}")
        time.sleep(0.05)  # let it be told

    during_a_scan(monkeypatch, 2, write)
    async with following(redis_server, compare_interval_s=0.3) as it:
        await eventually(lambda: it.configuration.refused)
        compared_at = it.source.last_sync_at
        await eventually(lambda: it.source.last_sync_at != compared_at)
        await asyncio.sleep(0.1)
        assert list(it.configuration.refused) == ["authgate:gateway:NOT-A-NAME"]


async def test_a_configuration_that_is_gone_before_it_was_whole_is_no_loss(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many(client, 2_000)
    answers, flushed = Link.answers, []

    async def interrupted(link: Link) -> Any:
        if it.size > 0 and not flushed:
            flushed.append(it.size)
            client.flushall()
            await asyncio.sleep(0.05)  # let it be told
        return await answers(link)

    monkeypatch.setattr(Link, "answers", interrupted)
    async with following(redis_server, wait=False) as it:
        await eventually(lambda: it.source.connected)
        assert it.configuration.snapshot.ready
        assert flushed
        assert it.size == 0
        assert not it.source.suspect_empty


async def test_set_and_del_of_one_key_are_enough_to_change_the_gateway(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client)
    async with following(redis_server) as it:
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: it.accepts("late"))
        client.delete("authgate:consumer:shop:late")
        await eventually(lambda: not it.accepts("late"))
        client.rename("authgate:route:shop:item", "authgate:route:shop:thing")
        await eventually(lambda: DocumentKey("route", "shop", "thing") in it.configuration.documents)
        assert DocumentKey("route", "shop", "item") not in it.configuration.documents


async def test_a_key_that_redis_expires_ends(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client)
    async with following(redis_server) as it:
        client.set("authgate:consumer:shop:brief", consumer("brief"), px=150)
        await eventually(lambda: it.accepts("brief"))
        await eventually(lambda: not it.accepts("brief"))


async def test_a_change_is_live_within_milliseconds(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client)
    async with following(redis_server) as it:
        took = []
        for number in range(60):
            start = time.monotonic()
            client.set(f"authgate:consumer:shop:c{number}", consumer(f"c{number}"))
            await eventually(lambda name=f"c{number}": it.accepts(name))  # type: ignore[misc]
            took.append(time.monotonic() - start)
        took.sort()
        assert took[30] < 0.02
        assert took[-2] < 0.05


async def test_a_transaction_becomes_one_snapshot(redis_server: RedisServer, client: redis.Redis) -> None:
    async with following(redis_server) as it:
        swaps: list[int] = []
        it.configuration.on_swap.append(lambda snapshot: swaps.append(len(snapshot.gateways)))
        with client.pipeline(transaction=True) as pipe:
            pipe.set("authgate:gateway:shop", orjson.dumps(GATEWAY))
            pipe.set("authgate:service:shop:api", orjson.dumps({"target_url": "http://b:1"}))
            for number in range(1_200):
                route = {**ROUTE, "public_path": f"/r{number}"}
                pipe.set(f"authgate:route:shop:r{number}", orjson.dumps(route))
            pipe.execute()
        await eventually(lambda: it.size == 1_202)
        assert swaps == [1]


async def test_a_flush_is_believed_at_once(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        client.flushall()
        await eventually(lambda: it.size == 0, 2)
        assert not it.source.suspect_empty


async def test_deleting_one_by_one_down_to_nothing_is_believed(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        for key in client.keys("authgate:*"):
            client.delete(key)
        await eventually(lambda: it.size == 0, 2)
        assert not it.source.suspect_empty


async def test_a_flush_of_another_database_takes_nothing_away(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    async with following(redis_server) as it:
        before = it.source.last_sync_at
        client.execute_command("SELECT", 5)
        client.flushdb()
        await eventually(lambda: it.source.last_sync_at != before)
        assert it.size == 4


async def test_the_comparison_finds_a_missed_change(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisSource, "_take_push", lambda *_: None)
    put(client, app={})
    async with following(redis_server, compare_interval_s=0.1) as it:
        client.set("authgate:consumer:shop:late", consumer("late"))
        client.delete("authgate:consumer:shop:app")
        await eventually(lambda: it.accepts("late") and not it.accepts("app"), 3)
        client.set("authgate:route:shop:item", "[]")
        await eventually(lambda: "route shop/item" in it.configuration.refused, 3)
        client.delete("authgate:route:shop:item")
        await eventually(lambda: DocumentKey("route", "shop", "item") not in it.configuration.documents, 3)
        assert not it.configuration.refused
        client.set("authgate:route:shop:never-good", "[]")
        await eventually(lambda: it.configuration.refused, 3)
        client.delete("authgate:route:shop:never-good")
        await eventually(lambda: not it.configuration.refused, 3)


async def test_a_change_does_not_wait_for_a_comparison_to_end(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)
    with client.pipeline() as pipe:
        for number in range(4_000):
            pipe.set(f"authgate:consumer:shop:c{number}", consumer(f"c{number}"))
        pipe.execute()
    async with following(redis_server, compare_interval_s=0.05) as it:
        monkeypatch.setattr(redis_source, "PAUSE_S", 0.2)  # some 3 s for one comparison
        await eventually(lambda: client.info("commandstats")["cmdstat_scan"]["calls"] > 12)
        client.set("authgate:consumer:shop:late", consumer("late"))
        client.delete("authgate:consumer:shop:c1")
        await eventually(lambda: it.accepts("late") and not it.accepts("c1"), 1.0)
        before = it.source.last_sync_at
        await eventually(lambda: it.source.last_sync_at != before)
        assert it.accepts("late")
        assert not it.accepts("c1")


async def test_an_unchanged_redis_changes_nothing(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client, app={})
    client.set("authgate:route:shop:bad", "{")
    async with following(redis_server, compare_interval_s=0.02) as it:
        revision, snapshot = it.configuration.revision, it.configuration.snapshot
        scans = client.info("commandstats")["cmdstat_scan"]["calls"]
        await eventually(lambda: client.info("commandstats")["cmdstat_scan"]["calls"] > scans + 5)
        assert it.configuration.revision == revision
        assert it.configuration.snapshot is snapshot


async def test_a_mistake_of_ours_is_shown_and_following_goes_on(
    redis_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(client)
    async with following(redis_server) as it:
        real, calls = it.source._apply, []

        async def broken(changes: Any, **options: Any) -> None:
            calls.append(changes)
            if len(calls) == 1:
                raise LookupError("no such thing")
            await real(changes, **options)

        monkeypatch.setattr(it.source, "_apply", broken)
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: it.accepts("late"))
        await eventually(lambda: it.source.connected)
        assert "this is a bug" in caplog.text
        assert it.source.last_error is None


async def test_a_change_begun_is_finished_before_a_cancellation(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)
    async with following(redis_server) as it:
        finish, begun = redis_source._finish, asyncio.Event()

        def slow(steps: Any) -> Iterator[None]:
            for _ in range(3):
                begun.set()
                yield
            yield from steps

        monkeypatch.setattr(redis_source, "_finish", lambda steps: finish(slow(steps)))
        client.set("authgate:consumer:shop:late", consumer("late"))
        await asyncio.wait_for(begun.wait(), 5)
    assert it.accepts("late")


async def test_status_tells_how_it_stands(redis_server: RedisServer, client: redis.Redis) -> None:
    put(client)
    async with following(redis_server) as it:
        status = it.source.status()
        assert status["type"] == "redis"
        assert status["connected"] is True
        assert status["last_error"] is None
        assert status["suspect_empty"] is False
        assert isinstance(status["sync_lag_s"], float)
        orjson.dumps(status)


async def test_the_password_is_used_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running(tcp=True, password="s3cret/pässword") as server:
        server.url = server.url.replace("s3cret/pässword", "s3cret%2Fp%C3%A4ssword")
        with server.client() as client:
            put(client, app={})
            async with following(server) as it:
                assert it.accepts("app")
                client.config_set("requirepass", "another")
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await eventually(lambda: "refused the user name or password" in str(it.source.last_error))
                assert it.accepts("app")
                client.config_set("requirepass", "s3cret/pässword")
                await eventually(lambda: it.source.connected)
                told = caplog.text + repr(it.source.status()) + repr(it.source.address)
    assert "s3cret" not in told


async def test_a_user_with_the_rights_that_the_law_names_is_enough(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    put(client, app={})
    rights = ["~authgate:*", "+hello", "+ping", "+scan", "+mget", "+type", "+info", "+client"]
    client.execute_command("ACL", "SETUSER", "gate", "on", ">pw", *rights)
    redis_server.url = redis_server.url.replace("unix://", "unix://gate:pw@")
    async with following(redis_server) as it:
        client.set("authgate:consumer:shop:late", consumer("late"))
        await eventually(lambda: it.accepts("late"))
        client.delete("authgate:consumer:shop:late")
        await eventually(lambda: not it.accepts("late"))
        assert it.source._history_of_documents is not None


def test_a_url_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(RedisUrlError, match="redis://HOST:PORT"):
        RedisSource("http://127.0.0.1", Configuration())


async def test_changes_without_end_leave_most_of_a_worker_to_its_requests(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []
    apply = RedisSource._apply

    async def slow(self: RedisSource, changes: Any, **options: Any) -> None:
        applied.append(len(changes))
        time.sleep(0.008)  # noqa: ASYNC251  # what compiling many routes does to the loop
        await apply(self, changes, **options)

    monkeypatch.setattr(RedisSource, "_apply", slow)
    put(client)
    async with following(redis_server) as it:
        begun_s = time.monotonic()
        written = 0
        while len(applied) < 4:
            client.set(f"authgate:consumer:shop:c{written}", consumer(f"c{written}"))
            written += 1
            await asyncio.sleep(0.001)
        elapsed_s = time.monotonic() - begun_s
        assert elapsed_s > 3 * 3.0 * 0.008  # three rests, each three times as long as what went before
        await eventually(lambda: it.accepts(f"c{written - 1}"))
