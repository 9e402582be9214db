"""Signed tokens (JWS, RFC 7515 and 7519) checked as RFC 8725 asks: for every kind of token that is accepted here.

The key decides the algorithm, and the key comes from our side; ``kid`` only picks one of our keys, and ``jku``,
``x5u``, ``jwk`` and ``x5c`` are never looked at. A token has one spelling: base64url without padding and without spare
bits, and JSON in which no name stands twice. The parts are taken apart here and nowhere else, and PyJWT's algorithms
get the very bytes that were signed. Pure: the time is an argument.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import get_default_algorithms

from authgate_fast.auth.json_object import JsonError, read_object

MAX_TOKEN_BYTES = 8_192
"""Longer tokens are refused unread: no client of ours sends them, and each byte costs work."""
MAX_KID_CHARACTERS = 256
LEEWAY_S = 30.0
"""How far two honest clocks may be apart."""
ALGORITHMS = ("EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""Asymmetric ones only: no ``none``, and no HMAC that a public key could be the secret of."""
MIN_RSA_BITS = 2_048  # RFC 7518 section 3.3

_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_IMPLEMENTATIONS = {name: get_default_algorithms()[name] for name in ALGORITHMS}
_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TOKEN68 = _BASE64URL + b".~+/="  # b64token of RFC 6750 section 2.1
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_PADDING = (b"", None, b"==", b"=")

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
    return _read_header(_split(token)[0])


def verify(
    token: bytes,
    keys: Mapping[str, VerifyingKey],
    *,
    issuer: str,
    now: float,
    types: frozenset[str],
    audience: str | None = None,
    kid_required: bool = False,
) -> Claims:
    """Return the claims of a token that is signed with one of `keys`, by `issuer`, and valid `now`.

    `types` are the values of ``typ`` (lower case, without ``application/``; "" for none) that this kind of
    token may have. `audience` None leaves ``aud`` to the caller. Without `kid_required`, a token that names no key is
    signed with the only one. Raises UnknownKeyError or TokenError.
    """
    parts = _split(token)
    header = _read_header(parts[0])
    found = _pick(header, keys, kid_required=kid_required)
    if _media_type(header.get("typ", "")) not in types:  # RFC 8725 section 3.11
        raise TokenError("it is a token of another kind (typ)")
    if header.get("alg") != found.algorithm:  # RFC 8725 section 3.1
        raise TokenError("its algorithm is not the one of the key it names")
    payload, signature = _decode(parts[1], "payload"), _decode(parts[2], "signature")
    _check_key(found)
    if not _IMPLEMENTATIONS[found.algorithm].verify(token[: token.rindex(b".")], found.key, signature):
        raise TokenError("its signature is not good")
    try:
        claims = read_object(payload)
    except JsonError as error:
        raise TokenError(f"its payload cannot be read: {error}") from None
    _check_claims(claims, issuer, now, audience)
    return claims


def sign(claims: Claims, *, key: Any, kid: str, algorithm: str, kind: str) -> bytes:
    """Return a signed token of `claims`; `key` is a private one, `kind` goes into ``typ``."""
    header = orjson.dumps({"alg": algorithm, "kid": kid, "typ": kind})
    signed = encode_base64url(header) + b"." + encode_base64url(orjson.dumps(claims))
    signature: bytes = _IMPLEMENTATIONS[algorithm].sign(signed, key)
    return signed + b"." + encode_base64url(signature)


def encode_base64url(data: bytes) -> bytes:
    """Return `data` as RFC 7515 writes it: base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def _split(token: bytes) -> list[bytes]:
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(f"it is longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(b".", 3)
    if len(parts) != 3:
        raise TokenError("it is not a signed token (three parts with dots between them)")
    return parts


def _read_header(part: bytes) -> dict[str, Any]:
    try:
        header = read_object(_decode(part, "header"))
    except JsonError as error:
        raise TokenError(f"its header cannot be read: {error}") from None
    if "crit" in header:  # RFC 7515 section 4.1.11
        raise TokenError("its header lists critical extensions, none of which is known here")
    if "b64" in header:  # RFC 7797 changes what is signed
        raise TokenError("its payload is not base64url (b64)")
    return header


def _decode(part: bytes, name: str) -> bytes:
    """Decode base64url. One text for each value: no padding, no white space, no spare bits set (RFC 4648 3.5)."""
    padding = _PADDING[len(part) % 4]
    if padding is None or part.translate(None, _BASE64URL):
        raise TokenError(f"its {name} is not base64url")
    try:
        data = a2b_base64(part.translate(_TO_STANDARD) + padding)
    except Base64Error:
        raise TokenError(f"its {name} is not base64url") from None
    if encode_base64url(data) != part:
        raise TokenError(f"its {name} is not written as base64url is")
    return data


def _media_type(kind: object) -> str | None:
    """Return ``typ`` in lower case and without ``application/`` (RFC 7515 section 4.1.9); None: not a media type."""
    if not isinstance(kind, str) or not kind.isascii():
        return None
    return kind.lower().removeprefix("application/")


def _pick(header: Mapping[str, Any], keys: Mapping[str, VerifyingKey], *, kid_required: bool) -> VerifyingKey:
    kid = header.get("kid")
    if kid is None and len(keys) == 1 and not kid_required:
        return next(iter(keys.values()))
    if not isinstance(kid, str) or len(kid) > MAX_KID_CHARACTERS:
        raise TokenError("it names no key (kid)")
    found = keys.get(kid)
    if found is None:
        raise UnknownKeyError(kid)
    return found


def _check_key(found: VerifyingKey) -> None:
    """Refuse a key that is not of its algorithm's family, whoever brought the two together."""
    key, algorithm = found.key, found.algorithm
    if algorithm == "EdDSA":
        fits = isinstance(key, Ed25519PublicKey | Ed448PublicKey)
    elif algorithm in _CURVES:
        fits = isinstance(key, EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
    else:
        fits = algorithm in ALGORITHMS and isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS
    if not fits:
        raise TokenError("the key that it names does not fit the algorithm")


def _check_claims(claims: Claims, issuer: str, now: float, audience: str | None) -> None:
    if claims.get("iss") != issuer:
        raise TokenError("it was issued by somebody else (iss)")
    ends_at = _moment(claims, "exp")
    if ends_at is None:
        raise TokenError("it has no end (exp)")
    if ends_at + LEEWAY_S <= now:
        raise TokenError(f"it expired {round(now - ends_at)} s ago (exp)")
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
    """Return the token of an Authorization value (RFC 6750 section 2.1).

    None: another scheme. b"": this scheme, and no token that could be one.
    """
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":  # bytes: ASCII letters only
        return None
    token = token.strip(b" ")
    return b"" if token.translate(None, _TOKEN68) else token
