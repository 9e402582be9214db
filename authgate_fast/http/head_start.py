"""The beginning of a head: whether it can still become a good one. Sans-IO.

Each byte is looked at once, however the head drips in: a head that comes byte by byte must not cost time in the
square of its length.
"""

from __future__ import annotations

import re
from typing import Final

from authgate_fast.errors import Reason

# A line end that is not CRLF (RFC 9112 section 2.2: stricter), a control byte that no part of a head may have, or a
# first byte that begins no method.
_BARE_LINE_END = re.compile(
    rb"(?<!\r)\n|\r(?![\n])[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\A[^!#$%&'*+\-.^_`|~0-9A-Za-z\r]", re.DOTALL
)
_BARE_LINE_END_IN_RESPONSE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")
_REQUEST_LINE_EXTRA: Final = 64  # a method, two spaces, a version and the end of the line are never longer


def start_problem(data: bytes, looked_at: int, max_head_bytes: int, max_target_bytes: int) -> Reason | None:
    """Return why the beginning of a head must be refused already, or None. Its first `looked_at` bytes were good.

    What comes first decides, so that the answer is the same however the bytes were cut into reads: behind a limit
    nothing is looked at any more.
    """
    reason: Reason | None = None
    end = max_head_bytes
    if is_line_too_long(data, max_target_bytes):
        reason = Reason.TARGET_TOO_LONG
        end = min(end, max_target_bytes + _REQUEST_LINE_EXTRA)
    elif len(data) > max_head_bytes:
        reason = Reason.HEAD_TOO_LARGE
    if _BARE_LINE_END.search(data, max(looked_at - 1, 0), end):
        return Reason.BAD_REQUEST
    return reason


def is_line_too_long(data: bytes, max_target_bytes: int) -> bool:
    """Tell whether the request line at the beginning of `data` is longer than any that can be served."""
    most = max_target_bytes + _REQUEST_LINE_EXTRA
    return len(data) > most and data.find(b"\n", 0, most) == -1


def new_first_line(data: bytes, looked_at: int) -> bytes:
    """Return the request line with its CRLF if it has become whole behind the first `looked_at` bytes, else b""."""
    end = data.find(b"\r\n")
    return data[: end + 2] if end + 1 >= max(looked_at, 1) else b""


def response_start_problem(data: bytes, looked_at: int, max_head_bytes: int) -> str | None:
    """Return what is wrong with a backend's unfinished head already, or None. Its first `looked_at` bytes were good.

    A backend that ends its lines in a bare LF would otherwise be waited for until it times out.
    """
    if len(data) > max_head_bytes:
        return "a response head over max_head_bytes"
    if not data.startswith(b"HTTP/1."[: len(data)]):
        return "bytes that are not HTTP/1.x"
    if _BARE_LINE_END_IN_RESPONSE.search(data, max(looked_at - 1, 0)):
        return "a line of the response head does not end in CRLF"
    return None
