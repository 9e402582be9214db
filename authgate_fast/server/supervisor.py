"""The supervisor of a node: it opens the sockets, keeps a worker in each slot, and answers the ops listener.

It never sees a request and never imports what serves one. A worker that ends is replaced; one that hangs is found
by its silence, killed and replaced. SIGHUP replaces all, one slot after the other: the new worker must be ready
before the old one drains, and if it cannot be, the old one stays. SIGTERM and SIGINT drain all at once, a second
one ends everything at once. SIGUSR1 has log files reopened. Whatever a worker does or sends, the supervisor lives
on. As the first process of a container it also buries orphans.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from authgate_fast import __version__
from authgate_fast.server.channel import Message
from authgate_fast.server.children import (
    LEAVING,
    READY,
    SPARE,
    STARTED,
    STARTING,
    Child,
    adopt_orphans,
    fork_child,
    how_it_ended,
    start_child,
)
from authgate_fast.server.listening import Address
from authgate_fast.server.node_report import NodeReport
from authgate_fast.server.options import ENVIRONMENT, OK, USAGE, RunOptions, say
from authgate_fast.server.slots import Slot, cover

if TYPE_CHECKING:
    from authgate_fast.server.node import Opened

TICK_S = 0.5
ROLL_IDLE_S = 3.0
"""How long an idle client connection stays with a worker that was replaced; nobody waits for it to end."""
KILL_GRACE_S = 1.0
"""What a worker gets beyond the drain timeout to end by itself."""
DUMP_S = 0.3
"""What a hung worker gets to write where it hangs before it is killed."""
SPARE_WAIT_S = 10.0
"""How long there is none after a spare that ended by itself."""
MAX_FIRST_CRASHES = 3
"""A node none of whose workers has ever been ready gives up after so many ends without a reason given."""

_log = logging.getLogger("authgate")


class Supervisor:
    """Runs `workers` processes with the words of `arguments` until a signal ends it."""

    def __init__(self, options: RunOptions, arguments: list[str], opened: Opened) -> None:
        self._options = options
        self._arguments = arguments
        self._opened = opened
        self._slots = [Slot(number, sockets) for number, sockets in enumerate(opened.slots)]
        self._children: dict[int, Child] = {}
        self._notifier = opened.notifier
        self._report = NodeReport(self._children, self.is_ready)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._roll_task: asyncio.Task[None] | None = None
        self._roll_again = False
        self._spare: Child | None = None
        self._spare_after_s = 0.0
        self._can_fork = adopt_orphans()
        self._listens = False
        self._is_drained = False
        self._is_said = False
        self._told_ready = False
        self._was_ready = False
        self._crashes = 0
        self._code = OK
        self._ticked_s = time.monotonic()

    # --- the whole ------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until the end; return the exit code. Raises ListenError for the ops address."""
        loop = self._loop
        await self._report.start(self._options.worker.ops, self._opened.ops)
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGCHLD: self._reap,
            signal.SIGHUP: self.reload,
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._terminate,
            signal.SIGUSR1: self._reopen,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        for slot in self._slots:
            self._fill(slot)
        self._tick()
        await self._ended.wait()
        await self._report.close()
        if self._listens and self._code == OK:
            _log.info("stopped")
        return self._code

    def is_ready(self) -> bool:
        """Tell whether traffic should be sent here: each slot has had a ready worker, and some worker is."""
        return (
            not self._report.draining
            and all(slot.was_ready for slot in self._slots)
            and any(slot.current is not None and slot.current.state == READY for slot in self._slots)
        )

    def _end_if_empty(self) -> None:
        if self._report.draining and not self._children:
            self._ended.set()

    def _give_up(self, code: int, text: str) -> None:
        """No worker can start: say why, once, and end."""
        say(text)
        self._code = code
        self._end_now()

    def _end_now(self) -> None:
        self._report.draining = True
        for slot in self._slots:
            slot.stop_timer()
            slot.close()
        for child in self._children.values():
            child.signal(signal.SIGKILL)
        self._end_if_empty()

    # --- workers ----------------------------------------------------------------------------------------

    def _start(self, slot: Slot) -> Child | None:
        """Have a fork of the spare, or a new process, become a slot's worker."""
        child = self._fork_spare() if self._can_fork else self._take_spare()
        if child is None:
            child = self._new_child()
        if child is not None:
            child.begin(slot.number, len(self._slots), self._arguments)
        return child

    def _take_spare(self) -> Child | None:
        child, self._spare = self._spare, None
        return child

    def _fork_spare(self) -> Child | None:
        spare = self._spare
        if spare is None or not spare.is_loaded:
            return None
        child = fork_child(self._loop, spare, self._message)
        if child is None:
            _log.error("%s does not fork; it is killed", spare)
            self._drop_spare()
        else:
            self._children[child.pid] = child
        return child

    def _new_child(self) -> Child | None:
        try:
            child = start_child(self._loop, self._message)
        except OSError as error:
            _log.error("no worker can be started: %s", error.strerror or error)
            return None
        self._children[child.pid] = child
        return child

    def _keep_spare(self) -> None:
        """Have one process ready to step in, once all is well."""
        if (
            self._spare is None
            and self._options.keeps_spare
            and self._roll_task is None
            and time.monotonic() >= self._spare_after_s
            and all(slot.is_served() for slot in self._slots)
        ):
            self._spare = self._new_child()

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.signal(signal.SIGKILL)
            self._spare = None

    def _fill(self, slot: Slot) -> None:
        """Start the worker of an empty slot."""
        slot.stop_timer()
        slot.current = self._start(slot)
        if slot.current is None:
            slot.timer = self._loop.call_later(TICK_S, self._fill, slot)

    def _message(self, child: Child, message: Message) -> None:
        try:
            self._obey(child, message)
        except Exception:
            _log.exception("%s sent something that cannot be understood; it is killed", child)
            child.signal(signal.SIGKILL)

    def _obey(self, child: Child, message: Message) -> None:
        child.heard_s = time.monotonic()
        kind = message["kind"]
        if kind == "loaded":
            child.is_loaded = True
            return
        slot = next((each for each in self._slots if each.number == child.slot), None)
        if slot is None:
            return  # its slot was given up while it started
        if kind == "started":
            child.state = STARTED
            self._started(slot, child)
        elif kind == "ready" and child.state == STARTED:
            child.state, child.ready_s = READY, child.heard_s
            self._ready(slot, child)
        elif kind in {"report", "ended"}:
            child.report = message
            self._report.answered(child, message)
        elif kind == "failed":
            child.failure = int(message["code"]), str(message["text"])
        elif kind == "alone":
            self._alone(slot, child, str(message["why"]))
        elif kind == "draining":
            self._leaves(slot, child)

    def _started(self, slot: Slot, child: Child) -> None:
        if slot.drains_at_start:
            slot.let_in(child)
            child.send("drain", is_last=True)
            slot.close()
            return
        if not self._listens:
            self._listens = True
            for each in self._slots:
                each.listen()
        if child is slot.current and not any(each.is_served() for each in self._slots):
            slot.let_in(child)  # an answer that says "not ready" is better than none
            self._say_once()

    def _ready(self, slot: Slot, child: Child) -> None:
        slot.was_ready = self._was_ready = True
        slot.said = ""
        if child is slot.successor:
            old, slot.current, slot.successor = slot.current, child, None
            slot.let_in(child)
            if old is not None:
                self._drain(old, is_last=False, idle_s=ROLL_IDLE_S)
        elif child is slot.current:
            slot.let_in(child)
        cover(self._slots)
        slot.settle(True)
        self._say_once()

    def _say_once(self) -> None:
        """Write the line that says that clients may come, and tell systemd when all is ready."""
        if not self._is_said and all(
            slot.current is not None and slot.current.accepts for slot in self._slots
        ):
            self._is_said = True
            at = self._options.worker.ops
            ops = f", ops on {Address(at.host, self._report.port)}" if at is not None else ""
            workers = "1 worker" if len(self._slots) == 1 else f"{len(self._slots)} workers"
            _log.info("authgate %s listens on %s%s, %s", __version__, self._opened.address, ops, workers)
        if self._roll_task is None and not self._told_ready and self.is_ready():
            self._told_ready = True
            self._notifier.ready(self._report.line())

    def _alone(self, slot: Slot, child: Child, why: str) -> None:
        """The documents can be served by one worker only."""
        if self._was_ready or self._options.is_count_asked:
            advice = "run with --workers 1, or keep the documents in Redis (--redis URL)"
            child.failure = USAGE, f"authgate: {why}: {advice}"
            child.signal(signal.SIGKILL)
            return
        if slot.number != 0:
            return  # the first one will say so too, and it is the one that stays
        _log.warning("one worker only: %s; with --redis URL there can be more", why)
        for other in self._slots:
            if other is not slot:
                other.close()
                if other.current is not None:
                    other.current.state = LEAVING
                    other.current.signal(signal.SIGKILL)
        self._slots[:] = [slot]
        self._options.is_count_asked = True  # from now on it is one
        child.send("go")

    def _leaves(self, slot: Slot, child: Child) -> None:
        """A worker drains because somebody sent it SIGTERM: its place is for another."""
        child.state = LEAVING
        child.kill_at_s = time.monotonic() + self._options.worker.drain_timeout_s + KILL_GRACE_S
        if child is slot.current and not self._report.draining:
            _log.info("%s was told to end; starting another", child)
            slot.current = None
            cover(self._slots)
            self._fill(slot)

    def _drain(self, child: Child, **how: bool | float) -> None:
        child.state = LEAVING
        child.kill_at_s = time.monotonic() + self._options.worker.drain_timeout_s + KILL_GRACE_S
        child.channel.send({"kind": "drain", **how})

    # --- their ends -----------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Wait for all that ended: workers, and in a container whatever was left to the first process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.get(pid)
            if child is not None:
                self._child_ended(child, os.waitstatus_to_exitcode(status))

    def _child_ended(self, child: Child, code: int) -> None:
        child.process.returncode = code
        child.channel.read_rest()  # its last words
        child.channel.close()
        del self._children[child.pid]
        self._report.ended(child)
        slot = next((each for each in self._slots if each.number == child.slot), None)
        if slot is not None and not self._report.draining:
            if child is slot.successor:
                slot.successor = None
                slot.said = child.failure[1] if child.failure else f"{child} {how_it_ended(code)}"
                slot.settle(False)
                if slot.current is None:
                    self._fill(slot)
            elif child is slot.current:
                slot.current = None
                self._lost(slot, child, code)
            cover(self._slots)
        if child is self._spare:
            self._spare = None
            self._spare_after_s = time.monotonic() + SPARE_WAIT_S
        self._end_if_empty()

    def _lost(self, slot: Slot, child: Child, code: int) -> None:
        """A slot is without its worker, and nobody wanted that."""
        if not self._was_ready:
            self._crashes += 1
            if child.failure is not None:
                self._give_up(*child.failure)
                return
            if self._crashes >= max(MAX_FIRST_CRASHES, len(self._slots)):
                self._give_up(ENVIRONMENT, f"authgate: no worker can start: {child} {how_it_ended(code)}")
                return
        self._report.restarts += 1
        wait_s = slot.wait_s(child)
        if child.failure is not None and child.failure[1] != slot.said:
            slot.said = child.failure[1]
            _log.error("%s cannot start:\n%s", child, slot.said)
        when = "in its place already" if slot.successor else f"in {wait_s:.1f} s" if wait_s else "now"
        _log.error("%s %s; another one starts %s", child, how_it_ended(code), when)
        if slot.successor is not None:
            return
        slot.settle(False)
        if wait_s:
            slot.timer = self._loop.call_later(wait_s, self._fill, slot)
        else:
            self._fill(slot)

    def _tick(self) -> None:
        """Look after everything, twice a second."""
        self._loop.call_later(TICK_S, self._tick)
        now_s = time.monotonic()
        limits = self._options.worker.limits
        if now_s - self._ticked_s > 4 * TICK_S:
            for child in self._children.values():
                child.heard_s = now_s  # we were stopped ourselves, and so were they, perhaps
        self._ticked_s = now_s
        for child in list(self._children.values()):
            if child.kill_at_s is not None and now_s > child.kill_at_s:
                _log.error("%s does not end; it is killed", child)
                child.signal(signal.SIGKILL)
            elif child.state == SPARE:
                pass  # it waits, and says nothing
            elif child.state == STARTING:
                if now_s - child.started_s > limits.worker_start_timeout_s:
                    _log.error(
                        "%s did not start within %g s; it is killed", child, limits.worker_start_timeout_s
                    )
                    self._kill_hung(child)
            elif now_s - child.heard_s > limits.worker_hang_timeout_s and not child.is_hung:
                _log.error(
                    "%s hangs: no sign of life for %g s; it is killed, after it was asked where it is",
                    child, now_s - child.heard_s,
                )  # fmt: skip
                self._report.hangs += 1
                self._kill_hung(child)
        if not self._is_drained:
            cover(self._slots)
        if not self._report.draining:
            self._keep_spare()
            self._notifier.status(self._report.line())
        if self._notifier.watchdog_s is not None:
            self._notifier.alive()

    def _kill_hung(self, child: Child) -> None:
        child.is_hung = True
        child.signal(signal.SIGUSR2)
        self._loop.call_later(DUMP_S, child.signal, signal.SIGKILL)

    # --- reload ---------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: replace all workers, one after the other."""
        if self._report.draining or not self._was_ready:
            return
        if self._roll_task is not None:
            self._roll_again = True
            return
        self._roll_task = self._loop.create_task(self._roll(), name="reload")
        self._roll_task.add_done_callback(self._rolled)

    def _rolled(self, task: asyncio.Task[None]) -> None:
        self._roll_task = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the reload failed; this is a bug", exc_info=task.exception())
        if self._roll_again and not self._report.draining:
            self._roll_again = False
            self.reload()

    async def _roll(self) -> None:
        self._drop_spare()  # it has loaded the old code
        self._notifier.reloading()
        begun_s = time.monotonic()
        _log.info("reload: replacing the workers one at a time")
        done = 0
        for slot in self._slots:
            if not await self._replace(slot):
                why = slot.said or "it was not ready in time"
                _log.error("reload: worker %d cannot be replaced; the old one stays:\n%s", slot.number, why)
                break
            done += 1
        took_s = time.monotonic() - begun_s
        is_whole = done == len(self._slots)
        self._report.reloads["done" if is_whole else "failed"] += 1
        _log.log(
            logging.INFO if is_whole else logging.ERROR,
            "reload: %d of %d workers replaced in %.1f s", done, len(self._slots), took_s,
        )  # fmt: skip
        self._notifier.ready(self._report.line())

    async def _replace(self, slot: Slot) -> bool:
        """Put a new worker into a slot; False: it cannot get ready, and what was there stays."""
        slot.said = ""
        slot.outcome = self._loop.create_future()
        if slot.current is None:
            slot.early_ends = 0
            self._fill(slot)
        elif slot.current.state in {STARTING, STARTED}:
            pass  # it is new itself
        else:
            slot.successor = self._start(slot)
            if slot.successor is None:
                return False
        try:
            async with asyncio.timeout(self._options.worker.limits.worker_start_timeout_s):
                return await slot.outcome
        except TimeoutError:
            return False
        finally:
            slot.outcome = None
            if slot.successor is not None:  # it has had its time, or the node ends
                slot.successor.signal(signal.SIGKILL)
                slot.successor = None

    def _reopen(self) -> None:
        for child in self._children.values():
            child.send("reopen")

    # --- the end ----------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        """SIGTERM, SIGINT: drain; the second one ends at once."""
        if self._report.draining:
            _log.warning("told again to end: what is in flight is cut")
            self._end_now()
            return
        self._report.draining = True
        self._notifier.stopping()
        if self._roll_task is not None:
            self._roll_task.cancel()
        for slot in self._slots:
            slot.stop_timer()
        delay_s = self._options.drain_delay_s
        _log.info("draining: finishing what is in flight" + (f", in {delay_s:g} s" if delay_s else ""))
        if delay_s:
            self._loop.call_later(delay_s, self._drain_all)
        else:
            self._drain_all()

    def _drain_all(self) -> None:
        self._is_drained = True
        is_last = not self._opened.is_passed  # systemd keeps its sockets, with what waits in them
        cover(self._slots, at_once=True)
        for slot in self._slots:
            child = slot.current
            if child is not None and not child.accepts and slot.helper is None and slot.was_ready and is_last:
                slot.drains_at_start = True  # nobody else serves what waits in its queue
                child.kill_at_s = time.monotonic() + self._options.worker.drain_timeout_s + KILL_GRACE_S
            else:
                slot.close()
        starting = {slot.current for slot in self._slots if slot.drains_at_start}
        for child in self._children.values():
            if child in starting:
                if child.state != STARTING:
                    self._started(self._slots[child.slot], child)
            elif child.accepts and child.state != LEAVING:
                self._drain(child, is_last=is_last)
            elif not child.accepts:
                child.signal(signal.SIGKILL)
        self._end_if_empty()
