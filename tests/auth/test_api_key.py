"""API keys: who is let in, and that no refusal tells why."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth.api_key import (
    MAX_KEY_BYTES,
    ApiKeyAuthenticator,
    key_digest,
    looks_like_key,
    new_key,
)
from authgate_fast.auth.interface import Denial
from authgate_fast.decision import Client
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Consumers, Identity
from tests.known_keys import keys_of

NOW = 1_000.0


def credential(expires_at: float = math.inf, name: str = "app") -> Identity:
    return Identity(name, "default", frozenset(), expires_at, b"X-Consumer-Id: app\r\n")


def known(**keys: Identity) -> dict[bytes, Identity]:
    return {hashlib.sha256(key.encode()).digest(): found for key, found in keys.items()}


def identify(presented: list[bytes], keys: dict[bytes, Identity], now: float = NOW) -> Identity | Reason:
    authenticator = ApiKeyAuthenticator("shop-api", "X-Api-Key", Consumers(keys_of(keys)))
    head = RequestHead(b"GET", b"/", 1, [])
    found = authenticator.identify(
        head, [(b"x-api-key", value) for value in presented], Client("192.0.2.1"), now
    )
    if isinstance(found, Denial):
        assert found.is_failure == (found.reason is Reason.CREDENTIALS_INVALID)
        assert found.extra_lines == b'WWW-Authenticate: ApiKey realm="shop-api", header="X-Api-Key"\r\n'
        return found.reason
    assert isinstance(found, Identity)
    return found


def test_a_known_key_is_its_own_credential() -> None:
    one, two = credential(name="one"), credential(name="two")
    both = known(alpha=one, beta=two)
    assert identify([b"alpha"], both) is one
    assert identify([b"beta"], both) is two


@pytest.mark.parametrize("presented", [[], [b""]])
def test_no_key_is_a_missing_credential(presented: list[bytes]) -> None:
    assert identify(presented, known(alpha=credential())) is Reason.CREDENTIALS_MISSING


def test_the_digest_of_nothing_never_opens() -> None:
    assert identify([b""], {hashlib.sha256(b"").digest(): credential()}) is Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "presented",
    [
        [b"unknown"],
        [b"Alpha"],
        [b"alpha\x00"],
        [b"alph"],
        [b"alpha,alpha"],
        [b"alpha", b"alpha"],
        [b"alpha", b""],
        [b"", b"alpha"],
        [b"", b""],
        [b"alpha", b"beta"],
        [b"alpha"] * 3,
        [hashlib.sha256(b"alpha").hexdigest().encode()],
        [hashlib.sha256(b"alpha").digest()],
        [b"old"],
        [b"now"],
        [b"x" * (MAX_KEY_BYTES + 1)],
    ],
)
def test_unknown_doubled_expired_and_oversized_keys_get_one_answer(presented: list[bytes]) -> None:
    credentials = known(
        alpha=credential(),
        beta=credential(),
        old=credential(NOW - 1),
        now=credential(NOW),
        later=credential(NOW + 1),
    )
    credentials[hashlib.sha256(b"x" * (MAX_KEY_BYTES + 1)).digest()] = credential()
    assert identify(presented, credentials) is Reason.CREDENTIALS_INVALID


def test_a_key_counts_until_the_moment_it_expires() -> None:
    credentials = known(key=credential(NOW))
    assert isinstance(identify([b"key"], credentials, NOW - 0.001), Identity)
    assert identify([b"key"], credentials, NOW) is Reason.CREDENTIALS_INVALID


def test_the_longest_key_is_accepted() -> None:
    key = b"x" * MAX_KEY_BYTES
    assert isinstance(identify([key], {hashlib.sha256(key).digest(): credential()}), Identity)


@given(st.binary(min_size=1, max_size=80))
def test_only_the_exact_bytes_of_a_key_open(key: bytes) -> None:
    found = identify([key], known(alpha=credential()))
    assert isinstance(found, Identity) == (key == b"alpha")


def test_the_challenge_and_the_hint_name_the_field() -> None:
    authenticator = ApiKeyAuthenticator("shop-api", "X-Shop-Key", Consumers())
    assert authenticator.credential_fields == {b"x-shop-key"}
    found = authenticator.identify(RequestHead(b"GET", b"/", 1, []), [], Client("192.0.2.1"), NOW)
    assert isinstance(found, Denial)
    assert found.extra_lines == b'WWW-Authenticate: ApiKey realm="shop-api", header="X-Shop-Key"\r\n'
    assert found.detail is not None
    assert "X-Shop-Key" in found.detail


def test_new_keys_have_one_form_and_never_repeat() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert len(key) == 53
        assert key.startswith("agk_")
        assert key[4:].isascii()
        assert key[4:].isalnum()
        assert looks_like_key(key)


def test_a_key_uses_its_256_bits() -> None:
    # 62^43 exceeds 2^256, and every position varies but the first, which holds only a part of a digit.
    keys = [new_key()[4:47] for _ in range(300)]
    for position in range(1, 43):
        assert len({key[position] for key in keys}) > 30


@pytest.mark.parametrize("position", [0, 3, 4, 20, 46, 47, 52])
def test_a_mistyped_key_is_told_from_a_well_formed_one(position: int) -> None:
    key = new_key()
    other = "A" if key[position] != "A" else "B"
    assert not looks_like_key(key[:position] + other + key[position + 1 :])


@pytest.mark.parametrize("text", ["", "agk_", "agk", "x", "é" * 53, "agk_" + "é" * 49, "agk_" + "-" * 49])
def test_what_is_no_key_does_not_look_like_one(text: str) -> None:
    assert not looks_like_key(text)


def test_a_cut_or_padded_key_does_not_look_like_one() -> None:
    key = new_key()
    for text in (key[:-1], key + "0", " " + key, key + "\n", key[4:]):
        assert not looks_like_key(text)


def test_the_stored_digest_is_what_a_request_is_looked_up_by() -> None:
    key = new_key()
    digest = key_digest(key)
    assert len(digest) == 64
    assert digest == digest.lower()
    assert isinstance(identify([key.encode()], {bytes.fromhex(digest): credential()}), Identity)
