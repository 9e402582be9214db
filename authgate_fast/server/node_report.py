"""What the ops listener of a node shows: the sums over all workers, those that ended included, and each worker's own.

Each request asks every worker; one that does not answer within `ASK_S` is shown as it was last heard of. Totals
never fall: what a worker had counted when it was last heard is kept when it ends. What it counted after that is
lost with it when it is killed, and with nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from authgate_fast import __version__
from authgate_fast.observe.exposition import Family, counter, gauge, labelled
from authgate_fast.server.channel import Message
from authgate_fast.server.children import LEAVING, SPARE, STARTING, Child
from authgate_fast.server.ops import OpsServer
from authgate_fast.server.sums import Status, Sums, add, sum_status, totals_of

if TYPE_CHECKING:
    from authgate_fast.server.listening import Address

ASK_S = 1.0


class NodeReport:
    """Gathers the reports of `children`, which the supervisor keeps up to date."""

    def __init__(self, children: dict[int, Child], is_ready: Callable[[], bool]) -> None:
        self._children = children
        self._is_ready = is_ready
        self._ops = OpsServer(self.status, is_ready, self.metrics)
        self._started_s = time.time()
        self._ended_status: Status = {}
        self._ended_metrics = Sums()
        self._ask = 0
        self._asked: dict[int, tuple[set[int], asyncio.Event]] = {}
        self.draining = False
        self.restarts = 0
        self.hangs = 0
        self.reloads = {"done": 0, "failed": 0}

    async def start(self, address: Address | None, passed: list[socket.socket]) -> None:
        """Answer at `address`, or at sockets that were passed. Raises ListenError."""
        await self._ops.listen(address, passed)

    @property
    def port(self) -> int:
        """The port of the ops listener, once started."""
        return self._ops.port

    async def close(self) -> None:
        """Stop answering."""
        await self._ops.close()

    def line(self) -> str:
        """Return the line that `systemctl status` shows."""
        workers = [child for child in self._children.values() if child.state != SPARE]
        serving = sum(child.serves() for child in workers)
        return f"{serving} of {len(workers)} workers serve" + ("" if self._is_ready() else "; not ready")

    # --- reports ----------------------------------------------------------------------------------------

    def answered(self, child: Child, message: Message) -> None:
        """A worker has sent its numbers."""
        self._tick_off(child, message.get("ask"))

    def ended(self, child: Child) -> None:
        """Keep what a worker had counted."""
        for number in list(self._asked):
            self._tick_off(child, number)
        status = child.report.get("status", {})
        self._ended_status = dict(sum_totals(self._ended_status, totals_of(status)))
        self._ended_metrics.add(child.report.get("metrics", []), only_growing=True)

    def _tick_off(self, child: Child, number: object) -> None:
        pending, done = self._asked.get(number, (set(), None)) if isinstance(number, int) else (set(), None)
        pending.discard(child.pid)
        if done is not None and not pending:
            done.set()

    async def _gather(self) -> list[Child]:
        """Ask all workers for their numbers; return the workers, whether they answered or not."""
        self._ask += 1
        number = self._ask
        asked = [child for child in self._children.values() if child.state not in {SPARE, STARTING}]
        done = asyncio.Event()
        if asked:
            self._asked[number] = {child.pid for child in asked}, done
            for child in asked:
                child.send("ask", ask=number)
            try:
                async with asyncio.timeout(ASK_S):
                    await done.wait()
            except TimeoutError:
                pass
            finally:
                del self._asked[number]
        workers = [child for child in self._children.values() if child.state != SPARE]
        # What is shown once is that of a worker that stays.
        return sorted(workers, key=lambda child: (child.state == LEAVING, child.slot, child.started_s))

    # --- what is shown ------------------------------------------------------------------------------------

    async def status(self) -> Status:
        """What /status shows."""
        children = await self._gather()
        now_s = time.monotonic()
        statuses = [child.report["status"] for child in children if child.report]
        own: Status = {
            "version": __version__,
            "ready": self._is_ready(),
            "draining": self.draining,
            "uptime_s": round(time.time() - self._started_s, 1),
            "worker_restarts_total": self.restarts,
            "worker_hangs_total": self.hangs,
            "reloads_total": dict(self.reloads),
            "spare_ready": any(child.state == SPARE and child.is_loaded for child in self._children.values()),
            "workers": [
                {
                    "slot": child.slot,
                    "pid": child.pid,
                    "state": "late" if child.accepts and now_s - child.heard_s > 2.5 else child.state,
                    "uptime_s": round(now_s - child.started_s, 1),
                    "heard_s_ago": round(now_s - child.heard_s, 1),
                    **_own_of(child.report.get("status", {})),
                }
                for child in children
            ],
        }
        return {**own, **sum_status(statuses, self._ended_status), **own}

    async def metrics(self) -> list[Family]:
        """What /metrics shows."""
        children = await self._gather()
        sums = Sums()
        sums.add(self._ended_metrics.plain())
        for child in children:
            sums.add(child.report.get("metrics", []))
        own = self._own_metrics(children)
        names = {family.name for family in own}
        return own + [family for family in sums.families() if family.name not in names]

    def _own_metrics(self, children: list[Child]) -> list[Family]:
        serving = sum(child.serves() for child in children)
        return [
            gauge(
                "authgate_ready", "1 if traffic should be sent to this node, else 0.", int(self._is_ready())
            ),
            gauge("authgate_workers_serving", "Workers that accept and have a configuration.", serving),
            counter(
                "authgate_worker_restarts_total", "Workers that ended without being told to.", self.restarts
            ),
            counter("authgate_worker_hangs_total", "Workers that were killed because they hung.", self.hangs),
            labelled(
                "authgate_reloads_total",
                "counter",
                "Reloads (SIGHUP), by how they ended.",
                "result",
                self.reloads,
            ),
        ]


def sum_totals(one: Status, other: Status) -> Status:
    """Add totals of one worker to those of others."""
    summed = add(one, other)
    assert isinstance(summed, dict)
    return summed


def _own_of(status: Status) -> Status:
    """Return what of a worker's status differs between workers."""
    names = ("ready", "snapshot_revision", "revision", "tasks", "connections", "requests_total", "source")
    return {name: status[name] for name in names if name in status}
