"""The PROXY protocol over real sockets: who may send a header must, nobody else's counts, and any doubt closes."""

from __future__ import annotations

import socket
import ssl
import struct
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from authgate_fast.limits import Limits
from tests.http.test_proxy_header import BAD, GOOD, SIGNATURE, V4, tlv, v2
from tests.proxy.scripted import until
from tests.tls.kit import (
    GET,
    LOOPBACK,
    Door,
    client_context,
    connected,
    door,
    echoed,
    read_all,
    visit,
    write_pair,
)

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
REFUSED = (b"400", b"501")
"""A header is no request; PROXY could be the name of a method that nobody knows."""


async def ask(here: Door, *parts: bytes) -> bytes:
    """Send `parts` one by one and read to the end."""
    async with connected(here.port) as (reader, writer):
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await read_all(reader)


@pytest.mark.parametrize(("header", "address"), GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "apart"])
async def test_the_address_of_a_good_header_is_the_clients(header: bytes, address: str, apart: bool) -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
    async with door(proxies=[LOOPBACK]) as here:
        answer = await ask(here, *((header, request) if apart else (header + request,)))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        told = echoed(answer).get("x-forwarded-for")
        assert told == {"": "127.0.0.1", "unknown": None}.get(address, address)


@pytest.mark.parametrize("header", [V1, v2(0x11, V4)], ids=["v1", "v2"])
async def test_a_header_may_come_byte_by_byte(header: bytes) -> None:
    async with door(proxies=[LOOPBACK]) as here:
        parts = [bytes([byte]) for byte in header + GET]
        assert echoed(await ask(here, *parts))["x-forwarded-for"] == "192.0.2.7"


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_any_doubt_closes_the_connection_without_an_answer(data: bytes) -> None:
    async with door(proxies=[LOOPBACK]) as here:
        assert await ask(here, data + GET) == b""
        await until(lambda: not here.entrance.pending)
        assert here.entrance.failures == {"PROXY header": 1}
        assert not here.stack.context.counters.requests


@pytest.mark.parametrize("header", [V1, v2(0x11, V4)], ids=["v1", "v2"])
async def test_a_connection_that_ends_inside_its_header_leaves_nothing(header: bytes) -> None:
    async with door(proxies=[LOOPBACK]) as here:
        for cut in range(len(header)):
            with socket.create_connection(("127.0.0.1", here.port)) as raw:
                raw.sendall(header[:cut])
        await until(lambda: not here.entrance.pending and here.entrance.failures["closed"] == len(header))
        assert not here.stack.context.connections


async def test_a_header_that_does_not_end_is_closed_in_time() -> None:
    async with door(proxies=[LOOPBACK], limits=Limits(head_timeout_s=0.1)) as here:
        assert await ask(here, V1[:-1]) == b""
        assert here.entrance.failures == {"timeout": 1}


@pytest.mark.parametrize("header", [V1, v2(0x11, V4), b""], ids=["v1", "v2", "none"])
async def test_from_who_is_not_trusted_a_header_is_a_bad_request(header: bytes) -> None:
    async with door(proxies=["198.51.100.0/24"]) as here:
        answer = await ask(here, header + GET)
        if header:
            assert answer[9:12] in REFUSED
        else:
            assert echoed(answer)["x-forwarded-for"] == "127.0.0.1"


async def test_only_one_header_is_taken() -> None:
    async with door(proxies=[LOOPBACK]) as here:
        assert (await ask(here, V1 + V1 + GET))[9:12] in REFUSED


@pytest.mark.parametrize("header", [V1, v2(0x11, V4), v2(0x00, b"", 0x20)], ids=["v1", "v2", "LOCAL"])
async def test_a_header_stands_before_the_tls_handshake(
    authority: trustme.CA, tmp_path: Path, header: bytes
) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost"), proxies=[LOOPBACK]) as here:
        seen = await visit(here.port, client_context(authority), before=header)
        address = "127.0.0.1" if header[12:13] == b"\x20" else "192.0.2.7"
        assert seen.fields["x-forwarded-for"] == address
        assert seen.fields["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("size", [1, 3, 7, 40, 200])
async def test_header_and_handshake_may_be_cut_anywhere(
    authority: trustme.CA, tmp_path: Path, size: int
) -> None:
    """A relay passes on what a client sends in pieces of `size` bytes, across the border of header and ClientHello."""
    async with door(write_pair(authority, tmp_path, "p", "localhost"), proxies=[LOOPBACK]) as here:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with connected(here.port) as (reader, writer):
            sent = V1
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sent += outgoing.read()
                    for at in range(0, len(sent), size):
                        writer.write(sent[at : at + size])
                        await writer.drain()
                    sent = b""
                    incoming.write(await reader.read(65_536))
            tls.write(GET)
            writer.write(outgoing.read())
            assert await reader.read(1)
            await until(lambda: bool(here.stack.context.counters.requests))


async def test_a_header_inside_tls_is_none(authority: trustme.CA, tmp_path: Path) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost"), proxies=["198.51.100.1/32"]) as here:
        seen = await visit(here.port, client_context(authority), request=V1 + GET)
        assert seen.answer[9:12] in REFUSED


async def test_tls_that_ended_at_the_balancer_counts_as_https() -> None:
    header = v2(0x11, V4 + tlv(0x20, struct.pack("!BI", 1, 0)))
    async with door(proxies=[LOOPBACK]) as here:
        assert echoed(await ask(here, header + GET))["x-forwarded-proto"] == "https"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (V1, "192.0.2.7"),  # the client's own word does not count
        (v2(0x00, b"", 0x20), "203.0.113.9, 127.0.0.1"),  # the balancer's does
        (b"PROXY UNKNOWN\r\n", None),  # and whom it cannot name is not the balancer
        (v2(0x00, b""), None),
        (v2(0x31, bytes(216)), None),
    ],
    ids=["a client", "LOCAL", "v1 UNKNOWN", "v2 UNSPEC", "v2 UNIX"],
)
async def test_trust_goes_by_the_address_that_the_header_names(header: bytes, told: str | None) -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
    async with door(proxies=[LOOPBACK]) as here:
        here.stack.context.snapshot.gateways["gw"].trusted_proxies = (ip_network(LOOPBACK),)
        assert echoed(await ask(here, header + request)).get("x-forwarded-for") == told


async def test_failed_checks_are_counted_for_the_client_not_for_the_balancer() -> None:
    limits = Limits(max_failures_per_address=2)
    wrong = b"GET /s/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Api-Key: agk_wrong\r\n\r\n"
    other = b"PROXY TCP4 192.0.2.8 198.51.100.1 1 2\r\n"
    async with door(proxies=[LOOPBACK], limits=limits) as here:
        codes = [(await ask(here, V1 + wrong))[9:12] for _ in range(3)]
        assert codes == [b"401", b"401", b"429"]
        assert (await ask(here, other + wrong))[9:12] == b"401"


def test_the_signature_is_no_http() -> None:
    assert SIGNATURE.startswith(b"\r\n\r\n\x00")
