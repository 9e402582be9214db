"""One line of the access log for one answered request, as JSON or in the combined format. It opens nothing.

Nothing secret stands in it: of the target only the path, of the referrer no query, no credential and no cookie, of the
caller the name and which of its credentials. What a client sent is escaped, so that it can neither end a line nor
forge a field.
"""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.http.trace_context import Trace

# What may stand in a JSON string as it is, and between the quotes of a combined line.
_is_plain: Final = re.compile(rb"[ !#-\[\]-~]*+").fullmatch
# As Apache does, the rest is written \xhh in a combined line.
_unplain: Final = re.compile(rb"[^ !#-\[\]-~]")
MAX_TEXT_BYTES: Final = 1_024
"""A path, a user agent or a referrer is cut here: a log line is no place for 8 KiB of somebody's target."""
MEMO_TEXTS: Final = 1_024
MEMO_TEXT_BYTES: Final = 256
"""Texts whose JSON strings are remembered, and how long they may be: below a megabyte."""
_texts: Final[dict[bytes, bytes]] = {}
_names: Final[dict[str, bytes]] = {}
_NUMBERS: Final = [str(number).encode("ascii") for number in range(4_096)]
_THOUSANDTHS: Final = [f"{number:03}".encode("ascii") for number in range(1_000)]


class Entry:
    """What is known of an answered request. Times in seconds, ``wall_s`` since the epoch; b"" where there is nothing.

    ``outcome`` says how it ended, ``code`` why the gateway refused it, ``upstream_s`` is -1 without a backend's answer,
    ``place``, ``caller`` and the quoted texts are parts of its line where they are known already, ``trace`` None where
    no trace is known; its ``trace_id`` is b"" where the request was too bad to belong to one.
    """

    __slots__ = (
        "agent",
        "caller",
        "client",
        "code",
        "consumer",
        "credential",
        "duration_s",
        "gateway",
        "host",
        "method",
        "outcome",
        "path",
        "place",
        "protocol",
        "quoted_agent",
        "quoted_host",
        "referrer",
        "request_bytes",
        "request_id",
        "response_bytes",
        "retries",
        "route",
        "route_path",
        "scheme",
        "service",
        "status",
        "trace",
        "upstream",
        "upstream_s",
        "wall_s",
    )

    def __init__(self, request_id: bytes, client: str, status: int, outcome: bytes) -> None:
        self.request_id = request_id
        self.client = client
        self.status = status
        self.outcome = outcome
        self.code = b""
        self.method = b""
        self.host = b""
        self.path = b""
        self.place = b""
        self.caller = b""
        self.quoted_agent = b""
        self.quoted_host = b""
        self.protocol = b""
        self.agent = b""
        self.referrer = b""
        self.gateway = ""
        self.route = ""
        self.route_path = ""
        self.scheme = b""
        self.service = ""
        self.consumer = ""
        self.credential = ""
        self.upstream = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.retries = 0
        self.wall_s = 0.0
        self.duration_s = 0.0
        self.upstream_s = -1.0
        self.trace: Trace | None = None


class Clock:
    """Seconds as text, made once for each second."""

    __slots__ = ("_combined", "_iso", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._iso = b""
        self._combined = b""

    def _turn(self, second: int) -> None:
        if second != self._second:
            self._second = second
            when = gmtime(second)
            self._iso = strftime("%Y-%m-%dT%H:%M:%S", when).encode("ascii")
            self._combined = strftime("%d/", when).encode("ascii") + _MONTHS[when.tm_mon - 1]
            self._combined += strftime("/%Y:%H:%M:%S +0000", when).encode("ascii")

    def iso(self, wall_s: float) -> bytes:
        """Return a moment as RFC 3339 writes it, in UTC, to the millisecond."""
        milliseconds = int(wall_s * 1_000)  # a float, not protocol text
        self._turn(milliseconds // 1_000)
        return b"%b.%bZ" % (self._iso, _THOUSANDTHS[milliseconds % 1_000])

    def combined(self, wall_s: float) -> bytes:
        """Return a moment as the common log format writes it."""
        self._turn(int(wall_s))  # a float, not protocol text
        return self._combined


_MONTHS: Final = (
    b"Jan",
    b"Feb",
    b"Mar",
    b"Apr",
    b"May",
    b"Jun",
    b"Jul",
    b"Aug",
    b"Sep",
    b"Oct",
    b"Nov",
    b"Dec",
)


class Lines:
    """The lines of a batch, written as entries come. It is called with each of them.

    ``on_first`` is called when a batch begins, ``on_full`` when it has ``most`` lines.
    """

    __slots__ = ("_clock", "_most", "_on_first", "_on_full", "_write", "lines")

    def __init__(
        self,
        write: Callable[[Entry, Clock], bytes],
        most: int,
        on_first: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self.lines: list[bytes] = []
        self._clock = Clock()
        self._write = write
        self._most = most
        self._on_first = on_first
        self._on_full = on_full

    def __call__(self, entry: Entry) -> None:
        lines = self.lines
        lines.append(self._write(entry, self._clock))
        count = len(lines)
        if count == 1:
            self._on_first()
        elif count >= self._most:
            self._on_full()

    def take(self) -> list[bytes]:
        """Return the batch, and begin another one."""
        lines = self.lines
        self.lines = []
        return lines


def place_part(gateway: str, route: str, service: str) -> bytes:
    """Return the part of a JSON line that is alike for all requests of a route."""
    return f'"gateway":"{gateway}","route":"{route}","service":"{service}",'.encode()


def caller_part(consumer: str, credential: str) -> bytes:
    """Return the part of a JSON line that is alike for all requests of a caller."""
    return b'"consumer":%b,"credential_id":%b,' % (_quoted_name(consumer), _quoted_name(credential))


def quoted(text: bytes) -> bytes:
    """Return the JSON string of a text."""
    return _quoted(text)


def json_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry as one JSON object and a line feed."""
    trace = entry.trace
    trace_part = b""
    if trace is not None and trace.trace_id:
        trace_part = b',"trace_id":"%b"' % trace.trace_id
    # One build of bytes: compiled, it is written in one go, without a parser of formats.
    return (
        b'{"time":"%b","request_id":"%b","client":%b,%b%b"method":%b,"host":%b,'
        b'"path":%b,"protocol":%b,"status":%b,"outcome":"%b","code":"%b","request_bytes":%b,"response_bytes":%b,'
        b'"duration_ms":%b,"upstream":%b,"upstream_ms":%b,"retries":%b,"user_agent":%b%b}\n'
        % (
            clock.iso(entry.wall_s),
            entry.request_id,
            _quoted_name(entry.client),
            entry.place or place_part(entry.gateway, entry.route, entry.service),
            entry.caller or caller_part(entry.consumer, entry.credential),
            _quoted(entry.method),
            entry.quoted_host or _quoted(entry.host),
            _quote(entry.path),
            b'"HTTP/1.1"' if entry.protocol == b"HTTP/1.1" else _quoted(entry.protocol),
            _number(entry.status),
            entry.outcome,
            entry.code,
            _number(entry.request_bytes),
            _number(entry.response_bytes),
            _milliseconds(entry.duration_s),
            _quoted_name(entry.upstream),
            b"null" if entry.upstream_s < 0 else _milliseconds(entry.upstream_s),
            _number(entry.retries),
            entry.quoted_agent or _quoted(entry.agent),
            trace_part,
        )
    )


def combined_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry in the combined log format of Apache and nginx, and a line feed."""
    referrer = entry.referrer.partition(b"?")[0]
    return b'%b - %b [%b] "%b %b %b" %b %b "%b" "%b"\n' % (
        entry.client.encode("ascii", "replace") or b"-",
        _bare(entry.consumer.encode("utf-8", "replace")).replace(b" ", b"\\x20") or b"-",
        clock.combined(entry.wall_s),
        _bare(entry.method) or b"-",
        _bare(entry.path) or b"-",
        entry.protocol or b"-",
        _number(entry.status),
        _number(entry.response_bytes),
        _bare(referrer) or b"-",
        _bare(entry.agent) or b"-",
    )


def _number(number: int) -> bytes:
    return _NUMBERS[number] if 0 <= number < len(_NUMBERS) else str(number).encode("ascii")


def _milliseconds(seconds: float) -> bytes:
    """Write a duration in milliseconds, to the microsecond."""
    microseconds = int(seconds * 1e6 + 0.5)  # a float, not protocol text
    milliseconds = microseconds // 1_000
    return b"%b.%b" % (_number(milliseconds), _THOUSANDTHS[microseconds - milliseconds * 1_000])


def _quoted(text: bytes) -> bytes:
    """Return the JSON string of a text that is likely in many lines, such as a user agent: it is remembered."""
    known = _texts.get(text)
    if known is None:
        known = _quote(text)
        if len(text) <= MEMO_TEXT_BYTES:
            if len(_texts) >= MEMO_TEXTS:
                _texts.clear()
            _texts[text] = known
    return known


def _quoted_name(name: str) -> bytes:
    """Do what `_quoted` does, for a name of ours or an address."""
    known = _names.get(name)
    if known is None:
        known = _quote(name.encode("utf-8", "replace"))
        if len(name) <= MEMO_TEXT_BYTES:
            if len(_names) >= MEMO_TEXTS:
                _names.clear()
            _names[name] = known
    return known


def _quote(text: bytes) -> bytes:
    """Return a JSON string."""
    if len(text) > MAX_TEXT_BYTES:
        text = text[:MAX_TEXT_BYTES]
    if _is_plain(text) is not None:
        return b'"%b"' % text
    return orjson.dumps(text.decode("utf-8", "replace"))


def _bare(text: bytes) -> bytes:
    """Return what may stand between two quotes of a combined line."""
    if len(text) <= MAX_TEXT_BYTES and _is_plain(text) is not None:
        return text
    return _unplain.sub(lambda match: b"\\x%02x" % match.group()[0], text[:MAX_TEXT_BYTES])
