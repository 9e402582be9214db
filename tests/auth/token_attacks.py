"""A verifier of signed tokens under attack: what an attacker knows, and what it can make.

The attacks are in `test_rfc8725`; they run for each class in ``TARGETS`` of each module ``tests/auth/targets_<type>.py``.
To add a type: write such a module with a subclass of `Target`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, ClassVar

import orjson
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from authgate_fast.auth.signing import SigningKey
from authgate_fast.auth.tokens import encode_base64url

NOW = 1_900_000_000.0
_ALGORITHMS = get_default_algorithms()
_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


class Target:
    """One verifier. ``signing`` is the key that its tokens are signed with, ``header`` what they say of it."""

    name: ClassVar[str]
    issuer: str
    signing: SigningKey
    header: dict[str, Any]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token; None leaves one out."""
        raise NotImplementedError

    def accepts(self, token: bytes, now: float = NOW) -> bool:
        """Tell whether a request with this token is let in, look-ups included."""
        raise NotImplementedError

    def wrong_audiences(self) -> list[Any]:
        """Return values of ``aud`` (with the other claims as in `claims`) that are not this verifier's."""
        raise NotImplementedError

    def wrong_types(self) -> list[Any]:
        """Return values of ``typ`` of tokens of other kinds; None for no ``typ`` at all, if that is wrong here."""
        return [
            "JWT",
            "id_token+jwt",
            "dpop+jwt",
            "secevent+jwt",
            "",
            "at",
            "at+jwt ",
            "\u0410T+JWT",
            7,
            ["at+jwt"],
        ]

    def foreign(self) -> bytes:
        """Return a token that is good elsewhere: at another gateway, or of another client."""
        raise NotImplementedError

    def good(self) -> bytes:
        return self.make()

    def make(self, *, header: dict[str, Any] | None = None, claims: Any = None, **changes: Any) -> bytes:
        """Return a token signed with the right key; `header` changes its header, `changes` its claims."""
        merged = {**self.header, **(header or {})}
        merged = {name: value for name, value in merged.items() if value is not None}
        payload = orjson.dumps(self.claims(**changes)) if claims is None else claims
        return self.sign_raw(orjson.dumps(merged), payload)

    def sign_raw(self, header: bytes, payload: bytes) -> bytes:
        """Sign any bytes as header and payload with the right key."""
        signed = encode_base64url(header) + b"." + encode_base64url(payload)
        return (
            signed
            + b"."
            + encode_base64url(_ALGORITHMS[self.signing.algorithm].sign(signed, self.signing.key))
        )

    def forge(self, key: SigningKey, header: dict[str, Any] | None = None) -> bytes:
        """Return a token with the right claims, signed with the attacker's key."""
        merged = {**self.header, "alg": key.algorithm, **(header or {})}
        signed = encode_base64url(orjson.dumps(merged)) + b"." + encode_base64url(orjson.dumps(self.claims()))
        return signed + b"." + encode_base64url(_ALGORITHMS[key.algorithm].sign(signed, key.key))

    def forge_hmac(self, algorithm: str, secret: bytes, header: dict[str, Any] | None = None) -> bytes:
        """Return a token with the right claims under an HMAC."""
        merged = {**self.header, "alg": algorithm, **(header or {})}
        signed = encode_base64url(orjson.dumps(merged)) + b"." + encode_base64url(orjson.dumps(self.claims()))
        return signed + b"." + encode_base64url(hmac.new(secret, signed, _HASHES[algorithm]).digest())

    def public_texts(self) -> dict[str, bytes]:
        """Return the public key in every spelling that anybody could take for a secret."""
        public = self.signing.key.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        jwk = type(_ALGORITHMS[self.signing.algorithm]).to_jwk(public, as_dict=True)
        return {
            "PEM": pem,
            "PEM without line end": pem.rstrip(b"\n"),
            "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "JWK": orjson.dumps(jwk),
            "JWK in order": orjson.dumps(jwk, option=orjson.OPT_SORT_KEYS),
            "JWKS": orjson.dumps({"keys": [jwk]}),
            "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "empty": b"",
            "kid": str(self.header.get("kid", "")).encode(),
        }
