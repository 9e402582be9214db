"""One thing that a provider publishes, fetched and kept: all who need it share one fetch.

With a value at hand nobody waits: an old one goes on working while a new one is fetched. Without one, all wait for the
same fetch, and after a failure the next is not tried before a pause has passed. Times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 5.0
"""Between two tries while there is no value: requests are refused meanwhile, so not long."""
LONGEST_STALE_PAUSE_S = 30.0
"""The same while an old value goes on working."""

T = TypeVar("T")


class IssuerUnavailableError(Exception):
    """A provider cannot be reached, or its answer is of no use; the text is one line for an operator."""


class Backoff:
    """Failures in a row, and the pause after the last one. `tolerance` failures cost no pause."""

    __slots__ = ("_failed_at", "_failures", "_tolerance")

    def __init__(self, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self._failures = 0
        self._failed_at = 0.0

    def failed(self, now: float) -> None:
        """Count a failure."""
        self._failures += 1
        self._failed_at = now

    def succeeded(self) -> None:
        """Forget all failures."""
        self._failures = 0

    def is_pausing(self, now: float, longest_s: float) -> bool:
        """Tell whether the pause after the last failure is not over."""
        beyond = self._failures - self._tolerance
        if beyond <= 0:
            return False
        return now - self._failed_at < min(FIRST_PAUSE_S * (1 << min(beyond - 1, 10)), longest_s)


class Fetched(Generic[T]):
    """A value with a lifetime. `fetch` raises `IssuerUnavailableError`, and is bounded in time."""

    __slots__ = (
        "_backoff",
        "_clock",
        "_fetch",
        "_lifetime_s",
        "_name",
        "_task",
        "_why",
        "fetched_at",
        "value",
    )

    def __init__(
        self, name: str, fetch: Callable[[], Awaitable[T]], lifetime_s: float, clock: Callable[[], float]
    ) -> None:
        self.value: T | None = None
        self.fetched_at = float("-inf")
        self._name = name
        self._fetch = fetch
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._why = ""

    async def get(self) -> T:
        """Return the value, an old one too; then a new one is fetched meanwhile. Raises `IssuerUnavailableError`."""
        if self.value is None:
            return await self.renewed()
        if self._clock() - self.fetched_at >= self._lifetime_s and not self._is_pausing():
            self._start()
        return self.value

    async def renewed(self, pause_s: float = 0.0) -> T:
        """Return a value that has just been fetched, or one that is at most `pause_s` old.

        Raises `IssuerUnavailableError`: at once if the last try failed a moment ago.
        """
        if self.value is not None and self._clock() - self.fetched_at < pause_s:
            return self.value
        if self._task is None and self._is_pausing():
            raise IssuerUnavailableError(self._why)
        await asyncio.shield(self._start())  # shared: one waiter that leaves must not end it for the others
        if self._why or self.value is None:
            raise IssuerUnavailableError(self._why)
        return self.value

    def _is_pausing(self) -> bool:
        longest_s = LONGEST_PAUSE_S if self.value is None else LONGEST_STALE_PAUSE_S
        return self._backoff.is_pausing(self._clock(), longest_s)

    def _start(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"fetch {self._name}")
        return self._task

    async def _run(self) -> None:
        try:
            value = await self._fetch()
        except IssuerUnavailableError as error:
            self._backoff.failed(self._clock())
            self._why = str(error)
        else:
            self.value = value
            self.fetched_at = self._clock()
            self._backoff.succeeded()
            self._why = ""
        finally:
            self._task = None

    async def close(self) -> None:
        """End a fetch that is under way."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
