"""The access log's JSON line of an exchange with a backend, without an entry in between. It opens nothing.

What it says is what `access_line.json_line` says of the exchange's entry, byte for byte. Most requests end here, so
their texts are taken from where they are known already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.decision import caller_address
from authgate_fast.http.request import values_of
from authgate_fast.proxy.line_parts import (
    MAX_TEXT_BYTES,
    caller_part,
    client_part,
    end_part,
    in_json,
    line_of_parts,
    place_part,
    result_part,
    upstream_part,
)

if TYPE_CHECKING:
    from authgate_fast.http.request import RequestHead
    from authgate_fast.proxy.access_line import Clock
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.snapshot import Identity
    from authgate_fast.tally import RouteTally

USUAL_OUTCOME: Final = b"complete"
"""Of an exchange whose response is whole."""
_NO_CALLER: Final = caller_part("", "")
_complete_parts: Final = [b""] * 1_000
"""What every line has of a request by HTTP/1.1 that was answered completely, by its status; made for the first one."""


def exchange_line(
    exchange: Exchange,
    tally: RouteTally,
    clock: Clock,
    outcome: bytes,
    status: int,
    request_bytes: int,
    ended_s: float,
) -> bytes:
    """Write the line of an exchange that has ended."""
    forward = exchange.forward
    connection = exchange.downstream
    context = connection.context
    client = connection.client
    head = exchange.head
    place = tally.log_part
    if place == b"":  # compiled, that is quicker than `not`
        place = tally.log_part = place_part(tally.gateway, tally.route, tally.service)
    method = head.method
    shape = head.shape
    if shape is not None and head.known_lines is shape.lines:  # it was read by its shape
        if shape.log_place is not place:
            shape.log_place = place
            shape.log_part = client_part(
                caller_address(head, client), place, shape.host, first(values_of(shape.lines, b"user-agent"))
            )
        client_text = shape.log_part
        path = head.path
        if len(path) > MAX_TEXT_BYTES:  # else the path is plain, or it had been left to the parser
            path = in_json(path)
    else:
        client_text = client_part(
            caller_address(head, client), place, head.host, first(head.values(b"user-agent"))
        )
        method = in_json(method)
        path = in_json(path_of(head.target))
    identity: Identity | None = forward.identity
    if identity is None:
        caller = _NO_CALLER
    else:
        caller = identity.log_part
        if caller == b"":
            caller = identity.log_part = caller_part(identity.consumer, identity.credential_id)
    upstream = forward.target.log_part.text
    if upstream == b"":
        upstream = forward.target.log_part.text = upstream_part(forward.target.url)
    if outcome is USUAL_OUTCOME and head.minor == 1:
        result = _complete_parts[status]
        if result == b"":
            result = _complete_parts[status] = result_part(b"HTTP/1.1", status, outcome, b"")
    else:
        result = result_part(protocol_of(head), status, outcome, b"")
    return line_of_parts(
        clock.json_start(context.wall_s + (ended_s - context.ticked_s)),
        forward.request_id,
        caller,
        client_text,
        method,
        path,
        result,
        request_bytes,
        connection.written - connection.sent_before,
        ended_s - connection.begun_s,
        upstream,
        exchange.response_s - connection.begun_s if exchange.status else -1.0,
        end_part(exchange.sends - 1 if exchange.sends > 1 else 0, head.trace),
    )


def protocol_of(head: RequestHead) -> bytes:
    """Return the version as it stands in a request line."""
    return b"HTTP/1.1" if head.minor == 1 else b"HTTP/1.0"


def path_of(target: bytes) -> bytes:
    """Return a target without its query."""
    query_at = target.find(b"?")
    return target if query_at < 0 else target[:query_at]


def first(found: list[bytes]) -> bytes:
    """Return the first value of a field, b"" without one."""
    return found[0] if found else b""
