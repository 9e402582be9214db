"""OAUTH2: what a token must be, what is remembered of it, and what a client is told (besides the conformance kit)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.oauth2 import (
    KEY_LIFETIME_S,
    NEWS_PAUSE_S,
    REFUSED_S,
    IntrospectionLookup,
    IssuerKeysLookup,
    OAuth2Authenticator,
    OAuth2Settings,
)
from authgate_fast.auth.secret import SecretRef
from authgate_fast.auth.tokens import LEEWAY_S, MAX_TOKEN_BYTES
from authgate_fast.decision import Client
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Identity, Service
from tests.auth.signer import CLIENT, ISSUER, Signer, claims_at
from tests.plan_world import BACKEND, PEER, route

NOW = 1_900_000_000.0
SETTINGS = OAuth2Settings(ISSUER, CLIENT, None, None, False, 30, "roles")
SIGNER = Signer()


def authenticator(settings: OAuth2Settings = SETTINGS, *, with_keys: bool = True) -> OAuth2Authenticator:
    made = OAuth2Authenticator("gw", settings)
    if with_keys:
        made.set_keys(SIGNER.keys, NOW, NOW)
    return made


def show(
    checker: OAuth2Authenticator, token: bytes, now: float = NOW, client: Client | None = None
) -> Identity | Denial | IssuerKeysLookup | IntrospectionLookup:
    found = checker.identify(
        RequestHead(b"GET", b"/", 1, []),
        [(b"authorization", b"Bearer " + token)],
        client or Client(PEER),
        now,
    )
    assert isinstance(found, Identity | Denial | IssuerKeysLookup | IntrospectionLookup)
    return found


def refusal(checker: OAuth2Authenticator, token: bytes, now: float = NOW) -> Denial:
    found = show(checker, token, now)
    assert isinstance(found, Denial), found
    assert found.reason is Reason.CREDENTIALS_INVALID
    assert found.is_failure
    return found


def identity(checker: OAuth2Authenticator, token: bytes, now: float = NOW) -> Identity:
    found = show(checker, token, now)
    assert isinstance(found, Identity), getattr(found, "why", found)
    return found


def test_a_good_token_says_who_is_calling() -> None:
    token = SIGNER.token(claims_at(NOW, sub="auth0|12", roles=["buyer", "a,b"]))
    found = identity(authenticator(), token)
    assert found.identity_lines == (
        b"X-User-Id: auth0|12\r\nX-User-Roles: buyer,a%2Cb\r\nX-Client-Id: storefront\r\n"
    )
    assert found.token_line == b"Authorization: Bearer " + token + b"\r\n"
    assert found.roles == {"buyer", "a,b"}
    assert found.scopes == {"read", "write"}
    assert found.expires_at == NOW + 300
    assert found.credential_id == "auth0|12"
    assert found.consumer == ""


def test_no_claim_can_begin_a_header() -> None:
    claims = claims_at(NOW, sub="u\r\nX-Admin: 1", roles=["r\r\nX-Root: 1", "r\x00"], azp=CLIENT)
    lines = identity(authenticator(), SIGNER.token(claims)).identity_lines
    assert lines.count(b"\r\n") == 3
    assert b"X-User-Id: u%0D%0AX-Admin:%201\r\n" in lines


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256", "PS256", "RS512"])
def test_every_usual_algorithm_works(algorithm: str) -> None:
    signer = Signer(algorithm=algorithm)
    checker = authenticator()
    checker.set_keys(signer.keys, NOW, NOW)
    identity(checker, signer.token(claims_at(NOW)))


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({}, {}),
        ({}, {"typ": "application/at+jwt"}),
        ({}, {"typ": "AT+JWT"}),
        ({}, {"typ": "JWT"}),
        ({}, {"typ": None}),
        ({}, {"kid": None}),  # the provider has one key
        ({"nbf": NOW + LEEWAY_S - 1, "iat": NOW + LEEWAY_S - 1}, {}),
        ({"exp": NOW - LEEWAY_S + 1}, {}),
        ({"exp": NOW + 1.5}, {}),
        ({"client_id": None, "azp": CLIENT}, {}),
        ({"client_id": None, "aud": CLIENT}, {}),
    ],
)
def test_honest_tokens_of_many_forms_are_accepted(claims: dict[str, Any], header: dict[str, Any]) -> None:
    identity(authenticator(), SIGNER.token(claims_at(NOW, **claims), **header))


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"iss": ISSUER + "/"}, {}),
        ({"iss": "https://idp.example.com.attacker.example"}, {}),
        ({"iss": [ISSUER]}, {}),
        ({"iss": None}, {}),
        ({"exp": None}, {}),
        ({"exp": NOW - LEEWAY_S}, {}),
        ({"exp": str(int(NOW) + 300)}, {}),
        ({"nbf": NOW + LEEWAY_S + 1}, {}),
        ({"iat": NOW + LEEWAY_S + 1}, {}),
        ({"client_id": "another"}, {}),
        ({"client_id": None}, {}),
        ({"sub": None}, {}),
        ({"sub": ""}, {}),
        ({"sub": 7}, {}),
        ({"at_hash": "x"}, {}),
        ({"nonce": "n"}, {"typ": "JWT"}),
        ({"typ": "Refresh"}, {}),
        ({}, {"typ": "logout+jwt"}),
        ({}, {"typ": "dpop+jwt"}),
        ({}, {"crit": ["exp"]}),
        ({}, {"alg": "none"}),
    ],
)
def test_whatever_is_wrong_with_a_token_the_client_is_told_the_same(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    found = refusal(authenticator(), SIGNER.token(claims_at(NOW, **claims), **header))
    assert found.extra_lines == (
        b'WWW-Authenticate: Bearer realm="gw", error="invalid_token", '
        b'error_description="The token is not valid or has expired"\r\n'
    )
    assert found.detail == "The access token is not valid or has expired."
    assert found.why


def test_without_a_token_there_is_no_error_code() -> None:
    checker = authenticator()
    head = RequestHead(b"GET", b"/", 1, [])
    found = checker.identify(head, [], Client(PEER), NOW)
    assert isinstance(found, Denial)
    assert found.reason is Reason.CREDENTIALS_MISSING
    assert found.extra_lines == b'WWW-Authenticate: Bearer realm="gw"\r\n'
    assert not found.is_failure


def test_a_route_that_asks_for_scopes_names_them() -> None:
    _, plain = route("GET", "/", "/", Service("s", (BACKEND,)), secure=True)
    checker = authenticator()
    assert checker.forbidden_lines(plain) == b""
    scoped = replace(plain, scopes=frozenset({"write", "read"}))
    assert checker.forbidden_lines(scoped) == (
        b'WWW-Authenticate: Bearer realm="gw", error="insufficient_scope", scope="read write"\r\n'
    )


def test_with_an_audience_the_token_must_be_meant_for_it() -> None:
    checker = authenticator(replace(SETTINGS, audience="https://api.example.com"))
    identity(checker, SIGNER.token(claims_at(NOW)))
    identity(checker, SIGNER.token(claims_at(NOW, client_id=None, scope="read")))
    refusal(checker, SIGNER.token(claims_at(NOW, aud="https://other.example.com")))
    refusal(checker, SIGNER.token(claims_at(NOW, aud=CLIENT)))
    refusal(checker, SIGNER.token(claims_at(NOW, client_id="another")))


def test_a_token_is_read_to_its_limit_and_no_further() -> None:
    checker = authenticator()
    token = SIGNER.token(claims_at(NOW, padding="x" * 5_000))
    assert len(token) < MAX_TOKEN_BYTES
    identity(checker, token)
    refusal(checker, SIGNER.token(claims_at(NOW, padding="x" * 9_000)))


# Keys


def test_without_keys_they_are_looked_up_and_rubbish_is_refused_first() -> None:
    checker = authenticator(with_keys=False)
    found = show(checker, SIGNER.token(claims_at(NOW)))
    assert isinstance(found, IssuerKeysLookup)
    assert found.kid == "k1"
    assert found.is_guess
    refusal(checker, b"rubbish")
    refusal(checker, b"e30.e30")
    refusal(checker, b"not-json.e30.AAAA")


def test_an_unknown_key_is_looked_up_but_not_again_for_a_while() -> None:
    checker = authenticator()
    token = Signer("k2").token(claims_at(NOW))
    refusal(checker, token)
    refusal(checker, token, NOW + NEWS_PAUSE_S - 1)
    found = show(checker, token, NOW + NEWS_PAUSE_S)
    assert isinstance(found, IssuerKeysLookup)
    assert found.kid == "k2"


def test_a_clock_that_is_set_back_does_not_stop_the_look_up_of_keys() -> None:
    checker = authenticator()
    assert isinstance(show(checker, Signer("k2").token(claims_at(NOW)), NOW - 10), IssuerKeysLookup)


def test_old_keys_are_asked_for_again_and_tokens_checked_again() -> None:
    checker = authenticator()
    token = SIGNER.token(claims_at(NOW, exp=int(NOW) + 10_000))
    identity(checker, token)
    identity(checker, token, NOW + KEY_LIFETIME_S - 1)
    assert isinstance(show(checker, token, NOW + KEY_LIFETIME_S), IssuerKeysLookup)
    checker.set_keys(SIGNER.keys, NOW, NOW + KEY_LIFETIME_S)  # the provider is away: the old ones go on
    identity(checker, token, NOW + KEY_LIFETIME_S)


def test_what_a_withdrawn_key_has_signed_is_not_believed_any_more() -> None:
    checker, new = authenticator(), Signer("k2")
    token = SIGNER.token(claims_at(NOW))
    identity(checker, token)
    checker.set_keys(SIGNER.keys | new.keys, NOW + 1, NOW + 1)
    identity(checker, token)
    checker.set_keys(new.keys, NOW + 2, NOW + 2)
    refusal(checker, token, NOW + 3)


def test_another_key_under_a_known_name_is_another_key() -> None:
    checker = authenticator()
    token = SIGNER.token(claims_at(NOW))
    identity(checker, token)
    checker.set_keys(Signer("k1", name="new").keys, NOW + 1, NOW + 1)
    refusal(checker, token, NOW + 2)


def test_beyond_the_limit_of_failures_no_signature_is_checked() -> None:
    checker = authenticator()
    client = Client(PEER, guard=FailureGuard(2, 100, 60.0))
    assert client.guard is not None
    known, fresh = SIGNER.token(claims_at(NOW)), SIGNER.token(claims_at(NOW, sub="user-2"))
    identity(checker, known)
    for _ in range(2):
        client.guard.failed(PEER, b"", NOW)
    found = show(checker, fresh, NOW, client)
    assert isinstance(found, Denial)
    assert "not looked at" in found.why
    assert isinstance(show(checker, known, NOW, client), Identity), "what memory knows costs nothing"


# Introspection

INTROSPECT = replace(SETTINGS, introspect=True, client_secret=SecretRef(text="secret"))
ACTIVE: dict[str, Any] = {
    "active": True,
    "sub": "user-1",
    "client_id": CLIENT,
    "scope": "read",
    "exp": NOW + 300,
}


def introspected(
    checker: OAuth2Authenticator, answer: dict[str, Any], now: float = NOW, token: bytes = b"opaque"
) -> Identity | Denial:
    lookup = show(checker, token, now)
    assert isinstance(lookup, IntrospectionLookup)
    assert lookup.token == token
    assert lookup.is_guess
    return checker.introspected(lookup, answer, now)


def test_an_active_token_is_believed_for_the_configured_time() -> None:
    checker = authenticator(INTROSPECT)
    found = introspected(checker, ACTIVE | {"roles": ["buyer"]})
    assert isinstance(found, Identity)
    assert found.roles == {"buyer"}
    assert found.scopes == {"read"}
    assert show(checker, b"opaque", NOW + 29) is found
    assert isinstance(show(checker, b"opaque", NOW + 30), IntrospectionLookup)


def test_it_is_not_believed_beyond_its_own_end() -> None:
    checker = authenticator(INTROSPECT)
    introspected(checker, ACTIVE | {"exp": NOW + 5})
    assert isinstance(show(checker, b"opaque", NOW + 4), Identity)
    assert isinstance(show(checker, b"opaque", NOW + 5), IntrospectionLookup)


def test_without_a_cache_time_each_request_is_asked_about() -> None:
    checker = authenticator(replace(INTROSPECT, introspection_cache_s=0))
    assert isinstance(introspected(checker, ACTIVE), Identity)
    assert isinstance(show(checker, b"opaque"), IntrospectionLookup)


@pytest.mark.parametrize("spelling", [b"Bearer  %b", b"Bearer     %b", b"bearer %b", b"BEARER  %b"])
def test_a_token_is_asked_about_once_however_the_field_is_spelt(spelling: bytes) -> None:
    def spelt(checker: OAuth2Authenticator, token: bytes) -> object:
        presented = [(b"authorization", spelling % token)]
        return checker.identify(RequestHead(b"GET", b"/", 1, []), presented, Client("192.0.2.1"), NOW)

    checker = authenticator(INTROSPECT)
    found = introspected(checker, ACTIVE)
    assert spelt(checker, b"opaque") is found
    introspected(checker, {"active": False}, token=b"bad")
    assert isinstance(spelt(checker, b"bad"), Denial)
    other = spelt(checker, b"other")
    assert isinstance(other, IntrospectionLookup)
    assert isinstance(checker.introspected(other, ACTIVE, NOW), Identity)
    assert isinstance(show(checker, b"other"), Identity)


def test_another_scheme_of_six_letters_is_no_bearer_token() -> None:
    checker = authenticator(INTROSPECT)
    introspected(checker, ACTIVE)
    presented = [(b"authorization", b"Digest opaque")]
    found = checker.identify(RequestHead(b"GET", b"/", 1, []), presented, Client("192.0.2.1"), NOW)
    assert isinstance(found, Denial)
    assert found.reason is Reason.CREDENTIALS_MISSING


def test_a_jwt_is_introspected_too() -> None:
    introspected(authenticator(INTROSPECT), ACTIVE, token=SIGNER.token(claims_at(NOW)))


@pytest.mark.parametrize(
    "more",
    [
        {"active": False},
        {"active": "true"},
        {"active": 1},
        {"active": None},
        {"client_id": "another"},
        {"client_id": None},
        {"client_id": None, "azp": "another"},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"exp": NOW},
        {"exp": "soon"},
        {"sub": None},
        {"sub": 5},
        {"token_type": "DPoP"},
        {"token_type": "refresh_token"},
        {"typ": "Refresh"},
        {"token_use": "refresh_token"},
        {"cnf": {"x5t#S256": "thumb"}},
    ],
)
def test_anything_else_is_refused_and_not_asked_about_again_for_a_moment(more: dict[str, Any]) -> None:
    checker = authenticator(INTROSPECT)
    found = introspected(checker, ACTIVE | more)
    assert isinstance(found, Denial)
    assert found.reason is Reason.CREDENTIALS_INVALID
    refusal(checker, b"opaque", NOW + REFUSED_S - 1)
    assert isinstance(show(checker, b"opaque", NOW + REFUSED_S), IntrospectionLookup)


def test_what_the_provider_leaves_out_is_not_needed_except_who_it_is_and_for_whom() -> None:
    checker = authenticator(INTROSPECT)
    assert isinstance(introspected(checker, {"active": True, "sub": "u", "client_id": CLIENT}), Identity)


def test_an_introspected_token_has_the_gateways_audience() -> None:
    checker = authenticator(replace(INTROSPECT, audience="api"))
    assert isinstance(introspected(checker, ACTIVE | {"aud": "other"}), Denial)
    assert isinstance(introspected(checker, ACTIVE | {"aud": ["x", "api"]}, token=b"t2"), Identity)
