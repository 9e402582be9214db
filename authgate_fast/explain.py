"""`authgate explain`: the plan with words. Which gateway, route, check and backend, and why.

It builds the bytes a client would send, reads them with the same parser and asks the same `plan` as
the request path; only the sentences are its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from authgate_fast.auth.interface import Denial
from authgate_fast.decision import Allowed, Client, Forward, Local, Pending, Redirect, Refusal
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.fields import lower
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import finish, plan
from authgate_fast.proxy.heads import RequestReader
from authgate_fast.snapshot import place_of

if TYPE_CHECKING:
    from authgate_fast.lookup.resolver import Resolver
    from authgate_fast.snapshot import Identity, Route, Snapshot

LOOKUP_TIMEOUT_S = 20.0


class ExplainError(ValueError):
    """The question itself is wrong; the text says how to put it."""


def request_bytes(method: str, url: str, fields: list[str]) -> bytes:
    """Write the head a client would send for METHOD URL with 'Name: value' `fields`."""
    if "://" not in url:
        raise ExplainError(
            f"{url}: write the whole URL, for instance http://shop-api.localhost/api/products/1"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ExplainError(f"{url}: the URL must start with http:// or https:// and name a host")
    rest = url.split("://", 1)[1]
    at = min((i for i in (rest.find(c) for c in "/?#") if i != -1), default=len(rest))
    target = rest[at:] or "/"
    if not target.startswith("/"):
        target = "/" + target
    lines = [f"{method} {target} HTTP/1.1"]
    names = set()
    for text in fields:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ExplainError(f"-H {name!r}: write it as 'Name: value'")
        names.add(name.strip().lower())
        lines.append(f"{name.strip()}: {value.strip()}")
    if "host" not in names:
        lines.insert(1, f"Host: {rest[:at]}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def explain(
    snapshot: Snapshot, method: str, url: str, fields: list[str], resolver: Resolver
) -> tuple[bool, str]:
    """Return whether the request would go to a backend, and the text that says what happens.

    What memory does not hold is looked up by `resolver`, as the gateway would: passwords are checked, keys read,
    identity providers asked.
    """
    head = RequestReader().read(request_bytes(method, url, fields), max_fields=1_000)
    if not isinstance(head, RequestHead):
        return False, _refused(Refusal(head, b"explain"), None)
    client = Client("127.0.0.1", b"https" if url.startswith("https:") else b"http")
    decision = plan(head, snapshot, client, time.time(), b"explain")
    lines = []
    if client.gateway is not None:
        gateway = client.gateway
        lines.append(f"gateway   {gateway.name} (hosts: {', '.join(gateway.hosts)})")
    if isinstance(decision, Pending):
        lines.append(f"look-up   {type(decision.lookup).__name__}: memory alone cannot answer")
        decision = finish(decision, asyncio.run(_resolve(decision, resolver)), time.time())
    if isinstance(decision, Forward):
        return True, "\n".join([*lines, *_forwarded(decision), *_upgrade(head, decision.route)])
    if isinstance(decision, Allowed):
        lines.append(f"answer    204 by the gateway, Allow: {decision.allow.decode('ascii')}")
        return False, "\n".join(lines)
    if isinstance(decision, Redirect):
        lines.append(f"answer    302 by the gateway, Location: {decision.location.decode('latin-1')}")
        return False, "\n".join(lines)
    if isinstance(decision, Local):
        path = (gateway.authenticator.reserved + b"/" + decision.endpoint).decode("latin-1")
        lines.append(f"answer    by the gateway itself: /{path} is an endpoint of its own")
        return False, "\n".join(lines)
    assert isinstance(decision, Refusal)
    if decision.route is not None:
        lines.append(_route_line(decision.route))
    return False, "\n".join([*lines, _refused(decision, snapshot)])


async def _resolve(pending: Pending, resolver: Resolver) -> Identity | Denial:
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            return await resolver.resolve(pending)
    except TimeoutError:
        return Denial(Reason.AUTH_UNAVAILABLE, why=f"no answer within {LOOKUP_TIMEOUT_S:g} s")
    finally:
        await resolver.close()


def _route_line(route: Route) -> str:
    return f"route     {route.name} ({route.method.decode('ascii')} {route.public_path})"


def _forwarded(decision: Forward) -> list[str]:
    route = decision.route
    lines = [f"{_route_line(route)[:-1]}, the most specific for this path)"]
    if decision.identity is None:
        lines.append("check     none: the route is PUBLIC")
    else:
        identity = decision.identity
        roles = ", ".join(sorted(identity.roles)) or "none"
        who = f"consumer {identity.consumer}" if identity.consumer else "a user of the identity provider"
        lines.append(f"check     passed: {who}, credential {identity.credential_id}, roles: {roles}")
    target = decision.target
    request_line, _, rest = decision.head.decode("latin-1").partition("\r\n")
    lines.append(
        f"backend   {decision.service.name} at {target.scheme}://{place_of(target.host, target.port)}"
    )
    lines.extend(_targets(decision))
    lines.append(f"request   {request_line}")
    lines.extend(f"          {_shown(line)}" for line in rest.split("\r\n") if line)
    return lines


def _upgrade(head: RequestHead, route: Route) -> list[str]:
    """Say what becomes of an Upgrade field."""
    if head.upgrade:
        return [f"protocol  upgrade to {head.upgrade.decode('ascii')}: yes, if the backend agrees"]
    offered = [value.decode("latin-1") for name, value in head.fields if lower(name) == b"upgrade"]
    if not offered:
        return []
    allowed = ", ".join(sorted(name.decode("ascii") for name in route.upgrades)) or "none"
    return [
        f"protocol  upgrade to {', '.join(offered)}: no, so the field is ignored",
        "          it takes HTTP/1.1, GET, no body, no Expect, `Connection: upgrade` and one protocol;",
        f"          upgrades of this route: {allowed}",
    ]


def _targets(decision: Forward) -> list[str]:
    """Say which other targets there are, and how one is chosen; nothing for a service with one."""
    service = decision.service
    if len(service.targets) == 1:
        return []
    balancing = service.balancing
    how = balancing.method
    if how == "hash" and decision.parts is not None:
        field = balancing.hash_field.decode("ascii")
        cookie = balancing.hash_cookie.decode("ascii")
        on = f"the field {field}" if field else f"the cookie {cookie}" if cookie else "the client's address"
        missing = "" if decision.parts.hash_key else ", which is missing: so by least_connections"
        how = f"hash on {on}{missing}"
    lines = [f"targets   the first of {len(service.targets)} is shown; a worker chooses by {how}"]
    lines.extend(
        f"          {target.url} weight {target.weight}{'' if target.weight else ' (drained)'}"
        for target in service.targets
    )
    return lines


def _shown(line: str) -> str:
    """Show a field line without a token in it."""
    return "Authorization: Bearer ..." if line.startswith("Authorization: Bearer ") else line


def _refused(decision: Refusal, snapshot: Snapshot | None) -> str:
    row = TABLE[decision.reason]
    text = f"answer    {row.status} {decision.reason.value}: {decision.detail or row.detail}"
    if decision.why:
        text += f"\n          because: {decision.why} (the client is not told)"
    if decision.reason is Reason.GATEWAY_NOT_FOUND and snapshot is not None:
        hosts = sorted(host for gateway in snapshot.gateways.values() for host in gateway.hosts)
        text += f"\n          hosts with a gateway: {', '.join(hosts) or 'none'}"
    if decision.reason is Reason.ROUTE_NOT_FOUND:
        text += "\n          a trailing slash counts; {name} is exactly one segment, {name*} the rest"
    return text
