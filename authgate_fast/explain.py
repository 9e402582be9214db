"""`authgate explain`: the plan with words. Which gateway, route, check and backend, and why.

It builds the bytes a client would send, reads them with the same parser and asks the same `plan` as
the request path; only the sentences are its own.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from authgate_fast.decision import Allowed, Client, Forward, Refusal
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import plan
from authgate_fast.proxy.heads import RequestReader
from authgate_fast.snapshot import Snapshot


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


def explain(snapshot: Snapshot, method: str, url: str, fields: list[str]) -> tuple[bool, str]:
    """Return whether the request would go to a backend, and the text that says what happens."""
    head = RequestReader().read(request_bytes(method, url, fields), max_fields=1_000)
    if not isinstance(head, RequestHead):
        return False, _refused(Refusal(head, b"explain"), None)
    client = Client("127.0.0.1")
    decision = plan(head, snapshot, client, time.time(), b"explain")
    lines = []
    if client.gateway is not None:
        gateway = client.gateway
        lines.append(f"gateway   {gateway.name} (hosts: {', '.join(gateway.hosts)})")
    if isinstance(decision, Forward):
        return True, "\n".join(lines + _forwarded(decision))
    if isinstance(decision, Allowed):
        lines.append(f"answer    204 by the gateway, Allow: {decision.allow.decode('ascii')}")
        return False, "\n".join(lines)
    if decision.route is not None:
        route = decision.route
        lines.append(f"route     {route.name} ({route.method.decode('ascii')} {route.public_path})")
    return False, "\n".join([*lines, _refused(decision, snapshot)])


def _forwarded(decision: Forward) -> list[str]:
    route = decision.route
    lines = [
        f"route     {route.name} ({route.method.decode('ascii')} {route.public_path}, the most specific for this path)"
    ]
    if decision.identity is None:
        lines.append("check     none: the route is PUBLIC")
    else:
        credential = decision.identity
        roles = ", ".join(sorted(credential.roles)) or "none"
        lines.append(
            f"check     passed: consumer {credential.consumer}, key {credential.credential_id}, roles: {roles}"
        )
    target = decision.target
    request_line, _, rest = decision.head.decode("latin-1").partition("\r\n")
    lines.append(f"backend   {decision.service.name} at {target.scheme}://{target.host}:{target.port}")
    lines.append(f"request   {request_line}")
    lines.extend(f"          {line}" for line in rest.split("\r\n") if line)
    return lines


def _refused(decision: Refusal, snapshot: Snapshot | None) -> str:
    row = TABLE[decision.reason]
    text = f"answer    {row.status} {decision.reason.value}: {decision.detail or row.detail}"
    if decision.reason is Reason.GATEWAY_NOT_FOUND and snapshot is not None:
        hosts = sorted(host for gateway in snapshot.gateways.values() for host in gateway.hosts)
        text += f"\n          hosts with a gateway: {', '.join(hosts) or 'none'}"
    if decision.reason is Reason.ROUTE_NOT_FOUND:
        text += "\n          a trailing slash counts; {name} is exactly one segment, {name*} the rest"
    return text
