"""Responses that the gateway makes itself: problem details (RFC 9457) and the few plain ones."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import orjson

from authgate_fast.errors import TABLE, Reason


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


STATUS_LINES: Final[dict[int, bytes]] = {
    status: f"HTTP/1.1 {status} {_reason_phrase(status)}\r\n".encode("ascii") for status in range(100, 1000)
}
"""The status line for every three-digit code; the reason phrase is the registered one, or empty."""

STATUS_STARTS: Final[dict[int, bytes]] = {status: line[:-2] for status, line in STATUS_LINES.items()}
"""The same without CRLF, for heads whose field block begins with one."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def problem_response(
    reason: Reason,
    *,
    request_id: bytes,
    date_line: bytes,
    detail: str | None = None,
    extra_lines: bytes = b"",
    retry_after_s: int = 0,
    close: bool,
    with_body: bool = True,
) -> bytes:
    """Build the complete response for `reason`.

    `extra_lines` are complete field lines (``Allow``, ``WWW-Authenticate``). `with_body` is false for
    HEAD: the fields stay, the body goes. `close` adds ``Connection: close``. `retry_after_s` replaces the
    table's value.
    """
    row = TABLE[reason]
    body = orjson.dumps(
        {
            "type": "about:blank",
            "title": row.title,
            "status": row.status,
            "code": reason.value,
            "detail": detail or row.detail,
            "request_id": request_id.decode("ascii"),
        }
    )
    wait_s = retry_after_s or row.retry_after_s
    retry_after = b"Retry-After: %d\r\n" % wait_s if wait_s else b""
    head = b"".join(
        (
            STATUS_LINES[row.status],
            b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n",
            b"Content-Length: %d\r\n" % len(body),
            retry_after,
            extra_lines,
            b"X-Request-ID: %b\r\n" % request_id,
            date_line,
            b"Connection: close\r\n\r\n" if close else b"\r\n",
        )
    )
    return head + body if with_body else head


def own_response(
    status: int,
    lines: bytes,
    body: bytes = b"",
    *,
    request_id: bytes,
    date_line: bytes,
    close: bool,
    with_body: bool = True,
) -> bytes:
    """Build an answer of the gateway's own that is no error: `lines` are its field lines without the length."""
    no_length = status == 204  # RFC 9110 section 8.6
    head = b"".join(
        (
            STATUS_LINES[status],
            lines,
            b"" if no_length else b"Content-Length: %d\r\n" % len(body),
            b"X-Request-ID: %b\r\n" % request_id,
            date_line,
            b"Connection: close\r\n\r\n" if close else b"\r\n",
        )
    )
    return head + body if with_body and not no_length else head
