"""Response heads from a backend, through the reader that serves traffic: what is refused, what goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.http.problem import STATUS_STARTS
from authgate_fast.http.response import ResponseHead, says_who_may_cache
from authgate_fast.proxy.heads import ResponseReader
from tests.http.second_opinion import read_response, values

Fields = list[tuple[bytes, bytes]]


def wire(fields: Fields, status: int = 200, minor: int = 1) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.%d %d X\r\n%b\r\n" % (minor, status, lines)


def read(fields: Fields, status: int = 200, minor: int = 1) -> ResponseHead | str:
    data = wire(fields, status, minor)
    return ResponseReader().read(data, len(data), 100)


def good(fields: Fields, status: int = 200, minor: int = 1) -> ResponseHead:
    head = read(fields, status, minor)
    assert isinstance(head, ResponseHead), head
    assert head.error is None
    return head


def is_refused(fields: Fields, minor: int = 1) -> bool:
    head = read(fields, minor=minor)
    return isinstance(head, str) or head.error is not None


def judged_alone(fields: Fields, minor: int = 1) -> str | None:
    """Return what the head itself finds wrong, without the parser that would have refused it already."""
    head = ResponseHead(200, minor)
    head.read(fields, wire(fields)[len(b"HTTP/1.1 200 X") : -2])
    return head.error


def lines(head: ResponseHead) -> list[bytes]:
    assert head.block.startswith(b"\r\n")
    assert head.block.endswith(b"\r\n")
    return head.block.split(b"\r\n")[1:-1]


def cl(*found: bytes) -> Fields:
    return [(b"Content-Length", value) for value in found]


def te(*found: bytes) -> Fields:
    return [(b"Transfer-Encoding", value) for value in found]


BAD_FRAMING: dict[str, Fields] = {
    "length empty": cl(b""),
    "length with plus": cl(b"+5"),
    "length with minus": cl(b"-5"),
    "length hexadecimal": cl(b"0x5"),
    "length with underscore": cl(b"1_0"),
    "length of 19 digits": cl(b"1" * 19),
    "length that overflows 64 bits": cl(b"18446744073709551621"),
    "length with inner space": cl(b"1 0"),
    "length list of equal values": cl(b"5, 5"),
    "length list of different values": cl(b"5, 6"),
    "length not ASCII": cl("\u0665".encode()),
    "two equal lengths": cl(b"5", b"5"),
    "two different lengths": cl(b"5", b"6"),
    "two lengths in two spellings": [(b"Content-Length", b"5"), (b"content-length", b"6")],
    "length, then chunked": cl(b"5") + te(b"chunked"),
    "chunked, then length": te(b"chunked") + cl(b"5"),
    "chunked with length zero": te(b"chunked") + cl(b"0"),
    "coding empty": te(b""),
    "coding gzip": te(b"gzip"),
    "coding gzip, chunked": te(b"gzip, chunked"),
    "coding chunked, gzip": te(b"chunked, gzip"),
    "coding identity": te(b"identity"),
    "coding identity, chunked": te(b"identity, chunked"),
    "coding chunked twice in a list": te(b"chunked, chunked"),
    "coding chunked in two fields": te(b"chunked", b"chunked"),
    "coding gzip, then chunked in two fields": te(b"gzip", b"chunked"),
    "coding chunked, then gzip in two fields": te(b"chunked", b"gzip"),
    "coding with a longer name": te(b"xchunked"),
    "coding in quotes": te(b'"chunked"'),
    "coding with a parameter": te(b"chunked;a=b"),
    "coding with a comma": te(b"chunked,"),
    "coding not ASCII": te("chun\u212aed".encode()),
}


@pytest.mark.parametrize("name", BAD_FRAMING)
def test_framing_in_any_doubt_is_refused(name: str) -> None:
    assert is_refused(BAD_FRAMING[name])
    assert judged_alone(BAD_FRAMING[name]) is not None


@pytest.mark.parametrize("value", [b"chunked", b"gzip", b"identity"])
def test_a_transfer_coding_on_http_1_0_is_refused(value: bytes) -> None:
    assert is_refused(te(value), minor=0)
    assert judged_alone(te(value), minor=0) is not None


@pytest.mark.parametrize("head_alone", [True, False])
@pytest.mark.parametrize("value", [b"5 x", b"5,5", b"+5"])
def test_framing_is_judged_alike_with_and_without_a_body_in_the_same_read(
    value: bytes, head_alone: bool
) -> None:
    data = wire(cl(value))
    head = ResponseReader().read(data if head_alone else data + b"hello", len(data), 100)
    assert isinstance(head, str) or head.error is not None


@pytest.mark.parametrize(
    ("fields", "length", "chunked"),
    [
        ([], -1, False),
        (cl(b"0"), 0, False),
        (cl(b"5"), 5, False),
        (cl(b"5 "), 5, False),
        (cl(b"\t5\t"), 5, False),
        (cl(b"9" * 18), 10**18 - 1, False),
        (te(b"chunked"), -1, True),
        (te(b"Chunked "), -1, True),
    ],
)
def test_good_framing_is_read_as_it_says(fields: Fields, length: int, chunked: bool) -> None:
    head = good(fields)
    assert (head.content_length, head.chunked) == (length, chunked)
    assert not any(line.startswith(b"Transfer") for line in lines(head))


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        (b"HEAD", 200, True),
        (b"HEAD", 404, True),
        (b"GET", 204, True),
        (b"GET", 304, True),
        (b"GET", 100, True),
        (b"GET", 103, True),
        (b"GET", 199, True),
        (b"GET", 200, False),
        (b"GET", 205, False),
        (b"GET", 203, False),
        (b"GET", 303, False),
        (b"GET", 305, False),
        (b"POST", 500, False),
        (b"head", 200, False),
    ],
)
def test_head_1xx_204_and_304_end_with_their_head(method: bytes, status: int, expected: bool) -> None:
    assert ResponseHead(status, 1).has_no_body(method) is expected


@pytest.mark.parametrize(
    ("fields", "status", "size", "expected"),
    [
        ([], 200, 9, True),
        (cl(b"5"), 200, 5, True),
        (cl(b"5"), 200, 4, True),
        (cl(b"5"), 200, 6, False),
        (cl(b"0"), 200, 1, False),
        (te(b"chunked"), 200, 5, False),
        (cl(b"5"), 304, 5, False),
        ([], 304, 1, False),
        ([], 204, 1, False),
        ([], 100, 1, False),
        ([], 103, 1, False),
    ],
)
def test_bytes_behind_a_head_are_body_only_where_nothing_else_is_possible(
    fields: Fields, status: int, size: int, expected: bool
) -> None:
    assert good(fields, status).expects(size) is expected


@pytest.mark.parametrize("status", [204, 103, 199])
def test_a_204_or_an_interim_response_does_not_carry_a_length_on(status: int) -> None:
    # RFC 9110 section 8.6: a server must not send Content-Length with these.
    head = good([(b"A", b"1"), *cl(b"5"), (b"B", b"2")], status)
    assert lines(head) == [b"A: 1", b"B: 2"]


def test_a_304_and_a_head_answer_keep_their_length() -> None:
    assert lines(good(cl(b"5"), 304)) == [b"Content-Length: 5"]


@pytest.mark.parametrize(
    ("values_", "minor", "close"),
    [
        ([], 1, False),
        ([], 0, True),
        ([b"keep-alive"], 1, False),
        ([b"Keep-Alive"], 1, False),
        ([b"close"], 1, True),
        ([b"Close"], 1, True),
        ([b"close "], 1, True),
        ([b"keep-alive, close"], 1, True),
        ([b"x-a,close"], 1, True),
        ([b"close", b"keep-alive"], 1, True),
        ([b"keep-alive", b"close"], 1, True),
        ([b"closed"], 1, False),
        ([b"keep-alive"], 0, True),
    ],
)
def test_any_close_option_makes_the_connection_unusable(
    values_: list[bytes], minor: int, close: bool
) -> None:
    head = good([(b"Connection", value) for value in values_], minor=minor)
    assert head.close is close
    assert lines(head) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100, timeout=5", 5),
        (b"max=100,timeout=5", 5),
        (b"Timeout=7", 7),
        (b"timeout=0", 0),
        (b"timeout=", -1),
        (b"timeout=-5", -1),
        (b"timeout=x", -1),
        (b"timeout=1.5", -1),
        (b"timeout=1234567", -1),
        (b"xtimeout=5", -1),
        (b"max=5", -1),
        (b"", -1),
    ],
)
def test_keep_alive_hints_are_read_where_they_are_plain(value: bytes, expected: int) -> None:
    head = good([(b"Keep-Alive", value)])
    assert head.keep_alive_s == expected
    assert lines(head) == []


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authenticate",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"X-Request-ID",
        b"x-REQUEST-id",
        b"trailer",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [b"v", b"", b" v ", b"A: 1"])
def test_hop_by_hop_fields_and_the_backends_request_id_stay_behind(
    name: bytes, place: int, value: bytes
) -> None:
    fields = [(b"A", b"1"), (b"B", b"2")]
    fields.insert(place, (name, value))
    fields.append((name.swapcase(), value))
    assert lines(good(fields)) == [b"A: 1", b"B: 2"]


def test_a_field_value_that_quotes_a_dropped_line_stays() -> None:
    fields = [(b"X-Trailer", b"a"), (b"A", b"Trailer: a"), (b"Trailer", b"a"), (b"B", b"Trailer: a")]
    assert lines(good(fields)) == [b"X-Trailer: a", b"A: Trailer: a", b"B: Trailer: a"]


@pytest.mark.parametrize("spaces", [b"", b"  ", b"\t"])
def test_hop_by_hop_fields_go_whatever_the_white_space(spaces: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nA: 1\r\nTrailer:" + spaces + b"x\r\nConnection:" + spaces + b"close\r\n\r\n"
    head = ResponseReader().read(data, len(data), 100)
    assert isinstance(head, ResponseHead)
    assert head.close
    assert lines(head) == [b"A: 1"]


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"connection: keep-alive",
        b"CONNECTION:keep-alive",
        b"Connection:\tkeep-alive",
        b"Connection: keep-alive \t",
        b"Connection: Keep-Alive",
        b"Connection: keep-alive\r\nConnection: keep-alive",
        b"Connection: keep-alive\r\nconnection:keep-alive",
    ],
)
def test_keep_alive_is_said_between_two_neighbours_however_it_is_written(line: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nA: Connection: keep-alive\r\n" + line + b"\r\nB: 2\r\n\r\n"
    head = ResponseReader().read(data, len(data), 100)
    assert isinstance(head, ResponseHead)
    assert not head.close
    assert lines(head) == [b"A: Connection: keep-alive", b"B: 2"]


@pytest.mark.parametrize("order", [1, -1])
def test_connection_removes_the_fields_it_names(order: int) -> None:
    fields = [(b"Connection", b"X-A, x-b"), (b"x-a", b"1"), (b"X-AB", b"2"), (b"X-B", b"3"), (b"x-A", b"4")]
    assert lines(good(fields[::order])) == [b"X-AB: 2"]


@pytest.mark.parametrize(
    "name", [b"Set-Cookie", b"Content-Type", b"Content-Encoding", b"Date", b"Vary", b"Cache-Control"]
)
def test_connection_cannot_remove_what_the_client_must_see(name: bytes) -> None:
    assert lines(good([(b"Connection", name), (name, b"v")])) == [name + b": v"]


def test_connection_cannot_remove_the_framing() -> None:
    head = good([(b"Connection", b"content-length, transfer-encoding, x"), *cl(b"5"), (b"X", b"1")])
    assert head.content_length == 5
    assert lines(head) == [b"Content-Length: 5"]


def test_end_to_end_fields_pass_in_order_with_doubles() -> None:
    fields = [
        (b"Set-Cookie", b"a=1"),
        (b"b", b""),
        (b"Set-Cookie", b"a=2"),
        (b"Via", b"1.1 x"),
        (b"C", b"\xff"),
    ]
    assert lines(good(fields)) == [b"Set-Cookie: a=1", b"b: ", b"Set-Cookie: a=2", b"Via: 1.1 x", b"C: \xff"]


@pytest.mark.parametrize(
    ("fields", "expected"), [([], False), ([(b"date", b"x")], True), ([(b"Date", b"")], True)]
)
def test_it_is_known_whether_the_backend_gave_a_date(fields: Fields, expected: bool) -> None:
    assert good(fields).has_date is expected


def test_one_reader_forgets_each_head() -> None:
    reader = ResponseReader()
    for _ in range(3):
        for fields, status, close in (
            ([(b"Connection", b"close")], 200, True),
            (te(b"chunked"), 200, False),
            ([], 204, False),
        ):
            data = wire(fields, status)
            head = reader.read(data, len(data), 100)
            assert isinstance(head, ResponseHead)
            assert (head.status, head.close, head.chunked) == (status, close, fields == te(b"chunked"))


names = st.sampled_from(
    [
        b"Connection",
        b"Keep-Alive",
        b"Trailer",
        b"X-Request-ID",
        b"Date",
        b"Set-Cookie",
        b"A",
        b"a",
        b"X-B",
        b"Upgrade",
        b"TE",
    ]
)
field_values = st.sampled_from([b"", b"close", b"a", b"x-b, A", b"Trailer: a", b"timeout=3", b"v "])
passed_on = st.lists(st.tuples(names, field_values), max_size=8)


@given(passed_on, st.sampled_from([200, 201, 404]))
def test_what_goes_on_h11_reads_with_the_same_end_to_end_fields(fields: Fields, status: int) -> None:
    head = good([*fields, *cl(b"2")], status)
    nominated = {
        o for n, v in fields if n == b"Connection" for o in (v.lower().replace(b" ", b"").split(b","))
    }
    dropped = {b"connection", b"keep-alive", b"trailer", b"x-request-id", b"upgrade", b"te"} | (
        nominated - {b"date"}
    )
    expected = [(n.lower(), v.strip()) for n, v in fields if n.lower() not in dropped]
    event, body = read_response(STATUS_STARTS[status] + head.block + b"\r\nok")
    assert body == b"ok"
    assert event.status_code == status
    assert [(bytes(n), bytes(v)) for n, v in event.headers if n != b"content-length"] == expected
    assert values(event, b"content-length") == [b"2"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), False), ((b"max-age=60",), False), ((b"no-cache",), False), ((b"",), False), ((b"private",), True), ((b"max-age=60, PRIVATE",), True),
        ((b"max-age=60", b"no-store"), True), ((b"public,max-age=60",), True), ((b" s-maxage=60 ",), True), ((b"must-revalidate",), True),
        ((b'private="set-cookie"',), False), ((b'x="a, public, b"',), False), ((b"private=x",), False), ((b"x-private",), False),
        ((b"privat",), False), ((b"proxy-revalidate",), False),
    ],
)  # fmt: skip
def test_a_response_says_whether_shared_caches_may_keep_it(values: tuple[bytes, ...], expected: bool) -> None:
    lines = b"".join(b"cAche-Control:%b\r\n" % value for value in values)
    assert says_who_may_cache(b"\r\nX: public\r\n" + lines + b"Pragma: private\r\n") is expected


def test_what_a_head_says_about_caches_is_looked_for_once_for_each_head() -> None:
    for line, expected in ((b"", False), (b"Cache-Control: public\r\n", True), (b"", False)):
        head = ResponseHead(200, 1)
        head.read([], b"\r\nX: y\r\n" + line)
        assert head.sharing is None
        assert [head.says_who_may_cache() for _ in range(3)] == [expected] * 3
        assert head.sharing is expected
