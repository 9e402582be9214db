"""W3C Trace Context: which trace a request belongs to, and what the backend is told of it.

A ``traceparent`` is read as the recommendation says and no looser; one that is invalid, or there twice, is dropped with
its ``tracestate``, as is a ``tracestate`` alone. A valid one goes on byte for byte, unless the gateway has a span of
its own in the trace: then the backend's parent is that span. Sans-IO: random bits are passed in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.http.request import RequestHead

# Section 3.2.2.3: the fields of version 00; ids of zeros alone are invalid. Section 4: of a version to come, which may
# add to these, they are read alike where a dash or the end follows them; ff is forbidden. Stricter: a bound.
_traceparent: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,200})?"
).fullmatch
# Section 3.3.1.3, with the keys of level 2, which are those of level 1 and a few more.
_member: Final = re.compile(rb"([a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]").fullmatch
MAX_MEMBERS: Final = 32
"""Members of a ``tracestate`` (section 3.3.1.1): more make it invalid."""

SAMPLED: Final = 1
_KNOWN_FLAGS: Final = 3
"""Sampled, and level 2's "random"; what else a later version may say is not said again under version 00."""
_RATIO_BITS: Final = 56
"""How many of a trace id's bits decide whether it is sampled: those that level 2 asks to be random."""


class Trace:
    """The trace of a request. ``traceparents`` and ``tracestates`` are values as received; `settle` fills the rest.

    Ids are lower-case hex. ``parent_id`` is the client's span, b"" where the trace begins here; ``span_id`` is the
    gateway's own span, b"" where none is recorded; ``trace_id`` is b"" until the trace is settled.
    """

    __slots__ = ("flags", "parent_id", "span_id", "trace_id", "traceparents", "tracestates")

    def __init__(self) -> None:
        self.traceparents: list[bytes] = []
        self.tracestates: list[bytes] = []
        self.trace_id = b""
        self.parent_id = b""
        self.span_id = b""
        self.flags = 0


class Tracing:
    """What a worker does with traces.

    `random_bits` returns a number of so many random bits. ``passes``: what clients send goes on; ``begins``: a request
    without a trace gets one, sampled in `ratio` of all cases; ``records``: what is sampled gets a span of its own here.
    """

    __slots__ = ("_below", "_random_bits", "begins", "passes", "records")

    def __init__(
        self,
        random_bits: Callable[[int], int],
        *,
        passes: bool = True,
        begins: bool = False,
        records: bool = False,
        ratio: float = 0.0,
    ) -> None:
        self._random_bits = random_bits
        self._below = round(ratio * (1 << _RATIO_BITS))
        self.passes = passes
        self.begins = begins
        self.records = records

    def begin(self) -> Trace:
        """Return a new trace, sampled or not."""
        trace = Trace()
        number = self._random_bits(128) or 1
        trace.trace_id = b"%032x" % number
        if number & ((1 << _RATIO_BITS) - 1) < self._below:
            trace.flags = SAMPLED
        return trace

    def span_id(self) -> bytes:
        """Return a new span id."""
        return b"%016x" % (self._random_bits(64) or 1)


def settle(head: RequestHead, tracing: Tracing | None) -> None:
    """Decide which trace a request belongs to, and add what the backend is told of it to the head's lines.

    Without `tracing`, valid fields are passed on.
    """
    trace = head.trace
    head.trace = None
    if trace is not None and (
        (tracing is not None and not tracing.passes)
        or _stays_here(head, b"traceparent")
        or not _read_traceparent(trace)
    ):
        trace = None
    own_parent = b""
    if trace is None:
        if tracing is None or not tracing.begins:
            return
        trace = tracing.begin()
        own_parent = tracing.span_id()
        if tracing.records and trace.flags & SAMPLED:
            trace.span_id = own_parent
    elif tracing is not None and tracing.records and trace.flags & SAMPLED:
        own_parent = trace.span_id = tracing.span_id()
    head.trace = trace
    if own_parent:
        head.lines.append(b"traceparent: 00-%b-%b-%02x\r\n" % (trace.trace_id, own_parent, trace.flags))
    else:
        head.lines.append(b"traceparent: %b\r\n" % trace.traceparents[0])
    if trace.tracestates and not _stays_here(head, b"tracestate") and _is_tracestate(trace.tracestates):
        for value in trace.tracestates:
            if value:
                head.lines.append(b"tracestate: %b\r\n" % value)


def _stays_here(head: RequestHead, name: bytes) -> bool:
    """Tell whether Connection names a field (RFC 9110 section 7.6.1)."""
    return head.nominated is not None and name in head.nominated


def _read_traceparent(trace: Trace) -> bool:
    """Read the one traceparent of a request; False if there is not exactly one, or it is invalid."""
    if len(trace.traceparents) != 1:
        return False
    match = _traceparent(trace.traceparents[0])
    if match is None:
        return False
    version, trace_id, parent_id, flags, rest = match.groups()
    if rest is not None and version == b"00":
        return False
    trace.trace_id = trace_id
    trace.parent_id = parent_id
    trace.flags = int(flags, 16) & _KNOWN_FLAGS  # two hex digits, checked above
    return True


def _is_tracestate(values: list[bytes]) -> bool:
    """Tell whether the tracestate fields of a request make a valid list; empty members are none (section 3.3.1.1)."""
    keys: set[bytes] = set()
    for member in b",".join(values).split(b","):
        text = member.strip(b" \t")
        if not text:
            continue
        match = _member(text)
        if match is None:
            return False
        key = match.group(1)
        if key in keys or len(keys) == MAX_MEMBERS:
            return False
        keys.add(key)
    return True
