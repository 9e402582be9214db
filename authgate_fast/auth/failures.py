"""Failed checks, counted per client address and per account. Pure: time passed in, memory bounded.

Each name has one number, the moment at which all of its failures are forgotten: a failure moves it on by
window / limit, and a name is blocked while it lies more than a window ahead. So a name that stops failing is let
in again little by little, and a steady guesser gets `limit` attempts in each window and no more.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from math import ceil

MAX_NAMES = 20_000
"""Names remembered; a guesser with more addresses than this has other means than guessing. About 4 MB."""


class FailureGuard:
    """The failures that one worker has seen. Limits are failures within `window_s` seconds."""

    __slots__ = ("_forgotten_at", "_step_account_s", "_step_address_s", "window_s")

    def __init__(self, per_address: int, per_account: int, window_s: float) -> None:
        self.window_s = window_s
        self._step_address_s = window_s / per_address
        self._step_account_s = window_s / per_account
        self._forgotten_at: dict[bytes | str, float] = {}

    def failed(self, address: str, account: bytes, now: float) -> None:
        """Count one failed check. An empty `account` is unknown and not counted."""
        self._add(address_name(address), self._step_address_s, now)
        if account:
            self._add(account, self._step_account_s, now)

    def retry_after_s(self, address: str, account: bytes, now: float) -> int:
        """Return 0, or after how many seconds (at least 1) another attempt is let in."""
        if not self._forgotten_at:
            return 0
        wait_s = self._wait_s(address_name(address), self._step_address_s, now)
        if account:
            wait_s = max(wait_s, self._wait_s(account, self._step_account_s, now))
        return ceil(wait_s)

    def _add(self, name: bytes | str, step_s: float, now: float) -> None:
        table = self._forgotten_at
        before = table.pop(name, now)
        if len(table) >= MAX_NAMES:
            del table[next(iter(table))]  # the one whose last failure is the longest ago
        # At most one step beyond the limit: who goes on failing is not shut out for longer and longer.
        table[name] = min(max(before, now) + step_s, now + self.window_s + step_s)

    def _wait_s(self, name: bytes | str, step_s: float, now: float) -> float:
        forgotten_at = self._forgotten_at.get(name)
        if forgotten_at is None:
            return 0.0
        # Half a step of grace: the sum of `limit` steps must not miss the window by a rounding error.
        return max(forgotten_at + step_s / 2 - now - self.window_s, 0.0)


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
