"""Leaving HTTP on a connection (RFC 9110 section 7.8): who asks for it, who may, who grants it. Sans-IO.

An Upgrade is an offer that may always be ignored, so whatever is not exactly one plain request for one protocol is
ignored; a response that switches is judged the other way round: anything odd about it is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from authgate_fast.http.fields import connection_options, lower

if TYPE_CHECKING:
    from collections.abc import Collection

    from authgate_fast.http.request import RequestHead
    from authgate_fast.http.response import ResponseHead

WEBSOCKET: Final = b"websocket"
_protocol: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64})?"
).fullmatch


def wanted_protocol(head: RequestHead, value: bytes) -> bytes:
    """Return the protocol that a request asks to switch to, as it spells it, or b"": there is nothing to switch.

    `value` is that of its one Upgrade field. Stricter than RFC 9110 section 7.8: no lists, so that there is no choice
    to make; GET only (RFC 6455 section 4.1) and without a body, so that what follows the head is never two things;
    HTTP/1.0 has no upgrade (here it always wants to close). A client that also wants to close, or to be told to go on,
    is not sure what it wants.
    """
    value = value.strip(b" \t")
    if head.method != b"GET" or head.chunked or head.content_length > 0:
        return b""
    if head.close or head.expect_continue or _protocol(value) is None:
        return b""
    for name, options in head.fields:
        if lower(name) == b"connection" and b"upgrade" in connection_options(options):
            return value
    return b""


def is_allowed(protocol: bytes, allowed: Collection[bytes]) -> bool:
    """Tell whether a route's list allows a protocol: by its name alone, or with the version that it lists."""
    protocol = lower(protocol)
    name, slash, _ = protocol.partition(b"/")
    if name == WEBSOCKET:
        return not slash and name in allowed  # RFC 6455 section 4.1: its version has a field of its own
    return name in allowed or protocol in allowed


def upgrade_lines(protocol: bytes) -> bytes:
    """Return the two field lines of a message that switches to a protocol, or asks for it."""
    if lower(protocol) == WEBSOCKET:
        protocol = WEBSOCKET
    return b"Connection: upgrade\r\nUpgrade: %b\r\n" % protocol


def switch_problem(protocol: bytes, response: ResponseHead) -> str:
    """Return why a 101 does not switch to the `protocol` that was asked for, or ""."""
    if not protocol:
        return "a 101 response that nobody asked for"
    if response.minor == 0:
        return "a 101 response of HTTP/1.0, which has no upgrade"
    if not response.may_upgrade or response.upgrade is None:
        return "a 101 response without `Connection: upgrade` and one Upgrade field"
    if lower(response.upgrade) != lower(protocol):
        return "a 101 response that switches to another protocol"
    if response.chunked or response.content_length != -1:
        return "a 101 response with a body"  # RFC 9112 section 6.3: it has none, and its sender is confused
    return ""
