"""Traces through a running gateway: what the backend is told is what the log and the spans say."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from authgate_fast.http.trace_context import Tracing
from authgate_fast.limits import DEFAULTS
from authgate_fast.proxy.access_line import Clock, Entry, json_line
from tests.proxy.harness import KEY, Stack, backend, echo, gateway, make_snapshot
from tests.proxy.test_record import CLOSE, WITH_KEY, Log, broken, get, until

DIGEST = hashlib.sha256(KEY.encode()).digest()
ID, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
PARENT = b"traceparent: 00-%b-%b-01" % (ID, SPAN)
UNSAMPLED = b"traceparent: 00-%b-%b-00" % (ID, SPAN)
STATE = b"tracestate: rojo=1"


def tracing(**settings: object) -> Tracing:
    return Tracing(random.Random(7).getrandbits, **settings)  # type: ignore[arg-type]  # its own


@asynccontextmanager
async def running(how: Tracing | None = None, handler: object = echo) -> AsyncIterator[tuple[Stack, Log]]:
    """Run a gateway; the second value is the spans."""
    async with (
        backend(handler) as port,  # type: ignore[arg-type]  # a handler
        gateway(make_snapshot(port, DEFAULTS, key_digest=DIGEST)) as stack,
    ):
        stack.context.tracing = how
        spans = Log()
        stack.context.recorder.spans = spans
        yield stack, spans


def sent(raw: bytes) -> list[bytes]:
    """Return the trace lines that the backend got and the echo brought back."""
    return [
        line
        for line in raw.partition(b"\r\n\r\n")[2].split(b"\r\n")
        if line.startswith((b"trace", b"baggage"))
    ]


async def test_by_default_a_trace_and_its_baggage_pass_on_unchanged() -> None:
    async with running() as (stack, spans):
        baggage = b"baggage: userId=alice,serverNode=DF%2028"
        assert sent(await stack.talk(get(b"/p/1", PARENT, STATE, baggage, CLOSE))) == [baggage, PARENT, STATE]
        assert sent(await stack.talk(get(b"/p/1", PARENT, PARENT, STATE, CLOSE))) == []
        assert sent(await stack.talk(get(b"/p/1", CLOSE))) == []
        assert not spans


@pytest.mark.parametrize("path", [b"/p/1", b"/s/1"])
async def test_a_begun_trace_reaches_the_backend(path: bytes) -> None:
    async with running(tracing(begins=True)) as (stack, spans):
        (first,) = sent(await stack.talk(get(path, WITH_KEY, CLOSE)))
        (second,) = sent(await stack.talk(get(path, WITH_KEY, CLOSE)))
        for line in (first, second):
            assert re.fullmatch(rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00", line)
        assert first != second
        assert sent(await stack.talk(get(path, WITH_KEY, UNSAMPLED, CLOSE))) == [UNSAMPLED]
        assert not spans


async def test_off_takes_traces_out() -> None:
    async with running(tracing(passes=False)) as (stack, _):
        assert sent(await stack.talk(get(b"/p/1", PARENT, STATE, CLOSE))) == []


async def test_the_access_log_names_the_trace_where_there_is_one() -> None:
    async with running() as (stack, _):
        log = Log()
        stack.context.recorder.log = log
        await stack.talk(get(b"/p/1", PARENT), get(b"/p/1", b"traceparent: x"), get(b"/s/1", PARENT, CLOSE))
        await until(lambda: len(log) == 3)
        lines = [json.loads(json_line(entry, Clock())) for entry in log]
        assert [line.get("trace_id") for line in lines] == [ID.decode(), None, ID.decode()]
        assert lines[2]["status"] == 401


async def test_the_backends_parent_is_the_gateways_span_and_its_parent_is_the_clients() -> None:
    async with running(tracing(records=True)) as (stack, spans):
        (told, state) = sent(await stack.talk(get(b"/s/1?secret", PARENT, STATE, WITH_KEY, CLOSE)))
        entry = spans.only
        assert entry.trace is not None
        assert (entry.trace.trace_id, entry.trace.parent_id) == (ID, SPAN)
        assert told == b"traceparent: 00-%b-%b-01" % (ID, entry.trace.span_id)
        assert state == STATE
        assert (entry.route_path, entry.scheme, entry.path) == ("/s/{rest*}", b"http", b"/s/1")


CASES = {
    "no key": (get(b"/s/1", PARENT, CLOSE), 401),
    "no route": (get(b"/nowhere", PARENT, CLOSE), 404),
    "no such method": (get(b"/p/1", PARENT, CLOSE, method=b"TRACE"), 501),
    "OPTIONS *": (get(b"*", PARENT, CLOSE, method=b"OPTIONS"), 204),
    "a bad body": (get(b"/p/1", PARENT, b"Transfer-Encoding: chunked", method=b"POST") + b"x\r\n", 400),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_of_the_gateways_own_has_a_span_too(case: str) -> None:
    request, status = CASES[case]
    async with running(tracing(records=True)) as (stack, spans):
        await stack.talk(request)
        await until(lambda: bool(spans))
        assert spans.only.status == status


async def test_a_request_that_is_no_request_belongs_to_no_trace() -> None:
    async with running(tracing(records=True, begins=True, ratio=1.0)) as (stack, spans):
        log = Log()
        stack.context.recorder.log = log
        await stack.talk(get(b"/p/1", PARENT, b"Content-Length: x", CLOSE))
        await stack.talk(b"GET / HTTP/3.7\r\n\r\n")
        assert [entry.status for entry in log] == [400, 400]
        assert all(b"trace_id" not in json_line(entry, Clock()) for entry in log)
        assert not spans


async def test_an_answer_that_breaks_off_has_a_span_with_that_outcome() -> None:
    async with running(tracing(records=True), broken) as (stack, spans):
        await stack.talk(get(b"/p/1", PARENT, CLOSE))
        await until(lambda: bool(spans))
        assert spans.only.outcome == b"upstream_broken"


async def test_pipelined_requests_have_spans_of_their_own_and_unsampled_ones_none() -> None:
    async with running(tracing(records=True, begins=True)) as (stack, spans):
        await stack.talk(
            get(b"/p/1", PARENT), get(b"/p/2", UNSAMPLED), get(b"/p/3"), get(b"/p/4", PARENT, CLOSE)
        )
        assert [entry.path for entry in spans] == [b"/p/1", b"/p/4"]
        ids = {entry.trace.span_id for entry in spans if entry.trace is not None}
        assert len(ids) == 2


async def test_the_end_of_a_request_is_the_same_with_and_without_an_access_log() -> None:
    for log in (None, Log()):
        async with running(tracing(records=True)) as (stack, spans):
            stack.context.recorder.log = log
            await stack.talk(get(b"/p/1", PARENT), get(b"/p/2", CLOSE))
            entries: list[Entry] = spans
            assert [entry.path for entry in entries] == [b"/p/1"]
            assert log is None or [entry.path for entry in log] == [b"/p/1", b"/p/2"]
