"""Requests that the parser treats in a way of its own, and clients of HTTP/1.0."""

from __future__ import annotations

import pytest

from authgate_fast.auth.api_key import ApiKeyAuthenticator, key_digest
from authgate_fast.config.compile import build_snapshot
from tests.proxy.harness import KEY, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, answers, exchange, request, running

UPGRADES = {
    "websocket": (b"Upgrade: websocket", b"Connection: upgrade"),
    "h2c": (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    "without_connection": (b"Upgrade: websocket",),
}


@pytest.mark.parametrize("name", UPGRADES)
async def test_an_upgrade_that_is_not_served_is_an_ordinary_request(name: str) -> None:
    """RFC 9110 section 7.8: a server may ignore Upgrade. The bytes behind it are the next request."""
    data = request(b"GET", b"/p/a", *UPGRADES[name]) + request(b"GET", b"/p/b", close=True)
    async with running() as (stack, recorder):
        for _ in range(2):  # the shared parser is as good as before
            got = answers(await stack.talk(data), b"GET", b"GET")
            assert [answer.body for answer in got] == [b"/a", b"/b"]
        assert stack.reports == []
    for head in recorder.heads:
        assert b"upgrade" not in head.lower()
        assert b"http2-settings" not in head.lower()


@pytest.mark.parametrize(
    ("method", "target"),
    [(b"CONNECT", b"a:443"), (b"TRACE", b"/p/a"), (b"BREW", b"/p/a")],
)
async def test_a_method_that_is_not_passed_on_is_501_and_closes(method: bytes, target: bytes) -> None:
    data = request(method, target) + request(b"GET", b"/p/never")
    async with running() as (stack, recorder):
        (answer,) = answers(await stack.talk(data), b"GET", b"GET")
        assert (answer.status, answer.get(b"connection")) == (501, b"close")
        assert recorder.seen == []
        (answer,) = answers(await stack.talk(request(b"GET", b"/p/after", close=True)), b"GET")
        assert answer.body == b"/after"


@pytest.mark.parametrize("lines", [b"", b"Connection: keep-alive\r\n"])
async def test_an_HTTP_1_0_client_is_answered_once_and_closed(lines: bytes) -> None:
    """Keep-alive was never a part of HTTP/1.0; nothing behind the first request is read."""
    data = b"GET /p/a HTTP/1.0\r\nHost: a\r\n%b\r\n" % lines
    async with running() as (stack, recorder):
        (answer,) = answers(await stack.talk(data + data), b"GET", b"GET")
        assert (answer.status, answer.body, answer.get(b"connection")) == (200, b"/a", b"close")
    assert len(recorder.seen) == 1
    assert recorder.heads[0].startswith(b"GET /a HTTP/1.1\r\n")


async def test_an_HTTP_1_0_client_needs_no_Host() -> None:
    async with running() as (stack, recorder):
        (answer,) = answers(await stack.talk(b"POST /p/a HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"), b"POST")
        assert answer.status == 200
    assert recorder.seen[0].body == b"hi"
    assert b"\r\nHost: 127.0.0.1:" in recorder.heads[0]


async def test_each_request_has_an_id_of_its_own_in_answer_and_backend() -> None:
    data = request(b"GET", b"/p/a") + request(b"GET", b"/nowhere") + request(b"GET", b"/p/b", close=True)
    async with running() as (stack, recorder):
        got = answers(await stack.talk(data), b"GET", b"GET", b"GET")
    ids = [answer.get(b"x-request-id") for answer in got]
    assert len(set(ids)) == 3
    for answer, head in zip((got[0], got[2]), recorder.heads, strict=True):
        request_id = answer.get(b"x-request-id")
        assert request_id is not None
        assert b"X-Request-ID: %b\r\n" % request_id in head


async def test_a_head_like_the_last_one_is_read_for_the_snapshot_in_force() -> None:
    """A kept connection's memory of its last head must not outlive what that head was read for."""
    recorder = Recorder()
    async with backend(recorder.handle) as port:
        by_key, unknown = (make_snapshot(port, key_digest=digest) for digest in (_digest(KEY), b"x" * 32))
        (gate,) = make_snapshot(port, key_digest=_digest(KEY)).gateways.values()
        gate.authenticator = ApiKeyAuthenticator("gw", "X-Other", gate.consumers)
        by_other = build_snapshot(2, [gate])
        data = request(b"GET", b"/s/a", b"X-Api-Key: " + KEY.encode(), b"X-Other: " + KEY.encode())
        async with gateway(by_key) as stack:
            reader, writer = await stack.connect()
            for snapshot, taken in ((by_key, b"X-Api-Key"), (by_other, b"X-Other"), (by_key, b"X-Api-Key")):
                (left,) = {b"X-Api-Key", b"X-Other"} - {taken}
                for _ in range(3):
                    stack.context.snapshot = snapshot
                    assert (await exchange(reader, writer, data)).status == 200
                    assert taken + b":" not in recorder.heads[-1]
                    assert left + b":" in recorder.heads[-1]
            stack.context.snapshot = unknown
            assert (await exchange(reader, writer, data)).status == 401


def _digest(key: str) -> bytes:
    return bytes.fromhex(key_digest(key))
