"""A request head: what the parser found, read once, and refused wherever two readers could differ.

httptools has already checked the grammar of names, values and the request line; what it leaves open
(RFC 9112 sections 3.2, 6.1, 6.3, and HAZARDS) is decided here. Sans-IO: bytes in, facts out.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.http.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    CREDENTIAL,
    DROP,
    EXPECT,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HOST,
    MAX_FORWARDS,
    PROTECTED,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    VIA,
    classify_request,
    connection_options,
    lower,
    without_fields,
)
from authgate_fast.http.trace_context import Trace
from authgate_fast.http.upgrade import wanted_protocol

if TYPE_CHECKING:
    from authgate_fast.http.shape import Shape

# RFC 9110 section 9 and the registered methods a proxy can pass on without knowing more about them.
# CONNECT would make a tunnel and TRACE would show a client the fields we add: neither is served.
METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH "
    b"PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MKACTIVITY CHECKOUT MERGE "
    b"BIND REBIND UNBIND ACL MKCALENDAR LINK UNLINK PURGE SUBSCRIBE UNSUBSCRIBE NOTIFY M-SEARCH QUERY".split()
)

# RFC 9110 section 9.2.2
IDEMPOTENT: Final = frozenset(
    (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PROPFIND", b"SEARCH", b"REPORT", b"QUERY")
)

DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}
_OWN_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HOPS: Final = re.compile(rb"[0-9]{1,9}")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Labels of 63 bytes at most: RFC 1035 section 2.3.4.
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}+(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62}+)*+\.?"
    rb"|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
MAX_HOST_BYTES: Final = 260
"""A name of 253 (RFC 1035 section 2.3.4), a dot, a colon and a port."""

PSEUDONYM: Final = b"authgate"
"""Who we are in Via (RFC 9110 section 7.6.3)."""
MAX_OWN_HOPS: Final = 8
"""How often our own name may stand in a request's Via. Gateways may stand in a row, but not that many: it is a loop."""
_NO_LINES: Final[list[bytes]] = []
_COMMENT: Final = re.compile(rb"\([^()]*\)")


class RequestHead:
    """One request head.

    The parser fills ``method``, ``target``, ``minor`` (of HTTP/1.x) and ``fields``; `read` fills the rest:
    ``block`` and ``lines`` are the end-to-end field lines as they go to the backend (``block`` joins ``known_lines``,
    which several heads share: they are only read); ``shape`` is for the connection's next head; ``presented`` the
    (lower-case name, value) pairs of credential fields, ``content_length`` -1 when there is none, ``forwarded`` the
    X-Forwarded-* values by code (None while there are none), ``path`` the target's path once the plan has looked at it
    (of an absolute target without scheme and authority), ``request_id`` a sane one or b"", ``upgrade`` the
    protocol that it asks to switch to, or b"". A request with an ``upgrade`` closes its connection unless it gets it:
    what follows it may be either protocol. ``max_forwards`` is that of an OPTIONS request, -1 when there is none.
    ``trace`` is None while there are no trace fields; `http.trace_context.settle` judges it.
    """

    __slots__ = (
        "block",
        "chunked",
        "close",
        "content_length",
        "expect_continue",
        "fields",
        "forwarded",
        "host",
        "is_read",
        "known_lines",
        "lines",
        "max_forwards",
        "method",
        "minor",
        "nominated",
        "own_hops",
        "path",
        "presented",
        "request_id",
        "shape",
        "target",
        "trace",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self.host = b""
        self.path = b""
        self.block = b""
        self.known_lines = _NO_LINES
        self.lines: list[bytes] = []
        self.shape: Shape | None = None
        self.presented: list[tuple[bytes, bytes]] | None = None
        self.content_length = -1
        self.chunked = False
        self.close = minor == 0
        self.expect_continue = False
        self.forwarded: dict[int, bytes] | None = None
        self.request_id = b""
        self.upgrade = b""
        self.nominated: set[bytes] | None = None
        self.max_forwards = -1
        self.own_hops = 0
        self.trace: Trace | None = None
        self.is_read = False

    @property
    def has_body(self) -> bool:
        return self.chunked or self.content_length > 0

    def read(self, memo: dict[bytes, int], credential_fields: frozenset[bytes]) -> Reason | None:
        """Read all fields, unless `http.plain` did; return why the request must be refused, or None."""
        if self.is_read:
            return None
        lines = self.lines
        hosts = 0
        upgrades: list[bytes] = []
        for name, value in self.fields:
            code = memo.get(name)
            if code is None:
                code = classify_request(name, memo, credential_fields)
            if not code:
                lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
            elif code == HOST:
                hosts += 1
                self.host = value
            elif code == CREDENTIAL:
                if self.presented is None:
                    self.presented = []
                self.presented.append((lower(name), value.strip(b" \t")))
            elif code == UPGRADE:
                upgrades.append(value)
            elif code != DROP:
                reason = self.read_special(code, value)
                if reason is not None:
                    return reason
        if self.nominated:
            # Only end-to-end lines are in `lines`: Host, framing, forwarding, identity and credential
            # fields cannot be removed this way (CVE-2025-48865, CVE-2024-45410).
            self.lines = without_fields(lines, self.nominated)
        if self.chunked and self.content_length != -1:
            return Reason.BAD_REQUEST  # RFC 9112 section 6.1: an attempt at smuggling; nobody honest sends it
        if hosts != 1:
            if hosts or self.minor:  # only HTTP/1.0 may do without
                return Reason.INVALID_HOST
        elif self.minor == 0 and not self.host.strip(b" \t"):
            return Reason.INVALID_HOST  # it would be taken for none; in HTTP/1.1 no gateway has such a name
        if len(upgrades) == 1:
            self.upgrade = wanted_protocol(self, upgrades[0])
            self.close = self.close or self.upgrade != b""
        return None

    def ignore_upgrade(self) -> None:
        """Serve it as a request like any other."""
        self.upgrade = b""
        self.close = False  # one that wants to close asks for no upgrade

    def public_origin(self, scheme: bytes, *, trusted: bool) -> bytes | None:
        """Return the origin that a browser sees here, as it writes it (RFC 6454 section 6.2); None if that is in doubt.

        It is `scheme` and Host or, behind a `trusted` proxy, what that says in X-Forwarded-Proto and -Host. Several
        values may come from several proxies, or from a client past the first of them: nobody is guessed at.
        """
        if trusted and self.forwarded is not None:
            scheme = lower(self.forwarded.get(FORWARDED_PROTO, scheme).strip(b" \t"))
        host = self._public_host(trusted)
        if scheme not in DEFAULT_PORTS or normalise_host(host) is None:
            return None
        return b"%b://%b" % (scheme, lower(host).removesuffix(DEFAULT_PORTS[scheme]))

    def public_name(self, *, trusted: bool) -> bytes | None:
        """Return the name, as `normalise_host` does, of the host in `public_origin`."""
        return normalise_host(self._public_host(trusted))

    def _public_host(self, trusted: bool) -> bytes:
        if trusted and self.forwarded is not None:
            return self.forwarded.get(FORWARDED_HOST, self.host).strip(b" \t")
        return self.host

    def values(self, wanted: bytes) -> list[bytes]:
        """Return the values of an end-to-end field, given by its lower-case name, after `read`."""
        if self.known_lines:
            return values_of(self.known_lines, wanted) + values_of(self.lines, wanted)
        return values_of(self.lines, wanted)

    def read_special(self, code: int, value: bytes) -> Reason | None:
        """Read a field that means something to a gateway; return why it must be refused, or None."""
        if code == CONTENT_LENGTH:
            # RFC 9112 section 6.3 lets equal values be merged; stricter: one field, plain digits.
            value = value.strip(b" \t")
            if self.content_length != -1 or _LENGTH.fullmatch(value) is None:
                return Reason.BAD_REQUEST
            self.content_length = int(value)  # plain ASCII digits, checked above
        elif code == TRANSFER_ENCODING:
            # RFC 9112 section 6.1. Stricter: the one coding we know, once, and never on HTTP/1.0.
            if self.chunked or self.minor == 0 or lower(value.strip(b" \t")) != b"chunked":
                return Reason.BAD_REQUEST
            self.chunked = True
        elif code == CONNECTION:
            self._read_connection(value)
        elif code == EXPECT:
            # RFC 9110 section 10.1.1. HTTP/1.0 has no 100 (Continue): the field is ignored. Stricter: once.
            if self.minor == 1:
                if self.expect_continue or lower(value.strip(b" \t")) != b"100-continue":
                    return Reason.EXPECTATION_FAILED
                self.expect_continue = True
        elif code == REQUEST_ID:
            value = value.strip(b" \t")
            if _REQUEST_ID.fullmatch(value) is not None:
                self.request_id = value
        elif code in (FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST):
            if self.forwarded is None:
                self.forwarded = {}
            before = self.forwarded.get(code)
            self.forwarded[code] = value if before is None else before + b", " + value
        elif code == VIA:
            return self._read_via(value.strip(b" \t"))
        elif code == MAX_FORWARDS:
            return self._read_max_forwards(value.strip(b" \t"))
        elif code in (TRACEPARENT, TRACESTATE):
            if self.trace is None:
                self.trace = Trace()
            kept = self.trace.traceparents if code == TRACEPARENT else self.trace.tracestates
            kept.append(value.strip(b" \t"))
        return None

    def _read_via(self, value: bytes) -> Reason | None:
        """Count our own name (RFC 9110 section 7.6.3): a request that has been here too often goes round in circles."""
        if PSEUDONYM in lower(value):
            self.own_hops += own_hops(value)
            if self.own_hops > MAX_OWN_HOPS:
                return Reason.LOOP_DETECTED
        self.lines.append(b"Via: %b\r\n" % value)
        return None

    def _read_max_forwards(self, value: bytes) -> Reason | None:
        """RFC 9110 section 7.6.2: counted down on OPTIONS (TRACE is not served); it means nothing elsewhere."""
        if self.method == b"OPTIONS":
            if self.max_forwards != -1 or _HOPS.fullmatch(value) is None:
                return Reason.BAD_REQUEST
            self.max_forwards = hops = int(value)  # plain ASCII digits, checked above
            value = b"%d" % max(hops - 1, 0)
        self.lines.append(b"Max-Forwards: %b\r\n" % value)
        return None

    def _read_connection(self, value: bytes) -> None:
        if value == b"keep-alive":
            return
        nominated = self.nominated
        if nominated is None:
            self.nominated = nominated = (
                set()
            )  # one for all fields: joining sets would cost time in their square
        for option in connection_options(value):
            if option == b"close":
                self.close = True
            elif option not in _OWN_OPTIONS and option not in PROTECTED:
                nominated.add(option)


def values_of(lines: list[bytes], wanted: bytes) -> list[bytes]:
    """Return the values of the field lines with a name, given in lower case."""
    found = []
    size = len(wanted)
    first = wanted[0] | 0x20
    for line in lines:
        # The first letter rules out nearly all; of letters, 0x20 is the case.
        if line[0] | 0x20 == first and line[size : size + 1] == b":" and lower(line[:size]) == wanted:
            found.append(line[size + 1 :].strip(b" \t\r\n"))
    return found


def own_hops(via: bytes) -> int:
    """Count the members of a Via value whose received-by is our pseudonym, whatever protocol, port or comment."""
    count = 0
    for member in _COMMENT.sub(b" ", lower(via)).split(b","):
        words = member.replace(b"\t", b" ").split(b" ")
        found = [word for word in words if word]
        if len(found) > 1 and found[1].partition(b":")[0] == PSEUDONYM:
            count += 1
    return count


def normalise_host(value: bytes) -> bytes | None:
    """Return a Host value's name in lower case, port and one trailing dot removed; None if invalid.

    RFC 9110 section 7.2 with RFC 3986 section 3.2.2, narrowed to what names real hosts: letters, digits,
    ``-``, ``_`` and dots, or an IPv6 address in brackets.
    """
    if len(value) > MAX_HOST_BYTES or _HOST.fullmatch(value) is None:
        return None
    name = lower(value)
    if name[0] == 0x5B:  # "["
        end = name.index(b"]") + 1
        name, port = name[:end], name[end + 1 :]
        if not _is_ipv6(name[1:-1]):
            return None
    else:
        name, _, port = name.partition(b":")
    if len(port) == 5 and port > b"65535":
        return None
    return name[:-1] if name[-1] == 0x2E else name


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True


def split_absolute(target: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Split an absolute-form target (RFC 9112 section 3.2.2) into scheme, authority and origin-form target.

    The last one is b"" where there is neither path nor query.
    """
    scheme, separator, rest = target.partition(b"://")
    scheme = lower(scheme)
    if not separator or scheme not in DEFAULT_PORTS:
        return None
    for at, byte in enumerate(rest):
        if byte in b"/?#":
            authority, tail = rest[:at], rest[at:]
            break
    else:
        return scheme, rest, b""
    return scheme, authority, tail if tail[:1] == b"/" else b"/" + tail
