"""What a provider says about itself: OpenID Connect Discovery 1.0 and RFC 8414, checked member by member.

The issuer in the document is compared as it is written (section 4.3). An https issuer has https endpoints; one on this
machine may have plain http there. What is not needed is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authgate_fast.addresses import AddressError
from authgate_fast.lookup.http_client import parse_endpoint

WELL_KNOWN = "/.well-known/openid-configuration"


class MetadataError(Exception):
    """A discovery document is of no use; the text says why, for an operator."""


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """A provider's endpoints; "" for one that it does not have."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    end_session_endpoint: str
    token_auth_methods: frozenset[str]
    introspection_auth_methods: frozenset[str]
    revocation_auth_methods: frozenset[str]
    code_challenge_methods_supported: frozenset[str]
    authorization_response_iss_parameter_supported: bool


def discovery_url(issuer: str) -> str:
    """Return where the document stands: a slash at the issuer's end is taken off first (Discovery section 4)."""
    return issuer.removesuffix("/") + WELL_KNOWN


def read_metadata(document: object, issuer: str) -> ProviderMetadata:
    """Read a discovery document. Raises MetadataError."""
    if not isinstance(document, dict):
        raise MetadataError("it is not an object")
    named = document.get("issuer")
    if named != issuer:
        raise MetadataError(f"it names another issuer: {ascii(named)[:200]} instead of {issuer!a}")
    default = frozenset({"client_secret_basic"})  # Discovery section 3: the method where none is named
    methods = _texts(document, "token_endpoint_auth_methods_supported") or default
    return ProviderMetadata(
        issuer,
        _endpoint(document, "jwks_uri", issuer),
        _endpoint(document, "authorization_endpoint", issuer),
        _endpoint(document, "token_endpoint", issuer),
        _endpoint(document, "userinfo_endpoint", issuer),
        _endpoint(document, "revocation_endpoint", issuer),
        _endpoint(document, "introspection_endpoint", issuer),
        _endpoint(document, "end_session_endpoint", issuer),
        methods,
        _texts(document, "introspection_endpoint_auth_methods_supported") or methods,
        _texts(document, "revocation_endpoint_auth_methods_supported") or methods,
        _texts(document, "code_challenge_methods_supported"),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(document: Mapping[str, Any], name: str, issuer: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MetadataError(f"{name} is not a text")
    try:
        endpoint = parse_endpoint(value)
    except AddressError as error:
        raise MetadataError(f"{name}: {error}") from None
    if endpoint.scheme == "http" and issuer.lower().startswith("https:"):
        raise MetadataError(f"{name} is plain http, although the issuer is https")
    return value


def _texts(document: Mapping[str, Any], name: str) -> frozenset[str]:
    value = document.get(name)
    if not isinstance(value, list):
        return frozenset()
    return frozenset(item for item in value[:64] if isinstance(item, str))
