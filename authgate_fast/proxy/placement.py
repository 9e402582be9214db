"""A request of a balanced service: its place there, its target of the moment, and where it goes when that fails.

The pure room ``balance`` decides; here it meets the exchange. One object per request of a service that has several
targets or a limit of its own; the others have none.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final

from authgate_fast.balance.group import CONNECT_FAILURE
from authgate_fast.errors import TABLE, Blame, Reason
from authgate_fast.proxy.retry import CONNECTING

if TYPE_CHECKING:
    from authgate_fast.balance.group import Group
    from authgate_fast.balance.member import Member
    from authgate_fast.proxy.exchange import Exchange


MAX_SETBACKS: Final = 16
"""Connects that may fail for one request; past that, trying on is no service to anybody."""
_TIMEOUT_SETBACK: Final = 8
"""One that was not answered has cost ``connect_timeout_s``: two of them are enough."""


class Placement:
    """``tried`` are the members that this request has failed at. ``is_bad``: what came back counts as a failure."""

    __slots__ = ("_has_place", "_is_bad", "_is_trial", "_setbacks", "_tried", "exchange", "group", "member")

    def __init__(self, exchange: Exchange, group: Group) -> None:
        self.exchange = exchange
        self.group = group
        self.member: Member | None = None
        self._tried: list[Member] | None = None
        self._has_place = False
        self._is_trial = False
        self._is_bad = False
        self._setbacks = 0

    def start(self) -> None:
        """Go to a target, or into the queue: what the client still sends is not read meanwhile."""
        group = self.group
        exchange = self.exchange
        if group.has_place():
            self.take_place()
        elif not group.wait(self, exchange.context.loop.time()):
            exchange.refuse(Reason.OVERLOADED, "max_connections in use, and max_queue waiting for one")
        elif not exchange.request_done:
            exchange.downstream.pause()

    def take_place(self) -> None:
        """It is this request's turn."""
        group = self.group
        self._has_place = True
        group.active += 1
        group.requests_total += 1
        if not self._choose():
            self.exchange.refuse(Reason.OVERLOADED, "the service has no target with a weight above 0")

    def overdue(self) -> None:
        """It has been taken out of the queue without a place."""
        self.exchange.refuse(Reason.OVERLOADED, "queue_timeout_s passed without a connection")

    def _choose(self) -> bool:
        exchange = self.exchange
        group = self.group
        parts = exchange.forward.parts
        key = b"" if parts is None else parts.hash_key
        member = group.choose(key, self._tried, exchange.context.now_s)
        if member is None:
            return False
        self.member = member
        self._is_trial = group.chose_trial
        self._is_bad = False
        exchange.go_to(member.target)
        return True

    # --- what became of it ----------------------------------------------------------------------------

    def answered(self, status: int) -> None:
        """A response has begun: that ends a trial well, unless it is one of those that count as a failure."""
        if status in self.group.failure_statuses:
            self._is_bad = True
            self._failed(f"it answered {status}", 1)
        elif self._is_trial:
            self._succeeded()

    def complete(self) -> None:
        """The response has come to its end."""
        member = self.member
        if member is not None and not self._is_bad and (member.failures or member.state):
            self._succeeded()
        self.end()

    def gone_wrong(self, reason: Reason, what: str) -> None:
        """The exchange fails; that is the target's failure unless the client or the gateway is to blame."""
        if TABLE[reason].blame is Blame.UPSTREAM:
            self._failed(what, 1)

    def other_targets(self) -> int:
        """Return how many targets this request has not failed at and may still go to."""
        if self._setbacks >= MAX_SETBACKS:
            return 0
        tried = self._tried
        own = 1 if self.member is not None and (tried is None or self.member not in tried) else 0
        return self.group.others(tried) - own

    def connect_failed(self, reason: Reason, what: str) -> None:
        """No connection to the target came about."""
        self._setbacks += _TIMEOUT_SETBACK if reason is Reason.UPSTREAM_TIMEOUT else 1
        if TABLE[reason].blame is Blame.UPSTREAM:
            self._failed(what, CONNECT_FAILURE)

    def move(self, phase: int) -> bool:
        """Take the request to another target; return False if there is none, or if there have been too many such."""
        group = self.group
        member = self.member
        if member is None or (phase != CONNECTING and not group.budget.take(group.requests_total)):
            return False
        tried = self._tried
        if tried is None:
            tried = self._tried = []
        tried.append(member)
        self._leave()
        group.retries_total += 1
        return self._choose()

    def end(self) -> None:
        """The exchange is over: somebody else may have the place."""
        self._leave()
        group = self.group
        if self._has_place:
            self._has_place = False
            group.active -= 1
            if group.waiting:
                self.exchange.context.groups.hand_over(group)
        elif group.waiting:
            group.leave_queue(self)

    def _leave(self) -> None:
        member = self.member
        if member is not None:
            self.member = None
            self.group.left(member, is_trial=self._is_trial)

    def _succeeded(self) -> None:
        context = self.exchange.context
        member = self.member
        if member is not None and self.group.succeeded(member, context.now_s):
            context.groups.tell(self.group, member, "is back in use: it answered", False)

    def _failed(self, what: str, count: int) -> None:
        context = self.exchange.context
        member = self.member
        if member is not None and self.group.failed(member, context.now_s, random(), count):
            text = f"gets no requests for {member.until_s - context.now_s:.0f} s, failures: {member.failures}: {what}"
            context.groups.tell(self.group, member, text, True)
