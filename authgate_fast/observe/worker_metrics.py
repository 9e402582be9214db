"""What one worker counts, as families of metrics. It only reads, and only when somebody asks.

Names are ``authgate_<what>_<unit>``; labels come from the configuration and from the code, never from a request: their
number is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast import __version__, is_compiled
from authgate_fast.errors import Reason
from authgate_fast.observe.exposition import Family, Sample, counter, gauge, labelled, summary
from authgate_fast.proxy.context import COUNTED_LIMITS
from authgate_fast.proxy.groups import STATES, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.balance.group import Group
    from authgate_fast.balance.member import Member
    from authgate_fast.observe.exposition import Labels
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.timeouts import Ticker


def worker_metrics(context: Context, ticker: Ticker, *, ready: bool, refused_documents: int) -> list[Family]:
    """Return every metric of a worker, as of now."""
    return [
        *_about(context, ticker, ready=ready, refused_documents=refused_documents),
        *_clients(context),
        *_upstreams(context),
        *_balanced(context),
    ]


def _about(context: Context, ticker: Ticker, *, ready: bool, refused_documents: int) -> list[Family]:
    build = (("build", "compiled" if is_compiled() else "pure"), ("version", __version__))
    return [
        Family(
            "authgate_build_info", "gauge", "The version that runs, and how it was built.", (Sample(1, build),)
        ),
        gauge("authgate_ready", "1 if there is a configuration and the worker is not draining, else 0.", int(ready)),
        gauge("authgate_snapshot_revision", "The revision that requests are served from.", context.snapshot.revision),
        gauge("authgate_refused_documents", "Stored documents that could not be used.", refused_documents),
        summary(
            "authgate_event_loop_lag_seconds",
            "By how much the event loop was late for its own clock, four times a second.",
            ticker.late_s,
            ticker.ticks,
        ),
    ]  # fmt: skip


def _clients(context: Context) -> list[Family]:
    counters = context.counters
    return [
        counter("authgate_requests_total", "Requests whose head was complete.", counters.requests),
        labelled(
            "authgate_refused_requests_total",
            "counter",
            "Requests that the gateway itself answered with an error, by its code.",
            "code",
            {reason.value: 0 for reason in Reason} | counters.refused,
        ),
        labelled(
            "authgate_limit_hits_total",
            "counter",
            "How often each limit bit.",
            "limit",
            dict.fromkeys(COUNTED_LIMITS, 0) | counters.limit_hits,
        ),
        gauge("authgate_client_connections_open", "Client connections that are open.", len(context.connections)),
        counter("authgate_client_connections_total", "Client connections that were taken.", counters.connections),
        gauge("authgate_tunnels_open", "Tunnels (WebSocket and other upgrades) that are open.", len(context.tunnels)),
        counter("authgate_tunnels_total", "Tunnels that were opened.", counters.tunnels),
        counter("authgate_tunnel_bytes_total", "Bytes that went through tunnels, both ways.", counters.tunnel_bytes),
        gauge("authgate_buffered_bytes", "Bytes held for clients: heads, bodies, answers.", context.buffered_bytes),
        gauge("authgate_lookups_waiting", "Requests that wait for a credential to be looked up.", context.lookups),
    ]  # fmt: skip


def _upstreams(context: Context) -> list[Family]:
    pools = context.pools.counts()
    return [
        counter(
            "authgate_retries_total",
            "Requests sent again on a fresh backend connection.",
            context.counters.retries,
        ),
        counter(
            "authgate_upstream_failures_total",
            "Responses that a backend broke off.",
            context.counters.upstream_failures,
        ),
        labelled(
            "authgate_upstream_connections_open",
            "gauge",
            "Backend connections, idle ones included.",
            "upstream",
            {name: counts["open"] for name, counts in pools.items()},
        ),
        labelled(
            "authgate_upstream_connections_idle",
            "gauge",
            "Backend connections that wait for a request.",
            "upstream",
            {name: counts["idle"] for name, counts in pools.items()},
        ),
    ]  # fmt: skip


def _balanced(context: Context) -> list[Family]:
    """Return what is known of services that have several targets, a health check or a limit of their own."""
    groups: list[tuple[Labels, Group]] = [
        ((("gateway", gateway), ("service", service)), group)
        for (gateway, service), group in sorted(context.groups.items())
    ]
    members: list[tuple[Labels, Member]] = [
        ((*labels, ("target", member.key)), member) for labels, group in groups for member in group.members
    ]

    def of_groups(name: str, kind: str, text: str, value: Callable[[Group], int]) -> Family:
        samples = tuple(Sample(value(group), labels) for labels, group in groups)
        return Family(f"authgate_service_{name}", kind, text, samples)

    def of_members(name: str, kind: str, text: str, value: Callable[[Member], int]) -> Family:
        samples = tuple(Sample(value(member), labels) for labels, member in members)
        return Family(f"authgate_target_{name}", kind, text, samples)

    states = tuple(
        Sample(int(state == state_of(member)), (*labels, ("state", state)))
        for labels, member in members
        for state in STATES
    )
    return [
        of_groups("requests_in_flight", "gauge", "Requests that a balanced service serves now.", lambda g: g.active),
        of_groups("requests_waiting", "gauge", "Requests in the queue of a service.", lambda g: len(g.waiting)),
        of_groups("queued_total", "counter", "Requests that had to wait in a queue.", lambda g: g.queued_total),
        of_groups("queue_full_total", "counter", "Requests refused at max_queue.", lambda g: g.queue_full_total),
        of_groups(
            "queue_timeouts_total", "counter", "Requests refused at queue_timeout_s.", lambda g: g.queue_timeouts_total
        ),
        of_groups("moved_requests_total", "counter", "Requests taken to another target.", lambda g: g.retries_total),
        Family("authgate_target_state", "gauge", "1 for the state that a target is in, else 0.", states),
        of_members("requests_in_flight", "gauge", "Requests that a target serves now.", lambda m: m.active),
        of_members("requests_total", "counter", "Requests that were sent to a target.", lambda m: m.requests_total),
        of_members("failures_total", "counter", "Requests that a target failed.", lambda m: m.failures_total),
        of_members("ejections_total", "counter", "How often a target was ejected.", lambda m: m.ejections_total),
        of_members("checks_total", "counter", "Active checks of a target.", lambda m: m.checks_total),
        of_members("checks_failed_total", "counter", "Active checks that went wrong.", lambda m: m.checks_failed_total),
    ]  # fmt: skip
