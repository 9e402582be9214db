"""An ID token must belong to this client and this login (OpenID Connect Core section 3.1.3.7)."""

from __future__ import annotations

from typing import Any

import pytest

from authgate_fast.auth.id_token import check_id_token
from authgate_fast.auth.tokens import TokenError

GOOD: dict[str, Any] = {"aud": "shop", "iat": 1, "sub": "u", "nonce": "n"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"aud": ["shop"]},
        {"aud": ["shop", "other"], "azp": "shop"},
        {"azp": "shop"},
        {"typ": "ID"},
        {"token_use": "id"},
    ],
)
def test_a_right_one_is_accepted(more: dict[str, Any]) -> None:
    check_id_token(GOOD | more, "shop", "n")


@pytest.mark.parametrize(
    "more",
    [
        {"aud": "other"},
        {"aud": None},
        {"aud": ["shop", "other"]},
        {"azp": "other"},
        {"azp": ["shop"]},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"typ": "Bearer"},
        {"typ": "Logout"},
        {"token_use": "access"},
        {"nonce": "m"},
        {"nonce": None},
        {"nonce": ["n"]},
        {"nonce": "nn"},
    ],
)
def test_anything_else_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(TokenError):
        check_id_token(GOOD | more, "shop", "n")


def test_refreshed_tokens_are_part_of_no_login() -> None:
    check_id_token({name: value for name, value in GOOD.items() if name != "nonce"}, "shop", None)
