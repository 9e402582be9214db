"""What a worker holds for its clients, and who has to go when it is too much (``max_buffered_bytes``).

Every byte that enters a buffer of ours is counted as growth (`Context.took`), an upper bound, for most leave at once.
All buffers are measured once a second, and as soon as the growth since then could have used up the budget; between
two measurements at least a sixteenth of it must have come in, so that measuring never becomes the work. Over the
budget, those who hold the most for the longest go first: many bytes for little progress.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.decision import Refusal
from authgate_fast.errors import Reason
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.own_answers import refuse
from authgate_fast.proxy.phases import BUSY, HEAD, TUNNEL

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.downstream import Downstream

LIMIT: Final = "max_buffered_bytes"
_AT_LEAST_S: Final = 0.1
"""Among those that have just come, who holds the most goes first."""


def keep_budget(context: Context) -> None:
    """Measure, and end the worst connections if they hold too much."""
    budget = context.limits.max_buffered_bytes
    total = 0
    for connection in context.connections:
        total += held_bytes(connection)
    for tunnel in context.tunnels:
        total += tunnel.held_bytes()
    if total > budget:
        total = _shed(context, total, budget - budget // 8)
    context.measured(total, max(budget - total, budget // 16))


def held_bytes(connection: Downstream) -> int:
    """Return what is held for one client: of a head or a pipeline, of answers, and of a body for its backend."""
    held = len(connection.buffer)
    if connection.phase != TUNNEL:
        held += connection.transport.get_write_buffer_size()
    exchange = connection.exchange
    if exchange is not None:
        held += exchange.held_bytes()
    return held


def _shed(context: Context, total: int, target: int) -> int:
    """End connections, the worst first, until no more than `target` bytes are held; return how many are."""
    now_s = context.now_s
    holders: list[tuple[float, int, int, Downstream]] = []
    for number, connection in enumerate(context.connections):
        held = held_bytes(connection)
        if held:
            holders.append((held * (_AT_LEAST_S + _stalled_s(connection, now_s)), number, held, connection))
    tunnels = sorted(
        ((tunnel.held_bytes(), number, tunnel) for number, tunnel in enumerate(context.tunnels)), reverse=True
    )
    holders.sort(reverse=True)
    ended = 0
    for _, _, held, connection in holders:
        if total <= target:
            break
        context.counters.hit(LIMIT)
        _end(connection)
        total -= held
        ended += 1
    for held, _, tunnel in tunnels:
        if total <= target:
            break
        context.counters.hit(LIMIT)
        tunnel.abort()
        total -= held
        ended += 1
    context.report(Reason.OVERLOADED, None, b"-", f"{LIMIT} reached: {ended} connections are ended")
    return total


def _stalled_s(connection: Downstream, now_s: float) -> float:
    """Return for how many seconds nothing has moved, or as good as nothing beside what is held."""
    unsent = connection.transport.get_write_buffer_size() if connection.phase != TUNNEL else 0
    if not unsent:
        return now_s - connection.since_s
    pace = connection.send_pace
    if pace is None:
        return 0.0
    moved = max(connection.written - unsent - pace.begun_bytes, 0)
    return (pace.seconds + now_s - pace.checked_s) * unsent / (unsent + moved)


def _end(connection: Downstream) -> None:
    """Answer 503 where nothing was answered yet and an answer can be sent; else cut."""
    exchange = connection.exchange
    if connection.transport.get_write_buffer_size():
        connection.give_up()
    elif connection.phase == HEAD:
        refuse(connection, Refusal(Reason.OVERLOADED, connection.next_id()), None, b"")
    elif connection.phase == BUSY and isinstance(exchange, Exchange) and not exchange.response_begun:
        exchange.close_after = True
        exchange.refuse(Reason.OVERLOADED, f"{LIMIT} reached")
    else:
        connection.give_up()
