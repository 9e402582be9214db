"""One line of the access log for one answered request, as JSON or in the combined format. It opens nothing.

Nothing secret stands in it: of the target only the path, of the referrer no query, no credential and no cookie, of the
caller the name and which of its credentials. What a client sent is escaped, so that it can neither end a line nor
forge a field.
"""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final

from authgate_fast.proxy.line_parts import (
    MAX_TEXT_BYTES,
    POINT_THOUSANDTHS,
    caller_part,
    client_part,
    end_part,
    in_json,
    is_plain,
    known_text,
    line_of_parts,
    number_text,
    place_part,
    result_part,
    upstream_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.http.trace_context import Trace

# As Apache does, what is not plain is written \xhh in a combined line.
_unplain: Final = re.compile(rb"[^ !#-\[\]-~]")


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
    """Moments as text, made once for each second and each millisecond."""

    __slots__ = ("_combined", "_iso", "_iso_second", "_millisecond", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._millisecond = -1
        self._iso = b""
        self._iso_second = b""
        self._combined = b""

    def _turn(self, second: int) -> None:
        if second != self._second:
            self._second = second
            when = gmtime(second)
            self._iso_second = strftime("%Y-%m-%dT%H:%M:%S", when).encode("ascii")
            self._combined = strftime("%d/", when).encode("ascii") + _MONTHS[when.tm_mon - 1]
            self._combined += strftime("/%Y:%H:%M:%S +0000", when).encode("ascii")

    def json_start(self, wall_s: float) -> bytes:
        """Begin a JSON line with a moment as RFC 3339 writes it, in UTC, to the millisecond."""
        milliseconds = int(wall_s * 1_000)  # a float, not protocol text
        if milliseconds != self._millisecond:  # a busy worker writes several lines in one
            self._millisecond = milliseconds
            self._turn(milliseconds // 1_000)
            self._iso = b'{"time":"%b%bZ","request_id":"' % (
                self._iso_second,
                POINT_THOUSANDTHS[milliseconds % 1_000],
            )
        return self._iso

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
    """The lines of a batch. It is called with each entry; `add` takes what is a line already.

    ``on_first`` is called when a batch begins, ``on_full`` when it has ``most_bytes``. ``takes_json``: its lines are
    JSON, so that `add` may be used.
    """

    __slots__ = ("_most_bytes", "_on_first", "_on_full", "_write", "clock", "lines", "size", "takes_json")

    def __init__(
        self,
        write: Callable[[Entry, Clock], bytes],
        most_bytes: int,
        on_first: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.clock = Clock()
        self.takes_json = write is json_line
        self._write = write
        self._most_bytes = most_bytes
        self._on_first = on_first
        self._on_full = on_full

    def __call__(self, entry: Entry) -> None:
        self.add(self._write(entry, self.clock))

    def add(self, line: bytes) -> None:
        """Take a line, its line feed included."""
        before = self.size
        self.size = size = before + len(line)
        self.lines.append(line)
        if before == 0:
            self._on_first()
        if size >= self._most_bytes:
            self._on_full()

    def take(self) -> list[bytes]:
        """Return the batch, and begin another one."""
        lines = self.lines
        self.lines = []
        self.size = 0
        return lines


def json_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry as one JSON object and a line feed."""
    return line_of_parts(
        clock.json_start(entry.wall_s),
        entry.request_id,
        caller_part(entry.consumer, entry.credential),
        client_part(
            entry.client,
            place_part(entry.gateway, entry.route, entry.service),
            entry.host,
            entry.agent,
        ),
        known_text(entry.method),
        in_json(entry.path),
        result_part(entry.protocol, entry.status, entry.outcome, entry.code),
        entry.request_bytes,
        entry.response_bytes,
        entry.duration_s,
        upstream_part(entry.upstream),
        entry.upstream_s,
        end_part(entry.retries, entry.trace),
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
        number_text(entry.status),
        number_text(entry.response_bytes),
        _bare(referrer) or b"-",
        _bare(entry.agent) or b"-",
    )


def _bare(text: bytes) -> bytes:
    """Return what may stand between two quotes of a combined line."""
    if len(text) <= MAX_TEXT_BYTES and is_plain(text) is not None:
        return text
    return _unplain.sub(lambda match: b"\\x%02x" % match.group()[0], text[:MAX_TEXT_BYTES])
