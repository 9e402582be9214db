from __future__ import annotations

import json
from typing import Any

import pytest

from authgate_fast.config.authenticators import make_authenticator
from authgate_fast.config.compile import (
    STEP,
    build_snapshot,
    compile_gateway,
    compile_gateway_steps,
    compile_key,
    compile_service,
    compile_user,
)
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.model import ConsumerDocument, GatewayDocument, RouteDocument, ServiceDocument
from authgate_fast.snapshot import Balancing, Consumers, Gateway, HealthCheck, Route, find_gateway


def _gateway(**fields: Any) -> GatewayDocument:
    return GatewayDocument.model_validate_json(
        json.dumps({"hosts": ["shop.test"], "auth": {"type": "API_KEY"}} | fields)
    )


def _service(**fields: Any) -> ServiceDocument:
    return ServiceDocument.model_validate_json(json.dumps({"target_url": "http://s"} | fields))


def _route(**fields: Any) -> RouteDocument:
    document = {"method": "GET", "public_path": "/a", "service": "s", "security": "PUBLIC"} | fields
    return RouteDocument.model_validate_json(json.dumps(document))


def _consumer(**fields: Any) -> ConsumerDocument:
    return ConsumerDocument.model_validate_json(json.dumps(fields))


CONSUMERS = Consumers()
AUTHENTICATOR = make_authenticator("shop", _gateway(), CONSUMERS)


def _compile(
    services: dict[str, ServiceDocument], routes: dict[str, RouteDocument], limits: Limits = DEFAULTS
) -> Gateway:
    return _compiled("shop", _gateway(), services, routes, limits)


def _compiled(
    name: str,
    document: GatewayDocument,
    services: dict[str, ServiceDocument] | None = None,
    routes: dict[str, RouteDocument] | None = None,
    limits: Limits = DEFAULTS,
) -> Gateway:
    consumers = Consumers()
    authenticator = make_authenticator(name, document, consumers)
    return compile_gateway(name, document, services or {}, routes or {}, authenticator, consumers, limits)


def _get(gateway: Gateway, *segments: bytes, method: bytes = b"GET") -> Route:
    leaf = gateway.trie.match(list(segments))
    assert leaf is not None
    return leaf.by_method[method]


def test_a_gateway_is_compiled_with_its_lines_and_shares_the_credentials_it_was_given() -> None:
    consumers = Consumers()
    document = _gateway(
        auth={"type": "API_KEY", "header": "X-Key"},
        trusted_proxies=["10.0.0.0/8"],
        path_policy={"allow": ["semicolon"]},
    )
    authenticator = make_authenticator("shop", document, consumers)
    gateway = compile_gateway("shop", document, {}, {}, authenticator, consumers, DEFAULTS)
    assert gateway.fixed_lines == b"Via: 1.1 authgate\r\nX-Gateway-Id: shop\r\n"
    assert gateway.consumers is consumers
    assert gateway.authenticator is authenticator
    assert gateway.authenticator.credential_fields == {b"x-key"}
    assert [str(network) for network in gateway.trusted_proxies] == ["10.0.0.0/8"]
    assert gateway.path_policy.allow == {"semicolon"}


def test_a_target_has_its_host_line_without_the_port_of_its_scheme() -> None:
    urls = ["http://a:80/", "https://b:8443/v1/", "http://[::1]:443", "https://c"]
    service = compile_service("s", _service(target_url=None, target_urls=urls, preserve_host=True))
    assert service.preserve_host
    assert [(t.endpoint[:3], t.base_path, t.host_line) for t in service.targets] == [
        (("http", "a", 80), b"", b"Host: a\r\n"),
        (("https", "b", 8443), b"/v1", b"Host: b:8443\r\n"),
        (("http", "::1", 443), b"", b"Host: [::1]:443\r\n"),
        (("https", "c", 443), b"", b"Host: c\r\n"),
    ]


def test_how_a_service_is_balanced_goes_into_the_snapshot() -> None:
    plain = compile_service("s", _service())
    assert (plain.is_balanced, plain.balancing, plain.health_check) == (False, Balancing(), None)
    service = compile_service(
        "s",
        _service(
            target_url=None,
            target_urls=["http://a", {"url": "http://b/v1", "weight": 7}],
            balance="hash",
            hash_on={"header": "X-Tenant"},
            max_failures=3,
            eject_s=7,
            failure_statuses=[503],
            slow_start_s=0,
            max_connections=9,
            max_queue=8,
            queue_timeout_s=6,
            health_check={"path": "/h?x", "interval_s": 4, "statuses": [204], "host": "H:81"},
            allow_link_local=True,
        ),
    )
    assert service.is_balanced
    assert [(t.url, t.weight, t.allow_link_local) for t in service.targets] == [
        ("http://a:80", 1, True),
        ("http://b:80/v1", 7, True),
    ]
    assert service.balancing == Balancing(
        "hash", b"x-tenant", b"", 3, 7, frozenset({503}), 0, max_connections=9, max_queue=8, queue_timeout_s=6
    )
    assert service.health_check == HealthCheck(b"/h?x", 4, 2, 2, 3, frozenset({204}), b"Host: h:81\r\n")


@pytest.mark.parametrize(
    ("hash_on", "field", "cookie"),
    [("address", b"", b""), ({"cookie": "SID"}, b"", b"SID"), ({"header": "Host"}, b"host", b"")],
)
def test_what_is_hashed_is_a_field_a_cookie_or_the_address(
    hash_on: object, field: bytes, cookie: bytes
) -> None:
    balancing = compile_service("s", _service(balance="hash", hash_on=hash_on)).balancing
    assert (balancing.hash_field, balancing.hash_cookie) == (field, cookie)


@pytest.mark.parametrize(
    "more",
    [
        {"max_connections": 5},
        {"health_check": {"path": "/h"}},
        {"target_url": None, "target_urls": ["http://a", "http://b"]},
    ],
)
def test_a_service_is_balanced_only_if_there_is_something_to_decide(more: dict[str, object]) -> None:
    assert compile_service("s", _service(**more)).is_balanced


def test_a_gateway_knows_its_services_also_those_without_a_route() -> None:
    gateway = _compile({"s": _service(), "off": _service(enabled=False)}, {})
    assert [service.name for service in gateway.services] == ["s"]
    assert gateway.with_hosts(("other",)).services is gateway.services


def test_limits_are_narrowed_by_service_and_route_and_never_widened() -> None:
    services = {"s": _service(body_timeout_s=10, connect_timeout_s=100, max_body_bytes=1000)}
    routes = {
        "plain": _route(public_path="/plain"),
        "own": _route(public_path="/own", body_timeout_s=20, connect_timeout_s=2, max_body_bytes=10),
        "alone": _route(public_path="/alone", service="none", max_body_bytes=5000),
    }
    gateway = _compile(services, routes)
    plain, own = _get(gateway, b"plain").settings, _get(gateway, b"own").settings
    assert (plain.body_timeout_s, plain.connect_timeout_s, plain.max_body_bytes) == (10, 5, 1000)
    assert (own.body_timeout_s, own.connect_timeout_s, own.max_body_bytes) == (10, 2, 10)
    assert _get(gateway, b"alone").settings.max_body_bytes == 5000
    assert _get(gateway, b"alone").settings.first_byte_timeout_s == DEFAULTS.first_byte_timeout_s
    capped = _compile(services, routes, Limits(max_body_bytes=7))
    assert _get(capped, b"plain").settings.max_body_bytes == 7


def test_a_route_without_a_working_service_has_none() -> None:
    services = {"off": _service(enabled=False), "on": _service()}
    routes = {
        name: _route(public_path=f"/{name}", service=name, method="ANY") for name in ("off", "on", "missing")
    }
    gateway = _compile(services, routes)
    found = {}
    for name in routes:
        leaf = gateway.trie.match([name.encode()])
        assert leaf is not None
        assert leaf.any_route is not None
        found[name] = leaf.any_route.service is not None
    assert found == {"off": False, "on": True, "missing": False}


def test_a_route_keeps_what_narrows_its_callers() -> None:
    route = _get(
        _compile({}, {"r": _route(security="SECURE", roles=["a", "b"], scopes=["s"], consumers=["c"])}), b"a"
    )
    assert route.secure
    assert (route.roles, route.scopes, route.consumers) == ({"a", "b"}, {"s"}, {"c"})


def test_a_disabled_route_is_not_there_and_holds_no_claim() -> None:
    gateway = _compile({}, {"off": _route(enabled=False), "on": _route()})
    assert _get(gateway, b"a").name == "on"
    assert _compile({}, {"off": _route(enabled=False)}).trie.match([b"a"]) is None


def test_of_two_routes_of_one_shape_and_method_the_first_is_served() -> None:
    routes = {
        "old": _route(public_path="/a/{id}"),
        "new": _route(public_path="/a/{other}"),
        "post": _route(public_path="/a/{x}", method="POST"),
        "any": _route(public_path="/a/{y}", method="ANY"),
    }
    steps = compile_gateway_steps("shop", _gateway(), {}, routes, AUTHENTICATOR, CONSUMERS, DEFAULTS)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            gateway, clashes = stop.value
            break
    assert _get(gateway, b"a", b"1").name == "old"
    assert _get(gateway, b"a", b"1", method=b"POST").name == "post"
    ((route, holder, problem),) = clashes
    assert (route, holder) == ("new", "old")
    assert "`old`" in problem.message


def test_compiling_pauses_after_every_few_routes() -> None:
    routes = {f"r{n}": _route(public_path=f"/{n}") for n in range(STEP * 3 + 1)}
    assert (
        len(list(compile_gateway_steps("shop", _gateway(), {}, routes, AUTHENTICATOR, CONSUMERS, DEFAULTS)))
        == 4
    )


def test_a_credential_carries_its_identity_lines_and_shares_its_roles() -> None:
    role_sets: dict[tuple[str, ...], frozenset[str]] = {}
    consumer = _consumer(
        api_key_sha256="ab" * 32, api_keys=[{"id": "k2", "sha256": "cd" * 32}], roles=["b", "a", "b"]
    )
    assert compile_user("app", consumer, role_sets) is None
    assert consumer.key_digests() == [b"\xab" * 32, b"\xcd" * 32]
    assert compile_key("app", consumer, b"\xef" * 32, role_sets) is None
    one, two = (compile_key("app", consumer, digest, role_sets) for digest in consumer.key_digests())
    assert one is not None
    assert two is not None
    assert one.identity_lines == (
        b"X-Consumer-Id: app\r\nX-Consumer-Roles: b,a\r\nX-Credential-Id: default\r\n"
    )
    assert two.identity_lines == b"X-Consumer-Id: app\r\nX-Consumer-Roles: b,a\r\nX-Credential-Id: k2\r\n"
    assert one.roles == {"a", "b"}
    other = compile_key(
        "b", _consumer(api_key_sha256="ef" * 32, roles=["b", "a", "b"]), b"\xef" * 32, role_sets
    )
    assert other is not None
    assert other.roles is one.roles is two.roles


def test_a_consumer_without_roles_sends_no_empty_roles_line() -> None:
    credential = compile_key("app", _consumer(api_key_sha256="ab" * 32), b"\xab" * 32, {})
    assert credential is not None
    assert credential.identity_lines == b"X-Consumer-Id: app\r\nX-Credential-Id: default\r\n"


def test_a_snapshot_finds_gateways_by_exact_wildcard_and_any_host() -> None:
    gateways = [
        _compiled("a", _gateway(hosts=["a.test", "*.b.test"])),
        _compiled("b", _gateway(hosts=["x.b.test", "*"])),
        _compiled("c", _gateway(hosts=["*.c.b.test"])),
    ]
    snapshot = build_snapshot(7, gateways)
    assert (snapshot.revision, snapshot.ready) == (7, True)
    assert snapshot.credential_fields == {b"x-api-key"}
    assert snapshot.field_memo == {}
    hosts = {"a.test": "a", "y.b.test": "a", "x.b.test": "b", "z.c.b.test": "c", "b.test": "b", "other": "b"}
    for host, name in hosts.items():
        found = find_gateway(snapshot, host.encode())
        assert found is not None
        assert found.name == name
