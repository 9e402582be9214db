"""Hosts and target URLs as documents write them, checked and brought into one form.

Pure: no IO, no name look-up. What two resolvers may read differently (an IPv4 address as one number,
in octal or hex, with parts left out) is refused and never repaired. A link-local address or a
well-known metadata name is refused in every form that reaches it, unless its owner allows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from authgate_fast.routing.path_policy import STRICT, split_path

MAX_HOST_CHARACTERS = 253
MAX_SOCKET_PATH = 107
"""unix(7): 108 bytes with the NUL at the end."""
DEFAULT_PORTS = {"http": 80, "https": 443}

# Docker and Kubernetes names may hold an underscore; RFC 1123 names may not. It does no harm.
_is_label = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?").fullmatch
# The forms that inet_aton reads as (a part of) an address: decimal, octal, hex.
_is_number = re.compile(r"0x[0-9a-f]*|[0-9]+").fullmatch
_is_dotted_quad = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}").fullmatch
_split_url = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL
).fullmatch
_split_authority = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?").fullmatch
_is_socket_path = re.compile(r"(?:/[A-Za-z0-9._@+~-]+)+").fullmatch
_is_port = re.compile(r"[1-9][0-9]{0,4}").fullmatch

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.internal",
        "metadata.platformequinix.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_GUARDED: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("169.254.0.0/16"),  # RFC 3927; the metadata address of nearly every cloud
    IPv4Network("100.100.100.200"),  # Alibaba
    IPv4Network("192.0.0.192"),  # Oracle
    IPv4Network("168.63.129.16"),  # Azure's WireServer
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::/32"),  # Amazon
    IPv6Network("fd20:ce::254"),  # Google
)
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressError(ValueError):
    """A host or URL that cannot be used: what is allowed, and maybe a hint at what was meant."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A target URL in parts. ``host`` has no brackets; ``base_path`` is empty or ``/like/this``.

    A ``host`` that begins with ``/`` is the path of a Unix socket; its ``port`` is 0.
    """

    scheme: str
    host: str
    port: int
    base_path: str

    @property
    def authority(self) -> str:
        """The value of a Host field: the port is left out where it is the scheme's own."""
        if self.host.startswith("/"):
            return "localhost"  # as curl and nginx do
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_public_host(text: str) -> str:
    """Return a gateway's host in lower case: exact, ``*.x.y`` or ``*``; raise `AddressError`."""
    if text == "*":
        return text
    if "://" in text or "/" in text:
        raise AddressError("a host is a name only, without scheme and path, for instance shop.example.com")
    is_wildcard = text.startswith("*.")
    name = text[2:] if is_wildcard else text
    if "*" in name:
        raise AddressError("a wildcard is one whole label at the start, such as *.example.com, or * alone")
    host = _parse_host(name)
    if is_wildcard and (host.startswith("[") or _is_dotted_quad(host)):
        raise AddressError("an address has no subdomains; a wildcard needs a name, such as *.example.com")
    return f"*.{host}" if is_wildcard else host


def parse_target_url(text: str) -> TargetUrl:
    """Take a target URL apart; raise `AddressError` with a sentence that holds no part of user info."""
    parts = _split_url(text)
    if parts is None:
        hint = f"write http://{text}" if _reads_as_authority(text) else ""
        raise AddressError("a target URL starts with http:// or https://", hint)
    scheme, authority, path, query, fragment = parts.groups()
    scheme = _lower(scheme)
    if scheme not in DEFAULT_PORTS:
        raise AddressError("a target URL starts with http:// or https://")
    if "@" in authority:
        raise AddressError("a target URL holds no user name or password")
    if query is not None:
        raise AddressError("a target URL has no query (?...); the request's own query is passed on")
    if fragment is not None:
        raise AddressError("a target URL has no fragment (#...)")
    if authority == "unix:":
        return _parse_unix(scheme, path)
    pair = _split_authority(authority)
    if pair is None or not pair[1]:
        raise AddressError("a target URL needs a host (and a port, if any, as :8080); IPv6 goes in brackets")
    host = _parse_host(pair[1])
    port = DEFAULT_PORTS[scheme]
    if pair[2] is not None:
        if _is_port(pair[2]) is None or int(pair[2]) > 65_535:
            raise AddressError("a port is a number from 1 to 65535")
        port = int(pair[2])
    return TargetUrl(scheme, host.strip("[]"), port, _parse_base_path(path))


def _parse_unix(scheme: str, rest: str) -> TargetUrl:
    """Take apart what follows ``http://unix:``, as nginx writes it: the socket's path, then ``:`` and a base path."""
    if scheme != "http":
        raise AddressError("a Unix socket is spoken to in plain HTTP", f"write http://unix:{rest}")
    path, _, base_path = rest.partition(":")
    if _is_socket_path(path) is None or "/../" in f"{path}/":
        raise AddressError(
            "a Unix socket is written with its path, and maybe a base path: http://unix:/run/app.sock:/v1"
        )
    if len(path) > MAX_SOCKET_PATH:
        raise AddressError(f"the path of a Unix socket has at most {MAX_SOCKET_PATH} characters")
    if base_path and not base_path.startswith("/"):
        raise AddressError("a base path starts with /", f"write http://unix:{path}:/{base_path}")
    return TargetUrl(scheme, path, 0, _parse_base_path(base_path))


def is_guarded(host: str) -> bool:
    """Tell whether a parsed host is link-local or a cloud's metadata service, by name or address."""
    if host in _METADATA_NAMES:
        return True
    address = _address_of(host)
    if address is None:
        return False
    return any(version in network for version in _readings(address) for network in _GUARDED)


def is_loopback(host: str) -> bool:
    """Tell whether a parsed host is this machine, by name (RFC 6761) or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address_of(host)
    return address is not None and address.is_loopback


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a CIDR range; raise `AddressError`."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise AddressError(
            "an address or a range, for instance 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
        ) from None
    raise AddressError("a range starts at its first address", f"did you mean `{meant}`?")


def _parse_host(text: str) -> str:
    """Return a name, IPv4 address or bracketed IPv6 address in its one form."""
    if text.startswith("["):
        return _parse_ipv6(text)
    if not text.isascii():
        raise AddressError("a host is written in ASCII", _punycode_hint(text))
    host = _lower(text)
    if ":" in host:
        if host.count(":") == 1:
            raise AddressError("a host stands here without a port", f"write {host.partition(':')[0]}")
        raise AddressError("an IPv6 address is written in brackets", f"write [{host}]")
    if host.endswith("."):
        raise AddressError("a host is written without a dot at its end", f"write {host.rstrip('.')}")
    labels = host.split(".")
    if _is_number(labels[-1]):
        return _parse_ipv4(host, labels)
    if len(host) > MAX_HOST_CHARACTERS or not all(_is_label(label) for label in labels):
        raise AddressError(
            "a host is labels of a-z, 0-9 and '-' joined by dots, each at most 63 characters, 253 in all"
        )
    return host


def _parse_ipv4(host: str, labels: list[str]) -> str:
    # RFC 6943 section 3.1.1: only the dotted decimal form means one thing to everybody.
    if _is_dotted_quad(host):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            pass
    meant = _read_like_inet_aton(labels)
    raise AddressError(
        "an IPv4 address is four numbers from 0 to 255, in decimal, without leading zeros",
        f"did you mean `{meant}`?" if meant is not None else "",
    )


def _parse_ipv6(text: str) -> str:
    inner = text[1:-1]
    if text.endswith("]") and "%" in inner:
        raise AddressError("an IPv6 address is written without a zone (%...)")
    try:
        return f"[{IPv6Address(inner)}]" if text.endswith("]") else _no_ipv6()
    except AddressValueError:
        return _no_ipv6()


def _no_ipv6() -> str:
    raise AddressError("between brackets stands an IPv6 address, such as [2001:db8::1]")


def _read_like_inet_aton(labels: list[str]) -> IPv4Address | None:
    if len(labels) > 4 or not all(_is_number(label) for label in labels):
        return None
    numbers = []
    for label in labels:
        is_octal = label[0] == "0" and label[:2] != "0x" and len(label) > 1
        try:
            numbers.append(int(label, 16 if label[:2] == "0x" else 8 if is_octal else 10))
        except ValueError:
            return None
    last = numbers.pop()
    if any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        return None
    for index, number in enumerate(numbers):
        last += number << (24 - 8 * index)
    return IPv4Address(last)


def _parse_base_path(path: str) -> str:
    if path in ("", "/"):
        return ""
    if "{" in path:
        raise AddressError("the path of a target URL is fixed; parameters go into a route's target_path")
    if not path.isascii():
        raise AddressError("the path of a target URL is ASCII; percent-encode the rest (RFC 3986)")
    answer = split_path(path.encode("ascii"), STRICT)
    if isinstance(answer, str):
        raise AddressError(f"the path of a target URL cannot hold {answer}")
    return path.removesuffix("/")


def _address_of(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None


def _readings(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the address and the IPv4 address that a transition form of IPv6 leads to."""
    readings: list[IPv4Address | IPv6Address] = [address]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            readings.append(address.ipv4_mapped)
        if address.sixtofour is not None:
            readings.append(address.sixtofour)
        if address in _NAT64 or int(address) < 1 << 32:  # the latter: the old IPv4-compatible form
            readings.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return readings


def _reads_as_authority(text: str) -> bool:
    try:
        parse_target_url(f"http://{text}") if "://" not in text else _no_ipv6()
    except AddressError:
        return False
    return True


def _punycode_hint(text: str) -> str:
    try:
        return f"write {text.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ""


def _lower(text: str) -> str:
    """Lower ASCII letters; everything else is refused elsewhere and stays as it is."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
