"""Users with passwords for tests, whose hashes cost next to nothing to check."""

from __future__ import annotations

from base64 import b64encode
from functools import cache

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from authgate_fast.snapshot import Identity, User

SALT = b"salt-of-all-tests"


@cache
def cheap_hash(password: str, passes: int = 1) -> str:
    """Return a PHC string with the least that Argon2id can be asked for."""
    digest = Argon2id(salt=SALT, length=32, iterations=passes, lanes=1, memory_cost=8).derive(
        password.encode()
    )
    salt_text, digest_text = (b64encode(data).rstrip(b"=").decode() for data in (SALT, digest))
    return f"$argon2id$v=19$m=8,t={passes},p=1${salt_text}${digest_text}"


def user(
    consumer: str,
    *hashes: str,
    username: str = "",
    roles: tuple[str, ...] = (),
    expires_at: float = float("inf"),
    ends: tuple[float, ...] = (),
) -> User:
    """Make a user; `ends` are the ends of its passwords, which are called default, p1, p2..."""
    lines = f"X-Consumer-Id: {consumer}\r\n"
    if roles:
        lines += f"X-Consumer-Roles: {','.join(roles)}\r\n"
    passwords = []
    for index, phc in enumerate(hashes):
        password_id = f"p{index}" if index else "default"
        end = min(ends[index] if index < len(ends) else expires_at, expires_at)
        own = f"{lines}X-Credential-Id: {password_id}\r\n".encode()
        name = (username or consumer).encode()
        passwords.append(
            (phc, Identity(consumer, password_id, frozenset(roles), end, own, name=name, secret=phc))
        )
    return User(
        consumer,
        (username or consumer).encode(),
        tuple(passwords),
        frozenset(roles),
        expires_at,
        lines.encode(),
    )
