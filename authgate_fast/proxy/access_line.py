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
    from authgate_fast.http.trace_context import Trace

# What may stand in a JSON string as it is, and between the quotes of a combined line.
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
# As Apache does, the rest is written \xhh in a combined line.
_unplain: Final = re.compile(rb"[^ !#-\[\]-~]")
MAX_TEXT_BYTES: Final = 1_024
"""A path, a user agent or a referrer is cut here: a log line is no place for 8 KiB of somebody's target."""
MEMO_TEXTS: Final = 1_024
MEMO_TEXT_BYTES: Final = 256
"""Texts whose JSON strings are remembered, and how long they may be: below a megabyte."""
_texts: Final[dict[bytes, str]] = {}
_names: Final[dict[str, str]] = {}
_THOUSANDTHS: Final = [f"{number:03}" for number in range(1_000)]


class Entry:
    """What is known of an answered request. Times in seconds, ``wall_s`` since the epoch; b"" where there is nothing.

    ``outcome`` says how it ended, ``code`` why the gateway refused it, ``upstream_s`` is -1 without a backend's answer,
    ``trace`` None where no trace is known; its ``trace_id`` is b"" where the request was too bad to belong to one.
    """

    __slots__ = (
        "agent",
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
        "protocol",
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
        self._iso = ""
        self._combined = b""

    def _turn(self, second: int) -> None:
        if second != self._second:
            self._second = second
            when = gmtime(second)
            self._iso = strftime("%Y-%m-%dT%H:%M:%S", when)
            self._combined = strftime("%d/", when).encode("ascii") + _MONTHS[when.tm_mon - 1]
            self._combined += strftime("/%Y:%H:%M:%S +0000", when).encode("ascii")

    def iso(self, wall_s: float) -> str:
        """Return a moment as RFC 3339 writes it, in UTC, to the millisecond."""
        milliseconds = int(wall_s * 1_000)  # a float, not protocol text
        self._turn(milliseconds // 1_000)
        return f"{self._iso}.{_THOUSANDTHS[milliseconds % 1_000]}Z"

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


def json_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry as one JSON object and a line feed."""
    trace = entry.trace
    upstream_ms = "null" if entry.upstream_s < 0 else _milliseconds(entry.upstream_s)
    trace_id = ""
    if trace is not None and trace.trace_id:
        trace_id = f',"trace_id":"{trace.trace_id.decode("ascii")}"'
    # One f-string: compiled, it is written in one go, without a parser of formats.
    return (
        f'{{"time":"{clock.iso(entry.wall_s)}","request_id":"{entry.request_id.decode("ascii")}",'
        f'"client":{_quoted_name(entry.client)},"gateway":"{entry.gateway}","route":"{entry.route}",'
        f'"service":"{entry.service}","consumer":{_quoted_name(entry.consumer)},'
        f'"credential_id":{_quoted_name(entry.credential)},"method":{_quoted(entry.method)},'
        f'"host":{_quoted(entry.host)},"path":{_quote(entry.path)},"protocol":{_quoted(entry.protocol)},'
        f'"status":{entry.status},"outcome":{_quoted(entry.outcome)},"code":{_quoted(entry.code)},'
        f'"request_bytes":{entry.request_bytes},"response_bytes":{entry.response_bytes},'
        f'"duration_ms":{_milliseconds(entry.duration_s)},"upstream":{_quoted_name(entry.upstream)},'
        f'"upstream_ms":{upstream_ms},"retries":{entry.retries},"user_agent":{_quoted(entry.agent)}{trace_id}}}\n'
    ).encode()


def combined_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry in the combined log format of Apache and nginx, and a line feed."""
    referrer = entry.referrer.partition(b"?")[0]
    return b'%b - %b [%b] "%b %b %b" %d %d "%b" "%b"\n' % (
        entry.client.encode("ascii", "replace") or b"-",
        _bare(entry.consumer.encode("utf-8", "replace")).replace(b" ", b"\\x20") or b"-",
        clock.combined(entry.wall_s),
        _bare(entry.method) or b"-",
        _bare(entry.path) or b"-",
        entry.protocol or b"-",
        entry.status,
        entry.response_bytes,
        _bare(referrer) or b"-",
        _bare(entry.agent) or b"-",
    )


def _milliseconds(seconds: float) -> str:
    """Write a duration in milliseconds, to the microsecond."""
    microseconds = int(seconds * 1e6 + 0.5)  # a float, not protocol text
    return f"{microseconds // 1_000}.{_THOUSANDTHS[microseconds % 1_000]}"


def _quoted(text: bytes) -> str:
    """Return the JSON string of a text that is likely in many lines, such as a user agent: it is remembered."""
    known = _texts.get(text)
    if known is None:
        known = _quote(text)
        if len(text) <= MEMO_TEXT_BYTES:
            if len(_texts) >= MEMO_TEXTS:
                _texts.clear()
            _texts[text] = known
    return known


def _quoted_name(name: str) -> str:
    """Do what `_quoted` does, for a name of ours or an address."""
    known = _names.get(name)
    if known is None:
        known = _quote(name.encode("utf-8", "replace"))
        if len(name) <= MEMO_TEXT_BYTES:
            if len(_names) >= MEMO_TEXTS:
                _names.clear()
            _names[name] = known
    return known


def _quote(text: bytes) -> str:
    """Return a JSON string."""
    if len(text) > MAX_TEXT_BYTES:
        text = text[:MAX_TEXT_BYTES]
    if not text.translate(None, _PLAIN):
        return f'"{text.decode("ascii")}"'
    return orjson.dumps(text.decode("utf-8", "replace")).decode()


def _bare(text: bytes) -> bytes:
    """Return what may stand between two quotes of a combined line."""
    if len(text) <= MAX_TEXT_BYTES and not text.translate(None, _PLAIN):
        return text
    return _unplain.sub(lambda match: b"\\x%02x" % match.group()[0], text[:MAX_TEXT_BYTES])
