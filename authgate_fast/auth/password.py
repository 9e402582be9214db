"""Passwords and their hashes: Argon2id (RFC 9106) as PHC strings. Pure: CPU and memory, no IO, no clock.

A check costs some 20 to 40 ms and 19 MiB on purpose, and releases the GIL meanwhile, so it is run in threads only
(``lookup.passwords``). What a hash may ask for is bounded: whoever writes a document must not be able to
stop a worker with it.
"""

from __future__ import annotations

import re
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from hashlib import blake2b
from hmac import compare_digest
from itertools import islice
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authgate_fast.snapshot import Identity, User

MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
"""OWASP's first recommendation for Argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane."""
SALT_BYTES = 16
HASH_BYTES = 32
MAX_MEMORY_KIB = 262_144
MAX_PASSES = 16
MAX_LANES = 16
"""At the limits a check takes seconds; beyond them, one document could keep a worker's threads busy for ever."""
MIN_SALT_BYTES = 8
MIN_HASH_BYTES = 16
"""RFC 9106 section 3.1 allows 4 bytes of hash; what collides by chance protects nothing."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else
_GROUPS, _GROUP_LENGTH = 7, 4  # 28 characters of 4.95 bits: 138 bits
_PHC = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$([A-Za-z0-9+/]{1,128})\$([A-Za-z0-9+/]{1,128})"
)


class PasswordHashError(Exception):
    """A text is no hash that is checked here; the message says why and holds nothing of it."""


class Argon2Hash:
    """A PHC string, read."""

    __slots__ = ("digest", "lanes", "memory_kib", "passes", "salt")

    def __init__(self, memory_kib: int, passes: int, lanes: int, salt: bytes, digest: bytes) -> None:
        self.memory_kib = memory_kib
        self.passes = passes
        self.lanes = lanes
        self.salt = salt
        self.digest = digest


def read_hash(phc: str) -> Argon2Hash:
    """Read a PHC string. Raises PasswordHashError for another form and for parameters out of bounds."""
    match = _PHC.fullmatch(phc)
    if match is None:
        raise PasswordHashError("not of the form $argon2id$v=19$m=...,t=...,p=...$salt$hash")
    memory_kib, passes, lanes = int(match[1]), int(match[2]), int(match[3])
    for name, value, bound in (
        ("m", memory_kib, MAX_MEMORY_KIB),
        ("t", passes, MAX_PASSES),
        ("p", lanes, MAX_LANES),
    ):
        if value > bound:
            raise PasswordHashError(f"{name}={value} is more work than a check may be; the limit is {bound}")
    if memory_kib < 8 * lanes:  # RFC 9106 section 3.1
        raise PasswordHashError(f"m={memory_kib} is less than 8 for each of {lanes} lanes")
    salt, digest = _from_base64(match[4]), _from_base64(match[5])
    if len(salt) < MIN_SALT_BYTES:
        raise PasswordHashError(f"its salt is shorter than {MIN_SALT_BYTES} bytes")
    if len(digest) < MIN_HASH_BYTES:
        raise PasswordHashError(f"its hash is shorter than {MIN_HASH_BYTES} bytes")
    return Argon2Hash(memory_kib, passes, lanes, salt, digest)


def hash_problem(phc: str) -> str:
    """Return why a text cannot be a stored password hash, or ""."""
    try:
        read_hash(phc)
    except PasswordHashError as error:
        return str(error)
    return ""


def verify_password(phc: str, password: bytes) -> bool:
    """Tell whether `password` is the one of a hash; False also for a hash that `read_hash` does not take."""
    try:
        stored = read_hash(phc)
    except PasswordHashError:
        return False
    made = _derive(password, stored.memory_kib, stored.passes, stored.lanes, stored.salt, len(stored.digest))
    return compare_digest(made, stored.digest)


def hash_password(password: bytes, salt: bytes) -> str:
    """Return the PHC string of a password: what a document holds."""
    digest = _derive(password, MEMORY_KIB, PASSES, LANES, salt, HASH_BYTES)
    return _phc(salt, digest)


def new_hash(password: bytes) -> str:
    """Return the PHC string of a password with a fresh salt."""
    return hash_password(password, secrets.token_bytes(SALT_BYTES))


def new_password() -> str:
    """Make a password: 138 random bits, easy to read aloud and to copy."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_LENGTH)) for _ in range(_GROUPS))


def _derive(password: bytes, memory_kib: int, passes: int, lanes: int, salt: bytes, length: int) -> bytes:
    return Argon2id(salt=salt, length=length, iterations=passes, lanes=lanes, memory_cost=memory_kib).derive(
        password
    )


def _phc(salt: bytes, digest: bytes) -> str:
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${_to_base64(salt)}${_to_base64(digest)}"


def _to_base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def _from_base64(text: str) -> bytes:
    try:
        data = a2b_base64(text + "=" * (-len(text) % 4))
    except Base64Error:
        raise PasswordHashError("its salt or hash is not base64") from None
    if _to_base64(data) != text:
        raise PasswordHashError("its salt or hash is not base64 in the one form that counts")
    return data


NOBODYS_HASH = _phc(secrets.token_bytes(SALT_BYTES), secrets.token_bytes(HASH_BYTES))
"""A hash of no password, for the work that an unknown username costs where nobody is known."""

_STAND_INS = 64
_stand_in_key = secrets.token_bytes(32)


def hashes_to_try(user: User | None, now: float) -> tuple[str, ...]:
    """Return the hashes that a password of `user` is compared with, at least one whoever it is.

    Nobody's hash, and the hash of a password whose time is over, are there for the work alone: `identity_of` gives
    nothing for them.
    """
    if user is None:
        return (NOBODYS_HASH,)
    live = tuple(phc for phc, identity in user.passwords if identity.expires_at > now)
    return live or (user.passwords[0][0],)


def identity_of(user: User | None, phc: str, now: float) -> Identity | None:
    """Return what the password with this hash gives `user` now: None if it is not one of theirs, or is over."""
    if user is None:
        return None
    for own, identity in user.passwords:
        if own == phc and identity.expires_at > now:
            return identity
    return None


def stand_in(users: Mapping[bytes, User], username: bytes) -> User | None:
    """Return whose hashes an unknown username is compared with, so that it costs what known ones cost.

    Hashes brought from elsewhere may cost more than ours, and some users have two passwords for a while. A name always
    meets the same user while the users stay the same, so that its cost does not change as chance would.
    """
    if not users:
        return None
    number = int.from_bytes(blake2b(username, key=_stand_in_key, digest_size=4).digest(), "big")
    return next(islice(users.values(), number % min(len(users), _STAND_INS), None))
