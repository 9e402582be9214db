"""The groups of all balanced services of a worker: made when first needed, kept through changes of configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.balance.group import Group
from authgate_fast.balance.member import EJECTED, TRIAL
from authgate_fast.proxy.checks import HealthChecks
from authgate_fast.proxy.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.balance.member import Member
    from authgate_fast.proxy.context import Context
    from authgate_fast.snapshot import Service, Snapshot


def _say_nothing(text: str, is_bad: bool) -> None:
    """Until somebody listens."""


STATES: Final = ("up", "slow_start", "trial", "ejected", "checked_down", "drained")


class Groups:
    """Keyed by gateway and service. ``listener`` is told each change of a target's state: a text, and if it is bad."""

    __slots__ = ("_by_key", "_context", "_handing_over", "_last_resort", "checks", "listener")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_key: dict[tuple[str, str], Group] = {}
        self._handing_over: list[Group] = []
        self._last_resort: set[str] = set()
        self.checks = HealthChecks(context)
        self.listener: Callable[[str, bool], None] = _say_nothing

    def get(self, gateway: str, service: Service) -> Group:
        """Return the group of a balanced service."""
        group = service.group
        if group is None:
            key = (gateway, service.name)
            group = self._by_key.get(key)
            if group is None:
                name = f"{gateway}/{service.name}"
                group = self._by_key[key] = Group(name, service, self._context.now_s)
            else:
                group.configure(service, self._context.now_s)
            service.group = group
        return group

    def sync(self, snapshot: Snapshot) -> None:
        """Bring all groups up to date with a snapshot that is now in force; those of services that are gone end."""
        wanted: set[tuple[str, str]] = set()
        for gateway in snapshot.gateways.values():
            for service in gateway.services:
                if service.is_balanced:
                    wanted.add((gateway.name, service.name))
                    group = self.get(gateway.name, service)
                    self._by_key[gateway.name, service.name] = group  # a gateway may come back as it was
                    if group.waiting:
                        self.hand_over(group)
        for key, group in list(self._by_key.items()):
            if key not in wanted and not group.active and not group.waiting:
                del self._by_key[key]
        self.checks.sync(snapshot)

    def hand_over(self, group: Group) -> None:
        """Give places that are free to who waits for them: soon, and not inside of what freed them."""
        if group not in self._handing_over:
            self._handing_over.append(group)
            self._context.loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        groups = self._handing_over
        self._handing_over = []
        for group in groups:
            while True:
                waiter = group.next_in_line()
                if not isinstance(waiter, Placement):
                    break
                waiter.take_place()

    def check_time(self) -> None:
        """Called about once a second."""
        now_s = self._context.now_s
        for group in self._by_key.values():
            group.budget.second_passed(group.requests_total)
            while True:
                waiter = group.overdue(now_s)
                if not isinstance(waiter, Placement):
                    break
                waiter.overdue()

    def tell(self, group: Group, member: Member, text: str, is_bad: bool) -> None:
        """Report a change of a member's state."""
        self.listener(f"service {group.name}: {member.target.url} {text}", is_bad)
        if group.is_last_resort():
            if group.name not in self._last_resort:
                self._last_resort.add(group.name)
                self.listener(f"service {group.name}: no target is up, so all are used", True)
        else:
            self._last_resort.discard(group.name)

    def items(self) -> list[tuple[tuple[str, str], Group]]:
        """Return each group with its gateway and service."""
        return list(self._by_key.items())

    def status(self) -> dict[str, object]:
        """Return what /status shows of balanced services."""
        now_s = self._context.now_s
        return {group.name: _group_status(group, now_s) for group in self._by_key.values()}


def _group_status(group: Group, now_s: float) -> dict[str, object]:
    return {
        "balance": group.method,
        "requests_total": group.requests_total,
        "in_flight": group.active,
        "waiting": len(group.waiting),
        "retries_total": group.retries_total,
        "ejections_total": group.ejections_total,
        "queued_total": group.queued_total,
        "queue_full_total": group.queue_full_total,
        "queue_timeouts_total": group.queue_timeouts_total,
        "targets": {member.key: _member_status(member, now_s) for member in group.members},
    }


def state_of(member: Member) -> str:
    """Say in one word how a member is: one of `STATES`."""
    if member.weight == 0:
        return "drained"
    if member.is_checked_down:
        return "checked_down"
    if member.state == EJECTED:
        return "ejected"
    if member.state == TRIAL:
        return "trial"
    return "slow_start" if member.ramp_from_s > 0.0 else "up"


def _member_status(member: Member, now_s: float) -> dict[str, object]:
    status: dict[str, object] = {
        "states": {state_of(member): 1},  # in several workers it may be in several
        "weight": member.weight,
        "in_flight": member.active,
        "requests_total": member.requests_total,
        "failures": member.failures,
        "failures_total": member.failures_total,
        "ejections_total": member.ejections_total,
    }
    if member.state == EJECTED:
        status["ejected_for_s"] = round(max(member.until_s - now_s, 0.0), 1)
    if member.last_check:
        status["last_check"] = member.last_check
        status["checks_total"] = member.checks_total
        status["checks_failed_total"] = member.checks_failed_total
    return status
