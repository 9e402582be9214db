"""The PROXY protocol header, versions 1 (text) and 2 (binary), by which a balancer tells who connected to it.

Sans-IO, strict and bounded: one header, at the very start of a connection, from who may send one. What is not
exactly as the specification (HAProxy's ``proxy-protocol.txt``) says is refused; there is no fallback. A header
that is good so far but unfinished is no error, and then every byte so far belongs to it: a caller that looks
before it reads (MSG_PEEK) never takes a byte of what follows.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

MAX_V1_BYTES: Final = 107
"""Section 2.1: the longest line there can be, CRLF included."""
MAX_V2_BYTES: Final = 536
"""Section 2.2: what fits into the smallest packet of IPv4; real headers have 28 to 150 bytes."""
UNKNOWN: Final = "unknown"
"""The address of a client that the balancer cannot name (the word of RFC 7239 section 6.2)."""

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = 16
_V1_START: Final = b"PROXY "
_V1_PART: Final = re.compile(rb"[\x20-\x7e]*\r?")
_V1_LINE: Final = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
# "UNKNOWN" and whatever follows up to CRLF (section 2.1).
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")
_IPV4: Final = re.compile(rb"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_MAX_PORT: Final = 65_535

# Family and transport in one byte (section 2.2). Datagrams do not come over a stream.
_UNSPEC: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX_STREAM: Final = 0x31
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}
_TLV_CRC32C: Final = 0x03
_TLV_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class ProxyHeaderError(ValueError):
    """The bytes are no PROXY header, or one that leaves a doubt. The text is for the operator."""


class ProxyHeader:
    """What a header says. ``size`` is its length in bytes; what follows is the client's.

    ``address`` is the client's address as text, `UNKNOWN`, or "" if the balancer speaks for itself (LOCAL). ``tls``:
    the client came to the balancer over TLS.
    """

    __slots__ = ("address", "size", "tls")

    def __init__(self, size: int, address: str, *, tls: bool = False) -> None:
        self.size = size
        self.address = address
        self.tls = tls


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header that `data` starts with; None: good so far, but unfinished. Raises `ProxyHeaderError`."""
    if data[:1] == b"P":
        return _read_v1(data)
    if data[:1] == b"\r":
        return _read_v2(data)
    if not data:
        return None
    raise ProxyHeaderError("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    line, newline, _ = data[:MAX_V1_BYTES].partition(b"\n")
    line += newline
    if not newline:
        if not line.startswith(_V1_START[: len(line)]) or _V1_PART.fullmatch(line) is None:
            raise ProxyHeaderError("no PROXY header")
        if len(line) == MAX_V1_BYTES:
            raise ProxyHeaderError(f"a PROXY line of more than {MAX_V1_BYTES} bytes")
        return None
    match = _V1_LINE.fullmatch(line)
    if match is None:
        if _V1_UNKNOWN.fullmatch(line) is not None:
            return ProxyHeader(len(line), UNKNOWN)
        raise ProxyHeaderError("a malformed PROXY line")
    family, source, destination, source_port, destination_port = match.groups()
    if int(source_port) > _MAX_PORT or int(destination_port) > _MAX_PORT:  # digits only, by the pattern
        raise ProxyHeaderError("a PROXY line with a port over 65535")
    if family == b"TCP4":
        _read_ipv4(destination)
        return ProxyHeader(len(line), _read_ipv4(source))
    _read_ipv6(destination)
    return ProxyHeader(len(line), _read_ipv6(source))


def _read_ipv4(text: bytes) -> str:
    if _IPV4.fullmatch(text) is not None:
        try:
            return str(IPv4Address(text.decode("ascii")))
        except AddressValueError:
            pass
    raise ProxyHeaderError("a PROXY line with a malformed IPv4 address")


def _read_ipv6(text: bytes) -> str:
    try:
        return _name_ipv6(IPv6Address(text.decode("ascii")))
    except AddressValueError:
        raise ProxyHeaderError("a PROXY line with a malformed IPv6 address") from None


def _name_ipv6(address: IPv6Address) -> str:
    """Write an IPv4 client of a dual-stack balancer as what it is, so that one client has one name."""
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else str(mapped)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if not data.startswith(_SIGNATURE[: len(data)]):
        raise ProxyHeaderError("no PROXY header")
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise ProxyHeaderError("a PROXY header of an unknown version or command")
    if len(data) < _V2_HEAD:
        return None
    is_local = data[12] == 0x20
    family = data[13]
    length = data[14] << 8 | data[15]
    size = _V2_HEAD + length
    if size > MAX_V2_BYTES:
        raise ProxyHeaderError(f"a PROXY header of more than {MAX_V2_BYTES} bytes")
    if is_local:  # the balancer's own connection; whatever else the header holds means nothing (section 2.2)
        return ProxyHeader(size, "") if len(data) >= size else None
    address_bytes = _ADDRESS_BYTES.get(family)
    if address_bytes is None:
        raise ProxyHeaderError("a PROXY header of an unknown address family or transport")
    if address_bytes > length:
        raise ProxyHeaderError("a PROXY header too short for its addresses")
    if len(data) < size:
        return None
    header = data[:size]
    tls = _read_tlvs(header, _V2_HEAD + address_bytes)
    if family == _TCP4:
        return ProxyHeader(size, str(IPv4Address(header[16:20])), tls=tls)
    if family == _TCP6:
        return ProxyHeader(size, _name_ipv6(IPv6Address(header[16:32])), tls=tls)
    return ProxyHeader(size, UNKNOWN, tls=tls)


def _read_tlvs(header: bytes, at: int) -> bool:
    """Walk over the additional values from `at` on, which must fill the header exactly; tell of TLS."""
    size = len(header)
    tls = False
    checked = False
    while at < size:
        if at + 3 > size:
            raise ProxyHeaderError("a PROXY header with a value cut short")
        kind = header[at]
        start = at + 3
        end = start + (header[at + 1] << 8 | header[at + 2])
        if end > size:
            raise ProxyHeaderError("a PROXY header with a value that is longer than the header")
        if kind == _TLV_CRC32C:
            if checked or end - start != 4:
                raise ProxyHeaderError("a PROXY header with a malformed checksum")
            checked = True
            if int.from_bytes(header[start:end], "big") != crc32c(header[:start] + bytes(4) + header[end:]):
                raise ProxyHeaderError("a PROXY header with a wrong checksum")
        elif kind == _TLV_SSL:
            if end - start < 5:
                raise ProxyHeaderError("a PROXY header with a malformed TLS value")
            tls = bool(header[start] & _CLIENT_SSL)
        at = end
    return tls


def _crc_table() -> list[int]:
    table: list[int] = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 if value & 1 else value >> 1
        table.append(value)
    return table


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli, RFC 9260 appendix A) of `data`."""
    value = 0xFFFF_FFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFF_FFFF
