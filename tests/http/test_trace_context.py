"""A trace is passed on byte for byte or not at all; what is begun here is a trace that others take."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from authgate_fast.http.plain import Memo, read_plain_request
from authgate_fast.http.request import RequestHead
from authgate_fast.http.trace_context import MAX_MEMBERS, SAMPLED, Tracing, settle
from authgate_fast.proxy.heads import RequestReader

ID = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"
GOOD = b"00-%b-%b-01" % (ID, SPAN)
GOOD_PARENTS = [
    GOOD,
    b"00-%b-%b-00" % (ID, SPAN),
    b"00-%b-%b-03" % (ID, SPAN),
    b"00-%b-%b-ff" % (ID, SPAN),
    b"01-%b-%b-01" % (ID, SPAN),
    b"cc-%b-%b-01-what-the-future-will-be" % (ID, SPAN),
    b"fe-%b-%b-01-" % (ID, SPAN),
    b"00-%b1-%b1-00" % (b"0" * 31, b"0" * 15),
]
BAD_PARENTS = [
    b"",
    b"00",
    b"ff-%b-%b-01" % (ID, SPAN),
    b"ff-%b-%b-01-x" % (ID, SPAN),
    b"0-%b-%b-01" % (ID, SPAN),
    b"000-%b-%b-01" % (ID, SPAN),
    b"0g-%b-%b-01" % (ID, SPAN),
    b"FE-%b-%b-01" % (ID, SPAN),
    b"00-%b-%b-01" % (b"0" * 32, SPAN),
    b"00-%b-%b-01" % (ID, b"0" * 16),
    b"00-%b-%b-01" % (ID.upper(), SPAN),
    b"00-%b-%b-01" % (ID, SPAN.upper()),
    b"00-%b-%b-0A" % (ID, SPAN),
    b"00-%b-%b-1" % (ID, SPAN),
    b"00-%b-%b-001" % (ID, SPAN),
    b"00-%b-%b" % (ID, SPAN),
    b"00-%b-%b-" % (ID, SPAN),
    b"00-%b-%b-01-" % (ID, SPAN),
    b"00-%b-%b-01-more" % (ID, SPAN),
    b"01-%b-%b-01x" % (ID, SPAN),
    b"01-%b-%b-01.more" % (ID, SPAN),
    b"01-%b-%b-01-a b" % (ID, SPAN),
    b"01-%b-%b-01-%b" % (ID, SPAN, b"x" * 201),
    b"01-%b-%b-01-\xe4" % (ID, SPAN),
    b"00-%b-%b-01" % (ID[1:], SPAN),
    b"00-%b0-%b-01" % (ID, SPAN),
    b"00-%b-%b-01" % (ID, SPAN[1:]),
    b"00-%b-%b0-01" % (ID, SPAN),
    b"00_%b-%b-01" % (ID, SPAN),
    b"00-%b_%b-01" % (ID, SPAN),
    b"00-%b-%b-01, 00-%b-%b-01" % (ID, SPAN, ID, SPAN),
    b'"00-%b-%b-01"' % (ID, SPAN),
]
GOOD_STATES = [
    [b"rojo=00f067aa0ba902b7"],
    [b"rojo=1,congo=t61rcWkgMzE"],
    [b"rojo=1 , congo=2"],
    [b"rojo=1", b"congo=2"],
    [b"rojo=1,,congo=2,"],
    [b"fw529a3039@dt=FfAAA", b"a_-*/0@z=!~ x"],
    [b"1=x"],
    [b"a" * 256 + b"=" + b"x" * 256],
    [b",".join(b"k%d=v" % number for number in range(MAX_MEMBERS))],
]
BAD_STATES = [
    [b"rojo"],
    [b"=1"],
    [b"rojo="],
    [b"Rojo=1"],
    [b"ro jo=1"],
    [b"-a=1"],
    [b"a=1=2"],
    [b"a=\t"],
    [b"a=x\ty"],
    [b"a=\xe4"],
    [b"a=1;b=2,a=3"],
    [b"a=1", b"a=2"],
    [b"a" * 257 + b"=1"],
    [b"a=" + b"x" * 257],
    [b",".join(b"k%d=v" % number for number in range(MAX_MEMBERS + 1))],
]


def fields(*parents: bytes, states: list[bytes] | None = None) -> list[tuple[bytes, bytes]]:
    return [
        *((b"traceparent", parent) for parent in parents),
        *((b"tracestate", state) for state in states or []),
    ]


def by_the_parser(found: list[tuple[bytes, bytes]]) -> RequestHead:
    lines = b"".join(b"%b: %b\r\n" % field for field in found)
    head = RequestReader().read(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % lines, 100)
    assert isinstance(head, RequestHead)
    assert head.read({}, frozenset()) is None
    return head


def by_the_plain_reader(found: list[tuple[bytes, bytes]]) -> RequestHead:
    lines = b"".join(b"%b: %b\r\n" % field for field in found)
    data = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % lines
    memo, field_memo = Memo(), dict[bytes, int]()
    read_plain_request(data, 100, memo, field_memo, frozenset())
    head = read_plain_request(data, 100, memo, field_memo, frozenset())  # with what was learnt
    return head if head is not None else by_the_parser(found)


READERS = [by_the_parser, by_the_plain_reader]
readers = pytest.mark.parametrize("read", READERS)


def told(head: RequestHead, tracing: Tracing | None = None) -> list[bytes]:
    """Return what the backend is told of the trace."""
    settle(head, tracing)
    return [line for line in head.lines if line.startswith(b"trace")]


def numbered() -> Tracing:
    counter: Iterator[int] = iter(range(1, 100))
    return Tracing(lambda bits: next(counter), begins=True)


@readers
@pytest.mark.parametrize("parent", GOOD_PARENTS)
def test_a_valid_traceparent_goes_on_byte_for_byte(read: type, parent: bytes) -> None:
    head = read(fields(parent, states=[b"rojo=1", b"congo=2"]))
    assert told(head) == [
        b"traceparent: %b\r\n" % parent,
        b"tracestate: rojo=1\r\n",
        b"tracestate: congo=2\r\n",
    ]
    assert head.trace.trace_id in parent
    assert head.trace.parent_id in parent
    assert head.trace.span_id == b""


@readers
@pytest.mark.parametrize("parent", BAD_PARENTS)
def test_an_invalid_traceparent_is_dropped_with_its_tracestate(read: type, parent: bytes) -> None:
    head = read(fields(parent, states=[b"rojo=1"]))
    assert told(head) == []
    assert head.trace is None


@readers
def test_two_traceparents_and_a_tracestate_alone_are_dropped(read: type) -> None:
    assert told(read(fields(GOOD, GOOD, states=[b"rojo=1"]))) == []
    assert told(read(fields(GOOD, b"", states=[b"rojo=1"]))) == []
    assert told(read(fields(states=[b"rojo=1"]))) == []


@readers
@pytest.mark.parametrize("states", GOOD_STATES)
def test_a_valid_tracestate_goes_on_as_it_came(read: type, states: list[bytes]) -> None:
    assert told(read(fields(GOOD, states=states)))[1:] == [b"tracestate: %b\r\n" % state for state in states]


@readers
@pytest.mark.parametrize("states", BAD_STATES)
def test_an_invalid_tracestate_is_dropped_without_its_traceparent(read: type, states: list[bytes]) -> None:
    assert told(read(fields(GOOD, states=states))) == [b"traceparent: %b\r\n" % GOOD]


def test_an_empty_tracestate_is_valid_and_not_sent() -> None:
    assert told(by_the_parser(fields(GOOD, states=[b"", b"a=1"]))) == [
        b"traceparent: %b\r\n" % GOOD,
        b"tracestate: a=1\r\n",
    ]


@readers
def test_names_count_in_any_case_and_no_other_spelling(read: type) -> None:
    head = read(
        [(b"TraceParent", GOOD), (b"TRACESTATE", b"a=1"), (b"trace-parent", b"x"), (b"trace_state", b"y")]
    )
    settle(head, None)
    assert head.lines == [
        b"trace-parent: x\r\n", b"trace_state: y\r\n", b"traceparent: %b\r\n" % GOOD, b"tracestate: a=1\r\n",
    ]  # fmt: skip


@pytest.mark.parametrize(("named", "left"), [(b"traceparent", 0), (b"tracestate", 1), (b"x", 2)])
def test_what_connection_names_stays_here(named: bytes, left: int) -> None:
    head = by_the_parser([(b"Connection", named), *fields(GOOD, states=[b"a=1"])])
    assert len(told(head)) == left


def test_off_takes_both_out_and_leaves_no_trace() -> None:
    head = by_the_parser(fields(GOOD, states=[b"a=1"]))
    assert told(head, Tracing(lambda bits: 1, passes=False)) == []
    assert head.trace is None


@readers
def test_begin_passes_on_what_is_valid_and_begins_what_is_not_there(read: type) -> None:
    assert told(read(fields(GOOD)), numbered()) == [b"traceparent: %b\r\n" % GOOD]
    for found in (fields(), fields(GOOD.upper()), fields(GOOD, GOOD), fields(states=[b"a=1"])):
        head = read(found)
        assert told(head, numbered()) == [b"traceparent: 00-%032x-%016x-00\r\n" % (1, 2)]
        assert (head.trace.trace_id, head.trace.parent_id, head.trace.span_id) == (b"%032x" % 1, b"", b"")


def test_what_begins_here_is_valid_even_if_the_bits_are_zero() -> None:
    (line,) = told(by_the_parser([]), Tracing(lambda bits: 0, begins=True))
    assert told(by_the_parser(fields(line[13:-2]))) == [line]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_so_many_of_the_begun_traces_are_sampled(ratio: float) -> None:
    tracing = Tracing(random.Random(7).getrandbits, begins=True, ratio=ratio)
    traces = [tracing.begin() for _ in range(5_000)]
    assert len({trace.trace_id for trace in traces}) == 5_000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", trace.trace_id) for trace in traces)
    assert sum(trace.flags for trace in traces) / 5_000 == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize("begins", [False, True])
def test_a_span_of_the_gateways_becomes_the_parent_of_what_is_sampled(begins: bool) -> None:
    tracing = Tracing(random.Random(7).getrandbits, begins=begins, records=True)
    head = by_the_parser(fields(GOOD, states=[b"a=1"]))
    lines = told(head, tracing)
    assert re.fullmatch(rb"traceparent: 00-%b-[0-9a-f]{16}-01\r\n" % ID, lines[0])
    assert lines[1:] == [b"tracestate: a=1\r\n"]
    assert head.trace is not None
    assert head.trace.parent_id == SPAN
    assert head.trace.span_id in lines[0]
    assert head.trace.span_id != SPAN
    assert told(by_the_parser(fields(GOOD[:-1] + b"0")), tracing) == [b"traceparent: %b0\r\n" % GOOD[:-1]]


def test_flags_and_fields_of_a_later_version_are_not_repeated_under_ours() -> None:
    tracing = Tracing(lambda bits: 5, records=True)
    head = by_the_parser(fields(b"cc-%b-%b-ff-more" % (ID, SPAN)))
    assert told(head, tracing) == [b"traceparent: 00-%b-%016x-03\r\n" % (ID, 5)]


def test_a_begun_and_sampled_trace_has_the_gateways_span_as_its_root() -> None:
    head = by_the_parser([])
    (line,) = told(head, Tracing(lambda bits: 9, begins=True, records=True, ratio=1.0))
    assert line == b"traceparent: 00-%032x-%016x-01\r\n" % (9, 9)
    assert head.trace is not None
    assert (head.trace.parent_id, head.trace.span_id, head.trace.flags) == (b"", b"%016x" % 9, SAMPLED)
