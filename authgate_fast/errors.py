"""Every refusal the gateway itself can answer: one enum, one table.

The table is the source of the problem responses (RFC 9457), of the log levels and of the table in
the README, which a test keeps equal to this one. A code, once published, never changes its meaning.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Blame(enum.Enum):
    """Whose fault a refusal is; decides the log level an operator sees."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Reason(enum.Enum):
    """Why the gateway answered a request by itself. The value is the public ``code``."""

    BAD_REQUEST = "bad_request"
    INVALID_PATH = "invalid_path"
    INVALID_HOST = "invalid_host"
    LOGIN_FAILED = "login_failed"
    CREDENTIALS_MISSING = "credentials_missing"
    CREDENTIALS_INVALID = "credentials_invalid"
    FORBIDDEN = "forbidden"
    CSRF_REJECTED = "csrf_rejected"
    GATEWAY_NOT_FOUND = "gateway_not_found"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    TARGET_TOO_LONG = "target_too_long"
    EXPECTATION_FAILED = "expectation_failed"
    TOO_MANY_FAILURES = "too_many_failures"
    HEAD_TOO_LARGE = "head_too_large"
    INTERNAL_ERROR = "internal_error"
    METHOD_NOT_IMPLEMENTED = "method_not_implemented"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    SERVICE_NOT_CONFIGURED = "service_not_configured"
    OVERLOADED = "overloaded"
    AUTH_UNAVAILABLE = "auth_unavailable"
    NOT_READY = "not_ready"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    VERSION_NOT_SUPPORTED = "version_not_supported"
    LOOP_DETECTED = "loop_detected"


@dataclass(frozen=True, slots=True)
class Row:
    """What one reason means to a client and to an operator.

    ``closes`` says that the connection cannot be trusted after it. ``retryable`` says that the same
    request may succeed later without a change by the client. ``retry_after_s`` is sent as
    ``Retry-After`` (0: no such field).
    """

    reason: Reason
    status: int
    title: str
    detail: str
    blame: Blame
    retryable: bool = False
    closes: bool = False
    retry_after_s: int = 0


_CLIENT, _GATEWAY, _UPSTREAM = Blame.CLIENT, Blame.GATEWAY, Blame.UPSTREAM

TABLE: dict[Reason, Row] = {
    row.reason: row
    for row in (
        Row(
            Reason.BAD_REQUEST,
            400,
            "Bad Request",
            "The request is not well-formed HTTP/1.1, or it can be read in more than one way.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.INVALID_PATH,
            400,
            "Bad Request",
            "The path holds something that two servers may read differently, such as dot segments "
            "or an encoded slash.",
            _CLIENT,
        ),
        Row(
            Reason.INVALID_HOST,
            400,
            "Bad Request",
            "The request needs exactly one valid Host field, equal to the target's authority if it has one.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.LOGIN_FAILED,
            400,
            "Bad Request",
            "The login could not be completed; start it again.",
            _CLIENT,
            retryable=True,
        ),
        Row(
            Reason.CREDENTIALS_MISSING,
            401,
            "Unauthorized",
            "This route needs a credential.",
            _CLIENT,
        ),
        Row(
            Reason.CREDENTIALS_INVALID,
            401,
            "Unauthorized",
            "The credential was not accepted.",
            _CLIENT,
        ),
        Row(
            Reason.FORBIDDEN,
            403,
            "Forbidden",
            "The credential is good, but it is not allowed to use this route.",
            _CLIENT,
        ),
        Row(
            Reason.CSRF_REJECTED,
            403,
            "Forbidden",
            "A request that changes something must come from this site's own pages.",
            _CLIENT,
        ),
        Row(
            Reason.GATEWAY_NOT_FOUND,
            404,
            "Not Found",
            "No gateway serves this host.",
            _CLIENT,
        ),
        Row(
            Reason.ROUTE_NOT_FOUND,
            404,
            "Not Found",
            "No route of this gateway matches the path.",
            _CLIENT,
        ),
        Row(
            Reason.METHOD_NOT_ALLOWED,
            405,
            "Method Not Allowed",
            "The path exists, but not for this method; Allow lists the methods it has.",
            _CLIENT,
        ),
        Row(
            Reason.REQUEST_TIMEOUT,
            408,
            "Request Timeout",
            "The request did not arrive in time.",
            _CLIENT,
            retryable=True,
            closes=True,
        ),
        Row(
            Reason.BODY_TOO_LARGE,
            413,
            "Content Too Large",
            "The request body is over the limit of this route.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.TARGET_TOO_LONG,
            414,
            "URI Too Long",
            "The request target is over the limit.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.EXPECTATION_FAILED,
            417,
            "Expectation Failed",
            "The only expectation this gateway can meet is 100-continue.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.TOO_MANY_FAILURES,
            429,
            "Too Many Requests",
            "Too many failed attempts; wait before the next one.",
            _CLIENT,
            retryable=True,
            retry_after_s=1,
        ),
        Row(
            Reason.HEAD_TOO_LARGE,
            431,
            "Request Header Fields Too Large",
            "The request head has too many bytes or too many fields.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.INTERNAL_ERROR,
            500,
            "Internal Server Error",
            "The gateway made a mistake; the log has it under this request id.",
            _GATEWAY,
            closes=True,
        ),
        Row(
            Reason.METHOD_NOT_IMPLEMENTED,
            501,
            "Not Implemented",
            "The gateway does not implement this method.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.UPSTREAM_UNREACHABLE,
            502,
            "Bad Gateway",
            "The backend could not be reached, or it closed the connection without an answer.",
            _UPSTREAM,
            retryable=True,
        ),
        Row(
            Reason.UPSTREAM_PROTOCOL_ERROR,
            502,
            "Bad Gateway",
            "The backend's answer is not well-formed HTTP.",
            _UPSTREAM,
        ),
        Row(
            Reason.SERVICE_NOT_CONFIGURED,
            503,
            "Service Unavailable",
            "The route's service is missing or switched off.",
            _GATEWAY,
            retryable=True,
            retry_after_s=5,
        ),
        Row(
            Reason.OVERLOADED,
            503,
            "Service Unavailable",
            "The gateway has as much work as it can take.",
            _GATEWAY,
            retryable=True,
            retry_after_s=1,
        ),
        Row(
            Reason.AUTH_UNAVAILABLE,
            503,
            "Service Unavailable",
            "The credential cannot be checked at the moment.",
            _GATEWAY,
            retryable=True,
            retry_after_s=1,
        ),
        Row(
            Reason.NOT_READY,
            503,
            "Service Unavailable",
            "The gateway has no configuration yet.",
            _GATEWAY,
            retryable=True,
            retry_after_s=1,
        ),
        Row(
            Reason.UPSTREAM_TIMEOUT,
            504,
            "Gateway Timeout",
            "The backend did not answer in time.",
            _UPSTREAM,
            retryable=True,
        ),
        Row(
            Reason.VERSION_NOT_SUPPORTED,
            505,
            "HTTP Version Not Supported",
            "The gateway speaks HTTP/1.1 and HTTP/1.0.",
            _CLIENT,
            closes=True,
        ),
        Row(
            Reason.LOOP_DETECTED,
            508,
            "Loop Detected",
            "The request has passed through gateways of this kind too often: a backend leads back to one of them.",
            _GATEWAY,
            closes=True,
        ),
    )
}


def markdown_table() -> str:
    """Return the table as the README shows it."""
    lines = ["| status | code | retry may help | meaning |", "| --- | --- | --- | --- |"]
    for row in TABLE.values():
        again = "yes" if row.retryable else "no"
        lines.append(f"| {row.status} | `{row.reason.value}` | {again} | {row.detail} |")
    return "\n".join(lines) + "\n"
