"""How many requests may be sent to a service once more: a share of all, so that trouble does not double its load.

Only what may have reached a backend costs; a connection that never came about leaves no load behind. Pure.
"""

from __future__ import annotations

from typing import Final

RATIO: Final = 0.2
"""Retries for each request of the last ten seconds or so; Envoy's and Finagle's value."""
FLOOR_PER_S: Final = 5.0
FLOOR: Final = 50.0
"""What a service with little traffic may do at once: more than one client's worth of requests in flight."""
_KEEP: Final = 0.9


class RetryBudget:
    """A bucket that the service's own requests fill. ``requests`` is always their number since the beginning."""

    __slots__ = ("_recent", "_seen", "_tokens")

    def __init__(self) -> None:
        self._seen = 0
        self._recent = 0.0
        self._tokens = FLOOR

    def second_passed(self, requests: int) -> None:
        """Called about once a second."""
        self._fill(requests)
        self._recent *= _KEEP
        self._tokens = min(self._tokens + FLOOR_PER_S, FLOOR + RATIO * self._recent)

    def take(self, requests: int) -> bool:
        """Tell whether one more retry is allowed, and count it."""
        self._fill(requests)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _fill(self, requests: int) -> None:
        new = requests - self._seen
        self._seen = requests
        self._recent += new
        self._tokens += RATIO * new
