"""The coarse clock of a worker: one timer for every timeout there is.

Each tick (0.25 s) sets the clock that connections read, and once a second asks every connection whether it is
overdue. A timeout is therefore kept to about a second, and costs a request nothing.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context

TICK_S = 0.25
TICKS_PER_SWEEP: Final = 4


class Ticker:
    """Drives the clock of one `Context` between `start` and `stop`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._second = 0

    def start(self) -> None:
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        context = self._context
        self._timer = context.loop.call_later(TICK_S, self._tick)
        context.now_s = context.loop.time()
        context.wall_s = time.time()
        second = int(context.wall_s)  # a float, not protocol text
        if second != self._second:
            self._second = second
            context.date_line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        self._count += 1
        if self._count % TICKS_PER_SWEEP == 0:
            for connection in list(context.connections):
                connection.check_time()
            context.pools.check_time()
