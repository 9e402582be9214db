"""The ACL rules of docs/operations.md are enough for what they are for, and for no more."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from authgate_fast.lookup.redis_store import RedisStateStore
from tests.config.redis_kit import consumer, eventually, following, put
from tests.management.kit import Command
from tests.redis_sentinels import cluster
from tests.redis_server import RedisServer, running

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
FILE = """\
gateways:
  shop:
    hosts: [shop.test]
    auth: {type: API_KEY}
    services: {api: {target_url: "http://api:8080"}}
    routes: {item: {method: GET, public_path: "/open/{id}", service: api, security: PUBLIC}}
  people: {hosts: [people.test], auth: {type: JWT}}
  pages:
    hosts: [pages.test]
    auth: {type: BFF, issuer: "https://iam.test", client_id: me, client_secret: secret, frontend_url: "https://pages.test"}
"""


def rules_of(user: str) -> list[str]:
    """Return the words of the page's ACL SETUSER for a user."""
    found = re.findall(rf"^ACL SETUSER ({user} (?:[^\n\\]|\\\n)*)", PAGE, re.MULTILINE)
    assert len(found) == 1, user
    words: list[str] = found[0].replace("\\\n", " ").split()
    return words


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running(tcp=True) as server:
        with server.client() as client:
            for user in ("authgate", "operator"):
                words = rules_of(user)
                if not knows_reading(client):  # as the page says
                    words = [word.replace("%R~", "~") for word in words]
                client.execute_command("ACL", "SETUSER", *words)
        yield server


def knows_reading(client: redis.Redis) -> bool:
    """Tell whether this Redis can let a user read keys that it may not write."""
    return int(client.info("server")["redis_version"].split(".")[0]) >= 7


def url_of(server: RedisServer, user: str) -> str:
    return f"redis://{user}:PASSWORD@127.0.0.1:{server.port}/0"


class As:
    """A server as one of its users."""

    def __init__(self, server: RedisServer, user: str) -> None:
        self.url = url_of(server, user)


async def test_the_gateways_user_may_follow_documents_and_keep_state(server: RedisServer) -> None:
    with server.client() as client:
        put(client, app={})
        async with following(As(server, "authgate"), compare_interval_s=0.05) as it:
            assert it.accepts("app")
            client.set("authgate:consumer:shop:late", consumer("late"))
            client.rpush("authgate:consumer:shop:list", "x")
            await eventually(lambda: it.accepts("late"))
            assert it.source.last_error is None
    store = RedisStateStore(url_of(server, "authgate"))
    task = asyncio.create_task(store.run())
    try:
        await eventually(lambda: store.connected)
        name = "authgate:state:x"
        assert await store.add(name, b"1", 60)
        assert await store.swap(name, b"1", b"2", 60)
        assert await store.touch(name, 90)
        assert await store.names("authgate:state:", 9) == [name]
        assert await store.get(name) == b"2"
        assert await store.take(name) == b"2"
        await store.put("authgate:secret:x", b"3", None)
        assert await store.delete("authgate:secret:x")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "authgate:route:shop:item", "{}"),
        ("DEL", "authgate:gateway:shop"),
        ("GET", "another"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "authgate:consumer:shop:me"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("ACL", "LIST"),
    ],
)
def test_the_gateways_user_may_change_no_document_and_rule_no_server(
    words: tuple[str, ...], server: RedisServer
) -> None:
    with server.client() as admin:
        if not knows_reading(admin) and "authgate:" in str(words):
            pytest.skip("Redis 6 lets a user that may read a key write it too")
    with (
        redis.Redis.from_url(url_of(server, "authgate")) as client,
        pytest.raises(redis.ResponseError) as caught,
    ):
        client.execute_command(*words)
    assert "permission" in str(caught.value)


def test_the_operators_user_may_run_every_command(
    server: RedisServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "g.yaml").write_text(FILE)
    run_all(capsys, tmp_path, url_of(server, "operator"))


def run_all(capsys: pytest.CaptureFixture[str], path: Path, url: str) -> None:
    authgate = Command(capsys)
    for words in (
        ("apply", str(path / "g.yaml")),
        ("apply", str(path / "g.yaml"), "--prune"),
        ("export",),
        ("consumer", "create", "shop", "app"),
        ("consumer", "list", "shop"),
        ("consumer", "rotate", "shop", "app"),
        ("consumer", "disable", "shop", "app"),
        ("consumer", "delete", "shop", "app"),
        ("secret", "rotate", "people"),
        ("session", "list", "pages"),
        ("explain", "GET", "http://shop.test/open/1"),
    ):
        outcome = authgate(*words, "--redis", url)
        assert outcome.code == 0, (words, outcome)
        assert "PASSWORD@" not in outcome.out + outcome.err


@pytest.mark.slow
def test_the_sentinels_user_may_find_the_master(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(FILE)
    with cluster(tmp_path) as servers:
        for number in range(3):
            with servers.sentinel(number) as client:
                client.execute_command("ACL", "SETUSER", *rules_of("finder"))
                port = client.connection_pool.connection_kwargs["port"]
            with redis.Redis(port=port, username="finder", password="PASSWORD") as finder:
                with finder.pubsub() as listening:
                    listening.subscribe("+switch-master")
                    told = listening.get_message(timeout=5)
                    assert told is not None
                    assert told["type"] == "subscribe"
                with pytest.raises(redis.ResponseError, match="permission"):
                    finder.execute_command("SENTINEL", "FAILOVER", "mymaster")
        at, _, _ = servers.url.partition("?")
        run_all(capsys, tmp_path, f"{at}?sentinel_username=finder&sentinel_password=PASSWORD")
