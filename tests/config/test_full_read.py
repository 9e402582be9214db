"""A first read asks for a page ahead: no change is overtaken, whatever happens while a page is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from authgate_fast.config import full_read, redis_source
from authgate_fast.config.redis_link import Link
from authgate_fast.config.store import Configuration
from tests.config.redis_kit import Follower, consumer, eventually, following, put
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

COUNT = 3_000


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        put(client)
        with client.pipeline() as pipe:
            for number in range(COUNT):
                pipe.set(f"authgate:consumer:shop:c{number}", consumer(f"c{number}"))
            pipe.execute()
        yield client


def _consumers(raw_keys: list[bytes]) -> list[str]:
    return [raw.rpartition(b":")[2].decode() for raw in raw_keys if raw.startswith(b"authgate:consumer:")]


class Ahead:
    """Does something, once, while a page of documents is worked through and the next is under way already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[list[str], list[str]], Any]) -> None:
        self._asked: list[list[str]] = []
        self._page: list[str] = []
        self.is_done = False
        ask, answers, sift = Link.ask, Link.answers, redis_source.take_consumers

        async def watched_ask(link: Link, scan: Any, mget: Any) -> None:
            self._asked.append([] if mget is None else _consumers(mget[1:]))
            await ask(link, scan, mget)
            # As soon as it is asked, Redis gives what it has: what comes later is newer.
            await asyncio.sleep(0.002)

        async def watched_answers(link: Link) -> Any:
            told = await answers(link)
            self._page = self._asked.pop(0)
            return told

        def watched_sift(page: Any) -> Any:
            if not self.is_done and len(self._page) > 1 and self._asked and len(self._asked[0]) > 1:
                self.is_done = True
                act(self._page, self._asked[0])
            return sift(page)

        monkeypatch.setattr(Link, "ask", watched_ask)
        monkeypatch.setattr(Link, "answers", watched_answers)
        monkeypatch.setattr(redis_source, "take_consumers", watched_sift)


def changing(client: redis.Redis, changed: list[str]) -> Callable[..., None]:
    """Change a consumer of the page at work and one of the page under way, delete two others, and make a new one."""

    def act(page: list[str], following_page: list[str]) -> None:
        changed[:] = [page[-1], following_page[-1], page[-2], following_page[-2]]
        with client.pipeline(transaction=True) as pipe:
            for name in changed[:2]:
                pipe.set(f"authgate:consumer:shop:{name}", consumer(f"{name}-new"))
            for name in changed[2:]:
                pipe.delete(f"authgate:consumer:shop:{name}")
            pipe.set("authgate:consumer:shop:late", consumer("late"))
            pipe.execute()
        time.sleep(0.05)  # let it be told

    return act


def holds(it: Follower, changed: list[str]) -> bool:
    rotated, gone = changed[:2], changed[2:]
    return (
        it.size == 3 + COUNT - 2 + 1
        and it.accepts("late")
        and all(it.accepts(f"{name}-new") and not it.accepts(name) for name in rotated)
        and not any(it.accepts(name) for name in gone)
    )


async def test_a_change_while_a_page_is_under_way_wins_over_that_page(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[str] = []
    connections = client.info("stats")["total_connections_received"]
    ahead = Ahead(monkeypatch, changing(client, changed))
    async with following(redis_server) as it:
        await eventually(lambda: holds(it, changed))
        assert ahead.is_done
        await asyncio.sleep(0.1)
        assert holds(it, changed)
        assert not it.configuration.refused
        assert client.info("stats")["total_connections_received"] == connections + 2


async def test_a_connection_that_breaks_with_a_page_under_way_loses_nothing(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[str] = []
    change = changing(client, changed)

    def act(page: list[str], following_page: list[str]) -> None:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        change(page, following_page)

    ahead = Ahead(monkeypatch, act)
    async with following(redis_server) as it:
        await eventually(lambda: holds(it, changed))
        assert ahead.is_done
        assert not it.configuration.refused


async def test_a_flush_with_a_page_under_way_takes_that_page_away_too(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(page: list[str], following_page: list[str]) -> None:
        with client.pipeline(transaction=True) as pipe:
            pipe.flushall()
            pipe.set("authgate:consumer:shop:other", consumer("other"))
            pipe.execute()

    connections = client.info("stats")["total_connections_received"]
    ahead = Ahead(monkeypatch, act)
    async with following(redis_server) as it:
        await eventually(lambda: it.size == 1)
        assert ahead.is_done
        assert it.source.last_error is None
        assert not it.source.suspect_empty
        assert client.info("stats")["total_connections_received"] == connections + 2


async def test_one_page_is_asked_for_ahead_and_none_once_changes_come_in(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[tuple[bool, int]] = []
    asked: list[Any] = []
    ask, answers = Link.ask, Link.answers
    differing = Configuration.differing

    async def watched_ask(link: Link, scan: Any, mget: Any) -> None:
        asked.append(mget)
        await ask(link, scan, mget)

    async def watched_answers(link: Link) -> Any:
        asked.pop()
        return await answers(link)

    def watched_differing(configuration: Any, page: Any) -> Any:
        under_way.append((it.source.connected, len(asked)))
        return differing(configuration, page)

    monkeypatch.setattr(Link, "ask", watched_ask)
    monkeypatch.setattr(Link, "answers", watched_answers)
    monkeypatch.setattr(Configuration, "differing", watched_differing)
    async with following(redis_server, wait=False, compare_interval_s=0.1) as it:
        await eventually(lambda: (True, 0) in under_way)
        assert (True, 1) not in under_way
        assert (False, 1) in under_way
        assert max(count for _, count in under_way) == 1


async def test_of_a_page_what_has_no_text_is_asked_for_and_the_rest_comes_as_ever(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    for number in range(0, COUNT, 7):
        client.delete(f"authgate:consumer:shop:c{number}")
        client.rpush(f"authgate:consumer:shop:c{number}", "x")
    async with following(redis_server) as it:
        odd = len(range(0, COUNT, 7))
        assert it.size == 3 + COUNT - odd
        assert len(it.configuration.refused) == odd
        assert not it.accepts("c7")
        assert it.accepts("c8")


async def test_a_large_answer_of_scan_is_read_in_pages(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_read, "PAGE_KEYS", 40)
    sizes: list[int] = []
    scans: list[Any] = []
    ask = Link.ask

    async def watched(link: Link, scan: Any, mget: Any) -> None:
        sizes.append(0 if mget is None else len(mget) - 1)
        scans.append(scan)
        await ask(link, scan, mget)

    monkeypatch.setattr(Link, "ask", watched)
    async with following(redis_server) as it:
        assert it.size == 3 + COUNT
        assert max(sizes) == 40
        assert sum(sizes) == 3 + COUNT
        assert [scan is None for scan in scans[:3]] == [False, True, True]  # no more names while some wait


async def test_what_a_comparison_has_found_is_forgotten_for_what_a_change_brings_newer(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(redis_server, compare_interval_s=0.3) as it:
        take_push, differing = it.source._take_push, it.configuration.differing
        found: list[Any] = []

        def watched(page: Any) -> Any:
            differs = differing(page)
            if differs and not found:
                found.append(differs)
                monkeypatch.setattr(it.source, "_take_push", take_push)
                client.set("authgate:consumer:shop:c7", consumer("newest"))
                time.sleep(0.05)  # let it be told
            return differs

        monkeypatch.setattr(redis_source, "PAUSE_S", 0.02)
        monkeypatch.setattr(it.configuration, "differing", watched)
        monkeypatch.setattr(it.source, "_take_push", lambda push: None)  # this one is missed
        client.set("authgate:consumer:shop:c7", consumer("newer"))
        await eventually(lambda: it.accepts("newest"))
        for _ in range(500):
            await asyncio.sleep(0.001)
            assert it.accepts("newest")
            assert not it.accepts("newer")
        assert found


async def test_a_first_read_that_is_never_done_is_no_sync(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_source, "MAX_BACKOFF_S", 0.2)
    ask, asked = Link.ask, 0

    async def failing_ask(link: Link, scan: Any, mget: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 5 == 0:
            raise ConnectionResetError
        await ask(link, scan, mget)

    monkeypatch.setattr(Link, "ask", failing_ask)
    async with following(redis_server, wait=False) as it:
        await eventually(lambda: asked > 12)
        assert it.size > 0
        assert it.source.status()["last_sync_at"] is None
        assert it.source.sync_lag_s is None
        monkeypatch.setattr(Link, "ask", ask)
        await eventually(lambda: it.source.connected)
        assert it.source.status()["last_sync_at"] is not None


async def test_an_answer_for_fewer_documents_than_were_asked_for_is_none(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, shortened = Link.answers, False

    async def short_answers(link: Link) -> Any:
        nonlocal shortened
        page, texts = await answers(link)
        if texts and not shortened:
            shortened = True
            return page, texts[1:]
        return page, texts

    monkeypatch.setattr(Link, "answers", short_answers)
    async with following(redis_server, wait=False) as it:
        await eventually(lambda: it.source.last_error is not None)
        assert "does not answer like Redis" in it.source.last_error
        await eventually(lambda: it.size == 3 + COUNT)
