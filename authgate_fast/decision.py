"""What the plan can decide about a request, and what it knows of the client. Pure data."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from authgate_fast.http.fields import FORWARDED_FOR
from authgate_fast.http.proxy_header import UNKNOWN

if TYPE_CHECKING:
    from authgate_fast.auth.failures import FailureGuard
    from authgate_fast.auth.interface import Lookup, Presented
    from authgate_fast.errors import Reason
    from authgate_fast.http.request import RequestHead
    from authgate_fast.http.trace_context import Tracing
    from authgate_fast.snapshot import Gateway, Identity, Route, Service, Snapshot, Target

UNIX: Final = "unix:"
"""The address of a client that came in by a Unix socket, in ``trusted_proxies`` too (nginx's word)."""
NAMELESS: Final = frozenset((UNIX, UNKNOWN))
"""Addresses that are none: no X-Forwarded-For is made of them, for backends read addresses there."""


class Client:
    """What a connection remembers of its peer between requests.

    ``address`` is the peer's IP as text, or one of `NAMELESS`; ``guard`` counts failed checks (None: nobody does);
    ``certificate_lines`` tell the backend of the client's certificate; ``tracing`` says what is done with traces (None:
    valid fields are passed on). The rest caches the gateway of the last Host, so that a kept-alive client pays for the
    look-up once per snapshot.
    """

    __slots__ = (
        "address",
        "certificate_lines",
        "forwarded_lines",
        "gateway",
        "guard",
        "host",
        "scheme",
        "snapshot",
        "tracing",
        "trusted",
    )

    def __init__(self, address: str, scheme: bytes = b"http", guard: FailureGuard | None = None) -> None:
        self.address = address
        self.scheme = scheme
        self.guard = guard
        self.certificate_lines = b""
        self.tracing: Tracing | None = None
        self.snapshot: Snapshot | None = None
        self.host: bytes | None = None
        self.gateway: Gateway | None = None
        self.trusted = False
        self.forwarded_lines = b""

    def guess_wait_s(self, head: RequestHead, account: bytes, now: float) -> int:
        """Return 0, or for how many seconds no guess of this caller is worth the work of checking it."""
        if self.guard is None:
            return 0
        return self.guard.retry_after_s(caller_address(head, self), account, now)


def caller_address(head: RequestHead, client: Client) -> str:
    """Return the address of who sent a request: the peer's or, behind trusted proxies, the one they name.

    That is the first untrusted address from the right of X-Forwarded-For; what stands left of it is hearsay.
    """
    gateway = client.gateway
    if not client.trusted or gateway is None or head.forwarded is None:
        return client.address
    address = client.address
    for part in reversed(head.forwarded.get(FORWARDED_FOR, b"").split(b",")):
        text = part.strip(b" \t").decode("latin-1")
        try:
            ip = ip_address(text)
        except ValueError:
            return address
        address = text
        if not any(ip in network for network in gateway.trusted_proxies):
            return address
    return address


class HeadParts:
    """What of a head depends on the target, so that it can be written for another one.

    ``path`` is the backend's path without the target's base, ``tail`` the query with its ``?``; ``host_line`` is b""
    where the target's own counts. What is alike for all begins at ``rest_at``. ``hash_key`` is what the service
    hashes on, b"" without it.
    """

    __slots__ = ("hash_key", "host_line", "method", "path", "rest_at", "tail")

    def __init__(
        self, method: bytes, path: bytes, tail: bytes, host_line: bytes, rest_at: int, hash_key: bytes
    ) -> None:
        self.method = method
        self.path = path
        self.tail = tail
        self.host_line = host_line
        self.rest_at = rest_at
        self.hash_key = hash_key


class Forward:
    """Send the request on. ``head`` is the complete head for the backend, framing and empty line included.

    ``parts`` is there when the service is balanced: then ``target`` is not chosen yet, but the first of several.
    """

    __slots__ = ("gateway", "head", "identity", "parts", "request_id", "route", "service", "target")

    def __init__(
        self,
        gateway: Gateway,
        route: Route,
        service: Service,
        target: Target,
        identity: Identity | None,
        request_id: bytes,
        head: bytes,
        parts: HeadParts | None = None,
    ) -> None:
        self.gateway = gateway
        self.route = route
        self.service = service
        self.target = target
        self.identity = identity
        self.request_id = request_id
        self.head = head
        self.parts = parts

    def aim_at(self, target: Target) -> None:
        """Write the head for `target`."""
        parts = self.parts
        if parts is None or target is self.target:
            return
        self.target = target
        rest = self.head[parts.rest_at :]
        start = b"%b %b%b HTTP/1.1\r\n%b" % (
            parts.method,
            target.base_path + parts.path or b"/",
            parts.tail,
            parts.host_line or target.host_line,
        )
        parts.rest_at = len(start)
        self.head = start + rest


class Refusal:
    """Answer with an error of the table.

    ``extra_lines`` are complete field lines for the answer; ``why`` is for the operator only.
    ``retry_after_s`` replaces the table's value.
    """

    __slots__ = ("detail", "extra_lines", "gateway", "reason", "request_id", "retry_after_s", "route", "why")

    def __init__(
        self,
        reason: Reason,
        request_id: bytes,
        *,
        detail: str | None = None,
        extra_lines: bytes = b"",
        gateway: Gateway | None = None,
        route: Route | None = None,
        why: str = "",
        retry_after_s: int = 0,
    ) -> None:
        self.reason = reason
        self.request_id = request_id
        self.detail = detail
        self.extra_lines = extra_lines
        self.gateway = gateway
        self.route = route
        self.why = why
        self.retry_after_s = retry_after_s


class Allowed:
    """Answer OPTIONS with 204 and this ``Allow``."""

    __slots__ = ("allow", "request_id")

    def __init__(self, allow: bytes, request_id: bytes) -> None:
        self.allow = allow
        self.request_id = request_id


class Redirect:
    """Answer 302 with this ``Location``."""

    __slots__ = ("location", "request_id")

    def __init__(self, location: bytes, request_id: bytes) -> None:
        self.location = location
        self.request_id = request_id


class Local:
    """One of the gateway's own endpoints (``/auth/*``, ``/bff/*``) answers. ``query`` is raw, without its ``?``."""

    __slots__ = ("client", "endpoint", "gateway", "head", "query", "request_id")

    def __init__(
        self,
        gateway: Gateway,
        endpoint: bytes,
        head: RequestHead,
        query: bytes,
        client: Client,
        request_id: bytes,
    ) -> None:
        self.gateway = gateway
        self.endpoint = endpoint
        self.head = head
        self.query = query
        self.client = client
        self.request_id = request_id


class Pending:
    """The route is known, the caller is not yet: `lookup` says what is to be found out for `finish`.

    ``path`` is the backend's path without the target's base, ``tail`` the query with its ``?``.
    """

    __slots__ = ("client", "gateway", "head", "lookup", "path", "presented", "request_id", "route", "tail")

    def __init__(
        self,
        gateway: Gateway,
        route: Route,
        head: RequestHead,
        path: bytes,
        tail: bytes,
        client: Client,
        request_id: bytes,
        presented: Presented,
        lookup: Lookup,
    ) -> None:
        self.gateway = gateway
        self.route = route
        self.head = head
        self.path = path
        self.tail = tail
        self.client = client
        self.request_id = request_id
        self.presented = presented
        self.lookup = lookup


class Reply:
    """What one of the gateway's own endpoints answers.

    ``lines`` are complete field lines, Content-Type among them where there is a body; the length is added.
    """

    __slots__ = ("body", "lines", "status")

    def __init__(self, status: int, lines: bytes = b"", body: bytes = b"") -> None:
        self.status = status
        self.lines = lines
        self.body = body


Plan = Forward | Refusal | Allowed | Redirect | Local | Pending
