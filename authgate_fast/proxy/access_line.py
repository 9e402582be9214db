"""One line of the access log for one answered request, as JSON or in the combined format. It opens nothing.

Nothing secret stands in it: of the target only the path, of the referrer no query, no credential and no cookie, of the
caller the name and which of its credentials. What a client sent is escaped, so that it can neither end a line nor
forge a field.
"""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final, NamedTuple

from authgate_fast.proxy.line_parts import (
    MAX_TEXT_BYTES,
    POINT_THOUSANDTHS,
    LineParts,
    agent_part,
    caller_part,
    client_part,
    host_part,
    in_json,
    is_plain,
    known_text,
    line_of_parts,
    number_text,
    place_part,
    result_part,
    trace_part,
    upstream_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.http.trace_context import Trace

HELD_LINES: Final = 64
"""JSON lines that are written together. More of them are no quicker, and keep more of memory busy."""
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


class Batch(NamedTuple):
    """Whole lines, and how many."""

    data: bytes
    lines: int


class Lines:
    """The lines of a batch. It is called with each entry; `hold` is for what is JSON parts already.

    ``on_first`` is called when a batch begins, ``on_full`` when it has ``most_bytes``. ``takes_json``: its lines are
    JSON, so that `hold` may be used.
    """

    __slots__ = (
        "_clock",
        "_count",
        "_held",
        "_held_count",
        "_most_bytes",
        "_on_first",
        "_on_full",
        "_pieces",
        "_size",
        "_write",
        "takes_json",
    )

    def __init__(
        self,
        write: Callable[[Entry, Clock], bytes],
        most_bytes: int,
        on_first: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._count = 0
        self._held = [LineParts() for _ in range(HELD_LINES)]
        self._held_count = 0
        self._clock = Clock()
        self.takes_json = write is json_line
        self._write = write
        self._most_bytes = most_bytes
        self._on_first = on_first
        self._on_full = on_full

    def __call__(self, entry: Entry) -> None:
        self._write_held()
        self._begin_one()
        self._add(self._write(entry, self._clock))

    def hold(self) -> LineParts:
        """Return where the parts of the next line go; they must be filled in before anything else happens here.

        Lines are written some at a time: what writes them, and what they have in common, is then near at hand.
        """
        count = self._held_count
        if count == HELD_LINES:
            self._write_held()
            count = 0
        self._begin_one()
        self._held_count = count + 1
        return self._held[count]

    def take(self) -> Batch:
        """Return the batch, and begin another one."""
        self._pieces.append(self._join_held())
        batch = Batch(b"".join(self._pieces), self._count)
        self._pieces = []
        self._size = self._count = 0
        return batch

    def _begin_one(self) -> None:
        self._count += 1
        if self._count == 1:
            self._on_first()

    def _write_held(self) -> None:
        written = self._join_held()
        if written:
            self._add(written)

    def _join_held(self) -> bytes:
        clock = self._clock
        lines = []
        for at in range(self._held_count):
            parts = self._held[at]
            lines.append(line_of_parts(clock.json_start(parts.wall_s), parts))
        self._held_count = 0
        return b"".join(lines)

    def _add(self, lines: bytes) -> None:
        self._pieces.append(lines)
        self._size += len(lines)
        if self._size >= self._most_bytes:
            self._on_full()


def json_line(entry: Entry, clock: Clock) -> bytes:
    """Write an entry as one JSON object and a line feed."""
    parts = LineParts()
    parts.request_id = entry.request_id
    parts.client = client_part(entry.client)
    parts.place = place_part(entry.gateway, entry.route, entry.service)
    parts.caller = caller_part(entry.consumer, entry.credential)
    parts.method = known_text(entry.method)
    parts.host = host_part(entry.host)
    parts.path = in_json(entry.path)
    parts.result = result_part(entry.protocol, entry.status, entry.outcome, entry.code)
    parts.request_bytes = entry.request_bytes
    parts.response_bytes = entry.response_bytes
    parts.duration_s = entry.duration_s
    parts.upstream = upstream_part(entry.upstream)
    parts.upstream_s = entry.upstream_s
    parts.retries = entry.retries
    parts.agent = agent_part(entry.agent)
    parts.trace = trace_part(entry.trace)
    return line_of_parts(clock.json_start(entry.wall_s), parts)


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
