"""Runs cases in batches, confirms what was found, blames one case for it and makes it small."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from random import Random

from tests.fuzz import mutate, replies
from tests.fuzz.arena import Arena, StreamClient
from tests.fuzz.corpus import replies as known_replies
from tests.fuzz.corpus import requests as known_requests
from tests.fuzz.judge import compare_cuts, judge
from tests.fuzz.judge_replies import LieClient, judge_lie
from tests.fuzz.replies import Lie

REQUESTS = "requests"
REPLIES = "replies"
BATCH = 100
CHECK_EVERY = 20
"""Batches between two looks at what is left in memory."""
MOST_GROWTH_BYTES = 96 << 20
WARM_BATCHES = 20
SHRINK_S = 20.0
SHRINK_BOUND_S = 2.0
TRIES = 3


@dataclass(slots=True)
class Stream:
    """A client's stream; it is run whole, and cut."""

    data: bytes
    cuts: list[int] = field(default_factory=list)


Case = Stream | Lie


@dataclass(slots=True)
class Found:
    """What was found, and by which case; None: it could not be brought about again by one case alone."""

    what: str
    case: Case | None
    iteration: int

    @property
    def kind(self) -> str:
        return self.what.partition(":")[0]


def make(direction: str, seed: int, iteration: int) -> Case:
    """Make one case; the same numbers make the same case."""
    rng = Random(f"{direction} {seed} {iteration}")
    if direction == REPLIES:
        return replies.lie(rng, _KNOWN_LIES)
    data = mutate.mutated(rng, _KNOWN_STREAMS)
    return Stream(data, mutate.cuts(rng, len(data)))


_KNOWN_STREAMS = list(known_requests.CASES.values())
_KNOWN_LIES = list(known_replies.CASES.values())


async def run_batch(arena: Arena, cases: list[Case]) -> list[tuple[int, str]]:
    """Run `cases` and return (place, what is wrong with it); place -1 if nobody knows whose fault it is."""
    found: list[tuple[int, str]] = []
    streams: list[tuple[int, Stream, StreamClient, StreamClient]] = []
    lies: list[tuple[int, LieClient]] = []
    for at, case in enumerate(cases):
        if isinstance(case, Stream):
            one, other = StreamClient(arena, case.data, []), StreamClient(arena, case.data, case.cuts)
            streams.append((at, case, one, other))
        else:
            arena.lies += 1
            lies.append((at, LieClient(arena, case, arena.lies)))
    clients = [client for _, _, *pair in streams for client in pair]
    if clients:
        await arena.run(clients)
    together = [client for _, client in lies if not client.lie.late]
    if together:
        await arena.run(together)
    alone = [client for _, client in lies if client.lie.late]
    if alone:
        await arena.run(alone, 1)
    for at, case, one, other in streams:
        for what in (
            judge(case.data, one.seen)
            + judge(case.data, other.seen)
            + compare_cuts(case.data, one.seen, other.seen)
        ):
            found.append((at, what))
            break
    for at, client in lies:
        found += [(at, what) for what in judge_lie(client)[:1]]
    found += [(-1, what) for what in arena.take_faults()]
    arena.forget()
    return found


class Campaign:
    """One direction, from one seed. `cases` counts what has been run."""

    def __init__(self, arena: Arena, direction: str, seed: int) -> None:
        self.arena = arena
        self.direction = direction
        self.seed = seed
        self.cases = 0
        self.batches = 0
        self.found: list[Found] = []
        self._objects: int | None = None
        self._tasks = 0
        self._rss = 0

    async def run(self, iterations: range) -> None:
        """Run one batch and look into what it found."""
        cases = [make(self.direction, self.seed, iteration) for iteration in iterations]
        wrong = await run_batch(self.arena, cases)
        self.cases += len(cases)
        self.batches += 1
        if wrong:
            await self._blame(cases, iterations, wrong)
        if self.batches % CHECK_EVERY == 0:
            self._look_at_memory(iterations[-1])

    async def _blame(self, cases: list[Case], iterations: range, wrong: list[tuple[int, str]]) -> None:
        """Find the case that does it alone; if there is none, say so."""
        suspects = [at for at, _ in wrong if at >= 0]
        if any(at < 0 for at, _ in wrong) or not suspects:
            suspects += [at for at in range(len(cases)) if at not in suspects]
        wanted = {Found(what, None, 0).kind for _, what in wrong}
        explained: set[str] = set()
        for at in suspects:
            if wanted <= explained:
                break
            what = await self._alone(cases[at], None)
            if what is not None and (found := Found(what, cases[at], iterations[at])).kind not in explained:
                explained.add(found.kind)
                self.found.append(found)
        if not explained:
            at, what = wrong[0]
            self.found.append(Found(f"{what} (not alone, only in its batch)", None, iterations[max(at, 0)]))

    async def _alone(self, case: Case, kind: str | None) -> str | None:
        for _ in range(TRIES if kind is None else 1):
            for _, what in await run_batch(self.arena, [case]):
                if kind is None or Found(what, None, 0).kind == kind:
                    return what
        return None

    async def shrink(self, found: Found) -> Found:
        """Make the case of a finding as small as `SHRINK_S` allows."""
        case = found.case
        if case is None:
            return found
        bound_s, self.arena.bound_s = self.arena.bound_s, SHRINK_BOUND_S
        deadline_s = time.monotonic() + SHRINK_S

        async def does_it(data: bytes, cuts: list[int]) -> bool:
            changed = replace(case, data=data, cuts=[at for at in cuts if at < len(data)])
            return await self._alone(changed, found.kind) is not None

        try:
            cuts: Callable[[bytes], list[int]] = lambda data: []  # noqa: E731  # three of them, in a row
            if not await does_it(case.data, cuts(case.data)):
                cuts = lambda data: list(range(1, len(data)))  # noqa: E731
                if not await does_it(case.data, cuts(case.data)):
                    cuts = lambda data: [at for at in case.cuts if at < len(data)]  # noqa: E731
            data = await minimise(case.data, lambda data: does_it(data, cuts(data)), deadline_s)
            return replace(found, case=replace(case, data=data, cuts=cuts(data)))
        finally:
            self.arena.bound_s = bound_s

    def _look_at_memory(self, iteration: int) -> None:
        """No connection, exchange or task is left, and memory does not grow."""
        gc.collect()
        objects, tasks, rss = self.arena.objects(), len(asyncio.all_tasks()), rss_bytes()
        if self._objects is None:
            self._objects, self._tasks = objects, tasks
        if self.batches == WARM_BATCHES:
            self._rss = rss
        for what, now, before in (("objects", objects, self._objects), ("tasks", tasks, self._tasks)):
            if now > before:
                self.found.append(
                    Found(f"left over: {now} {what} where there were {before}", None, iteration)
                )
        if self._rss and rss - self._rss > MOST_GROWTH_BYTES:
            self.found.append(Found(f"memory: grown by {(rss - self._rss) >> 20} MiB", None, iteration))
            self._rss = rss


async def minimise(data: bytes, does_it: Callable[[bytes], Awaitable[bool]], deadline_s: float) -> bytes:
    """Delta debugging: leave out pieces, of half the data first and of one byte last, while it still does it."""
    size = max(len(data) // 2, 1)
    while True:
        at, is_smaller = 0, False
        while at < len(data):
            if time.monotonic() > deadline_s:
                return data
            candidate = data[:at] + data[at + size :]
            if candidate and await does_it(candidate):
                data, is_smaller = candidate, True
            else:
                at += size
        if size == 1 and not is_smaller:
            return data
        size = max(size // 2, 1)


def as_named_case(found: Found) -> str:
    """Write a finding as a line for the corpus."""
    name = "-".join(re.findall(r"[a-z]+", found.kind.lower())[:4]) or "found"
    case = found.case
    if isinstance(case, Lie):
        cuts = f", {case.cuts}" if case.cuts else ""
        late = (", late=True" if case.late else "") + (f", asks={case.asks!r}" if case.asks else "")
        return f'    "{name}": Lie({case.method!r}, {case.minor}, {case.data!r}{cuts}, then={case.then!r}{late}),'
    if isinstance(case, Stream):
        return f'    "{name}": {case.data!r},'
    return "    (no single case does it)"


def rss_bytes() -> int:
    """Return the memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
