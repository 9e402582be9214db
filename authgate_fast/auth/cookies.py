"""The cookies of a BFF gateway: read from requests, taken out of them, written (RFC 6265). Pure, in linear time.

Of a Cookie field only the gateway's own names mean anything here; what is malformed is ignored, never repaired. A name
that stands twice is told as such: a sibling host can set a cookie for the whole domain ("tossing"), and which of the
two is ours cannot be seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Presented

OWN_PREFIX: Final = b"AUTHGATE_BFF_"
SESSION_COOKIE: Final = b"AUTHGATE_BFF_SESSION"
LOGIN_PREFIX: Final = b"AUTHGATE_BFF_LOGIN_"
"""One cookie for each login under way, so that several tabs can log in at once."""
CALLBACK_PATH: Final = b"/bff/callback"
LOGIN_TTL_S: Final = 600
SECRET_LENGTH: Final = 43
"""256 bits in base64url."""
TWICE: Final = b"\x00"
"""What `own_cookie` returns for a name that stands twice; no cookie can hold it."""

_SESSION_START: Final = b"AUTHGATE_BFF_SESSION="
_SECRET: Final = re.compile(rb"[A-Za-z0-9_-]{43}")


def session_cookie(presented: Presented) -> bytes | None:
    """Return the value of the session cookie, None without one, `TWICE` if there are several."""
    if len(presented) == 1:
        name, value = presented[0]
        if name == b"cookie" and value.startswith(_SESSION_START) and _is_one_cookie(value):
            return value[len(_SESSION_START) :]  # the usual case: no other cookie
    return own_cookie(presented, SESSION_COOKIE)


def session_cookies(presented: Presented) -> list[bytes]:
    """Return the values of the session cookie that could be one of ours, each once: junk must not hide one that is."""
    found: dict[bytes, None] = {}
    for name, value in presented:
        if name == b"cookie" and SESSION_COOKIE in value:
            for item in _values(value, SESSION_COOKIE):
                if is_secret(item):
                    found[item] = None
    return list(found)


def own_cookie(presented: Presented, wanted: bytes) -> bytes | None:
    """Return the value of one of the gateway's own cookies, None without it, `TWICE` if there are several."""
    found = [
        item
        for name, value in presented
        if name == b"cookie" and wanted in value
        for item in _values(value, wanted)
    ]
    if not found:
        return None
    return found[0] if len(found) == 1 else TWICE


def is_secret(value: bytes) -> bool:
    """Tell whether a value has the form of the secrets that are made here."""
    return len(value) == SECRET_LENGTH and _SECRET.fullmatch(value) is not None


def kept_cookie_lines(presented: Presented) -> bytes:
    """Return the Cookie lines without the gateway's own cookies; another credential field is not kept at all."""
    lines = b""
    for name, value in presented:
        if name != b"cookie" or (value.startswith(OWN_PREFIX) and _is_one_cookie(value)):
            continue  # the usual case: the gateway's own cookie and no other
        kept = _without_own(value) if OWN_PREFIX in value else value
        if kept:
            lines += b"Cookie: %b\r\n" % kept
    return lines


def set_session(secret: bytes, *, secure: bool) -> bytes:
    """Return the line that gives a browser its session: no Domain, so for this host alone."""
    return _set(SESSION_COOKIE, secret, b"/", None, secure=secure)


def clear_session(*, secure: bool) -> bytes:
    """Return the line that takes it away: the same attributes, or it would be another cookie."""
    return _set(SESSION_COOKIE, b"", b"/", 0, secure=secure)


def set_login(name: bytes, secret: bytes, *, secure: bool) -> bytes:
    """Return the line that binds a login to this browser; only the callback gets the cookie back."""
    return _set(name, secret, CALLBACK_PATH, LOGIN_TTL_S, secure=secure)


def clear_login(name: bytes, *, secure: bool) -> bytes:
    """Return the line that ends the binding."""
    return _set(name, b"", CALLBACK_PATH, 0, secure=secure)


def _set(name: bytes, value: bytes, path: bytes, max_age_s: int | None, *, secure: bool) -> bytes:
    return b"Set-Cookie: %b=%b; Path=%b%b; HttpOnly; SameSite=Lax%b\r\n" % (
        name,
        value,
        path,
        b"" if max_age_s is None else b"; Max-Age=%d" % max_age_s,
        b"; Secure" if secure else b"",
    )


def _without_own(field: bytes) -> bytes:
    parts = [part.strip(b" \t") for part in field.split(b";")]
    return b"; ".join([part for part in parts if part and not part.startswith(OWN_PREFIX)])


def _is_one_cookie(field: bytes) -> bool:
    # Not `find`: that reads its arguments by a format, which costs three times what it looks for here.
    return not field.partition(b";")[1]


def _values(field: bytes, wanted: bytes) -> list[bytes]:
    """Return the values of a cookie in one Cookie field (RFC 6265 section 4.2.1)."""
    values = []
    for part in field.split(b";"):
        if wanted in part:
            name, equals, value = part.strip(b" \t").partition(b"=")
            if equals and name == wanted:
                values.append(value)
    return values
