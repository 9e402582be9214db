"""Keyrings: which key signs when, what verifies until when, and what a stored one gives away."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.auth import signing
from authgate_fast.auth.signing import (
    MAX_ACCESS_TTL_S,
    RETIRED_S,
    Keyring,
    KeyringError,
    StoredKey,
    new_key,
    open_key,
    parse_keyring,
)
from authgate_fast.model_auth import JwtAuth

NOW = 1_900_000_000.0
NAME = "authgate:secret:shop"
SEALING = bytes(range(32))


def made(algorithm: str = "EdDSA", at: float = NOW, active_at: float | None = None, **how: Any) -> StoredKey:
    return new_key(algorithm, name=NAME, now=at, active_at=at if active_at is None else active_at, **how)


def signs(keyring: Keyring, now: float) -> str:
    current = keyring.current(now)
    assert current is not None
    return current.kid


def test_a_new_key_signs_from_its_moment_on_and_the_old_one_until_then() -> None:
    old, new = made(), made(active_at=NOW + 2)
    keyring = Keyring((old,)).with_new(new)
    assert signs(keyring, NOW) == signs(keyring, NOW + 1.9) == old.kid
    assert signs(keyring, NOW + 2) == new.kid
    assert keyring.keys[0].retired_at == NOW + 2
    assert keyring.verifying(NOW).keys() == {old.kid, new.kid}, "published before it signs"


def test_a_retired_key_loses_its_private_half_and_verifies_until_its_last_token_has_ended() -> None:
    old, new = made(), made(active_at=NOW + 2)
    keyring = Keyring((old,)).with_new(new)
    assert keyring.tidied(NOW + 1.9) == keyring
    tidied = keyring.tidied(NOW + 2)
    assert not tidied.keys[0].may_sign
    assert tidied.keys[1] == new
    assert signs(tidied, NOW + 2) == new.kid
    last = NOW + 2 + MAX_ACCESS_TTL_S
    assert tidied.verifying(last).keys() == {old.kid, new.kid}
    assert tidied.verifying(NOW + 2 + RETIRED_S).keys() == {new.kid}
    assert [key.kid for key in tidied.tidied(NOW + 2 + RETIRED_S).keys] == [new.kid]


def test_no_setting_lets_a_token_outlive_its_retired_key() -> None:
    with pytest.raises(ValueError, match="access_ttl_s"):
        JwtAuth(type="JWT", access_ttl_s=MAX_ACCESS_TTL_S + 1)
    JwtAuth(type="JWT", access_ttl_s=MAX_ACCESS_TTL_S)


def test_a_key_of_the_future_signs_if_it_is_the_only_one() -> None:
    key = made(active_at=NOW + 1_000)  # made by a node whose clock is ahead
    assert signs(Keyring((key,)), NOW) == key.kid


def test_without_any_private_half_nothing_signs() -> None:
    assert Keyring((replace(made(), private=None),)).current(NOW) is None


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
@pytest.mark.parametrize("sealing_key", [None, SEALING])
def test_what_is_stored_is_read_back(algorithm: str, sealing_key: bytes | None) -> None:
    keyring = Keyring((made(algorithm, sealing_key=sealing_key),)).with_new(made(active_at=NOW + 2))
    assert parse_keyring(keyring.dump(), NAME) == keyring
    opened = open_key(keyring.keys[0], name=NAME, sealing_key=sealing_key)
    assert opened.algorithm == algorithm
    assert "key=" not in repr(opened)
    public = json.loads(keyring.jwks(NOW))["keys"][0]
    assert public["kid"] == opened.kid
    assert public["alg"] == algorithm
    assert public["use"] == "sig"
    assert not {"d", "p", "q", "k"} & public.keys()


def test_rsa_keys_are_long_enough() -> None:
    assert open_key(made("RS256"), name=NAME, sealing_key=None).key.key_size >= 2_048


def test_a_sealed_key_gives_nothing_away_and_opens_with_its_key_in_its_place_only() -> None:
    key = made(sealing_key=SEALING)
    assert key.private is None
    assert key.sealed is not None
    for wrong in (b"x" * 32, None):
        with pytest.raises(KeyringError, match="--secret-key-file"):
            open_key(key, name=NAME, sealing_key=wrong)
    with pytest.raises(KeyringError):
        open_key(key, name="authgate:secret:other", sealing_key=SEALING)
    other = made(sealing_key=SEALING)
    with pytest.raises(KeyringError):
        open_key(replace(key, sealed=other.sealed), name=NAME, sealing_key=SEALING)
    for at in (0, 12, len(key.sealed) - 1):
        changed = key.sealed[:at] + bytes([key.sealed[at] ^ 1]) + key.sealed[at + 1 :]
        with pytest.raises(KeyringError):
            open_key(replace(key, sealed=changed), name=NAME, sealing_key=SEALING)
    for short in (b"", b"x" * 11, b"x" * 13):
        with pytest.raises(KeyringError):
            open_key(replace(key, sealed=short), name=NAME, sealing_key=SEALING)


def test_two_halves_that_do_not_belong_together_are_refused() -> None:
    one, two = made(), made()
    with pytest.raises(KeyringError, match="do not belong together"):
        open_key(replace(one, private=two.private), name=NAME, sealing_key=None)
    with pytest.raises(KeyringError, match="cannot be read"):
        open_key(replace(one, private=b"rubbish"), name=NAME, sealing_key=None)


def test_nobody_shows_a_private_key() -> None:
    key = made()
    assert key.private is not None
    for text in (repr(key), str(key), repr(Keyring((key,)))):
        assert "private" not in text
        assert repr(key.private)[2:20] not in text


def changed(**fields: Any) -> bytes:
    text = json.loads(Keyring((made(),)).dump())
    text["keys"][0].update(fields)
    for name, value in fields.items():
        if value == "absent":
            del text["keys"][0][name]
    return json.dumps(text).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"{}", b'{"version":1}', b'{"version":1,"keys":[]}', b'{"version":1,"keys":{}}',
        b'{"version":2,"keys":[]}', b'{"version":1,"keys":[1]}', b'{"version":1,"keys":[{}]}', b"\xff",
        *(changed(**{name: "absent"}) for name in ("kid", "alg", "public", "created_at", "active_at", "retired_at")),
        changed(alg="none"), changed(alg="HS256"), changed(kid=7), changed(public="AAAA"), changed(public="!"),
        changed(public=7), changed(created_at="x"), changed(active_at=None), changed(private="!"), changed(private=7),
        changed(retired_at="never"),
    ],
)  # fmt: skip
def test_a_keyring_that_is_not_right_is_refused_as_a_whole(text: bytes) -> None:
    with pytest.raises(KeyringError, match=NAME) as caught:
        parse_keyring(text, NAME)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_refused() -> None:
    key = made()
    with pytest.raises(KeyringError):
        parse_keyring(Keyring((key, key)).dump(), NAME)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_keyring_with_some_bytes_changed_is_never_an_accident(data: st.DataObject) -> None:
    text = EXAMPLE
    at = data.draw(st.integers(0, len(text) - 1))
    mutated = text[:at] + data.draw(st.binary(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        keyring = parse_keyring(mutated, NAME)
        keyring.tidied(NOW)
        keyring.verifying(NOW)
        current = keyring.current(NOW)
        if current is not None:
            open_key(current, name=NAME, sealing_key=None)
    except KeyringError:
        pass


EXAMPLE = Keyring((made(),)).with_new(made(active_at=NOW + 2)).dump()


def test_an_algorithm_that_is_not_offered() -> None:
    with pytest.raises(KeyringError):
        made("HS256")


def test_kids_have_one_form() -> None:
    for algorithm in ("EdDSA", "ES256"):
        kid = made(algorithm).kid
        assert len(kid) == signing.KID_CHARACTERS
        assert kid.isascii()
