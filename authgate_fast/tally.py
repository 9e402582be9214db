"""Counts of answered requests, kept beside the routes and services that they are about. Pure.

A tally belongs to a name, not to one snapshot's object: `proxy.record` finds it again after a change of configuration.
"""

from __future__ import annotations

from typing import Final

_BOUNDS: Final = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
BOUNDS_S: Final[tuple[float, ...]] = tuple(_BOUNDS)
"""Upper bounds of the buckets of a duration, in seconds; one more bucket has no bound.

A list is walked through, for a tuple of floats in compiled code becomes new objects each time it is handed on.
"""

NO_CHECK: Final = 0
ACCEPTED: Final = 1
MISSING: Final = 2
INVALID: Final = 3
FORBIDDEN: Final = 4
BLOCKED: Final = 5
UNAVAILABLE: Final = 6
AUTH_RESULTS: Final = ("none", "accepted", "missing", "invalid", "forbidden", "blocked", "unavailable")
"""What came of the security check, by the codes above; ``none`` where there was no check to make."""

AUTH_CODES: Final = 8
"""A key of `RouteTally.count` is the status class (1 to 5) times this, plus the code of the auth result."""


class Count:
    """A number that grows. Compiled, an attribute is counted up without an object for each number."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class Histogram:
    """Durations in seconds: how many fell in each bucket, and their sum."""

    __slots__ = ("_buckets", "sum_s")

    def __init__(self) -> None:
        self._buckets = [Count() for _ in range(len(BOUNDS_S) + 1)]
        self.sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        at = 0
        for bound in _BOUNDS:  # most durations are among the first: quicker than a search by halves
            if duration_s <= bound:
                break
            at += 1
        self._buckets[at].total += 1
        self.sum_s += duration_s

    def counts(self) -> list[int]:
        """Return how many fell in each bucket, the one without a bound last."""
        return [bucket.total for bucket in self._buckets]


class ServiceTally:
    """How long the requests of one service took: all of it, and until the backend's response head."""

    __slots__ = ("gateway", "service", "total", "upstream")

    def __init__(self, gateway: str, service: str) -> None:
        self.gateway = gateway
        self.service = service
        self.total = Histogram()
        self.upstream = Histogram()


class RouteTally:
    """The answered requests of one route by status class and auth result. ``route`` is "" where none was found.

    ``log_part`` is what every line of the access log has of it, made for the first one.
    """

    __slots__ = ("_counts", "_last", "_last_key", "gateway", "log_part", "route", "service", "times")

    def __init__(self, gateway: str, route: str, service: str, times: ServiceTally | None) -> None:
        self.gateway = gateway
        self.route = route
        self.service = service
        self.times = times
        self._counts: dict[int, Count] = {}
        self._last = Count()  # of what was counted last, and is likely counted next
        self._last_key = -1
        self.log_part = b""

    def count(self, key: int) -> None:
        """Count one answer."""
        if key != self._last_key:
            known = self._counts.get(key)
            if known is None:
                known = self._counts[key] = Count()
            self._last = known
            self._last_key = key
        self._last.total += 1

    def counts(self) -> dict[int, int]:
        """Return how many answers there were, by their keys."""
        return {key: count.total for key, count in self._counts.items()}


class LogPart:
    """What every line of the access log has of the object that holds this, made for the first one; b"" until then."""

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = b""


class Meter:
    """A route's way to its tally, found at its first answer."""

    __slots__ = ("tally",)

    def __init__(self) -> None:
        self.tally: RouteTally | None = None
