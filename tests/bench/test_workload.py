from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from bench.cases import CASES, PUBLIC
from bench.workload import (
    BACKEND_BODY,
    CONSUMERS,
    DISTINCT_REQUESTS,
    PUBLIC_PREFIX,
    SEEN_PATH,
    gateway_documents,
    make_consumers,
    request_heads,
    wrk_script,
)

_CONSUMERS = make_consumers()


def _gateway() -> dict:
    return gateway_documents(_CONSUMERS, 9000)["gateways"]["bench"]


def _matches(target: str) -> list[dict]:
    return [
        route
        for route in _gateway()["routes"].values()
        if route["method"] == "GET" and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route["public_path"]), target)
    ]


def test_there_are_10_000_consumers_with_their_own_keys_and_1_000_routes() -> None:
    gateway = _gateway()
    assert len(gateway["consumers"]) == len({c.key for c in _CONSUMERS}) == CONSUMERS == 10_000
    assert len(gateway["routes"]) == 1_000
    assert {route["security"] for route in gateway["routes"].values()} == {"SECURE"}
    one = _CONSUMERS[17]
    digest = hashlib.sha256(one.key.encode()).hexdigest()
    assert gateway["consumers"][one.name]["api_key_sha256"] == one.digest == digest


def test_every_request_is_different_reads_one_secure_route_and_has_a_good_key() -> None:
    heads = request_heads(_CONSUMERS)
    assert len(set(heads)) == DISTINCT_REQUESTS == 1_000
    keys = [re.search(r"\r\nX-Api-Key: (\S+)\r\n", head)[1] for head in heads]
    assert len(set(keys)) == 1_000
    assert set(keys) <= {c.key for c in _CONSUMERS}
    targets = [head.split()[1] for head in heads]
    assert len({target.rpartition("/")[0] for target in targets}) == 250
    assert len(_matches(targets[3])) == 1
    assert all(head.endswith("\r\n\r\n") and head.count("\r\n\r\n") == 1 for head in heads)


def test_the_checked_path_is_one_of_the_routes_under_load() -> None:
    (route,) = _matches(PUBLIC_PREFIX + SEEN_PATH)
    assert route["target_path"] == "/resource-001/items/{id}"


def test_the_backend_answers_about_200_bytes_that_nginx_takes_literally() -> None:
    assert 180 <= len(BACKEND_BODY) <= 240
    assert not set(BACKEND_BODY) & set("'$\\")


def test_the_script_holds_each_request_on_one_line_of_printable_ascii() -> None:
    script = wrk_script(_CONSUMERS)
    assert script.isascii()
    assert len(re.findall(r'^"GET [^"]*\\r\\n\\r\\n",?$', script, re.MULTILINE)) == DISTINCT_REQUESTS


@pytest.mark.parametrize("name", CASES)
def test_each_request_of_a_case_is_on_one_of_its_routes(name: str) -> None:
    case = CASES[name]
    documents: Any = gateway_documents(_CONSUMERS, 9000, case=case, authority="cert.pem")
    head = request_heads(_CONSUMERS, case=case)[1]
    method, target, _ = head.split(" ", 2)
    found = [
        route
        for route in documents["gateways"]["bench"]["routes"].values()
        if route["method"] == method
        and "/resource-001/" in route["public_path"]
        and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route["public_path"]), target)
    ]
    assert len(found) == 1
    assert ("X-Api-Key: " in head) == (case.auth != PUBLIC)
    assert (f"\r\nContent-Length: {case.body_bytes}\r\n" in head) == (method == "POST")


def test_a_browser_sends_14_fields() -> None:
    assert request_heads(_CONSUMERS, case=CASES["browser"])[0].count("\r\n") == 1 + 14 + 1
