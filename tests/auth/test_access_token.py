"""Which claims are an access token, of which client, with which scopes."""

from __future__ import annotations

from typing import Any

import pytest

from authgate_fast.auth.access_token import check_client, check_kind, scopes_of
from authgate_fast.auth.tokens import TokenError
from tests.auth.signer import CLIENT

API = "https://api.example.com"


def is_access_token(claims: dict[str, Any], header_type: str = "") -> bool:
    try:
        check_kind(claims, header_type)
    except TokenError:
        return False
    return True


@pytest.mark.parametrize(
    ("claims", "header_type", "accepted"),
    [
        ({"scope": "read"}, "", True),
        ({"scp": ["read"]}, "jwt", True),
        ({"client_id": "c"}, "jwt", True),
        ({"appid": "c"}, "jwt", True),
        ({}, "at+jwt", True),
        ({"typ": "Bearer"}, "jwt", True),
        ({"token_use": "access"}, "", True),
        ({"token_use": "access_token"}, "", True),
        ({"typ": "Bearer", "nonce": "n"}, "jwt", True),  # Keycloak before 24
        ({"azp": "c"}, "jwt", False),  # ID tokens have one too
        ({}, "jwt", False),
        ({"scope": "openid", "nonce": "n"}, "jwt", False),
        ({"scope": "openid", "at_hash": "h"}, "jwt", False),
        ({"scope": "openid", "c_hash": "h"}, "at+jwt", False),
        ({"typ": "Bearer", "s_hash": "h"}, "at+jwt", False),
        ({"typ": "ID", "scope": "openid"}, "jwt", False),
        ({"typ": "Refresh", "scope": "openid"}, "jwt", False),
        ({"typ": "Offline", "scope": "openid"}, "at+jwt", False),
        ({"typ": 7}, "at+jwt", False),
        ({"token_use": "id", "scope": "x"}, "", False),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "scope": "x"}, "", False),
        ({"scope": "read", "cnf": {"jkt": "thumb"}}, "at+jwt", False),
    ],
)
def test_only_an_access_token_is_one(claims: dict[str, Any], header_type: str, accepted: bool) -> None:
    assert is_access_token(claims, header_type) is accepted


@pytest.mark.parametrize(
    ("claims", "audience", "client"),
    [
        ({"azp": CLIENT}, None, CLIENT),
        ({"client_id": CLIENT}, None, CLIENT),
        ({"cid": CLIENT, "azp": CLIENT}, None, CLIENT),
        ({"aud": CLIENT}, None, CLIENT),
        ({"aud": [API, CLIENT]}, None, CLIENT),
        ({"azp": "spa", "aud": [CLIENT]}, None, "spa"),  # given to another client, meant for this one
        ({"azp": "spa"}, None, None),
        ({"aud": API}, None, None),
        ({}, None, None),
        ({"azp": CLIENT + " "}, None, None),
        ({"aud": [CLIENT.upper()]}, None, None),
        ({"azp": [CLIENT]}, None, None),
        ({"azp": CLIENT, "client_id": "spa"}, None, None),
        ({"azp": "spa", "client_id": CLIENT}, None, None),
        ({"aud": API}, API, CLIENT),
        ({"aud": [API, "x"], "client_id": CLIENT}, API, CLIENT),
        ({"aud": API, "client_id": "spa"}, API, None),
        ({"aud": API + "/"}, API, None),
        ({"aud": [[API]]}, API, None),
        ({"azp": CLIENT}, API, None),
        ({"aud": CLIENT, "azp": CLIENT}, API, None),
    ],
)
def test_a_token_is_bound_to_the_client(
    claims: dict[str, Any], audience: str | None, client: str | None
) -> None:
    if client is None:
        with pytest.raises(TokenError):
            check_client(claims, CLIENT, audience)
    else:
        assert check_client(claims, CLIENT, audience) == client


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "read write"}, {"read", "write"}),
        ({"scope": " read  write "}, {"read", "write"}),
        ({"scp": ["read", "write"]}, {"read", "write"}),
        ({"scp": "read"}, {"read"}),
        ({"scope": "read", "scp": ["admin"]}, {"read"}),
        ({"scope": "read\twrite"}, {"read\twrite"}),
        ({"scope": ["read", 7, None, ""]}, {"read"}),
        ({"scope": {"read": True}}, set()),
        ({"scope": "x" * 129}, set()),
        ({}, set()),
    ],
)
def test_scopes_are_words_of_a_claim(claims: dict[str, Any], scopes: set[str]) -> None:
    assert scopes_of(claims) == scopes


def test_the_number_of_scopes_is_bounded() -> None:
    assert len(scopes_of({"scope": " ".join(f"s{number}" for number in range(1_000))})) == 256
