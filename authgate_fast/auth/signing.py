"""The signing keys of a JWT gateway: made, stored as text, sealed, retired. Pure: no IO, and the time is an argument.

A keyring is one JSON text: ``{"version": 1, "keys": [{kid, alg, public, private | sealed, created_at, active_at,
retired_at}]}``, the oldest key first; keys are DER (SubjectPublicKeyInfo, PKCS #8) in base64. The newest active key
signs. A new key is published `PUBLISH_S` before it signs, so that every worker can verify what it signs. A retired
key loses its private half and verifies until every token that it signed has ended. ``sealed`` is the
private half under a key-encryption key (AES-256-GCM, 12 bytes of nonce first; the additional data are the keyring's
Redis key and the ``kid``), for keyrings made with one.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from authgate_fast.auth.json_object import JsonError, read_object
from authgate_fast.auth.tokens import LEEWAY_S, VerifyingKey, encode_base64url

PUBLISH_S = 2.0
"""Longer than any worker that is connected takes to learn of a change."""
MAX_ACCESS_TTL_S = 86_400
"""The most that a gateway document allows for ``access_ttl_s``."""
RETIRED_S = MAX_ACCESS_TTL_S + 10 * LEEWAY_S
"""How long a retired key verifies: its last token, of whatever setting was in force, has ended then."""
MAX_KEYS = 16
RSA_BITS = 2_048
SEALING_KEY_BYTES = 32
KID_CHARACTERS = 16

_NONCE_BYTES = 12
_NEVER = float("inf")


class KeyringError(Exception):
    """A keyring cannot be read or used; the text is one line for an operator, with no part of a key in it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What signs."""

    kid: str
    algorithm: str
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key of a keyring. ``private`` or ``sealed`` is set while it may sign; times are seconds since the epoch."""

    kid: str
    algorithm: str
    public: bytes
    created_at: float
    active_at: float
    retired_at: float | None = None
    private: bytes | None = field(default=None, repr=False)
    sealed: bytes | None = field(default=None, repr=False)

    @property
    def may_sign(self) -> bool:
        return self.private is not None or self.sealed is not None

    @property
    def ends_at(self) -> float:
        """When the last token that it signed has ended."""
        return _NEVER if self.retired_at is None else self.retired_at + RETIRED_S


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keys of one gateway, the oldest first."""

    keys: tuple[StoredKey, ...]

    def current(self, now: float) -> StoredKey | None:
        """Return the key that signs."""
        able = [key for key in self.keys if key.may_sign]
        active = [key for key in able if key.active_at <= now]
        if active:
            return active[-1]
        return able[0] if able else None

    def verifying(self, now: float) -> dict[str, VerifyingKey]:
        """Return what verifies, by kid. Raises KeyringError."""
        return {
            key.kid: VerifyingKey(_load_public(key), key.algorithm) for key in self.keys if key.ends_at > now
        }

    def with_new(self, key: StoredKey) -> Keyring:
        """Add a key; the others are retired at the moment at which it begins to sign."""
        retired = tuple(
            replace(old, retired_at=key.active_at) if old.retired_at is None else old for old in self.keys
        )
        return Keyring((*retired, key))

    def tidied(self, now: float) -> Keyring:
        """Leave out what is over: private halves of retired keys, and keys that verify nothing any more."""
        kept = []
        for key in self.keys:
            if key.ends_at <= now:
                continue
            is_over = key.retired_at is not None and key.retired_at <= now
            kept.append(replace(key, private=None, sealed=None) if is_over and key.may_sign else key)
        return Keyring(tuple(kept))

    def jwks(self, now: float) -> bytes:
        """Return the public keys as RFC 7517 writes them. Raises KeyringError."""
        keys = [
            {**_public_jwk(_load_public(key)), "kid": key.kid, "alg": key.algorithm, "use": "sig"}
            for key in self.keys
            if key.ends_at > now
        ]
        return orjson.dumps({"keys": keys})

    def dump(self) -> bytes:
        """Return the text that `parse_keyring` reads."""
        return orjson.dumps({"version": 1, "keys": [_fields(key) for key in self.keys]})


def new_key(
    algorithm: str, *, name: str, now: float, active_at: float, sealing_key: bytes | None = None
) -> StoredKey:
    """Make a key for the keyring `name` (its Redis key). RSA takes some 100 ms."""
    private: Any
    if algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    elif algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "RS256":
        private = rsa.generate_private_key(65_537, RSA_BITS)
    else:
        raise KeyringError(f"there is no way to make a key for the algorithm {algorithm}")
    public: bytes = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    secret: bytes = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    kid = encode_base64url(sha256(public).digest())[:KID_CHARACTERS].decode("ascii")
    key = StoredKey(kid, algorithm, public, now, active_at)
    if sealing_key is None:
        return replace(key, private=secret)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return replace(key, sealed=nonce + AESGCM(sealing_key).encrypt(nonce, secret, _context(name, kid)))


def open_key(key: StoredKey, *, name: str, sealing_key: bytes | None) -> SigningKey:
    """Return what signs with a stored key. Raises KeyringError."""
    secret = key.private
    if secret is None and key.sealed is not None:
        if sealing_key is None:
            raise KeyringError(
                f"the signing key in {name} is sealed; give the key-encryption key with --secret-key-file"
            )
        nonce, sealed = key.sealed[:_NONCE_BYTES], key.sealed[_NONCE_BYTES:]
        try:
            secret = AESGCM(sealing_key).decrypt(nonce, sealed, _context(name, key.kid))
        except (InvalidTag, ValueError):
            raise KeyringError(
                f"the signing key in {name} is sealed with another key-encryption key than the one of "
                "--secret-key-file; nothing was changed"
            ) from None
    if secret is None:
        raise KeyringError(f"the key {key.kid} in {name} has no private half")
    try:
        private: Any = load_der_private_key(secret, None)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyringError(f"the private half of the key {key.kid} in {name} cannot be read") from None
    if public != key.public:
        raise KeyringError(f"the two halves of the key {key.kid} in {name} do not belong together")
    return SigningKey(key.kid, key.algorithm, private)


def parse_keyring(text: bytes, name: str) -> Keyring:
    """Read a stored keyring. Raises KeyringError; `name` is its Redis key, for the message."""
    try:
        fields = read_object(text)
        if fields.get("version") != 1 or not isinstance(fields.get("keys"), list):
            raise JsonError("it is not a keyring of this version")
        keys = tuple(_parse_key(item) for item in fields["keys"])
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error) if isinstance(error, JsonError) else "a key in it is not complete"
        raise KeyringError(f"the signing keys in {name} cannot be read: {reason}") from None
    if not keys or len({key.kid for key in keys}) != len(keys):
        raise KeyringError(f"the signing keys in {name} cannot be read: there is none, or one stands twice")
    keyring = Keyring(keys)
    try:
        keyring.verifying(-_NEVER)
    except KeyringError as error:
        raise KeyringError(f"the signing keys in {name} cannot be read: {error}") from None
    return keyring


def _parse_key(item: Any) -> StoredKey:
    kid, algorithm = item["kid"], item["alg"]
    if not isinstance(kid, str) or algorithm not in ("EdDSA", "ES256", "RS256"):
        raise JsonError("a key in it has no kid, or an algorithm that is not known here")
    retired_at = item["retired_at"]
    return StoredKey(
        kid,
        algorithm,
        b64decode(item["public"], validate=True),
        float(item["created_at"]),
        float(item["active_at"]),
        None if retired_at is None else float(retired_at),
        _optional(item.get("private")),
        _optional(item.get("sealed")),
    )


def _optional(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)


def _fields(key: StoredKey) -> dict[str, object]:
    fields: dict[str, object] = {
        "kid": key.kid,
        "alg": key.algorithm,
        "public": b64encode(key.public).decode("ascii"),
        "created_at": key.created_at,
        "active_at": key.active_at,
        "retired_at": key.retired_at,
    }
    if key.private is not None:
        fields["private"] = b64encode(key.private).decode("ascii")
    if key.sealed is not None:
        fields["sealed"] = b64encode(key.sealed).decode("ascii")
    return fields


def _context(name: str, kid: str) -> bytes:
    return f"{name}\n{kid}".encode()


def _load_public(key: StoredKey) -> Any:
    try:
        return load_der_public_key(key.public)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyringError(f"the public half of the key {key.kid} cannot be read") from None


def _public_jwk(key: Any) -> dict[str, str]:
    """RFC 8037 section 2, RFC 7518 sections 6.2 and 6.3."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _text(key.public_bytes_raw())}
    numbers = key.public_numbers()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"kty": "EC", "crv": "P-256", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32)}
    return {
        "kty": "RSA",
        "n": _number(numbers.n, (key.key_size + 7) // 8),
        "e": _number(numbers.e, (numbers.e.bit_length() + 7) // 8),
    }


def _number(value: int, length: int) -> str:
    return _text(value.to_bytes(length, "big"))


def _text(data: bytes) -> str:
    return encode_base64url(data).decode("ascii")
