"""The decisions and their order: which refusal wins, who is let in, what OPTIONS and HEAD get."""

from __future__ import annotations

import pytest

from authgate_fast.decision import Allowed, Client, Forward, Refusal
from authgate_fast.errors import Reason
from authgate_fast.plan import SERVER_ALLOW
from authgate_fast.snapshot import Balancing, Snapshot
from tests.plan_world import (
    BACKEND,
    BASED,
    FRESH,
    PEER,
    SHOP,
    Fields,
    ask,
    forward,
    make_snapshot,
    refusal,
    with_star,
)

KEY = (b"X-Api-Key", b"one")
READER = (b"X-Api-Key", b"two")
BIG = (b"Content-Length", b"11")
BAD_FRAMING = [(b"Content-Length", b"1"), (b"Content-Length", b"1")]

# --- the order (CONVENTIONS section 1): each request is wrong twice or more, the earlier mistake answers --


@pytest.mark.parametrize(
    ("what", "method", "target", "host", "fields", "expected"),
    [
        ("400 framing before 501", b"BREW", b"/", b"shop.localhost", BAD_FRAMING, Reason.BAD_REQUEST),
        ("400 framing before host", b"GET", b"/", b"!", BAD_FRAMING, Reason.BAD_REQUEST),
        (
            "417 before 404",
            b"POST",
            b"/nowhere",
            b"shop.localhost",
            [(b"Expect", b"x")],
            Reason.EXPECTATION_FAILED,
        ),
        ("501 before host", b"BREW", b"/", b"!", [], Reason.METHOD_NOT_IMPLEMENTED),
        ("501 before 404 gateway", b"BREW", b"/", b"nobody.localhost", [], Reason.METHOD_NOT_IMPLEMENTED),
        ("501 before 404 route", b"BREW", b"/nowhere", b"shop.localhost", [], Reason.METHOD_NOT_IMPLEMENTED),
        ("501 before 405", b"TRACE", b"/products/1", b"shop.localhost", [], Reason.METHOD_NOT_IMPLEMENTED),
        ("501 for lower case", b"get", b"/", b"shop.localhost", [], Reason.METHOD_NOT_IMPLEMENTED),
        (
            "501 for a tunnel",
            b"CONNECT",
            b"shop.localhost:80",
            b"shop.localhost",
            [],
            Reason.METHOD_NOT_IMPLEMENTED,
        ),
        ("host before gateway", b"GET", b"/../x", b"!", [], Reason.INVALID_HOST),
        ("gateway before path", b"GET", b"/../x", b"nobody.localhost", [], Reason.GATEWAY_NOT_FOUND),
        ("path before route", b"GET", b"/a/../nowhere", b"shop.localhost", [], Reason.INVALID_PATH),
        (
            "path before route that matches",
            b"GET",
            b"/any/%2e%2e/x",
            b"shop.localhost",
            [],
            Reason.INVALID_PATH,
        ),
        ("query before route", b"GET", b"/nowhere?a b", b"shop.localhost", [], Reason.INVALID_PATH),
        ("route before method", b"PUT", b"/nowhere", b"shop.localhost", [], Reason.ROUTE_NOT_FOUND),
        ("405 before 413", b"PUT", b"/products/1", b"shop.localhost", [BIG], Reason.METHOD_NOT_ALLOWED),
        ("405 before 401", b"DELETE", b"/private", b"shop.localhost", [], Reason.METHOD_NOT_ALLOWED),
        ("404 before 401", b"GET", b"/private/x", b"shop.localhost", [], Reason.ROUTE_NOT_FOUND),
        ("413 before 401", b"POST", b"/small-private", b"shop.localhost", [BIG], Reason.BODY_TOO_LARGE),
        ("401 before 503", b"GET", b"/private-dead", b"shop.localhost", [], Reason.CREDENTIALS_MISSING),
        ("403 after 401", b"GET", b"/readers", b"shop.localhost", [], Reason.CREDENTIALS_MISSING),
        (
            "503 after the key",
            b"GET",
            b"/private-dead",
            b"shop.localhost",
            [KEY],
            Reason.SERVICE_NOT_CONFIGURED,
        ),
        ("503 public", b"GET", b"/dead", b"shop.localhost", [], Reason.SERVICE_NOT_CONFIGURED),
    ],
)
def test_the_earlier_decision_answers(
    what: str, method: bytes, target: bytes, host: bytes, fields: Fields, expected: Reason
) -> None:
    assert refusal(method, target, fields, host=host).reason is expected, what


def test_an_empty_snapshot_is_not_ready_yet() -> None:
    assert refusal(snapshot=Snapshot()).reason is Reason.NOT_READY
    assert refusal(snapshot=Snapshot(ready=True)).reason is Reason.GATEWAY_NOT_FOUND


@pytest.mark.parametrize(
    ("length", "fits"), [(b"0", True), (b"10", True), (b"11", False), (b"9" * 18, False)]
)
def test_an_announced_body_is_measured_before_anything_is_asked(length: bytes, fits: bool) -> None:
    found = ask(b"POST", b"/small", [(b"Content-Length", length)])
    assert isinstance(found, Forward) == fits
    if isinstance(found, Refusal):
        assert found.reason is Reason.BODY_TOO_LARGE


# --- host and target forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "minor", "expected"),
    [
        (b"shop.localhost", 1, None),
        (b"SHOP.localhost:8080", 1, None),
        (b"shop.localhost.", 1, None),
        (b" shop.localhost\t", 1, None),
        (b"a.b.shop.localhost", 1, None),
        (b"partner.localhost", 1, Reason.ROUTE_NOT_FOUND),
        (b"localhost", 1, Reason.GATEWAY_NOT_FOUND),
        (b"[::1]:80", 1, Reason.GATEWAY_NOT_FOUND),
        (b"shop.localhost, shop.localhost", 1, Reason.INVALID_HOST),
        (b"user@shop.localhost", 1, Reason.INVALID_HOST),
        (b"", 1, Reason.INVALID_HOST),
        (None, 1, Reason.INVALID_HOST),
        (None, 0, Reason.GATEWAY_NOT_FOUND),
        (b"shop.localhost", 0, None),
        (b"!", 0, Reason.INVALID_HOST),
    ],
)
def test_the_host_decides_the_gateway(host: bytes | None, minor: int, expected: Reason | None) -> None:
    found = ask(host=host, minor=minor)
    assert (found.reason if isinstance(found, Refusal) else None) is expected


def test_http_1_0_without_host_is_served_by_the_star_gateway_only() -> None:
    star = with_star(make_snapshot())
    assert forward(host=None, minor=0, snapshot=star).gateway.name == "shop"
    assert refusal(host=None, minor=1, snapshot=star).reason is Reason.INVALID_HOST


def test_an_empty_host_on_http_1_1_is_refused_even_behind_an_http_1_0_request_without_one() -> None:
    star, client = with_star(make_snapshot()), Client(PEER)
    forward(host=None, minor=0, snapshot=star, client=client)
    assert refusal(host=b"", snapshot=star, client=client).reason is Reason.INVALID_HOST
    absolute = refusal(b"GET", b"http:///", host=None, minor=0, snapshot=star, client=client)
    assert absolute.reason is Reason.INVALID_HOST


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (b"http://shop.localhost/", b"shop.localhost", None),
        (b"https://shop.localhost/", b"shop.localhost", Reason.BAD_REQUEST),
        (b"HTTP://SHOP.localhost/", b"shop.LOCALHOST", None),
        (b"http://shop.localhost:81/", b"shop.localhost:81", None),
        (b"http://shop.localhost", b"shop.localhost", None),
        (b"http://shop.localhost?a=/b", b"shop.localhost", None),
        (b"http://shop.localhost/", b" shop.localhost ", None),
        (b"http://partner.localhost/", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://shop.localhost:80/", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://shop.localhost./", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://shop.localhost@partner.localhost/", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://u@shop.localhost/", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://u@shop.localhost/", b"u@shop.localhost", Reason.INVALID_HOST),
        (b"http:///", b"shop.localhost", Reason.INVALID_HOST),
        (b"http://shop.localhost/", None, Reason.INVALID_HOST),
        (b"http://shop.localhost//", b"shop.localhost", Reason.INVALID_PATH),
        (b"http://shop.localhost/#x", b"shop.localhost", Reason.INVALID_PATH),
        (b"http://shop.localhost#x", b"shop.localhost", Reason.INVALID_PATH),
        (b"http://shop.localhost/nowhere", b"shop.localhost", Reason.ROUTE_NOT_FOUND),
        (b"ftp://shop.localhost/", b"shop.localhost", Reason.BAD_REQUEST),
        (b"shop.localhost:80", b"shop.localhost", Reason.BAD_REQUEST),
        (b"*", b"shop.localhost", Reason.BAD_REQUEST),
        (b"", b"shop.localhost", Reason.BAD_REQUEST),
        (b"?a", b"shop.localhost", Reason.BAD_REQUEST),
        (b"\\", b"shop.localhost", Reason.BAD_REQUEST),
        (b"//shop.localhost/", b"shop.localhost", Reason.INVALID_PATH),
    ],
)
def test_an_absolute_target_must_name_the_host_and_no_other_form_is_served(
    target: bytes, host: bytes | None, expected: Reason | None
) -> None:
    found = ask(b"GET", target, host=host)
    assert (found.reason if isinstance(found, Refusal) else None) is expected


@pytest.mark.parametrize(
    ("scheme", "peer_scheme", "trusted", "served"),
    [
        (b"http", b"http", "", True),
        (b"https", b"https", "", True),
        (b"https", b"http", "", False),
        (b"http", b"https", "", False),
        (b"https", b"http", "192.0.2.0/24", True),
    ],
)
def test_an_absolute_target_has_the_scheme_it_came_by_unless_a_trusted_proxy_sent_it(
    scheme: bytes, peer_scheme: bytes, trusted: str, served: bool
) -> None:
    """RFC 9110 section 7.4: a request for an https URI came over TLS, or through a gateway that is trusted."""
    found = ask(
        b"GET",
        scheme + b"://shop.localhost/",
        snapshot=make_snapshot(trusted=trusted),
        client=Client(PEER, peer_scheme),
    )
    assert isinstance(found, Forward) == served
    assert isinstance(found, Forward) or found.reason is Reason.BAD_REQUEST


def test_an_absolute_target_needs_the_host_on_http_1_0_too() -> None:
    star = with_star(make_snapshot())
    found = refusal(b"GET", b"http://shop.localhost/", host=None, minor=0, snapshot=star)
    assert found.reason is Reason.INVALID_HOST


# --- methods --------------------------------------------------------------------------------------------


def test_405_lists_the_methods_of_the_path() -> None:
    found = refusal(b"PUT", b"/products/1")
    assert found.reason is Reason.METHOD_NOT_ALLOWED
    assert found.extra_lines == b"Allow: GET, HEAD, OPTIONS\r\n"
    assert refusal(b"GET", b"/products").extra_lines == b"Allow: OPTIONS, POST\r\n"


def test_head_is_served_by_the_get_route_and_stays_head() -> None:
    found = forward(b"HEAD", b"/products/1")
    assert found.route.method == b"GET"
    assert found.head.startswith(b"HEAD /items/1 HTTP/1.1\r\n")
    assert refusal(b"HEAD", b"/private").reason is Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        (b"/products/1", b"GET, HEAD, OPTIONS"),
        (b"/private", b"GET, HEAD, OPTIONS"),
        (b"/products", b"OPTIONS, POST"),
        (b"http://shop.localhost/private", b"GET, HEAD, OPTIONS"),
        (b"http://shop.localhost/", b"GET, HEAD, OPTIONS"),
        (b"http://shop.localhost", SERVER_ALLOW),  # RFC 9112 section 3.2.4
        (b"*", SERVER_ALLOW),
    ],
)
def test_options_is_answered_with_allow_and_asks_for_no_credential(target: bytes, allow: bytes) -> None:
    found = ask(b"OPTIONS", target)
    assert isinstance(found, Allowed)
    assert found.allow == allow
    assert found.request_id == FRESH


def test_options_goes_to_a_route_of_its_own_and_to_an_any_route() -> None:
    assert refusal(b"OPTIONS", b"/own-options").reason is Reason.CREDENTIALS_MISSING
    assert forward(b"OPTIONS", b"/own-options", [KEY]).head.startswith(b"OPTIONS /o HTTP/1.1\r\n")
    assert forward(b"OPTIONS", b"/any/x").head.startswith(b"OPTIONS /x HTTP/1.1\r\n")
    assert refusal(b"OPTIONS", b"/nowhere").reason is Reason.ROUTE_NOT_FOUND
    assert refusal(b"OPTIONS", b"*", host=b"nobody.localhost").reason is Reason.GATEWAY_NOT_FOUND


# --- the connection's memory ----------------------------------------------------------------------------


def test_a_client_that_changes_host_changes_gateway() -> None:
    snapshot, client = make_snapshot(), Client(PEER)
    for _ in range(2):
        assert forward(b"GET", b"/private", [KEY], snapshot=snapshot, client=client).gateway.name == "shop"
        found = refusal(
            b"GET", b"/private", [KEY], host=b"partner.localhost", snapshot=snapshot, client=client
        )
        assert found.gateway is not None
        assert found.gateway.name == "partner"
        nobody = refusal(host=b"nobody.localhost", snapshot=snapshot, client=client)
        assert nobody.reason is Reason.GATEWAY_NOT_FOUND
        assert refusal(host=b"!", snapshot=snapshot, client=client).reason is Reason.INVALID_HOST


def test_a_connection_remembers_the_gateway_of_its_host() -> None:
    snapshot, client = make_snapshot(), Client(PEER)
    forward(snapshot=snapshot, client=client)
    assert client.snapshot is snapshot
    assert client.host == b"shop.localhost"
    assert client.gateway is snapshot.gateways["shop"]


def test_a_new_snapshot_counts_from_the_next_request_on() -> None:
    client = Client(PEER)
    forward(snapshot=make_snapshot(), client=client)
    assert (
        refusal(snapshot=Snapshot(revision=2, ready=True), client=client).reason is Reason.GATEWAY_NOT_FOUND
    )


def test_a_plan_names_what_it_chose() -> None:
    snapshot = make_snapshot()
    found = forward(b"GET", b"/products/1", snapshot=snapshot)
    assert found.gateway is snapshot.gateways["shop"]
    assert found.route.name == "GET /products/{id}"
    assert found.service is found.route.service
    assert found.target is BACKEND
    assert found.request_id == FRESH


def test_a_head_is_written_anew_for_the_target_that_is_chosen() -> None:
    found = forward(b"GET", b"/pair?q=1", [(b"X-A", b"b")])
    first = found.head
    assert (found.target, first.partition(b"X-A")[0]) == (
        BACKEND,
        b"GET /?q=1 HTTP/1.1\r\nHost: backend.internal:8080\r\n",
    )
    found.aim_at(BASED)
    assert found.target is BASED
    assert found.head == b"GET /v2/?q=1 HTTP/1.1\r\nHost: other.internal\r\nX-A" + first.partition(b"X-A")[2]
    found.aim_at(BACKEND)
    assert found.head == first


def test_a_kept_host_stays_whatever_the_target_is() -> None:
    found = forward(b"GET", b"/pair", snapshot=make_snapshot(preserve_host=True))
    found.aim_at(BASED)
    assert found.head.startswith(b"GET /v2/ HTTP/1.1\r\nHost: shop.localhost\r\n")


def test_a_service_with_one_target_has_nothing_to_choose() -> None:
    assert forward(b"GET", b"/products/1").parts is None


@pytest.mark.parametrize(
    ("balancing", "fields", "key"),
    [
        (Balancing("hash"), [], b"192.0.2.7"),
        (Balancing("hash", hash_field=b"x-tenant"), [(b"X-Tenant", b"a")], b"a"),
        (Balancing("hash", hash_field=b"x-tenant"), [(b"x-tenant", b"a"), (b"X-TENANT", b"b")], b"a, b"),
        (Balancing("hash", hash_field=b"x-tenant"), [], b""),
        (Balancing("hash", hash_field=b"x-api-key"), [(b"X-Api-Key", b"secret")], b"secret"),
        (Balancing("hash", hash_field=b"host"), [], SHOP),
        (Balancing("hash", hash_cookie=b"sid"), [(b"Cookie", b"a=b; sid=7; sid=8")], b"7"),
        (Balancing("hash", hash_cookie=b"sid"), [(b"Cookie", b"xsid=1;; sid"), (b"Cookie", b" sid=x")], b"x"),
        (Balancing("hash", hash_cookie=b"sid"), [], b""),
        (Balancing(), [(b"X-Tenant", b"a")], b""),
    ],
)
def test_what_a_service_hashes_on_is_taken_from_the_request(
    balancing: Balancing, fields: Fields, key: bytes
) -> None:
    snapshot = make_snapshot()
    service = forward(b"GET", b"/pair", snapshot=snapshot).service
    service.balancing = balancing
    parts = forward(b"GET", b"/pair", fields, snapshot=snapshot).parts
    assert parts is not None
    assert parts.hash_key == key
