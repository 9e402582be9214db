from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from authgate_fast.limits import NARROWABLE, Limits
from authgate_fast.model import (
    MODELS,
    ConsumerDocument,
    Document,
    GatewayDocument,
    Narrowing,
    RouteDocument,
    ServiceDocument,
)

ROUTE = {"method": "GET", "public_path": "/a/{id}", "service": "s", "security": "SECURE"}
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21l$aGFzaGhhc2hoYXNoaGFzaGhhc2g"


def _load(model: type[Any], document: object) -> Any:
    return model.model_validate_json(json.dumps(document))


def _refused(model: type[Any], document: object) -> bool:
    try:
        _load(model, document)
    except ValidationError:
        return True
    return False


def test_a_gateway_keeps_its_hosts_in_lower_case_and_its_defaults() -> None:
    gateway = _load(GatewayDocument, {"hosts": ["Shop.test", "*.B.test", "*"], "auth": {"type": "API_KEY"}})
    assert gateway.hosts == ("shop.test", "*.b.test", "*")
    assert gateway.auth.header == "X-Api-Key"
    assert gateway.enabled
    assert gateway.networks == ()


@pytest.mark.parametrize("header", ["X-Api-Key", "Authorization", "apikey", "X-Auth-Token", "x_key"])
def test_a_key_may_come_in_a_field_of_its_own(header: str) -> None:
    assert not _refused(GatewayDocument, {"hosts": ["*"], "auth": {"type": "API_KEY", "header": header}})


@pytest.mark.parametrize(
    "header",
    [
        *(
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Via",
            "X-Forwarded-For",
            "x-forwarded-x",
        ),
        *("X-Request-ID", "X-Gateway-Id", "X-Consumer-Key", "X-User-Id", "X-Client-Id", "X-Credential-Id"),
        *(
            "Cookie",
            "Expect",
            "Upgrade",
            "TE",
            "Trailer",
            "X_Consumer_Id",
            "X.User.Id",
            "content_type",
            "Date",
        ),
        *("Keep-Alive", "Forwarded", "Accept", "Sec-Fetch-Site", "Proxy-Authorization", "traceparent"),
        *("", "X Key", "X-Key:", "X-Key\n", "Sch\u00fcssel", "X" * 129),
    ],
)
def test_a_field_that_http_or_the_gateway_uses_cannot_carry_a_key(header: str) -> None:
    assert _refused(GatewayDocument, {"hosts": ["*"], "auth": {"type": "API_KEY", "header": header}})


def test_a_service_has_one_url_or_several() -> None:
    one = _load(ServiceDocument, {"target_url": "http://a"})
    several = _load(ServiceDocument, {"target_urls": ["http://a", "https://b/v1"]})
    assert [target.host for target in one.targets] == ["a"]
    assert [(target.host, target.port) for target in several.targets] == [("a", 80), ("b", 443)]
    for document in ({}, {"target_urls": []}, {"target_url": "http://a", "target_urls": ["http://b"]}):
        assert _refused(ServiceDocument, document)


def test_a_link_local_target_needs_permission() -> None:
    for document in (
        {"target_url": "http://169.254.1.1"},
        {"target_urls": ["http://a", "http://[fe80::1]"]},
        {"target_url": "https://metadata.google.internal"},
    ):
        assert _refused(ServiceDocument, document)
        assert not _refused(ServiceDocument, {**document, "allow_link_local": True})


def test_a_route_must_say_whether_it_is_secure() -> None:
    assert _load(RouteDocument, ROUTE).security == "SECURE"
    assert _refused(RouteDocument, {name: value for name, value in ROUTE.items() if name != "security"})
    for security in ("secure", "Public", "", None, True):
        assert _refused(RouteDocument, {**ROUTE, "security": security})


def test_the_target_path_of_a_route_is_by_default_its_public_path() -> None:
    assert _load(RouteDocument, ROUTE).pieces == (b"/a/", 1)
    assert _load(RouteDocument, {**ROUTE, "target_path": "/b/{id}/c"}).pieces == (b"/b/", 1, b"/c")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "*", "", "GET\n"])
def test_a_method_is_a_standard_one_or_any(method: str) -> None:
    assert not _refused(RouteDocument, {**ROUTE, "method": "ANY"})
    assert _refused(RouteDocument, {**ROUTE, "method": method})


@pytest.mark.parametrize("field", ["roles", "scopes", "consumers"])
def test_a_public_route_cannot_narrow_who_may_call(field: str) -> None:
    assert not _refused(RouteDocument, {**ROUTE, field: ["a"]})
    assert _refused(RouteDocument, {**ROUTE, "security": "PUBLIC", field: ["a"]})
    assert not _refused(RouteDocument, {**ROUTE, "security": "PUBLIC", field: []})


@pytest.mark.parametrize(
    "role", ["a,b", "a b", 'a"', "a'", "", "\u00fc", "a\r\nX: y", "a\x00", "\x7f", "a" * 129]
)
def test_a_role_fits_into_a_header_field(role: str) -> None:
    assert _refused(ConsumerDocument, {"roles": [role]})
    assert _refused(RouteDocument, {**ROUTE, "scopes": [role]})


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"',"),
        min_size=1,
        max_size=128,
    )
)
def test_every_other_visible_text_is_a_role(role: str) -> None:
    assert _load(ConsumerDocument, {"roles": [role]}).roles == (role,)


def test_a_consumer_has_its_keys_with_the_earlier_end() -> None:
    consumer = _load(
        ConsumerDocument,
        {
            "api_key_sha256": "AB" * 32,
            "api_keys": [
                {"id": "b", "sha256": "cd" * 32, "expires_at": "2000-01-01T01:00:00+01:00"},
                {"id": "c", "sha256": "ef" * 32, "expires_at": "2040-01-01t00:00:00.5z"},
            ],
            "expires_at": "2030-01-01T00:00:00Z",
        },
    )
    assert consumer.all_keys() == [
        ("default", b"\xab" * 32, 1_893_456_000.0),
        ("b", b"\xcd" * 32, 946_684_800.0),
        ("c", b"\xef" * 32, 1_893_456_000.0),
    ]
    assert _load(ConsumerDocument, {"api_key_sha256": "ab" * 32}).all_keys()[0][2] == float("inf")


@pytest.mark.parametrize(
    "moment",
    [
        *(
            "2030-01-01",
            "2030-01-01T00:00:00",
            "20300101T000000Z",
            "2030-13-01T00:00:00Z",
            "2030-01-01T24:01:00Z",
        ),
        *(
            "1893456000",
            1893456000,
            "",
            "tomorrow",
            "2030-01-01T00:00:00Z\n",
            "\u0662030-01-01T00:00:00Z",
            True,
        ),
        *("2030-01-01T00:00Z", "2030-01-01T00:00:00+0100", "2030-W01-1T00:00:00Z", "2030-01-01T00:00:60Z"),
    ],
)
def test_a_moment_is_rfc_3339_with_its_zone(moment: object) -> None:
    assert _refused(ConsumerDocument, {"expires_at": moment})


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_moments_at_the_ends_of_the_calendar_are_numbers_too(moment: str) -> None:
    (key,) = _load(ConsumerDocument, {"api_key_sha256": "ab" * 32, "expires_at": moment}).all_keys()
    assert isinstance(key[2], float)


@pytest.mark.parametrize(
    "digest", ["ab" * 31, "ab" * 33, "zz" * 32, "ab" * 32 + "\n", " " + "ab" * 32, "\u0661" * 64]
)
def test_a_key_hash_is_64_hex_digits(digest: str) -> None:
    assert _refused(ConsumerDocument, {"api_key_sha256": digest})
    assert _refused(ConsumerDocument, {"api_keys": [{"id": "a", "sha256": digest}]})


def test_the_keys_of_a_consumer_differ_in_id_and_in_value() -> None:
    one, two = {"id": "a", "sha256": "ab" * 32}, {"id": "b", "sha256": "cd" * 32}
    assert not _refused(ConsumerDocument, {"api_keys": [one, two]})
    assert _refused(ConsumerDocument, {"api_keys": [one, {**two, "id": "a"}]})
    assert _refused(ConsumerDocument, {"api_keys": [one, {**two, "sha256": "AB" * 32}]})
    assert _refused(ConsumerDocument, {"api_key_sha256": "cd" * 32, "api_keys": [one, two]})
    assert _refused(ConsumerDocument, {"api_key_sha256": "ef" * 32, "api_keys": [{**one, "id": "default"}]})
    assert not _refused(ConsumerDocument, {"api_keys": [{**one, "id": "default"}]})


def test_a_password_hash_is_an_argon2id_phc_string() -> None:
    assert not _refused(ConsumerDocument, {"password_hash": ARGON2, "username": "m\u00fcller"})
    for text in (
        "secret",
        ARGON2.replace("2id", "2i"),
        ARGON2.replace("v=19", "v=16"),
        ARGON2 + "=",
        ARGON2 + "\n",
    ):
        assert _refused(ConsumerDocument, {"password_hash": text})


def test_limits_of_a_document_are_the_narrowable_ones_of_the_node() -> None:
    own = set(Narrowing.model_fields) - set(Document.model_fields)
    assert own == NARROWABLE
    assert own <= {field.name for field in fields(Limits)}


@pytest.mark.parametrize("value", [0, -1, "5", True, 1e12, [5]])
def test_a_timeout_is_a_sane_number_of_seconds(value: object) -> None:
    assert not _refused(RouteDocument, {**ROUTE, "body_timeout_s": 5})
    assert _refused(RouteDocument, {**ROUTE, "body_timeout_s": value})


def test_numbers_that_are_none_or_too_large_are_refused() -> None:
    for text in ("NaN", "Infinity", "1e999", "9" * 5000):
        for field in ("body_timeout_s", "max_body_bytes"):
            with pytest.raises(ValidationError):
                RouteDocument.model_validate_json(json.dumps(ROUTE)[:-1] + f', "{field}": {text}}}')


@pytest.mark.parametrize("model", MODELS.values())
def test_unknown_fields_are_refused_by_name(model: type[Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        _load(model, {"no_such_field": 1})
    assert ("no_such_field",) in [error["loc"] for error in refusal.value.errors()]


def test_a_document_never_changes() -> None:
    route = _load(RouteDocument, ROUTE)
    with pytest.raises(ValidationError):
        route.security = "PUBLIC"


@pytest.mark.parametrize(
    ("upgrades", "kept"),
    [
        (None, ("websocket",)),
        ([], ()),
        (["websocket"], ("websocket",)),
        (["websocket", "my-proto", "my-proto/2.1"], ("websocket", "my-proto", "my-proto/2.1")),
    ],
)
def test_a_route_lists_the_protocols_it_may_switch_to(
    upgrades: list[str] | None, kept: tuple[str, ...]
) -> None:
    document = ROUTE if upgrades is None else ROUTE | {"upgrades": upgrades}
    assert _load(RouteDocument, document).upgrades == kept


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("h2c", "another version of HTTP"),
        ("h2", "another version of HTTP"),
        ("http", "another version of HTTP"),
        ("http/2.0", "another version of HTTP"),
        ("http/1.1", "another version of HTTP"),
        ("h3", "another version of HTTP"),
        ("tls", "TLS begins with the connection"),
        ("tls/1.3", "TLS begins with the connection"),
        ("websocket/13", "without a version"),
        ("WebSocket", "pattern"),
        ("H2C", "pattern"),
        ("", "pattern"),
        ("a b", "pattern"),
        ("a,b", "pattern"),
        ("a/b/c", "pattern"),
        ("a/", "pattern"),
        ("/1", "pattern"),
        ("a\n", "pattern"),
        ("grü", "pattern"),
        ("x" * 65, "pattern"),
    ],
)
def test_no_route_switches_to_http_or_tls_or_what_is_no_token(name: str, why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _load(RouteDocument, ROUTE | {"upgrades": ["websocket", name]})
    assert why in str(caught.value)
