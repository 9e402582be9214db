"""API keys: one digest, one dict look-up (DESIGN section 7, API_KEY)."""

from __future__ import annotations

import hashlib
import secrets
import zlib
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Consumers, Identity, Route

KEY_PREFIX: Final = "agk_"
MAX_KEY_BYTES: Final = 512
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43
_CHECKSUM_LENGTH: Final = 6
_sha256: Final = hashlib.sha256


class ApiKeyAuthenticator:
    """Checks the key in one request field against the SHA-256 of every known key."""

    __slots__ = ("_invalid", "_keys", "_missing", "credential_fields", "endpoints", "keeps_lines", "reserved")

    def __init__(self, gateway: str, header: str, consumers: Consumers) -> None:
        self.credential_fields = frozenset({header.lower().encode("ascii")})
        self.keeps_lines = False
        self.reserved = b""
        self.endpoints = NO_ENDPOINTS
        self._keys = consumers.keys
        challenge = f'WWW-Authenticate: ApiKey realm="{gateway}", header="{header}"\r\n'.encode("ascii")
        self._missing = Denial(
            Reason.CREDENTIALS_MISSING,
            detail=f"This route needs an API key in the {header} header.",
            extra_lines=challenge,
            why=f"the request has no {header} field",
        )
        # One answer for all that is wrong with a key: which of them it is, nobody is told.
        self._invalid = Denial(
            Reason.CREDENTIALS_INVALID,
            extra_lines=challenge,
            why="no enabled consumer has this key, or the key has expired, or it was sent twice",
            is_failure=True,
        )

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Look the key up by its digest; unknown, expired and doubled keys are told apart by nobody."""
        if len(presented) != 1:
            return self._invalid if presented else self._missing
        key = presented[0][1]
        if not key:
            return self._missing
        if len(key) > MAX_KEY_BYTES:
            return self._invalid
        identity = self._keys.get(_sha256(key).digest())
        if identity is None or identity.expires_at <= now:
            return self._invalid
        return identity

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Look the key up again: it may be gone, expired, or another consumer's."""
        current = self._keys.get(identity.name)
        if current is None or current.consumer != identity.consumer or current.expires_at <= now:
            return None
        return current

    def kept_lines(self, presented: Presented) -> bytes:
        """Keep nothing: the key is for the gateway."""
        return b""

    def forbidden_lines(self, route: Route) -> bytes:
        """Say no more: the scheme has no such parameters."""
        return b""


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode("ascii")), _CHECKSUM_LENGTH)


def new_key() -> str:
    """Make an API key: ``agk_``, 256 random bits in base62, a CRC-32 checksum (53 characters)."""
    secret = _base62(secrets.randbits(256), _SECRET_LENGTH)
    return KEY_PREFIX + secret + _checksum(secret)


def looks_like_key(text: str) -> bool:
    """Tell whether `text` has a key's form and checksum: for messages about typing errors only."""
    secret, checksum = text[len(KEY_PREFIX) : -_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    return (
        text.startswith(KEY_PREFIX)
        and len(secret) == _SECRET_LENGTH
        and all(c in _BASE62 for c in secret)
        and compare_digest(_checksum(secret), checksum)
    )


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key as 64 lower-case hex digits: what a document holds."""
    return _sha256(key.encode("utf-8")).hexdigest()
