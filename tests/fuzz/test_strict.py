"""The second reader itself: what it takes, what it refuses, where a message ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fuzz import strict
from tests.fuzz.strict import COMPLETE, INCOMPLETE, INVALID, read_requests, read_response

HOST = b"Host: a\r\n"


def head(fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + fields + b"\r\n"


GOOD = [
    (head(b""), b""),
    (head(b"", host=b"", line=b"GET / HTTP/1.0"), b""),
    (head(b"Content-Length: 3\r\n") + b"abc", b"abc"),
    (head(b"Content-Length:\t0003 \r\n") + b"abc", b"abc"),
    (head(b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", b""),
    (head(b"transfer-encoding:Chunked\r\n") + b"1;x=y\r\na\r\n00a ; q = \"\\\"\"\r\n0123456789\r\n000\r\nT: 1\r\n\r\n", b"a0123456789"),
    (head(b"X-Empty:\r\nX-High: \xff\r\n"), b""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "body"), GOOD)
def test_a_good_request_is_read_to_its_last_byte_and_no_further(data: bytes, body: bytes) -> None:
    one, other = read_requests(b"\r\n" + data + b"\r\n" + head(b"Content-Length: 5\r\n"))
    assert (one.state, one.body, one.end) == (COMPLETE, body, len(data) + 2)
    assert other.state == INCOMPLETE


@pytest.mark.parametrize(("data", "body"), GOOD)
def test_a_request_cut_anywhere_is_incomplete(data: bytes, body: bytes) -> None:
    for at in range(1, len(data)):
        messages = read_requests(data[:at])
        assert [one.state for one in messages] in ([INCOMPLETE], [])  # [] is only empty lines
        assert body.startswith(messages[0].body)


@pytest.mark.parametrize(
    "data",
    [
        head(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
        head(b"Content-Length: 3\r\nContent-Length: 3\r\n"),
        *[head(b"Content-Length: " + value + b"\r\n") for value in (b"", b"+3", b"-3", b"3,3", b"0x3", b"3_0", b"\xb2", b"3 0", b"9" * 19)],
        *[head(b"Transfer-Encoding: " + value + b"\r\n") for value in (b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"chunked;", b"\x0bchunked")],
        head(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        head(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0"),
        *[head(b"Transfer-Encoding: chunked\r\n") + body for body in (b"5\nhello", b"+5\r\nhello", b"5 \r\nhello", b"5;\r\n", b"5\r\nhelloXX", b"5\r\nhello\n0\r\n", b"\r\n", b"1_0\r\n", b"0\r\nX Y: z\r\n\r\n", b"0\r\n\n", b"g\r\n")],
        *[head(line + b"\r\n") for line in (b"X", b"X : y", b" X: y", b"X: y\r\n z", b": y", b"X\x00: y", b"X: \x00", b"X: a\rb", b"X: a\nb", b"X: \x7f")],
        *[head(b"", line) for line in (b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / http/1.1", b" GET / HTTP/1.1", b"G\xe9T / HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"GET / HTTP/1.1 ")],
        head(b"", host=b""),
        head(HOST),
        *[head(b"", host=b"Host: " + value + b"\r\n") for value in (b"", b"a b", b"a/b", b"a@b", b"a:b", b"a, b", b"[::1")],
    ],
)  # fmt: skip
def test_whatever_can_be_read_in_two_ways_is_invalid_and_nothing_behind_it_is_read(data: bytes) -> None:
    messages = read_requests(data + b"\r\n\r\n" + head(b""))
    assert [one.state for one in messages] == [INVALID]


@pytest.mark.parametrize(
    ("data", "method", "eof", "state", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabX", b"GET", False, COMPLETE, -1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", b"GET", True, INCOMPLETE, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nX", b"HEAD", False, COMPLETE, -1),
        (b"HTTP/1.1 204 No\r\n\r\nX", b"GET", False, COMPLETE, -1),
        (b"HTTP/1.1 200 OK\r\n\r\nab", b"GET", True, COMPLETE, None),
        (b"HTTP/1.1 200 OK\r\n\r\nab", b"GET", False, INCOMPLETE, None),
        (b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n", b"GET", False, COMPLETE, None),
        (b"HTTP/1.1 101 X\r\n\r\n", b"GET", False, INVALID, None),
        (b"HTTP/1.1 099 X\r\n\r\n", b"GET", False, INVALID, None),
        (b"HTTP/1.1 200 a\x00b\r\n\r\n", b"GET", True, INVALID, None),
        (b"HTTP/2.0 200 OK\r\n\r\n", b"GET", True, INVALID, None),
    ],
)
def test_answers_end_where_their_framing_says(
    data: bytes, method: bytes, eof: bool, state: str, end: int | None
) -> None:
    answer = read_response(data, 0, method, eof=eof)
    assert answer.state == state
    if state == COMPLETE:
        assert answer.end == (len(data) if end is None else len(data) + end)


def test_the_second_reader_shares_no_code_with_the_gateway() -> None:
    tree = ast.parse(Path(strict.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "dataclasses", "re"}
