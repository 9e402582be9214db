"""Bad documents of every kind: each gets its own clear message, and nothing else stops working."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from authgate_fast.config.check import check_documents
from authgate_fast.config.documents import MAX_DOCUMENT_BYTES, read_document
from authgate_fast.config.file import load_file
from authgate_fast.config.keys import DocumentKey, Unreadable, redis_key
from authgate_fast.config.problems import Problem
from authgate_fast.config.store import Configuration

GATEWAY: dict[str, Any] = {"hosts": ["shop.test"], "auth": {"type": "API_KEY"}}
SERVICE: dict[str, Any] = {"target_url": "http://catalog:8080"}
HTTPS: dict[str, Any] = {"target_url": "https://catalog"}
ROUTE: dict[str, Any] = {"method": "GET", "public_path": "/a/{id}", "service": "s", "security": "PUBLIC"}
CONSUMER: dict[str, Any] = {"api_key_sha256": "ab" * 32}
GOOD = {"gateway": GATEWAY, "service": SERVICE, "route": ROUTE, "consumer": CONSUMER}
SECRET = "hunter2-is-a-bad-password"

# (kind, what is set (None: taken out), field, what is found, words of the message, hint)
BAD: list[tuple[str, dict[str, Any], str, str, str, str]] = [
    ("gateway", {"hosts": None}, "hosts", "nothing", "this field is required", ""),
    ("gateway", {"hosts": []}, "hosts", "an empty list", "at least one host", ""),
    ("gateway", {"hosts": "shop.test"}, "hosts", '"shop.test"', "at least one host", "put it in a list"),
    ("gateway", {"hosts": ["https://shop.test/"]}, "hosts[0]", "", "without scheme and path", ""),
    ("gateway", {"hosts": ["shop.test:8080"]}, "hosts[0]", "", "without a port", "write shop.test"),
    ("gateway", {"hosts": ["a.*.test"]}, "hosts[0]", "", "one whole label at the start", ""),
    ("gateway", {"hosts": ["shop.test", "SHOP.test"]}, "hosts[1]", "", "shop.test stands here twice", ""),
    ("gateway", {"hosts": ["b\u00fccher.test"]}, "hosts[0]", "", "in ASCII", "write xn--bcher-kva.test"),
    ("gateway", {"auth": None}, "auth", "nothing", "a mapping with a type", ""),
    ("gateway", {"auth": "API_KEY"}, "auth", '"API_KEY"', "a mapping with a type", "write {type: API_KEY}"),
    (
        "gateway",
        {"auth": {"type": "JWT", "access_ttl_s": -1}},
        "auth.access_ttl_s",
        "-1",
        "from 1 to 86400",
        "",
    ),
    (
        "gateway",
        {"auth": {"type": "APIKEY"}},
        "auth.type",
        '"APIKEY"',
        "allowed: one of API_KEY",
        "`API_KEY`",
    ),
    (
        "gateway",
        {"auth": {"type": "API_KEY", "header": "Host"}},
        "auth.header",
        '"Host"',
        "cannot carry",
        "X-Api-Key",
    ),
    (
        "gateway",
        {"auth": {"type": "API_KEY", "header": "X Key"}},
        "auth.header",
        '"X Key"',
        "request field",
        "",
    ),
    ("gateway", {"path_policy": {"allow": ["semicolons"]}}, "path_policy.allow[0]", "", "", "`semicolon`"),
    ("gateway", {"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies[0]", "", "", "`10.0.0.0/8`"),
    ("gateway", {"trusted_proxies": ["unix:/run/a"]}, "trusted_proxies[0]", "", "an address or a range", ""),
    ("service", {"target_url": None}, "target_url", "", "either target_url or target_urls", ""),
    ("service", {"target_urls": ["http://b:1"]}, "target_url", "", "either target_url or target_urls", ""),
    (
        "service",
        {"target_url": "catalog:8080"},
        "target_url",
        "",
        "http:// or https://",
        "http://catalog:8080",
    ),
    ("service", {"target_url": "ftp://catalog"}, "target_url", "", "http:// or https://", ""),
    ("service", {"target_url": f"http://u:{SECRET}@h/"}, "target_url", "a text of", "no user name", ""),
    ("service", {"target_url": "http://unix:"}, "target_url", "", "http://unix:/run/app.sock:/v1", ""),
    ("service", {"target_url": "https://unix:/run/a"}, "target_url", "", "plain HTTP", "http://unix:/run/a"),
    ("service", {"target_url": "http://unix:/run/a:v1"}, "target_url", "", "a base path", "unix:/run/a:/v1"),
    ("service", {"tls": {"verify": False}}, "tls", "", "none of the targets", "https://"),
    ("service", HTTPS | {"tls": {"ca": "a.pem"}}, "tls.ca", "", "the fields here are ca_file", ""),
    ("service", HTTPS | {"tls": {"cert_file": "a.pem"}}, "tls.key_file", "", "go together", ""),
    ("service", HTTPS | {"tls": {"key_file": "a.pem"}}, "tls.cert_file", "", "go together", ""),
    ("service", HTTPS | {"tls": {"verify": False, "ca_file": "a"}}, "tls.ca_file", "", "nobody's word", ""),
    ("service", HTTPS | {"tls": {"server_name": "*.a.test"}}, "tls.server_name", "", "one name", ""),
    (
        "service",
        HTTPS | {"tls": {"server_name": "a.test:443"}},
        "tls.server_name",
        "",
        "without a port",
        "a.test",
    ),
    ("service", HTTPS | {"tls": {"ca_file": {"env": "A"}}}, "tls.ca_file", "", "the path of a PEM file", ""),
    ("service", {"target_url": "http://h/?a=1"}, "target_url", "", "no query", ""),
    ("service", {"target_url": "http://h/#a"}, "target_url", "", "no fragment", ""),
    ("service", {"target_url": "http://h/{id}"}, "target_url", "", "a route's target_path", ""),
    ("service", {"target_url": "http://h:99999/"}, "target_url", "", "from 1 to 65535", ""),
    (
        "service",
        {"target_url": "http://169.254.169.254/"},
        "target_url",
        "",
        "link-local",
        "allow_link_local",
    ),
    ("service", {"target_url": "http://2852039166/"}, "target_url", "", "four numbers", "169.254.169.254"),
    (
        "service",
        {"target_url": None, "target_urls": ["http://a", 3]},
        "target_urls[1]",
        "3",
        "{url, weight}",
        "",
    ),
    (
        "service",
        {"target_url": None, "target_urls": ["http://a", {"url": "ftp://b"}]},
        "target_urls[1].url",
        '"ftp://b"',
        "http:// or https://",
        "",
    ),
    (
        "service",
        {"target_url": None, "target_urls": [{"url": "http://a", "wieght": 2}]},
        "target_urls[0].wieght",
        "does not exist",
        "url, weight",
        "`weight`",
    ),
    (
        "service",
        {"target_url": None, "target_urls": [{"url": "http://a", "weight": 1001}]},
        "target_urls[0].weight",
        "1001",
        "to 1000",
        "",
    ),
    (
        "service",
        {"target_url": None, "target_urls": ["http://a", "http://a:80/"]},
        "target_urls[1]",
        "",
        "stands here twice",
        "",
    ),
    (
        "service",
        {"target_url": None, "target_urls": [{"url": "http://a", "weight": 0}]},
        "target_urls",
        "",
        "a weight above 0",
        "enabled: false",
    ),
    ("service", {"balance": "random"}, "balance", '"random"', "least_connections", ""),
    ("service", {"balance": "hash"}, "hash_on", "", "needs hash_on", "hash_on: address"),
    ("service", {"hash_on": "address"}, "hash_on", "", "belongs to balance: hash", "balance: hash"),
    ("service", {"balance": "hash", "hash_on": "adress"}, "hash_on", '"adress"', "address", "`address`"),
    ("service", {"balance": "hash", "hash_on": {}}, "hash_on", "", "one header or on one cookie", "header"),
    (
        "service",
        {"balance": "hash", "hash_on": {"header": "X-Forwarded-For"}},
        "hash_on.header",
        "",
        "cannot choose a target",
        "address",
    ),
    ("service", {"max_queue": 5}, "max_queue", "5", "without max_connections", "max_connections too"),
    ("service", {"max_connections": 0}, "max_connections", "0", "above zero", ""),
    ("service", {"failure_statuses": [200]}, "failure_statuses[0]", "200", "400 to 599", ""),
    ("service", {"health_check": {"path": "h"}}, "health_check.path", '"h"', "/healthz", ""),
    ("service", {"health_check": "/h"}, "health_check", '"/h"', "{path: /healthz", ""),
    (
        "service",
        {"health_check": {"path": "/h", "host": "a/b"}},
        "health_check.host",
        '"a/b"',
        "without scheme and path",
        "",
    ),
    (
        "service",
        {"health_check": {"path": "/h", "statuses": []}},
        "health_check.statuses",
        "",
        "good status",
        "leave",
    ),
    (
        "service",
        {"health_check": {"path": "/h", "statuses": [99]}},
        "health_check.statuses[0]",
        "99",
        "good statuses",
        "",
    ),
    ("service", {"target_url": None, "target_urls": []}, "target_urls", "", "at least one URL", ""),
    ("service", {"preserve_host": "yes"}, "preserve_host", '"yes"', "allowed: true", "write true"),
    ("service", {"connect_timeout_s": -1}, "connect_timeout_s", "-1", "above zero", ""),
    (
        "service",
        {"connect_timeout_s": "5s"},
        "connect_timeout_s",
        '"5s"',
        "seconds",
        "without quotes or unit",
    ),
    ("service", {"idle_timeout_s": 5}, "idle_timeout_s", "does not exist", "--limit", ""),
    ("route", {"security": None}, "security", "nothing", "PUBLIC (anybody may call) or SECURE", ""),
    ("route", {"security": "PUBLC"}, "security", '"PUBLC"', "allowed: PUBLIC", "`PUBLIC`"),
    ("route", {"method": "get"}, "method", '"get"', "one of GET, HEAD", "`GET`"),
    ("route", {"method": "CONNECT"}, "method", '"CONNECT"', "or ANY for all", ""),
    ("route", {"public_path": "a/{id}"}, "public_path", '"a/{id}"', "starts with '/'", ""),
    ("route", {"target_path": "/b/{ident}"}, "target_path", "", "{ident} is not in the public path", ""),
    ("route", {"service": "My Service"}, "service", '"My Service"', "the first a letter or digit", ""),
    ("route", {"roles": ["admin"]}, "roles", "", "a PUBLIC route asks nobody", "security: SECURE"),
    ("route", {"roles": "admin"}, "roles", '"admin"', "a list of names", "put it in a list"),
    ("route", {"securty": "PUBLIC"}, "securty", "does not exist", "the fields here are", "`security`"),
    ("route", {"max_body_bytes": True}, "max_body_bytes", "true", "whole number of bytes", ""),
    ("route", {"enabled": "no"}, "enabled", '"no"', "allowed: true or false", "write false"),
    ("consumer", {"api_key_sha256": SECRET}, "api_key_sha256", "a text of 25", "64 hex digits", ""),
    ("consumer", {"password": SECRET}, "password", "does not exist", "the fields here", "`passwords`"),
    ("consumer", {"password_hash": SECRET}, "password_hash", "a text of 25", "PHC string", ""),
    (
        "consumer",
        {"passwords": SECRET},
        "passwords",
        "a text of 25",
        "at most 4 passwords",
        "put it in a list",
    ),
    ("consumer", {"passwords": [SECRET]}, "passwords[0]", "a text of 25", "at most 4 passwords", ""),
    ("gateway", {"auth": SECRET}, "auth", "a text of 25", "allowed: a mapping with a type", "write {type"),
    ("consumer", {"expires_at": "2030-01-31"}, "expires_at", "", "with its zone", "2030-01-31T00:00:00Z"),
    ("consumer", {"expires_at": "2030-02-30T00:00:00Z"}, "expires_at", "", "RFC 3339", ""),
    ("consumer", {"expires_at": 1893456000}, "expires_at", "1893456000", "a moment such as", ""),
    ("consumer", {"roles": ["a,b"]}, "roles[0]", '"a,b"', "without commas", ""),
    (
        "consumer",
        {"api_keys": [{"id": "default", "sha256": "cd" * 32}]},
        "api_keys[0].id",
        "",
        "its own id",
        "",
    ),
    ("consumer", {"api_keys": [{"id": "b", "sha256": "AB" * 32}]}, "api_keys[0].sha256", "", "twice", ""),
    ("consumer", {"api_keys": [{"sha256": "cd" * 32}]}, "api_keys[0].id", "nothing", "is required", ""),
]

# Texts that are no document at all: (kind, text, what is found, words of the message)
RUBBISH: list[tuple[str, bytes, str, str]] = [
    ("consumer", b"", "0 bytes that are not JSON", "EOF"),
    ("consumer", SECRET.encode(), "25 bytes that are not JSON", "expected value at line 1 column 1"),
    ("route", b'{"method": "GET",}', "18 bytes that are not JSON", "trailing comma"),
    ("route", b"[]", "an empty list", "a mapping of fields"),
    ("service", b"null", "nothing (null)", "a mapping of fields"),
    ("service", b'{"target_url": "http://\xff"}', "bytes that are not JSON", "in UTF-8"),
    ("gateway", b"\x80\x04rubbish", "bytes that are not JSON", "in UTF-8"),
    (
        "route",
        json.dumps(ROUTE)[:-1].encode() + b', "security": "SECURE"}',
        "the field security twice",
        "each field once",
    ),
    ("service", b'{"description": "' + b"x" * MAX_DOCUMENT_BYTES + b'"}', "bytes", "a document has at most"),
    ("service", b"[" * 5000, "bytes that are not JSON", "recursion"),
]


def _with(kind: str, changes: dict[str, Any]) -> bytes:
    document = GOOD[kind] | changes
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def _key(kind: str) -> DocumentKey:
    return DocumentKey(kind, "shop", "shop" if kind == "gateway" else kind[0])


def _good_documents() -> dict[DocumentKey, bytes]:
    return {_key(kind): json.dumps(document).encode() for kind, document in GOOD.items()}


def _problems(kind: str, raw: bytes) -> list[Problem]:
    result = read_document(_key(kind), raw)
    assert isinstance(result, list)
    return result


@pytest.mark.parametrize(("kind", "changes", "field", "found", "message", "hint"), BAD)
def test_each_mistake_is_named_with_what_is_found_and_what_is_allowed(  # a row of the table
    kind: str, changes: dict[str, Any], field: str, found: str, message: str, hint: str
) -> None:
    (problem,) = _problems(kind, _with(kind, changes))
    assert problem.where == redis_key(_key(kind))
    assert problem.path == field
    assert found in problem.found
    assert message in problem.message
    assert hint in problem.hint
    assert bool(hint) == bool(problem.hint)
    assert SECRET not in str(problem)
    assert "\n" not in str(problem)
    for jargon in ("pydantic", "Input should", "String should", "Value error", "tuple", "dict", "object;"):
        assert jargon not in str(problem)


@pytest.mark.parametrize(("kind", "raw", "found", "message"), RUBBISH)
def test_a_text_that_is_no_document_is_described_and_not_shown(
    kind: str, raw: bytes, found: str, message: str
) -> None:
    (problem,) = _problems(kind, raw)
    assert found in problem.found
    assert message in problem.message
    assert SECRET not in str(problem)
    assert len(str(problem)) < 400


def test_all_messages_are_different() -> None:
    texts = {str(_problems(kind, _with(kind, changes))[0]) for kind, changes, *_ in BAD}
    assert len(texts) == len(BAD)


def test_every_mistake_of_a_document_is_reported_at_once() -> None:
    raw = _with("route", {"security": "PUBLC", "method": "GTE", "servise": "x", "public_path": "x"})
    assert {problem.path for problem in _problems("route", raw)} == {
        "security",
        "method",
        "servise",
        "public_path",
    }


@pytest.mark.parametrize("raw", [_with(kind, changes) for kind, changes, *_ in BAD] + [r[1] for r in RUBBISH])
def test_a_bad_document_is_refused_alone_and_the_last_good_version_stays(raw: bytes) -> None:
    kinds = [kind for kind, changes, *_ in BAD if _with(kind, changes) == raw]
    kind = (kinds or [r[0] for r in RUBBISH if r[1] == raw])[0]
    configuration = Configuration()
    configuration.replace_all(_good_documents())
    before = configuration.snapshot
    other = DocumentKey("service", "shop", "other")
    configuration.apply({_key(kind): raw, other: b'{"target_url": "http://other"}'})
    assert len(configuration.refused) == 1
    assert configuration.documents == _good_documents() | {other: b'{"target_url": "http://other"}'}
    gateway = configuration.snapshot.gateways["shop"]
    assert configuration.snapshot is not before
    assert configuration.snapshot.exact == {b"shop.test": gateway}
    assert gateway.consumers.keys.holders.keys() == {bytes.fromhex("ab" * 32)}
    leaf = gateway.trie.match([b"a", b"1"])
    assert leaf is not None
    assert leaf.by_method[b"GET"].service is not None
    configuration.apply({_key(kind): _good_documents()[_key(kind)]})
    assert configuration.refused == {}


def test_a_refusal_is_logged_once_and_goes_with_the_key(caplog: pytest.LogCaptureFixture) -> None:
    configuration = Configuration()
    bad = _with("route", {"security": "PUBLC", "method": "GTE"})
    with caplog.at_level(logging.ERROR, "authgate.config"):
        configuration.replace_all({_key("route"): bad})
        configuration.replace_all({_key("route"): bad})
        configuration.apply({_key("route"): bad})
    (record,) = caplog.records
    for part in ("authgate:route:shop:r", "method", "GTE", "1 more: security"):
        assert part in record.getMessage()
    assert list(configuration.refused) == ["route shop/r"]
    configuration.replace_all({})
    assert configuration.refused == {}
    assert configuration.documents == {}


def test_an_unreadable_document_is_refused_and_the_last_good_version_stays() -> None:
    configuration = Configuration()
    configuration.replace_all(_good_documents())
    revision = configuration.revision
    documents: dict[DocumentKey, bytes | Unreadable] = {**_good_documents()}
    documents[_key("route")] = Unreadable("the key holds a list; a document is a string")
    configuration.replace_all(documents)
    assert configuration.revision == revision
    assert configuration.documents == _good_documents()
    assert str(configuration.refused["route shop/r"]) == (
        "authgate:route:shop:r: the key holds a list; a document is a string"
    )
    configuration.replace_all(_good_documents())
    assert configuration.refused == {}


def test_the_same_mistakes_are_found_in_a_file_with_their_lines(tmp_path: Any) -> None:
    for kind, changes, field, *_ in BAD:
        gateway: dict[str, Any] = {**GATEWAY}
        document = json.loads(_with(kind, changes))
        path = "gateways.shop"
        if kind == "gateway":
            gateway = document
        else:
            gateway[f"{kind}s"] = {"x": document}
            path += f".{kind}s.x"
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps({"gateways": {"shop": gateway}}))
        loaded = load_file(file)
        (problem,) = loaded.problems
        assert problem.path == f"{path}.{field}"
        assert problem.where == f"{file}:1"


def test_good_documents_have_no_problems() -> None:
    assert check_documents(_good_documents()) == []
