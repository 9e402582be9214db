"""The coarse clock of a worker: one timer for every timeout there is.

Each tick (0.25 s) sets the clock that connections read, and once a second asks every connection whether it is
overdue. A timeout is therefore kept to about a second, and costs a request nothing.
"""

from __future__ import annotations

import asyncio
import select
import time
from email.utils import formatdate
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.proxy.memory import keep_budget
from authgate_fast.proxy.pace import reader_is_too_slow
from authgate_fast.proxy.phases import BUSY, CLOSED, HEAD, IDLE, LINGER, TUNNEL

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.downstream import Downstream

TICK_S = 0.25
TICKS_PER_SWEEP: Final = 4
CLIENT_GONE_AFTER_S = 1.0
"""How long a client that half-closed may still wait for its answer before it counts as gone."""


class Ticker:
    """Drives the clock of one `Context` between `start` and `stop`.

    ``late_s`` sums by how much its ``ticks`` came too late: the loop was busy with something else.
    """

    __slots__ = ("_context", "_count", "_due_s", "_second", "_timer", "late_s", "ticks")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._second = 0
        self._due_s = 0.0
        self.late_s = 0.0
        self.ticks = 0

    def start(self) -> None:
        self._due_s = self._context.loop.time()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        context = self._context
        self._timer = context.loop.call_later(TICK_S, self._tick)
        context.now_s = now_s = context.loop.time()
        self.ticks += 1
        self.late_s += max(now_s - self._due_s, 0.0)
        self._due_s = now_s + TICK_S
        context.wall_s = time.time()
        context.ticked_s = time.perf_counter()
        second = int(context.wall_s)  # a float, not protocol text
        if second != self._second:
            self._second = second
            context.date_line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        self._count += 1
        if self._count % TICKS_PER_SWEEP == 0:
            for connection in list(context.connections):
                try:
                    check_client(connection)
                except Exception as error:  # a bug of ours must not keep the others from their timeouts
                    _report(context, error)
                    connection.abort()
            for tunnel in list(context.tunnels):
                try:
                    tunnel.check_time(context.now_s)
                except Exception as bug:  # as above
                    _report(context, bug)
                    tunnel.abort()
            context.groups.check_time()
            context.pools.check_time()
            keep_budget(context)


def _report(context: Context, error: Exception) -> None:
    context.report(Reason.INTERNAL_ERROR, None, b"-", f"{type(error).__name__}: {error}")


def check_client(connection: Downstream) -> None:
    """Ask one client's connection whether it is overdue; about once a second."""
    context = connection.context
    now_s = context.now_s
    age_s = now_s - connection.since_s
    phase = connection.phase
    exchange = connection.exchange
    if connection.write_paused and _is_stuck(connection, now_s):
        context.counters.hit("send_timeout_s")
        connection.give_up()
    elif phase != TUNNEL and reader_is_too_slow(connection, now_s):
        context.counters.hit("min_send_rate_bytes_s")
        connection.give_up()
    elif phase == IDLE:
        # A fresh connection must begin its first head as quickly as it must end it.
        limits = context.limits
        overdue = age_s > (limits.idle_timeout_s if connection.sequence else limits.head_timeout_s)
        if overdue and connection.close_idle() and not connection.sequence:
            context.counters.hit("head_timeout_s")
    elif phase == HEAD:
        if age_s > context.limits.head_timeout_s:
            context.counters.hit("head_timeout_s")
            connection.head_overdue()
    elif phase == BUSY and exchange is not None:
        if (connection.eof and _seems_gone(connection, now_s)) or (
            connection.read_paused and _is_reset(connection)
        ):
            connection.give_up()
        else:
            exchange.check_time(now_s)
    elif phase == LINGER and age_s > context.limits.linger_timeout_s:
        # Who still reads the answer may have it; who has it all, or stopped reading, has had the time.
        if not connection.transport.get_write_buffer_size() or _is_stuck(connection, now_s):
            context.counters.hit("linger_timeout_s")
            connection.phase = CLOSED
            connection.transport.abort()
    elif phase == CLOSED and age_s > context.limits.send_timeout_s:
        context.counters.hit("send_timeout_s")
        connection.transport.abort()  # it never took the last bytes
    elif phase == CLOSED and age_s > context.limits.linger_timeout_s and _has_everything(connection):
        connection.transport.abort()  # it has them, and never answers the end of TLS


def _seems_gone(connection: Downstream, now_s: float) -> bool:
    """Judge a half-closed client: while bytes flow to it, writing tells whether it is there."""
    upstream = connection.exchange.upstream if connection.exchange is not None else None
    active_s = connection.since_s if upstream is None else max(connection.since_s, upstream.since_s)
    return not connection.write_paused and now_s - active_s > CLIENT_GONE_AFTER_S


def _is_reset(connection: Downstream) -> bool:
    """Ask the kernel for a reset: nobody tells us of one while reading is paused."""
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


def _has_everything(connection: Downstream) -> bool:
    """Tell whether all that was written has arrived at the client; of what the kernel holds only the kernel knows."""
    transport = connection.transport
    if transport.get_write_buffer_size():
        return False
    descriptor = transport.get_extra_info("socket").fileno()
    return descriptor < 0 or not any(ioctl(descriptor, TIOCOUTQ, bytes(4)))


def _is_stuck(connection: Downstream, now_s: float) -> bool:
    """Tell whether the client has taken nothing of what waits for it for too long."""
    unsent = connection.transport.get_write_buffer_size()
    if unsent != connection.unsent:
        connection.unsent = unsent
        connection.unsent_since_s = now_s
    return now_s - connection.unsent_since_s > connection.context.limits.send_timeout_s
