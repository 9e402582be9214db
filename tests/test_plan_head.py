"""The head a backend gets: target rewritten, one Host, one framing, no claim but the gateway's own."""

from __future__ import annotations

import pytest

from authgate_fast.decision import Client, Forward, Refusal
from authgate_fast.errors import Reason
from authgate_fast.plan import PATH_MEMO_SIZE
from tests.http.second_opinion import read_request_head, values
from tests.http.test_fields import CLAIMS, FORWARDED_SPELT_ODDLY, HOP_BY_HOP, IDENTITY, spellings
from tests.plan_world import FRESH, PEER, SHOP, Fields, ask, forward, make_snapshot, with_star

KEY = (b"X-Api-Key", b"one")
READER = (b"X-Api-Key", b"two")
GATEWAY_LINES = [
    b"Via: 1.1 authgate",
    b"X-Gateway-Id: shop",
    b"X-Forwarded-For: 192.0.2.7",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Host: shop.localhost",
    b"X-Request-ID: fresh-1",
]


def lines(found: Forward) -> list[bytes]:
    assert found.head.endswith(b"\r\n\r\n")
    return found.head.split(b"\r\n")[1:-2]


def only(found: Forward, name: bytes) -> bytes:
    """Return the value of a field that must be there once, as h11 reads it."""
    got = values(read_request_head(found.head), name)
    assert len(got) == 1, got
    return got[0]


def test_a_plain_request_carries_these_lines_and_no_others() -> None:
    found = forward(b"GET", b"/products/7?q=1", [(b"Accept", b"*/*")])
    expected = [b"Host: backend.internal:8080", b"Accept: */*", *GATEWAY_LINES]
    assert found.head.split(b"\r\n")[0] == b"GET /items/7?q=1 HTTP/1.1"
    assert sorted(lines(found)) == sorted(expected)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", b"/"),
        (b"/?", b"/?"),
        (b"/?a=1&a=2&b", b"/?a=1&a=2&b"),
        (b"/?a=/../%2e%2e;x?y", b"/?a=/../%2e%2e;x?y"),
        (b"/products/a%20b", b"/items/a%20b"),
        (b"/products/%41", b"/items/%41"),
        (b"/any", b"/"),
        (b"/any/", b"/"),
        (b"/any/a/b/", b"/a/b/"),
        (b"/based", b"/v2"),
        (b"/based/a", b"/v2/a"),
        (b"/top/a?b", b"/v2/a?b"),
        (b"http://shop.localhost/products/7?q", b"/items/7?q"),
        (b"http://shop.localhost?q", b"/?q"),
        (b"http://shop.localhost", b"/"),
    ],
)
def test_the_target_is_rewritten_and_the_query_goes_untouched(target: bytes, expected: bytes) -> None:
    assert read_request_head(forward(b"GET", target).head).target == expected


def test_the_same_path_gives_the_same_head_again_from_memory() -> None:
    snapshot = make_snapshot()
    for target in (b"/products/7", b"/any/a%20b/c", b"/based/x/"):
        first = forward(b"GET", target, snapshot=snapshot)
        assert forward(b"GET", target, snapshot=snapshot).head == first.head
        assert forward(b"GET", target).head == first.head


def test_a_query_stays_with_its_request_when_memory_knows_the_path() -> None:
    snapshot = make_snapshot()
    for target in (
        b"/products/7",
        b"/products/7?a",
        b"/products/7",
        b"/products/7?",
        b"/products/7?b=/products/7",
    ):
        assert forward(b"GET", target, snapshot=snapshot).head == forward(b"GET", target).head
        assert list(snapshot.gateways["shop"].path_memo) == [b"/products/7"]
    refused = ask(b"GET", b"/products/7?a#b", snapshot=snapshot)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.INVALID_PATH


def test_the_memory_of_paths_is_used_and_bounded() -> None:
    snapshot = make_snapshot()
    memo = snapshot.gateways["shop"].path_memo
    forward(b"GET", b"/any/a?q", snapshot=snapshot)
    assert list(memo) == [b"/any/a"]
    forward(b"GET", b"/any/" + b"a" * 300, snapshot=snapshot)
    forward(b"GET", b"/any" + b"/a" * 30, snapshot=snapshot)
    assert list(memo) == [b"/any/a"], "long and deep paths are not kept"
    for number in range(PATH_MEMO_SIZE + 10):
        forward(b"GET", b"/any/%d" % number, snapshot=snapshot)
        assert len(memo) <= PATH_MEMO_SIZE
    ask(b"GET", b"/nowhere", snapshot=snapshot)
    ask(b"GET", b"/any/../x", snapshot=snapshot)
    assert not {b"/nowhere", b"/any/../x"} & set(memo), "only what matched is kept"


# --- Host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", [b"shop.localhost", b"SHOP.localhost:8080", b"a.shop.localhost.", b"shop.localhost "]
)
def test_host_is_the_targets_unless_the_service_preserves_the_clients(host: bytes) -> None:
    assert only(forward(host=host), b"host") == b"backend.internal:8080"
    keeping = make_snapshot(preserve_host=True)
    found = forward(host=host, snapshot=keeping)
    assert only(found, b"host") == host.strip()
    assert only(found, b"x-forwarded-host") == host.strip()


def test_without_a_host_to_preserve_the_targets_is_sent() -> None:
    star = with_star(make_snapshot(preserve_host=True))
    assert only(forward(host=None, minor=0, snapshot=star), b"host") == b"backend.internal:8080"


# --- framing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "length", "coding"),
    [
        ([], [], []),
        ([(b"Content-Length", b"0")], [b"0"], []),
        ([(b"content-length", b" 0012\t")], [b"12"], []),
        ([(b"Transfer-Encoding", b"CHUNKED")], [], [b"chunked"]),
        ([(b"Transfer-Encoding", b"chunked"), (b"Content_Length", b"3")], [], [b"chunked"]),
        ([(b"Content-Length", b"3"), (b"Transfer.Encoding", b"chunked")], [b"3"], []),
        ([(b"Content-Length", b"3"), (b"Connection", b"content-length")], [b"3"], []),
        ([(b"Transfer-Encoding", b"chunked"), (b"Connection", b"transfer-encoding")], [], [b"chunked"]),
    ],
)
def test_framing_is_written_anew(fields: Fields, length: list[bytes], coding: list[bytes]) -> None:
    read = read_request_head(forward(b"POST", b"/any/x", fields).head)
    assert values(read, b"content-length") == length
    assert values(read, b"transfer-encoding") == coding


def test_expect_is_the_gateways_to_answer_and_stays_behind() -> None:
    found = forward(b"POST", b"/any/x", [(b"Expect", b"100-continue"), (b"Content-Length", b"1")])
    assert b"expect" not in found.head.lower()


# --- identity and claims --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/products/1", b"/private"])
@pytest.mark.parametrize("name", IDENTITY + CLAIMS + HOP_BY_HOP + FORWARDED_SPELT_ODDLY)
def test_what_a_client_claims_is_removed_in_every_spelling(target: bytes, name: bytes) -> None:
    plain = forward(b"GET", target, [KEY])
    spoofs = [(spelling, b"admin") for spelling in sorted(spellings(name))]
    assert forward(b"GET", target, [*spoofs, KEY]).head == plain.head
    assert forward(b"GET", target, [KEY, *spoofs]).head == plain.head


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host"])
def test_forwarding_fields_of_an_unknown_peer_are_replaced(name: bytes) -> None:
    spoofs = [(spelling, b"10.0.0.1") for spelling in sorted(spellings(name))]
    assert forward(b"GET", b"/", spoofs).head == forward(b"GET", b"/").head


@pytest.mark.parametrize(
    "name", [*IDENTITY, b"X-Gateway-Id", b"Via", b"X-Request-ID", b"X-Forwarded-For", b"Host"]
)
def test_connection_cannot_remove_what_the_gateway_adds(name: bytes) -> None:
    plain = forward(b"GET", b"/private", [READER])
    for option in (name, name.lower(), b"close, " + name):
        assert forward(b"GET", b"/private", [(b"Connection", option), READER]).head == plain.head


def test_identity_comes_from_the_credential_only() -> None:
    found = forward(
        b"GET", b"/private", [READER, (b"X-Consumer-Id", b"root"), (b"x_consumer_roles", b"admin")]
    )
    assert only(found, b"x-consumer-id") == b"two"
    assert only(found, b"x-consumer-roles") == b"reader,other"
    assert only(found, b"x-credential-id") == b"default"
    assert only(found, b"x-gateway-id") == b"shop"


def test_the_credential_is_not_forwarded_and_authorization_is() -> None:
    found = forward(
        b"GET", b"/private", [KEY, (b"Authorization", b"Bearer x"), (b"Connection", b"authorization")]
    )
    assert b"api-key" not in found.head.lower()
    assert only(found, b"authorization") == b"Bearer x"


def test_a_connection_option_takes_its_field_out_of_another_gateways_credential_too() -> None:
    # It is an ordinary field here, and put back after Connection has been obeyed: it must not get lost.
    found = forward(b"GET", b"/products/1", [(b"X-Partner-Key", b"p"), (b"Connection", b"x-other")])
    assert only(found, b"x-partner-key") == b"p"


def test_the_clients_own_via_stays_in_front_of_ours() -> None:
    found = forward(b"GET", b"/", [(b"Via", b"1.0 fred")])
    assert values(read_request_head(found.head), b"via") == [b"1.0 fred", b"1.1 authgate"]


@pytest.mark.parametrize(
    ("sent", "kept"), [(b"abc-1", b"abc-1"), (b"a b", FRESH), (b"", FRESH), (b"x" * 129, FRESH)]
)
def test_a_sane_request_id_is_kept_and_another_is_made(sent: bytes, kept: bytes) -> None:
    found = forward(b"GET", b"/", [(b"X-Request-ID", sent), (b"X_Request_ID", b"spoof")])
    assert found.request_id == kept
    assert only(found, b"x-request-id") == kept


@pytest.mark.parametrize("target", [b"/nowhere", b"/private", b"/a/../b", b"/products"])
def test_a_refusal_carries_the_request_id_too(target: bytes) -> None:
    found = ask(b"GET", target, [(b"X-Request-ID", b"abc-1")])
    assert isinstance(found, Refusal)
    assert found.request_id == b"abc-1"


# --- trusted proxies ------------------------------------------------------------------------------------

BEHIND: Fields = [
    (b"X-Forwarded-For", b"203.0.113.9"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"public.example"),
]


def forwarded(found: Forward) -> tuple[bytes, bytes, bytes]:
    return (
        only(found, b"x-forwarded-for"),
        only(found, b"x-forwarded-proto"),
        only(found, b"x-forwarded-host"),
    )


REPLACED = (b"192.0.2.7", b"http", SHOP)


@pytest.mark.parametrize(
    ("network", "fields", "expected"),
    [
        ("", BEHIND, REPLACED),
        ("198.51.100.0/24", BEHIND, REPLACED),
        ("2001:db8::/32", BEHIND, REPLACED),
        ("192.0.2.0/24", BEHIND, (b"203.0.113.9, 192.0.2.7", b"https", b"public.example")),
        ("192.0.2.7/32", [], REPLACED),
        ("192.0.2.7/32", BEHIND[:1], (b"203.0.113.9, 192.0.2.7", b"http", SHOP)),
        ("192.0.2.7/32", BEHIND[1:2], (b"192.0.2.7", b"https", SHOP)),
        ("192.0.2.7/32", BEHIND[2:], (b"192.0.2.7", b"http", b"public.example")),
        ("192.0.2.7/32", [(name, b"") for name, _ in BEHIND], REPLACED),
        (
            "192.0.2.7/32",
            [(b"X-Forwarded-For", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")],
            (b"1.1.1.1, 2.2.2.2, 192.0.2.7", b"http", SHOP),
        ),
        ("192.0.2.7/32", [(b"X_Forwarded_For", b"1.1.1.1"), (b"Forwarded", b"for=1.1.1.1")], REPLACED),
        (
            "192.0.2.7/32",
            [*BEHIND[:1], (b"Connection", b"x-forwarded-for")],
            (b"203.0.113.9, 192.0.2.7", b"http", SHOP),
        ),
    ],
)
def test_forwarding_fields_are_appended_to_behind_a_trusted_proxy_only(
    network: str, fields: Fields, expected: tuple[bytes, bytes, bytes]
) -> None:
    snapshot = make_snapshot(trusted=network)
    assert forwarded(forward(b"GET", b"/", fields, snapshot=snapshot)) == expected


def test_trust_belongs_to_one_gateway_and_one_peer() -> None:
    snapshot = make_snapshot(trusted="192.0.2.7/32")
    client = Client(PEER)
    assert forwarded(forward(b"GET", b"/", BEHIND, snapshot=snapshot, client=client))[1] == b"https"
    partner = forward(b"GET", b"/open", BEHIND, host=b"partner.localhost", snapshot=snapshot, client=client)
    assert forwarded(partner) == (b"192.0.2.7", b"http", b"partner.localhost")
    stranger = forward(b"GET", b"/", BEHIND, snapshot=snapshot, client=Client("192.0.2.8"))
    assert forwarded(stranger) == (b"192.0.2.8", b"http", SHOP)


def test_a_peer_without_an_ip_address_is_never_trusted() -> None:
    snapshot = make_snapshot(trusted="0.0.0.0/0")
    found = forward(b"GET", b"/", BEHIND, snapshot=snapshot, client=Client("somewhere"))
    assert forwarded(found) == (b"somewhere", b"http", SHOP)


def test_behind_a_trusted_proxy_without_any_host_none_is_told() -> None:
    star = with_star(make_snapshot(trusted="192.0.2.7/32"))
    found = forward(b"GET", b"/", BEHIND[:1], host=None, minor=0, snapshot=star)
    assert forwarded(found) == (b"203.0.113.9, 192.0.2.7", b"http", b"")


def test_the_scheme_of_the_connection_is_what_is_told() -> None:
    assert forwarded(forward(client=Client("2001:db8::1", b"https"))) == (b"2001:db8::1", b"https", SHOP)
