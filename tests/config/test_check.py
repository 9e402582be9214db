from __future__ import annotations

import json
from typing import Any

from authgate_fast.config.check import check_documents
from authgate_fast.config.keys import DocumentKey, redis_key

GATEWAY = {"hosts": ["shop.test"], "auth": {"type": "API_KEY"}}
ROUTE = {"method": "GET", "public_path": "/a/{id}", "service": "s", "security": "SECURE"}


def _documents(**changes: Any) -> dict[DocumentKey, bytes]:
    documents = {
        "gateway:shop": GATEWAY,
        "service:shop:s": {"target_url": "http://s"},
        "route:shop:r": ROUTE,
        "consumer:shop:c": {"api_key_sha256": "ab" * 32},
    } | {name.replace("__", ":"): document for name, document in changes.items()}
    found = {}
    for name, document in documents.items():
        if document is not None:
            kind, *names = name.split(":")
            found[DocumentKey(kind, names[0], names[-1])] = json.dumps(document).encode()
    return found


def _said(**changes: Any) -> list[str]:
    return [str(problem) for problem in check_documents(_documents(**changes))]


def test_documents_that_fit_together_have_no_problems() -> None:
    assert _said(consumer__shop__off={"enabled": False, "api_key_sha256": "ab" * 32}) == []


def test_a_route_to_a_missing_service_is_a_problem() -> None:
    (said,) = _said(route__shop__r={**ROUTE, "service": "s1"})
    assert said == (
        'authgate:route:shop:r: service: found "s1"; there is no such service in the gateway `shop` '
        "(did you mean `s`?)"
    )


def test_a_disabled_service_is_there() -> None:
    assert _said(service__shop__s={"target_url": "http://s", "enabled": False}) == []


def test_a_service_of_another_gateway_does_not_count() -> None:
    said = _said(
        service__shop__s=None,
        service__b__s={"target_url": "http://s"},
        gateway__b={**GATEWAY, "hosts": ["b"]},
    )
    assert len(said) == 1
    assert "authgate:route:shop:r: service" in said[0]


def test_a_document_of_a_missing_gateway_is_a_problem() -> None:
    said = _said(gateway__shop=None)
    assert [line.partition(": ")[0] for line in said] == [
        "authgate:consumer:shop:c",
        "authgate:route:shop:r",
        "authgate:service:shop:s",
    ]
    assert all("there is no such gateway" in line for line in said)


def test_two_routes_of_one_shape_and_method_are_a_problem() -> None:
    (said,) = _said(route__shop__z={**ROUTE, "public_path": "/a/{other}"})
    assert said.startswith(
        "authgate:route:shop:z: public_path: found GET /a/{other}; the route shop/r answers"
    )
    assert _said(route__shop__z={**ROUTE, "method": "ANY"}) == []
    assert _said(route__shop__z={**ROUTE, "enabled": False}) == []


def test_one_host_in_two_gateways_is_a_problem() -> None:
    (said,) = _said(gateway__zoo={**GATEWAY, "hosts": ["zoo.test", "SHOP.test"]})
    assert said.startswith(
        'authgate:gateway:zoo: hosts[1]: found "shop.test"; the gateway shop has this host'
    )
    assert _said(gateway__zoo={**GATEWAY, "enabled": False}) == []


def test_one_key_of_two_consumers_of_a_gateway_is_a_problem_that_does_not_show_it() -> None:
    (said,) = _said(consumer__shop__d={"api_keys": [{"id": "k", "sha256": "AB" * 32}]})
    assert said.startswith("authgate:consumer:shop:d: found the key k; the consumer shop/c has the same key")
    assert "abab" not in said
    other = {"api_key_sha256": "ab" * 32}
    assert _said(consumer__zoo__d=other, gateway__zoo={**GATEWAY, "hosts": ["zoo"]}) == []


def test_a_route_for_a_consumer_that_is_nobody_is_a_problem() -> None:
    (said,) = _said(route__shop__r={**ROUTE, "consumers": ["c", "nobody"]})
    assert said.startswith('authgate:route:shop:r: consumers[1]: found "nobody"; there is no such consumer')


def test_a_broken_document_is_reported_once_and_counts_as_there() -> None:
    (said,) = _said(service__shop__s={"target_url": "s"})
    assert said.startswith(redis_key(DocumentKey("service", "shop", "s")) + ": target_url")


def _auth(kind: str) -> dict[str, Any]:
    more = {"issuer": "https://iam.test", "client_id": "c"} if kind in ("OAUTH2", "BFF") else {}
    return {**GATEWAY, "auth": {"type": kind, **more}}


def test_a_route_under_the_segment_that_the_gateway_answers_itself_is_a_problem() -> None:
    for kind, path in (
        ("JWT", "/auth/x"),
        ("BFF", "/bff/me"),
        ("BFF", "/bff/{rest*}"),
        ("JWT", "/%61uth/{a}"),
    ):
        (said,) = _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "public_path": path})
        assert f'authgate:route:shop:r: public_path: found "{path}"; a {kind} gateway answers' in said
    for kind, path in (
        ("JWT", "/bff/x"),
        ("BFF", "/auth/x"),
        ("API_KEY", "/auth/x"),
        ("JWT", "/auth"),
        ("JWT", "/{a}/x"),
    ):
        assert _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "public_path": path}) == []


def test_a_condition_that_no_caller_of_the_gateway_can_meet_is_a_problem() -> None:
    for kind in ("API_KEY", "BASIC", "JWT"):
        (said,) = _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "scopes": ["read"]})
        assert f"a {kind} gateway carries no scopes" in said
        assert _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "consumers": ["c"]}) == []
    for kind in ("OAUTH2", "BFF"):
        (said,) = _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "consumers": ["c"]})
        assert "users of its identity provider, not consumers" in said
        assert _said(gateway__shop=_auth(kind), route__shop__r={**ROUTE, "scopes": ["read"]}) == []
