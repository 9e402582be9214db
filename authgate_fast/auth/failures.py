"""Failed checks, counted per client address and per account. Pure: time passed in, memory bounded.

Each name has one number, the moment at which all of its failures are forgotten: a failure moves it on by
window / limit, and a name is blocked while it lies more than a window ahead (the generic cell rate algorithm). So
`limit` failures at once are let through and not one more; after that one in each window / limit, which is `limit` in a
window, however long it goes on; and a name that stops failing has all of its attempts again after a window.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from math import ceil

MAX_NAMES = 20_000
"""Addresses remembered, and as many accounts; a guesser with more than this has other means. About 7 MB together."""


_CLOCK_GRAIN_S = 1e-6
"""Moments are floats near 2e9: what is left of a wait by rounding is no wait."""


class FailureGuard:
    """The failures that one worker has seen. Limits are failures within `window_s` seconds.

    Addresses and accounts have a table each: failures of a kind that names no account are cheap to cause from many
    addresses, and must not wash accounts out of the memory.
    """

    __slots__ = ("_accounts", "_addresses", "window_s")

    def __init__(self, per_address: int, per_account: int, window_s: float) -> None:
        self.window_s = window_s
        self._addresses = _Table(per_address, window_s)
        self._accounts = _Table(per_account, window_s)

    def failed(self, address: str, account: bytes, now: float) -> None:
        """Count one failed check. An empty `account` is unknown and not counted."""
        self._addresses.add(address_name(address), now)
        if account:
            self._accounts.add(account, now)

    def retry_after_s(self, address: str, account: bytes, now: float) -> int:
        """Return 0, or after how many seconds (at least 1) another attempt is let in."""
        if not self._addresses.forgotten_at:  # every failure has an address
            return 0
        wait_s = self._addresses.wait_s(address_name(address), now)
        if account:
            wait_s = max(wait_s, self._accounts.wait_s(account, now))
        return ceil(wait_s)


class _Table:
    """The failures of one kind of name. ``forgotten_at`` is in the order of the last failures."""

    __slots__ = ("_step_s", "_window_s", "forgotten_at")

    def __init__(self, limit: int, window_s: float) -> None:
        self._step_s = window_s / limit
        self._window_s = window_s
        self.forgotten_at: OrderedDict[bytes | str, float] = OrderedDict()

    def add(self, name: bytes | str, now: float) -> None:
        """Count a failure of `name`."""
        table = self.forgotten_at
        before = table.pop(name, now)
        if len(table) >= MAX_NAMES:
            table.popitem(last=False)  # the one whose last failure is the longest ago
        # At most one step beyond the limit: who goes on failing is not shut out for longer and longer.
        table[name] = min(max(before, now) + self._step_s, self._latest(now))

    def wait_s(self, name: bytes | str, now: float) -> float:
        """Return for how many seconds `name` is blocked, 0 or less if it is not."""
        forgotten_at = self.forgotten_at.get(name)
        if forgotten_at is None:
            return 0.0
        if forgotten_at > self._latest(now):  # the clock was set back; nobody has to wait until it catches up
            self.forgotten_at[name] = forgotten_at = self._latest(now)
        # Half a step of grace: the sum of `limit` steps must not miss the window by a rounding error.
        wait_s = forgotten_at + self._step_s / 2 - now - self._window_s
        return wait_s if wait_s > _CLOCK_GRAIN_S else 0.0

    def _latest(self, now: float) -> float:
        return now + self._window_s + self._step_s


def address_name(address: str) -> str:
    """Return the name that failures of `address` are counted under: for IPv6 its /64, which is one customer."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{parsed.packed[:8].hex()}/64"
    return address
