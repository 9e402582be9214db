"""A provider's key set: what is a key for signatures, and which algorithm it decides."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from authgate_fast.auth.jwks import MAX_KEYS, KeySetError, read_key_set
from authgate_fast.auth.tokens import TokenError, verify
from tests.auth.signer import ISSUER, Signer, claims_at

_RSA = rsa.generate_private_key(65537, 2048)
NOW = 1_900_000_000.0


def jwk(key: Any = _RSA, **more: Any) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        made = json.loads(RSAAlgorithm.to_jwk(public))
        made.pop("key_ops")
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = json.loads(ECAlgorithm.to_jwk(public))
    else:
        made = json.loads(OKPAlgorithm.to_jwk(public))
    made = {"kid": "k1"} | made | more
    return {name: value for name, value in made.items() if value is not None}


def algorithm_of(entry: dict[str, Any]) -> str | None:
    try:
        return read_key_set({"keys": [entry]})[entry.get("kid", "")].algorithm
    except KeySetError:
        return None


@pytest.mark.parametrize(
    ("key", "stated", "algorithm"),
    [
        (_RSA, None, "RS256"),
        (_RSA, "RS512", "RS512"),
        (_RSA, "PS256", "PS256"),
        (_RSA, "RSA-OAEP", None),
        (_RSA, "HS256", None),
        (_RSA, "none", None),
        (_RSA, "ES256", None),
        (_RSA, 7, None),
        (ec.generate_private_key(ec.SECP256R1()), None, "ES256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256", "ES256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES384", None),
        (ec.generate_private_key(ec.SECP256R1()), "ECDH-ES", None),
        (ec.generate_private_key(ec.SECP384R1()), None, "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), None, "ES512"),
        (ec.generate_private_key(ec.SECP256K1()), None, None),
        (ed25519.Ed25519PrivateKey.generate(), None, "EdDSA"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA", "EdDSA"),
        (ed25519.Ed25519PrivateKey.generate(), "HS256", None),
    ],
)
def test_the_key_decides_the_algorithm(key: Any, stated: Any, algorithm: str | None) -> None:
    assert algorithm_of(jwk(key, alg=stated)) == algorithm


@pytest.mark.parametrize(
    ("more", "is_used"),
    [
        ({"use": "sig"}, True),
        ({"use": "enc"}, False),
        ({"use": None}, True),
        ({"use": 1}, False),
        ({"key_ops": ["verify"]}, True),
        ({"key_ops": ["encrypt", "wrapKey"]}, False),
        ({"key_ops": "verify"}, False),
        ({"kid": 7}, False),
        ({"kid": "x" * 257}, False),
        ({"x5c": ["whatever"], "x5u": "http://attacker.example"}, True),
        ({"kty": "oct", "k": "c2VjcmV0"}, False),
        ({"kty": None}, False),
        ({"kty": ["RSA"]}, False),
        ({"e": "AAAA"}, False),
        ({"e": "AQ"}, False),  # an exponent of 1 signs nothing
        ({"e": "Ag"}, False),
        ({"e": "_" * 400 + "w"}, False),
        ({"n": "AQAB"}, False),
        ({"n": "not base64url!"}, False),
        ({"n": "_" * 4000}, False),
        ({"n": None}, False),
    ],
)
def test_what_is_no_public_key_for_signatures_is_left_out(more: dict[str, Any], is_used: bool) -> None:
    assert (algorithm_of(jwk(**more)) is not None) is is_used


def test_rsa_below_2048_bits_is_left_out() -> None:
    short = rsa.generate_private_key(65537, 1024)
    assert algorithm_of(jwk(short)) is None


def test_a_point_that_is_not_on_its_curve_is_left_out() -> None:
    entry = jwk(ec.generate_private_key(ec.SECP256R1()))
    assert algorithm_of(entry | {"y": entry["x"]}) is None
    assert algorithm_of(entry | {"x": entry["x"][:-4]}) is None


def test_a_coordinate_has_its_full_size() -> None:
    entry = jwk(ec.generate_private_key(ec.SECP256R1()))
    point = urlsafe_b64decode(entry["x"] + "=") + urlsafe_b64decode(entry["y"] + "=")
    shifted = {"x": urlsafe_b64encode(point[:33]).decode(), "y": urlsafe_b64encode(point[33:]).decode()}
    assert algorithm_of(entry | {name: text.rstrip("=") for name, text in shifted.items()}) is None


def test_the_good_keys_of_a_mixed_set_are_found() -> None:
    entries = [
        "no key",
        None,
        jwk(use="enc", kid="e"),
        {"kty": "oct", "k": "eA"},
        jwk(kid="good"),
        jwk(kid=None),
    ]
    assert set(read_key_set({"keys": entries})) == {"good", ""}


def test_the_first_of_two_keys_with_one_name_counts() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    assert read_key_set({"keys": [jwk(), jwk(other)]})["k1"].algorithm == "RS256"


def test_at_most_so_many_keys_are_read() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    entries = [jwk(key, kid=f"k{number}") for number in range(MAX_KEYS + 10)]
    assert len(read_key_set({"keys": entries})) == MAX_KEYS


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, {"keys": []}, "keys", 7])
def test_a_document_without_a_usable_key_is_refused(document: object) -> None:
    with pytest.raises(KeySetError):
        read_key_set(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(["kty", "kid", "n", "e", "alg", "use", "key_ops", "crv", "x", "y"])


@given(st.dictionaries(members, json_values))
def test_no_key_set_is_an_error_of_ours(entry: dict[str, Any]) -> None:
    for kind in ("RSA", "EC", "OKP"):
        try:
            read_key_set({"keys": [{"kty": kind, "crv": "P-256" if kind == "EC" else "Ed25519"} | entry]})
        except KeySetError:
            pass


def test_a_key_of_a_set_checks_what_its_owner_signs_and_nothing_else() -> None:
    signer, stranger = Signer("a"), Signer("a", name="stranger")
    keys = read_key_set({"keys": [jwk(signer.private, kid="a")]})
    types = frozenset({"at+jwt"})
    good = signer.token(claims_at(NOW))
    assert verify(good, keys, issuer=ISSUER, now=NOW, types=types)["sub"] == "user-1"
    with pytest.raises(TokenError):
        verify(stranger.token(claims_at(NOW)), keys, issuer=ISSUER, now=NOW, types=types)
