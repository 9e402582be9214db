"""Upgrades as a way in: two readers of one connection who think of different protocols. One name for each attempt.

A tunnel's bytes are nobody's requests, so wherever it is in doubt which they are, they are thrown away and the
connection closed, on both sides (CVE-2026-73548, and what is known as h2c smuggling).
"""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.harness import BOUND_S, answer, backend, gateway, make_snapshot, read_head
from tests.proxy.scripted import Recorder, Reply, answers, request, until
from tests.proxy.tunnels import ASK, GRANT, KEY_LINES, UPGRADES, raw_stack

SMUGGLED = b"GET /p/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CONNECTION = b"Connection: Upgrade"
WEBSOCKET = b"Upgrade: websocket"

# No upgrade: the field is dropped, and what stands behind the request is the next one.
IGNORED: dict[str, tuple[bytes, tuple[bytes, ...], bytes]] = {
    "body": (b"GET", (CONNECTION, WEBSOCKET), b"hello"),
    "body_on_post": (b"POST", (CONNECTION, WEBSOCKET), b"hello"),
    "post": (b"POST", (CONNECTION, WEBSOCKET), b""),
    "two_fields": (b"GET", (CONNECTION, WEBSOCKET, WEBSOCKET), b""),
    "two_protocols": (b"GET", (CONNECTION, WEBSOCKET, b"Upgrade: h2c"), b""),
    "list": (b"GET", (CONNECTION, b"Upgrade: websocket, h2c"), b""),
    "list_h2c_first": (b"GET", (CONNECTION, b"Upgrade: h2c, websocket"), b""),
    "h2c": (b"GET", (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), b""),
    "h2c_without_settings": (b"GET", (CONNECTION, b"Upgrade: h2c"), b""),
    "http_2": (b"GET", (CONNECTION, b"Upgrade: HTTP/2.0"), b""),
    "tls": (b"GET", (CONNECTION, b"Upgrade: TLS/1.0"), b""),
    "not_allowed_here": (b"GET", (CONNECTION, b"Upgrade: other"), b""),
    "websocket_with_a_version": (b"GET", (CONNECTION, b"Upgrade: websocket/13"), b""),
    "connection_without_it": (b"GET", (b"Connection: keep-alive", WEBSOCKET), b""),
    "no_connection": (b"GET", (WEBSOCKET,), b""),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORED)
async def test_no_upgrade_is_a_request_like_any_other(name: str) -> None:
    method, lines, body = IGNORED[name]
    recorder = Recorder()
    data = request(method, b"/p/a", *lines, *KEY_LINES, body=body) + request(b"GET", b"/p/b", close=True)
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        found = answers(await stack.talk(data), method, b"GET")
    assert [one.status for one in found] == [200, 200]
    assert [seen.path for seen in recorder.seen] == [b"/a", b"/b"]
    assert recorder.connections == 1
    for head in recorder.heads:
        assert b"upgrade" not in head.lower()
        assert b"http2-settings" not in head.lower()


async def test_no_upgrade_chunked() -> None:
    recorder = Recorder()
    data = request(b"GET", b"/p/a", *ASK, b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n" + request(
        b"GET", b"/p/b", close=True
    )  # fmt: skip
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        assert [one.status for one in answers(await stack.talk(data), b"GET", b"GET")] == [200, 200]
    assert [(seen.path, seen.body) for seen in recorder.seen] == [(b"/a", b"hello"), (b"/b", b"")]
    assert b"upgrade" not in recorder.heads[0].lower()


async def test_no_upgrade_on_http_1_0() -> None:
    recorder = Recorder()
    data = request(b"GET", b"/p/a", *ASK).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        assert [one.status for one in answers(await stack.talk(data), b"GET")] == [200]
    assert b"upgrade" not in recorder.heads[0].lower()


async def test_no_upgrade_with_expect() -> None:
    recorder = Recorder()
    data = request(b"GET", b"/p/a", *ASK, b"Expect: 100-continue", b"Content-Length: 0")
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        reader, writer = await stack.connect()
        writer.write(data)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
    assert b"upgrade" not in recorder.heads[0].lower()


async def test_what_the_backend_is_asked_for_is_written_anew() -> None:
    async with raw_stack() as (stack, raw):
        _, writer = await stack.connect()
        writer.write(
            request(b"GET", b"/p/a", b"Connection: keep-alive, UPGRADE, X-Hop", b"Upgrade: WebSocket", b"X-Hop: 1", *KEY_LINES)
        )  # fmt: skip
        await raw.next()
        lines = raw.heads[0].split(b"\r\n")
        assert lines.count(b"Connection: upgrade") == 1
        assert lines.count(b"Upgrade: websocket") == 1
        assert [line for line in lines if b"pgrade" in line.lower()] == [
            b"Connection: upgrade",
            b"Upgrade: websocket",
        ]
        assert set(KEY_LINES) < set(lines)
        assert b"X-Hop" not in raw.heads[0]


REFUSALS = {
    "200": answer(b"plain"),
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "426": b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 4\r\n\r\nmore",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "early_hints_first": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "100_first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_backend_that_does_not_switch_answers_and_both_connections_end(name: str) -> None:
    recorder = Recorder(lambda seen: REFUSALS[name])
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        raw = await stack.talk(request(b"GET", b"/p/a", *ASK) + SMUGGLED)
        (found,) = answers(raw, b"GET")
        assert found.status in {200, 204, 404, 426}
        assert found.get(b"connection") == b"close"
        assert found.get(b"upgrade") is None
        await until(lambda: recorder.open == 0)
        # Nobody's next request meets a connection that may hold a tunnel's bytes.
        (again,) = answers(await stack.talk(request(b"GET", b"/p/b", close=True)), b"GET")
        assert again.status == found.status
    assert [seen.path for seen in recorder.seen] == [b"/a", b"/b"]
    assert recorder.connections == 2


async def test_bytes_that_come_while_a_refusal_is_on_its_way_are_no_request() -> None:
    async with raw_stack(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345") as (stack, raw):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", *ASK))
        _, backend_writer = await raw.next()
        assert b"200 OK" in await read_head(reader)
        writer.write(SMUGGLED)
        await writer.drain()
        backend_writer.write(b"67890")
        assert await asyncio.wait_for(reader.read(-1), BOUND_S) == b"1234567890"
    assert len(raw.heads) == 1


@pytest.mark.parametrize(
    ("path", "status"), [(b"/nowhere", 404), (b"/s/a", 401), (b"/p//a", 400), (b"/p/%2e%2e/a", 400)]
)
async def test_behind_an_upgrade_that_is_refused_before_the_backend_nothing_is_read(
    path: bytes, status: int
) -> None:
    recorder = Recorder()
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        (found,) = answers(await stack.talk(request(b"GET", path, *ASK) + SMUGGLED), b"GET")
        assert (found.status, found.get(b"connection")) == (status, b"close")
        assert found.get(b"content-type") == b"application/problem+json"
    assert recorder.seen == []


BAD_GRANTS = {
    "without_fields": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "without_connection": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "without_upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
    "another_protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "list": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    "two_fields": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n",
    "with_a_length": GRANT[:-2] + b"Content-Length: 5\r\n\r\n",
    "with_length_0": GRANT[:-2] + b"Content-Length: 0\r\n\r\n",
    "chunked": GRANT[:-2] + b"Transfer-Encoding: chunked\r\n\r\n",
    "http_1_0": GRANT.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "bare_line_feeds": GRANT.replace(b"\r\n", b"\n"),
    "cut": GRANT[:40],
}


@pytest.mark.parametrize("name", BAD_GRANTS)
async def test_a_101_that_is_not_the_one_that_was_asked_for_is_502(name: str) -> None:
    then = "close" if name in {"cut", "bare_line_feeds"} else "stall"
    recorder = Recorder(lambda seen: Reply(BAD_GRANTS[name] + (b"" if then == "close" else b"tunnel"), then))
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        (found,) = answers(await stack.talk(request(b"GET", b"/p/a", *ASK) + SMUGGLED), b"GET")
        assert (found.status, found.get(b"connection")) == (502, b"close")
        assert [reason for reason, _ in stack.reports] == ["upstream_protocol_error"]
        await until(lambda: recorder.open == 0)
        assert not stack.context.tunnels
    assert len(recorder.seen) == 1


NOT_ASKED = {
    "get": request(b"GET", b"/p/a"),
    "post": request(b"POST", b"/p/a", body=b"x"),
    "h2c": request(b"GET", b"/p/a", CONNECTION, b"Upgrade: h2c"),
    "connection_alone": request(b"GET", b"/p/a", CONNECTION),
}


@pytest.mark.parametrize("name", NOT_ASKED)
async def test_a_101_that_nobody_asked_for_is_502(name: str) -> None:
    recorder = Recorder(lambda seen: Reply(GRANT + b"tunnel", "stall"))
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, upgrades=UPGRADES)) as stack:
        reader, writer = await stack.connect()
        writer.write(NOT_ASKED[name])
        assert (await read_head(reader)).startswith(b"HTTP/1.1 502 ")
        await until(lambda: recorder.open == 0)
        assert not stack.context.tunnels


async def test_interim_responses_before_a_101_pass() -> None:
    grant = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + GRANT
    async with raw_stack(grant) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", *ASK))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


async def test_the_client_s_101_is_written_anew() -> None:
    grant = GRANT[:-2] + b"Keep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Request-ID: mine\r\nX-Stay: 1\r\n\r\n"
    async with raw_stack(grant.replace(b"Connection: Upgrade", b"connection: UPGRADE, X-Hop")) as (stack, _):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", *ASK, b"X-Request-ID: r-1"))
        lines = (await read_head(reader)).split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
        assert sorted(lines[1:-2]) == [
            b"Connection: upgrade",
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            b"Upgrade: websocket",
            b"Via: 1.1 authgate",
            b"X-Request-ID: r-1",
            b"X-Stay: 1",
        ]


async def test_a_protocol_of_one_s_own_by_name_and_version() -> None:
    grant = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: my-proto/2\r\nConnection: Upgrade\r\n\r\n"
    async with raw_stack(grant) as (stack, raw):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a", CONNECTION, b"Upgrade: My-Proto/2"))
        assert b"Upgrade: My-Proto/2\r\n" in await read_head(reader)
        backend_reader, backend_writer = await raw.next()
        assert b"Connection: upgrade\r\nUpgrade: My-Proto/2\r\n" in raw.heads[0]
        writer.write(b"\x00any bytes")
        backend_writer.write(b"\xffat all")
        assert await asyncio.wait_for(backend_reader.readexactly(10), BOUND_S) == b"\x00any bytes"
        assert await asyncio.wait_for(reader.readexactly(7), BOUND_S) == b"\xffat all"
