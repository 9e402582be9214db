"""What all kinds of `bench.faults` share: a node to hurt, what is seen of it, moments over a run, and the outcome."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.numbered import ANSWERED, REFUSED, UNSENT, WRONG, Backend, Load
from bench.processes import Child, Children, free_ports, wait_until

START_S = 60.0
_LOOK_S = 0.02
Status = dict[str, Any]


@dataclass
class Outcome:
    """What one run showed: `recoveries_s` from each hurt to its end, `faults` that must not be, `notes` to read."""

    kind: str
    load: Load
    more: list[tuple[str, Load]] = field(default_factory=list)
    """Other loads of the same run, with what they are."""
    recoveries_s: list[float] = field(default_factory=list)
    recovery: str = "back to full strength in"
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Write it for a reader."""
        shown = [f"{self.kind}: {_line(self.load)}"]
        shown += [f"  {name}: {_line(load)}" for name, load in self.more]
        if self.recoveries_s:
            longest, mean = max(self.recoveries_s), sum(self.recoveries_s) / len(self.recoveries_s)
            shown.append(
                f"  {self.recovery} {mean:.2f} s on average, {longest:.2f} s at most ({len(self.recoveries_s)} times)"
            )
        shown += [f"  {note}" for note in self.notes]
        return shown + [f"  BROKEN: {fault}" for fault in self.faults]

    def require(self, is_so: bool, otherwise: str) -> None:
        """Note a promise that is broken."""
        if not is_so:
            self.faults.append(otherwise)

    def judge(self, *, refusals: bool = False, failures: bool = False, least: float = 0.0) -> None:
        """Judge the answers: none is ever wrong; refusals, other failures, and a share of them only where allowed."""
        for load in (self.load, *(load for _, load in self.more)):
            for name in (WRONG, UNSENT) if refusals else (WRONG, REFUSED, UNSENT):
                self.require(not load.outcomes[name], f"{load.outcomes[name]} {name}")
            self.require(load.outcomes[ANSWERED] > 0, "nothing was answered")
        self.require(failures or not self.load.failed, f"{self.load.failed} requests failed; none may")
        self.require(self.load.availability >= least, f"less than {least:.1%} answered")


def _line(load: Load) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in load.outcomes.most_common())
    return (
        f"{load.availability:.4%} of {load.outcomes.total():,} requests answered ({counts}); "
        f"p99 {p99_ms(load.took_s):.1f} ms, the slowest took {load.slowest_s:.2f} s"
    )


def p99_ms(times_s: list[float]) -> float:
    """Return the 99th percentile of times, in ms; 0 without any."""
    return sorted(times_s)[len(times_s) * 99 // 100] * 1e3 if times_s else 0.0


@dataclass
class Stage:
    """Where a run takes place. `events` is how often the kind's fault happens."""

    kind: str
    directory: Path
    children: Children
    options: argparse.Namespace
    events: int
    port: int = 0
    ops_port: int = 0
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        seconds: float = self.options.seconds
        return seconds

    def start(self, name: str, *arguments: str | Path) -> Child:
        """Start a program that is ended with the run."""
        return self.children.start(name, arguments, os.sched_getaffinity(0))

    async def start_node(self, *arguments: str | Path) -> Child:
        """Start the gateway; return when all of it serves, the spare worker included."""
        self.port, self.ops_port = free_ports(2)
        node = self.start(
            "node", sys.executable, "-m", "authgate_fast.cli", "run", "--workers", str(self.options.workers),
            "--listen", f"127.0.0.1:{self.port}", "--ops", f"127.0.0.1:{self.ops_port}",
            "--spare", "on" if self.options.spare else "off", *arguments,
        )  # fmt: skip
        await wait_for(node, lambda: "listens on" in node.log.read_text(), "listen")
        await self.until(
            lambda status: (
                status["ready"]
                and len(ready_pids(status)) == self.options.workers
                and (status["spare_ready"] or not self.options.spare)
            )
        )
        return node

    def config(self, text: str) -> Path:
        """Write a file of documents."""
        path = self.directory / "faults.yaml"
        path.write_text(text)
        return path

    def load(self, share: float = 1.0, **how: Any) -> Load:
        """Make the load, or a share of it."""
        connections = max(1, round(self.options.connections * share))
        return Load(self.port, connections, self.options.think_ms / 1e3, **how)

    async def status(self) -> Status:
        """Return what /status shows."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ops_port)
        try:
            writer.write(b"GET /status HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
        finally:
            writer.close()
        status: Status = json.loads(body)
        return status

    async def until(self, done: Callable[[Status], bool], bound_s: float = START_S) -> None:
        """Wait until /status shows something."""
        async with asyncio.timeout(bound_s):
            while not done(await self.status()):  # another process's fact
                await asyncio.sleep(_LOOK_S)

    async def until_whole(self, victim: int) -> None:
        """Wait until as many workers serve as should, without `victim`."""
        await self.until(lambda status: len(set(ready_pids(status)) - {victim}) == self.options.workers)

    async def beats(self, place: float = 0.5) -> AsyncIterator[int]:
        """Count the moments of the events, each at `place` of its part of the run; end when the run does."""
        begun_s = time.monotonic()
        part_s = self.seconds / self.events
        for number in range(self.events):
            await until_time(begun_s + (number + place) * part_s)
            yield number
        await until_time(begun_s + self.seconds)


def count_seen(outcome: Outcome, backend: Backend) -> None:
    """Judge what a backend in this process has seen."""
    lost = outcome.load.answered_numbers - set(backend.seen)
    outcome.require(not lost, f"{len(lost)} answers to requests that no backend has seen")


def ready_pids(status: Status) -> list[int]:
    """Return the workers that serve."""
    return [worker["pid"] for worker in status["workers"] if worker["state"] == "ready"]


async def until_time(at_s: float) -> None:
    """Wait for a moment of `time.monotonic`."""
    await asyncio.sleep(max(0.0, at_s - time.monotonic()))


async def wait_for(child: Child, is_done: Callable[[], bool], what: str) -> None:
    """Wait until something is so, as long as the child lives."""
    await asyncio.to_thread(wait_until, child, is_done, what, START_S)
