"""Request heads: which are refused, and what the good ones say. Host and target forms: test_host_target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.errors import Reason
from authgate_fast.http.fields import CONNECTION
from authgate_fast.http.request import RequestHead
from authgate_fast.proxy.heads import RequestReader
from authgate_fast.snapshot import Snapshot

Fields = list[tuple[bytes, bytes]]
HOST = (b"Host", b"shop.localhost")
KEY_FIELDS = frozenset({b"x-api-key"})
OK = None
BAD = Reason.BAD_REQUEST


def read(fields: Fields, *, minor: int = 1, method: bytes = b"POST") -> tuple[RequestHead, Reason | None]:
    """Read a head with a Host besides `fields`."""
    head = RequestHead(method, b"/", minor, [HOST, *fields])
    return head, head.read({}, KEY_FIELDS)


def good(fields: Fields, *, minor: int = 1) -> RequestHead:
    head, reason = read(fields, minor=minor)
    assert reason is None
    return head


def cl(*values: bytes) -> Fields:
    return [(b"Content-Length", value) for value in values]


def te(*values: bytes) -> Fields:
    return [(b"Transfer-Encoding", value) for value in values]


# --- framing (RFC 9112 sections 6.1 to 6.3) ---------------------------------------------------------

FRAMING: dict[str, tuple[Fields, Reason | None]] = {
    "no framing at all": ([], OK),
    "length": (cl(b"5"), OK),
    "length zero": (cl(b"0"), OK),
    "length with leading zeros": (cl(b"0005"), OK),
    "length with white space around": (cl(b" 5\t"), OK),
    "length of 18 digits": (cl(b"9" * 18), OK),
    "length of 19 digits": (cl(b"1" * 19), BAD),
    "length that overflows 64 bits": (cl(b"18446744073709551621"), BAD),
    "length empty (CVE-2023-40225)": (cl(b""), BAD),
    "length of white space": (cl(b" "), BAD),
    "length with plus": (cl(b"+5"), BAD),
    "length with minus": (cl(b"-5"), BAD),
    "length negative zero": (cl(b"-0"), BAD),
    "length hexadecimal": (cl(b"0x5"), BAD),
    "length hexadecimal letter": (cl(b"a"), BAD),
    "length with underscore": (cl(b"1_0"), BAD),
    "length with fraction": (cl(b"5.0"), BAD),
    "length with exponent": (cl(b"5e0"), BAD),
    "length with inner space": (cl(b"1 0"), BAD),
    "length with comment": (cl(b"5;x"), BAD),
    "length in quotes": (cl(b'"5"'), BAD),
    "length list of equal values": (cl(b"5, 5"), BAD),
    "length list of different values": (cl(b"5, 6"), BAD),
    "length list with nothing": (cl(b"5,"), BAD),
    "length with line feed": (cl(b"5\n"), BAD),
    "length with carriage return": (cl(b"5\r"), BAD),
    "length with vertical tab": (cl(b"5\x0b"), BAD),
    "length with form feed": (cl(b"\x0c5"), BAD),
    "length with NUL": (cl(b"5\x00"), BAD),
    "length with no-break space": (cl(b"5\xa0"), BAD),
    "length in Arabic digits": (cl("\u0665".encode()), BAD),
    "length in superscript": (cl("\u00b2".encode()), BAD),
    "two equal lengths": (cl(b"5", b"5"), BAD),
    "two different lengths": (cl(b"5", b"6"), BAD),
    "two lengths, second empty": (cl(b"5", b""), BAD),
    "two lengths, both zero": (cl(b"0", b"0"), BAD),
    "two lengths in two spellings": ([(b"Content-Length", b"5"), (b"CONTENT-LENGTH", b"5")], BAD),
    "chunked": (te(b"chunked"), OK),
    "chunked in capitals": (te(b"CHUNKED"), OK),
    "chunked in mixed case": (te(b"cHuNkEd"), OK),
    "chunked with white space around": (te(b" chunked\t"), OK),
    "chunked twice in a list": (te(b"chunked, chunked"), BAD),
    "chunked in two fields": (te(b"chunked", b"chunked"), BAD),
    "chunked, then identity field": (te(b"chunked", b"identity"), BAD),
    "identity field, then chunked": (te(b"identity", b"chunked"), BAD),
    "coding empty": (te(b""), BAD),
    "coding of white space": (te(b"\t"), BAD),
    "coding identity": (te(b"identity"), BAD),
    "coding gzip": (te(b"gzip"), BAD),
    "coding gzip, chunked": (te(b"gzip, chunked"), BAD),
    "coding chunked, gzip": (te(b"chunked, gzip"), BAD),
    "coding identity, chunked": (te(b"identity, chunked"), BAD),
    "coding chunked, identity": (te(b"chunked, identity"), BAD),
    "coding with a leading comma": (te(b", chunked"), BAD),
    "coding with a trailing comma": (te(b"chunked,"), BAD),
    "coding with a parameter": (te(b"chunked;q=1"), BAD),
    "coding in quotes": (te(b'"chunked"'), BAD),
    "coding with a longer name": (te(b"xchunked"), BAD),
    "coding cut off": (te(b"chunke"), BAD),
    "coding with vertical tab": (te(b"\x0bchunked"), BAD),
    "coding with form feed": (te(b"chunked\x0c"), BAD),
    "coding with NUL": (te(b"chunked\x00"), BAD),
    "coding with line feed": (te(b"chunked\n"), BAD),
    "coding with Kelvin sign": (te("chun\u212aed".encode()), BAD),
    "coding with no-break space": (te(b"chunked\xa0"), BAD),
    "length, then chunked": (cl(b"5") + te(b"chunked"), BAD),
    "chunked, then length": (te(b"chunked") + cl(b"5"), BAD),
    "chunked with length zero": (te(b"chunked") + cl(b"0"), BAD),
    "length, then unknown coding": (cl(b"5") + te(b"gzip"), BAD),
    "bad length behind chunked": (te(b"chunked") + cl(b"x"), BAD),
}


@pytest.mark.parametrize("name", FRAMING)
def test_framing_is_one_plain_length_or_one_chunked_or_refused(name: str) -> None:
    fields, expected = FRAMING[name]
    _, reason = read(fields)
    assert reason is expected


@pytest.mark.parametrize("name", [name for name in FRAMING if "chunked" in name or "coding" in name])
def test_a_transfer_coding_on_http_1_0_is_refused(name: str) -> None:
    fields, _ = FRAMING[name]
    _, reason = read(fields, minor=0)
    assert reason is BAD


@pytest.mark.parametrize("name", [name for name in FRAMING if name.startswith(("length", "two"))])
def test_a_length_on_http_1_0_obeys_the_same_rules(name: str) -> None:
    fields, expected = FRAMING[name]
    _, reason = read(fields, minor=0)
    assert reason is expected


@pytest.mark.parametrize(
    ("fields", "length", "chunked", "has_body"),
    [
        ([], -1, False, False),
        (cl(b"0"), 0, False, False),
        (cl(b"5"), 5, False, True),
        (cl(b" 0012\t"), 12, False, True),
        (te(b"chunked"), -1, True, True),
    ],
)
def test_good_framing_is_read_as_it_says(fields: Fields, length: int, chunked: bool, has_body: bool) -> None:
    head = good(fields)
    assert (head.content_length, head.chunked, head.has_body) == (length, chunked, has_body)
    assert head.lines == [], "framing is written anew, never copied"


@pytest.mark.parametrize(
    "name",
    [b"content_length", b"Content.Length", b"transfer_encoding", b"TRANSFER.ENCODING", b"Content_Length"],
)
def test_framing_spelt_with_underscore_or_dot_is_dropped_not_obeyed(name: bytes) -> None:
    head = good([(name, b"7")])
    assert (head.content_length, head.chunked, head.lines) == (-1, False, [])


@given(st.binary(max_size=8))
def test_only_plain_digits_are_a_length(value: bytes) -> None:
    _, reason = read(cl(value))
    inner = value.strip(b" \t")
    is_plain = len(inner) > 0 and all(byte in b"0123456789" for byte in inner)
    assert (reason is None) == is_plain


# --- Host (RFC 9112 section 3.2, RFC 9110 section 7.2) ------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "minor", "expected"),
    [
        ([], 1, Reason.INVALID_HOST),
        ([], 0, None),
        ([HOST], 1, None),
        ([HOST], 0, None),
        ([HOST, HOST], 1, Reason.INVALID_HOST),
        ([HOST, HOST], 0, Reason.INVALID_HOST),
        ([HOST, (b"HOST", b"other.localhost")], 1, Reason.INVALID_HOST),
        ([(b"host", b"a"), (b"hOsT", b"")], 1, Reason.INVALID_HOST),
        ([(b"Host", b"")], 0, Reason.INVALID_HOST),
        ([(b"Host", b" \t")], 0, Reason.INVALID_HOST),
        ([(b"Ho_st", b"a")], 1, Reason.INVALID_HOST),
    ],
)
def test_there_is_exactly_one_host_field(fields: Fields, minor: int, expected: Reason | None) -> None:
    head = RequestHead(b"GET", b"/", minor, fields)
    assert head.read({}, KEY_FIELDS) is expected


# --- Expect, Connection, X-Request-ID, credentials, forwarding fields ----------------------------------


@pytest.mark.parametrize(
    ("value", "minor", "expected", "waits"),
    [
        (b"100-continue", 1, None, True),
        (b"100-Continue", 1, None, True),
        (b" 100-continue\t", 1, None, True),
        (b"", 1, Reason.EXPECTATION_FAILED, False),
        (b"100-continue, 100-continue", 1, Reason.EXPECTATION_FAILED, False),
        (b"100-continue;x=1", 1, Reason.EXPECTATION_FAILED, False),
        (b"200-ok", 1, Reason.EXPECTATION_FAILED, False),
        (b"100", 1, Reason.EXPECTATION_FAILED, False),
        (b"100-continue", 0, None, False),  # RFC 9110 section 10.1.1: ignored in HTTP/1.0
        (b"200-ok", 0, None, False),
    ],
)
def test_the_only_expectation_is_100_continue(
    value: bytes, minor: int, expected: Reason | None, waits: bool
) -> None:
    head, reason = read([(b"Expect", value)], minor=minor)
    assert reason is expected
    assert head.expect_continue is waits
    assert head.lines == []


@pytest.mark.parametrize(
    ("values", "minor", "close"),
    [
        ([], 1, False),
        ([], 0, True),
        ([b"keep-alive"], 1, False),
        ([b"Keep-Alive"], 1, False),
        ([b"close"], 1, True),
        ([b"CLOSE"], 1, True),
        ([b"keep-alive, close"], 1, True),
        ([b"close", b"keep-alive"], 1, True),
        ([b"keep-alive", b"x-a,close"], 1, True),
        ([b" close\t"], 1, True),
        ([b",,close,,"], 1, True),
        ([b"closed"], 1, False),
        ([b"keep-alive"], 0, True),
    ],
)
def test_any_close_option_ends_the_connection(values: list[bytes], minor: int, close: bool) -> None:
    assert good([(b"Connection", value) for value in values], minor=minor).close is close


@pytest.mark.parametrize("order", ["before", "after", "between"])
@pytest.mark.parametrize(
    "option", [b"x-private", b"X-PRIVATE", b"keep-alive, x-private", b",x-private ,close"]
)
def test_connection_removes_the_fields_it_names_wherever_it_stands(order: str, option: bytes) -> None:
    named = [(b"X-Private", b"1"), (b"x-private", b"2")]
    connection = [(b"Connection", option)]
    kept = [(b"Accept", b"*/*"), (b"X-Private-Too", b"3")]
    fields = {
        "before": connection + named + kept,
        "after": named + kept + connection,
        "between": [named[0], *connection, named[1], *kept],
    }[order]
    assert good(fields).lines == [b"Accept: */*\r\n", b"X-Private-Too: 3\r\n"]


def test_several_connection_fields_add_up() -> None:
    fields = [
        (b"Connection", b"x-a"),
        (b"X-A", b"1"),
        (b"X-B", b"2"),
        (b"Connection", b"x-b"),
        (b"X-C", b"3"),
    ]
    assert good(fields).lines == [b"X-C: 3\r\n"]


@pytest.mark.parametrize(
    "name",
    [b"Authorization", b"Cookie", b"Via", b"Content-Type", b"Content-Encoding", b"Range"],
)
def test_connection_cannot_remove_what_the_backend_must_see(name: bytes) -> None:
    fields = [(b"Connection", name.lower()), (name, b"v"), (b"Connection", name)]
    assert good(fields).lines == [name + b": v\r\n"]


def test_connection_cannot_remove_host_framing_credential_or_forwarding_fields() -> None:
    options = b"host, content-length, transfer-encoding, x-api-key, x-forwarded-for, x-request-id, expect"
    fields = [
        (b"Connection", options),
        *cl(b"3"),
        (b"X-Api-Key", b"k"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"X-Request-ID", b"r"),
        (b"Expect", b"100-continue"),
        (b"Connection", options),
    ]
    head = good(fields)
    assert head.host == b"shop.localhost"
    assert head.content_length == 3
    assert head.presented == [(b"x-api-key", b"k")]
    assert head.forwarded is not None
    assert head.request_id == b"r"
    assert head.expect_continue


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"a", True),
        (b"A-z_0.9", True),
        (b"a" * 128, True),
        (b"a ", True),  # white space around a value is not part of it (RFC 9110 section 5.5)
        (b"a" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a\n", False),
        (b"a,b", False),
        (b"a/b", False),
        (b'a"b', False),
        (b"<a>", False),
        (b"a\x00", False),
        (b"\xc3\xa9", False),
    ],
)
def test_a_request_id_is_kept_when_it_is_a_sane_token(value: bytes, kept: bool) -> None:
    head = good([(b"X-Request-ID", value)])
    assert head.request_id == (value.strip() if kept else b"")
    assert head.lines == []


def test_a_doubled_request_id_gives_one_of_them_and_forwards_none() -> None:
    head = good([(b"X-Request-ID", b"a"), (b"x-request-id", b"b")])
    assert head.request_id in (b"a", b"b")
    assert head.lines == []


def test_credentials_are_presented_in_order_without_outer_white_space_and_not_forwarded() -> None:
    head = good([(b"X-Api-Key", b" one\t"), (b"Accept", b"*/*"), (b"x-API-key", b"two")])
    assert head.presented == [(b"x-api-key", b"one"), (b"x-api-key", b"two")]
    assert head.lines == [b"Accept: */*\r\n"]


@pytest.mark.parametrize("name", [b"X_Api_Key", b"x.api.key", b"X-Api_Key", b"X_API-KEY"])
def test_a_credential_in_a_folded_spelling_is_neither_taken_nor_forwarded(name: bytes) -> None:
    head = good([(name, b"secret")])
    assert head.presented is None
    assert head.lines == []


def test_end_to_end_lines_keep_order_spelling_and_doubles() -> None:
    fields = [(b"B", b"1"), (b"a", b""), (b"B", b"2"), (b"Cookie", b"x=\xff"), (b"Accept", b"a,  b")]
    assert good(fields).lines == [
        b"B: 1\r\n",
        b"a: \r\n",
        b"B: 2\r\n",
        b"Cookie: x=\xff\r\n",
        b"Accept: a,  b\r\n",
    ]


def test_forwarding_fields_of_one_name_join_in_order() -> None:
    fields = [(b"X-Forwarded-For", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3")]
    head = good(fields)
    assert head.forwarded is not None
    assert list(head.forwarded.values()) == [b"1.1.1.1, 2.2.2.2, 3.3.3.3"]
    assert head.lines == []


def test_a_connection_field_of_many_options_costs_time_in_proportion_to_its_length() -> None:
    """Counted, not timed: each option is looked at once, and nothing is copied per option."""
    options = b",".join(b"a%d" % n for n in range(7_000))
    head = RequestHead(
        b"GET", b"/", 1, [(b"Host", b"a"), (b"Connection", options), (b"A5", b"x"), (b"B", b"y")]
    )
    assert head.read({}, frozenset()) is None
    assert head.lines == [b"B: y\r\n"]
    assert head.nominated is not None
    assert len(head.nominated) == 7_000


def test_many_connection_fields_cost_time_in_proportion_to_their_length() -> None:
    """Counted, not timed: what one field names is added to what the others have named, and nothing is copied."""
    head = RequestHead(b"GET", b"/", 1, [])
    head.read_special(CONNECTION, b"a, b")
    first = head.nominated
    head.read_special(CONNECTION, b"c")
    assert head.nominated is first == {b"a", b"b", b"c"}


def test_values_are_those_of_the_end_to_end_fields_of_that_name_whichever_way_the_head_was_read() -> None:
    raw = (
        b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\naccepT: y z\r\nAcceptable: no\r\nX-A: 1\r\n"
        b"X-Forwarded-For: 1\r\n%b\r\n"
    )
    snapshot = Snapshot()
    for more in (b"", b"Connection: x-a\r\n", b"X-B:\t2 \r\n"):
        for known in (snapshot, snapshot, None):
            head = RequestReader().read(raw % more, 100, known)
            assert isinstance(head, RequestHead)
            assert head.read(snapshot.field_memo, frozenset()) is None
            assert head.values(b"accept") == [b"x", b"y z"]
            assert head.values(b"x-a") == ([] if b"Connection" in more else [b"1"])
            assert head.values(b"x-b") == ([b"2"] if b"X-B" in more else [])
            assert head.values(b"x-forwarded-for") == []
            assert head.values(b"acc") == []


def test_the_preface_of_http_2_is_another_version_whatever_follows_it() -> None:
    for behind in (b"", b"Bad line\r\n", b"Host: a\r\n"):
        assert RequestReader().read(b"PRI * HTTP/2.0\r\n%b\r\n" % behind, 100) is Reason.VERSION_NOT_SUPPORTED
