"""What a plain head says is what the parser finds in it; what is not plain is left to the parser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.errors import Reason
from authgate_fast.http.plain import (
    MEMO_LINE_BYTES,
    MEMO_LINES,
    Memo,
    read_plain_request,
    read_plain_response,
)
from authgate_fast.http.request import RequestHead
from authgate_fast.http.response import ResponseHead
from authgate_fast.http.shape import (
    MAX_SHAPE_BYTES,
    MAX_SHAPES_IN_VAIN,
    Shape,
    read_shaped,
)
from authgate_fast.proxy.heads import RequestReader, ResponseReader
from authgate_fast.snapshot import Snapshot

KEY_FIELDS = frozenset({b"x-api-key"})
CREDENTIAL_FIELDS = frozenset({b"x-api-key", b"cookie", b"authorization"})
REQUEST_FACTS = (
    "method", "target", "minor", "host", "presented", "content_length", "chunked", "close",
    "expect_continue", "forwarded", "request_id",
)  # fmt: skip
RESPONSE_FACTS = (
    "status",
    "minor",
    "block",
    "content_length",
    "chunked",
    "close",
    "has_date",
    "keep_alive_s",
)

START = [
    b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"GET /a%20b HTTP/1.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ",
    b"get / HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /a#b HTTP/1.1",
    b"GET http://a/ HTTP/1.1", b"GET /a\tb HTTP/1.1", b"GET /a\nb HTTP/1.1", b"PURGE /~ HTTP/1.1", b"GET / HTTP/2.0",
    b"GET /", b"", b" GET / HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"M-SEARCH / HTTP/1.1",
]  # fmt: skip
LINES = [
    b"Host: a", b"host: a.b:80", b"Accept: */*", b"Accept:*/*", b"X-Empty:", b"X-Empty: ", b"X: y ", b"X:  y",
    b"X:\ty", b"X: a\tb", b"X: \xe4", b"X: a\x00b", b"X: a\nb", b"X: a\rb", b" folded", b"\tfolded", b"X : y", b"X",
    b": y", b"X_Consumer_Id: me", b"X-User-Id: me", b"X-Api-Key: agk_x", b"x-api-key: a b", b"X-Api-Key: \x01",
    b"X-Api-Key: a\xe4", b"X-Api-Key: ", b"X_Api_Key: k", b"Connection: keep-alive", b"Connection: close",
    b"Connection: X", b"Connection: upgrade", b"Upgrade: h2c", b"Proxy-Connection: close", b"Keep-Alive: timeout=5",
    b"Content-Length: 3", b"Content-Length: 03", b"Content-Length: +3", b"Content-Length: 4",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue", b"Expect: x",
    b"X-Request-ID: abc", b"X-Request-ID: a b", b"X-Forwarded-For: 1.2.3.4", b"Cookie: a=b", b"Authorization: x y",
    b"TE: trailers", b"Date: now", b"X(y): z", b"X-Long: " + b"l" * 200, b"", b"HTTP/1.1 200 OK", b"Keep-Alive: timeout=204",
    b"Keep-Alive: timeout=4242", b"Content-Length: 200", b"traceparent: 00-1-2-01", b"Traceparent:  x", b"TRACEPARENT:",
    b"tracestate: a=1", b"tracestate: a=1, b=2", b"trace_parent: x", b"Connection: traceparent",
]  # fmt: skip
STATUS = [
    b"Keep-Alive: timeout=204", b"Keep-Alive: timeout=4242", b"Content-Length: 200", b"Date: now",
    b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 200", b"HTTP/1.1 200 ",
    b"HTTP/1.0 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Up", b"HTTP/1.1 999 x", b"HTTP/1.1 20 x",
    b"HTTP/1.1 200 \xe4", b"HTTP/1.1  200 OK", b"http/1.1 200 OK", b"X: y", b"HTTP/1.1 200 O\x01", b"",
]  # fmt: skip


def plain_request(
    data: bytes, memo: Memo, shape: Shape | None = None, fields: frozenset[bytes] = KEY_FIELDS
) -> RequestHead | None:
    return read_plain_request(data, 100, memo, {}, fields, shape)


def parsed_request(data: bytes, fields: frozenset[bytes]) -> RequestHead | Reason:
    head = RequestReader().read(data, 100)
    if isinstance(head, RequestHead):
        return head.read({}, fields) or head
    return head


def check_request(data: bytes, memo: Memo) -> bool:
    return is_as_parsed(plain_request(data, memo), data)


def is_as_parsed(head: RequestHead | None, data: bytes, fields: frozenset[bytes] = KEY_FIELDS) -> bool:
    if head is None:
        return False
    parsed = parsed_request(data, fields)
    assert isinstance(parsed, RequestHead), (data, parsed)
    for name in REQUEST_FACTS:
        assert getattr(head, name) == getattr(parsed, name), (name, data)
    assert head.known_lines + head.lines == parsed.lines, data
    assert head.block == b"".join(head.known_lines), data
    assert received(head) == received(parsed), data
    return True


def received(head: RequestHead) -> object:
    trace = head.trace
    return None if trace is None else (trace.traceparents, trace.tracestates)


def check_response(head: bytes, memo: Memo) -> bool:
    plain = read_plain_response(head, 100, memo)
    if plain is None:
        return False
    data = head + b"\r\n\r\n"
    parsed = ResponseReader().read_parsed(data, len(data), 100)
    assert isinstance(parsed, ResponseHead), (head, parsed)
    assert parsed.error is None, (head, parsed.error)
    for name in RESPONSE_FACTS:
        assert getattr(plain, name) == getattr(parsed, name), (name, head)
    return True


def join(start: bytes, lines: list[bytes]) -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


KEYS = [
    b"agk_" + b"x" * 43,
    b"agk_y",
    b"a b",
    b" a",
    b"a ",
    b"",
    b"a\x00",
    b"a\r\nX-Consumer-Id: me",
    b"a\tb",
    b"\xe4",
]
heads_of_a_connection = st.lists(
    st.tuples(
        st.sampled_from(START[:3] * 9 + START), st.sampled_from(KEYS[:2] * 5 + KEYS), st.integers(0, 2)
    ),
    max_size=8,
)


@given(
    st.lists(
        st.lists(st.sampled_from([*LINES, b"KEY", b"KEY", b"Host: a"]), max_size=7), min_size=3, max_size=3
    ),
    heads_of_a_connection,
)
@settings(max_examples=600, deadline=None)
def test_a_head_like_the_last_one_says_what_the_parser_finds(
    kinds: list[list[bytes]], heads: list[tuple[bytes, bytes, int]]
) -> None:
    memo, shape = Memo(), None
    for start, key, kind in heads:
        lines = [b"X-Api-Key: " + key if line == b"KEY" else line for line in kinds[kind % 2 * kind]]
        data = join(start, lines)
        data = data[: data.index(b"\r\n\r\n") + 4]
        head = plain_request(data, memo, shape)
        assert is_as_parsed(head, data) == (plain_request(data, Memo()) is not None), data
        shape = shape if head is None else head.shape


def test_a_shape_serves_heads_with_another_target_and_another_credential() -> None:
    memo = Memo()
    text = b"GET /%b HTTP/1.1\r\nHost: a\r\nX-Api-Key: %b\r\nX: y\r\n\r\n"
    first = plain_request(text % (b"1", b"one"), memo)
    assert first is not None
    second = plain_request(text % (b"2", b"two"), memo, first.shape)
    assert second is not None
    second.lines.append(b"Added: to this one only\r\n")
    third = plain_request(text % (b"3?q", b"three"), memo, second.shape)
    assert third is not None
    assert second.shape is not first.shape
    assert third.shape is second.shape
    assert third.known_lines == [b"X: y\r\n"]
    assert third.presented == [(b"x-api-key", b"three")]
    third.lines.append(b"More: z\r\n")
    fourth = plain_request(text % (b"4", b"four"), memo, third.shape)
    assert fourth is not None
    assert (fourth.block, fourth.lines) == (b"X: y\r\n", [])
    other = plain_request(text % (b"5", b"five"), Memo(), third.shape)
    assert other is not None, "another snapshot reads it anew"
    assert other.known_lines == []


@pytest.mark.parametrize(
    "last",
    [
        b"Host: a\r\nX-Api-Key: agk_1\r\nX-Consumer-Id: me\r\nX: y",
        b"Host: a\r\nX-Api-Key: agk_1\r\nMore: m\r\nX: y",
        b"Host: a\r\nX-Api-Key: agk_1\r\nX-Api-Key: agk_2\r\nX: y",
        b"Host: a\r\nX-Api-Key: agk_1\r\nX: z",
        b"Host: a\r\nX-Api-Key: agk_1\r\nXX: y",
        b"Host: a\r\nX-Api-Key: agk_1",
        b"Host: b\r\nX-Api-Key: agk_1\r\nX: y",
        b"Host: a\r\nX-Api-Kez: agk_1\r\nX: y",
    ],
)
def test_a_head_that_only_resembles_the_last_one_is_read_by_the_line(last: bytes) -> None:
    memo, shape = Memo(), None
    for fields in [b"Host: a\r\nX-Api-Key: agk_0\r\nX: y"] * 3 + [last]:
        data = b"GET / HTTP/1.1\r\n%b\r\n\r\n" % fields
        head = plain_request(data, memo, shape)
        assert head is not None
        assert is_as_parsed(head, data)
        shape = head.shape


WITH_KEY = b"GET /%b HTTP/1.1\r\nHost: a\r\nX-Api-Key: %b\r\nX: y\r\n\r\n"
WITHOUT = b"GET /%b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"


def shape_of(data: bytes, fields: frozenset[bytes] = KEY_FIELDS) -> Shape:
    memo, shape = Memo(), None
    for _ in range(2):
        head = plain_request(data, memo, shape, fields)
        assert head is not None
        shape = head.shape
    assert shape is not None
    assert shape.memo is memo
    return shape


@pytest.mark.parametrize(
    "data",
    [
        WITH_KEY % (b"1", b"one"), WITH_KEY % (b"2?q=%20", b"two"), (WITH_KEY % (b"3", b"agk_3")).replace(b"GET", b"PURGE"),
    ],
)  # fmt: skip
def test_a_whole_head_of_a_shape_needs_no_search_for_its_end(data: bytes) -> None:
    assert is_as_parsed(read_shaped(data, shape_of(WITH_KEY % (b"0", b"zero"))), data)


@pytest.mark.parametrize(
    "tail", [b"", b"x", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", WITH_KEY % (b"2", b"two"), WITHOUT % b"2"]
)
@pytest.mark.parametrize("good", [WITH_KEY % (b"1", b"one"), WITHOUT % b"1"])
def test_a_shape_reads_no_more_and_no_less_than_one_head(good: bytes, tail: bytes) -> None:
    shape = shape_of(good)
    assert (read_shaped(good + tail, shape) is not None) == (tail == b"")
    for size in range(len(good)):
        assert read_shaped(good[:size], shape) is None, size


@pytest.mark.parametrize(
    "start",
    [
        b"get /1 HTTP/1.1", b"CONNECT /1 HTTP/1.1", b"GETS /1 HTTP/1.1", b"\r\nGET /1 HTTP/1.1", b"GET 1 HTTP/1.1", b"GET * HTTP/1.1",
        b"GET  HTTP/1.1", b"GET  /1 HTTP/1.1", b"GET /1  HTTP/1.1", b"GET /1 HTTP/1.0", b"GET /1 HTTP/1.1 ", b"GET /1 http/1.1",
        b"GET /1 x HTTP/1.1", b"GET /a#b HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /\0 HTTP/1.1", b"GET /\t HTTP/1.1",
        b"GET /\r HTTP/1.1", b"GET /\n HTTP/1.1", b"GET /1\r\nX: HTTP/1.1", b"GET http://a/ HTTP/1.1", b"GET /1\tHTTP/1.1", b"GET /1",
    ],
)  # fmt: skip
def test_a_shape_reads_no_other_kind_of_request_line(start: bytes) -> None:
    for good in (WITH_KEY % (b"1", b"one"), WITHOUT % b"1"):
        _, line_end, rest = good.partition(b"\r\n")
        assert read_shaped(start + line_end + rest, shape_of(good)) is None


def test_a_reader_takes_no_shape_of_another_snapshot_nor_past_its_limits() -> None:
    reader, snapshot = RequestReader(), Snapshot(credential_fields=KEY_FIELDS)
    good, shape = WITH_KEY % (b"1", b"one"), None
    for _ in range(2):
        head = reader.read(good, 100, snapshot, shape)
        assert isinstance(head, RequestHead)
        shape = head.shape
    assert shape is not None
    assert reader.read_like_last(good, 100, snapshot, shape) is not None
    assert reader.read_like_last(good, 3, snapshot, shape) is not None
    assert reader.read_like_last(good, 2, snapshot, shape) is None, "more fields than may be"
    long = WITH_KEY % (b"1" * MAX_SHAPE_BYTES, b"one")
    assert read_shaped(long, shape) is not None
    assert reader.read_like_last(long, 100, snapshot, shape) is None, "it may be many heads"
    assert reader.read_like_last(good, 100, snapshot, shape_of(good)) is None, "of another reader's memory"
    first = reader.read(good, 100, snapshot)
    assert isinstance(first, RequestHead)
    assert first.shape is not None
    assert reader.read_like_last(good, 100, snapshot, first.shape) is None, "the first head has none yet"
    other = Snapshot()
    assert reader.read_like_last(good, 100, other, shape) is None
    anew = reader.read(good, 100, other, shape)
    assert isinstance(anew, RequestHead)
    assert anew.presented is None, "what was a credential is none for this snapshot"
    assert reader.read_like_last(good, 100, snapshot, shape) is None
    assert reader.read_like_last(good, 100, other, shape) is None


def test_the_end_of_a_response_head_is_known_only_where_the_last_one_stands_again() -> None:
    reader = ResponseReader()
    head = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2"
    whole = head + b"\r\n\r\n"
    assert reader.known_end(b"\r\n\r\n") == 0, "nothing is known yet"
    for _ in range(2):
        assert reader.known_end(whole) == 0
        assert reader.read_plain(head, 100) is not None
    for body in (b"", b"ok", b"\r\n\r\n", whole):
        assert reader.known_end(whole + body) == len(whole)
    for size in range(len(whole)):
        assert reader.known_end(whole[:size]) == 0
    for other in (
        head + b"0\r\n\r\n",
        head + b"\r\nX: y\r\n\r\n",
        b"\r\n" + whole,
        whole.replace(b"x", b"y"),
    ):
        assert reader.known_end(other) == 0


def test_a_shape_ends_with_the_snapshot_that_it_was_read_for() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\nX_Api_Key: hidden\r\n\r\n"
    memo, shape = Memo(), None
    for _ in range(2):
        head = plain_request(text, memo, shape)
        assert head is not None
        shape = head.shape
    assert shape is not None
    assert b"hidden" in shape.before
    for special in (b"X-Request-ID: 1\r\n", b"X-Long: %b\r\n" % (b"l" * MAX_SHAPE_BYTES)):
        head = plain_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % special, Memo(), shape)
        assert head is not None
        assert head.shape is not None
        assert head.shape.memo is None, "nothing of the other snapshot is held"


def test_a_connection_whose_heads_differ_makes_no_more_shapes() -> None:
    memo, shape = Memo(), None
    shapes: list[Shape | None] = []
    for number in range(MAX_SHAPES_IN_VAIN + 5):
        head = plain_request(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % number, memo, shape)
        assert head is not None
        shape = head.shape
        shapes.append(shape)
    assert len(set(map(id, shapes))) == 1 + MAX_SHAPES_IN_VAIN
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"l" * MAX_SHAPE_BYTES)
    first = plain_request(long, memo)
    assert first is not None
    second = plain_request(long, memo, first.shape)
    assert second is not None
    assert second.shape is first.shape, "too long to be kept"


def test_the_same_response_head_is_the_same_object_unless_it_holds_a_secret() -> None:
    head = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2"
    memo = Memo()
    read = [read_plain_response(head, 100, memo) for _ in range(3)]
    assert read[1] is read[2] is not None
    assert read_plain_response(head + b"0", 100, memo) is not read[2]
    assert read_plain_response(head, 1, memo) is None, "more fields than may be"
    secret = head + b"\r\nSet-Cookie: a=b"
    anew = [read_plain_response(secret, 100, memo) for _ in range(3)]
    assert len(set(map(id, anew))) == 3
    assert b"Set-Cookie" not in memo.last_head


@given(st.lists(st.tuples(st.sampled_from(START), st.lists(st.sampled_from(LINES), max_size=6)), max_size=4))
@settings(max_examples=400, deadline=None)
def test_a_plain_request_says_what_the_parser_finds(heads: list[tuple[bytes, list[bytes]]]) -> None:
    memo = Memo()
    for start, lines in heads:
        data = join(start, lines)
        check_request(data[: data.index(b"\r\n\r\n") + 4], memo)


@given(st.lists(st.tuples(st.sampled_from(STATUS), st.lists(st.sampled_from(LINES), max_size=6)), max_size=4))
@settings(max_examples=400, deadline=None)
def test_a_plain_response_says_what_the_parser_finds(heads: list[tuple[bytes, list[bytes]]]) -> None:
    memo = Memo()
    for start, lines in heads:
        data = join(start, lines)
        check_response(data[: data.index(b"\r\n\r\n")], memo)


def pairs() -> Iterator[tuple[bytes, bytes]]:
    for before in (b"Accept: */*", b"X-Api-Key: k"):
        for line in LINES:
            yield before, line


def test_each_line_once_and_again_from_memory() -> None:
    memo, responses = Memo(), Memo()
    for _ in range(2):
        for before, line in pairs():
            for lines in ([b"Host: a", before, line], [line, b"Host: a", before]):
                data = join(b"GET / HTTP/1.1", lines)
                check_request(data[: data.index(b"\r\n\r\n") + 4], memo)
                data = join(b"HTTP/1.1 200 OK", lines)
                check_response(data[: data.index(b"\r\n\r\n")], responses)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 200), st.booleans())
@settings(max_examples=600, deadline=None)
def test_a_plain_head_with_bytes_thrown_in(rubbish: bytes, at: int, replaces: bool) -> None:
    good = join(
        b"GET /a/b?c HTTP/1.1", [b"Host: a", b"User-Agent: x/1", b"X-Api-Key: agk_1", b"Content-Length: 5"]
    )
    memo = Memo()
    assert check_request(good, memo)
    at %= len(good) - 4
    data = good[:at] + rubbish + good[at + (len(rubbish) if replaces else 0) :] + b"\r\n\r\n"
    check_request(data[: data.index(b"\r\n\r\n") + 4], memo)
    memo = Memo()
    answer = join(b"HTTP/1.1 200 OK", [b"Date: now", b"Content-Length: 5", b"X: y", b"Keep-Alive: timeout=9"])
    assert check_response(answer[:-4], memo)
    at %= len(answer) - 4
    data = answer[:at] + rubbish + answer[at + (len(rubbish) if replaces else 0) :] + b"\r\n\r\n"
    check_response(data[: data.index(b"\r\n\r\n")], memo)


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close", b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"TE: trailers",
        b"Proxy-Connection: close", b"Host: b", b" fold", b"X: a\tb", b"X:y", b"X: y ", b"X: \xe4", b"X: a\x01b",
    ],
)  # fmt: skip
def test_what_frames_or_hides_is_left_to_the_parser(line: bytes) -> None:
    memo = Memo()
    assert plain_request(join(b"GET / HTTP/1.1", [b"Host: a"]), memo) is not None
    for _ in range(2):
        assert plain_request(join(b"GET / HTTP/1.1", [b"Host: a", line]), memo) is None


def test_too_many_fields_are_left_to_the_parser() -> None:
    data = join(b"GET / HTTP/1.1", [b"Host: a", b"X: y", b"X: z"])
    assert read_plain_request(data, 3, Memo(), {}, KEY_FIELDS) is not None
    assert read_plain_request(data, 2, Memo(), {}, KEY_FIELDS) is None
    head = join(b"HTTP/1.1 200 OK", [b"X: y", b"X: z"])[:-4]
    assert read_plain_response(head, 2, Memo()) is not None
    assert read_plain_response(head, 1, Memo()) is None


def everything(memo: Memo) -> bytes:
    lines = [*memo.lines.values(), *memo.last_lines, *memo.credentials.values()]
    return b" ".join(
        [*memo.lines, *memo.last, *memo.credentials, *(w for x in lines for w in (x.value, x.wire))]
    )


def test_no_secret_is_remembered() -> None:
    memo, responses = Memo(), Memo()
    fields = [b"X-Api-Key: hidden1", b"Cookie: hidden2", b"Authorization: Basic hidden3", b"Accept: a"]
    for _ in range(2):
        head = plain_request(join(b"GET / HTTP/1.1", [b"Host: a", *fields, b"Accept: b"]), memo)
        assert head is not None
        assert head.presented == [(b"x-api-key", b"hidden1")]
        assert (
            read_plain_response(b"HTTP/1.1 200 OK\r\nSet-Cookie: hidden4\r\nServer: x", 100, responses)
            is not None
        )
    assert b"hidden" not in everything(memo) + everything(responses)
    assert b"Accept: a" in memo.lines


@pytest.mark.parametrize(
    "bad", [b"", b" ", b"k ", b" k", b"a\tb", b"a\rb", b"a\nb", b"a\0b", b"a\x7fb", b"\xe4", b"agk_\t"]
)
def test_a_credential_where_one_was_before_is_judged_like_the_first(bad: bytes) -> None:
    memo = Memo()
    for value in (b"agk_1", b"Bearer a.b-c_d~e+/==", b"k", b"a b"):
        for spelling in (b"X-Api-Key", b"x-api-key"):
            head = plain_request(join(b"GET / HTTP/1.1", [b"Host: a", spelling + b": " + value]), memo)
            assert head is not None
            assert head.presented == [(b"x-api-key", value)]
            assert plain_request(join(b"GET / HTTP/1.1", [b"Host: a", spelling + b": " + bad]), memo) is None
            assert plain_request(join(b"GET / HTTP/1.1", [b"Host: a", spelling + b":" + value]), memo) is None
        # Another field in its place is what it is, and the credential elsewhere still one.
        head = plain_request(join(b"GET / HTTP/1.1", [b"Host: a", b"X: y", b"X-Api-Key: " + value]), memo)
        assert head is not None
        assert (head.lines, head.presented) == ([b"X: y\r\n"], [(b"x-api-key", value)])


def test_the_memory_is_bounded() -> None:
    memo = Memo()
    for number in range(MEMO_LINES + 100):
        lines = [b"Host: a", b"X: %d" % number, b"X-L: " + b"l" * MEMO_LINE_BYTES]
        assert plain_request(join(b"GET / HTTP/1.1", lines), memo) is not None
        assert len(memo.lines) <= MEMO_LINES
    assert max(map(len, [*memo.lines, *memo.last])) <= MEMO_LINE_BYTES


def test_what_a_line_means_is_asked_again_for_another_snapshot() -> None:
    """The same field is a credential for one configuration and an ordinary field for the next."""
    reader = RequestReader()
    data = join(b"GET / HTTP/1.1", [b"Host: a", b"X-Token: t"])
    for fields, presented in ((frozenset(), None), (frozenset({b"x-token"}), [(b"x-token", b"t")])):
        head = reader.read(data, 100, Snapshot(credential_fields=fields))
        assert isinstance(head, RequestHead)
        assert head.is_read
        assert head.presented == presented
        assert head.lines == ([] if presented else [b"X-Token: t\r\n"])


def test_nothing_that_could_be_a_secret_stays_in_a_memo() -> None:
    secret = b"s3cret-value"
    snapshot = Snapshot(credential_fields=KEY_FIELDS)
    reader = RequestReader()
    names = (b"X-Api-Key", b"x-api-KEY", b"X_Api_Key", b"x.api.key", b"Authorization", b"Cookie", b"Referer")
    for name in names:
        head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: %b\r\n\r\n" % (name, secret)
        for _ in range(2):
            assert isinstance(reader.read(head, 100, snapshot), RequestHead)
    assert secret not in repr(_all_of(reader._memo)).encode()
    memo = Memo()
    for name in (b"Set-Cookie", b"Location", b"Content-Location", b"Link"):
        head = b"HTTP/1.1 200 OK\r\n%b: %b\r\n" % (name, secret)
        for _ in range(2):
            assert read_plain_response(head[:-2], 100, memo) is not None
    assert secret not in repr(_all_of(memo)).encode()


def _all_of(memo: Memo) -> list[object]:
    lines = [*memo.lines.values(), *memo.starts.values(), *memo.credentials.values(), *memo.last_lines]
    return [
        *memo.lines, *memo.starts, *memo.credentials, *memo.last,
        *((line.name, line.value, line.wire) for line in lines),
    ]  # fmt: skip


def test_a_status_line_is_no_field_line_though_both_were_seen() -> None:
    memo = Memo()
    assert (
        read_plain_response(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=204\r\nServer: x", 100, memo) is not None
    )
    for head in (
        b"Keep-Alive: timeout=204\r\nServer: x",
        b"Server: x",
        b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK",
    ):
        assert read_plain_response(head, 100, memo) is None


def test_which_bytes_may_stand_in_a_target_and_in_a_credential() -> None:
    """Each byte once, in a head by the line and in one by its shape: the parser would take at least these."""
    shape = shape_of(WITH_KEY % (b"1", b"one"))
    for byte in range(256):
        text = b"a%cb" % byte
        is_visible = 0x21 <= byte <= 0x7E
        for target, key, expected in (
            (text, b"k", is_visible and byte not in b'#"\\'),
            (b"t", text, is_visible or byte == 0x20),
        ):
            data = WITH_KEY % (target, key)
            assert is_as_parsed(read_shaped(data, shape), data) == expected, data
            assert is_as_parsed(plain_request(data, Memo()), data) == expected, data
