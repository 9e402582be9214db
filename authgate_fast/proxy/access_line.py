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

# What may stand in a JSON string as it is.
_is_plain: Final = re.compile(rb"[ !#-\[\]-~]*").fullmatch
# What may stand between the quotes of a combined line as it is; as Apache does, the rest is written \xhh.
_unplain: Final = re.compile(rb"[^ !#-\[\]-~]")
MAX_TEXT_BYTES: Final = 1_024
"""A path, a user agent or a referrer is cut here: a log line is no place for 8 KiB of somebody's target."""


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
        return b"%b.%03dZ" % (self._iso, milliseconds % 1_000)

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
    return (
        b'{"time":"%b","request_id":"%b","client":"%b","gateway":"%b","route":"%b","service":"%b","consumer":%b,'
        b'"credential_id":%b,"method":%b,"host":%b,"path":%b,"protocol":"%b","status":%d,"outcome":"%b","code":"%b",'
        b'"request_bytes":%d,"response_bytes":%d,"duration_ms":%.3f,"upstream":%b,"upstream_ms":%b,"retries":%d,'
        b'"user_agent":%b%b}\n'
        % (
            clock.iso(entry.wall_s),
            entry.request_id,
            entry.client.encode("ascii", "replace"),
            entry.gateway.encode("ascii"),
            entry.route.encode("ascii"),
            entry.service.encode("ascii"),
            _quoted(entry.consumer.encode("utf-8", "replace")),
            _quoted(entry.credential.encode("utf-8", "replace")),
            _quoted(entry.method),
            _quoted(entry.host),
            _quoted(entry.path),
            entry.protocol,
            entry.status,
            entry.outcome,
            entry.code,
            entry.request_bytes,
            entry.response_bytes,
            entry.duration_s * 1_000,
            _quoted(entry.upstream.encode("ascii", "replace")),
            b"null" if entry.upstream_s < 0 else b"%.3f" % (entry.upstream_s * 1_000),
            entry.retries,
            _quoted(entry.agent),
            b',"trace_id":"%b"' % trace.trace_id if trace is not None and trace.trace_id else b"",
        )
    )


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


def _quoted(text: bytes) -> bytes:
    """Return a JSON string."""
    if len(text) > MAX_TEXT_BYTES:
        text = text[:MAX_TEXT_BYTES]
    if _is_plain(text) is not None:
        return b'"%b"' % text
    return orjson.dumps(text.decode("utf-8", "replace"))


def _bare(text: bytes) -> bytes:
    """Return what may stand between two quotes of a combined line."""
    return _unplain.sub(lambda match: b"\\x%02x" % match.group()[0], text[:MAX_TEXT_BYTES])
