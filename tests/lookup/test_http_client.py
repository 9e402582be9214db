"""Calls to a provider are bounded, verified and go nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from authgate_fast.addresses import AddressError
from authgate_fast.lookup import http_client
from authgate_fast.lookup.http_client import MAX_BODY_BYTES, CallError, HttpClient, parse_endpoint
from tests.proxy.harness import backend

OK = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def server(
    *answers: bytes, seen: list[bytes] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer each connection's request with `answers`, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            seen.append(head + await reader.readexactly(int(length or b"0")))
        for answer in answers:
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(0)

    async with backend(handle, tls) as port:
        yield port


async def fails(url: str, client: HttpClient | None = None) -> str:
    with pytest.raises(CallError) as caught:
        await (client or HttpClient()).get(url)
    return str(caught.value)


async def test_a_get_is_one_plain_request() -> None:
    seen: list[bytes] = []
    async with server(OK, seen=seen) as port:
        answer = await HttpClient().get(f"http://127.0.0.1:{port}/a/b?c=d")
    assert (answer.status, answer.media_type, answer.body) == (200, b"application/json", b"{}")
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"GET /a/b?c=d HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}".encode() in lines
    assert b"Connection: close" in lines
    assert not any(line.lower().startswith((b"cookie", b"authorization")) for line in lines)


async def test_a_post_has_its_fields_and_its_body() -> None:
    seen: list[bytes] = []
    async with server(OK, seen=seen) as port:
        await HttpClient().call(b"POST", f"http://127.0.0.1:{port}/t", [(b"X-A", b"1")], b"a=b")
        await HttpClient().call(b"POST", f"http://127.0.0.1:{port}/t", [], b"")
    assert b"\r\nX-A: 1\r\n" in seen[0]
    assert seen[0].endswith(b"\r\nContent-Length: 3\r\n\r\na=b")
    assert b"\r\nContent-Length: 0\r\n" in seen[1]


async def test_a_body_comes_chunked_or_to_the_close() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    for answer in (chunked, b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 100 Continue\r\n\r\n" + OK):
        async with server(answer) as port:
            assert (await HttpClient().get(f"http://127.0.0.1:{port}/")).body == b"{}"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    seen: list[bytes] = []
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with server(moved, seen=seen) as port:
        assert (await HttpClient().get(f"http://127.0.0.1:{port}/")).status == 302
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{", "malformed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + b" " * 600_000, "more than"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 600_000, "more than"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20 + OK, "interim"),
    ],
)
async def test_an_answer_of_no_use_is_an_error_for_the_operator(answer: bytes, told: str) -> None:
    async with server(answer) as port:
        assert told in await fails(f"http://127.0.0.1:{port}/")


async def test_the_largest_body_still_fits() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * MAX_BODY_BYTES
    async with server(answer) as port:
        assert len((await HttpClient().get(f"http://127.0.0.1:{port}/")).body) == MAX_BODY_BYTES


async def test_a_server_that_is_silent_or_drips_is_given_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    for handler in (drip, silent):
        async with backend(handler) as port:
            told = await fails(f"http://127.0.0.1:{port}/", HttpClient(total_timeout_s=0.2))
            assert "did not answer in 0.2 s" in told


async def test_a_handshake_that_never_comes_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with backend(silent) as port:
        told = await fails(f"https://127.0.0.1:{port}/", HttpClient(connect_timeout_s=0.3))
        assert "could not be reached in 0.3 s" in told


async def test_nobody_listening_is_told(unused_tcp_port: int) -> None:
    assert "cannot be reached" in await fails(f"http://127.0.0.1:{unused_tcp_port}/")


async def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = trustme.CA()
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(settings)
    async with server(OK, tls=settings) as port:
        assert "was not accepted" in await fails(f"https://localhost:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        client = HttpClient()
        assert (await client.get(f"https://localhost:{port}/")).status == 200
        assert "was not accepted" in await fails(f"https://127.0.0.1:{port}/", client)


async def test_calls_at_once_load_the_certificates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    real = http_client._make_tls
    monkeypatch.setattr(http_client, "_make_tls", lambda: loads.append(1) or real())
    client = HttpClient()

    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n")
        await reader.read(-1)

    async with backend(no_tls) as port:
        calls = [client.get(f"https://127.0.0.1:{port}/") for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, CallError) for result in results), results
    assert len(loads) == 1
    await client.close()


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"], ["fe80::1%lo"], ["::ffff:169.254.169.254"]],
)
async def test_a_name_that_leads_to_a_metadata_address_is_not_called(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    assert "link-local or metadata" in await fails("https://idp.example.com/")


async def test_plain_http_to_a_local_name_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", ("192.0.2.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    assert "another machine" in await fails("http://idp.localhost/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example.com",
        "ftp://idp.example.com/",
        "file:///etc/passwd",
        "http://idp.example.com/",
        "https://user:pw@idp.example.com/",
        "https://idp.example.com/#x",
        "https://idp.example.com/a b",
        "https://idp.example.com/\r\nX: y",
        "https://idp.example.com\\@evil.example/",
        "https://idp.example.com:0/",
        "https://169.254.169.254/latest",
        "https://metadata.google.internal/",
        "https://0x7f.1/",
        "https://idp.example.com/" + "x" * 3_000,
        "https:///path",
        "HTTPS://idp.example.com/",
    ],
)
async def test_anything_but_a_clear_endpoint_is_not_called(url: str) -> None:
    with pytest.raises(AddressError):
        parse_endpoint(url)
    await fails(url)


def test_an_endpoint_keeps_its_path_and_query() -> None:
    found = parse_endpoint("https://idp.example.com:8443/o/token/?tenant=a%2Fb")
    assert (found.host, found.port, found.authority) == ("idp.example.com", 8443, "idp.example.com:8443")
    assert found.target == "/o/token/?tenant=a%2Fb"
    assert parse_endpoint("https://idp.example.com?a=b").target == "/?a=b"
    assert parse_endpoint("https://[2001:db8::1]").authority == "[2001:db8::1]"
