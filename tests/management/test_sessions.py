"""`authgate session`: who is logged in, and the end of it."""

from __future__ import annotations

import json
import time

import pytest
import redis

from authgate_fast.auth.session import seal_record, session_key, session_name
from tests.auth.bff_world import record
from tests.management.kit import Command

pytestmark = pytest.mark.redis
BFF = {"type": "BFF", "issuer": "https://iam.test", "client_id": "shop"}


@pytest.fixture(autouse=True)
def _gateways(client: redis.Redis) -> None:
    for name, auth in (("shop", BFF), ("shop2", BFF), ("keys", {"type": "API_KEY"})):
        client.set(f"authgate:gateway:{name}", json.dumps({"hosts": [f"{name}.test"], "auth": auth}))


def begin(
    client: redis.Redis, user: str = "u-1", gateway: str = "shop", created_at: float = 1_900_000_000.0
) -> str:
    """Store a session; return its id."""
    begin.count += 1  # type: ignore[attr-defined]  # a cookie of its own for each
    cookie = f"{begin.count:A>43}".encode()  # type: ignore[attr-defined]
    name = session_name(gateway, cookie)
    made = record(created_at, claims={"sub": user, "name": "Secret Name"})
    client.set(name, seal_record(session_key(cookie), name, made), ex=1_800)
    return name.rpartition(":")[2][:16]


begin.count = 0  # type: ignore[attr-defined]


def left(client: redis.Redis) -> int:
    return len(list(client.scan_iter(match="authgate:state:session:*")))


def test_the_list_shows_who_is_logged_in_since_when_and_until_when(
    authgate: Command, client: redis.Redis
) -> None:
    second, first = begin(client, "u-2", created_at=1_900_000_060.0), begin(client)
    begin(client, gateway="shop2")
    done = authgate("session", "list", "shop")
    assert done.code == 0
    assert done.out.splitlines() == [
        "ID                USER  BEGAN                 ENDS",
        f"{first}  u-1   2030-03-17T17:46:40Z  2030-03-18T05:46:40Z",
        f"{second}  u-2   2030-03-17T17:47:40Z  2030-03-18T05:47:40Z",
    ]


def test_the_list_as_json(authgate: Command, client: redis.Redis) -> None:
    made = begin(client)
    (fact,) = json.loads(authgate("session", "list", "shop", "--json").out)
    assert fact == {
        "gateway": "shop", "id": made, "user": "u-1", "created_at": "2030-03-17T17:46:40Z", "ends_at": "2030-03-18T05:46:40Z",
    }  # fmt: skip


def test_the_list_of_one_user(authgate: Command, client: redis.Redis) -> None:
    begin(client)
    made = begin(client, "u-2")
    facts = json.loads(authgate("session", "list", "shop", "--user", "u-2", "--json").out)
    assert [fact["id"] for fact in facts] == [made]


def test_nobody_is_logged_in(authgate: Command) -> None:
    assert authgate("session", "list", "shop").out == "ID  USER  BEGAN  ENDS\n"
    assert json.loads(authgate("session", "list", "shop", "--json").out) == []


def test_what_the_provider_calls_a_user_does_nothing_to_a_terminal(
    authgate: Command, client: redis.Redis
) -> None:
    begin(client, "\x1b[2J\n")
    assert r"'\x1b[2J\n'" in authgate("session", "list", "shop").out


def test_rubbish_in_the_store_is_listed_and_can_be_ended(authgate: Command, client: redis.Redis) -> None:
    client.set("authgate:state:session:shop:" + "0" * 64, "rubbish")
    client.set("authgate:state:session:shop:" + "1" * 64, '{"sub":7,"created_at":"x","ends_at":1e99}\n')
    assert authgate("session", "list", "shop").out.splitlines()[1:] == [
        "0000000000000000  ''    -      -",
        "1111111111111111  ''    -      -",
    ]
    assert authgate("session", "revoke", "shop", "0" * 16).code == 0
    assert left(client) == 1


def test_one_session_is_ended_by_its_id(authgate: Command, client: redis.Redis) -> None:
    made, _ = begin(client), begin(client)
    done = authgate("session", "revoke", "shop", made)
    assert (done.code, done.out, done.err) == (0, "", "ended 1 session of gateway shop\n")
    assert left(client) == 1
    assert made not in authgate("session", "list", "shop").out
    again = authgate("session", "revoke", "shop", made)
    assert again.code == 1
    assert "there is no session" in again.err


def test_all_sessions_of_a_user_are_ended(authgate: Command, client: redis.Redis) -> None:
    for user in ("u-1", "u-2", "u-1"):
        begin(client, user)
    begin(client, gateway="shop2")
    assert authgate("session", "revoke", "shop", "--user", "u-1").err == "ended 2 sessions of gateway shop\n"
    assert left(client) == 2
    assert authgate("session", "revoke", "shop", "--user", "u-1").err == "ended 0 sessions of gateway shop\n"


def test_all_sessions_of_a_gateway_are_ended_and_nobody_elses(authgate: Command, client: redis.Redis) -> None:
    for _ in range(20):
        begin(client)
    begin(client, gateway="shop2")
    assert authgate("session", "revoke", "shop", "--all").err == "ended 20 sessions of gateway shop\n"
    assert left(client) == 1


@pytest.mark.parametrize(
    "text", ["x", "0123", "*", "0123456789abcdeg", "shop:0123456789", "ABCDEF0123456789"]
)
def test_what_is_no_id_ends_nothing(authgate: Command, client: redis.Redis, text: str) -> None:
    begin(client)
    done = authgate("session", "revoke", "shop", text)
    assert done.code == 1
    assert "is no session's id" in done.err
    assert left(client) == 1


def test_an_id_that_several_sessions_share_ends_none(authgate: Command, client: redis.Redis) -> None:
    for last in "01":
        client.set("authgate:state:session:shop:" + "a" * 63 + last, "x")
    done = authgate("session", "revoke", "shop", "a" * 16)
    assert done.code == 1
    assert "there are 2 sessions" in done.err
    assert left(client) == 2
    assert authgate("session", "revoke", "shop", "a" * 63 + "1").code == 0


@pytest.mark.parametrize(
    "arguments", [(), ("0" * 16, "--all"), ("--all", "--user", "u-1"), ("0" * 16, "--user", "u-1")]
)
def test_which_sessions_to_end_is_said_in_one_way(authgate: Command, arguments: tuple[str, ...]) -> None:
    assert authgate("session", "revoke", "shop", *arguments).code == 2


@pytest.mark.parametrize("action", [("list",), ("revoke",)])
def test_only_bff_gateways_have_sessions(authgate: Command, action: tuple[str, ...]) -> None:
    more = ("--all",) if action == ("revoke",) else ()
    done = authgate("session", *action, "keys", *more)
    assert done.code == 1
    assert "has the auth type API_KEY" in done.err
    done = authgate("session", *action, "shopp", *more)
    assert done.code == 1
    assert "there is no gateway 'shopp'" in done.err


def test_no_secret_and_no_claim_but_the_subject_is_shown(authgate: Command, client: redis.Redis) -> None:
    begin(client)
    done = authgate("session", "list", "shop", "--json")
    for secret in ("access-1", "refresh-1", "id-1", "Secret Name", "A" * 40):
        assert secret not in done.out + done.err


def test_many_sessions_are_read_in_no_time(authgate: Command, client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(2_000):
            pipe.set(f"authgate:state:session:shop:{number:064x}", '{"sub":"u"}\nx')
        pipe.execute()
    begun = time.monotonic()
    assert len(json.loads(authgate("session", "list", "shop", "--json").out)) == 2_000
    assert time.monotonic() - begun < 5
