"""What a logout token must say (OpenID Connect Back-Channel Logout 1.0 section 2.6). Pure.

Its signature, issuer and times were checked before (`tokens.verify`).
"""

from __future__ import annotations

from dataclasses import dataclass

from authgate_fast.auth.tokens import Claims, TokenError, audiences, expires_at

LOGOUT_TOKEN_TYPES = frozenset({"", "jwt", "logout+jwt"})
"""``typ`` of the header: section 2.4 recommends logout+jwt."""
_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MAX_CHARACTERS = 1_024


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """Whose sessions are to end: the one at the provider named `sid` or, without it, all of the user `sub`."""

    jti: str
    sub: str
    sid: str
    expires_at: float


def read_logout_token(claims: Claims, client_id: str) -> LoggedOut:
    """Return what a logout token asks for. Raises TokenError for any other kind of token."""
    if client_id not in audiences(claims):
        raise TokenError("it is meant for another client (aud)")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):
        raise TokenError("it is no logout token (events)")
    if "nonce" in claims:  # or an ID token could be made to look like one
        raise TokenError("it is an ID token, not a logout token (nonce)")
    if claims.get("iat") is None:
        raise TokenError("it does not say when it was issued (iat)")
    jti, sub, sid = (_text(claims, name) for name in ("jti", "sub", "sid"))
    if not jti:
        raise TokenError("it has no id of its own (jti)")
    if not sub and not sid:
        raise TokenError("it names neither a user nor a session (sub, sid)")
    return LoggedOut(jti, sub, sid, expires_at(claims))


def _text(claims: Claims, name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise TokenError(f"its {name} is not a usable text")
    return value
