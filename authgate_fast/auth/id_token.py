"""What an ID token must say (OpenID Connect Core section 3.1.3.7), after its signature, issuer and times. Pure."""

from __future__ import annotations

from hmac import compare_digest

from authgate_fast.auth.tokens import Claims, TokenError, audiences

ID_TOKEN_TYPES = frozenset({"", "jwt"})
"""``typ`` of the header; an access token (at+jwt) or logout token is none."""
MAX_SUBJECT_CHARACTERS = 255


def check_id_token(claims: Claims, client_id: str, nonce: str | None) -> None:
    """Raise TokenError unless the token is for `client_id` and answers the login with `nonce` (None: no login)."""
    meant_for = audiences(claims)
    if client_id not in meant_for:
        raise TokenError("it is meant for another client (aud)")
    azp = claims.get("azp")
    if azp is None:
        # Rules 3 and 4. Stricter: others in `aud` are trusted only where the token says that it was given to us.
        if set(meant_for) != {client_id}:
            raise TokenError("it is also meant for others, and does not say whom it was given to (azp)")
    elif azp != client_id:
        raise TokenError("it was given to another client (azp)")
    if claims.get("iat") is None:
        raise TokenError("it does not say when it was issued (iat)")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise TokenError("it names no usable subject (sub)")
    kind = claims.get(
        "typ", claims.get("token_use", "id")
    )  # how Keycloak and Cognito tell their tokens apart
    if not isinstance(kind, str) or kind.lower() != "id":
        raise TokenError("it is another kind of token")
    if nonce is not None:
        found = claims.get("nonce")
        if not isinstance(found, str) or not compare_digest(found.encode(), nonce.encode()):
            raise TokenError("it does not belong to this login (nonce)")
