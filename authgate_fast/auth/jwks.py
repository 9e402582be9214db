"""A provider's key set (JWKS, RFC 7517) as keys that can check signatures. Pure.

The key decides the algorithm (RFC 8725 section 3.1): RSA is RS256 unless the key itself says another one of RSA's,
an elliptic curve has its one algorithm. Whatever is not a public key for signatures is left out, not an error:
a set may hold keys for other purposes. Of keys and certificates by reference (``x5u``, ``x5c``) nothing is read.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authgate_fast.auth.tokens import VerifyingKey

MAX_KEYS = 64
MAX_KID_CHARACTERS = 256
MIN_RSA_BITS = 2_048
"""RFC 7518 section 3.3."""
MAX_RSA_BITS = 8_192
"""A larger one would make each check expensive."""
MAX_EXPONENT_BITS = 33
"""65537 is usual; a check takes time by the exponent's length."""

_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: dict[str, tuple[str, ec.EllipticCurve, int]] = {
    "P-256": ("ES256", ec.SECP256R1(), 32),
    "P-384": ("ES384", ec.SECP384R1(), 48),
    "P-521": ("ES512", ec.SECP521R1(), 66),
}
_is_base64url = re.compile(r"[A-Za-z0-9_-]{1,2048}").fullmatch


class KeySetError(Exception):
    """A key set is of no use; the text says why, for an operator."""


def read_key_set(document: object) -> dict[str, VerifyingKey]:
    """Return the usable keys by ``kid`` ("" for a key without one). Raises KeySetError if there is none.

    The first of two keys with one name counts (RFC 7517 section 4.5 says that names should differ).
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetError("it is not a key set (an object with a list of keys)")
    keys: dict[str, VerifyingKey] = {}
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, dict) or not _is_for_signatures(entry):
            continue
        kid = entry.get("kid", "")
        if not isinstance(kid, str) or len(kid) > MAX_KID_CHARACTERS or kid in keys:
            continue
        try:
            key = _read_key(entry)
        except ValueError:  # numbers that are no key, a point that is not on its curve
            continue
        if key is not None:
            keys[kid] = key
    if not keys:
        raise KeySetError("it holds no public key that is usable for signatures")
    return keys


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    """RFC 7517 sections 4.2 and 4.3: what a key may be used for, if it says so."""
    if entry.get("use", "sig") != "sig":
        return False
    operations = entry.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _read_key(entry: Mapping[str, Any]) -> VerifyingKey | None:
    kind, algorithm = entry.get("kty"), entry.get("alg")
    if kind == "RSA":
        if algorithm is None:
            algorithm = "RS256"
        if not isinstance(algorithm, str) or algorithm not in _RSA_ALGORITHMS:
            return None
        modulus, exponent = _number(entry.get("n")), _number(entry.get("e"))
        if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
            return None
        if exponent.bit_length() > MAX_EXPONENT_BITS:
            return None
        return VerifyingKey(rsa.RSAPublicNumbers(exponent, modulus).public_key(), algorithm)
    curve = entry.get("crv")
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        own, kind_of_curve, size = _CURVES[curve]
        if algorithm not in (None, own):
            return None
        x, y = _bytes(entry.get("x")), _bytes(entry.get("y"))
        if len(x) != size or len(y) != size:  # RFC 7518 section 6.2.1.2: the full size, zeros in front
            return None
        point = ec.EllipticCurvePublicKey.from_encoded_point(kind_of_curve, b"\x04" + x + y)
        return VerifyingKey(point, own)
    if kind == "OKP" and curve == "Ed25519" and algorithm in (None, "EdDSA"):
        return VerifyingKey(ed25519.Ed25519PublicKey.from_public_bytes(_bytes(entry.get("x"))), "EdDSA")
    return None


def _bytes(value: object) -> bytes:
    """Read base64url without padding (RFC 7515 section 2), nothing else in it. Raises ValueError."""
    if not isinstance(value, str) or not _is_base64url(value):
        raise ValueError("not base64url")
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _number(value: object) -> int:
    return int.from_bytes(_bytes(value), "big")
