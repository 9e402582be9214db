"""The key-encryption key of an operator: 32 bytes in a file, in hex or base64. It is read once and never shown."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path

from authgate_fast.auth.signing import SEALING_KEY_BYTES

_MAX_FILE_BYTES = 1_024


class SealingKeyError(ValueError):
    """The key-encryption key cannot be read; the text is a sentence for an operator."""


def read_sealing_key(path: str | Path) -> bytes:
    """Return the key in the file. Raises SealingKeyError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).strip(b" \t\r\n")
    except OSError as error:
        raise SealingKeyError(f"the key file {path} cannot be read: {error.strerror}") from None
    for decode in (_from_hex, _from_base64):
        key = decode(text)
        if key is not None:
            return key
    raise SealingKeyError(
        f"the key file {path} must hold {SEALING_KEY_BYTES} bytes in hex or base64, for instance what "
        f"`openssl rand -hex {SEALING_KEY_BYTES}` prints"
    )


def _from_hex(text: bytes) -> bytes | None:
    if len(text) != 2 * SEALING_KEY_BYTES or text.translate(None, b"0123456789abcdefABCDEF"):
        return None
    return bytes.fromhex(text.decode("ascii"))


def _from_base64(text: bytes) -> bytes | None:
    try:
        key = b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except Base64Error:
        return None
    return key if len(key) == SEALING_KEY_BYTES else None
