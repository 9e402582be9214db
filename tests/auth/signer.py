"""Tokens as an identity provider signs them, made with PyJWT: right ones, and whatever an attacker could make."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from authgate_fast.auth.tokens import VerifyingKey

ISSUER = "https://idp.example.com"
CLIENT = "storefront"
_made: dict[tuple[str, str], Any] = {}


def private_key(algorithm: str, name: str = "") -> Any:
    """Return a private key for `algorithm`; the same one for the same name, since RSA keys take long to make."""
    found = _made.get((algorithm[:2], name))
    if found is None:
        if algorithm[:2] in ("RS", "PS"):
            found = rsa.generate_private_key(65537, 2048)
        elif algorithm == "EdDSA":
            found = ed25519.Ed25519PrivateKey.generate()
        else:
            found = ec.generate_private_key(ec.SECP256R1())
        _made[algorithm[:2], name] = found
    return found


class Signer:
    """A signing key of a provider."""

    def __init__(self, kid: str = "k1", algorithm: str = "EdDSA", name: str = "") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = private_key(algorithm, name or kid)
        self.public = VerifyingKey(self.private.public_key(), algorithm)

    @property
    def keys(self) -> dict[str, VerifyingKey]:
        return {self.kid: self.public}

    def token(self, claims: dict[str, Any], **header: Any) -> bytes:
        """Sign `claims`. A header value of None leaves the name out; what the header says is not checked."""
        complete = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid} | header
        given = {name: value for name, value in complete.items() if value is not None}
        signed = _encoded(json.dumps(given).encode()) + b"." + _encoded(json.dumps(claims).encode())
        signature = get_default_algorithms()[self.algorithm].sign(signed, self.private)
        return signed + b"." + _encoded(signature)


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def claims_at(now: float, **more: Any) -> dict[str, Any]:
    """Return claims of a good access token at `now`; a value of None takes a claim out."""
    claims = {
        "iss": ISSUER,
        "sub": "user-1",
        "aud": "https://api.example.com",
        "client_id": CLIENT,
        "iat": int(now) - 10,
        "exp": int(now) + 300,
        "scope": "read write",
        "roles": ["buyer"],
    } | more
    return {name: value for name, value in claims.items() if value is not None}


def bearer(token: bytes) -> list[tuple[bytes, bytes]]:
    """Return the field of a request that shows `token`."""
    return [(b"Authorization", b"Bearer " + token)]
