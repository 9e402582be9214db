"""Handshakes: which certificate answers which name, and what is spoken: TLS 1.2 and 1.3, modern ciphers, HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import struct
import warnings
from pathlib import Path

import pytest
import trustme

from authgate_fast.limits import Limits
from authgate_fast.server import entrance
from tests.proxy.harness import BOUND_S
from tests.proxy.scripted import until
from tests.tls.kit import GET, client_context, connected, door, read_all, visit, write_pair

MODERN = (
    ("RSA", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("RSA", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("RSA", "ECDHE-RSA-CHACHA20-POLY1305"),
    ("ECDSA", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("ECDSA", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("ECDSA", "ECDHE-ECDSA-CHACHA20-POLY1305"),
)
OLD = (
    "AES128-GCM-SHA256",  # no forward secrecy
    "AES256-SHA",
    "ECDHE-RSA-AES128-SHA",  # CBC
    "ECDHE-ECDSA-AES256-SHA384",
    "DHE-RSA-AES128-GCM-SHA256",
    "AECDH-AES128-SHA",  # nobody proves who they are
    "ECDHE-RSA-NULL-SHA",
)


def tls_1_2(authority: trustme.CA, ciphers: str) -> ssl.SSLContext:
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("asked", "answering"),
    [
        ("shop.example", "shop.example"),
        ("SHOP.Example", "shop.example"),
        ("www.shop.example", "*.shop.example"),
        ("api.shop.example", "api.shop.example"),  # exact beats wildcard
        ("a.b.shop.example", "first.example"),  # a wildcard is one label (RFC 6125 section 6.4.3)
        ("first.example", "first.example"),
        ("unknown.example", "first.example"),
        ("example", "first.example"),
        (None, "first.example"),
    ],
)
async def test_the_certificate_is_chosen_by_the_name_exact_then_wildcard_then_the_first(
    authority: trustme.CA, tmp_path: Path, asked: str | None, answering: str
) -> None:
    pairs = [
        write_pair(authority, tmp_path, f"p{number}", *names)
        for number, names in enumerate(
            (
                ("first.example",),
                ("shop.example",),
                ("*.shop.example",),
                ("api.shop.example", "other.example"),
            )
        )
    ]
    context = client_context(authority)
    context.check_hostname = False
    async with door(*pairs) as here:
        seen = await visit(here.port, context, asked)
        assert answering in seen.names
        assert seen.answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_of_two_certificates_with_one_name_the_first_answers(
    authority: trustme.CA, tmp_path: Path
) -> None:
    pairs = [
        write_pair(authority, tmp_path, stem, "localhost", stem) for stem in ("one.example", "two.example")
    ]
    async with door(*pairs) as here:
        assert "one.example" in (await visit(here.port, client_context(authority))).names


async def test_a_directory_gives_certificates_in_both_layouts(authority: trustme.CA, tmp_path: Path) -> None:
    write_pair(authority, tmp_path, "a", "a.example")
    live = tmp_path / "b.example"
    live.mkdir()
    cert_file, key_file = write_pair(authority, tmp_path, "b", "b.example")
    cert_file.rename(live / "fullchain.pem")
    key_file.rename(live / "privkey.pem")
    (tmp_path / "README").write_text("certbot leaves one")
    async with door(directory=tmp_path) as here:
        for name in ("a.example", "b.example"):
            assert (await visit(here.port, client_context(authority), name)).names == (name,)


@pytest.mark.parametrize(("kind", "cipher"), MODERN)
async def test_modern_ciphers_are_spoken_with_the_key_that_they_need(
    authority: trustme.CA, tmp_path: Path, kind: str, cipher: str
) -> None:
    pairs = [
        write_pair(authority, tmp_path, str(key), "localhost", key_type=key)
        for key in (trustme.KeyType.RSA, trustme.KeyType.ECDSA)
    ]
    async with door(*pairs) as here:
        seen = await visit(here.port, tls_1_2(authority, cipher))
        assert (seen.version, seen.cipher) == ("TLSv1.2", cipher)
        assert seen.compression is None


@pytest.mark.parametrize("cipher", OLD)
async def test_old_ciphers_are_refused_with_an_alert(
    authority: trustme.CA, tmp_path: Path, cipher: str
) -> None:
    pairs = [
        write_pair(authority, tmp_path, str(key), "localhost", key_type=key)
        for key in (trustme.KeyType.RSA, trustme.KeyType.ECDSA)
    ]
    async with door(*pairs) as here:
        with pytest.raises(ssl.SSLError) as failed:
            await visit(here.port, tls_1_2(authority, cipher))
        assert failed.value.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"
        await until(lambda: not here.entrance.pending)
        assert here.tls is not None
        assert here.tls.failures == {"NO_SHARED_CIPHER": 1}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_refused_with_an_alert(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = tls_1_2(authority, "ALL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        with pytest.raises(ssl.SSLError) as failed:
            await visit(here.port, context)
        assert failed.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "http/1.1"),
        (["http/1.1"], "http/1.1"),
        (["http/1.0"], None),
        (["h2"], None),
        ([], None),
    ],
)
async def test_http_1_1_is_all_that_is_agreed_on(
    authority: trustme.CA, tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    """Who offers only other protocols gets no answer to the offer (the ssl module cannot send the alert of
    RFC 7301 section 3.2), which by RFC 9113 section 3.2 is not HTTP/2."""
    context = client_context(authority)
    if offered:
        context.set_alpn_protocols(offered)
    async with door(
        write_pair(authority, tmp_path, "p", "localhost"), write_pair(authority, tmp_path, "q", "q.example")
    ) as here:
        for name in ("localhost", "q.example"):
            seen = await visit(here.port, context, name)
            assert seen.alpn == chosen
            assert seen.answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_backend_hears_that_the_client_came_over_https(
    authority: trustme.CA, tmp_path: Path
) -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        fields = (await visit(here.port, client_context(authority), request=request)).fields
        assert (fields["x-forwarded-proto"], fields["x-forwarded-for"]) == ("https", "127.0.0.1")
        assert not [name for name in fields if name.startswith("x-client-cert")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["localhost", "q.example"])
async def test_a_client_that_comes_again_resumes_its_session(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion, name: str
) -> None:
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    async with door(
        write_pair(authority, tmp_path, "p", "localhost"), write_pair(authority, tmp_path, "q", "q.example")
    ) as here:
        first = await visit(here.port, context, name)
        again = await visit(here.port, context, name, session=first.session)
        third = await visit(here.port, context, name)
        assert (first.reused, again.reused, third.reused) == (False, True, False)
        assert again.answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (here.entrance.handshakes, here.entrance.resumed) == (3, 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
async def test_a_renegotiation_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{here.port}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        said = b""
        async with asyncio.timeout(BOUND_S):
            while b"Extended master secret" not in said:
                said += await client.stdout.read(4_096)
            client.stdin.write(b"R\n")
            while piece := await client.stdout.read(4_096):
                said += piece
            await client.wait()
        assert b"no renegotiation" in said


async def test_plain_http_is_told_that_the_port_speaks_tls(authority: trustme.CA, tmp_path: Path) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        async with connected(here.port) as (reader, writer):
            writer.write(GET)
            answer = await read_all(reader)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"https://" in answer
        await until(lambda: not here.entrance.pending)
        assert here.entrance.failures == {"plain HTTP": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n"[:0] + b"1",
    ],
    ids=["NUL", "an alert", "SSL 2", "empty lines first", "a digit"],
)
async def test_whatever_else_comes_first_gets_no_answer(
    authority: trustme.CA, tmp_path: Path, data: bytes
) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        async with connected(here.port) as (reader, writer):
            writer.write(data)
            assert await read_all(reader) == b""
        await until(lambda: not here.entrance.pending)


def client_hello(name: bytes) -> bytes:
    """Write the beginning of TLS 1.2 that asks for `name`, whatever bytes that are."""
    entry = b"\x00" + struct.pack("!H", len(name)) + name
    server_name = struct.pack("!HHH", 0, len(entry) + 2, len(entry)) + entry
    groups = bytes.fromhex("000a00040002001d") + bytes.fromhex("000d0006000404010403")
    extensions = server_name + groups
    hello = b"\x03\x03" + bytes(32) + b"\x00" + bytes.fromhex("0004c02bc02f") + b"\x01\x00"
    hello += struct.pack("!H", len(extensions)) + extensions
    body = b"\x01" + len(hello).to_bytes(3, "big") + hello
    return b"\x16\x03\x01" + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize(
    "name", [b"localhost", b"caf\xc3\xa9.example", b"\xff\xfe", b"*.shop.example", b"a" * 300, b""]
)
async def test_no_name_that_a_client_asks_for_makes_noise(
    authority: trustme.CA, tmp_path: Path, name: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        async with connected(here.port) as (reader, writer):
            writer.write(client_hello(name))
            first = await asyncio.wait_for(reader.read(1), BOUND_S)
            assert first in (b"\x16", b"\x15")  # a ServerHello or an alert
        await until(lambda: not here.entrance.pending)
        assert (await visit(here.port, client_context(authority))).answer
    assert capfd.readouterr().err == ""


async def test_a_connection_that_says_nothing_is_closed_in_time(
    authority: trustme.CA, tmp_path: Path
) -> None:
    limits = Limits(head_timeout_s=0.1)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port) as (reader, _),
    ):
        assert await read_all(reader) == b""
        assert here.entrance.failures == {"timeout": 1}
        assert here.stack.context.counters.limit_hits == {"head_timeout_s": 1}


@pytest.mark.parametrize("cut", [1, 5, 40])
async def test_a_handshake_that_does_not_end_is_closed_in_time(
    authority: trustme.CA, tmp_path: Path, cut: int
) -> None:
    limits = Limits(tls_handshake_timeout_s=0.1)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port) as (reader, writer),
    ):
        writer.write(client_hello(b"localhost")[:cut])
        assert await read_all(reader) == b""
        await until(lambda: not here.entrance.pending)
        assert here.stack.context.counters.limit_hits == {"tls_handshake_timeout_s": 1}


async def test_connections_on_their_way_in_count_towards_the_limit(
    authority: trustme.CA, tmp_path: Path
) -> None:
    limits = Limits(max_connections=2)
    async with door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here:
        async with connected(here.port), connected(here.port):
            await until(lambda: here.entrance.pending == 2)
            async with connected(here.port) as (reader, _):
                assert await read_all(reader) == b""
        assert here.stack.context.counters.limit_hits == {"max_connections": 1}
        await until(lambda: not here.entrance.pending)
        assert (await visit(here.port, client_context(authority))).answer


async def test_who_has_been_on_the_way_in_for_long_makes_room_for_others(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "SUSPECT_AFTER_S", 0.0)
    limits = Limits(max_connections=4)
    async with door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here:
        async with contextlib.AsyncExitStack() as flood:
            silent = [await flood.enter_async_context(connected(here.port)) for _ in range(4)]
            await until(lambda: here.entrance.pending == 4)
            assert (await visit(here.port, client_context(authority))).answer
            assert await read_all(silent[0][0]) == b""
        await until(lambda: not here.entrance.pending)


async def test_one_address_has_only_so_many_connections_on_their_way_in(
    authority: trustme.CA, tmp_path: Path
) -> None:
    limits = Limits(max_connections_per_address=2)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost"), limits=limits) as here,
        connected(here.port),
        connected(here.port),
    ):
        await until(lambda: here.entrance.pending == 2)
        async with connected(here.port) as (reader, _):
            assert await read_all(reader) == b""
        assert here.stack.context.counters.limit_hits == {"max_connections_per_address": 1}


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        hello = client_hello(b"localhost")
        for cut in (0, 1, 3, 6, 50, len(hello)):
            with socket.create_connection(("127.0.0.1", here.port)) as raw, contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", cut % 2, 0))
                raw.sendall(hello[:cut])
        await until(lambda: not here.entrance.pending)
        assert not here.stack.context.connections
        assert (await visit(here.port, client_context(authority))).answer
