"""The places of a node that workers fill: who has one, who helps out, and how long a replacement waits.

A slot owns its listening sockets for the node's whole life. When it is long without a worker that serves, a
neighbour accepts from its sockets too. Not at once: what a neighbour takes stays with it, and a new worker beside
one that holds every kept-alive connection is no help; a spare is there sooner than a client notices.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from dataclasses import dataclass, field

from authgate_fast.server.children import Child
from authgate_fast.server.listening import BACKLOG

YOUNG_S = 1.0
"""A worker that ends so soon after it was ready, or before, makes its replacement wait."""
HELP_AFTER_S = 1.5
"""How long connections wait for their own slot's next worker before a neighbour takes them."""
FIRST_WAIT_S = 0.25
MAX_WAIT_S = 30.0


@dataclass(slots=True)
class Slot:
    """One place. ``current`` is its worker, ``successor`` the one that a reload has started beside it."""

    number: int
    sockets: list[socket.socket]
    current: Child | None = None
    successor: Child | None = None
    helper: Child | None = None
    early_ends: int = 0
    timer: asyncio.TimerHandle | None = None
    was_ready: bool = False
    outcome: asyncio.Future[bool] | None = None
    drains_at_start: bool = False
    unserved_s: float | None = None
    said: str = field(default="")

    def listen(self) -> None:
        """Let clients in; harmless when they are."""
        for one in self.sockets:
            one.listen(BACKLOG)

    def fds(self) -> list[int]:
        return [one.fileno() for one in self.sockets]

    def close(self) -> None:
        """Let go of the sockets."""
        for one in self.sockets:
            one.close()
        self.sockets = []

    def let_in(self, child: Child) -> None:
        """Have the slot's own worker accept."""
        if not child.accepts:
            child.accepts = True
            child.send("accept", self.fds(), slot=self.number)

    def is_served(self) -> bool:
        return self.current is not None and self.current.serves()

    def settle(self, outcome: bool) -> None:
        """Tell the reload that waits for it how its worker's start ended."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_result(outcome)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def wait_s(self, ended: Child) -> float:
        """Return how long the next worker waits: not at all, or longer after each early end."""
        lived_s = 0.0 if ended.ready_s is None else time.monotonic() - ended.ready_s
        self.early_ends = self.early_ends + 1 if lived_s < YOUNG_S else 0
        if not self.early_ends:
            return 0.0
        longest_s: float = min(FIRST_WAIT_S * 2 ** min(self.early_ends - 1, 16), MAX_WAIT_S)
        return longest_s * random.uniform(0.5, 1.0)


def cover(slots: list[Slot], *, at_once: bool = False) -> None:
    """Have each slot that is without a serving worker for a while, or now, helped by a neighbour, and only those."""
    now_s = time.monotonic()
    for slot in slots:
        if slot.is_served():
            slot.unserved_s = None
        elif slot.unserved_s is None:
            slot.unserved_s = now_s
        helper = slot.helper
        if helper is not None and (slot.is_served() or not helper.serves()):
            slot.helper = None
            helper.send("leave", slot=slot.number)
        if slot.unserved_s is None or slot.helper is not None or not slot.sockets:
            continue
        if now_s - slot.unserved_s < HELP_AFTER_S and not at_once:
            continue
        able = [other.current for other in slots if other is not slot and other.is_served()]
        if able:
            busy = [other.helper for other in slots]
            slot.helper = helper = min((one for one in able if one is not None), key=busy.count)
            helper.send("accept", slot.fds(), slot=slot.number)
