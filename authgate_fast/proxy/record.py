"""What is known of each answered request, counted once and, if there is an access log, written once: when it has ended.

Every end of a request comes through one of the functions here: the end of an exchange with a backend, an answer of the
gateway's own, the end of a tunnel.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from authgate_fast.decision import caller_address
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.request import values_of
from authgate_fast.proxy.access_line import Entry
from authgate_fast.proxy.exchange_line import USUAL_OUTCOME, exchange_line, first, path_of, protocol_of
from authgate_fast.tally import (
    ACCEPTED,
    AUTH_CODES,
    BLOCKED,
    FORBIDDEN,
    INVALID,
    MISSING,
    NO_CHECK,
    UNAVAILABLE,
    RouteTally,
    ServiceTally,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.decision import Forward
    from authgate_fast.http.request import RequestHead
    from authgate_fast.http.trace_context import Trace
    from authgate_fast.proxy.access_line import Lines
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.snapshot import Gateway, Identity, Route

COMPLETE: Final = USUAL_OUTCOME
REFUSED: Final = b"refused"
"""The gateway answered with an error of its own; ``code`` says which."""
CLIENT_CLOSED: Final = b"client_closed"
UPSTREAM_BROKEN: Final = b"upstream_broken"
ACCESS_ENDED: Final = b"access_ended"
CLIENT_CLOSED_STATUS: Final = 499
"""The status of a request whose client left before the answer began: nginx's number, in log and metrics only."""
MAX_TALLIES: Final = 20_000
"""Routes whose counts are kept at most, those of the past included."""

_now_s: Final = perf_counter
"""A name of its own, which compiled code need not look up."""

_AUTH_RESULT_OF: Final = {
    Reason.CREDENTIALS_MISSING: MISSING,
    Reason.CREDENTIALS_INVALID: INVALID,
    Reason.LOGIN_FAILED: INVALID,
    Reason.FORBIDDEN: FORBIDDEN,
    Reason.CSRF_REJECTED: FORBIDDEN,
    Reason.TOO_MANY_FAILURES: BLOCKED,
    Reason.AUTH_UNAVAILABLE: UNAVAILABLE,
}


class Recorder:
    """The counts of one worker. ``log`` takes the entries of the access log, or is None.

    ``spans`` takes those whose trace has a span of the gateway's. ``lines`` are those of ``log`` if they are JSON: most
    exchanges are written there at once, without an entry. ``tallies`` are kept by the names of gateway, route
    and service, so that they live on from one snapshot to the next.
    """

    __slots__ = ("lines", "log", "request_bytes", "response_bytes", "services", "spans", "tallies")

    def __init__(self) -> None:
        self.log: Callable[[Entry], None] | None = None
        self.lines: Lines | None = None
        self.spans: Callable[[Entry], None] | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self.tallies: dict[tuple[str, str, str], RouteTally] = {}
        self.services: dict[tuple[str, str], ServiceTally] = {}

    def tally(self, gateway: str, route: str, service: str) -> RouteTally:
        """Return the tally of these names."""
        tallies = self.tallies
        key = (gateway, route, service)
        tally = tallies.get(key)
        if tally is None:
            if len(tallies) >= MAX_TALLIES:  # of a configuration that keeps changing its names
                del tallies[next(iter(tallies))]
            times = None
            if service:
                times = self.services.get((gateway, service))
                if times is None:
                    times = self.services[gateway, service] = ServiceTally(gateway, service)
            tally = tallies[key] = RouteTally(gateway, route, service, times)
        return tally

    def log_to(self, lines: Lines | None) -> None:
        """Write the access log there; None: nowhere."""
        self.log = lines
        self.lines = lines if lines is not None and lines.takes_json else None

    def wants(self, head: RequestHead | None) -> bool:
        """Tell whether somebody takes an entry of this request."""
        if self.log is not None:
            return True
        trace = None if head is None else head.trace
        return trace is not None and trace.span_id != b""

    def take(self, entry: Entry) -> None:
        """Hand an entry to who takes it."""
        if self.log is not None:
            self.log(entry)
        if self.spans is not None and entry.trace is not None and entry.trace.span_id:
            self.spans(entry)

    def of_route(self, gateway: Gateway, route: Route) -> RouteTally:
        """Return the tally of a route."""
        tally = route.meter.tally
        if tally is None:
            tally = route.meter.tally = self.tally(gateway.name, route.name, route.service_name)
        return tally


def exchange_ended(exchange: Exchange, outcome: bytes) -> None:
    """An exchange has ended by itself: its response is complete, or was broken off, or the client is gone."""
    forward = exchange.forward
    connection = exchange.downstream
    recorder = exchange.context.recorder
    status = exchange.status or CLIENT_CLOSED_STATUS
    ended_s = _now_s()
    duration_s = ended_s - connection.begun_s
    request_bytes = connection.head_bytes + exchange.body_received()
    route = forward.route
    tally = route.meter.tally or recorder.of_route(forward.gateway, route)
    key = status // 100 * AUTH_CODES + (NO_CHECK if forward.identity is None else ACCEPTED)
    tally.count(key)
    recorder.request_bytes += request_bytes
    recorder.response_bytes += connection.written - connection.sent_before
    times = tally.times
    if times is not None:
        times.total.observe(duration_s)
        if exchange.status:
            times.upstream.observe(exchange.response_s - connection.begun_s)
    lines = recorder.lines
    if lines is not None and (recorder.spans is None or not _has_span(exchange.head.trace)):
        lines.add(exchange_line(exchange, tally, lines.clock, outcome, status, request_bytes, ended_s))
    elif recorder.wants(exchange.head):
        recorder.take(exchange_entry(exchange, outcome, status, ended_s))


def _has_span(trace: Trace | None) -> bool:
    return trace is not None and trace.span_id != b""


def exchange_entry(exchange: Exchange, outcome: bytes, status: int, ended_s: float) -> Entry:
    """Return the entry of an exchange that has ended."""
    forward = exchange.forward
    connection = exchange.downstream
    entry = _entry(connection, exchange.head, forward.request_id, status, outcome, ended_s)
    _fill_from_forward(entry, forward)
    entry.request_bytes = connection.head_bytes + exchange.body_received()
    if exchange.sends > 1:
        entry.retries = exchange.sends - 1
    if exchange.status:
        entry.upstream_s = exchange.response_s - connection.begun_s
    return entry


def exchange_refused(exchange: Exchange, reason: Reason) -> None:
    """An exchange ends with an error of the gateway's own."""
    forward = exchange.forward
    connection = exchange.downstream
    recorder = exchange.context.recorder
    ended_s = _now_s()
    tally = recorder.of_route(forward.gateway, forward.route)
    auth = NO_CHECK if forward.identity is None else ACCEPTED
    key = TABLE[reason].status // 100 * AUTH_CODES + auth
    tally.count(key)
    recorder.request_bytes += connection.head_bytes + exchange.body_received()
    recorder.response_bytes += connection.written - connection.sent_before
    if tally.times is not None:
        tally.times.total.observe(ended_s - connection.begun_s)
    if recorder.wants(exchange.head):
        entry = exchange_entry(exchange, REFUSED, TABLE[reason].status, ended_s)
        entry.code = reason.value.encode("ascii")
        recorder.take(entry)


def answered(
    connection: Downstream,
    head: RequestHead | None,
    gateway: Gateway | None,
    route: Route | None,
    request_id: bytes,
    status: int,
    reason: Reason | None = None,
) -> None:
    """The gateway has answered by itself, without an exchange; `reason` where that is an error."""
    outcome = COMPLETE if reason is None else REFUSED
    _count_and_log(connection, head, gateway, route, request_id, status, outcome, reason)


def _count_and_log(
    connection: Downstream,
    head: RequestHead | None,
    gateway: Gateway | None,
    route: Route | None,
    request_id: bytes,
    status: int,
    outcome: bytes,
    reason: Reason | None,
) -> None:
    recorder = connection.context.recorder
    if route is not None and gateway is not None:
        tally = recorder.of_route(gateway, route)
    else:
        tally = recorder.tally("" if gateway is None else gateway.name, "", "")
    auth = NO_CHECK if reason is None else _AUTH_RESULT_OF.get(reason, NO_CHECK)
    key = status // 100 * AUTH_CODES + auth
    tally.count(key)
    request_bytes = 0 if head is None else connection.head_bytes + max(head.content_length, 0)
    recorder.request_bytes += request_bytes
    recorder.response_bytes += connection.written - connection.sent_before
    if not recorder.wants(head):
        return
    entry = _entry(connection, head, request_id, status, outcome, _now_s())
    if reason is not None:
        entry.code = reason.value.encode("ascii")
    if gateway is not None:
        entry.gateway = gateway.name
    if route is not None:
        entry.route = route.name
        entry.route_path = route.public_path
        entry.service = route.service_name
    entry.request_bytes = request_bytes
    recorder.take(entry)


def client_left(
    connection: Downstream, head: RequestHead, gateway: Gateway, route: Route | None, request_id: bytes
) -> None:
    """The client has gone while the gateway was busy with an answer of its own."""
    _count_and_log(connection, head, gateway, route, request_id, CLIENT_CLOSED_STATUS, CLIENT_CLOSED, None)


def tunnel_ended(
    connection: Downstream, forward: Forward, head: RequestHead, client_bytes: int, backend_bytes: int
) -> None:
    """A tunnel is over; so many bytes of the client and of the backend came through it."""
    recorder = connection.context.recorder
    tally = recorder.of_route(forward.gateway, forward.route)
    key = AUTH_CODES + (NO_CHECK if forward.identity is None else ACCEPTED)
    tally.count(key)
    recorder.request_bytes += connection.head_bytes + client_bytes
    recorder.response_bytes += connection.written - connection.sent_before + backend_bytes
    if not recorder.wants(head):
        return
    entry = _entry(connection, head, forward.request_id, 101, COMPLETE, _now_s())
    _fill_from_forward(entry, forward)
    entry.request_bytes = connection.head_bytes + client_bytes
    entry.response_bytes += backend_bytes
    recorder.take(entry)


def _entry(
    connection: Downstream,
    head: RequestHead | None,
    request_id: bytes,
    status: int,
    outcome: bytes,
    ended_s: float,
) -> Entry:
    context = connection.context
    client = connection.client
    address = client.address
    if head is not None and client.trusted:
        address = caller_address(head, client)
    entry = Entry(request_id, address, status, outcome)
    entry.wall_s = context.wall_s + (ended_s - context.ticked_s)
    entry.response_bytes = connection.written - connection.sent_before
    if head is not None:
        entry.duration_s = ended_s - connection.begun_s
        entry.trace = head.trace
        entry.scheme = client.scheme
        entry.method = head.method
        entry.host = head.host
        entry.path = path_of(head.target)
        entry.protocol = protocol_of(head)
        shape = head.shape
        if shape is not None and head.known_lines is shape.lines:  # it was read by its shape
            if shape.agent is None:
                shape.agent = first(values_of(shape.lines, b"user-agent"))
                shape.referrer = first(values_of(shape.lines, b"referer"))
            entry.agent = shape.agent
            entry.referrer = shape.referrer
        else:
            entry.agent = first(head.values(b"user-agent"))
            entry.referrer = first(head.values(b"referer"))
    return entry


def _fill_from_forward(entry: Entry, forward: Forward) -> None:
    entry.gateway = forward.gateway.name
    entry.route = forward.route.name
    entry.route_path = forward.route.public_path
    entry.service = forward.service.name
    entry.upstream = forward.target.url
    identity: Identity | None = forward.identity
    if identity is not None:
        entry.consumer = identity.consumer
        entry.credential = identity.credential_id
