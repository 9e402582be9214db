"""From validated documents to what a worker serves (``snapshot``). Pure: no IO, no clock, no state.

Order says who was first: of two routes of one shape and method the one that comes first in the
mapping stays, the other is reported. Text becomes the bytes of the wire here and nowhere later.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from authgate_fast.config.authenticators import make_frontend
from authgate_fast.config.keys import DocumentKey, redis_key
from authgate_fast.config.problems import Problem
from authgate_fast.decision import UNIX
from authgate_fast.limits import NARROWABLE, Limits
from authgate_fast.model import ConsumerDocument, GatewayDocument, Narrowing, RouteDocument, ServiceDocument
from authgate_fast.model_balance import HashOnDocument, HealthCheckDocument
from authgate_fast.model_fields import seconds_of
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.template import Template
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import (
    DEFAULT_TLS,
    Balancing,
    Consumers,
    Gateway,
    HealthCheck,
    Identity,
    Route,
    Service,
    Snapshot,
    Target,
    TimeoutSettings,
    UpstreamTls,
    User,
)

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Authenticator

STEP = 100
"""How many documents or routes are worked on between two steps; at most some 3 ms of work."""

Steps = Generator[None, None, None]


class RouteClash(NamedTuple):
    """A route that is not served, because `holder` has its method and paths already."""

    route: str
    holder: str
    problem: Problem


class Compiled(NamedTuple):
    """A gateway as it is served, and the routes that could not be part of it."""

    gateway: Gateway
    clashes: list[RouteClash]


def compile_gateway(  # each is a document or what it is compiled with
    name: str,
    document: GatewayDocument,
    services: Mapping[str, ServiceDocument],
    routes: Mapping[str, RouteDocument],
    authenticator: Authenticator,
    consumers: Consumers,
    limits: Limits,
) -> Gateway:
    """Compile a gateway in one go; of two routes in conflict the first is served."""
    steps = compile_gateway_steps(name, document, services, routes, authenticator, consumers, limits)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            compiled: Compiled = stop.value
            return compiled.gateway


def compile_gateway_steps(  # as above
    name: str,
    document: GatewayDocument,
    services: Mapping[str, ServiceDocument],
    routes: Mapping[str, RouteDocument],
    authenticator: Authenticator,
    consumers: Consumers,
    limits: Limits,
) -> Generator[None, None, Compiled]:
    """Compile a gateway, with a pause after every `STEP` routes.

    The `authenticator` and the `consumers` live on from one snapshot to the next.
    """
    compiled_services = {
        service_name: compile_service(service_name, service)
        for service_name, service in services.items()
        if service.enabled
    }
    node = TimeoutSettings(**{name: getattr(limits, name) for name in NARROWABLE})
    settings = {service_name: narrow(node, service) for service_name, service in services.items()}
    forward_token = getattr(document.auth, "forward_token", True)
    holders: dict[tuple[object, str], str] = {}
    items: list[tuple[Template, Route]] = []
    clashes: list[RouteClash] = []
    pending = iter(routes.items())
    while chunk := list(islice(pending, STEP)):
        for route_name, route in chunk:
            if not route.enabled:
                continue
            holder = holders.setdefault((route.template.shape, route.method), route_name)
            if holder != route_name:
                clashes.append(_route_clash(name, route_name, route, holder))
                continue
            narrowed = narrow(settings.get(route.service, node), route)
            service = compiled_services.get(route.service)
            takes_token = forward_token and (
                route.service not in services or services[route.service].forward_token
            )
            compiled = _compile_route(route_name, route, service, narrowed, forward_token=takes_token)
            items.append((route.template, compiled))
        yield
    gateway = Gateway(
        name=name,
        hosts=document.hosts,
        authenticator=authenticator,
        consumers=consumers,
        trie=build_trie(items),
        path_policy=PathPolicy(frozenset(document.path_policy.allow)),
        trusted_proxies=document.networks,
        fixed_lines=f"Via: 1.1 authgate\r\nX-Gateway-Id: {name}\r\n".encode("ascii"),
        frontend=make_frontend(document.auth, node),
        trusts_unix=UNIX in document.trusted_proxies,
        services=tuple(compiled_services.values()),
    )
    return Compiled(gateway, clashes)


def compile_service(name: str, document: ServiceDocument) -> Service:
    """Compile a service: its targets with the Host line that each of them wants."""
    targets = tuple(
        Target(
            scheme=target.scheme,
            host=target.host,
            port=target.port,
            base_path=target.base_path.encode("ascii"),
            host_line=f"Host: {target.authority}\r\n".encode("ascii"),
            weight=weight,
            allow_link_local=document.allow_link_local,
            tls=_compile_tls(document) if target.scheme == "https" else None,
        )
        for target, weight in zip(document.targets, document.weights, strict=True)
    )
    check = document.health_check
    return Service(
        name,
        targets,
        preserve_host=document.preserve_host,
        balancing=_compile_balancing(document),
        health_check=None if check is None else _compile_check(check),
    )


def _compile_tls(document: ServiceDocument) -> UpstreamTls:
    tls = document.tls
    if tls is None:
        return DEFAULT_TLS
    return UpstreamTls(
        ca_file=tls.ca_file or "",
        cert_file=tls.cert_file or "",
        key_file=tls.key_file or "",
        server_name=(tls.server_name or "").strip("[]"),
        verify=tls.verify,
    )


def _compile_balancing(document: ServiceDocument) -> Balancing:
    on = document.hash_on
    names = (on.header or "", on.cookie or "") if isinstance(on, HashOnDocument) else ("", "")
    return Balancing(
        method=document.balance,
        hash_field=names[0].encode("ascii"),
        hash_cookie=names[1].encode("ascii"),
        max_failures=document.max_failures,
        eject_s=document.eject_s,
        failure_statuses=frozenset(document.failure_statuses),
        slow_start_s=document.slow_start_s,
        max_connections=document.max_connections,
        max_queue=document.max_queue,
        queue_timeout_s=document.queue_timeout_s,
    )


def _compile_check(check: HealthCheckDocument) -> HealthCheck:
    return HealthCheck(
        path=check.path.encode("ascii"),
        interval_s=check.interval_s,
        timeout_s=check.timeout_s,
        healthy=check.healthy,
        unhealthy=check.unhealthy,
        statuses=None if check.statuses is None else frozenset(check.statuses),
        host_line=b"" if check.host is None else f"Host: {check.host}\r\n".encode("ascii"),
    )


RoleSets = dict[tuple[str, ...], frozenset[str]]
"""Lets equal roles be one object."""


def compile_key(
    consumer: str, document: ConsumerDocument, digest: bytes, role_sets: RoleSets
) -> Identity | None:
    """Return what a key of the consumer stands for; None if the document has no such key."""
    for key_id, known, ends_at in document.all_keys():
        if known == digest:
            roles, lines = _roles_and_lines(consumer, document, role_sets)
            return _identity(consumer, roles, lines, key_id, ends_at, digest)
    return None


def compile_user(consumer: str, document: ConsumerDocument, role_sets: RoleSets) -> User | None:
    """Return who logs in with the consumer's passwords; None if it has none."""
    if document.password_hash is None and not document.passwords:
        return None
    passwords = document.all_passwords()
    username = document.login_name(consumer)
    roles, lines = _roles_and_lines(consumer, document, role_sets)
    return User(
        consumer,
        username,
        tuple(
            (text, _identity(consumer, roles, lines, password_id, ends_at, username, text))
            for password_id, text, ends_at in passwords
        ),
        roles,
        seconds_of(document.expires_at),
        lines.encode("ascii"),
    )


def _roles_and_lines(
    consumer: str, document: ConsumerDocument, role_sets: RoleSets
) -> tuple[frozenset[str], str]:
    roles = role_sets.get(document.roles)
    if roles is None:
        roles = role_sets[document.roles] = frozenset(document.roles)
    lines = f"X-Consumer-Id: {consumer}\r\n"
    if roles:
        # In the order of the document, each role once.
        lines += f"X-Consumer-Roles: {','.join(dict.fromkeys(document.roles))}\r\n"
    return roles, lines


def _identity(
    consumer: str,
    roles: frozenset[str],
    lines: str,
    credential_id: str,
    ends_at: float,
    name: bytes,
    secret: str = "",
) -> Identity:
    own_lines = f"{lines}X-Credential-Id: {credential_id}\r\n".encode("ascii")
    return Identity(consumer, credential_id, roles, ends_at, own_lines, name=name, secret=secret)


def narrow(settings: TimeoutSettings, document: Narrowing) -> TimeoutSettings:
    """Return `settings`, narrowed by what the document sets; nothing widens them."""
    own = [(name, value) for name in NARROWABLE if (value := getattr(document, name)) is not None]
    if not own:
        return settings
    changes = {}
    for name, value in own:
        before = getattr(settings, name)
        changes[name] = value if before is None else min(before, value)
    return replace(settings, **changes)


def build_snapshot(revision: int, gateways: Iterable[Gateway]) -> Snapshot:
    """Build what a worker serves. Each host belongs to the first gateway that lists it."""
    snapshot = Snapshot(revision=revision, ready=True)
    fields: set[bytes] = set()
    for gateway in gateways:
        snapshot.gateways[gateway.name] = gateway
        fields |= gateway.authenticator.credential_fields
        for host in gateway.hosts:
            if host == "*":
                snapshot.default = snapshot.default or gateway
            elif host.startswith("*."):
                snapshot.wildcards.setdefault(host[1:].encode("ascii"), gateway)
            else:
                snapshot.exact.setdefault(host.encode("ascii"), gateway)
    snapshot.credential_fields = frozenset(fields)
    return snapshot


def _compile_route(
    name: str,
    document: RouteDocument,
    service: Service | None,
    settings: TimeoutSettings,
    *,
    forward_token: bool,
) -> Route:
    return Route(
        name=name,
        method=document.method.encode("ascii"),
        public_path=document.public_path,
        secure=document.security == "SECURE",
        service_name=document.service,
        service=service,
        pieces=document.pieces,
        settings=settings,
        roles=frozenset(document.roles),
        scopes=frozenset(document.scopes),
        consumers=frozenset(document.consumers),
        forward_token=forward_token,
        upgrades=frozenset(name.encode("ascii") for name in document.upgrades),
    )


def _route_clash(gateway: str, name: str, document: RouteDocument, holder: str) -> RouteClash:
    problem = Problem(
        redis_key(DocumentKey("route", gateway, name)),
        "public_path",
        f"{document.method} {document.public_path}",
        f"the older route `{holder}` answers this method on these paths already, so this one is not served",
        "change or remove one of the two",
    )
    return RouteClash(name, holder, problem)
