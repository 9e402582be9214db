"""A response head from a backend: read once, refused where its framing is in any doubt. Sans-IO.

RFC 9112 section 6.3 from the side of a proxy: a response whose length two readers could see
differently is an upstream_protocol_error, never repaired.
"""

from __future__ import annotations

import re
from typing import Final

from authgate_fast.http.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    END_TO_END,
    KEEP_ALIVE,
    TRANSFER_ENCODING,
    UPGRADE,
    classify_response,
    connection_options,
    lower,
    response_codes,
)

# The parser leaves white space behind a value, which is not part of it (RFC 9110 section 5.5).
_LENGTH: Final = re.compile(rb"[0-9]{1,18}[ \t]*")
_BEFORE_COOKIE_NAME: Final = b" \t="
_KEEP_ALIVE_LINE: Final = b"\r\nConnection: keep-alive\r\n"
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:.*[, ])?timeout=([0-9]{1,6})(?:[, ].*)?")

_NOT_NOMINATED: Final = {
    b"content-length",
    b"transfer-encoding",
    b"set-cookie",
    b"content-type",
    b"content-encoding",
    b"date",
    b"vary",
    b"cache-control",
}


_SHARING: Final = {b"private", b"no-store", b"public", b"s-maxage", b"must-revalidate"}
"""Directives by which a response says itself whether caches that several users share may keep it."""

OWN_COOKIES: Final = b"AUTHGATE_BFF_"
"""How the names of all cookies begin that a BFF gateway itself sets. No backend may, of whatever gateway: with a Domain
a cookie reaches the other gateways of that domain."""


def keep_alive_timeout(value: bytes) -> int:
    """Return the seconds that a Keep-Alive value announces (RFC 2068 section 19.7.1.1), or -1."""
    match = _KEEP_ALIVE_TIMEOUT.fullmatch(lower(value))
    return -1 if match is None else int(match.group(1))  # 1 to 6 ASCII digits


class ResponseHead:
    """One response head.

    ``block`` holds the end-to-end field lines as they go to the client, with a CRLF before the first and
    after the last; Content-Length is among them where it was given. ``content_length`` is -1 when there
    is none. ``keep_alive_s`` is what the backend announces in ``Keep-Alive: timeout=`` (-1: nothing).
    ``may_upgrade``: its Connection names upgrade; ``upgrade`` is what its Upgrade says, b"" if it has several.
    ``own_cookies``: the block may set a cookie of the gateway's own (`has_own_cookies`). ``error`` says what is wrong,
    or is None. ``sharing`` is what `says_who_may_cache` found, None until somebody asks.
    """

    __slots__ = (
        "block",
        "chunked",
        "close",
        "content_length",
        "error",
        "has_date",
        "keep_alive_s",
        "may_upgrade",
        "minor",
        "own_cookies",
        "sharing",
        "status",
        "upgrade",
    )

    def __init__(self, status: int, minor: int) -> None:
        self.status = status
        self.minor = minor
        self.block = b"\r\n"
        self.content_length = -1
        self.chunked = False
        self.close = minor == 0
        self.has_date = False
        self.keep_alive_s = -1
        self.own_cookies = False
        self.sharing: bool | None = None
        self.error: str | None = None
        self.may_upgrade = False
        self.upgrade: bytes | None = None

    def read(self, special: list[tuple[bytes, bytes]], block: bytes) -> None:
        """Read the head whose field lines were received as `block`.

        `special` are the fields whose name may mean something to a proxy. The rest goes on as it came: the
        parser has checked every line, so only the lines that must go are cut out. Where a line is not
        found as the parser gave it, each line is looked at.
        """
        received = block
        rewrite = False
        dropped: list[tuple[bytes, bytes]] = []
        nominated: set[bytes] = set()
        for name, value in special:
            code = response_codes(name)
            if code is None:
                code = classify_response(name)
            if code == DATE:
                self.has_date = True
            elif code == CONTENT_LENGTH:
                if self.content_length != -1 or _LENGTH.fullmatch(value) is None:
                    self.error = "a doubled or malformed Content-Length"
                    return
                self.content_length = int(value)  # plain ASCII digits, checked above
            elif value == b"keep-alive" and name == b"Connection":
                size = len(block)
                block = block.replace(_KEEP_ALIVE_LINE, b"\r\n", 1)
                rewrite = rewrite or len(block) == size
            elif code:
                dropped.append((name, value))
                self._read_hop(code, value, nominated)
        if self.chunked and self.content_length != -1:
            self.error = "Content-Length together with Transfer-Encoding"
            return
        if nominated or (self._may_not_have_length() and self.content_length != -1):
            rewrite = True
        for name, value in dropped:
            size = len(block)
            block = block.replace(b"\r\n%b: %b\r\n" % (name, value), b"\r\n", 1)
            rewrite = rewrite or len(block) == size
        self.block = self._rewritten(received, nominated) if rewrite else block
        self.own_cookies = has_own_cookies(self.block)

    def says_who_may_cache(self) -> bool:
        """Do what the function does for ``block``, once: a head that a backend repeats is one object."""
        if self.sharing is None:
            self.sharing = says_who_may_cache(self.block)
        return self.sharing

    def _read_hop(self, code: int, value: bytes, nominated: set[bytes]) -> None:
        if code == CONNECTION:
            if value == b"keep-alive":
                return
            for option in connection_options(value):
                if option == b"close":
                    self.close = True
                elif option == b"upgrade":
                    self.may_upgrade = True
                elif option != b"keep-alive" and option not in _NOT_NOMINATED:
                    nominated.add(option)
        elif code == TRANSFER_ENCODING:
            if self.chunked or self.minor == 0 or lower(value.strip(b" \t")) != b"chunked":
                self.error = "a Transfer-Encoding other than one 'chunked' on HTTP/1.1"
            self.chunked = True
        elif code == UPGRADE:
            self.upgrade = value.strip(b" \t") if self.upgrade is None else b""
        elif code == KEEP_ALIVE:
            timeout_s = keep_alive_timeout(value)
            if timeout_s >= 0:
                self.keep_alive_s = timeout_s

    def _rewritten(self, block: bytes, nominated: set[bytes]) -> bytes:
        lines = [b""]
        for line in block.removeprefix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n"):
            name = line.partition(b":")[0]
            code = classify_response(name)
            stays = code in (END_TO_END, DATE) or (code == CONTENT_LENGTH and not self._may_not_have_length())
            if stays and lower(name) not in nominated:
                lines.append(line)
        return b"\r\n".join([*lines, b""])

    def _may_not_have_length(self) -> bool:
        """RFC 9110 section 8.6: no Content-Length in a 1xx or 204, or a client may wait for a body."""
        return self.status == 204 or self.status < 200

    def has_no_body(self, method: bytes) -> bool:
        """RFC 9112 section 6.3, rule 1: these end with their head, whatever their fields say."""
        return method == b"HEAD" or self.status in (204, 304) or self.status < 200

    def expects(self, size: int) -> bool:
        """Tell whether `size` bytes behind the head can only be body, without looking into them."""
        if self.chunked or self.status in (204, 304) or self.status < 200:
            return False
        return self.content_length < 0 or size <= self.content_length


def has_own_cookies(block: bytes) -> bool:
    """Tell whether a `ResponseHead.block` may set a cookie of the gateway's own: if so, its lines are looked at."""
    # Not `in`: that takes the bytes for a number first, and costs three times as much.
    return block.find(OWN_COOKIES) >= 0


def without_own_cookies(block: bytes) -> bytes:
    """Return a `ResponseHead.block` without the Set-Cookie lines that would set a cookie of the gateway's own.

    Browsers trim a name, and send a cookie without one by its value alone (RFC 6265bis section 5.6): ``=NAME=x``
    would come back as ``NAME=x``. A backend that could set our session cookie could put a user into another's session.
    """
    lines = [b""]
    for line in block[2:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if lower(name) != b"set-cookie" or not value.lstrip(_BEFORE_COOKIE_NAME).startswith(OWN_COOKIES):
            lines.append(line)
    return b"\r\n".join([*lines, b""])


def says_who_may_cache(block: bytes) -> bool:
    """Tell whether a `ResponseHead.block` says if a shared cache may keep the response, although it is for one user.

    What RFC 9111 section 3.5 asks of a response to a request with Authorization. Of a line with a quoted argument
    nothing counts: ``private="..."`` is about single fields.
    """
    for line in lower(block).split(b"\r\n"):
        if line.startswith(b"cache-control:") and line.find(b'"') < 0:
            for directive in line.removeprefix(b"cache-control:").split(b","):
                name, equals, _ = directive.strip(b" \t").partition(b"=")
                if name.rstrip(b" \t") in _SHARING and (not equals or name == b"s-maxage"):
                    return True
    return False
