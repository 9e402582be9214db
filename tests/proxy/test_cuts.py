"""Where the network cuts a byte stream must change nothing."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Answer, Recorder, Reply, Seen, answers, read_request, request, running

_OWN = (b"x-request-id", b"date")
_REQUEST_ID = re.compile(rb"X-Request-ID: [^\r]+\r\n")

REQUESTS = {
    "get": request(b"GET", b"/p/a?x=1", b"X-A: 1", close=True),
    "length": request(b"POST", b"/p/b", body=b"abcdef", close=True),
    "chunked": request(
        b"PUT",
        b"/p/c",
        b"Transfer-Encoding: chunked",
        body=b"3;a=b\r\nabc\r\n3\r\ndef\r\n0\r\nX-T: 1\r\n\r\n",
        close=True,
    ),
    "two": request(b"POST", b"/p/d", body=b"xyz") + request(b"GET", b"/p/e", close=True),
    "empty_lines": b"\r\n\r\n" + request(b"GET", b"/p/f", close=True),
    "refused": request(b"GET", b"/nowhere") + request(b"GET", b"/p/g", close=True),
    "bad": b"GET /p/h HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /p/i HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad_chunk": request(b"POST", b"/p/j", b"Transfer-Encoding: chunked", body=b"3\r\nabcX\r\n0\r\n\r\n"),
}
METHODS = (b"GET", b"GET")


def plain(answer: Answer) -> tuple[object, ...]:
    """An answer without what differs from request to request."""
    body = b"" if answer.status >= 400 else answer.body
    fields = [pair for pair in answer.fields if pair[0] not in _OWN and not (answer.status >= 400 and pair[0] == b"content-length")]
    return answer.status, fields, body, answer.interim, answer.whole


async def outcome(stack: Stack, recorder: Recorder, *parts: bytes) -> tuple[object, object]:
    recorder.seen.clear()
    raw = await stack.talk(*parts)
    seen = [(_REQUEST_ID.sub(b"", each.head), each.body) for each in recorder.seen]
    return [plain(answer) for answer in answers(raw, *METHODS)], seen


def echo(seen: Seen) -> bytes:
    body = seen.path + b" " + seen.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_cut_at_any_byte_has_the_same_outcome(name: str) -> None:
    data = REQUESTS[name]
    async with running(echo) as (stack, recorder):
        whole = await outcome(stack, recorder, data)
        for at in range(1, len(data)):
            assert await outcome(stack, recorder, data[:at], data[at:]) == whole, (name, at)
        single = [data[at : at + 1] for at in range(len(data))]
        assert await outcome(stack, recorder, *single) == whole
