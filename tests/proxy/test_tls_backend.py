"""Backends over https: the certificate is checked, always, before a byte of a request leaves."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from authgate_fast.limits import DEFAULTS, Limits
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, Reply, Respond, answers, exchange, ok, request, until


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def trust(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust `authority` and nobody else, as an operator would by the environment."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@asynccontextmanager
async def running_tls(
    tls: ssl.SSLContext, respond: Respond = ok, limits: Limits = DEFAULTS
) -> AsyncIterator[tuple[Stack, Recorder]]:
    recorder = Recorder(respond)
    async with backend(recorder.handle, tls) as port:
        snapshot = make_snapshot(port, limits, scheme="https", host="localhost")
        async with gateway(snapshot, limits) as stack:
            yield stack, recorder


async def test_a_certificate_of_a_trusted_authority_is_accepted_and_the_connection_kept(
    authority: trustme.CA,
) -> None:
    tls = server_context(authority.issue_cert("localhost"))
    async with running_tls(tls) as (stack, recorder):
        reader, writer = await stack.connect()
        for n in range(5):
            answer = await exchange(
                reader, writer, request(b"PUT", b"/p/%d" % n, body=b"x" * 100_000), b"PUT"
            )
            assert (answer.status, answer.body) == (200, b"/%d" % n)
    assert recorder.connections == 1
    assert {len(seen.body) for seen in recorder.seen} == {100_000}


async def test_a_large_body_comes_through_tls_unchanged(authority: trustme.CA) -> None:
    body = bytes(range(256)) * 20_000
    tls = server_context(authority.issue_cert("localhost"))
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with running_tls(tls, lambda _: data) as (stack, _):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).body == body


async def test_the_server_is_told_its_name_and_that_we_speak_http_1_1(authority: trustme.CA) -> None:
    names: list[str | None] = []
    tls = server_context(authority.issue_cert("localhost"))
    tls.sni_callback = lambda _sock, name, _context: names.append(name)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    async with running_tls(tls) as (stack, _):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200
    assert names == ["localhost"]


async def refused(stack: Stack, recorder: Recorder, status: int = 502) -> None:
    reader, writer = await stack.connect()
    for _ in range(2):  # and the failure is no reason to close the client's connection
        answer = await exchange(reader, writer, request(b"GET", b"/p/secret"))
        assert answer.status == status
        assert b"localhost" not in answer.body
        assert b"certificate" not in answer.body
    assert recorder.seen == []
    await until(lambda: not any(counts["open"] for counts in stack.context.pools.counts().values()))


async def test_another_host_s_certificate_is_502(authority: trustme.CA) -> None:
    tls = server_context(authority.issue_cert("other.example"))
    async with running_tls(tls) as (stack, recorder):
        await refused(stack, recorder)
        assert "localhost" in stack.reports[0][1]


async def test_an_unknown_authority_is_502() -> None:
    tls = server_context(trustme.CA().issue_cert("localhost"))
    async with running_tls(tls) as (stack, recorder):
        await refused(stack, recorder)
        assert "certificate" in stack.reports[0][1].lower()


async def test_an_expired_certificate_is_502(authority: trustme.CA) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    tls = server_context(
        authority.issue_cert("localhost", not_before=past, not_after=past + datetime.timedelta(9))
    )
    async with running_tls(tls) as (stack, recorder):
        await refused(stack, recorder)


async def test_a_server_that_does_not_speak_tls_is_502() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read(-1)

    async with (
        backend(plain) as port,
        gateway(make_snapshot(port, scheme="https", host="localhost")) as stack,
    ):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 502


async def test_a_handshake_that_does_not_end_is_504() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    limits = Limits(connect_timeout_s=0.1)
    async with backend(silent) as port:
        snapshot = make_snapshot(port, limits, scheme="https", host="localhost")
        async with gateway(snapshot, limits) as stack:
            reader, writer = await stack.connect()
            assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 504


async def test_an_answer_that_ends_with_the_connection_ends_cleanly_with_close_notify(
    authority: trustme.CA,
) -> None:
    tls = server_context(authority.issue_cert("localhost"))
    async with running_tls(tls, lambda _: Reply(b"HTTP/1.1 200 OK\r\n\r\nwhole", "close")) as (stack, _):
        (answer,) = answers(await stack.talk(request(b"GET", b"/p/a", close=True)), b"GET")
        assert (answer.body, answer.whole) == (b"whole", True)


async def test_a_cut_without_close_notify_is_not_the_end_of_a_body(authority: trustme.CA) -> None:
    """Whoever can cut the TCP connection could else shorten an answer unseen (RFC 9112 section 9.8)."""
    tls = server_context(authority.issue_cert("localhost"))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nonly a part")
        await writer.drain()
        await asyncio.sleep(0.05)  # the bytes are to be on their way before the cut
        writer.transport.abort()

    async with (
        backend(handler, tls) as port,
        gateway(make_snapshot(port, scheme="https", host="localhost")) as stack,
    ):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/p/a"))
        raw = await asyncio.wait_for(reader.read(-1), BOUND_S)
        (answer,) = answers(raw, b"GET")
        assert (answer.body, answer.whole) == (b"only a part", False)


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_stale_tls_connection_is_replaced_and_the_request_sent_once_more(
    authority: trustme.CA, then: str
) -> None:
    tls = server_context(authority.issue_cert("localhost"))

    def respond(seen: object) -> Reply | bytes:
        return Reply(b"", then) if (seen.connection, seen.turn) == (1, 2) else ok(seen)  # type: ignore[attr-defined,arg-type]

    async with running_tls(tls, respond) as (stack, recorder):
        reader, writer = await stack.connect()
        for n in range(3):
            assert (await exchange(reader, writer, request(b"GET", b"/p/%d" % n))).body == b"/%d" % n
    assert recorder.connections == 2
