"""The head a backend gets: rewritten target, one Host, one framing, no claim that the gateway did not make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.errors import TABLE
from authgate_fast.http.fields import is_reserved
from authgate_fast.http.problem import options_response, problem_response
from authgate_fast.http.request import METHODS, RequestHead
from authgate_fast.plan import Allowed, Client, Forward, Refusal, plan
from authgate_fast.snapshot import Credential, Snapshot
from tests.http.second_opinion import read_request_head, read_response, values
from tests.http.test_fields import CLAIMS, FORWARDED_SPELT_ODDLY, HOP_BY_HOP, IDENTITY, spellings
from tests.plan_world import FRESH, NOW, PEER, SHOP, Fields, ask, forward, make_snapshot, with_star

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
        (b"/root/a?b", b"/v2/a?b"),
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


def test_the_scheme_of_the_connection_is_what_is_told() -> None:
    assert forwarded(forward(client=Client("2001:db8::1", b"https"))) == (b"2001:db8::1", b"https", SHOP)


# --- properties -----------------------------------------------------------------------------------------

SNAPSHOTS = (
    make_snapshot(),
    make_snapshot(trusted="192.0.2.0/24", preserve_host=True),
    with_star(make_snapshot()),
    Snapshot(),
)

# What the parser can hand over: tokens, and values without control bytes.
TOKEN = b"!#$%&'*+-.^_`|~09azAZ"
known_names = st.sampled_from(
    sorted(
        {
            s
            for n in (*IDENTITY, *CLAIMS, *HOP_BY_HOP, b"X-Forwarded-For", b"X-Forwarded-Host", KEY[0])
            for s in spellings(n)
        }
    )
    + [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"X-Request-ID",
        b"X-Partner-Key",
        b"A",
    ]
    * 12
)
names = known_names | st.lists(st.sampled_from(list(TOKEN)), min_size=1, max_size=6).map(bytes)
byte_values = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=12).map(bytes)
field_values = byte_values | st.sampled_from(
    [
        b"1",
        b"chunked",
        b"close",
        b"100-continue",
        b"shop.localhost",
        b"one",
        b"two",
        b"a, b",
        b"x-a,authorization",
        b" ",
        b"",
    ]
)
targets = st.sampled_from(
    [
        b"/",
        b"/products/1",
        b"/private",
        b"/readers",
        b"/any/x/y",
        b"/pair",
        b"/small",
        b"*",
        b"http://shop.localhost/any",
    ]
) | st.lists(
    st.sampled_from([b"/", b"any", b"%2e", b".", b"a", b"?", b"%", b"\xff", b"#", b"http://", b"*"]),
    max_size=8,
).map(b"".join)
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PURGE"]) | st.sampled_from(
    sorted(METHODS) + [b"BREW", b"get"]
)
hosts = st.sampled_from(
    [[(b"Host", b"shop.localhost")]] * 6 + [[], [(b"Host", b"partner.localhost")], [(b"host", b"!")]]
)
requests = st.tuples(
    methods,
    targets,
    st.sampled_from([1, 1, 1, 0]),
    hosts,
    st.lists(st.tuples(names, field_values), max_size=6),
)
Request = tuple[bytes, bytes, int, Fields, Fields]


def head_of(request: Request) -> RequestHead:
    method, target, minor, host, fields = request
    return RequestHead(method, target, minor, host + fields)


def answer(request: Request, snapshot: Snapshot, client: Client) -> Forward | Refusal | Allowed:
    return plan(head_of(request), snapshot, client, NOW, FRESH)


def check_forward(found: Forward, request: Request) -> None:
    read = read_request_head(found.head)
    assert read.method == request[0]
    assert len(values(read, b"host")) == 1
    assert len(values(read, b"content-length")) + len(values(read, b"transfer-encoding")) <= 1
    granted: Fields = []
    if found.credential is not None:
        granted = [tuple(line.split(b": ")) for line in found.credential.identity_lines.split(b"\r\n")[:-1]]  # type: ignore[misc]
    said = {
        b"x-gateway-id": [found.gateway.name.encode()],
        **{name.lower(): [value] for name, value in granted},
    }
    for name, _ in read.headers:
        if not is_reserved(name):
            continue
        if name in (b"host", b"content-length", b"transfer-encoding", b"x-request-id") or name in (
            b"x-forwarded-for",
            b"x-forwarded-proto",
            b"x-forwarded-host",
        ):
            assert len(values(read, name)) == 1
        else:
            assert values(read, name) == said[bytes(name)]
    for field in found.gateway.authenticator.credential_fields:
        folded = field.replace(b"_", b"-").replace(b".", b"-")
        assert not any(bytes(n).replace(b"_", b"-").replace(b".", b"-") == folded for n, _ in read.headers)
    assert not found.route.secure or isinstance(found.credential, Credential)


@settings(max_examples=500)
@given(requests, st.sampled_from(SNAPSHOTS))
def test_the_plan_never_throws_and_what_it_emits_h11_reads_as_one_honest_request(
    request: Request, snapshot: Snapshot
) -> None:
    found = answer(request, snapshot, Client(PEER))
    if isinstance(found, Forward):
        check_forward(found, request)
    elif isinstance(found, Refusal):
        data = problem_response(
            found.reason,
            request_id=found.request_id,
            date_line=b"",
            detail=found.detail,
            extra_lines=found.extra_lines,
            close=False,
        )
        event, _ = read_response(data)
        assert event.status_code == TABLE[found.reason].status
    else:
        read_response(
            options_response(found.allow, request_id=found.request_id, date_line=b"", close=False), b"OPTIONS"
        )


@settings(max_examples=300)
@given(st.lists(requests, min_size=2, max_size=5), st.sampled_from(SNAPSHOTS))
def test_what_a_connection_did_before_changes_no_decision(history: list[Request], snapshot: Snapshot) -> None:
    shared = Client(PEER)
    for request in history:
        here, fresh = answer(request, snapshot, shared), answer(request, snapshot, Client(PEER))
        assert type(here) is type(fresh)
        if isinstance(here, Forward) and isinstance(fresh, Forward):
            if len(here.service.targets) == 1:
                assert here.head == fresh.head
        elif isinstance(here, Refusal) and isinstance(fresh, Refusal):
            assert (here.reason, here.detail, here.extra_lines) == (
                fresh.reason,
                fresh.detail,
                fresh.extra_lines,
            )


@settings(max_examples=300)
@given(
    methods,
    targets,
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5),
    st.binary(max_size=20),
    st.sampled_from([0, 1]),
)
def test_the_plan_does_not_throw_even_for_bytes_that_no_parser_would_let_through(
    method: bytes, target: bytes, fields: Fields, odd_target: bytes, minor: int
) -> None:
    for aim in (target, odd_target, b"http://" + odd_target):
        for snapshot in SNAPSHOTS:
            answer((method, aim, minor, [(b"Host", SHOP)], fields), snapshot, Client(PEER))
            answer((method, aim, minor, [], fields), snapshot, Client(PEER))
