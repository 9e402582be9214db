"""What all connections of one worker share.

``wall_s`` (seconds since the epoch) and ``now_s`` (monotonic seconds) come from one coarse clock (`timeouts.Ticker`);
they are at most one tick old, and reading them costs an attribute. ``ticked_s`` is that tick by ``perf_counter``, for
who wants to know a moment better. Nothing here is per request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.proxy.admission import Admission
from authgate_fast.proxy.groups import Groups
from authgate_fast.proxy.heads import RequestReader, ResponseReader
from authgate_fast.proxy.memory import keep_budget
from authgate_fast.proxy.record import Recorder
from authgate_fast.snapshot import Snapshot

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Denial
    from authgate_fast.auth.session import Session
    from authgate_fast.decision import Client, Forward, Local, Pending, Reply
    from authgate_fast.errors import Reason
    from authgate_fast.http.trace_context import Tracing
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.proxy.pool import Pools
    from authgate_fast.proxy.tunnel import Tunnel
    from authgate_fast.snapshot import Identity

COUNTED_LIMITS: Final = (
    "between_bytes_timeout_s",
    "body_timeout_s",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "head_timeout_s",
    "linger_timeout_s",
    "lookup_timeout_s",
    "max_body_bytes",
    "max_buffered_bytes",
    "max_chunk_line_bytes",
    "max_chunk_overhead_bytes",
    "max_connections",
    "max_connections_per_address",
    "max_fields",
    "max_head_bytes",
    "max_interim_responses",
    "max_lookups",
    "max_requests_per_connection",
    "max_target_bytes",
    "max_trailer_bytes",
    "max_trailer_fields",
    "max_tunnels",
    "max_upstream_connections",
    "min_body_rate_bytes_s",
    "min_send_rate_bytes_s",
    "open_files",
    "send_timeout_s",
    "tls_handshake_timeout_s",
    "tunnel_goodbye_timeout_s",
    "tunnel_half_closed_timeout_s",
    "tunnel_idle_timeout_s",
)
"""The names in `Counters.limit_hits`: fields of `Limits`, the fixed bounds of `http.chunked`, and the system's own.

Idle connections that are closed in their time are ordinary life, and counted nowhere.
"""

Report = Callable[["Reason", "Forward | None", bytes, str], None]
"""(reason, the exchange's plan if it got that far, request id, what happened): one line for the operator."""

Meet = Callable[[asyncio.BaseTransport], "Client | None"]
"""Says who has connected, where the transport's own peer is not the answer; None: nobody who may."""


def _no_report(reason: Reason, forward: Forward | None, request_id: bytes, what: str) -> None:
    """Until somebody listens."""


class Resolver(Protocol):
    """The room ``lookup`` as the request path sees it: finds out what memory does not hold."""

    async def resolve(self, pending: Pending) -> Identity | Denial:
        """Find out who is calling."""
        ...

    async def answer(self, local: Local, body: bytes) -> Reply | Denial:
        """Answer at one of the gateway's own endpoints."""
        ...

    def has_ended(self, session: Session) -> bool:
        """Tell whether a browser session is over; asked about once a second for each stream that it opened."""
        ...


class Counters:
    """Plain counts since the start, for /status and /metrics.

    ``limit_hits`` counts how often each limit bit, by the limit's name (`COUNTED_LIMITS`).
    """

    __slots__ = (
        "connections", "limit_hits", "refused", "requests", "retries", "tunnel_bytes", "tunnels", "upstream_failures",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.refused: dict[str, int] = {}
        self.limit_hits: dict[str, int] = {}
        self.retries = 0
        self.tunnels = 0
        self.tunnel_bytes = 0
        self.upstream_failures = 0

    def hit(self, limit: str) -> None:
        """Count that a limit bit."""
        self.limit_hits[limit] = self.limit_hits.get(limit, 0) + 1


class Context:
    """One worker's shared state."""

    __slots__ = (
        "_grown_bytes",
        "_measure_at_bytes",
        "_measuring",
        "admission",
        "buffered_bytes",
        "connections",
        "counters",
        "date_line",
        "draining",
        "gateway_lookups",
        "groups",
        "guard",
        "id_prefix",
        "limits",
        "lookups",
        "loop",
        "now_s",
        "pools",
        "recorder",
        "report",
        "request_reader",
        "resolver",
        "response_reader",
        "snapshot",
        "ticked_s",
        "tracing",
        "tunnels",
        "wall_s",
    )

    pools: Pools
    resolver: Resolver

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits = DEFAULTS) -> None:
        self.loop = loop
        self.limits = limits
        self.snapshot = Snapshot()
        self.connections: set[Downstream] = set()
        self.tunnels: set[Tunnel] = set()
        self.admission = Admission()
        self.buffered_bytes = 0  # at the last measurement
        self._grown_bytes = 0  # since then, at most
        self._measure_at_bytes = limits.max_buffered_bytes
        self._measuring = False
        self.counters = Counters()
        self.recorder = Recorder()
        self.tracing: Tracing | None = None  # before the first connection
        self.groups = Groups(self)
        self.report: Report = _no_report
        self.request_reader = RequestReader()
        self.response_reader = ResponseReader()
        self.guard = FailureGuard(
            limits.max_failures_per_address, limits.max_failures_per_account, limits.failure_window_s
        )
        self.lookups = 0  # requests that wait for the resolver
        self.gateway_lookups: dict[str, int] = {}
        self.draining = False
        self.id_prefix = os.urandom(6).hex().encode("ascii")
        self.wall_s = 0.0
        self.now_s = 0.0
        self.ticked_s = 0.0
        self.date_line = b""

    def took(self, size: int) -> None:
        """Count bytes that enter a buffer; see `proxy.memory`."""
        self._grown_bytes += size
        if self._grown_bytes > self._measure_at_bytes and not self._measuring:
            self._measuring = True
            self.loop.call_soon(keep_budget, self)  # not now: somebody is in the middle of writing

    def measured(self, held: int, room: int) -> None:
        """`held` bytes are in buffers; measure again before `room` bytes have come in."""
        self.buffered_bytes = held
        self._grown_bytes = 0
        self._measure_at_bytes = room
        self._measuring = False

    def may_look_up(self, gateway: str) -> bool:
        """Tell whether another look-up may begin: one gateway's must not take the places of all others."""
        limit = self.limits.max_lookups
        return self.lookups < limit and self.gateway_lookups.get(gateway, 0) < max(limit // 2, 1)

    def look_up_begun(self, gateway: str) -> None:
        """Count a look-up."""
        self.lookups += 1
        self.gateway_lookups[gateway] = self.gateway_lookups.get(gateway, 0) + 1

    def look_up_done(self, gateway: str) -> None:
        """Count one less."""
        self.lookups -= 1
        left = self.gateway_lookups[gateway] - 1
        if left:
            self.gateway_lookups[gateway] = left
        else:
            del self.gateway_lookups[gateway]
