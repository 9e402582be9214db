"""A service's targets together: who gets the next request, who is out, and who must wait. Pure; time is passed in.

It outlives snapshots: `configure` brings it up to date and keeps what is known of each target that stays. When no
target is left that is up, all are used: refusing everything would be worse than trying.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from authgate_fast.balance.budget import RetryBudget
from authgate_fast.balance.choice import SLOTS, highest_ranked, least_connections, round_robin, slot_of
from authgate_fast.balance.member import EJECTED, TRIAL, UP, Member

if TYPE_CHECKING:
    from authgate_fast.snapshot import Balancing, Service

LEAST_CONNECTIONS: Final = "least_connections"
ROUND_ROBIN: Final = "round_robin"
HASH: Final = "hash"
CONNECT_FAILURE: Final = 2
"""A connection that does not come about counts double: there is little to be mistaken about."""
_NOBODY: Final = -1


class Group:
    """``open`` are the members with a weight, ``active`` the requests that have a place now.

    ``is_settled`` says that each of them is up with its full share: then a choice asks for no state and no time.
    ``chose_trial``: the last choice was a member whose trial the request is. ``waiting`` holds who waits for a place,
    first come, first served, and since when.
    """

    __slots__ = (
        "_balancing", "_owners", "active", "budget", "chose_trial",
        "ejections_total", "failure_statuses", "is_settled", "limit", "members", "method", "name", "open",
        "queue_full_total", "queue_timeouts_total", "queued_total", "requests_total", "retries_total", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, service: Service, now_s: float) -> None:
        self.name = name
        self.members: list[Member] = []
        self.open: list[Member] = []
        self.active = 0
        self.requests_total = 0
        self.retries_total = 0
        self.ejections_total = 0
        self.queued_total = 0
        self.queue_full_total = 0
        self.queue_timeouts_total = 0
        self.budget = RetryBudget()
        self.waiting: OrderedDict[object, float] = OrderedDict()
        self.is_settled = True
        self.chose_trial = False
        self._owners: list[int] = []
        self._balancing: Balancing = service.balancing
        self.method = ""
        self.limit = 0
        self.failure_statuses: frozenset[int] = frozenset()
        self.configure(service, now_s)

    def configure(self, service: Service, now_s: float) -> None:
        """Take over a service's targets and settings. One that is new among others starts slowly."""
        balancing = service.balancing
        known = {member.key: member for member in self.members}
        members = []
        for target in service.targets:
            member = known.pop(target.url, None)
            if member is None:
                member = Member(target.url, target, target.weight, now_s)
                if self.members:
                    member.begin_slowly(now_s, balancing.slow_start_s)
            elif member.weight == 0 and target.weight > 0:
                member.weight = target.weight
                member.begin_slowly(now_s, balancing.slow_start_s)
            member.target = target
            member.weight = target.weight
            if service.health_check is None:
                member.is_checked_down = False
                member.check_run = 0
                member.last_check = ""
            members.append(member)
        before = [(member.key, member.weight) for member in self.open]
        self.members = members
        self.open = [member for member in members if member.weight > 0]
        if before != [(member.key, member.weight) for member in self.open]:
            self._owners = []
        self._balancing = balancing
        self.method = balancing.method
        self.limit = 0 if balancing.max_connections is None else balancing.max_connections
        self.failure_statuses = balancing.failure_statuses
        self._settle(now_s)

    # --- choosing -----------------------------------------------------------------------------------

    def choose(self, key: bytes, tried: list[Member] | None, now_s: float) -> Member | None:
        """Return the member for a request and count it there; None if every one has been `tried`.

        `key` is what the service hashes on; a request without it (b"") goes to who has the least to do.
        """
        members = self.open
        if not self.is_settled or tried is not None:
            if not self.is_settled:
                self._settle(now_s)
            members = self._candidates(key, tried, now_s)
        if not members:
            return None
        if len(members) == 1:
            member = members[0]
        elif self.method == HASH and key:
            member = self._owner(slot_of(key), members)
        elif self.method == ROUND_ROBIN:
            member = round_robin(members)
        else:
            member = least_connections(members)
        self.chose_trial = member.state == EJECTED and member.is_due(now_s)
        if self.chose_trial:
            member.state = TRIAL
        member.active += 1
        member.requests_total += 1
        return member

    def others(self, tried: list[Member] | None) -> int:
        """Return how many members a request that has `tried` some could still go to."""
        return len(self.open) - (0 if tried is None else len([m for m in self.open if m in tried]))

    def _candidates(self, key: bytes, tried: list[Member] | None, now_s: float) -> list[Member]:
        """Return who may be asked: those that are up, or the one that is due for its trial, or all who are left."""
        left = self.open if tried is None else [member for member in self.open if member not in tried]
        hashes = self.method == HASH and bool(key)
        up = []
        due: Member | None = None
        for member in left:
            if member.is_up():
                up.append(member)
            elif member.is_due(now_s):
                if hashes:
                    up.append(member)  # tried by the keys that are its own: no others need wander for it
                elif due is None:
                    due = member
        if due is not None and (tried is None or not up):
            return [due]
        return up or left

    def _owner(self, slot: int, members: list[Member]) -> Member:
        """Return the first in a slot's order among `members`; the first among all is remembered."""
        owners = self._owners
        if not owners:
            self._owners = owners = [_NOBODY] * SLOTS
        at = owners[slot]
        if at == _NOBODY:
            at = owners[slot] = self.open.index(highest_ranked(slot, self.open))
        owner = self.open[at]
        if members is self.open or owner in members:
            return owner
        return highest_ranked(slot, members)

    # --- what became of it ----------------------------------------------------------------------------

    def left(self, member: Member, *, is_trial: bool) -> None:
        """A request is no longer with `member`, whatever became of it. A trial without an outcome is none."""
        member.active -= 1
        if is_trial and member.state == TRIAL:
            member.state = EJECTED

    def succeeded(self, member: Member, now_s: float) -> bool:
        """`member` has answered as it should. Return whether that brought it back.

        One that is out is brought back by its trial, or when all are out; else what it had begun before proves nothing.
        """
        member.failures = 0
        if member.state == UP:
            return False
        others_up = self._is_any_up()
        if member.state == EJECTED and others_up:
            return False
        member.recover(now_s, self._balancing.slow_start_s if others_up else 0.0)
        self._settle(now_s)
        return True

    def failed(self, member: Member, now_s: float, jitter: float, count: int = 1) -> bool:
        """`member` has failed. Return whether that ejected it."""
        member.failures += count
        member.failures_total += 1
        if member.state == EJECTED or (member.state == UP and member.failures < self._balancing.max_failures):
            return False
        member.eject(now_s, self._balancing.eject_s, jitter)
        self.ejections_total += 1
        self._settle(now_s)
        return True

    def checked(self, member: Member, *, good: bool, healthy: int, unhealthy: int, now_s: float) -> bool:
        """Take in the outcome of an active check. Return whether that put `member` out or brought it back."""
        member.checks_total += 1
        if good:
            member.check_run = max(member.check_run, 0) + 1
            if not member.is_checked_down or member.check_run < healthy:
                return False
            others_up = self._is_any_up()
            member.is_checked_down = False
            if member.state == UP:
                member.recover(now_s, self._balancing.slow_start_s if others_up else 0.0)
        else:
            member.checks_failed_total += 1
            member.check_run = min(member.check_run, 0) - 1
            if member.is_checked_down or -member.check_run < unhealthy:
                return False
            member.is_checked_down = True
        self._settle(now_s)
        return True

    def is_last_resort(self) -> bool:
        """Tell whether all members are out, so that all are used."""
        return not self.is_settled and not self._is_any_up()

    def _is_any_up(self) -> bool:
        return any(member.is_up() for member in self.open)

    def _settle(self, now_s: float) -> None:
        """Bring shares up to date, and find out whether all is as it should be."""
        settled = True
        for member in self.members:
            member.grow(now_s, self._balancing.slow_start_s)
            if member.weight > 0 and (not member.is_up() or member.ramp_from_s > 0.0):
                settled = False
        self.is_settled = settled

    # --- places (`limit` of them, 0: no limit) and the queue ------------------------------------------

    def has_place(self) -> bool:
        """Tell whether another request may have a place now; those that wait come first."""
        return not self.limit or (self.active < self.limit and not self.waiting)

    def wait(self, waiter: object, now_s: float) -> bool:
        """Put `waiter` at the queue's end; return False when it is full."""
        if len(self.waiting) >= self._balancing.max_queue:
            self.queue_full_total += 1
            return False
        self.waiting[waiter] = now_s
        self.queued_total += 1
        return True

    def leave_queue(self, waiter: object) -> None:
        """`waiter` no longer wants a place."""
        self.waiting.pop(waiter, None)

    def next_in_line(self) -> object | None:
        """Take out who has waited longest, if there is a place for it; None if not."""
        if not self.waiting or (self.limit and self.active >= self.limit):
            return None
        return self.waiting.popitem(last=False)[0]

    def overdue(self, now_s: float) -> object | None:
        """Take out the first who has waited for too long; None if nobody has."""
        for waiter, since_s in self.waiting.items():
            if now_s - since_s < self._balancing.queue_timeout_s:
                return None
            self.queue_timeouts_total += 1
            del self.waiting[waiter]
            return waiter
        return None
