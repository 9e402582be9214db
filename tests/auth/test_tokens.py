"""Signed tokens: a key and its algorithm belong together, and a bearer token is told from everything else."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from authgate_fast.auth.tokens import (
    ALGORITHMS,
    LEEWAY_S,
    TokenError,
    UnknownKeyError,
    VerifyingKey,
    audiences,
    bearer_token,
    read_header,
    sign,
    verify,
)

NOW = 1_900_000_000.0
CLAIMS = {"iss": "https://issuer.test", "exp": NOW + 60, "sub": "ann"}


def made(algorithm: str) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in ("ES256", "ES384", "ES512"):
        curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
        return ec.generate_private_key(curves[algorithm]())
    return rsa.generate_private_key(65_537, 2_048)


def judge(key: Any, algorithm: str, *, now: float = NOW, claims: dict[str, Any] = CLAIMS, **how: Any) -> Any:
    token = sign(claims, key=key, kid="k", algorithm=algorithm, kind="JWT")
    keys = {"k": VerifyingKey(key.public_key(), algorithm)}
    return verify(token, keys, issuer="https://issuer.test", now=now, types=frozenset({"jwt"}), **how)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_verifies_what_it_has_signed(algorithm: str) -> None:
    assert judge(made(algorithm), algorithm) == CLAIMS


def test_only_asymmetric_algorithms_are_there() -> None:
    assert not [name for name in ALGORITHMS if name.startswith(("HS", "none"))]
    assert set(ALGORITHMS) <= get_default_algorithms().keys()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES256"),
        (ec.generate_private_key(ec.SECP256K1()), "ES256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES384"),
        (rsa.generate_private_key(65_537, 1_024), "RS256"),
        (rsa.generate_private_key(65_537, 1_024), "PS256"),
    ],
)
def test_a_key_that_is_not_made_for_its_algorithm_verifies_nothing(key: Any, algorithm: str) -> None:
    with pytest.raises(TokenError, match="does not fit"):
        judge(key, algorithm)


def test_ed448_is_a_curve_of_eddsa() -> None:
    assert judge(ed448.Ed448PrivateKey.generate(), "EdDSA") == CLAIMS


def test_leeway_is_for_clocks_that_differ() -> None:
    key = made("EdDSA")
    assert judge(key, "EdDSA", now=NOW + 60 + LEEWAY_S - 1)
    with pytest.raises(TokenError, match="exp"):
        judge(key, "EdDSA", now=NOW + 60 + LEEWAY_S)
    for name in ("nbf", "iat"):
        assert judge(key, "EdDSA", claims={**CLAIMS, name: NOW + LEEWAY_S})
        with pytest.raises(TokenError, match=name):
            judge(key, "EdDSA", claims={**CLAIMS, name: NOW + LEEWAY_S + 1})


def test_the_only_key_needs_no_name_unless_it_is_asked_for() -> None:
    key = made("EdDSA")
    token = sign(CLAIMS, key=key, kid="k", algorithm="EdDSA", kind="JWT")
    how: Any = {"issuer": "https://issuer.test", "now": NOW, "types": frozenset({"jwt"})}
    public = VerifyingKey(key.public_key(), "EdDSA")
    with pytest.raises(UnknownKeyError) as caught:
        verify(token, {"other": public}, **how)
    assert caught.value.kid == "k"
    with pytest.raises(UnknownKeyError):
        verify(token, {}, **how)


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_typ_is_a_media_type(kind: str) -> None:
    key = made("EdDSA")
    token = sign(CLAIMS, key=key, kid="k", algorithm="EdDSA", kind=kind)
    keys = {"k": VerifyingKey(key.public_key(), "EdDSA")}
    assert verify(token, keys, issuer="https://issuer.test", now=NOW, types=frozenset({"at+jwt"}))


def test_audiences_are_texts() -> None:
    assert audiences({"aud": "a"}) == ("a",)
    assert audiences({"aud": ["a", 1, None, "b", ["c"]]}) == ("a", "b")
    for value in (None, 1, {}, True):
        assert audiences({"aud": value}) == ()


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"), (b"bearer abc", b"abc"), (b"BEARER  abc ", b"abc"), (b"Bearer a.b-c_d~e+f/g==", b"a.b-c_d~e+f/g=="),
        (b"Bearer", b""), (b"Bearer ", b""), (b"Bearer a b", b""), (b"Bearer a,b", b""), (b'Bearer "a"', b""), (b"Bearer \xc3\xa9", b""),
        (b"Bearer a\tb", b""), (b"Bearer a\x00", b""),
        (b"", None), (b"Basic abc", None), (b"Bearerabc", None), (b"Bearer\tabc", None), (b" Bearer abc", None), (b"abc", None),
        (b"\xe2\x84\xaaearer abc", None),
    ],
)  # fmt: skip
def test_a_bearer_token_is_told_from_everything_else(value: bytes, token: bytes | None) -> None:
    assert bearer_token(value) == token


@given(st.binary(max_size=300))
def test_rubbish_has_no_header_and_makes_no_accident(token: bytes) -> None:
    with pytest.raises(TokenError):
        read_header(token)
