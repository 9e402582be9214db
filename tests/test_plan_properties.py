"""The plan for arbitrary heads: it never throws, it is never fooled, and h11 reads what it emits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.decision import Allowed, Client, Forward, Refusal
from authgate_fast.errors import TABLE
from authgate_fast.http.fields import is_reserved
from authgate_fast.http.problem import own_response, problem_response
from authgate_fast.http.request import METHODS, RequestHead
from authgate_fast.plan import plan
from authgate_fast.snapshot import Identity, Snapshot
from tests.http.second_opinion import read_request_head, read_response, values
from tests.http.test_fields import CLAIMS, HOP_BY_HOP, IDENTITY, spellings
from tests.plan_world import FRESH, NOW, PEER, SHOP, Fields, make_snapshot, with_star

SNAPSHOTS = (
    make_snapshot(),
    make_snapshot(trusted="192.0.2.0/24", preserve_host=True),
    with_star(make_snapshot()),
    Snapshot(),
)

# What the parser can hand over: tokens, and values without control bytes.
TOKEN = b"!#$%&'*+-.^_`|~09azAZ"
claimed = sorted(
    {
        spelling
        for name in (*IDENTITY, *CLAIMS, *HOP_BY_HOP, b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Api-Key")
        for spelling in spellings(name)
    }
)
byte_values = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=12).map(bytes)
invented_names = st.lists(st.sampled_from(list(TOKEN)), min_size=1, max_size=6).map(bytes)
wild_names = st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect"])
options = st.sampled_from(
    [b"close", b"x-a, authorization", b"host, content-length", b"x-user-id,x-api-key", b"a"]
)
claim = st.tuples(st.sampled_from(claimed), st.sampled_from([b"one", b"two", b"admin"]) | byte_values)
ordinary = st.tuples(
    invented_names | st.sampled_from([b"X-Partner-Key", b"X-A", b"Authorization"]), byte_values
)
connection = st.tuples(st.just(b"Connection"), options | byte_values)
request_id = st.tuples(st.just(b"X-Request-ID"), byte_values | st.just(b"sane-1"))
wild = st.tuples(wild_names, st.sampled_from([b"1", b"chunked", b"100-continue", b""]) | byte_values)
one_field = st.one_of(claim, claim, claim, ordinary, connection, request_id)
framing: st.SearchStrategy[Fields] = st.sampled_from(
    [
        [],
        [(b"Content-Length", b"1 ")],
        [(b"transfer-encoding", b"Chunked")],
        [(b"Expect", b"100-continue"), (b"Content-Length", b"005")],
    ]
)
keys: st.SearchStrategy[Fields] = st.sampled_from([[], [(b"X-Api-Key", b"one")], [(b"x-api-key", b" two")]])
fields = st.builds(
    lambda framed, key, others, rare, turn: (framed + key + others + rare)[:: 1 if turn else -1],
    framing,
    keys,
    st.lists(one_field, max_size=5),
    st.one_of(st.just([]), st.just([]), st.just([]), st.lists(wild, max_size=1)),
    st.booleans(),
)
good_targets = st.sampled_from(
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
)
pieces = st.sampled_from([b"/", b"any", b"%2e", b".", b"a", b"?", b"%", b"\xff", b"#", b"http://", b"*"])
odd_targets = st.lists(pieces, max_size=8).map(b"".join)
targets = st.one_of(good_targets, good_targets, good_targets, odd_targets)
usual_methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"])
methods = st.one_of(usual_methods, usual_methods, st.sampled_from([*sorted(METHODS), b"BREW", b"get"]))
hosts = st.sampled_from(
    [[(b"Host", b"shop.localhost")]] * 8 + [[], [(b"Host", b"partner.localhost")], [(b"host", b"!")]]
)
requests = st.tuples(
    methods, targets, st.one_of(st.just(1), st.just(1), st.just(1), st.just(0)), hosts, fields
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
    if found.identity is not None:
        granted = [tuple(line.split(b": ")) for line in found.identity.identity_lines.split(b"\r\n")[:-1]]  # type: ignore[misc]
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
    assert not found.route.secure or isinstance(found.identity, Identity)


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
        assert isinstance(found, Allowed)
        lines = b"Allow: %b\r\n" % found.allow
        read_response(
            own_response(204, lines, request_id=found.request_id, date_line=b"", close=False), b"OPTIONS"
        )


@settings(max_examples=150)
@given(st.lists(requests, min_size=2, max_size=5), st.sampled_from(SNAPSHOTS))
def test_what_a_connection_did_before_changes_no_decision(history: list[Request], snapshot: Snapshot) -> None:
    shared = Client(PEER)
    for request in history:
        here, fresh = answer(request, snapshot, shared), answer(request, snapshot, Client(PEER))
        assert type(here) is type(fresh)
        if isinstance(here, Forward) and isinstance(fresh, Forward):
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
