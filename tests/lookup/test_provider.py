"""A discovery document is compared with the issuer as it is written, and its endpoints are judged."""

from __future__ import annotations

from typing import Any

import pytest

from authgate_fast.lookup.provider import MetadataError, discovery_url, read_metadata

ISSUER = "https://idp.example.com/realms/shop"
GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "jwks_uri": "https://keys.example.com/jwks",
    "token_endpoint": "https://idp.example.com/token",
    "authorization_endpoint": "https://idp.example.com/authorize?tenant=a",
}


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://idp.example.com", "https://idp.example.com/.well-known/openid-configuration"),
        ("https://idp.example.com/", "https://idp.example.com/.well-known/openid-configuration"),
        ("https://idp.example.com/a", "https://idp.example.com/a/.well-known/openid-configuration"),
    ],
)
def test_the_document_stands_under_the_issuer(issuer: str, url: str) -> None:
    assert discovery_url(issuer) == url


def test_what_is_left_out_is_empty_or_the_default() -> None:
    found = read_metadata(GOOD, ISSUER)
    assert found.authorization_endpoint == "https://idp.example.com/authorize?tenant=a"
    assert found.userinfo_endpoint == found.revocation_endpoint == found.end_session_endpoint == ""
    assert found.token_auth_methods == {"client_secret_basic"}
    assert found.code_challenge_methods_supported == frozenset()
    assert found.authorization_response_iss_parameter_supported is False


def test_methods_of_an_endpoint_count_before_those_of_the_token_endpoint() -> None:
    document = GOOD | {
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", 7],
    }
    found = read_metadata(document, ISSUER)
    assert found.introspection_auth_methods == {"client_secret_basic"}
    assert found.revocation_auth_methods == found.token_auth_methods == {"client_secret_post"}


@pytest.mark.parametrize("value", [True, False, "true", 1, None])
def test_only_true_is_true(value: object) -> None:
    document = GOOD | {"authorization_response_iss_parameter_supported": value}
    assert read_metadata(document, ISSUER).authorization_response_iss_parameter_supported is (value is True)


@pytest.mark.parametrize(
    "more",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": ISSUER.upper()},
        {"issuer": "https://idp.example.com"},
        {"issuer": None},
        {"issuer": [ISSUER]},
        {"jwks_uri": "http://idp.example.com/jwks"},
        {"jwks_uri": "http://127.0.0.1/jwks"},
        {"jwks_uri": 7},
        {"jwks_uri": "https://169.254.169.254/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"token_endpoint": "/token"},
        {"token_endpoint": "https://user@idp.example.com/token"},
        {"userinfo_endpoint": "javascript:alert(1)"},
        {"end_session_endpoint": "https://idp.example.com/\nlogout"},
    ],
)
def test_anything_odd_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(MetadataError):
        read_metadata(GOOD | more, ISSUER)


@pytest.mark.parametrize("document", [None, [], "x", 7])
def test_only_an_object_is_a_document(document: object) -> None:
    with pytest.raises(MetadataError):
        read_metadata(document, ISSUER)


def test_an_issuer_on_this_machine_may_have_plain_http_there() -> None:
    issuer = "http://127.0.0.1:8080"
    document = {"issuer": issuer, "jwks_uri": "http://localhost:8080/jwks"}
    assert read_metadata(document, issuer).jwks_uri == "http://localhost:8080/jwks"
    with pytest.raises(MetadataError):
        read_metadata(document | {"jwks_uri": "http://idp.example.com/jwks"}, issuer)
