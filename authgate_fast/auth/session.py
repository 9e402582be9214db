"""A browser's session: what a worker remembers of it, and the sealed record that the store keeps. Pure.

The store knows a session by the SHA-256 of its cookie and holds it encrypted (AES-256-GCM) under a key that only the
cookie gives (HKDF, RFC 5869). So whoever reads the store can neither use a session nor read a token, and whoever
writes to it cannot make one up. In clear stand only when it began and ends, and whose it is: `authgate session` shows
that. Moments are seconds since the epoch.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from authgate_fast.snapshot import Identity

SESSION_PREFIX = "authgate:state:session:"
SID_PREFIX = "authgate:state:sid:"
SUB_PREFIX = "authgate:state:sub:"
MAX_RECORD_BYTES = 65_536
"""Tokens and claims of one session; a browser's cookie jar would hold less."""
_NONCE_BYTES = 12
_KEY_BYTES = 32


_FIELDS = (
    "access_ends_at",
    "access_token",
    "access_ttl_s",
    "claims",
    "client_id",
    "created_at",
    "ends_at",
    "id_token",
    "issuer",
    "refresh_token",
    "scope",
    "sid",
)


class SealError(Exception):
    """A sealed value cannot be opened with this secret, or is too large to be sealed; the text is for an operator."""


class Session:
    """One session as a worker remembers it, from its first request on; changed in place when the store's record is.

    ``good_until`` is the one moment that a request looks at: until then memory may answer. ``checked_at`` is when
    the store last had it, ``touched_at`` when its idle end was last moved. ``sealed`` is the SHA-256 of the
    stored record, to tell a change. ``told``: the store said that something changed, and nobody has looked yet.
    ``recheck_at`` is when a stream of this session has the store asked again.
    """

    __slots__ = (
        "access_ends_at",
        "checked_at",
        "claims",
        "ended",
        "ends_at",
        "good_until",
        "identity",
        "key",
        "name",
        "recheck_at",
        "refresh_at",
        "scope",
        "sealed",
        "told",
        "touched_at",
    )

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name
        self.key = key
        self.identity: Identity | None = None
        self.claims: dict[str, Any] = {}
        self.scope = ""
        self.sealed = b""
        self.ends_at = 0.0
        self.access_ends_at = 0.0
        self.refresh_at = 0.0
        self.checked_at = 0.0
        self.touched_at = 0.0
        self.good_until = 0.0
        self.told = False
        self.recheck_at = 0.0
        self.ended = False

    def end(self) -> None:
        """It is over, for good."""
        self.ended = True
        self.good_until = 0.0


class Record:
    """What the store keeps of a session. ``access_ends_at`` is infinite where the provider did not say; ``sid`` is the
    provider's own session that it belongs to, or ""."""

    __slots__ = _FIELDS

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        created_at: float,
        ends_at: float,
        claims: dict[str, Any],
        access_token: str,
        access_ttl_s: float,
        access_ends_at: float,
        refresh_token: str,
        id_token: str,
        scope: str,
        sid: str = "",
    ) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self.created_at = created_at
        self.ends_at = ends_at
        self.claims = claims
        self.access_token = access_token
        self.access_ttl_s = access_ttl_s
        self.access_ends_at = access_ends_at
        self.refresh_token = refresh_token
        self.id_token = id_token
        self.scope = scope
        self.sid = sid


def session_name(gateway: str, cookie: bytes) -> str:
    """Return the name under which the store keeps the session of a cookie."""
    return session_prefix(gateway) + sha256(cookie).hexdigest()


def session_prefix(gateway: str) -> str:
    """Return how the names of all sessions of a gateway begin."""
    return f"{SESSION_PREFIX}{gateway}:"


def sid_name(gateway: str, sid: str) -> str:
    """Return the name under which the store lists the sessions that belong to one at the provider."""
    return f"{SID_PREFIX}{gateway}:{_hash(sid)}"


def sub_name(gateway: str, sub: str) -> str:
    """Return the name under which the store lists the sessions of a user."""
    return f"{SUB_PREFIX}{gateway}:{_hash(sub)}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()  # JSON can hold half a character


def derive_key(secret: bytes, purpose: bytes) -> bytes:
    """Return the AES key that a secret of 256 random bits gives for one purpose."""
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=b"authgate " + purpose).derive(secret)


def session_key(cookie: bytes) -> bytes:
    """Return the key to the session of a cookie."""
    return derive_key(cookie, b"bff session 1")


def seal(key: bytes, name: str, clear: bytes, text: bytes) -> bytes:
    """Encrypt `text` for the place `name`, behind `clear`, which stays readable but cannot be changed."""
    if len(text) > MAX_RECORD_BYTES:
        raise SealError(
            f"the provider's tokens and claims have {len(text)} bytes, more than {MAX_RECORD_BYTES}"
        )
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return clear + b"\n" + nonce + AESGCM(key).encrypt(nonce, text, _bound(name, clear))


def unseal(key: bytes, name: str, value: bytes) -> bytes:
    """Undo `seal`. Raises SealError if another secret, place or writer made `value`."""
    clear, _, sealed = value.partition(b"\n")
    nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, text, _bound(name, clear))
    except (InvalidTag, ValueError):
        raise SealError(f"what stands under {name} was not sealed for it") from None


def _bound(name: str, clear: bytes) -> bytes:
    return name.encode("utf-8") + b"\n" + clear


def seal_record(key: bytes, name: str, record: Record) -> bytes:
    """Return what the store keeps. Raises SealError if it is too large."""
    clear = orjson.dumps(
        {
            "v": 1,
            "created_at": record.created_at,
            "ends_at": record.ends_at,
            "sub": record.claims.get("sub", ""),
        }
    )
    fields = {name: getattr(record, name) for name in _FIELDS}
    if record.access_ends_at == float("inf"):
        fields["access_ends_at"] = fields["access_ttl_s"] = None  # JSON has no infinity
    return seal(key, name, clear, orjson.dumps(fields))


def open_record(key: bytes, name: str, value: bytes) -> Record:
    """Return the record that the store keeps. Raises SealError."""
    fields: dict[str, Any] = orjson.loads(unseal(key, name, value))
    for moment in ("access_ends_at", "access_ttl_s"):
        if fields[moment] is None:
            fields[moment] = float("inf")
    return Record(**fields)


def read_clear(value: bytes) -> dict[str, Any] | None:
    """Return what stands in clear before a sealed session: created_at, ends_at, sub. None if that is unreadable."""
    try:
        clear = orjson.loads(value.partition(b"\n")[0])
    except orjson.JSONDecodeError:
        return None
    return clear if isinstance(clear, dict) else None
