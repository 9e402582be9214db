"""What a provider's claims must say before they count as an access token for a gateway. Pure.

The claims were verified (`tokens.verify`) or come from the provider's introspection endpoint. RFC 8725 section 3.12 and
RFC 9068: a token of another kind, of another client or for another audience is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.auth.tokens import Claims, TokenError, audiences

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SCOPES = 256
MAX_SCOPE_CHARACTERS = 128

TOKEN_TYPES = frozenset({"", "jwt", "at+jwt"})
"""``typ`` of an access token's header: RFC 9068 asks for at+jwt, many providers write JWT or nothing."""
CLIENT_CLAIMS = ("azp", "client_id", "cid", "appid")
"""Which client a token was given to: OpenID Connect, RFC 9068, Okta, Entra ID."""
_OF_ID_TOKENS = ("at_hash", "c_hash", "s_hash")
_OF_ACCESS_TOKENS = ("scope", "scp", "client_id", "cid", "appid", "azpacr")
_ACCESS_MARKS = {"typ": ("bearer",), "token_use": ("access", "access_token")}
"""How Keycloak, Cognito and Hydra tell their tokens apart: a claim, and its value (in lower case) in access tokens."""


def check_kind(claims: Claims, header_type: str) -> None:
    """Raise TokenError for ID tokens, logout tokens, refresh tokens: whatever is no access token.

    An ID token of our own client has the right issuer, audience and signature, and is no permission to call anything.
    It is told by claims that only ID tokens have, and an access token by a mark of its own.
    """
    if (
        claims.get("cnf") is not None
    ):  # RFC 9449 section 7.2, RFC 8705 section 3: whoever stole it could use it here
        raise TokenError("it is bound to a key of its holder (cnf), and that cannot be checked here")
    is_marked = header_type == "at+jwt"
    for name, expected in _ACCESS_MARKS.items():
        mark = claims.get(name)
        if mark is None:
            continue
        if not isinstance(mark, str) or mark.lower() not in expected:
            raise TokenError(f"it is no access token ({name})")
        is_marked = True
    if any(name in claims for name in _OF_ID_TOKENS):
        raise TokenError("it is an ID token, not an access token")
    if is_marked:
        return
    if (
        "nonce" in claims or "events" in claims
    ):  # Keycloak before 24 has a nonce in access tokens, but marks them
        raise TokenError("it is an ID or logout token, not an access token")
    if not any(name in claims for name in _OF_ACCESS_TOKENS):
        raise TokenError("nothing shows that it is an access token (no scope, scp or client_id)")


def check_client(claims: Claims, client_id: str, audience: str | None) -> str:
    """Return which client a token was given to. Raises TokenError for a token that is not bound to `client_id`.

    Without `audience` the token must name the client, as the one it was given to or as one it is meant for.
    With it, ``aud`` must hold `audience` (RFC 9068 section 4), and where the token also says which client it was
    given to, that is `client_id`: the gateway accepts the tokens of one client.
    """
    named = _named_client(claims)
    meant_for = audiences(claims)
    if audience is None:
        if named != client_id and client_id not in meant_for:
            raise TokenError("it was given to another client, and is meant for others (azp, client_id, aud)")
    else:
        if audience not in meant_for:
            raise TokenError("it is meant for somebody else (aud)")
        if named not in (None, client_id):
            raise TokenError("it was given to another client (azp, client_id)")
    return client_id if named is None else named


def _named_client(claims: Claims) -> str | None:
    found: str | None = None
    for name in CLIENT_CLAIMS:
        value = claims.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or found not in (None, value):
            raise TokenError("it names more than one client")
        found = value
    return found


def scopes_of(claims: Claims) -> frozenset[str]:
    """Return the scopes: ``scope`` (RFC 9068 section 2.2.3, words with spaces between) or ``scp``, also as a list."""
    value = claims.get("scope")
    if value is None:
        value = claims.get("scp")
    words: Iterable[object]
    if isinstance(value, str):
        words = value.split(" ")
    elif isinstance(value, list):
        words = value
    else:
        return frozenset()
    found = [word for word in words if isinstance(word, str) and 0 < len(word) <= MAX_SCOPE_CHARACTERS]
    return frozenset(found[:MAX_SCOPES])
