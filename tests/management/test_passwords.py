"""`authgate consumer ...` for gateways with passwords: shown once, stored as hashes, changed without an outage."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import redis

from authgate_fast.auth.password import verify_password
from authgate_fast.config.documents import read_document
from authgate_fast.config.keys import DocumentKey
from authgate_fast.model import ConsumerDocument
from tests.auth.users import cheap_hash
from tests.management.kit import Command

pytestmark = pytest.mark.redis

ANN = "authgate:consumer:shop:ann"
ISSUER = "https://iam.example.com"
AUTHS: dict[str, dict[str, Any]] = {
    "BASIC": {"type": "BASIC"},
    "JWT": {"type": "JWT"},
    "API_KEY": {"type": "API_KEY"},
    "OAUTH2": {"type": "OAUTH2", "issuer": ISSUER, "client_id": "app"},
    "BFF": {"type": "BFF", "issuer": ISSUER, "client_id": "app"},
}


def put(client: redis.Redis, auth: str = "BASIC", **consumers: dict[str, Any]) -> None:
    gateway = {"hosts": ["shop.test"], "auth": AUTHS[auth]}
    client.set("authgate:gateway:shop", orjson.dumps(gateway))
    for name, fields in consumers.items():
        client.set(f"authgate:consumer:shop:{name}", orjson.dumps(fields))


def stored(client: redis.Redis, key: str = ANN) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(client.get(key) or b"null")
    name = DocumentKey("consumer", "shop", key.rpartition(":")[2])
    assert isinstance(read_document(name, orjson.dumps(fields)), ConsumerDocument)
    return fields


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.get(key) for key in client.keys("*")}  # type: ignore[misc]  # redis' types


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("auth", ["BASIC", "JWT"])
def test_create_makes_a_password_and_stores_only_its_hash(
    authgate: Command, client: redis.Redis, auth: str
) -> None:
    put(client, auth)
    done = authgate("consumer", "create", "shop", "ann", "--role", "reader")
    assert done.code == 0
    password = done.out.strip()
    assert len(password) == 34
    assert password not in done.err
    assert "shown this once" in done.err
    assert "username ann" in done.err
    fields = stored(client)
    assert verify_password(fields.pop("password_hash"), password.encode())
    assert fields == {"roles": ["reader"]}
    assert password.encode() not in b"".join(everything(client).values())


def test_a_username_may_differ_from_the_name(authgate: Command, client: redis.Redis) -> None:
    put(client)
    done = authgate("consumer", "create", "shop", "ann", "--username", "Änn@shop", "--json", "--quiet")
    shown = json.loads(done.out)
    assert verify_password(stored(client)["password_hash"], shown.pop("password").encode())
    assert shown == {"gateway": "shop", "consumer": "ann", "password_id": "default"}
    assert stored(client)["username"] == "Änn@shop"
    assert done.err == ""


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (b"correct horse\n", b"correct horse"),
        (b"correct horse\r\n", b"correct horse"),
        (b" correct horse ", b" correct horse "),
        ("pâsswörd\n".encode(), "pâsswörd".encode()),
    ],
)
def test_a_password_may_come_from_stdin_and_is_not_shown(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, data: bytes, password: bytes
) -> None:
    put(client)
    typed(monkeypatch, data)
    done = authgate("consumer", "create", "shop", "ann", "--password-stdin")
    assert done.code == 0
    assert done.out == ""
    assert password.decode().strip() not in done.err
    assert verify_password(stored(client)["password_hash"], password)
    typed(monkeypatch, b"another horse\n")
    done = authgate("consumer", "set-password", "shop", "ann", "--password-stdin", "--json")
    assert json.loads(done.out) == {"gateway": "shop", "consumer": "ann", "password_id": "default"}
    assert verify_password(stored(client)["password_hash"], b"another horse")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "at least 8"),
        (b"\n", "at least 8"),
        (b"seven77\n", "at least 8"),
        (b"correct horse\nbattery\n", "more than one line"),
        (b"x" * 2_000, "too long"),
        (b"x" * 1_025, "at most 1024"),
        (b"correct\thorse\n", "control characters"),
        (b"correct\x00horse\n", "control characters"),
        (b"correct\xffhorse\n", "UTF-8"),
    ],
)
def test_a_password_that_cannot_be_one_is_explained_without_repeating_it(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    put(client)
    before = everything(client)
    typed(monkeypatch, data)
    refused = authgate("consumer", "create", "shop", "ann", "--password-stdin")
    assert refused.code == 1
    assert words in refused.err
    assert "horse" not in refused.err
    assert everything(client) == before


def test_a_password_typed_at_a_terminal_is_asked_for_twice_and_not_shown(
    authgate: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    answers = iter(["correct horse", "correct house", "correct horse", "correct horse"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(answers))
    refused = authgate("consumer", "create", "shop", "ann", "--password-stdin")
    assert refused.code == 1
    assert "not the same" in refused.err
    assert not client.exists(ANN)
    assert authgate("consumer", "create", "shop", "ann", "--password-stdin").code == 0
    assert verify_password(stored(client)["password_hash"], b"correct horse")


@pytest.mark.parametrize("auth", ["OAUTH2", "BFF"])
@pytest.mark.parametrize("action", ["create", "rotate", "set-password"])
def test_callers_of_a_provider_are_made_at_the_provider(
    authgate: Command, client: redis.Redis, auth: str, action: str
) -> None:
    put(client, auth, ann={})
    before = everything(client)
    refused = authgate("consumer", action, "shop", "ann")
    assert refused.code == 1
    assert refused.out == ""
    assert "identity provider" in refused.err
    assert ISSUER in refused.err
    assert everything(client) == before


@pytest.mark.parametrize(
    ("auth", "arguments", "words"),
    [
        ("API_KEY", ["create", "shop", "new", "--username", "x"], "API keys, not usernames"),
        ("API_KEY", ["create", "shop", "new", "--password-stdin"], "API keys, not passwords"),
        ("API_KEY", ["rotate", "shop", "ann", "--password-stdin"], "API keys, not passwords"),
        ("API_KEY", ["set-password", "shop", "ann"], "`authgate consumer rotate`"),
        ("BASIC", ["set-password", "shop", "an"], "did you mean `ann`?"),
        ("BASIC", ["set-password", "shpo", "ann"], "did you mean `shop`?"),
        ("BASIC", ["create", "shop", "ann"], "exists already"),
        ("BASIC", ["create", "shop", "new", "--username", "a:b"], "without ':'"),
        ("BASIC", ["create", "shop", "new", "--username", "a\tb"], "username"),
        ("BASIC", ["create", "shop", "new", "--username", ""], "username"),
        ("BASIC", ["create", "shop", "new", "--username", "Ann"], "consumer shop/ann has the username 'Ann'"),
        (
            "BASIC",
            ["create", "shop", "bob2", "--username", "bob"],
            "consumer shop/bob has the username 'bob'",
        ),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    authgate: Command, client: redis.Redis, auth: str, arguments: list[str], words: str
) -> None:
    put(
        client,
        auth,
        ann={"username": "Ann", "password_hash": cheap_hash("a")},
        bob={"password_hash": cheap_hash("b")},
        broken={"username": 1},
    )
    before = everything(client)
    refused = authgate("consumer", *arguments)
    assert refused.code == 1, refused
    assert words in refused.err
    assert refused.out == ""
    assert everything(client) == before


def test_the_name_of_a_consumer_without_a_password_is_no_username(
    authgate: Command, client: redis.Redis
) -> None:
    put(client, other={"username": "ann"})
    assert authgate("consumer", "create", "shop", "ann").code == 0


def test_a_gateway_that_is_not_valid_is_named(authgate: Command, client: redis.Redis) -> None:
    client.set("authgate:gateway:shop", b'{"hosts": ["shop.test"], "auth": {"type": "BASIK"}}')
    refused = authgate("consumer", "create", "shop", "ann")
    assert refused.code == 1
    assert "the gateway shop in Redis is not valid" in refused.err
    assert "BASIK" in refused.err


def test_set_password_ends_all_others_at_once_and_keeps_the_rest(
    authgate: Command, client: redis.Redis
) -> None:
    more = [{"id": "p1", "hash": cheap_hash("two")}]
    put(
        client, ann={"password_hash": cheap_hash("one"), "passwords": more, "roles": ["r"], "username": "Ann"}
    )
    done = authgate("consumer", "set-password", "shop", "ann")
    assert done.code == 0
    assert "ended now" in done.err
    fields = stored(client)
    assert verify_password(fields.pop("password_hash"), done.out.strip().encode())
    assert fields == {"roles": ["r"], "username": "Ann"}


def test_rotate_adds_a_password_and_lets_the_old_one_end_after_the_overlap(
    authgate: Command, client: redis.Redis
) -> None:
    put(client, ann={"password_hash": cheap_hash("one"), "roles": ["r"]})
    now = datetime.now(UTC).replace(microsecond=0)
    done = authgate("consumer", "rotate", "shop", "ann", "--overlap", "2h")
    assert done.code == 0
    fields = stored(client)
    assert "password_hash" not in fields
    first, second = fields["passwords"]
    assert (first["id"], first["hash"]) == ("default", cheap_hash("one"))
    ends = datetime.fromisoformat(first["expires_at"])
    assert timedelta(0) <= ends - now - timedelta(hours=2) < timedelta(seconds=30)
    assert verify_password(second["hash"], done.out.strip().encode())
    assert second["id"].startswith("p2")
    assert "expires_at" not in second
    assert second["id"] in done.err


def test_rotate_without_overlap_leaves_the_new_password_alone(authgate: Command, client: redis.Redis) -> None:
    put(client, ann={"password_hash": cheap_hash("one")})
    done = authgate("consumer", "rotate", "shop", "ann", "--overlap", "0")
    (only,) = stored(client)["passwords"]
    assert verify_password(only["hash"], done.out.strip().encode())


def test_a_fifth_password_is_refused_and_one_that_is_over_makes_room(
    authgate: Command, client: redis.Redis
) -> None:
    put(client, ann={"password_hash": cheap_hash("one")})
    for _ in range(3):
        assert authgate("consumer", "rotate", "shop", "ann").code == 0
    fields = stored(client)
    assert len({one["id"] for one in fields["passwords"]}) == len(fields["passwords"]) == 4
    refused = authgate("consumer", "rotate", "shop", "ann")
    assert refused.code == 1
    assert "4 passwords that still work" in refused.err
    assert refused.out == ""
    assert stored(client) == fields
    fields["passwords"][0]["expires_at"] = "2001-01-01T00:00:00Z"
    put(client, ann=fields)
    assert authgate("consumer", "rotate", "shop", "ann").code == 0
    assert "default" not in [one["id"] for one in stored(client)["passwords"]]


def test_show_and_list_tell_ids_and_ends_and_no_hash(authgate: Command, client: redis.Redis) -> None:
    ends = "2099-01-31T00:00:00Z"
    more = [{"id": "p1", "hash": cheap_hash("two"), "expires_at": ends}]
    put(client, ann={"password_hash": cheap_hash("one"), "passwords": more, "username": "Ann"})
    outputs = [
        authgate("consumer", action, *names, *how).out
        for action, names in (("show", ("shop", "ann")), ("list", ("shop",)))
        for how in ((), ("--json",))
    ]
    for output in outputs:
        assert "argon2" not in output
        assert cheap_hash("one")[-20:] not in output
    assert "default (without end), p1 (until 2099-01-31T00:00:00Z)" in outputs[0]
    assert "username     Ann" in outputs[0]
    shown = json.loads(outputs[1])
    assert shown["passwords"] == [
        {"id": "default", "expires_at": None},
        {"id": "p1", "expires_at": ends},
    ]
    assert shown == json.loads(outputs[3])[0]
    assert outputs[2].splitlines()[1].split()[:4] == ["ann", "yes", "0", "2"]


def test_password_prints_a_password_and_its_hash(authgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads(authgate("password", "--json").out)
    assert verify_password(made["password_hash"], made["password"].encode())
    lines = dict(line.split(": ") for line in authgate("password").out.splitlines())
    assert verify_password(lines["password_hash"], lines["password"].encode())
    assert lines["password"] != made["password"]
    typed(monkeypatch, b"correct horse\n")
    (line,) = authgate("password", "--password-stdin").out.splitlines()
    assert verify_password(line.removeprefix("password_hash: "), b"correct horse")
    typed(monkeypatch, b"short\n")
    assert authgate("password", "--password-stdin").code == 1
