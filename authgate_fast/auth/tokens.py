"""Signed tokens (JWS, RFC 7515 and 7519) checked as RFC 8725 asks: for every kind of token that is accepted here.

The key decides the algorithm, and the key comes from our side; ``kid`` only picks one of our keys, and ``jku``, ``x5u``,
``jwk`` and ``x5c`` are never looked at. Pure: the time is an argument, so PyJWT is told not to look at a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from jwt.exceptions import InvalidTokenError

MAX_TOKEN_BYTES = 8_192
"""Longer tokens are refused unread: no client of ours sends them, and each byte costs work."""
LEEWAY_S = 30.0
"""How far two honest clocks may be apart."""
ALGORITHMS = ("EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""Asymmetric ones only: no ``none``, and no HMAC that a public key could be the secret of."""

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key and the one algorithm it is used with."""

    key: Any
    algorithm: str


class TokenError(Exception):
    """A token is not good; the text says why, for an operator."""


class UnknownKeyError(TokenError):
    """A token names a key that is not known here; ``kid`` is what it names."""

    def __init__(self, kid: str) -> None:
        super().__init__("it is signed with a key that is not known here")
        self.kid = kid


def read_header(token: bytes) -> dict[str, Any]:
    """Return a token's header, unverified: good for nothing but to pick one of our keys. Raises TokenError."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(f"it is longer than {MAX_TOKEN_BYTES} bytes")
    if token.count(b".") != 2:
        raise TokenError("it is not a signed token (three parts with dots between them)")
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
    except InvalidTokenError as error:
        raise TokenError(f"its header cannot be read ({error})") from None
    if "crit" in header:
        raise TokenError("its header lists critical extensions, none of which is known here")
    return header


def verify(
    token: bytes,
    keys: Mapping[str, VerifyingKey],
    *,
    issuer: str,
    now: float,
    types: frozenset[str],
    audience: str | None = None,
) -> Claims:
    """Return the claims of a token that is signed with one of `keys`, by `issuer`, and valid `now`.

    `types` are the values of ``typ`` (lower case, without ``application/``; "" for none) that this kind of
    token may have. `audience` None leaves ``aud`` to the caller. Raises UnknownKeyError or TokenError.
    """
    header = read_header(token)
    found = _pick(header, keys)
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
        raise TokenError("it is a token of another kind (typ)")
    if header.get("alg") != found.algorithm:
        raise TokenError("its algorithm is not the one of the key it names")
    try:
        payload = jwt.api_jws.decode_complete(token, found.key, algorithms=[found.algorithm])["payload"]
        claims = orjson.loads(payload)
    except InvalidTokenError as error:
        raise TokenError(f"its signature is not good ({error})") from None
    except orjson.JSONDecodeError:
        raise TokenError("its payload is not JSON") from None
    if not isinstance(claims, dict):
        raise TokenError("its payload is not an object")
    _check_claims(claims, issuer, now, audience)
    return claims


def _pick(header: Mapping[str, Any], keys: Mapping[str, VerifyingKey]) -> VerifyingKey:
    kid = header.get("kid")
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    if not isinstance(kid, str):
        raise TokenError("it names no key (kid)")
    found = keys.get(kid)
    if found is None:
        raise UnknownKeyError(kid)
    return found


def _check_claims(claims: Claims, issuer: str, now: float, audience: str | None) -> None:
    if claims.get("iss") != issuer:
        raise TokenError("it was issued by somebody else (iss)")
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise TokenError("it has no end (exp)")
    if expires_at + LEEWAY_S <= now:
        raise TokenError(f"it expired {round(now - expires_at)} s ago (exp)")
    for name in ("nbf", "iat"):
        moment = _moment(claims, name)
        if moment is not None and moment - LEEWAY_S > now:
            raise TokenError(f"it is not valid yet ({name})")
    if audience is not None and audience not in audiences(claims):
        raise TokenError("it is meant for somebody else (aud)")


def audiences(claims: Claims) -> tuple[str, ...]:
    """Return ``aud`` as a tuple; anything but texts is left out (RFC 7519 section 4.1.3)."""
    value = claims.get("aud")
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, str))
    return ()


def _moment(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise TokenError(f"its {name} is not a moment")
    return float(value)


def expires_at(claims: Claims) -> float:
    """Return ``exp`` of verified claims, without leeway."""
    moment = _moment(claims, "exp")
    assert moment is not None  # `verify` has seen it
    return moment


def bearer_token(value: bytes) -> bytes | None:
    """Return the token of an Authorization value (RFC 6750 section 2.1), or None: another scheme, or malformed."""
    scheme, space, token = value.partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not space or not token or b" " in token:  # bytes: ASCII letters only
        return None
    return token
