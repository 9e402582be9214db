"""API keys: one digest, one dict look-up (DESIGN section 7, API_KEY)."""

from __future__ import annotations

import hashlib
import secrets
import zlib
from hmac import compare_digest
from typing import TYPE_CHECKING

from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.snapshot import Credential

KEY_PREFIX = "agk_"
MAX_KEY_BYTES = 512
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
_sha256 = hashlib.sha256


class ApiKeyAuthenticator:
    """Checks the key in one request field against the SHA-256 of every known key."""

    __slots__ = ("challenge", "credential_fields", "missing_detail")

    def __init__(self, gateway: str, header: str) -> None:
        self.credential_fields = frozenset({header.lower().encode("ascii")})
        self.challenge = f'ApiKey realm="{gateway}", header="{header}"'.encode("ascii")
        self.missing_detail = f"This route needs an API key in the {header} header."

    def identify(
        self, presented: list[bytes], credentials: dict[bytes, Credential], now: float
    ) -> Credential | Reason:
        """Look the key up by its digest; unknown, expired and doubled keys are told apart by nobody."""
        if not presented:
            return Reason.CREDENTIALS_MISSING
        if len(presented) != 1:
            return Reason.CREDENTIALS_INVALID
        key = presented[0]
        if not key:
            return Reason.CREDENTIALS_MISSING
        if len(key) > MAX_KEY_BYTES:
            return Reason.CREDENTIALS_INVALID
        credential = credentials.get(_sha256(key).digest())
        if credential is None or credential.expires_at <= now:
            return Reason.CREDENTIALS_INVALID
        return credential


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
