"""`authgate apply` and `authgate export`: the whole file or nothing, shown before, and back again unharmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import yaml

from authgate_fast.config import redis_store
from authgate_fast.config.check import check_file
from authgate_fast.config.file import load_file
from authgate_fast.config.keys import redis_key
from authgate_fast.management import read_documents
from tests.config.redis_kit import GATEWAY, ROUTE, SERVICE, consumer, put
from tests.management.kit import Command
from tests.redis_server import RedisServer, running

pytestmark = pytest.mark.redis

APP = "authgate:consumer:shop:app"
PASSWORD_HASH = "$argon2id$v=19$m=19456,t=2,p=1$" + "c2FsdHNhbHRzYWx0" + "$" + "aGFzaGhhc2hoYXNoaGFzaGhhc2g"


def configuration(**gateway: Any) -> dict[str, Any]:
    return {
        "gateways": {
            "shop": {
                **GATEWAY,
                "services": {"api": SERVICE},
                "routes": {"item": ROUTE},
                "consumers": {"app": orjson.loads(consumer("app"))},
                **gateway,
            }
        }
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def write(content: Any) -> str:
        path = tmp_path / "shop.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.get(key) for key in client.keys("*") if client.type(key) == b"string"}


def test_apply_writes_every_document_of_the_file(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    done = authgate("apply", write(configuration()))
    assert done.code == 0, done
    assert done.out.splitlines()[:4] == [
        "+ gateway shop",
        "+ service shop/api",
        "+ route shop/item",
        "+ consumer shop/app",
    ]
    assert "4 added; written to" in done.out
    assert everything(client) == {
        redis_key(key).encode(): text for key, text in load_file(write(configuration())).documents.items()
    }


def test_a_second_apply_changes_nothing(authgate: Command, write: Callable[[Any], str]) -> None:
    authgate("apply", write(configuration()))
    again = authgate("apply", write(configuration()), "--prune")
    assert again.code == 0
    assert again.out == "no change\n"


def test_spelling_out_a_default_is_no_change(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    authgate("apply", write(configuration()))
    before = everything(client)
    assert authgate("apply", write(configuration(enabled=True))).out == "no change\n"
    assert everything(client) == before


def test_a_change_names_the_fields_and_no_values(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, app={})
    new_hash = "cd" * 32
    changed = configuration(
        routes={"item": {**ROUTE, "security": "PUBLIC", "method": "ANY"}},
        consumers={"app": {"api_key_sha256": new_hash}},
    )
    done = authgate("apply", write(changed))
    assert "~ route shop/item: method, security" in done.out
    assert "~ consumer shop/app: api_key_sha256" in done.out
    assert "2 changed" in done.out
    assert new_hash not in done.out + done.err
    assert orjson.loads(client.get(APP) or b"") == {"api_key_sha256": new_hash}


def test_a_dry_run_shows_the_same_and_writes_nothing(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, leaver={})
    before = everything(client)
    done = authgate("apply", write(configuration()), "--dry-run", "--prune")
    assert done.code == 0
    assert "+ consumer shop/app" in done.out
    assert "- consumer shop/leaver" in done.out
    assert "nothing was written" in done.out
    assert everything(client) == before


def test_only_prune_deletes_and_only_documents(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, leaver={})
    client.set("authgate:secret:shop", "s")
    client.set("authgate:state:x", "s")
    client.set("authgate:consumer:shop:Malformed", "{}")
    client.rpush("authgate:route:shop:list", "x")
    authgate("apply", write(configuration()))
    assert client.exists("authgate:consumer:shop:leaver")
    done = authgate("apply", write(configuration()), "--prune")
    assert "2 removed" in done.out
    assert not client.exists("authgate:consumer:shop:leaver", "authgate:route:shop:list")
    assert client.exists("authgate:secret:shop", "authgate:state:x", "authgate:consumer:shop:Malformed") == 3
    assert "names no document" in done.err


def test_everything_is_written_in_one_transaction(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, leaver={})
    with client.monitor() as monitor:
        assert authgate("apply", write(configuration(enabled=False)), "--prune").code == 0
        client.ping()
        commands = []
        for command in monitor.listen():
            commands.append(command["command"].split()[0])
            if commands[-1] == "PING":
                break
    writes = [place for place, name in enumerate(commands) if name in ("SET", "DEL", "UNLINK")]
    assert len(writes) == 3
    assert commands[writes[0] - 1] == "MULTI"
    assert commands[writes[-1] + 1] == "EXEC"


def test_every_mistake_of_the_file_is_shown_and_nothing_is_written(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    bad = configuration(routes={"item": {**ROUTE, "metod": "GET"}, "other": {**ROUTE, "security": "SECRET"}})
    refused = authgate("apply", write(bad))
    assert refused.code == 1
    assert refused.out == ""
    assert "did you mean `method`?" in refused.err
    assert "did you mean `SECURE`?" in refused.err
    assert not client.keys("*")


def test_a_file_that_is_at_odds_with_redis_is_refused(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, app={})
    before = everything(client)
    other = configuration()["gateways"]["shop"]
    refused = authgate("apply", write({"gateways": {"web": other}}))
    assert refused.code == 1
    assert "shop.test" in refused.err
    assert everything(client) == before
    twin = {"gateways": {"shop": {**GATEWAY, "routes": {"twin": {**ROUTE, "public_path": "/a/{other}"}}}}}
    refused = authgate("apply", write(twin))
    assert refused.code == 1
    assert "twin" in refused.err
    assert everything(client) == before


def test_what_is_wrong_in_redis_already_does_not_stop_an_apply(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client)
    client.set("authgate:route:shop:lost", orjson.dumps({**ROUTE, "public_path": "/l", "service": "gone"}))
    client.set("authgate:route:shop:broken", "{")
    done = authgate("apply", write(configuration()))
    assert done.code == 0
    assert "already in Redis" in done.err
    assert "gone" in done.err
    assert client.exists(APP)


def test_a_broken_document_is_replaced_by_the_file_s(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    put(client, app={})
    client.set("authgate:route:shop:item", "{")
    client.delete("authgate:service:shop:api")
    client.rpush("authgate:service:shop:api", "x")
    done = authgate("apply", write(configuration()))
    assert "~ route shop/item: what Redis holds is not valid" in done.out
    assert "~ service shop/api: what Redis holds is not valid" in done.out
    assert client.get("authgate:service:shop:api") == orjson.dumps(SERVICE)


@pytest.mark.parametrize("watched", [1_000, 1])
def test_a_document_changed_meanwhile_is_not_overwritten(
    authgate: Command,
    client: redis.Redis,
    write: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
    watched: int,
) -> None:
    monkeypatch.setattr(redis_store, "MAX_WATCHED", watched)
    put(client, app={})
    real = redis_store.RedisStore.read_all
    meanwhile = consumer("app", roles=["new"])

    def read_all(self: redis_store.RedisStore) -> redis_store.Stored:
        stored = real(self)
        client.set(APP, meanwhile)
        return stored

    monkeypatch.setattr(redis_store.RedisStore, "read_all", read_all)
    changed = configuration(enabled=False, consumers={"app": {"api_key_sha256": "cd" * 32}})
    refused = authgate("apply", write(changed))
    assert refused.code == 1
    assert "changed by somebody else" in refused.err
    assert client.get(APP) == meanwhile
    assert orjson.loads(client.get("authgate:gateway:shop") or b"") == GATEWAY


def test_a_change_between_the_last_look_and_the_write_stops_it(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, app={})
    real = redis_store.RedisStore._read
    meanwhile = consumer("app", roles=["new"])

    def read(self: redis_store.RedisStore, connection: Any, keys: Any) -> Any:
        values = real(self, connection, keys)
        if isinstance(connection, redis.client.Pipeline):
            client.set(APP, meanwhile)
        return values

    monkeypatch.setattr(redis_store.RedisStore, "_read", read)
    refused = authgate("apply", write(configuration(consumers={"app": {"api_key_sha256": "cd" * 32}})))
    assert refused.code == 1
    assert client.get(APP) == meanwhile


def test_an_export_is_a_good_file_and_applies_to_the_same_documents(
    authgate: Command, client: redis.Redis, tmp_path: Path
) -> None:
    keys = [{"id": "k1", "sha256": "ef" * 32, "expires_at": "2099-01-31T00:00:00Z"}]
    put(client, app={"api_keys": keys, "roles": ["a", "null", "1.5"], "description": "caf\u00e9: 'x'\n#y"})
    client.set("authgate:gateway:on", orjson.dumps({**GATEWAY, "hosts": ["*"], "description": "no"}))
    client.set("authgate:secret:shop", "signing-key")
    done = authgate("export")
    assert done.code == 0, done.err
    assert done.err == ""
    assert "signing-key" not in done.out
    file = tmp_path / "export.yaml"
    file.write_text(done.out, "utf-8")
    assert check_file(file) == []
    assert authgate("apply", str(file), "--prune").out == "no change\n"
    client.flushall()
    assert authgate("apply", str(file)).code == 0
    assert yaml.safe_load(authgate("export").out) == yaml.safe_load(done.out)


def test_an_export_holds_no_password_hash_and_apply_keeps_the_stored_one(
    authgate: Command, client: redis.Redis, tmp_path: Path
) -> None:
    put(client, app={"password_hash": PASSWORD_HASH})
    done = authgate("export")
    assert "argon2" not in done.out
    file = tmp_path / "export.yaml"
    file.write_text(done.out)
    assert authgate("apply", str(file)).out == "no change\n"
    content = yaml.safe_load(done.out)
    content["gateways"]["shop"]["consumers"]["app"]["roles"] = ["new"]
    file.write_text(yaml.safe_dump(content))
    assert authgate("apply", str(file)).code == 0
    fields = orjson.loads(client.get(APP) or b"")
    assert fields["password_hash"] == PASSWORD_HASH
    assert fields["roles"] == ["new"]


@pytest.mark.parametrize(
    "stored", [{"password_hash": PASSWORD_HASH}, {"passwords": [{"id": "p1", "hash": PASSWORD_HASH}]}]
)
def test_passwords_of_either_field_stay_in_redis_and_one_in_the_file_replaces_all(
    authgate: Command, client: redis.Redis, tmp_path: Path, stored: dict[str, object]
) -> None:
    put(client, app=stored)
    done = authgate("export")
    assert "argon2" not in done.out
    file = tmp_path / "export.yaml"
    file.write_text(done.out)
    assert authgate("apply", str(file)).out == "no change\n"
    content = yaml.safe_load(done.out)
    new = [{"id": "p2", "hash": PASSWORD_HASH[:-1] + "A"}]
    content["gateways"]["shop"]["consumers"]["app"]["passwords"] = new
    file.write_text(yaml.safe_dump(content))
    assert authgate("apply", str(file)).code == 0
    fields = orjson.loads(client.get(APP) or b"")
    assert fields["passwords"] == new
    assert "password_hash" not in fields


def test_an_export_names_what_it_had_to_leave_out(
    authgate: Command, client: redis.Redis, tmp_path: Path
) -> None:
    put(client, app={})
    client.set("authgate:route:shop:broken", "{")
    client.rpush("authgate:route:shop:list", "x")
    client.set("authgate:consumer:other:orphan", consumer("orphan"))
    client.set("authgate:route:Shop:x", "{}")
    done = authgate("export")
    assert done.code == 1
    for name in ("shop:broken", "shop:list", "other:orphan", "Shop:x"):
        assert name in done.err
        assert name.split(":")[1] not in yaml.safe_load(done.out)["gateways"]["shop"]["routes"]
    file = tmp_path / "export.yaml"
    file.write_text(done.out)
    assert check_file(file) == []


def test_redis_away_is_exit_code_3_in_one_line(
    authgate: Command, redis_server: RedisServer, write: Callable[[Any], str]
) -> None:
    redis_server.kill()
    for arguments in (["export"], ["apply", write(configuration())], ["consumer", "list", "shop"]):
        failed = authgate(*arguments)
        assert failed.code == 3
        assert failed.out == ""
        assert failed.err.count("\n") == 1
        assert "cannot reach Redis" in failed.err
    assert read_documents(redis_server.url) is None


def test_a_wrong_password_is_exit_code_3_and_not_shown(authgate: Command) -> None:
    with running(tcp=True, password="right") as server:
        url = server.url.replace("right", "hunter2wrong")
        for address in (url, url.replace(":hunter2wrong@", "")):
            failed = authgate("export", "--redis", address)
            assert failed.code == 3
            assert "user name or password" in failed.err
            assert "hunter2" not in failed.err
        assert authgate("export", "--redis", server.url).code == 0


def test_a_read_only_redis_is_exit_code_3(
    authgate: Command, client: redis.Redis, write: Callable[[Any], str]
) -> None:
    client.config_set("maxmemory", "1")
    failed = authgate("apply", write(configuration()))
    assert failed.code == 3
    assert "maxmemory" in failed.err


def test_a_url_that_cannot_be_used_is_a_usage_error(
    authgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = authgate("export", "--redis", "http://user:hunter2@h")
    assert failed.code == 2
    assert "hunter2" not in failed.err
    monkeypatch.delenv("AUTHGATE_REDIS")
    assert authgate("export").code == 2
