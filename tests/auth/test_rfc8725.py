"""RFC 8725 (JSON Web Token Best Current Practices) by name: no attack on a signed token gets in.

Each test first sees that the honest token is let in, so that a refusal is about the attack.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from authgate_fast.auth.signing import SigningKey, new_key, open_key
from authgate_fast.auth.tokens import MAX_TOKEN_BYTES, encode_base64url
from tests.auth.token_attacks import NOW, Target

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def targets() -> Iterator[type[Target]]:
    for path in sorted(Path(__file__).parent.glob("targets_*.py")):
        yield from importlib.import_module(f"tests.auth.{path.stem}").TARGETS


@pytest.fixture(params=list(targets()), ids=lambda kind: kind.name)
def target(request: pytest.FixtureRequest) -> Target:
    made: Target = request.param()
    assert made.accepts(made.good())
    return made


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a token made somebody open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@cache
def attackers_key(algorithm: str) -> SigningKey:
    made = new_key(algorithm, name="attacker", now=NOW, active_at=NOW)
    return open_key(made, name="attacker", sealing_key=None)


def unsigned(target: Target, algorithm: Any, signature: bytes = b"") -> bytes:
    header = orjson.dumps({**target.header, "alg": algorithm})
    payload = orjson.dumps(target.claims())
    return encode_base64url(header) + b"." + encode_base64url(payload) + b"." + signature


def parts(token: bytes) -> list[bytes]:
    return token.split(b".")


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "none ", " none", None, 0, False, [], ["none"], {}]
)
def test_alg_none_in_any_spelling(target: Target, algorithm: Any) -> None:
    good_signature = parts(target.good())[2]
    for signature in (b"", good_signature, encode_base64url(b"x")):
        assert not target.accepts(unsigned(target, algorithm, signature))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_an_hmac_with_the_public_key_as_its_secret(target: Target, algorithm: str) -> None:
    for spelling, secret in target.public_texts().items():
        assert not target.accepts(target.forge_hmac(algorithm, secret)), spelling
        real = target.forge_hmac(algorithm, secret, {"alg": target.signing.algorithm})
        assert not target.accepts(real), spelling


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_key_of_the_attacker_under_the_name_of_ours(target: Target, algorithm: str) -> None:
    key = attackers_key(algorithm)
    assert not target.accepts(target.forge(key))
    assert not target.accepts(target.forge(key, {"alg": target.signing.algorithm}))


@pytest.mark.parametrize(
    "algorithm",
    [
        "EdDSA",
        "Ed25519",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "rs256",
        "eddsa",
    ],
)
def test_our_own_signature_under_another_algorithm(target: Target, algorithm: str) -> None:
    if algorithm == target.signing.algorithm:
        return
    assert not target.accepts(target.make(header={"alg": algorithm}))


def test_our_own_key_used_with_another_algorithm_of_its_family(target: Target) -> None:
    if target.signing.algorithm != "RS256":
        return
    for algorithm in ("RS384", "RS512", "PS256", "PS512"):
        key = SigningKey(target.signing.kid, algorithm, target.signing.key)
        assert not target.accepts(target.forge(key)), algorithm


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null", "/dev/null", "/proc/self/environ", "file:///dev/null", "http://attacker.test/key",
        "' OR '1'='1", "x' UNION SELECT 'secret' -- ", "key\r\nGET authgate:secret:shop", "*", "%00", "\x00", "",
        "authgate:secret:shop", "__class__", "$(id)", "| id", "A" * 16, "A" * 5_000, "\u212a" * 16,
        0, 1, -1, 1.5, True, False, [], ["x"], {}, {"$ne": None},
    ],
)  # fmt: skip
def test_kid_as_a_path_a_query_a_command_or_no_text_at_all(target: Target, kid: Any) -> None:
    assert not target.accepts(target.make(header={"kid": kid}))
    assert not target.accepts(target.forge(attackers_key("EdDSA"), {"kid": kid}))
    assert not target.accepts(target.forge_hmac("HS256", b"", {"kid": kid}))


@pytest.mark.parametrize("place", ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "key", "keys", "jwks"])
@pytest.mark.parametrize("names_ours", [True, False])
def test_a_key_or_where_to_fetch_it_inside_the_token(target: Target, place: str, names_ours: bool) -> None:
    key = attackers_key("EdDSA")
    jwk = type(get_default_algorithms()["EdDSA"]).to_jwk(key.key.public_key(), as_dict=True)
    values: list[Any] = [
        jwk, {"keys": [jwk]}, ["MIIB"], "http://127.0.0.1:9/jwks.json", "https://attacker.test/jwks.json",
        f"{target.issuer}@attacker.test/jwks", "file:///dev/null",
    ]  # fmt: skip
    own = {} if names_ours else {"kid": key.kid}
    for value in values:
        assert not target.accepts(target.forge(key, {place: value, **own}))
        assert not target.accepts(target.forge(key, {place: value, "kid": None}))


@pytest.mark.parametrize(
    "critical", [["exp"], ["b64"], ["x"], [], "exp", None, {}, 0, ["http://example.test/unknown"]]
)
def test_crit_lists_what_nobody_here_knows(target: Target, critical: Any) -> None:
    header = orjson.dumps({**target.header, "crit": critical, "b64": True, "x": 1})
    assert not target.accepts(target.sign_raw(header, orjson.dumps(target.claims())))
    header = orjson.dumps({**target.header, "crit": critical})
    assert not target.accepts(target.sign_raw(header, orjson.dumps(target.claims())))


def test_an_unencoded_payload(target: Target) -> None:
    for value in (False, True, 0):
        assert not target.accepts(target.make(header={"b64": value}))


def test_iss_of_somebody_else(target: Target) -> None:
    issuer = target.issuer
    for value in (
        None, "", issuer + "/", issuer[:-1], issuer + ".attacker.test", issuer.upper(), " " + issuer, issuer + "\x00",
        [issuer], {"iss": issuer}, "https://attacker.test", issuer.replace("https", "http"), 7, True,
        issuer + "@attacker.test", "*",
    ):  # fmt: skip
        assert not target.accepts(target.make(iss=value)), value


def test_aud_of_somebody_else(target: Target) -> None:
    for value in target.wrong_audiences():
        assert not target.accepts(target.make(aud=value)), value


def test_typ_of_another_kind_of_token(target: Target) -> None:
    for value in target.wrong_types():
        assert not target.accepts(target.make(header={"typ": value})), value


def test_a_token_that_is_good_elsewhere(target: Target) -> None:
    assert not target.accepts(target.foreign())


@pytest.mark.parametrize("ago_s", [31, 60, 3_600, 10**9])
def test_exp_is_over(target: Target, ago_s: int) -> None:
    assert not target.accepts(target.make(exp=int(NOW) - ago_s))


def test_a_token_that_was_accepted_is_not_when_it_is_over(target: Target) -> None:
    token = target.make(exp=int(NOW) + 60)
    assert target.accepts(token)
    assert not target.accepts(token, NOW + 91)
    assert not target.accepts(token, NOW + 91)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [b'"1900000900"', b'""', b"true", b"[]", b"{}", b"[1900000900]", b'"never"', b"1e400", b"-1e400", b"NaN", b"Infinity",
     b"-Infinity", b"1e300", b"1" * 400, b"1" * 5_000, b"0x7fffffff", b"1_900_000_900", b"19e99999"],
)  # fmt: skip
def test_a_moment_that_is_no_number_or_beyond_all_time(target: Target, name: str, value: bytes) -> None:
    claims = orjson.dumps(target.claims(**{name: "PLACE"})).replace(b'"PLACE"', value)
    assert not target.accepts(target.make(claims=claims))


def test_exp_is_missing_or_null(target: Target) -> None:
    assert not target.accepts(target.make(exp=None))
    claims = orjson.dumps(target.claims(exp="PLACE")).replace(b'"PLACE"', b"null")
    assert not target.accepts(target.make(claims=claims))


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_nbf_or_iat_in_the_future(target: Target, name: str) -> None:
    assert target.accepts(target.make(**{name: int(NOW) + 20})), "two honest clocks"
    for ahead_s in (31, 60, 3_600):
        assert not target.accepts(target.make(exp=int(NOW) + 10_000, **{name: int(NOW) + ahead_s}))


def test_a_nested_token(target: Target) -> None:
    assert not target.accepts(target.make(claims=target.good(), header={"cty": "JWT"}))
    assert not target.accepts(target.make(claims=orjson.dumps(target.good().decode())))
    assert not target.accepts(target.make(claims=orjson.dumps([target.claims()])))


def test_a_name_that_stands_twice(target: Target) -> None:
    payload, header = orjson.dumps(target.claims()), orjson.dumps(target.header)
    for name, value in (
        ("sub", b'"ann"'),
        ("exp", b"99999999999"),
        ("iss", b'"https://attacker.test"'),
        ("x", b"1"),
    ):
        twice = payload[:-1] + b',"%b":%b,"%b":%b}' % (name.encode(), value, name.encode(), value)
        assert not target.accepts(target.make(claims=twice)), name
    assert not target.accepts(target.make(claims=payload[:-1] + b',"deep":{"a":1,"\\u0061":2}}'))
    for name, value in (
        ("alg", b'"none"'),
        ("kid", b'"other"'),
        ("typ", b'"JWT"'),
        ("alg", orjson.dumps(target.header["alg"])),
    ):
        for twice in (
            b'{"%b":%b,%b' % (name.encode(), value, header[1:]),
            header[:-1] + b',"%b":%b}' % (name.encode(), value),
        ):
            assert not target.accepts(target.sign_raw(twice, payload)), twice


def test_a_signature_stripped_cut_or_replaced(target: Target) -> None:
    head, payload, signature = parts(target.good())
    other = parts(target.make(jti="another"))[2]
    stub = len(signature) // 2
    for changed in (
        b"", signature[:-1], signature[:-4], signature[:stub], signature + b"AAAA", b"A" * len(signature), other,
        signature[::-1], signature[:4], b"AA", signature * 2,
    ):  # fmt: skip
        assert not target.accepts(b".".join((head, payload, changed))), changed
    assert not target.accepts(head + b"." + payload)


def test_claims_changed_under_a_good_signature(target: Target) -> None:
    head, _, signature = parts(target.good())
    for changes in ({"sub": "root"}, {"roles": ["admin"]}, {"exp": 2_000_000_000}, {"jti": "another"}):
        payload = encode_base64url(orjson.dumps(target.claims(**changes)))
        assert not target.accepts(b".".join((head, payload, signature)))


def test_another_spelling_of_the_same_bytes(target: Target) -> None:
    """Base64 with spare bits set, padding, white space or the other alphabet decodes alike in a lenient reader."""
    good = target.good()
    for index, part in enumerate(parts(good)):
        pieces = parts(good)
        if len(part) % 4:
            last = ALPHABET.index(part[-1:])
            for spare in range(1, 16 if len(part) % 4 == 2 else 4):
                pieces[index] = part[:-1] + ALPHABET[last + spare : last + spare + 1]
                assert not target.accepts(b".".join(pieces)), "spare bits"
        for changed in (
            part + b"=", part + b"==", part + b"=" * (-len(part) % 4), part + b"A", part + b"\n", b" " + part, part[:5] + b" " + part[5:],
            part[:5] + b"!" + part[5:], part[:5] + b"\r\n" + part[5:], part[:5] + b"=" + part[5:], b"\xef\xbb\xbf" + part,
        ):  # fmt: skip
            pieces[index] = changed
            if (
                b".".join(pieces).strip(b" ") != good
            ):  # spaces around it belong to the field, not to the token
                assert not target.accepts(b".".join(pieces)), changed
    standard = good.translate(bytes.maketrans(b"-_", b"+/"))
    if standard != good:
        assert not target.accepts(standard)
    assert target.accepts(good)


def test_an_encrypted_token(target: Target) -> None:
    header = encode_base64url(orjson.dumps({**target.header, "alg": "RSA-OAEP", "enc": "A256GCM"}))
    assert not target.accepts(header + b".AAAA.AAAA.AAAA.AAAA")
    header = encode_base64url(
        orjson.dumps({"alg": "dir", "enc": "A128CBC-HS256", "kid": target.header.get("kid")})
    )
    assert not target.accepts(header + b"..AAAA.AAAA.AAAA")
    assert not target.accepts(target.make(header={"alg": "PBES2-HS256+A128KW", "p2c": 2**31, "p2s": "AAAA"}))


def test_a_token_in_the_json_serialization(target: Target) -> None:
    head, payload, signature = (part.decode() for part in parts(target.good()))
    flattened = orjson.dumps({"protected": head, "payload": payload, "signature": signature})
    assert not target.accepts(flattened)
    assert not target.accepts(encode_base64url(flattened))


def test_a_token_too_large_to_be_read(target: Target) -> None:
    assert target.accepts(target.make(padding="x" * 2_000))
    assert not target.accepts(target.make(padding="x" * MAX_TOKEN_BYTES))
    assert not target.accepts(target.make(header={"padding": "x" * MAX_TOKEN_BYTES}))


def test_json_nested_until_a_parser_gives_up(target: Target) -> None:
    for depth in (500, 990, 1_010, 2_000):
        deep = b"[" * depth + b"]" * depth
        claims = orjson.dumps(target.claims())[:-1] + b',"deep":' + deep + b"}"
        token = target.make(claims=claims)
        if len(token) <= MAX_TOKEN_BYTES and depth > 990:
            assert not target.accepts(token)
        else:
            target.accepts(token)  # any answer, but an answer
        header = orjson.dumps(target.header)[:-1] + b',"deep":' + deep + b"}"
        target.accepts(target.sign_raw(header, orjson.dumps(target.claims())))


def test_json_that_is_not_utf_8(target: Target) -> None:
    text = orjson.dumps(target.claims()).decode()
    for payload in (
        text.encode("utf-16"),
        text.encode("utf-32"),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode() + b"\x00",
    ):
        assert not target.accepts(target.make(claims=payload))
    assert not target.accepts(target.make(claims=text.encode()[:-1] + b',"x":"\xff"}'))
    assert not target.accepts(target.make(claims=text.encode()[:-1] + b',"x":"\\ud800"}'))


def test_claims_of_another_shape(target: Target) -> None:
    for claims in (b"", b"null", b"[]", b'""', b"0", b"{", b"{}", b"not json"):
        assert not target.accepts(target.make(claims=claims))


def test_the_private_key_is_not_what_anybody_could_guess(target: Target) -> None:
    secret = target.signing.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert len(secret) >= 48
    assert len(set(secret)) >= 24  # no filler, no password: 32 random bytes alone have more


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mutation_of_a_good_token_is_refused(target: Target, data: st.DataObject) -> None:
    good = target.good()
    at = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(0, 3))
    new = data.draw(st.one_of(st.binary(max_size=4), st.text("AZaz09-_.=", max_size=4).map(str.encode)))
    mutated = good[:at] + new + good[at + length :]
    if mutated.strip(b" ") != good:
        assert not target.accepts(mutated)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_bytes_in_a_part_are_refused(target: Target, data: st.DataObject) -> None:
    pieces = parts(target.good())
    index = data.draw(st.integers(0, 2))
    changed = encode_base64url(data.draw(st.binary(max_size=80)))
    if changed != pieces[index]:
        pieces[index] = changed
        assert not target.accepts(b".".join(pieces))
