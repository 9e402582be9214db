"""The one funnel: what to do with a request head, decided by pure code.

`plan` takes a head, a snapshot and the time, and returns a `Forward` (to this service, with this
head), a `Refusal` (for this reason) or an `Allowed` (the gateway's own answer to OPTIONS). It opens
no socket and reads no clock, so `authgate explain` and the tests run the same decisions as the
request path. The order is CONVENTIONS section 1.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from authgate_fast.errors import Reason
from authgate_fast.http.fields import FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO
from authgate_fast.http.request import METHODS, RequestHead, normalise_host, split_absolute
from authgate_fast.routing.path_policy import query_is_clean, split_path
from authgate_fast.routing.template import build_path
from authgate_fast.snapshot import Credential, Gateway, Leaf, Route, Service, Snapshot, Target, find_gateway

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

SERVER_ALLOW = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""The answer to ``OPTIONS *``: what the gateway as a whole can pass on."""
PATH_MEMO_SIZE = 1_024
"""Matched paths remembered per gateway and snapshot: a hot path costs one dict look-up."""
PATH_MEMO_BYTES = 256
PATH_MEMO_SEGMENTS = 16
"""Longer and deeper paths are not remembered, so that a memo stays below two megabytes."""


class Client:
    """What a connection remembers of its peer between requests.

    ``address`` is the peer's IP as text. The rest caches the gateway of the last Host, so that a
    kept-alive client pays for the look-up once per snapshot.
    """

    __slots__ = ("address", "forwarded_lines", "gateway", "host", "scheme", "snapshot", "trusted")

    def __init__(self, address: str, scheme: bytes = b"http") -> None:
        self.address = address
        self.scheme = scheme
        self.snapshot: Snapshot | None = None
        self.host: bytes | None = None
        self.gateway: Gateway | None = None
        self.trusted = False
        self.forwarded_lines = b""


class Forward:
    """Send the request on. ``head`` is the complete head for the backend, framing and empty line included."""

    __slots__ = ("credential", "gateway", "head", "request_id", "route", "service", "target")

    def __init__(
        self,
        gateway: Gateway,
        route: Route,
        service: Service,
        target: Target,
        credential: Credential | None,
        request_id: bytes,
        head: bytes,
    ) -> None:
        self.gateway = gateway
        self.route = route
        self.service = service
        self.target = target
        self.credential = credential
        self.request_id = request_id
        self.head = head


class Refusal:
    """Answer with an error of the table. ``extra_lines`` are complete field lines for the answer."""

    __slots__ = ("detail", "extra_lines", "gateway", "reason", "request_id", "route")

    def __init__(
        self,
        reason: Reason,
        request_id: bytes,
        *,
        detail: str | None = None,
        extra_lines: bytes = b"",
        gateway: Gateway | None = None,
        route: Route | None = None,
    ) -> None:
        self.reason = reason
        self.request_id = request_id
        self.detail = detail
        self.extra_lines = extra_lines
        self.gateway = gateway
        self.route = route


class Allowed:
    """Answer OPTIONS with 204 and this ``Allow``."""

    __slots__ = ("allow", "request_id")

    def __init__(self, allow: bytes, request_id: bytes) -> None:
        self.allow = allow
        self.request_id = request_id


Plan = Forward | Refusal | Allowed


def plan(head: RequestHead, snapshot: Snapshot, client: Client, now: float, fresh_id: bytes) -> Plan:
    """Decide one request.

    `now` is in seconds since the epoch; `fresh_id` becomes the request's id unless it brought a sane one.
    """
    reason = head.read(snapshot.field_memo, snapshot.credential_fields)
    request_id = head.request_id or fresh_id
    if reason is not None:
        return Refusal(reason, request_id)
    if head.method not in METHODS:
        return Refusal(Reason.METHOD_NOT_IMPLEMENTED, request_id)
    if head.host != client.host or snapshot is not client.snapshot:
        refusal = _meet(head, snapshot, client, request_id)
        if refusal is not None:
            return refusal
    gateway = client.gateway
    if gateway is None:
        reason = Reason.GATEWAY_NOT_FOUND if snapshot.ready else Reason.NOT_READY
        return Refusal(reason, request_id)
    target = head.target
    if target[:1] != b"/":
        if target == b"*" and head.method == b"OPTIONS":
            return Allowed(SERVER_ALLOW, request_id)
        split = split_absolute(target)
        if split is None:
            return Refusal(Reason.BAD_REQUEST, request_id)
        authority, target = split
        if authority.lower() != head.host.lower():  # bytes: ASCII letters only
            return Refusal(Reason.INVALID_HOST, request_id)
    return _route(head, target, gateway, client, now, request_id)


def _meet(head: RequestHead, snapshot: Snapshot, client: Client, request_id: bytes) -> Refusal | None:
    """Find the gateway of a host that this connection has not asked for yet, and remember it."""
    head.host = head.host.strip(b" \t")  # white space around a value is not part of it (RFC 9110 section 5.5)
    host = normalise_host(head.host)
    if host is None:
        if head.host or head.minor == 1 or head.target[:1] != b"/":
            return Refusal(Reason.INVALID_HOST, request_id)
        host = b""  # HTTP/1.0 without Host: only the gateway "*" can serve it
    client.host = head.host or None  # an absent Host is judged each time: only HTTP/1.0 may do without
    client.snapshot = snapshot
    client.gateway = gateway = find_gateway(snapshot, host)
    client.trusted = gateway is not None and _is_trusted(client.address, gateway)
    client.forwarded_lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        client.address.encode("ascii"),
        client.scheme,
        head.host,
    )
    return None


def _is_trusted(address: str, gateway: Gateway) -> bool:
    if not gateway.trusted_proxies:
        return False
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in gateway.trusted_proxies)


def _route(
    head: RequestHead, target: bytes, gateway: Gateway, client: Client, now: float, request_id: bytes
) -> Plan:
    path, mark, query = target.partition(b"?")
    if query and not query_is_clean(query):
        detail = "The query string holds a byte that must be percent-encoded."
        return Refusal(Reason.INVALID_PATH, request_id, detail=detail, gateway=gateway)
    known = gateway.path_memo.get(path)
    if known is not None:
        leaf, raw = known
    else:
        segments = split_path(path, gateway.path_policy)
        if isinstance(segments, str):
            detail = f"The path holds {segments}, which two servers may read differently."
            return Refusal(Reason.INVALID_PATH, request_id, detail=detail, gateway=gateway)
        raw, decoded = segments
        found = gateway.trie.match(decoded)
        if found is None:
            return Refusal(Reason.ROUTE_NOT_FOUND, request_id, gateway=gateway)
        leaf = found
        _remember(gateway.path_memo, path, leaf, raw)
    route = leaf.by_method.get(head.method) or leaf.any_route
    if route is None:
        if head.method == b"OPTIONS":
            return Allowed(leaf.allow, request_id)
        allow = b"Allow: %b\r\n" % leaf.allow
        return Refusal(Reason.METHOD_NOT_ALLOWED, request_id, extra_lines=allow, gateway=gateway)
    limit = route.settings.max_body_bytes
    if limit is not None and head.content_length > limit:
        return Refusal(Reason.BODY_TOO_LARGE, request_id, gateway=gateway, route=route)
    credential = None
    if route.secure or head.presented is not None:
        checked = _check(head, gateway, route, now, request_id)
        if isinstance(checked, Refusal):
            return checked
        credential = checked
    service = route.service
    if service is None:
        return Refusal(Reason.SERVICE_NOT_CONFIGURED, request_id, gateway=gateway, route=route)
    targets = service.targets
    if len(targets) == 1:
        chosen = targets[0]
    else:
        service.turn = turn = (service.turn + 1) % len(targets)
        chosen = targets[turn]
    new_path = chosen.base_path + build_path(route.pieces, raw) or b"/"
    head_bytes = _upstream_head(
        head,
        b"%b %b%b%b HTTP/1.1\r\n" % (head.method, new_path, mark, query),
        b"Host: %b\r\n" % head.host if service.preserve_host and head.host else chosen.host_line,
        gateway.fixed_lines,
        credential.identity_lines if credential is not None else b"",
        client,
        request_id,
    )
    return Forward(gateway, route, service, chosen, credential, request_id, head_bytes)


def _remember(memo: dict[bytes, tuple[Leaf, list[bytes]]], path: bytes, leaf: Leaf, raw: list[bytes]) -> None:
    """Keep the leaf of a path that matched; a memo that is full starts again."""
    if len(path) <= PATH_MEMO_BYTES and len(raw) <= PATH_MEMO_SEGMENTS:
        if len(memo) >= PATH_MEMO_SIZE:
            memo.clear()
        memo[path] = (leaf, raw)


def _check(
    head: RequestHead, gateway: Gateway, route: Route, now: float, request_id: bytes
) -> Credential | Refusal | None:
    """Ask the gateway's authenticator on a SECURE route; on any route put foreign credential fields back.

    A field that is another gateway's credential is an ordinary field here.
    """
    own: list[bytes] = []
    authenticator = gateway.authenticator
    if head.presented is not None:
        for name, value in head.presented:
            if name in authenticator.credential_fields:
                own.append(value)
            else:
                head.lines.append(b"%b: %b\r\n" % (name, value))
    if not route.secure:
        return None
    found = authenticator.identify(own, gateway.credentials, now)
    if not isinstance(found, Credential):
        missing = found is Reason.CREDENTIALS_MISSING
        return Refusal(
            found,
            request_id,
            detail=authenticator.missing_detail if missing else None,
            extra_lines=b"WWW-Authenticate: %b\r\n" % authenticator.challenge,
            gateway=gateway,
            route=route,
        )
    if route.restricted:
        detail = _forbidden(found, route)
        if detail is not None:
            return Refusal(Reason.FORBIDDEN, request_id, detail=detail, gateway=gateway, route=route)
    return found


def _forbidden(credential: Credential, route: Route) -> str | None:
    """Return why a known caller may not use the route, or None (DESIGN section 7)."""
    if route.consumers and credential.consumer not in route.consumers:
        return "This consumer is not among those that may call this route."
    if route.roles and not route.roles & credential.roles:
        return "This route asks for a role that the consumer does not have."
    if route.scopes:
        return "This route asks for a scope, and an API key carries none."
    return None


def _upstream_head(
    head: RequestHead,
    request_line: bytes,
    host_line: bytes,
    fixed_lines: bytes,
    identity_lines: bytes,
    client: Client,
    request_id: bytes,
) -> bytes:
    """Write the head anew (DESIGN section 5): one Host, one framing field, no claim of the client's."""
    if head.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.content_length >= 0:
        framing = b"Content-Length: %d\r\n" % head.content_length
    else:
        framing = b""
    if head.forwarded is not None and client.trusted:
        forwarded_lines = _append_forwarded(head.forwarded, client)
    else:
        forwarded_lines = client.forwarded_lines
    return b"".join(
        (
            request_line,
            host_line,
            *head.lines,
            framing,
            fixed_lines,
            identity_lines,
            forwarded_lines,
            b"X-Request-ID: %b\r\n\r\n" % request_id,
        )
    )


def _append_forwarded(received: dict[int, bytes], client: Client) -> bytes:
    """Behind a trusted proxy: append to its X-Forwarded-For, keep its -Proto and -Host."""
    chain = received.get(FORWARDED_FOR)
    address = client.address.encode("ascii")
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        chain + b", " + address if chain else address,
        received.get(FORWARDED_PROTO) or client.scheme,
        received.get(FORWARDED_HOST) or client.host or b"",
    )
