"""Mixed traffic for a long while, and what the node holds meanwhile: memory, descriptors, tasks.

Reloads come in the first sixth only, so that the workers then have the rest of the run to grow in; the documents
change all the time. What is held is compared between two fifths of the run, the second and the last, by their medians,
and with what was held, warm and idle, before the load.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import soak_clients as clients
from bench.faults_stage import Outcome, Stage, until_time, wait_for
from bench.faults_workers import reloaded
from bench.load import memory_mb
from bench.processes import Child, accepts, free_ports

SAMPLES = 100
EDITS = 30
RELOADS_AT = (0.03, 0.08, 0.13)
WARM_UP = 0.05
"""Of the run: the first pass over all that grows once."""
GROWTH = 1.05
GROWTH_MB = 4.0
"""What the allocators of a node may differ by; a leak of 100 bytes per request would be more after ten minutes."""
MAX_LEFT_MB = 12.0
"""What the allocators may keep after the load."""
SPREAD = 1.2
SPREAD_COUNT = 15
"""Open files and tasks go with the clients that happen to be there, of whom some always come and go."""
SETTLE_S = 30.0
_KINDS: dict[clients.Kind, float] = {
    clients.body: 0.12, clients.slow_reader: 0.06, clients.abort: 0.08, clients.refused: 0.05, clients.tunnel: 0.05,
}  # fmt: skip
_KEPT, _NEW = 0.5, 0.14


@dataclass(frozen=True)
class Held:
    """What a node holds at one moment."""

    memory_mb: float
    descriptors: int
    tasks: int
    connections: int
    tunnels: int

    def __str__(self) -> str:
        return (
            f"{self.memory_mb:.1f} MB, {self.descriptors} descriptors, {self.tasks} tasks, "
            f"{self.connections} connections, {self.tunnels} tunnels"
        )


def _config(backend_port: int, edit: int) -> str:
    return f"""\
gateways:
  shop:
    hosts: ["*"]
    auth: {{type: API_KEY}}
    services:
      backend: {{target_url: "http://127.0.0.1:{backend_port}"}}
    routes:
      open: {{method: ANY, public_path: "/open/{{any*}}", target_path: "/{{any*}}", service: backend, security: PUBLIC}}
      closed: {{method: GET, public_path: "/closed/{{x*}}", target_path: "/{{x*}}", service: backend, security: SECURE}}
      edited: {{method: GET, public_path: "/edited/{edit}", target_path: "/{edit}", service: backend, security: PUBLIC}}
    consumers:
      app: {{api_key_sha256: "{hashlib.sha256(clients.KEY.encode()).hexdigest()}"}}
      edited: {{api_key_sha256: "{hashlib.sha256(b"%d" % edit).hexdigest()}"}}
"""


async def _hold(stage: Stage, node: Child) -> Held:
    status = await stage.status()
    pids = [node.pid, *(worker["pid"] for worker in status["workers"])]
    descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return Held(memory_mb(node.pid), descriptors, status["tasks"], status["connections"], status["tunnels"])


async def _settled(stage: Stage, node: Child, wanted: Held | None = None) -> Held:
    """Return what is held when nobody is there: no more than `wanted`, or no change for a while."""
    deadline_s = time.monotonic() + SETTLE_S
    held = await _hold(stage, node)
    same = 0
    while time.monotonic() < deadline_s and same < 15:
        if wanted is not None and not _more(held, wanted):
            break
        await asyncio.sleep(0.1)
        now = await _hold(stage, node)
        is_same = (now.descriptors, now.tasks, now.connections) == (
            held.descriptors,
            held.tasks,
            held.connections,
        )
        same = same + 1 if is_same and wanted is None else 0
        held = now
    return held


def _more(held: Held, wanted: Held) -> list[str]:
    """Say what of the countable is more than it was."""
    return [
        f"{now} {name} after the load, {before} before"
        for name in ("descriptors", "tasks", "connections", "tunnels")
        if (now := getattr(held, name)) > (before := getattr(wanted, name))
    ]


@asynccontextmanager
async def _traffic(stage: Stage) -> AsyncIterator[tuple[Outcome, clients.Mixed]]:
    """Have all kinds of clients at the node until the block ends."""
    think_s = stage.options.think_ms / 1e3
    kept = stage.load(_KEPT)
    new = stage.load(_NEW, first_number=1_000_000_000, renew_every=1)
    mixed = clients.Mixed(stage.port)
    async with kept, new:
        counts = {kind: max(1, round(stage.options.connections * share)) for kind, share in _KINDS.items()}
        mixed.start(counts, think_s * 5)
        try:
            yield Outcome(stage.kind, kept, [("a connection for each", new)]), mixed
        finally:
            await mixed.stop()


async def soak(stage: Stage) -> Outcome:
    """Run it."""
    (backend_port,) = free_ports(1)
    backend = stage.start("backend", sys.executable, "-m", "bench.soak_backend", str(backend_port))
    await wait_for(backend, lambda: accepts(backend_port), "listen")
    config = stage.config(_config(backend_port, 0))
    node = await stage.start_node(
        "--config", config, "--limit", "pool_idle_timeout_s=1", "--limit", "max_failures_per_address=1000000000",
    )  # fmt: skip
    async with _traffic(stage) as (_, mixed):
        await asyncio.sleep(max(1.0, WARM_UP * stage.seconds) if stage.options.timed else 0.5)
    before = await _settled(stage, node)
    samples: list[Held] = []
    async with _traffic(stage) as (outcome, mixed):
        hurting = asyncio.create_task(_reload_and_edit(stage, node, mixed, config, backend_port))
        begun_s = time.monotonic()
        for number in range(SAMPLES):
            await until_time(begun_s + (number + 1) * stage.seconds / SAMPLES)
            samples.append(await _hold(stage, node))
        edits, reloads = await hurting
    after = await _settled(stage, node, before)
    outcome.judge()
    outcome.faults += mixed.faults[:10]
    outcome.notes.append(
        f"{len(mixed.faults)} faults in "
        + ", ".join(f"{count:,} {name}" for name, count in sorted(mixed.counts.items()))
        + f"; {reloads} reloads, {edits} edits of the documents"
    )
    outcome.notes += [f"before: {before}", f"after:  {after}"]
    outcome.faults += _more(after, before)
    _judge_growth(outcome, samples, timed=stage.options.timed)
    if stage.options.timed:
        grown_mb = after.memory_mb - before.memory_mb
        outcome.require(grown_mb <= MAX_LEFT_MB, f"{grown_mb:.1f} MB more after the load than before it")
    return outcome


async def _reload_and_edit(
    stage: Stage, node: Child, mixed: clients.Mixed, config: Path, backend_port: int
) -> tuple[int, int]:
    """Edit the documents all the time, and reload early; return how often."""
    begun_s = time.monotonic()
    moments = [(at * stage.seconds, True) for at in RELOADS_AT[: stage.events]]
    moments += [((number + 0.5) * stage.seconds / EDITS, False) for number in range(EDITS)]
    edits = reloads = 0
    for at_s, is_reload in sorted(moments):
        await until_time(begun_s + at_s)
        if is_reload:
            mixed.is_reloading = True
            os.kill(node.pid, signal.SIGHUP)
            reloads += 1
            await reloaded(node, reloads)
            await asyncio.sleep(0.5)  # a tunnel that is told goodbye takes a moment to see it
            mixed.is_reloading = False
        else:
            edits += 1
            new = config.with_suffix(".new")
            new.write_text(_config(backend_port, edits))
            new.replace(config)
    return edits, reloads


def _judge_growth(outcome: Outcome, samples: list[Held], *, timed: bool) -> None:
    """Compare the medians of the second and of the last fifth of the run."""
    fifth = len(samples) // 5
    parts = [samples[at * fifth : (at + 1) * fifth] for at in range(5)]

    def medians(name: str, of: Callable[[Held], float], factor: float, more: float) -> None:
        median = [statistics.median(of(held) for held in part) for part in parts]
        early, late = median[1], median[-1]
        bound = early * factor + more
        outcome.notes.append(
            f"{name}: medians of the fifths of the run {', '.join(f'{one:.1f}' for one in median)}; the last may be "
            f"{bound:.1f}"
        )
        outcome.require(late <= bound or not timed, f"{name} not flat: {early:.1f}, later {late:.1f}")

    medians("memory, MB", lambda held: held.memory_mb, GROWTH, GROWTH_MB)
    medians("descriptors", lambda held: held.descriptors, SPREAD, SPREAD_COUNT)
    medians("tasks", lambda held: held.tasks, SPREAD, SPREAD_COUNT)
