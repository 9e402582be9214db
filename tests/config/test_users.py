"""Consumers that log in with a name and a password, and what lives on when a configuration changes."""

from __future__ import annotations

from typing import Any

import orjson

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.snapshot import Gateway, User

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
OTHER = HASH[:-1] + "E"
GATEWAY = {"hosts": ["shop.test"], "auth": {"type": "BASIC"}}


def start(**consumers: dict[str, Any]) -> Configuration:
    configuration = Configuration()
    configuration.replace_all(
        {DocumentKey("gateway", "shop", "shop"): orjson.dumps(GATEWAY)}
        | {DocumentKey("consumer", "shop", name): orjson.dumps(fields) for name, fields in consumers.items()}
    )
    return configuration


def put(configuration: Configuration, name: str, fields: dict[str, Any] | None) -> None:
    raw = None if fields is None else orjson.dumps(fields)
    configuration.apply({DocumentKey("consumer", "shop", name): raw})


def shop(configuration: Configuration) -> Gateway:
    return configuration.snapshot.gateways["shop"]


def users(configuration: Configuration) -> dict[bytes, User]:
    return shop(configuration).consumers.users


def test_a_consumer_with_a_password_is_a_user_under_its_username_or_its_name() -> None:
    found = users(
        start(
            ann={"password_hash": HASH, "roles": ["b", "a"]}, bob={"password_hash": HASH, "username": "Böb"}
        )
    )
    assert found.keys() == {b"ann", "Böb".encode()}
    ann = found[b"ann"]
    assert ann.lines == b"X-Consumer-Id: ann\r\nX-Consumer-Roles: b,a\r\n"
    ((text, identity),) = ann.passwords
    assert text == HASH
    assert identity.identity_lines == ann.lines + b"X-Credential-Id: default\r\n"
    assert (identity.consumer, identity.roles) == ("ann", {"a", "b"})


def test_several_passwords_end_each_at_its_own_time_and_with_the_consumer() -> None:
    more = [{"id": "new", "hash": OTHER, "expires_at": "2030-01-01T00:00:00Z"}]
    found = users(start(ann={"password_hash": HASH, "passwords": more, "expires_at": "2029-01-01T00:00:00Z"}))
    ends = [(identity.credential_id, identity.expires_at) for _, identity in found[b"ann"].passwords]
    assert ends == [("default", 1861920000.0), ("new", 1861920000.0)]


def test_a_change_of_the_consumer_makes_another_user_and_a_disabled_one_is_gone() -> None:
    configuration = start(ann={"password_hash": HASH})
    before = users(configuration)[b"ann"]
    put(configuration, "ann", {"password_hash": HASH, "roles": ["a"]})
    after = users(configuration)[b"ann"]
    assert after is not before
    put(configuration, "ann", {"password_hash": HASH, "enabled": False})
    assert users(configuration) == {}
    put(configuration, "ann", {"password_hash": OTHER})
    assert users(configuration)[b"ann"].passwords[0][0] == OTHER
    put(configuration, "ann", {"api_key_sha256": "ab" * 32})
    assert users(configuration) == {}
    put(configuration, "ann", None)
    assert users(configuration) == {}


def test_a_username_that_changes_leaves_nothing_behind() -> None:
    configuration = start(ann={"password_hash": HASH})
    put(configuration, "ann", {"password_hash": HASH, "username": "anna"})
    assert users(configuration).keys() == {b"anna"}


def test_the_older_consumer_keeps_a_username_and_the_other_gets_it_when_it_goes() -> None:
    configuration = start(ann={"password_hash": HASH})
    put(configuration, "bob", {"password_hash": OTHER, "username": "ann"})
    assert users(configuration)[b"ann"].consumer == "ann"
    ((name, problem),) = configuration.refused.items()
    assert name == "consumer shop/bob name username"
    assert "the older consumer `ann` keeps it; each consumer needs its own username" in str(problem)
    put(configuration, "ann", None)
    assert users(configuration)[b"ann"].consumer == "bob"
    assert configuration.refused == {}


def test_what_an_authenticator_remembers_outlives_all_but_a_change_of_auth() -> None:
    configuration = start(ann={"password_hash": HASH})
    first = shop(configuration)
    for kind, fields in (
        ("service", {"target_url": "http://s"}),
        ("gateway", {**GATEWAY, "description": "x"}),
    ):
        configuration.apply({DocumentKey(kind, "shop", "shop"): orjson.dumps(fields)})
        assert shop(configuration) is not first
        assert shop(configuration).authenticator is first.authenticator
    changed = {**GATEWAY, "auth": {"type": "BASIC", "realm": "other"}}
    configuration.apply({DocumentKey("gateway", "shop", "shop"): orjson.dumps(changed)})
    assert shop(configuration).authenticator is not first.authenticator
    assert shop(configuration).consumers is first.consumers
