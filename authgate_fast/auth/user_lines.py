"""What the claims of a provider's user become for a backend: field lines, a set of roles. Pure.

Claims are text that somebody else wrote: whatever is not visible ASCII goes percent-encoded (RFC 3986
section 2.1), so no claim can begin another field line or pretend to be two roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_ROLES = 256
MAX_ROLE_BYTES = 128
"""As in the documents: a longer role could match nothing."""
MAX_ROLES_LINE_BYTES = 4_096
"""Backends take heads of 8 KiB or little more, and the token wants to come in too."""
MAX_SUBJECT_BYTES = 1_024
"""OpenID Connect Core section 2 allows 255 ASCII characters; encoded they may be more."""

_VISIBLE = frozenset(range(0x21, 0x7F)) - frozenset(b"%")
_VISIBLE_IN_LIST = _VISIBLE - frozenset(b",")


class UnusableClaimError(Exception):
    """A claim cannot be used; the text says which, for an operator."""


def subject_of(claims: Mapping[str, Any]) -> str:
    """Return ``sub``. Raises UnusableClaimError."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(_encoded(subject, _VISIBLE)) > MAX_SUBJECT_BYTES:
        raise UnusableClaimError("the provider names no usable subject (sub)")
    return subject


def roles_of(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Return the roles that stand at `path`, such as ``roles`` or ``realm_access.roles``, each once.

    A claim whose whole name is `path` comes first: names that are URLs have dots of their own.
    """
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            if not isinstance(value, Mapping):
                return ()
            value = value.get(name)
    if isinstance(value, str):
        value = value.split(" ")
    if not isinstance(value, list):
        return ()
    roles = [role for role in value if isinstance(role, str) and 0 < len(role.encode()) <= MAX_ROLE_BYTES]
    return tuple(dict.fromkeys(roles))[:MAX_ROLES]


def user_lines(subject: str, roles: tuple[str, ...], client_id: str) -> bytes:
    """Return X-User-Id, X-User-Roles (if there are roles that fit) and X-Client-Id as field lines."""
    lines = b"X-User-Id: %b\r\n" % _encoded(subject, _VISIBLE)
    listed = b""
    for role in roles:
        more = (b"," if listed else b"") + _encoded(role, _VISIBLE_IN_LIST)
        if len(listed) + len(more) > MAX_ROLES_LINE_BYTES:
            break
        listed += more
    if listed:
        lines += b"X-User-Roles: %b\r\n" % listed
    return lines + b"X-Client-Id: %b\r\n" % _encoded(client_id, _VISIBLE)


def _encoded(text: str, kept: frozenset[int]) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"".join(b"%c" % byte if byte in kept else b"%%%02X" % byte for byte in raw)
