"""One target of a service as its balancer knows it: what it does now, and whether it may be trusted with more.

A circuit with three states. ``UP`` takes requests. Too many failures in a row eject it (``EJECTED``) for a while that
doubles each time; after that one request at a time tries it (``TRIAL``) and decides. Back up, its share grows slowly.
Active checks are a second switch beside it (``is_checked_down``). Pure: the time, in monotonic seconds, is passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.snapshot import Target

UP: Final = 0
EJECTED: Final = 1
TRIAL: Final = 2

MAX_EJECT_S: Final = 300.0
"""An ejection never lasts longer, unless the service says so itself: someone will have mended it by then."""
JITTER: Final = 0.1
"""Ejections differ by up to this much, so that workers do not try a target again in the same moment."""
FIRST_SHARE: Final = 0.1
"""Where a slow start begins: a share of nothing would never grow."""


class Member:
    """``share`` is the weight in force now: less than ``weight`` in a slow start (from ``ramp_from_s`` on, 0: none).

    ``current`` belongs to the smooth round robin. ``check_run`` counts checks that went the same way: good ones above
    zero, bad ones below. ``key`` names the target through changes of configuration.
    """

    __slots__ = (
        "active", "check_run", "checks_failed_total", "checks_total", "current", "ejections", "ejections_total",
        "failures", "failures_total", "is_checked_down", "key", "last_check", "last_eject_s", "ramp_from_s",
        "requests_total", "share", "state", "target", "until_s", "up_since_s", "weight",
    )  # fmt: skip

    def __init__(self, key: str, target: Target, weight: int, now_s: float) -> None:
        self.key = key
        self.target = target
        self.weight = weight
        self.share = float(weight)
        self.current = 0.0
        self.active = 0
        self.requests_total = 0
        self.state = UP
        self.failures = 0
        self.failures_total = 0
        self.ejections = 0
        self.ejections_total = 0
        self.last_eject_s = 0.0
        self.until_s = 0.0
        self.up_since_s = now_s
        self.ramp_from_s = 0.0
        self.is_checked_down = False
        self.check_run = 0
        self.checks_total = 0
        self.checks_failed_total = 0
        self.last_check = ""

    def is_up(self) -> bool:
        """Tell whether it may have requests like any other."""
        return self.state == UP and not self.is_checked_down and self.weight > 0

    def is_due(self, now_s: float) -> bool:
        """Tell whether its ejection is over, so that one request may try it."""
        return (
            self.state == EJECTED and self.until_s <= now_s and not self.is_checked_down and self.weight > 0
        )

    def eject(self, now_s: float, eject_s: float, jitter: float) -> None:
        """Take it out. `jitter` is a number from 0 to 1, different each time.

        One that stayed up for as long as it was out the last time begins anew; else the time doubles.
        """
        if self.state == UP and now_s - self.up_since_s >= self.last_eject_s:
            self.ejections = 0
        longest_s = max(MAX_EJECT_S, eject_s)
        self.last_eject_s = min(eject_s * 2.0 ** min(self.ejections, 20), longest_s)
        self.ejections += 1
        self.ejections_total += 1
        self.until_s = now_s + self.last_eject_s * (1.0 - JITTER + 2.0 * JITTER * jitter)
        self.state = EJECTED
        self.ramp_from_s = 0.0

    def recover(self, now_s: float, slow_start_s: float) -> None:
        """Put it back, with a small share at first."""
        self.state = UP
        self.failures = 0
        self.up_since_s = now_s
        self.begin_slowly(now_s, slow_start_s)

    def begin_slowly(self, now_s: float, slow_start_s: float) -> None:
        """Let the share grow from now on; 0 s: at once."""
        self.ramp_from_s = now_s if slow_start_s > 0.0 else 0.0
        self.current = 0.0
        self.grow(now_s, slow_start_s)

    def grow(self, now_s: float, slow_start_s: float) -> None:
        """Bring ``share`` up to date."""
        weight = float(self.weight)
        if self.ramp_from_s > 0.0:
            part = (now_s - self.ramp_from_s) / slow_start_s if slow_start_s > 0.0 else 1.0
            if part < 1.0:
                self.share = weight * max(part, FIRST_SHARE)
                return
            self.ramp_from_s = 0.0
        self.share = weight
