"""The master behind Sentinels: whose word counts, what is checked, and when it is followed to another server."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from authgate_fast.config.redis_link import Link, Master, RedisUrlError, SentinelError, parse_address
from authgate_fast.config.redis_store import RedisStore, StoreError
from authgate_fast.lookup.redis_store import RedisStateStore
from tests.config.redis_kit import consumer, eventually, following, put
from tests.redis_sentinels import ToldSentinel, told
from tests.redis_server import RedisServer, running

SECRET, OTHER_SECRET = "hunter2-and-more", "hunter3-and-more"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "redis+sentinel://a.test,b.test:7000/mymaster",
            "redis+sentinel://a.test:26379,b.test:7000/mymaster",
        ),
        ("redis+sentinel://a.test/mymaster/0", "redis+sentinel://a.test:26379/mymaster"),
        ("redis+sentinel://[::1]:7/m.y-m_1/3", "redis+sentinel://[::1]:7/m.y-m_1/3"),
        (f"rediss+sentinel://user:{SECRET}@a.test/m", "rediss+sentinel://a.test:26379/m"),
        (
            f"redis+sentinel://:{SECRET}@a.test/m/0?sentinel_username=s&sentinel_password={OTHER_SECRET}",
            "redis+sentinel://a.test:26379/m",
        ),
    ],
)
def test_a_good_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    address = parse_address(url)
    assert address.shown == shown
    assert SECRET not in repr(address)
    said = address.explain(OSError(f"{SECRET} {OTHER_SECRET}"))
    for secret in (SECRET, OTHER_SECRET):
        assert secret not in url or secret not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://",
        "redis+sentinel://a.test",
        "redis+sentinel://a.test/",
        "redis+sentinel:///mymaster",
        f"redis+sentinel://:{SECRET}@/mymaster",
        f"redis+sentinel://:{SECRET}@a.test,/mymaster",
        f"redis+sentinel://:{SECRET}@a.test:99999/mymaster",
        f"redis+sentinel://:{SECRET}@a.test:x/mymaster",
        f"redis+sentinel://:{SECRET}@a.test/my%20master",
        f"redis+sentinel://:{SECRET}@a.test/m/one",
        f"redis+sentinel://:{SECRET}@a.test/m/0/1",
        f"redis+sentinel://:{SECRET}@a.test/m?no_such_option=1",
        f"redis+sentinel://a.test/m?sentinel_pasword={SECRET}",
        f"redis+sentinel://a.test/m?db=1&password={SECRET}",
        f"redis+sentinel://:{SECRET}#x@a.test/m",
        f"redis+sentinel://:x/{SECRET}@a.test/m",
        "redis+sentinel://" + ",".join(f"s{number}.test" for number in range(33)) + "/m",
        "redis+sentinels://a.test/m",
    ],
)
def test_a_bad_url_is_refused_in_a_sentence_without_its_password(url: str) -> None:
    with pytest.raises(RedisUrlError) as caught:
        parse_address(url)
    assert "Redis URL" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_user_and_options_go_to_the_server_that_was_found() -> None:
    address = parse_address(
        f"rediss+sentinel://us%40r:{SECRET}@a.test/m/3?ssl_cert_reqs=none&sentinel_password=x"
    )
    here = address.at(Master("10.0.0.7", 7000))
    assert (here.options["host"], here.options["port"]) == ("10.0.0.7", 7000)
    assert (here.options["username"], here.options["password"], here.options["db"]) == ("us@r", SECRET, 3)
    assert address.sentinels is not None
    url = address.sentinels.url_of(Master("fd00::1", 7000))
    assert url == f"rediss://us%40r:{SECRET}@[fd00::1]:7000/3?ssl_cert_reqs=none"


async def found(url: str) -> int:
    sentinels = parse_address(url).sentinels
    assert sentinels is not None
    return (await sentinels.find()).port


async def test_the_newest_configuration_counts_whoever_answers_first() -> None:
    async with told(ToldSentinel(7001, 3), ToldSentinel(7002, 4)) as url:
        assert await found(url) == 7002


async def test_those_that_are_away_or_know_nothing_are_done_without() -> None:
    async with told(ToldSentinel(7000)) as gone:
        pass
    at = gone.removeprefix("redis+sentinel://").partition("/")[0]
    async with told(ToldSentinel(None), ToldSentinel(7002)) as url:
        assert await found(url.replace("sentinel://", f"sentinel://{at},")) == 7002


async def test_one_that_is_silent_does_not_hold_up_the_others() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    at = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with told(ToldSentinel(7001), ToldSentinel(7001)) as url:
        start = time.monotonic()
        assert await found(url.replace("sentinel://", f"sentinel://{at},")) == 7001
        assert time.monotonic() - start < 0.5
    silent.close()


async def test_without_a_sentinel_that_knows_the_master_it_is_said_why() -> None:
    async with told(ToldSentinel(None)) as url:
        address = parse_address(url)
        link = Link(address, "test")
        with pytest.raises(SentinelError) as caught:
            await link.open()
        await link.close()
    assert "knows no master mymaster" in address.explain(caught.value)


async def test_a_crowd_shares_one_answer_a_failure_too() -> None:
    for port in (7001, None):
        sentinel = ToldSentinel(port)
        async with told(sentinel) as url:
            sentinels = parse_address(url).sentinels
            assert sentinels is not None
            outcomes = await asyncio.gather(*(sentinels.find() for _ in range(50)), return_exceptions=True)
        assert len(outcomes) == 50
        assert sentinel.asked == 1


async def test_after_a_switch_no_answer_from_before_it_is_given() -> None:
    sentinel = ToldSentinel(7001)
    async with told(sentinel) as url:
        sentinels = parse_address(url).sentinels
        assert sentinels is not None
        watch = asyncio.create_task(sentinels.watch(await sentinels.find()))
        await eventually(lambda: sentinel.is_watched and sentinel.asked >= 2)
        sentinel.switch(7002)
        with pytest.raises(SentinelError, match="another server"):
            await watch
        assert (await sentinels.find()).port == 7002


@pytest.mark.redis
async def test_a_replica_that_is_named_as_the_master_is_not_used() -> None:
    with (
        running(tcp=True) as master,
        running("--replicaof", "127.0.0.1", str(master.port), tcp=True) as replica,
    ):
        async with told(ToldSentinel(replica.port)) as url:
            link = Link(parse_address(url), "test")
            with pytest.raises(SentinelError, match="failover"):
                await link.open()
            await link.close()

            def read() -> None:
                with RedisStore(url) as store:
                    store.gateways()

            with pytest.raises(StoreError, match="failover"):
                await asyncio.to_thread(read)


@pytest.mark.redis
async def test_another_master_is_followed_although_the_old_one_lives_on(redis_server: RedisServer) -> None:
    with running(tcp=True) as old, running(tcp=True) as new:
        for server, name in ((old, "before"), (new, "after")):
            with server.client() as client:
                put(client, **{name: {}})
        sentinel = ToldSentinel(old.port)
        async with told(sentinel, ToldSentinel(old.port, 0)) as url, following(At(url)) as it:
            assert it.accepts("before")
            assert it.source.status()["master"] == f"127.0.0.1:{old.port}"
            await eventually(lambda: sentinel.is_watched)
            sentinel.switch(new.port)
            await eventually(lambda: it.accepts("after") and not it.accepts("before"))
            with new.client() as client:
                client.set("authgate:consumer:shop:late", consumer("late"))
            await eventually(lambda: it.accepts("late"))


@pytest.mark.redis
async def test_a_promoted_server_that_is_empty_is_not_believed() -> None:
    with running(tcp=True) as old, running(tcp=True) as new:
        with old.client() as client:
            put(client, app={})
        sentinel = ToldSentinel(old.port)
        async with told(sentinel) as url, following(At(url)) as it:
            await eventually(lambda: sentinel.is_watched)
            sentinel.switch(new.port)
            await eventually(lambda: it.source.suspect_empty)
            assert it.accepts("app")


@pytest.mark.redis
async def test_runtime_state_goes_to_the_new_master_over_no_old_connection() -> None:
    with running(tcp=True) as old, running(tcp=True) as new:
        sentinel = ToldSentinel(old.port)
        async with told(sentinel) as url:
            store = RedisStateStore(url)
            gaps: list[None] = []
            store.on_gap.append(lambda: gaps.append(None))
            task = asyncio.create_task(store.run())
            try:
                await store.put("authgate:state:a", b"1", None)
                await eventually(lambda: store.connected and sentinel.is_watched)
                sentinel.switch(new.port)
                await eventually(lambda: len(gaps) == 2)
                await store.put("authgate:state:b", b"2", None)
                with new.client() as client:
                    assert client.keys() == [b"authgate:state:b"]
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await store.close()


class At:
    """What `following` needs of a server: its URL."""

    def __init__(self, url: str) -> None:
        self.url = url
