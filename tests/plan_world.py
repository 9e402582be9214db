"""A small world for the plan: two gateways on named hosts, one on every other host, and the keys to them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import ip_network

from authgate_fast.auth.api_key import ApiKeyAuthenticator
from authgate_fast.config.compile import build_snapshot
from authgate_fast.decision import Client, Forward, Plan, Refusal
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import plan
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.template import Template, parse_public, parse_target, target_pieces
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import (
    Consumers,
    Gateway,
    Identity,
    Route,
    Service,
    Snapshot,
    Target,
    TimeoutSettings,
)
from tests.known_keys import keys_of

Fields = list[tuple[bytes, bytes]]

NOW = 1_000.0
FRESH = b"fresh-1"
SHOP = b"shop.localhost"
PEER = "192.0.2.7"
SETTINGS = TimeoutSettings(None, 30, 5, 60, 60)
BACKEND = Target("http", "backend.internal", 8080, b"", b"Host: backend.internal:8080\r\n")
BASED = Target("https", "other.internal", 443, b"/v2", b"Host: other.internal\r\n")


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def credential(consumer: str, *roles: str, expires_at: float = float("inf")) -> Identity:
    lines = f"X-Consumer-Id: {consumer}\r\n"
    if roles:
        lines += f"X-Consumer-Roles: {','.join(roles)}\r\n"
    lines += "X-Credential-Id: default\r\n"
    return Identity(consumer, "default", frozenset(roles), expires_at, lines.encode())


def route(
    method: str, public: str, target: str, service: Service | None, *, secure: bool = False, **more: object
) -> tuple[Template, Route]:
    template = parse_public(public)
    pieces = target_pieces(template, parse_target(target))
    made = Route(f"{method} {public}", method.encode(), public, secure, "catalog", service, pieces, SETTINGS)
    return template, replace(made, **more)  # type: ignore[arg-type]  # fields of a Route


def changed(gateway: Gateway, **changes: object) -> Gateway:
    """Return a copy of a gateway with other attributes, which remembers no path yet."""
    other = gateway.with_hosts(gateway.hosts)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def make_snapshot(*, trusted: str = "", preserve_host: bool = False) -> Snapshot:
    catalog = Service("catalog", (BACKEND,), preserve_host=preserve_host)
    based = Service("based", (BASED,))
    pair = Service("pair", (BACKEND, BASED), preserve_host=preserve_host)
    small = replace(SETTINGS, max_body_bytes=10)
    routes = [
        route("GET", "/", "/", catalog),
        route("GET", "/products/{id}", "/items/{id}", catalog),
        route("POST", "/products", "/items", catalog, secure=True),
        route("ANY", "/any/{rest*}", "/{rest*}", catalog),
        route("GET", "/based/{rest*}", "/{rest*}", based),
        route("GET", "/top/{rest*}", "/{rest*}", based),
        route("GET", "/pair", "/", pair),
        route("GET", "/private", "/private", catalog, secure=True),
        route("GET", "/private-dead", "/private", None, secure=True),
        route("GET", "/dead", "/", None),
        route("ANY", "/small", "/small", catalog, settings=small),
        route("ANY", "/small-private", "/small", catalog, secure=True, settings=small),
        route("GET", "/readers", "/r", catalog, secure=True, roles=frozenset({"reader", "writer"})),
        route("GET", "/only-two", "/r", catalog, secure=True, consumers=frozenset({"two"})),
        route("GET", "/scoped", "/r", catalog, secure=True, scopes=frozenset({"read"})),
        route("OPTIONS", "/own-options", "/o", catalog, secure=True),
    ]
    keys = {
        key("one"): credential("one"),
        key("two"): credential("two", "reader", "other"),
        key("old"): credential("old", expires_at=NOW - 1),
    }
    networks = (ip_network(trusted),) if trusted else ()
    shop = _gateway("shop", ("shop.localhost", "*.shop.localhost"), "X-Api-Key", keys, routes, networks)
    partner_routes = [
        route("GET", "/private", "/p", catalog, secure=True),
        route("GET", "/open", "/p", catalog),
    ]
    partner_keys = {key("partner"): credential("partner")}
    partner = _gateway("partner", ("partner.localhost",), "X-Partner-Key", partner_keys, partner_routes, ())
    return build_snapshot(1, [shop, partner])


def _gateway(
    name: str,
    hosts: tuple[str, ...],
    header: str,
    keys: dict[bytes, Identity],
    routes: list[tuple[Template, Route]],
    networks: tuple[object, ...],
) -> Gateway:
    consumers = Consumers(keys_of(keys))
    return Gateway(
        name,
        hosts,
        ApiKeyAuthenticator(name, header, consumers),
        consumers,
        build_trie(routes),
        PathPolicy(),
        networks,  # type: ignore[arg-type]  # networks of either family
        f"Via: 1.1 authgate\r\nX-Gateway-Id: {name}\r\n".encode(),
    )


def with_star(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot of the same gateways, in which the first one serves every other host too."""
    shop = snapshot.gateways["shop"].with_hosts(("shop.localhost", "*"))
    return build_snapshot(2, [shop, snapshot.gateways["partner"]])


def ask(
    method: bytes = b"GET",
    target: bytes = b"/",
    fields: Fields | None = None,
    *,
    host: bytes | None = SHOP,
    minor: int = 1,
    snapshot: Snapshot | None = None,
    client: Client | None = None,
    now: float = NOW,
) -> Plan:
    """Ask for the plan of one request; `host` None sends no Host."""
    hosts = [] if host is None else [(b"Host", host)]
    head = RequestHead(method, target, minor, hosts + (fields or []))
    snapshot = make_snapshot() if snapshot is None else snapshot
    return plan(head, snapshot, client or Client(PEER), now, FRESH)


def forward(*args: object, **more: object) -> Forward:
    found = ask(*args, **more)  # type: ignore[arg-type]  # as `ask`
    assert isinstance(found, Forward), getattr(found, "reason", found)
    return found


def refusal(*args: object, **more: object) -> Refusal:
    found = ask(*args, **more)  # type: ignore[arg-type]  # as `ask`
    assert isinstance(found, Refusal), found
    return found
