"""`authgate consumer ...` and `authgate key`: keys are shown once, changes are never lost, mistakes are explained."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import redis

from authgate_fast.auth.api_key import key_digest, looks_like_key
from authgate_fast.config import redis_store
from authgate_fast.config.documents import read_document
from authgate_fast.config.keys import DocumentKey
from authgate_fast.model import ConsumerDocument
from tests.config.redis_kit import consumer, put
from tests.management.kit import Command

pytestmark = pytest.mark.redis

APP = "authgate:consumer:shop:app"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def stored(client: redis.Redis, key: str = APP) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(client.get(key) or b"null")
    kind, gateway, name = key.split(":")[1:]
    assert isinstance(read_document(DocumentKey(kind, gateway, name), orjson.dumps(fields)), ConsumerDocument)
    return fields


def test_create_writes_the_hash_and_prints_only_the_key_on_stdout(
    authgate: Command, client: redis.Redis
) -> None:
    put(client)
    done = authgate(
        "consumer", "create", "shop", "app", "--role", "reader", "--role", "writer",
        "--expires-at", "2099-01-31T00:00:00Z", "--description", "the app",
    )  # fmt: skip
    assert done.code == 0
    key = done.out.strip()
    assert looks_like_key(key)
    assert key not in done.err
    assert "shown this once" in done.err
    assert stored(client) == {
        "api_key_sha256": key_digest(key),
        "roles": ["reader", "writer"],
        "expires_at": "2099-01-31T00:00:00Z",
        "description": "the app",
    }


def test_quiet_and_json_output(authgate: Command, client: redis.Redis) -> None:
    put(client)
    quiet = authgate("consumer", "create", "shop", "a", "--quiet")
    assert quiet.err == ""
    assert looks_like_key(quiet.out.strip())
    as_json = json.loads(authgate("consumer", "create", "shop", "b", "--json", "--quiet").out)
    assert looks_like_key(as_json.pop("api_key"))
    assert as_json == {"gateway": "shop", "consumer": "b", "key_id": "default"}


def test_options_come_from_the_environment_too(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)
    monkeypatch.setenv("AUTHGATE_ROLE", "reader,writer")
    monkeypatch.setenv("AUTHGATE_QUIET", "1")
    assert authgate("consumer", "create", "shop", "app").err == ""
    assert stored(client)["roles"] == ["reader", "writer"]
    monkeypatch.setenv("AUTHGATE_QUIET", "perhaps")
    assert authgate("consumer", "create", "shop", "other").code == 2
    assert not client.exists("authgate:consumer:shop:other")


def test_an_existing_consumer_is_never_overwritten(authgate: Command, client: redis.Redis) -> None:
    put(client, app={})
    client.rpush("authgate:consumer:shop:list", "x")
    before = client.get(APP)
    for name in ("app", "list"):
        refused = authgate("consumer", "create", "shop", name)
        assert refused.code == 1
        assert refused.out == ""
        assert "exists already" in refused.err
    assert client.get(APP) == before
    assert client.type("authgate:consumer:shop:list") == b"list"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "shpo", "app"], 1, "did you mean `shop`?"),
        (["create", "nothing-like-it", "app"], 1, "there are: shop"),
        (["create", "shop", "My App"], 1, "a name has"),
        (["create", "shop", "app", "--role", "a,b"], 1, "roles"),
        (["create", "shop", "app", "--expires-at", "tomorrow"], 1, "RFC 3339"),
        (["create", "shop", "app", "--expires-at", "2030-01-31T00:00:00"], 1, "zone"),
        (["create", "shop", "app", "--expires-at", "2001-01-31T00:00:00Z"], 1, "over already"),
        (["show", "shop", "parnter"], 1, "did you mean `partner`?"),
        (["show", "other", "app"], 1, "there is no gateway 'other'"),
        (["disable", "shop", "nobody"], 1, "there is no consumer shop/nobody"),
        (["rotate", "shop", "nobody"], 1, "there is no consumer shop/nobody"),
        (["delete", "shop", "nobody"], 1, "there is no consumer shop/nobody"),
        (["rotate", "shop", "partner", "--overlap", "1 day"], 2, "24h"),
        (["rotate", "shop", "partner", "--overlap", "-1h"], 2, "--overlap"),
        (["list", "shpo"], 1, "did you mean `shop`?"),
        (["create", "shop"], 2, "NAME"),
        ([], 2, "ACTION"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    authgate: Command, client: redis.Redis, arguments: list[str], code: int, words: str
) -> None:
    put(client, partner={})
    before = {key: client.get(key) for key in client.keys("*")}
    refused = authgate("consumer", *arguments)
    assert refused.code == code, refused
    assert words in refused.err
    assert refused.out == ""
    assert {key: client.get(key) for key in client.keys("*")} == before


def test_disable_and_enable_change_only_that(authgate: Command, client: redis.Redis) -> None:
    put(client, app={"roles": ["reader"], "description": "kept"})
    before = stored(client)
    assert "disabled" in authgate("consumer", "disable", "shop", "app").err
    assert stored(client) == {**before, "enabled": False}
    assert "already" in authgate("consumer", "disable", "shop", "app").err
    assert "enabled" in authgate("consumer", "enable", "shop", "app").err
    assert stored(client) == {**before, "enabled": True}
    assert "already" in authgate("consumer", "enable", "shop", "app").err


def test_rotate_adds_a_key_and_lets_the_old_one_end_after_the_overlap(
    authgate: Command, client: redis.Redis
) -> None:
    put(client, app={"roles": ["reader"]})
    old = stored(client)["api_key_sha256"]
    now = datetime.now(UTC).replace(microsecond=0)
    done = authgate("consumer", "rotate", "shop", "app")
    assert done.code == 0
    fields = stored(client)
    assert "api_key_sha256" not in fields
    first, second = fields["api_keys"]
    assert first["id"] == "default"
    assert first["sha256"] == old
    ends = datetime.strptime(first["expires_at"], TIME_FORMAT).replace(tzinfo=UTC)
    assert timedelta(0) <= ends - now - timedelta(hours=24) < timedelta(seconds=30)
    assert second["sha256"] == key_digest(done.out.strip())
    assert "expires_at" not in second
    assert fields["roles"] == ["reader"]


def test_rotating_again_gives_each_key_its_own_id_and_lengthens_no_life(
    authgate: Command, client: redis.Redis
) -> None:
    put(client, app={})
    authgate("consumer", "rotate", "shop", "app", "--overlap", "1h")
    first_end = stored(client)["api_keys"][0]["expires_at"]
    for _ in range(3):
        authgate("consumer", "rotate", "shop", "app", "--overlap", "7d")
    keys = stored(client)["api_keys"]
    assert len({key["id"] for key in keys}) == len(keys) == 5
    assert keys[0]["expires_at"] == first_end
    assert [key for key in keys if "expires_at" not in key] == keys[-1:]


def test_rotate_without_overlap_ends_the_old_keys_at_once(authgate: Command, client: redis.Redis) -> None:
    put(client, app={})
    done = authgate("consumer", "rotate", "shop", "app", "--overlap", "0")
    (key,) = stored(client)["api_keys"]
    assert key["sha256"] == key_digest(done.out.strip())


def test_rotate_drops_keys_that_are_over(authgate: Command, client: redis.Redis) -> None:
    over = {"id": "old", "sha256": "ab" * 32, "expires_at": "2001-01-01T00:00:00+02:00"}
    put(client, app={"api_keys": [over]})
    authgate("consumer", "rotate", "shop", "app")
    first, second = stored(client)["api_keys"]
    assert first["id"] == "default"
    assert second["id"] != "old"


def test_delete_says_what_it_did(authgate: Command, client: redis.Redis) -> None:
    put(client, app={}, other={})
    done = authgate("consumer", "delete", "shop", "app")
    assert done.code == 0
    assert "deleted consumer shop/app" in done.err
    assert not client.exists(APP)
    assert client.exists("authgate:consumer:shop:other")


def test_show_and_list_hold_no_hash(authgate: Command, client: redis.Redis) -> None:
    put(client, app={"roles": ["reader"], "expires_at": "2099-01-31T00:00:00Z"}, off={"enabled": False})
    digest = stored(client)["api_key_sha256"]
    outputs = [
        authgate("consumer", "show", "shop", "app").out,
        authgate("consumer", "show", "shop", "app", "--json").out,
        authgate("consumer", "list", "shop").out,
        authgate("consumer", "list", "shop", "--json").out,
    ]
    for output in outputs:
        assert digest not in output
        assert "app" in output
        assert "reader" in output
        assert "2099-01-31T00:00:00Z" in output
    assert json.loads(outputs[3])[1]["enabled"] is False
    lines = outputs[2].splitlines()
    assert [line.split()[:2] for line in lines] == [["NAME", "ENABLED"], ["app", "yes"], ["off", "no"]]


def test_a_broken_consumer_does_not_hide_the_others(authgate: Command, client: redis.Redis) -> None:
    put(client, app={})
    client.set("authgate:consumer:shop:broken", "{")
    client.rpush("authgate:consumer:shop:list", "x")
    done = authgate("consumer", "list", "shop")
    assert "app" in done.out
    assert "broken" in done.err
    assert "holds a list" in done.err
    assert authgate("consumer", "disable", "shop", "broken").code == 1


def test_a_change_made_meanwhile_is_kept(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, app={})
    real, calls = redis_store.RedisStore.read, []

    def read(self: redis_store.RedisStore, keys: Any) -> Any:
        values = real(self, keys)
        if not calls:
            client.set(APP, consumer("app", roles=["added-meanwhile"]))
        calls.append(1)
        return values

    monkeypatch.setattr(redis_store.RedisStore, "read", read)
    assert authgate("consumer", "disable", "shop", "app").code == 0
    assert stored(client)["roles"] == ["added-meanwhile"]
    assert stored(client)["enabled"] is False
    assert len(calls) == 2


def test_a_consumer_that_never_stands_still_is_given_up(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, app={})
    real, count = redis_store.RedisStore.read, iter(range(100))

    def read(self: redis_store.RedisStore, keys: Any) -> Any:
        values = real(self, keys)
        client.set(APP, consumer("app", description=str(next(count))))
        return values

    monkeypatch.setattr(redis_store.RedisStore, "read", read)
    for action in ("disable", "delete"):
        refused = authgate("consumer", action, "shop", "app")
        assert refused.code == 1
        assert "changed by others all the time" in refused.err
    assert "enabled" not in stored(client)


def test_key_prints_a_key_and_its_hash(authgate: Command) -> None:
    made = json.loads(authgate("key", "--json").out)
    assert looks_like_key(made["api_key"])
    assert made["api_key_sha256"] == key_digest(made["api_key"])
    lines = dict(line.split(": ") for line in authgate("key").out.splitlines())
    assert lines["api_key_sha256"] == key_digest(lines["api_key"])
    assert lines["api_key"] != made["api_key"]
