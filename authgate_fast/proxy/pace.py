"""Who is too slow although something moves: minimum rates of request bodies and of readers.

Judged once a second for connections that are in the middle of a body or leave something unread; a request that comes
and goes between two looks costs nothing. Rates are averages, for TCP moves bytes in lumps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.proxy.downstream import Downstream

_LONGEST_STEP_S: Final = 2.0
"""What counts at most between two looks, should the clock have been held up or the body have waited for a retry."""


class Pace:
    """What one body, or one reader, has had in time. ``sequence`` is the request; ``begun_bytes`` had moved before."""

    __slots__ = ("begun_bytes", "checked_s", "seconds", "sequence")

    def __init__(self, sequence: int, begun_bytes: int, now_s: float) -> None:
        self.sequence = sequence
        self.begun_bytes = begun_bytes
        self.checked_s = now_s
        self.seconds = 0.0

    def passed(self, now_s: float, *, counts: bool) -> float:
        """Add the time since the last look, unless it does not count; return all that counted."""
        if counts:
            self.seconds += min(now_s - self.checked_s, _LONGEST_STEP_S)
        self.checked_s = now_s
        return self.seconds


def body_is_too_slow(connection: Downstream, received: int, now_s: float) -> bool:
    """Tell whether a body, of which `received` bytes have come, is below ``min_body_rate_bytes_s`` since its start.

    Time in which the backend did not want more does not count.
    """
    pace = connection.body_pace
    if pace is None or pace.sequence != connection.sequence:
        connection.body_pace = Pace(connection.sequence, 0, now_s)
        return False
    limits = connection.context.limits
    seconds = pace.passed(now_s, counts=not connection.read_paused)
    return seconds > limits.rate_grace_s and received < limits.min_body_rate_bytes_s * seconds


def reader_is_too_slow(connection: Downstream, now_s: float) -> bool:
    """Tell whether a client takes what waits for it at less than ``min_send_rate_bytes_s``.

    The average is taken over ``send_timeout_s`` at a time, so that a pause which that limit permits does no harm.
    """
    unsent = connection.transport.get_write_buffer_size()
    if not unsent:
        connection.send_pace = None
        return False
    taken = connection.written - unsent
    pace = connection.send_pace
    if pace is None:
        connection.send_pace = Pace(0, taken, now_s)
        return False
    limits = connection.context.limits
    seconds = pace.passed(now_s, counts=True)
    if seconds <= limits.send_timeout_s:
        return False
    connection.send_pace = Pace(0, taken, now_s)
    return taken - pace.begun_bytes < limits.min_send_rate_bytes_s * seconds
