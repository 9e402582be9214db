"""`authgate secret rotate`: a new key, the old one out of use, nothing overwritten that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from authgate_fast.auth.signing import PUBLISH_S, new_key
from authgate_fast.lookup import rotation
from tests.management.kit import Command

pytestmark = pytest.mark.redis
NAME = "authgate:secret:shop"
SEALED = bytes(range(32))


@pytest.fixture(autouse=True)
def _gateways(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "PUBLISH_S", 0.05)  # nobody has to learn of the key here
    client.set("authgate:gateway:shop", json.dumps({"hosts": ["shop.test"], "auth": {"type": "JWT"}}))
    client.set("authgate:gateway:keys", json.dumps({"hosts": ["keys.test"], "auth": {"type": "API_KEY"}}))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SEALED.hex() + "\n")
    return path


def keys(client: redis.Redis) -> list[dict[str, Any]]:
    text: Any = client.get(NAME)
    found: list[dict[str, Any]] = json.loads(text)["keys"]
    return found


def test_the_first_rotation_makes_the_first_key(authgate: Command, client: redis.Redis) -> None:
    done = authgate("secret", "rotate", "shop")
    assert done.code == 0
    (key,) = keys(client)
    assert key["alg"] == "EdDSA"
    assert key["kid"] in done.out
    assert key["private"]
    assert key["retired_at"] is None
    assert client.ttl(NAME) == -1
    assert key["private"] not in done.out + done.err


def test_the_old_key_is_retired_and_its_private_half_is_gone(authgate: Command, client: redis.Redis) -> None:
    authgate("secret", "rotate", "shop")
    (first,) = keys(client)
    assert authgate("secret", "rotate", "shop").code == 0
    old, new = keys(client)
    assert old["kid"] == first["kid"]
    assert old["public"] == first["public"]
    assert "private" not in old
    assert old["retired_at"] == new["active_at"]
    assert new["private"]
    assert new["retired_at"] is None


def test_a_new_key_is_published_before_it_signs() -> None:
    assert PUBLISH_S >= 1


def test_the_new_key_has_the_algorithm_of_the_document(authgate: Command, client: redis.Redis) -> None:
    authgate("secret", "rotate", "shop")
    auth = {"type": "JWT", "algorithm": "ES256"}
    client.set("authgate:gateway:shop", json.dumps({"hosts": ["shop.test"], "auth": auth}))
    authgate("secret", "rotate", "shop")
    assert [key["alg"] for key in keys(client)] == ["EdDSA", "ES256"]


def test_with_a_key_file_the_private_half_is_sealed(
    authgate: Command, client: redis.Redis, key_file: Path
) -> None:
    done = authgate("secret", "rotate", "shop", "--secret-key-file", str(key_file))
    assert done.code == 0
    (key,) = keys(client)
    assert key["sealed"]
    assert "private" not in key
    assert "sealed" in done.out


def test_the_key_file_may_be_given_by_the_environment(
    authgate: Command, client: redis.Redis, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHGATE_SECRET_KEY_FILE", str(key_file))
    assert authgate("secret", "rotate", "shop").code == 0
    assert keys(client)[0]["sealed"]


@pytest.mark.parametrize("file", ["another", "none"])
def test_a_sealed_keyring_is_not_touched_without_its_key(
    authgate: Command, client: redis.Redis, key_file: Path, tmp_path: Path, file: str
) -> None:
    authgate("secret", "rotate", "shop", "--secret-key-file", str(key_file))
    before = client.get(NAME)
    (tmp_path / "another").write_text("ff" * 32)
    options = ["--secret-key-file", str(tmp_path / "another")] if file == "another" else []
    done = authgate("secret", "rotate", "shop", *options)
    assert done.code == 1
    assert "--secret-key-file" in done.err
    assert client.get(NAME) == before


def test_a_keyring_that_cannot_be_read_is_not_touched(authgate: Command, client: redis.Redis) -> None:
    client.set(NAME, '{"version": 2}')
    done = authgate("secret", "rotate", "shop")
    assert done.code == 1
    assert NAME in done.err
    assert client.get(NAME) == b'{"version": 2}'


def test_revoke_drops_the_old_keys_whatever_they_are(authgate: Command, client: redis.Redis) -> None:
    authgate("secret", "rotate", "shop")
    (first,) = keys(client)
    done = authgate("secret", "rotate", "shop", "--revoke")
    assert done.code == 0
    assert "every access token" in done.out
    (key,) = keys(client)
    assert key["kid"] != first["kid"]
    client.set(NAME, "rubbish")
    assert authgate("secret", "rotate", "shop", "--revoke").code == 0
    assert len(keys(client)) == 1


def test_the_number_of_keys_is_bounded(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "MAX_KEYS", 2)
    assert [authgate("secret", "rotate", "shop").code for _ in range(3)] == [0, 0, 1]
    assert len(keys(client)) == 2


@pytest.mark.parametrize(
    ("gateway", "said"), [("nobody", "there is no gateway nobody"), ("keys", "API_KEY: it signs no tokens")]
)
def test_a_gateway_that_signs_nothing(authgate: Command, gateway: str, said: str) -> None:
    done = authgate("secret", "rotate", gateway)
    assert done.code == 1
    assert said in done.err


@pytest.mark.parametrize("text", ["", "short", "00" * 31, "zz" * 32, "A" * 42, "00" * 33])
def test_a_key_file_that_holds_no_key(authgate: Command, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    done = authgate("secret", "rotate", "shop", "--secret-key-file", str(path))
    assert done.code == 1
    assert "must hold 32 bytes" in done.err
    assert not text or text not in done.err


def test_a_key_file_that_is_not_there(authgate: Command, tmp_path: Path) -> None:
    done = authgate("secret", "rotate", "shop", "--secret-key-file", str(tmp_path / "nowhere"))
    assert done.code == 1
    assert "cannot be read" in done.err


def test_redis_away_is_the_environment(authgate: Command) -> None:
    assert authgate("secret", "rotate", "shop", "--redis", "redis://127.0.0.1:1").code == 3


def test_a_made_key_is_new_each_time() -> None:
    made = {new_key("EdDSA", name=NAME, now=0, active_at=0).kid for _ in range(20)}
    assert len(made) == 20
