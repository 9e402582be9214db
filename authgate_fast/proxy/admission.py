"""Who may connect, and who has to leave when there is no room: a flood must not shut the others out for long.

Work per accept is bounded: the list of who could leave is made once a second at most, and only when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.auth.failures import address_name
from authgate_fast.proxy.phases import CLOSED, HEAD, IDLE, LINGER

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.downstream import Downstream

SUSPECT_AFTER_S: Final = 1.0
"""A connection that has not said what it wants by then goes before one that was served."""
_LIST_EVERY_S: Final = 1.0
_MAX_TRIES: Final = 32
"""Entries of the list that one accept looks at."""


class Admission:
    """The open connections of each address, and those that could leave: the first to go stands last in the list."""

    __slots__ = ("_could_leave", "_listed_s", "by_address")

    def __init__(self) -> None:
        self.by_address: dict[str, int] = {}
        self._could_leave: list[tuple[float, Downstream]] = []
        self._listed_s = -_LIST_EVERY_S

    def admit(self, context: Context, connection: Downstream) -> bool:
        """Take a connection into the worker's set, or tell that it must be closed."""
        address = connection.client.address
        if not address:
            return False  # a client already gone has none (CVE-2024-49769)
        limits = context.limits
        name = address_name(address)
        if self.by_address.get(name, 0) >= limits.max_connections_per_address:
            context.counters.hit("max_connections_per_address")
            if not self.make_room(context, name):
                return False
        if len(context.connections) >= limits.max_connections:
            context.counters.hit("max_connections")
            if not self.make_room(context):
                return False
        self.by_address[name] = self.by_address.get(name, 0) + 1
        connection.address_name = name
        context.connections.add(connection)
        return True

    def forget(self, context: Context, connection: Downstream) -> None:
        """A connection has ended, or will at once. Harmless when told twice."""
        if connection not in context.connections:
            return
        context.connections.discard(connection)
        name = connection.address_name
        left = self.by_address[name] - 1
        if left:
            self.by_address[name] = left
        else:
            del self.by_address[name]
        if self._could_leave and 2 * len(context.connections) < context.limits.max_connections:
            self._could_leave.clear()  # the flood is over; they shall not be kept alive

    def make_room(self, context: Context, name: str = "") -> bool:
        """Close one connection (of the address `name` if it is not empty) that nobody would miss much."""
        if context.now_s - self._listed_s >= _LIST_EVERY_S:
            self._listed_s = context.now_s
            self._could_leave = _list(context)
        could_leave = self._could_leave
        at = len(could_leave)
        for _ in range(min(_MAX_TRIES, at)):
            at -= 1
            since_s, connection = could_leave[at]
            if connection.since_s != since_s or _rank(context, connection) < 0:
                del could_leave[at]  # it went on meanwhile, or has left
            elif not name or connection.address_name == name:
                del could_leave[at]
                self._close(context, connection)
                return True
        return False

    def _close(self, context: Context, connection: Downstream) -> None:
        self.forget(context, connection)
        connection.phase = CLOSED
        connection.buffer = b""
        connection.transport.abort()  # nothing waits for it to be sent


def _list(context: Context) -> list[tuple[float, Downstream]]:
    ranked = [
        (rank, -connection.since_s, number, connection)
        for number, connection in enumerate(context.connections)
        if (rank := _rank(context, connection)) >= 0
    ]
    ranked.sort()
    return [(-since, connection) for _, since, _, connection in ranked]


def _rank(context: Context, connection: Downstream) -> int:
    """Return 1 for who never said what it wants or was refused, 0 for who was served and is idle, -1 for who stays."""
    phase = connection.phase
    if connection not in context.connections or connection.transport.get_write_buffer_size():
        return -1
    is_old = context.now_s - connection.since_s >= SUSPECT_AFTER_S
    if phase == IDLE and not connection.buffer:
        if not is_old:
            return -1  # it has just come, or been served, and may be about to ask
        return 0 if connection.sequence else 1
    return 1 if phase in (HEAD, LINGER) and is_old else -1
