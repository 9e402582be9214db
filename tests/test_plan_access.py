"""Who may pass: keys, their refusals that all look alike, and what narrows a route."""

from __future__ import annotations

import hashlib

import pytest

from authgate_fast.errors import Reason
from authgate_fast.plan import Client, Forward, Refusal
from tests.known_keys import remove
from tests.plan_world import NOW, PEER, Fields, ask, forward, make_snapshot, refusal

KEY = (b"X-Api-Key", b"one")
READER = (b"X-Api-Key", b"two")
BIG = (b"Content-Length", b"11")


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-Api-Key", b"nobody")],
        [(b"X-Api-Key", b"old")],
        [KEY, KEY],
        [KEY, (b"x-api-key", b"")],
        [KEY, READER],
        [(b"X-Api-Key", b"one, one")],
        [(b"X-Api-Key", b"partner")],
        [(b"X-Api-Key", b"a" * 10_000)],
    ],
)
def test_unknown_expired_doubled_and_foreign_keys_get_one_and_the_same_answer(fields: Fields) -> None:
    found = refusal(b"GET", b"/private", fields)
    assert found.reason is Reason.CREDENTIALS_INVALID
    assert found.detail is None
    assert found.extra_lines == b'WWW-Authenticate: ApiKey realm="shop", header="X-Api-Key"\r\n'


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"X-Api-Key", b"")],
        [(b"X-Api-Key", b" \t")],
        [(b"X_Api_Key", b"one")],
        [(b"Authorization", b"one")],
        [(b"X-Partner-Key", b"one")],
        [(b"Cookie", b"X-Api-Key=one")],
        [(b"Connection", b"x-api-key")],
    ],
)
def test_a_missing_key_gets_a_challenge_and_a_hint(fields: Fields) -> None:
    found = refusal(b"GET", b"/private", fields)
    assert found.reason is Reason.CREDENTIALS_MISSING
    assert found.detail is not None
    assert "X-Api-Key" in found.detail
    assert found.extra_lines == b'WWW-Authenticate: ApiKey realm="shop", header="X-Api-Key"\r\n'


def test_a_key_in_the_query_is_no_key() -> None:
    assert refusal(b"GET", b"/private?X-Api-Key=one").reason is Reason.CREDENTIALS_MISSING


def test_a_good_key_passes_and_names_its_consumer() -> None:
    found = forward(b"GET", b"/private", [KEY])
    assert found.identity is not None
    assert found.identity.consumer == "one"


def test_naming_the_credential_field_in_connection_changes_nothing() -> None:
    for fields in ([(b"Connection", b"x-api-key"), KEY], [KEY, (b"Connection", b"X-Api-Key")]):
        found = forward(b"GET", b"/private", fields)
        assert found.identity is not None
        assert b"one" not in found.head.replace(b"X-Consumer-Id: one", b"")


def test_a_key_ends_with_its_time() -> None:
    snapshot = make_snapshot()
    assert isinstance(
        ask(b"GET", b"/private", [(b"X-Api-Key", b"old")], snapshot=snapshot, now=NOW - 2), Forward
    )
    assert isinstance(
        ask(b"GET", b"/private", [(b"X-Api-Key", b"old")], snapshot=snapshot, now=NOW - 1), Refusal
    )


def test_a_consumer_change_counts_from_the_next_request_on() -> None:
    snapshot, client = make_snapshot(), Client(PEER)
    credentials = snapshot.gateways["shop"].consumers.keys
    forward(b"GET", b"/private", [KEY], snapshot=snapshot, client=client)
    digest = hashlib.sha256(KEY[1]).digest()
    consumer = credentials.holders[digest]
    remove(credentials, digest)
    found = refusal(b"GET", b"/private", [KEY], snapshot=snapshot, client=client)
    assert found.reason is Reason.CREDENTIALS_INVALID
    credentials.holders[digest] = consumer
    forward(b"GET", b"/private", [KEY], snapshot=snapshot, client=client)


@pytest.mark.parametrize(
    ("target", "key", "allowed"),
    [
        (b"/readers", READER, True),
        (b"/readers", KEY, False),
        (b"/only-two", READER, True),
        (b"/only-two", KEY, False),
        (b"/scoped", KEY, False),
        (b"/scoped", READER, False),
    ],
)
def test_roles_consumers_and_scopes_narrow_a_route(
    target: bytes, key: tuple[bytes, bytes], allowed: bool
) -> None:
    found = ask(b"GET", target, [key])
    assert isinstance(found, Forward) == allowed
    if isinstance(found, Refusal):
        assert found.reason is Reason.FORBIDDEN
        assert found.detail
        assert b"WWW-Authenticate" not in found.extra_lines


@pytest.mark.parametrize("keys", [[], [KEY], [(b"X-Api-Key", b"nobody")], [KEY, KEY], [(b"X-Api-Key", b"")]])
def test_a_public_route_never_asks_and_forwards_no_credential(keys: Fields) -> None:
    found = forward(b"GET", b"/products/1", keys)
    assert found.identity is None
    assert b"api-key" not in found.head.lower()
    assert b"X-Consumer" not in found.head


def test_another_gateways_credential_field_is_an_ordinary_field() -> None:
    both = [(b"X-Api-Key", b"one"), (b"X-Partner-Key", b"partner")]
    shop = forward(b"GET", b"/private", both)
    assert b"\r\nx-partner-key: partner\r\n" in shop.head.lower()
    assert b"x-api-key" not in shop.head.lower()
    partner = forward(b"GET", b"/private", both, host=b"partner.localhost")
    assert b"\r\nx-api-key: one\r\n" in partner.head.lower()
    assert b"x-partner-key" not in partner.head.lower()
    public = forward(b"GET", b"/open", both, host=b"partner.localhost")
    assert b"\r\nx-api-key: one\r\n" in public.head.lower()
    assert b"x-partner-key" not in public.head.lower()


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        (b"GET", b"/private", []),
        (b"GET", b"/readers", [KEY]),
        (b"POST", b"/small", [BIG]),
        (b"GET", b"/dead", []),
    ],
)
def test_a_refusal_behind_the_match_names_its_gateway_and_route(
    method: bytes, target: bytes, fields: Fields
) -> None:
    found = refusal(method, target, fields)
    assert found.gateway is not None
    assert found.gateway.name == "shop"
    assert found.route is not None
    assert found.route.public_path == target.decode()
