"""Tokens of a gateway's own login: what is remembered, for how long, and what a signature check costs whom."""

from __future__ import annotations

import pytest

from authgate_fast.auth import jwt
from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.jwt import MAX_VALUE_BYTES, JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.signing import SigningKey, new_key, open_key
from authgate_fast.auth.tokens import MAX_TOKEN_BYTES, sign, verify
from authgate_fast.decision import Client
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Consumers, Identity
from tests.auth.adapters_jwt import counting
from tests.auth.jwt_world import NOW, PEER, JwtGateway
from tests.auth.users import user


@pytest.fixture
def gateway() -> JwtGateway:
    return JwtGateway()


def checked() -> int:
    return counting("EdDSA").checked


def test_a_token_is_verified_once_and_then_it_is_the_same_identity(gateway: JwtGateway) -> None:
    token = gateway.token()
    before = checked()
    first = gateway.shows(token)
    assert isinstance(first, Identity)
    assert first.credential_id == "jti-of-ann"
    assert first.roles == {"reader"}
    assert first.expires_at == NOW + 900
    for later in (1, 899.9):
        assert gateway.shows(token, now=NOW + later) is first
    assert checked() == before + 1


def test_roles_come_from_the_document_and_not_from_the_token(gateway: JwtGateway) -> None:
    token = gateway.token(roles=["admin"])
    found = gateway.ask(token)
    assert isinstance(found, Identity)
    assert found.roles == {"reader"}
    gateway.add(user("ann", "no hash", roles=("writer",)))
    found = gateway.ask(token)
    assert isinstance(found, Identity)
    assert found.roles == {"writer"}
    assert b"X-Consumer-Roles: writer\r\n" in found.identity_lines


def test_any_change_of_the_consumer_makes_memory_forget(gateway: JwtGateway) -> None:
    token = gateway.token()
    gateway.ask(token)
    before = checked()
    gateway.add(user("ann", "no hash"))
    assert isinstance(gateway.shows(token), Identity)
    assert checked() == before + 1


def test_a_consumer_that_took_over_the_username_does_not_get_the_tokens(gateway: JwtGateway) -> None:
    token = gateway.token()
    gateway.ask(token)
    gateway.add(user("bob", "no hash", username="ann"))
    assert isinstance(gateway.ask(token), Denial)


def test_a_consumer_that_expires_takes_its_tokens_with_it(gateway: JwtGateway) -> None:
    gateway.add(user("ann", "no hash", expires_at=NOW + 100))
    token = gateway.token()
    found = gateway.ask(token)
    assert isinstance(found, Identity)
    assert found.expires_at == NOW + 100
    assert isinstance(gateway.ask(token, now=NOW + 99.9), Identity)
    assert isinstance(gateway.ask(token, now=NOW + 100), Denial)


def test_what_is_over_is_forgotten(gateway: JwtGateway) -> None:
    token = gateway.token()
    gateway.ask(token)
    assert len(gateway.authenticator._remembered) == 1
    assert isinstance(gateway.ask(token, now=NOW + 900), Denial)
    assert len(gateway.authenticator._remembered) == 0


def test_memory_is_bounded_and_the_oldest_goes_first(
    gateway: JwtGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "MAX_REMEMBERED", 3)
    tokens = [gateway.token(jti=f"jti-{n}") for n in range(5)]
    for token in tokens:
        assert isinstance(gateway.ask(token), Identity)
    assert len(gateway.authenticator._remembered) == 3
    before = checked()
    for token in tokens[2:]:
        gateway.ask(token)
    assert checked() == before
    gateway.ask(tokens[0])
    assert checked() == before + 1


def test_nothing_bad_is_remembered(gateway: JwtGateway) -> None:
    for n in range(50):
        assert isinstance(gateway.ask(gateway.token(exp=int(NOW) - n)), Denial)
    assert gateway.authenticator._remembered == {}


def test_a_key_that_is_gone_takes_its_tokens_with_it(gateway: JwtGateway) -> None:
    token = gateway.token()
    gateway.ask(token)
    gateway.authenticator.set_keys({**gateway.keyring.verifying(NOW), "another": None})  # type: ignore[dict-item]
    assert gateway.authenticator._remembered
    gateway.authenticator.set_keys({})
    assert isinstance(gateway.shows(token), SigningKeysLookup)


def test_without_keys_a_token_waits_for_them_and_rubbish_does_not(gateway: JwtGateway) -> None:
    gateway.authenticator.held.keys = None
    assert isinstance(gateway.shows(gateway.token()), SigningKeysLookup)
    for rubbish in (b"rubbish", b"a.b.c", b""):
        assert isinstance(gateway.shows(rubbish), Denial)


def test_a_key_that_could_be_ours_is_looked_up_and_another_is_not(gateway: JwtGateway) -> None:
    def named(kid: str) -> object:
        token = sign(gateway.claims(), key=gateway.signing.key, kid=kid, algorithm="EdDSA", kind="at+jwt")
        return gateway.shows(token)

    found = named("A" * 16)
    assert isinstance(found, SigningKeysLookup)
    assert found.kid == "A" * 16
    assert found.is_guess
    for kid in ("A" * 15, "A" * 17, "../../etc/passwd", "A" * 15 + "\n", "\u00e9" * 16, ""):
        assert isinstance(named(kid), Denial), kid


def test_no_signature_is_checked_for_an_address_that_has_failed_too_often(gateway: JwtGateway) -> None:
    guard = FailureGuard(2, 100, 60.0)
    client = Client(PEER, b"http", guard)
    token = gateway.token()
    for _ in range(2):
        guard.failed(PEER, b"", NOW)
    before = checked()
    found = gateway.shows(token, client=client)
    assert isinstance(found, Denial)
    assert found.is_failure
    assert checked() == before
    assert isinstance(gateway.shows(token, client=Client("192.0.2.8", b"http", guard)), Identity)
    assert isinstance(gateway.shows(token, client=client), Identity), "what is known costs nothing"


@pytest.mark.parametrize("name", ["iat", "sub", "jti", "sid", "preferred_username", "aud", "iss", "exp"])
def test_a_token_without_one_of_its_claims_is_none_of_ours(gateway: JwtGateway, name: str) -> None:
    assert isinstance(gateway.ask(gateway.token(**{name: None})), Denial)


@pytest.mark.parametrize(
    "jti", ["", "a b", "a\r\nX-Consumer-Roles: admin", "\u00e9", "a" * 65, 7, [], "a,b", "a\n"]
)
def test_a_jti_that_cannot_stand_in_a_field_line_is_refused(gateway: JwtGateway, jti: object) -> None:
    assert isinstance(gateway.ask(gateway.token(jti=jti)), Denial)
    assert isinstance(gateway.ask(gateway.token(sid=jti)), Denial)


@pytest.mark.parametrize("username", [7, [], {}, True, "nobody", "", "ann\x00"])
def test_a_username_of_nobody(gateway: JwtGateway, username: object) -> None:
    assert isinstance(gateway.ask(gateway.token(preferred_username=username)), Denial)


def test_the_largest_value_is_bounded_before_it_is_hashed() -> None:
    assert MAX_VALUE_BYTES < MAX_TOKEN_BYTES + 100


def test_a_made_token_says_what_rfc_9068_asks_for(gateway: JwtGateway) -> None:
    token, expires_in = gateway.authenticator.issue(gateway.ann, gateway.signing, NOW + 0.7, "jti", "sid")
    claims = verify(
        token,
        gateway.keyring.verifying(NOW),
        issuer=gateway.issuer,
        now=NOW,
        types=frozenset({"at+jwt"}),
        audience="kit",
        kid_required=True,
    )
    assert expires_in == 900
    assert claims == {
        "iss": "https://kit.example", "aud": "kit", "sub": "ann", "preferred_username": "ann", "roles": ["reader"],
        "iat": int(NOW), "exp": int(NOW) + 900, "jti": "jti", "sid": "sid",
    }  # fmt: skip
    assert isinstance(gateway.ask(token), Identity)


def test_a_made_token_does_not_outlive_its_consumer(gateway: JwtGateway) -> None:
    brief = gateway.add(user("brief", "no hash", expires_at=NOW + 60.9))
    _, expires_in = gateway.authenticator.issue(brief, gateway.signing, NOW, "jti", "sid")
    assert expires_in == 60


def test_a_username_outside_ascii_works() -> None:
    gateway = JwtGateway()
    one = gateway.add(user("zoe", "no hash", username="zo\u00eb"))
    token, _ = gateway.authenticator.issue(one, gateway.signing, NOW, "jti", "sid")
    found = gateway.ask(token)
    assert isinstance(found, Identity)
    assert found.consumer == "zoe"


def test_a_key_that_does_not_fit_its_algorithm_verifies_nothing(gateway: JwtGateway) -> None:
    other = open_key(new_key("ES256", name="x", now=NOW, active_at=NOW), name="x", sealing_key=None)
    mixed = SigningKey(gateway.signing.kid, "ES256", other.key)
    token = sign(gateway.claims(), key=mixed.key, kid=mixed.kid, algorithm="ES256", kind="at+jwt")
    assert isinstance(gateway.ask(token), Denial)


def test_showing_two_or_another_scheme() -> None:
    authenticator = JwtAuthenticator(
        "shop", "https://shop.example", Consumers(), access_ttl_s=1, refresh_ttl_s=60, algorithm="EdDSA"
    )
    head, client = RequestHead(b"GET", b"/", 1, []), Client(PEER)

    def reason(*values: bytes) -> Reason:
        found = authenticator.identify(head, [(b"authorization", value) for value in values], client, NOW)
        assert isinstance(found, Denial)
        assert found.is_failure == (found.reason is Reason.CREDENTIALS_INVALID)
        return found.reason

    assert reason() is Reason.CREDENTIALS_MISSING
    assert reason(b"Basic abc") is Reason.CREDENTIALS_MISSING
    assert reason(b"") is Reason.CREDENTIALS_MISSING
    assert reason(b"Bearer") is Reason.CREDENTIALS_INVALID
    assert reason(b"Bearer a.b.c", b"Bearer a.b.c") is Reason.CREDENTIALS_INVALID
    assert reason(b"Bearer " + b"a" * 10_000) is Reason.CREDENTIALS_INVALID
