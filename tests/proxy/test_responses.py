"""What becomes of a backend's response: framed anew, or refused where it is not HTTP or in any doubt."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.limits import Limits
from tests.proxy.harness import BOUND_S
from tests.proxy.scripted import Reply, Seen, answers, exchange, ok, read_answer, request, running, until

OLD = b"GET /p/a HTTP/1.0\r\nHost: a\r\n\r\n"
NEW = request(b"GET", b"/p/a", close=True)


async def one(asking: bytes, data: bytes, then: str = "keep", limits: Limits | None = None) -> bytes:
    async with running(lambda _: Reply(data, then), limits or Limits()) as (stack, _):
        return await stack.talk(asking)


async def test_HEAD_gets_the_fields_and_no_body() -> None:
    raw = await one(
        request(b"HEAD", b"/p/a", close=True), b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-A: 1\r\n\r\n"
    )
    (answer,) = answers(raw, b"HEAD")
    assert (answer.status, answer.get(b"content-length"), answer.get(b"x-a")) == (200, b"12", b"1")
    assert raw.endswith(b"\r\n\r\n")


async def test_HEAD_of_a_chunked_resource_has_no_body_and_no_length() -> None:
    raw = await one(
        request(b"HEAD", b"/p/a", close=True), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    (answer,) = answers(raw, b"HEAD")
    assert answer.get(b"content-length") is None
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_204_and_304_end_with_their_head(status: int) -> None:
    async with running(lambda s: b"HTTP/1.1 %d X\r\nX-A: 1\r\n\r\n" % status if s.turn % 2 else ok(s)) as (
        stack,
        _,
    ):
        reader, writer = await stack.connect()
        for _ in range(2):
            assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == status
            assert (await exchange(reader, writer, request(b"GET", b"/p/b"))).body == b"/b"


async def test_304_keeps_its_Content_Length_and_204_loses_it() -> None:
    for status, length in ((304, b"5"), (204, None)):
        raw = await one(NEW, b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)
        (answer,) = answers(raw, b"GET")
        assert answer.get(b"content-length") == length


async def test_100_is_swallowed_and_103_passed_on() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    raw = await one(NEW, data)
    (answer,) = answers(raw, b"GET")
    assert answer.interim == [103, 102]
    assert b"Link: </a.css>\r\n" in raw
    assert answer.body == b"ok"


async def test_interim_responses_carry_no_framing() -> None:
    """RFC 9110 section 8.6: a client might read the answer behind it as a body."""
    interim = b"HTTP/1.1 103 X\r\nContent-Length: 30\r\nLink: </a>\r\nConnection: close\r\n\r\n"
    raw = await one(NEW, interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert raw.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_103_reaches_the_client_before_the_answer_is_there() -> None:
    gate = asyncio.Event()

    async with running(lambda _: Reply([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"], "stall")) as (
        stack,
        _,
    ):
        reader, writer = await stack.connect()
        writer.write(NEW)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        assert head.startswith(b"HTTP/1.1 103 Early Hints\r\n")
        gate.set()


async def test_an_HTTP_1_0_client_gets_no_interim_response() -> None:
    raw = await one(OLD, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_101_that_nobody_asked_for_is_502() -> None:
    raw = await one(
        NEW, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw", "stall"
    )
    (answer,) = answers(raw, b"GET")
    assert answer.status == 502
    assert b"upstream_protocol_error" in answer.body


@pytest.mark.parametrize("status", [100, 103])
async def test_a_flood_of_interim_responses_is_502(status: int) -> None:
    def respond(seen: Seen) -> Reply:
        count = 16 if seen.path == b"/many" else 17
        last = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return Reply(b"HTTP/1.1 %d X\r\n\r\n" % status * count + last, "close")

    async with running(respond) as (stack, _):
        (many,) = answers(await stack.talk(request(b"GET", b"/p/many", close=True)), b"GET")
        (flood,) = answers(await stack.talk(request(b"GET", b"/p/flood", close=True)), b"GET")
    assert (many.status, flood.status) == (200, 502)


async def test_a_body_that_ends_with_the_connection_becomes_chunked_for_HTTP_1_1() -> None:
    async with running(lambda _: Reply([b"HTTP/1.1 200 OK\r\n\r\n", b"one ", b"two"], "close")) as (stack, _):
        reader, writer = await stack.connect()
        for _ in range(2):  # and the client's connection lives on
            answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
            assert answer.body == b"one two"
            assert answer.get(b"transfer-encoding") == b"chunked"
            assert answer.get(b"connection") is None


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\none two", b"HTTP/1.0 200 OK\r\n\r\none two"])
async def test_a_body_that_ends_with_the_connection_stays_so_for_HTTP_1_0(data: bytes) -> None:
    raw = await one(OLD, data, "close")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert body == b"one two"
    assert b"chunked" not in head
    assert b"Connection: close" in head


async def test_chunks_are_decoded_for_HTTP_1_0_and_trailers_dropped_for_all() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\n"
    raw = await one(OLD, data)
    assert raw.endswith(b"\r\n\r\nabcd")
    assert b"chunked" not in raw
    (answer,) = answers(await one(NEW, data), b"GET")
    assert answer.body == b"abcd"
    assert answer.get(b"x-t") is None


async def test_an_empty_chunked_body_ends_cleanly() -> None:
    (answer,) = answers(
        await one(NEW, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), b"GET"
    )
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)


async def test_hop_by_hop_fields_stay_between_gateway_and_backend() -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=9\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nX-Stay: 1\r\n\r\n"
    )
    (answer,) = answers(await one(NEW, data), b"GET")
    names = {name for name, _ in answer.fields}
    assert names == {b"content-length", b"x-stay", b"date", b"via", b"x-request-id", b"connection"}


LIES = {
    "version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "old_version": b"HTTP/0.9 200 OK\r\n\r\n",
    "minor": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no_status": b"HTTP/1.1 \r\n\r\n",
    "short_status": b"HTTP/1.1 20 OK\r\n\r\n",
    "long_status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "low_status": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "signed_status": b"HTTP/1.1 +200 OK\r\n\r\n",
    "not_http": b"220 mail.example ESMTP\r\n\r\n",
    "request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "space_before_colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "bare_lf": b"HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 0\r\n\r\n",
    "bare_cr": b"HTTP/1.1 200 OK\r\nX-A: 1\rX-B: 2\r\nContent-Length: 0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: 1\x002\r\nContent-Length: 0\r\n\r\n",
    "empty_name": b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 0\r\n\r\n",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_and_length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "equal_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "length_list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
    "signed_length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
    "hex_length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab",
    "empty_length": b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    "huge_length": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nab",
    "gzip_chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two_codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",
    "chunked_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "large_head": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 33_000 + b"\r\n\r\n",
    "endless_head": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 40_000,
    "many_fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("then", ["stall", "close"])
@pytest.mark.parametrize("name", LIES)
async def test_a_response_head_that_lies_is_502_and_its_connection_ends(name: str, then: str) -> None:
    async with running(lambda s: Reply(LIES[name], then) if s.path == b"/lie" else ok(s)) as (
        stack,
        recorder,
    ):
        reader, writer = await stack.connect()
        answer = await exchange(reader, writer, request(b"GET", b"/p/lie"))
        assert answer.status == 502
        assert b"upstream_protocol_error" in answer.body
        assert stack.reports[0][0] == "upstream_protocol_error"
        after = await exchange(reader, writer, request(b"GET", b"/p/after"))
        assert after.body == b"/after"
    assert recorder.connections == 2


BAD_CHUNKS = {
    "size": b"zz\r\nab\r\n0\r\n\r\n",
    "signed": b"+2\r\nab\r\n0\r\n\r\n",
    "prefixed": b"0x2\r\nab\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "bare_lf": b"2\nab\r\n0\r\n\r\n",
    "no_crlf": b"2\r\nabXX0\r\n\r\n",
    "overflow": b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "space": b"2 \r\nab\r\n0\r\n\r\n",
    "bad_trailer": b"2\r\nab\r\n0\r\nbad trailer\r\n\r\n",
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_a_chunked_response_with_broken_framing_is_cut_and_never_ended(
    name: str, together: bool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    data = [head + BAD_CHUNKS[name]] if together else [head, BAD_CHUNKS[name]]
    async with running(lambda _: Reply(data, "stall")) as (stack, recorder):
        raw = b""
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        try:
            raw = await asyncio.wait_for(reader.read(-1), BOUND_S)
        except ConnectionResetError:
            pass
        for answer in answers(raw, b"GET"):
            assert answer.status == 502 or not answer.whole
        assert b"0\r\n\r\n" not in raw
        await until(lambda: not recorder.open)
        assert stack.reports[0][0] == "upstream_protocol_error"


async def test_large_bodies_of_every_framing_come_through_unchanged() -> None:
    body = bytes(range(256)) * 8_192
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:1], body[1:70_000], body[70_000:]))
    forms = {
        b"/length": Reply(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body),
        b"/chunks": Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"),
        b"/close": Reply(b"HTTP/1.1 200 OK\r\n\r\n" + body, "close"),
    }
    async with running(lambda seen: forms[seen.path]) as (stack, _):
        reader, writer = await stack.connect()
        for path in forms:
            writer.write(request(b"GET", b"/p" + path))
            assert (await read_answer(reader)).body == body
