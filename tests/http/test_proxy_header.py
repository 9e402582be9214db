"""PROXY headers: what the specification's own words allow, and nothing beside it."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.http.proxy_header import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    read_proxy_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 56_324, 443)
V6 = (
    ipaddress.ip_address("2001:db8::7").packed
    + ipaddress.ip_address("2001:db8::1").packed
    + struct.pack("!HH", 56_324, 443)
)
MAPPED = ipaddress.ip_address("::ffff:192.0.2.7").packed * 2 + struct.pack("!HH", 1, 2)
UNIX = b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")


def v2(family: int, body: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(family: int, body: bytes, damage: int = 0) -> bytes:
    blank = v2(family, body + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ damage)


GOOD = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7"),
    "v1 TCP4, all as long as can be": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        "255.255.255.255",
    ),
    "v1 TCP4, port 0": (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 0\r\n", "192.0.2.7"),
    "v1 TCP6": (b"PROXY TCP6 2001:DB8:0::7 2001:db8::1 56324 443\r\n", "2001:db8::7"),
    "v1 TCP6 of an IPv4 client": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n", "192.0.2.7"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "unknown"),
    "v1 UNKNOWN with more": (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        "unknown",
    ),
    "v1 UNKNOWN of 107 bytes": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", "unknown"),
    "v2 TCP4": (v2(0x11, V4), "192.0.2.7"),
    "v2 TCP6": (v2(0x21, V6), "2001:db8::7"),
    "v2 TCP6 of an IPv4 client": (v2(0x21, MAPPED), "192.0.2.7"),
    "v2 UNIX": (v2(0x31, UNIX), "unknown"),
    "v2 UNSPEC": (v2(0x00, b""), "unknown"),
    "v2 LOCAL": (v2(0x00, b"", 0x20), ""),
    "v2 LOCAL with addresses": (v2(0x11, V4, 0x20), ""),
    "v2 LOCAL with a family of its own": (v2(0xEE, b"abc", 0x20), ""),
    "v2 with values": (v2(0x11, V4 + tlv(0xEA, b"\x01vpce-1") + tlv(0x04, b"")), "192.0.2.7"),
    "v2 with a checksum": (with_checksum(0x11, V4), "192.0.2.7"),
    "v2 with values and a checksum": (with_checksum(0x21, V6 + tlv(0x05, b"id")), "2001:db8::7"),
    "v2 of 536 bytes": (v2(0x11, V4 + tlv(0x04, bytes(505))), "192.0.2.7"),
}

BAD = {
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a POST, which starts like PROXY": b"POST / HTTP/1.1\r\n\r\n",
    "a ClientHello": b"\x16\x03\x01\x02\x00\x01",
    "two empty lines": b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "lower case": b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "no family": b"PROXY\r\n",
    "UDP": b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "a bare line feed": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
    "a line feed in UNKNOWN": b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    "UNKNOWN joined to more": b"PROXY UNKNOWNS\r\n",
    "a carriage return inside": b"PROXY TCP4 192.0.2.7\r 198.51.100.1 1 2\r\n",
    "a carriage return that ends nothing": b"PROXY UNKNOWN\rx",
    "two spaces": b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "a space at the end": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
    "a tab": b"PROXY TCP4\t192.0.2.7 198.51.100.1 1 2\r\n",
    "a NUL": b"PROXY UNKNOWN \x00\r\n",
    "a byte beyond ASCII": b"PROXY UNKNOWN \xe9\r\n",
    "a port with a zero in front": b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
    "a port over 65535": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
    "a server's port over 65535": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 99999\r\n",
    "a port missing": b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
    "an address with a zero in front": b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
    "an address out of range": b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
    "an address of three parts": b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
    "a server's address that is none": b"PROXY TCP4 192.0.2.7 198.51.100 1 2\r\n",
    "an IPv6 address as TCP4": b"PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n",
    "an IPv4 address as TCP6": b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
    "an IPv6 address with a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "an IPv6 address that is none": b"PROXY TCP6 2001:::7 ::1 1 2\r\n",
    "a server's IPv6 address that is none": b"PROXY TCP6 ::7 2001:::1 1 2\r\n",
    "a name": b"PROXY TCP4 localhost 198.51.100.1 1 2\r\n",
    "108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "107 bytes without an end": b"PROXY UNKNOWN " + b"x" * 93,
    "a signature that ends differently": SIGNATURE[:-1] + b"\r" + b"\x21\x11\x00\x0c" + V4,
    "version 1 in binary": v2(0x11, V4, 0x11),
    "version 3": v2(0x11, V4, 0x31),
    "an unknown command": v2(0x11, V4, 0x22),
    "datagrams over IPv4": v2(0x12, V4),
    "datagrams over IPv6": v2(0x22, V6),
    "datagrams over UNIX": v2(0x32, UNIX),
    "an unknown family": v2(0x41, V4),
    "a transport without a family": v2(0x01, V4),
    "a family without a transport": v2(0x10, V4),
    "a length too short for IPv4": v2(0x11, V4[:-1]),
    "a length too short for IPv6": v2(0x21, V4),
    "a length of nothing": v2(0x11, b""),
    "537 bytes": v2(0x11, V4 + tlv(0x04, bytes(506))),
    "a length of 65535": v2(0x11, V4, length=0xFFFF),
    "a LOCAL header of 65535": v2(0x00, b"", 0x20, length=0xFFFF),
    "a value cut short": v2(0x11, V4 + b"\x04\x00"),
    "a value of one byte": v2(0x11, V4 + b"\x04"),
    "a value longer than the header": v2(0x11, V4 + b"\x04\x00\x05abc"),
    "values behind UNSPEC that are none": v2(0x00, b"ab"),
    "a wrong checksum": with_checksum(0x11, V4, damage=1),
    "a checksum of three bytes": v2(0x11, V4 + tlv(0x03, bytes(3))),
    "two checksums": with_checksum(0x11, V4 + tlv(0x03, bytes(4))),
    "a TLS value of four bytes": v2(0x11, V4 + tlv(0x20, bytes(4))),
}


def read(data: bytes) -> ProxyHeader | None:
    return read_proxy_header(data)


@pytest.mark.parametrize(("data", "address"), GOOD.values(), ids=GOOD.keys())
def test_a_good_header_names_the_client_and_leaves_what_follows(data: bytes, address: str) -> None:
    for rest in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", data):
        header = read(data + rest)
        assert header is not None
        assert (header.address, header.size, header.tls) == (address, len(data), False)


@pytest.mark.parametrize("data", [data for data, _ in GOOD.values()], ids=GOOD.keys())
def test_a_header_cut_at_any_byte_is_unfinished_and_no_error(data: bytes) -> None:
    assert [end for end in range(len(data)) if read(data[:end]) is not None] == []


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_whatever_leaves_a_doubt_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read(data)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_bad_header_that_drips_is_refused_at_its_end_at_the_latest(data: bytes) -> None:
    for end in range(len(data)):
        try:
            assert read(data[:end]) is None
        except ProxyHeaderError:
            return
    with pytest.raises(ProxyHeaderError):
        read(data)


@pytest.mark.parametrize(("flags", "tls"), [(0x01, True), (0x07, True), (0x00, False), (0x06, False)])
def test_a_balancer_says_that_its_client_came_over_tls(flags: int, tls: bool) -> None:
    header = read(v2(0x11, V4 + tlv(0x20, struct.pack("!BI", flags, 0) + tlv(0x21, b"TLSv1.3"))))
    assert header is not None
    assert header.tls is tls


@given(st.binary(max_size=600))
def test_any_bytes_are_a_header_unfinished_or_refused(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x10"):
        try:
            header = read(start + data)
        except ProxyHeaderError:
            continue
        if header is None:
            limit = MAX_V1_BYTES if start[:1] == b"P" or data[:1] == b"P" else MAX_V2_BYTES
            assert len(start + data) < limit
        else:
            assert header.size <= min(len(start + data), MAX_V2_BYTES)


def test_the_checksum_is_the_one_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE306_9283  # RFC 9260 and every catalogue of checksums
    assert crc32c(bytes(32)) == 0x8A91_36AA  # RFC 3720 appendix B.4
