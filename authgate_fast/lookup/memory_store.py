"""Runtime state in this process's memory: for gateways on a file. It ends with the process.

Bounded: at most `max_entries` values of each kind (sessions, refresh tokens, signing keys and so on), so
that a flood of one kind does not shut out the others, and `max_bytes` of values in all. When full, nothing that is
there is thrown away: `put` and `add` of something new raise, and the log says so once.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections.abc import Callable

from authgate_fast.lookup.store import STATE_PREFIX, WATCHED_PREFIXES, StateUnavailableError

MAX_ENTRIES = 50_000
MAX_BYTES = 256 * 1024 * 1024
SWEEP_INTERVAL_S = 0.5
_SPARE_ENDS = 1_024
_MAX_CHANGED = 10_000
"""Changes that wait to be told; more of them are told as a gap."""

log = logging.getLogger("authgate.state")


class _Entry:
    __slots__ = ("ends_at", "value")

    def __init__(self, value: bytes, ends_at: float) -> None:
        self.value = value
        self.ends_at = ends_at


class MemoryStore:
    """A `StateStore`. `clock` gives seconds from any start; ends are told by it."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.on_change: list[Callable[[str], None]] = []
        self.on_gap: list[Callable[[], None]] = []
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: dict[str, _Entry] = {}
        self._counts: dict[str, int] = {}
        self._bytes = 0
        # A name stands here once or more, and never first at a moment later than its end.
        self._ends: list[tuple[float, str]] = []
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._is_full = False

    async def get(self, name: str) -> bytes | None:
        """Return a value that has not ended, or None."""
        entry = self._find(name)
        return None if entry is None else entry.value

    async def put(self, name: str, value: bytes, ttl_s: float | None) -> None:
        """Set a value; `ttl_s` None means without end."""
        self._set(name, value, ttl_s)

    async def add(self, name: str, value: bytes, ttl_s: float | None) -> bool:
        """Set a value only if there is none; tell whether it did."""
        if self._find(name) is not None:
            return False
        self._set(name, value, ttl_s)
        return True

    async def take(self, name: str) -> bytes | None:
        """Return a value and delete it: of several callers at once, one gets it."""
        entry = self._find(name)
        if entry is None:
            return None
        self._remove(name)
        return entry.value

    async def swap(self, name: str, old: bytes, new: bytes, ttl_s: float | None) -> bool:
        """Set a value only if it is still `old`; tell whether it did."""
        entry = self._find(name)
        if entry is None or entry.value != old:
            return False
        self._set(name, new, ttl_s)
        return True

    async def delete(self, name: str) -> bool:
        """Delete a value; tell whether there was one."""
        if self._find(name) is None:
            return False
        self._remove(name)
        return True

    async def touch(self, name: str, ttl_s: float) -> bool:
        """Move a value's end to `ttl_s` from now; tell whether there is one."""
        entry = self._find(name)
        if entry is None:
            return False
        self._end(name, entry, ttl_s)
        self._note(name)
        return True

    async def names(self, prefix: str, limit: int) -> list[str]:
        """Return the names that start with `prefix`, at most `limit`, in no order."""
        now = self._clock()
        found: list[str] = []
        for name, entry in self._entries.items():
            if len(found) >= limit:
                break
            if entry.ends_at > now and name.startswith(prefix):
                found.append(name)
        return found

    async def run(self) -> None:
        """Tell of changes and let values end, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                self._sweep()
            self._wake.clear()
            changed, self._changed = self._changed, {}
            if len(changed) >= _MAX_CHANGED:
                for gap_listener in self.on_gap:
                    gap_listener()
                continue
            for name in changed:
                for listener in self.on_change:
                    listener(name)

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def status(self) -> dict[str, object]:
        """What /status shows of the store."""
        return {
            "type": "memory",
            "connected": True,
            "entries": len(self._entries),
            "bytes": self._bytes,
            "full": self._is_full,
        }

    def _find(self, name: str) -> _Entry | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.ends_at <= self._clock():
            self._remove(name)
            return None
        return entry

    def _set(self, name: str, value: bytes, ttl_s: float | None) -> None:
        entry = self._entries.get(name)
        kind = _kind(name)
        grown = len(value) - (0 if entry is None else len(entry.value))
        if not self._fits(kind, 0 if entry is not None else 1, grown):
            self._sweep()
            entry = self._entries.get(name)
            grown = len(value) - (0 if entry is None else len(entry.value))
            if not self._fits(kind, 0 if entry is not None else 1, grown):
                self._refuse(kind)
        self._is_full = False
        if entry is None:
            entry = self._entries[name] = _Entry(value, math.inf)
            self._counts[kind] = self._counts.get(kind, 0) + 1
        else:
            entry.value = value
        self._bytes += grown
        self._end(name, entry, ttl_s)
        self._note(name)

    def _fits(self, kind: str, more: int, grown: int) -> bool:
        if grown > 0 and self._bytes + grown > self._max_bytes:
            return False
        return not more or self._counts.get(kind, 0) < self._max_entries

    def _refuse(self, kind: str) -> None:
        text = (
            f"the store in memory is full ({self._counts.get(kind, 0)} entries of {kind}, {self._bytes} bytes in "
            "all); a gateway with this much to remember needs Redis (--redis)"
        )
        if not self._is_full:
            log.error("%s", text)
        self._is_full = True
        raise StateUnavailableError(text)

    def _end(self, name: str, entry: _Entry, ttl_s: float | None) -> None:
        before = entry.ends_at
        entry.ends_at = math.inf if ttl_s is None else self._clock() + ttl_s
        # A value that lives longer than it was said to is put back when its old end comes up.
        if entry.ends_at < before:
            heapq.heappush(self._ends, (entry.ends_at, name))
            if len(self._ends) > 2 * len(self._entries) + _SPARE_ENDS:
                self._ends = [(e.ends_at, n) for n, e in self._entries.items() if e.ends_at < math.inf]
                heapq.heapify(self._ends)

    def _remove(self, name: str) -> None:
        entry = self._entries.pop(name)
        kind = _kind(name)
        self._bytes -= len(entry.value)
        self._counts[kind] -= 1
        if not self._counts[kind]:
            del self._counts[kind]
        self._note(name)

    def _sweep(self) -> None:
        now = self._clock()
        ends = self._ends
        while ends and ends[0][0] <= now:
            _, name = heapq.heappop(ends)
            entry = self._entries.get(name)
            if entry is None:
                continue
            if entry.ends_at <= now:
                self._remove(name)
            elif entry.ends_at < math.inf:
                heapq.heappush(ends, (entry.ends_at, name))

    def _note(self, name: str) -> None:
        if self.on_change and name.startswith(WATCHED_PREFIXES):
            if len(self._changed) < _MAX_CHANGED:
                self._changed[name] = None
            self._wake.set()


def _kind(name: str) -> str:
    """Return what kind of thing a name names: ``authgate:state:session`` for a session."""
    return ":".join(name.split(":", 3)[: 3 if name.startswith(STATE_PREFIX) else 2])
