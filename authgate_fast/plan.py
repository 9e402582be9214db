"""The one funnel: what to do with a request head, decided by pure code.

`plan` takes a head, a snapshot and the time, and returns one of the kinds of `decision`; where something must be
looked up first that is a `Pending`, and `finish` takes the outcome. It opens no socket and reads no clock, so
`authgate explain` and the tests run the same decisions as the request path. The order is CONVENTIONS section 1.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.interface import Denial, Lookup
from authgate_fast.balance.hash_key import hash_key
from authgate_fast.decision import (
    NAMELESS,
    UNIX,
    Allowed,
    Client,
    Forward,
    HeadParts,
    Local,
    Pending,
    Plan,
    Redirect,
    Refusal,
    caller_address,
)
from authgate_fast.errors import Reason
from authgate_fast.http.fields import FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO
from authgate_fast.http.request import METHODS, RequestHead, normalise_host, split_absolute
from authgate_fast.http.trace_context import settle
from authgate_fast.http.upgrade import is_allowed, upgrade_lines
from authgate_fast.routing.path_policy import query_is_clean, split_path
from authgate_fast.routing.template import build_path
from authgate_fast.snapshot import Gateway, Identity, KnownPath, Route, Snapshot, find_gateway

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from authgate_fast.auth.interface import Presented

SERVER_ALLOW: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""The answer to ``OPTIONS *``: what the gateway as a whole can pass on."""
_AROUND_TARGET: Final = len(b"  HTTP/1.1\r\n")
PATH_MEMO_SIZE: Final = 1_024
"""Matched paths remembered per gateway and snapshot: a hot path costs one dict look-up."""
PATH_MEMO_BYTES: Final = 256
PATH_MEMO_SEGMENTS: Final = 16
"""Longer and deeper paths are not remembered, so that a memo stays below two megabytes."""


def plan(head: RequestHead, snapshot: Snapshot, client: Client, now: float, fresh_id: bytes) -> Plan:
    """Decide one request.

    `now` is in seconds since the epoch; `fresh_id` becomes the request's id unless it brought a sane one.
    """
    reason = head.read(snapshot.field_memo, snapshot.credential_fields)
    request_id = head.request_id or fresh_id
    if reason is not None:
        return Refusal(reason, request_id)
    if head.trace is not None or client.tracing is not None:
        settle(head, client.tracing)
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
    if not target.startswith(b"/"):
        split = split_absolute(target)
        if split is not None:
            scheme, authority, target = split
            if authority.lower() != head.host.lower():  # bytes: ASCII letters only
                return Refusal(Reason.INVALID_HOST, request_id)
            if scheme != client.scheme and not client.trusted:
                return Refusal(Reason.BAD_REQUEST, request_id)  # RFC 9110 section 7.4
            target = target or (b"*" if head.method == b"OPTIONS" else b"/")  # RFC 9112 section 3.2.4
        elif target != b"*" or head.method != b"OPTIONS":
            return Refusal(Reason.BAD_REQUEST, request_id)
        if target == b"*":
            return Allowed(SERVER_ALLOW, request_id)
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
    address = client.address
    client.forwarded_lines = b"%bX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n%b" % (
        b"" if address in NAMELESS else b"X-Forwarded-For: %b\r\n" % address.encode("ascii"),
        client.scheme,
        head.host,
        client.certificate_lines,
    )
    return None


def _is_trusted(address: str, gateway: Gateway) -> bool:
    if address == UNIX:
        return gateway.trusts_unix
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
    path = target
    query = tail = b""
    # No path in it has a query, so a target that is there has none either.
    known = gateway.path_memo.get(target)
    if known is None:
        query_at = target.find(b"?")
        if query_at >= 0:
            path = target[:query_at]
            tail = target[query_at:]
            query = tail[1:]
            if query and not query_is_clean(query):
                detail = "The query string holds a byte that must be percent-encoded."
                return Refusal(Reason.INVALID_PATH, request_id, detail=detail, gateway=gateway)
            known = gateway.path_memo.get(path)
    head.path = path
    if known is None:
        segments = split_path(path, gateway.path_policy)
        if isinstance(segments, str):
            detail = f"The path holds {segments}, which two servers may read differently."
            return Refusal(Reason.INVALID_PATH, request_id, detail=detail, gateway=gateway)
        raw, decoded = segments
        reserved = gateway.authenticator.reserved
        if reserved and len(decoded) > 1 and decoded[0] == reserved:
            return _local(head, decoded, query, gateway, client, request_id)
        found = gateway.trie.match(decoded)
        if found is None:
            frontend = gateway.frontend
            if frontend is not None and head.method in (b"GET", b"HEAD"):
                return _ask(head, gateway, frontend, path, tail, client, now, request_id)
            return Refusal(Reason.ROUTE_NOT_FOUND, request_id, gateway=gateway)
        known = KnownPath(found, raw)
        _remember(gateway.path_memo, path, known)
    leaf = known.leaf
    route = leaf.by_method.get(head.method) or leaf.any_route
    if head.max_forwards == 0:
        return Allowed(leaf.allow, request_id)  # RFC 9110 section 7.6.2: an OPTIONS that must not go on
    if route is None:
        if head.method == b"OPTIONS":
            return Allowed(leaf.allow, request_id)
        allow = b"Allow: %b\r\n" % leaf.allow
        return Refusal(Reason.METHOD_NOT_ALLOWED, request_id, extra_lines=allow, gateway=gateway)
    limit = route.settings.max_body_bytes
    if limit is not None and head.content_length > limit:
        return Refusal(Reason.BODY_TOO_LARGE, request_id, gateway=gateway, route=route)
    if known.route is not route:
        known.route = route
        known.target_path = build_path(route.pieces, known.raw)
    return _ask(head, gateway, route, known.target_path, tail, client, now, request_id)


def _remember(memo: dict[bytes, KnownPath], path: bytes, known: KnownPath) -> None:
    """Keep a path that matched; a memo that is full starts again."""
    if len(path) <= PATH_MEMO_BYTES and len(known.raw) <= PATH_MEMO_SEGMENTS:
        if len(memo) >= PATH_MEMO_SIZE:
            memo.clear()
        memo[path] = known


def _local(
    head: RequestHead,
    decoded: list[bytes],
    query: bytes,
    gateway: Gateway,
    client: Client,
    request_id: bytes,
) -> Plan:
    """Find one of the gateway's own endpoints; they come before all routes."""
    methods = gateway.authenticator.endpoints.get(decoded[1]) if len(decoded) == 2 else None
    if methods is None:
        return Refusal(Reason.ROUTE_NOT_FOUND, request_id, gateway=gateway)
    if head.method in methods or (head.method == b"HEAD" and b"GET" in methods):
        return Local(gateway, decoded[1], head, query, client, request_id)
    allow = b", ".join((*methods, *((b"HEAD",) if b"GET" in methods else ()), b"OPTIONS"))
    if head.method == b"OPTIONS":
        return Allowed(allow, request_id)
    return Refusal(
        Reason.METHOD_NOT_ALLOWED, request_id, extra_lines=b"Allow: %b\r\n" % allow, gateway=gateway
    )


def _ask(
    head: RequestHead,
    gateway: Gateway,
    route: Route,
    path: bytes,
    tail: bytes,
    client: Client,
    now: float,
    request_id: bytes,
) -> Plan:
    """Ask the gateway's authenticator on a SECURE route; on any route put foreign credential fields back.

    A field that is another gateway's credential is an ordinary field here.
    """
    if head.upgrade and not is_allowed(head.upgrade, route.upgrades):
        head.ignore_upgrade()
    presented: Presented = []
    authenticator = gateway.authenticator
    if head.presented is not None:
        for item in head.presented:
            if item[0] in authenticator.credential_fields:
                presented.append(item)
            else:
                head.lines.append(b"%b: %b\r\n" % item)
    if not route.secure:
        return _forward(head, gateway, route, path, tail, client, request_id, presented, None)
    found = authenticator.identify(head, presented, client, now)
    if isinstance(found, Identity):
        return _admit(head, gateway, route, path, tail, client, request_id, presented, found)
    if isinstance(found, Lookup):
        if found.is_guess:
            wait_s = client.guess_wait_s(head, found.account, now)
            if wait_s:
                return _blocked(gateway, route, request_id, wait_s)
        return Pending(gateway, route, head, path, tail, client, request_id, presented, found)
    return _denied(found, head, gateway, route, client, now, request_id)


def finish(pending: Pending, found: Identity | Denial, now: float) -> Plan:
    """Go on where `plan` had to wait: `found` is what the look-up came to."""
    if isinstance(found, Identity):
        return _admit(
            pending.head,
            pending.gateway,
            pending.route,
            pending.path,
            pending.tail,
            pending.client,
            pending.request_id,
            pending.presented,
            found,
        )
    return _denied(
        found, pending.head, pending.gateway, pending.route, pending.client, now, pending.request_id
    )


def finish_local(local: Local, denial: Denial, now: float) -> Plan:
    """Refuse at one of the gateway's own endpoints; failures there count like those on routes."""
    return _denied(denial, local.head, local.gateway, None, local.client, now, local.request_id)


def _denied(
    denial: Denial,
    head: RequestHead,
    gateway: Gateway,
    route: Route | None,
    client: Client,
    now: float,
    request_id: bytes,
) -> Plan:
    """Say no; a caller that has failed too often is told to wait instead."""
    if denial.is_failure and client.guard is not None:
        address = caller_address(head, client)
        wait_s = client.guard.retry_after_s(address, denial.account, now)
        if wait_s:
            return _blocked(gateway, route, request_id, wait_s, denial.why)
        client.guard.failed(address, denial.account, now)
    if denial.location:
        return Redirect(denial.location, request_id)
    return Refusal(
        denial.reason,
        request_id,
        detail=denial.detail,
        extra_lines=denial.extra_lines,
        gateway=gateway,
        route=route,
        why=denial.why,
    )


def _blocked(gateway: Gateway, route: Route | None, request_id: bytes, wait_s: int, why: str = "") -> Refusal:
    return Refusal(
        Reason.TOO_MANY_FAILURES,
        request_id,
        gateway=gateway,
        route=route,
        why=why or "too many failed checks from this address or for this account",
        retry_after_s=wait_s,
    )


def _admit(
    head: RequestHead,
    gateway: Gateway,
    route: Route,
    path: bytes,
    tail: bytes,
    client: Client,
    request_id: bytes,
    presented: Presented,
    identity: Identity,
) -> Plan:
    """Judge whether a known caller may use the route (DESIGN section 7); then send the request on."""
    if route.restricted:
        detail = _forbidden(identity, route)
        if detail is not None:
            return Refusal(
                Reason.FORBIDDEN,
                request_id,
                detail=detail,
                extra_lines=gateway.authenticator.forbidden_lines(route),
                gateway=gateway,
                route=route,
                why=f"{detail} Caller: {identity.consumer or identity.credential_id}.",
            )
    return _forward(head, gateway, route, path, tail, client, request_id, presented, identity)


def still_admitted(forward: Forward, identity: Identity, snapshot: Snapshot, now: float) -> bool:
    """Tell whether the caller of what is still under way would be let in again (DESIGN section 7).

    A document that was read anew makes another identity: what counts is what it allows. The route is judged as it was.
    """
    gateway = snapshot.gateways.get(forward.gateway.name)
    if gateway is None:
        return False
    authenticator = gateway.authenticator
    if authenticator is not forward.gateway.authenticator and not identity.consumer:
        return False  # the gateway has another provider or client now
    current = authenticator.current(identity, now)
    if current is None or current is identity:
        return current is not None
    return not forward.route.restricted or _forbidden(current, forward.route) is None


def _forbidden(identity: Identity, route: Route) -> str | None:
    """Return why a known caller may not use the route, or None; it names what the route asks for."""
    if route.consumers and identity.consumer not in route.consumers:
        return "This consumer is not among those that may call this route."
    if route.roles and not route.roles & identity.roles:
        return f"This route asks for one of these roles: {', '.join(sorted(route.roles))}."
    if not route.scopes <= identity.scopes:
        missing = ", ".join(sorted(route.scopes - identity.scopes))
        return f"This route asks for scopes that the credential does not have: {missing}."
    return None


def _forward(
    head: RequestHead,
    gateway: Gateway,
    route: Route,
    path: bytes,
    tail: bytes,
    client: Client,
    request_id: bytes,
    presented: Presented,
    identity: Identity | None,
) -> Plan:
    """Write the head for the target, or for the first of several (`Forward.aim_at` writes it for another)."""
    service = route.service
    if service is None:
        return Refusal(Reason.SERVICE_NOT_CONFIGURED, request_id, gateway=gateway, route=route)
    chosen = service.targets[0]
    # Three places of their own in the one copy below: adding them up first would copy a long token twice more.
    identity_lines = token_line = kept_lines = b""
    if identity is not None:
        identity_lines = identity.identity_lines
        if route.forward_token:
            token_line = identity.token_line
    if presented and gateway.authenticator.keeps_lines:
        kept_lines = gateway.authenticator.kept_lines(presented)
    head_bytes = b"%b %b%b HTTP/1.1\r\n%b%b%b%b%b%b%b%b%bX-Request-ID: %b\r\n\r\n" % (
        head.method,
        chosen.base_path + path or b"/",
        tail,
        b"Host: %b\r\n" % head.host if service.preserve_host and head.host else chosen.host_line,
        head.block,
        b"".join(head.lines),
        _framing_line(head),
        # RFC 9110 section 7.6.3: Via tells the version that the request came in
        gateway.fixed_lines if head.minor else gateway.fixed_lines.replace(b"Via: 1.1", b"Via: 1.0", 1),
        identity_lines,
        token_line,
        kept_lines,
        _forwarded_lines(head, client),
        request_id,
    )
    if not service.is_balanced:
        return Forward(gateway, route, service, chosen, identity, request_id, head_bytes)
    host_line = b"Host: %b\r\n" % head.host if service.preserve_host and head.host else b""
    target = chosen.base_path + path or b"/"
    rest_at = len(head.method) + len(target) + len(tail) + len(host_line or chosen.host_line) + _AROUND_TARGET
    balancing = service.balancing
    key = b""
    if balancing.method == "hash":
        by_address = not balancing.hash_field and not balancing.hash_cookie
        key = caller_address(head, client).encode() if by_address else hash_key(balancing, head, presented)
    parts = HeadParts(head.method, path, tail, host_line, rest_at, key)
    return Forward(gateway, route, service, chosen, identity, request_id, head_bytes, parts)


def _framing_line(head: RequestHead) -> bytes:
    """Frame the request anew (DESIGN section 5): one field, or none for a request without a body."""
    if head.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    if head.upgrade:
        return upgrade_lines(head.upgrade)  # it has no body
    if head.content_length >= 0:
        return b"Content-Length: %d\r\n" % head.content_length
    return b""


def _forwarded_lines(head: RequestHead, client: Client) -> bytes:
    if head.forwarded is not None and client.trusted:
        return _append_forwarded(head.forwarded, client)
    return client.forwarded_lines


def _append_forwarded(received: dict[int, bytes], client: Client) -> bytes:
    """Behind a trusted proxy: append to its X-Forwarded-For, keep its -Proto and -Host."""
    chain = received.get(FORWARDED_FOR)
    if client.address not in NAMELESS:
        address = client.address.encode("ascii")
        chain = chain + b", " + address if chain else address
    return b"%bX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n%b" % (
        b"X-Forwarded-For: %b\r\n" % chain if chain else b"",
        received.get(FORWARDED_PROTO) or client.scheme,
        received.get(FORWARDED_HOST) or client.host or b"",
        client.certificate_lines,
    )
