"""Where the network cuts a byte stream must change nothing."""

from __future__ import annotations

import re

import pytest

from tests.proxy.harness import Stack
from tests.proxy.scripted import Answer, Recorder, Reply, Seen, answers, request, running

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
    fields = [
        pair
        for pair in answer.fields
        if pair[0] not in _OWN and not (answer.status >= 400 and pair[0] == b"content-length")
    ]
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


RESPONSES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello", "keep"),
    "empty": (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "keep"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "keep",
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
        "keep",
    ),
    "until_close": (b"HTTP/1.1 200 OK\r\nX-B: 2\r\n\r\nto the end", "close"),
    "http_1_0": (b"HTTP/1.0 200 OK\r\n\r\nold", "close"),
    "no_content": (b"HTTP/1.1 204 No Content\r\nX-C: 3\r\n\r\n", "keep"),
    "not_modified": (b'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "e"\r\n\r\n', "keep"),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "keep",
    ),
    "switch": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "stall"),
    "short": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nonly", "close"),
    "no_last_chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n", "close"),
    "bad_status_line": (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "stall"),
    "not_http": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "stall"),
    "two_lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "stall"),
    "extra": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", "stall"),
}


@pytest.mark.parametrize("minor", [1, 0])
@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_cut_at_any_byte_has_the_same_outcome(name: str, minor: int) -> None:
    data, then = RESPONSES[name]
    pieces: list[bytes] = []
    asking = b"GET /p/a HTTP/1.%d\r\nHost: a\r\nConnection: close\r\n\r\n" % minor
    async with running(lambda _: Reply(pieces, then)) as (stack, _):

        async def outcome_of(*parts: bytes) -> object:
            pieces[:] = parts
            try:
                raw = await stack.talk(asking)
            except ConnectionResetError:
                return "reset"  # how HTTP/1.0 learns of a truncation; what comes before it is chance
            return [plain(answer) for answer in answers(raw, b"GET")]

        whole = await outcome_of(data)
        for at in range(1, len(data)):
            assert await outcome_of(data[:at], data[at:]) == whole, (name, at)
        assert await outcome_of(*[data[at : at + 1] for at in range(len(data))]) == whole
