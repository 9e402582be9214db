"""Too large, too many, too slow: each with the status of its limit, and nothing behind it read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy import timeouts
from tests.attacks.cases import Cases, Forwarded, Refused, chunked, get, head, posted
from tests.attacks.runner import World, run, world
from tests.proxy.scripted import answers, until

SMALL = Limits(max_head_bytes=2_000, max_target_bytes=1_000, max_fields=10)
HEAD = Refused((431,))
TARGET = Refused((414,))
BODY = Refused((413,))
BODY_LATE = Refused((413,), in_body=True)
LARGE = b"l" * 3_000


def small(*lines: bytes, body: bytes = b"", host: bytes = b"a") -> bytes:
    """Write a request to the route with ``max_body_bytes`` of 10."""
    return get(*lines, target=b"/small", method=b"POST", host=host) + body


SIZES: Cases = {
    "a head without end": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 300, HEAD),
    "a head of too many bytes": (get(*[b"X-%d: " % n + b"y" * 300 for n in range(8)]), HEAD),
    "a value of too many bytes": (get(b"X-A: " + LARGE), HEAD),
    "a name of too many bytes": (get(LARGE + b": y"), HEAD),
    "a cookie of too many bytes": (get(b"Cookie: " + LARGE), HEAD),
    "a Host of too many bytes": (get(host=LARGE), HEAD),
    "a value without end": (b"GET /p/a HTTP/1.1\r\nHost: a\r\nX-A: " + LARGE, HEAD),
    "a name without end": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n" + LARGE, HEAD),
    "too many fields": (get(*[b"X-A: b"] * 10), HEAD),
    "too many empty fields": (get(*[b"X:"] * 10), HEAD),
    "too many fields that are dropped": (get(*[b"X-Forwarded-For: b"] * 10), HEAD),
    "as many fields as are allowed": (get(*[b"X-A: b"] * 9), Forwarded()),
    "too many fields on HTTP/1.0": (head(b"GET /p/a HTTP/1.0", *[b"X-A: b"] * 11), HEAD),
    "a target of too many bytes": (get(target=b"/p/" + b"a" * 998), TARGET),
    "a query of too many bytes": (get(target=b"/p/a?" + b"a" * 996), TARGET),
    "a target of as many bytes as are allowed": (get(target=b"/p/" + b"a" * 997), Forwarded(b"GET /" + b"a" * 997 + b" HTTP/1.1")),
    "a target without end": (b"GET /p/" + LARGE, TARGET),
    "a target without end, not yet as long as a head": (b"GET /p/" + b"a" * 1_100, Refused((414, 400))),
    "an absolute target of too many bytes": (get(target=b"http://a/p/" + b"a" * 1_000), TARGET),
    "a method without end": (LARGE, Refused((414, 501, 400))),
    "a request line of too many bytes behind the target": (b"GET /p/a " + LARGE, TARGET),
    "a body over the limit": (small(b"Content-Length: 11", body=b"hello world"), BODY),
    "a body far over the limit": (small(b"Content-Length: 999999999999999999", body=b"hello"), BODY),
    "a body over the limit that does not come": (small(b"Content-Length: 11"), BODY),
    "a body of as many bytes as are allowed": (small(b"Content-Length: 10", body=b"0123456789"), Forwarded(b"POST /small HTTP/1.1", b"0123456789")),
    "a chunk over the limit": (small(b"Transfer-Encoding: chunked", body=b"b\r\nhello world\r\n0\r\n\r\n"), BODY_LATE),
    "chunks over the limit": (small(b"Transfer-Encoding: chunked", body=b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"), BODY_LATE),
    "chunks of as many bytes as are allowed": (small(b"Transfer-Encoding: chunked", body=b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), Forwarded(b"POST /small HTTP/1.1", b"0123456789")),
    "an endless chunk extension": (chunked(b"5;" + b"a" * 5_000), Refused(in_body=True)),
    "endless trailers": (chunked(b"0\r\n" + b"X: y\r\n" * 5_000), Refused(in_body=True)),
    "framing that outweighs its data": (chunked(b"1;abcdefghijklmnop\r\nx\r\n" * 5_000), Refused(in_body=True)),
    "many chunks": (chunked(b"1\r\nx\r\n" * 500 + b"0\r\n\r\n"), posted(b"x" * 500)),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
async def test_what_is_too_large_or_too_many_is_told_so(name: str, tmp_path: Path) -> None:
    async with world(tmp_path / "gateway.yaml", SMALL) as made:
        data, expect = SIZES[name]
        await run(made, data, expect)


START = b"POST /p/a HTTP/1.1\r\nHost: a\r\n"
LENGTH = START + b"Content-Length: 5\r\n\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
STOPS = {
    "in the method": b"GE",
    "behind the method": b"GET ",
    "in the target": b"GET /p/",
    "in the version": b"GET /p/a HTTP/1.",
    "behind the request line's CR": b"GET /p/a HTTP/1.1\r",
    "behind the request line": b"GET /p/a HTTP/1.1\r\n",
    "in a name": START + b"X-",
    "in a value": START + b"X-A: b",
    "behind a field": START,
    "in the empty line": START + b"\r",
    "before the body": LENGTH,
    "in the body": LENGTH + b"hell",
    "before the first chunk": CHUNKED,
    "in a chunk's size": CHUNKED + b"5",
    "in a chunk's extension": CHUNKED + b"5;a=",
    "in a chunk": CHUNKED + b"5\r\nhell",
    "behind a chunk's data": CHUNKED + b"5\r\nhello",
    "in a chunk's end": CHUNKED + b"5\r\nhello\r",
    "behind a chunk": CHUNKED + b"5\r\nhello\r\n",
    "in the last chunk": CHUNKED + b"0\r\n",
    "in the trailers": CHUNKED + b"0\r\nX: y\r\n",
    "in the last line": CHUNKED + b"0\r\n\r",
}


async def _stop(made: World, data: bytes) -> bytes:
    """Send `data` and no more, and return what comes until the close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.stack.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(-1), 5)
    finally:
        writer.close()


async def test_what_stops_half_way_is_408_wherever_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)
    limits = Limits(head_timeout_s=0.1, body_timeout_s=0.1)
    async with world(tmp_path / "gateway.yaml", limits) as made:
        raws = await asyncio.gather(*(_stop(made, data) for data in STOPS.values()))
        for name, raw in zip(STOPS, raws, strict=True):
            (answer,) = answers(raw, b"POST", b"GET")
            assert (answer.status, answer.get(b"connection")) == (408, b"close"), name
        await until(lambda: not made.backend.unfinished)
        assert made.backend.seen == []
        assert made.backend.faults == []
