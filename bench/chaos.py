"""Numbered requests while backends are killed, restarted and made to lie: ``python -m bench.chaos``.

Starts the gateway and some backends as processes of their own, keeps clients at it, and judges each answer
(`bench.chaos_client`), what the backends saw, and what the gateway holds afterwards. The seed decides what is asked,
who lies how, and who is killed when; the machine decides how these meet.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos_backend import SHORT_MARK
from bench.chaos_client import IDEMPOTENT, Asked, Tally, batches, talk
from bench.processes import BenchError, Child, Children, accepts, free_ports, wait_until

START_S = 20.0
SETTLE_S = 15.0
STEADY_S = 3.0
"""More than an unused connection to a backend is kept here, so that none is left."""
MAX_GROWTH_MB = 12.0
"""What the allocator may keep after the worst of it; a leak of a kilobyte per request would be as much again."""
_LIMITS = (
    "first_byte_timeout_s=1.5",
    "between_bytes_timeout_s=1.5",
    "connect_timeout_s=2",
    "pool_idle_timeout_s=1",
)


@dataclass
class Report:
    """The result. `faults` says in words what must not be."""

    tally: Tally
    kills: int
    lies: Counter[str]
    before: tuple[float, int]
    """Megabytes and descriptors of the gateway, warm and idle; `after` the same at the end."""
    after: tuple[float, int]
    took_s: float
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Write it for a reader."""
        counts = self.tally.counts
        return [
            f"{self.tally.judged} requests came to an end in {self.took_s:.1f} s: {counts['right']} right, "
            f"{counts['refused']} refused, {counts['cut']} visibly cut, "
            f"{counts['shortened']} shortened by their backend",
            f"{counts['unserved']} more were pipelined behind an answer that ended their connection",
            f"{self.kills} kills; {sum(self.lies.values())} lies: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(self.lies.items())),
            f"gateway: {self.before[0]:.1f} MB and {self.before[1]} descriptors before, "
            f"{self.after[0]:.1f} MB and {self.after[1]} after",
            *(f"FAULT {fault}" for fault in self.faults),
        ]


class Backends:
    """The backend processes; a context manager that leaves none behind."""

    def __init__(self, directory: Path, count: int, seed: int) -> None:
        self._directory = directory
        self._seed = seed
        self._starts = 0
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.ports = free_ports(count)
        self.kills = 0

    def __enter__(self) -> Backends:
        for at in range(len(self.ports)):
            self.start(at)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, at: int) -> None:
        """Start backend number `at` on its port."""
        self._starts += 1
        arguments = [
            str(self.ports[at]),
            str(self._seed * 1_000 + self._starts),
            str(self._directory / f"seen-{at}"),
        ]
        with (self._directory / "backends.log").open("ab") as log:
            self._processes[at] = subprocess.Popen(
                [sys.executable, "-m", "bench.chaos_backend", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, at: int) -> None:
        """Kill it as the kernel would."""
        self._processes[at].kill()
        self._processes[at].wait()
        self.kills += 1

    def seen(self) -> Iterator[tuple[str, int, str]]:
        """Yield each line that any of them wrote: S (seen) or L (lied), the number, the method or the lie."""
        for at in range(len(self.ports)):
            for line in (self._directory / f"seen-{at}").read_text().splitlines():
                mark, number, word = line.split(" ", 2)
                yield mark, int(number), word


def _config(ports: list[int]) -> str:
    lines = ["gateways:", "  chaos:", '    hosts: ["*"]', "    auth: {type: API_KEY}", "    services:"]
    lines += [f'      b{at}: {{target_url: "http://127.0.0.1:{port}"}}' for at, port in enumerate(ports)]
    lines.append("    routes:")
    for at in range(len(ports)):
        lines.append(
            f'      r{at}: {{method: ANY, public_path: "/s{at}/{{rest*}}", target_path: "/{{rest*}}", '
            f"service: b{at}, security: PUBLIC}}"
        )
    return "\n".join(lines) + "\n"


def _start_gateway(children: Children, directory: Path, ports: list[int]) -> tuple[Child, int]:
    (port,) = free_ports(1)
    config = directory / "chaos.yaml"
    config.write_text(_config(ports))
    limits = [argument for limit in _LIMITS for argument in ("--limit", limit)]
    gateway = children.start(
        "gateway",
        [
            sys.executable, "-m", "authgate_fast.cli", "run", "--config", config, "--listen", f"127.0.0.1:{port}",
            "--ops", "127.0.0.1:0", "--spare", "off", *limits,
        ],
        os.sched_getaffinity(0),
    )  # fmt: skip
    # All workers: what they hold idle is measured first, and a spare would come at any time.
    wait_until(gateway, lambda: "listens on" in gateway.log.read_text(), "listen", START_S)
    return gateway, port


def _held(pid: int) -> tuple[float, int]:
    """Return megabytes and descriptors of a process and its children."""
    total_kb = descriptors = 0
    for process in (pid, *_children_of(pid)):
        directory = Path("/proc") / str(process)
        status = (directory / "status").read_text()
        total_kb += int(status.partition("VmRSS:")[2].split()[0])
        descriptors += len(list((directory / "fd").iterdir()))
    return total_kb / 1_024, descriptors


def _children_of(pid: int) -> list[int]:
    text = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text()
    return [int(child) for child in text.split()]


async def _settled(pid: int, descriptors: int = 0) -> tuple[float, int]:
    """Return what the gateway holds once it is no more than `descriptors`, or has not changed for `STEADY_S`."""
    deadline = time.monotonic() + SETTLE_S
    held = _held(pid)
    since = time.monotonic()
    while held[1] > descriptors and time.monotonic() < min(deadline, since + STEADY_S):
        await asyncio.sleep(0.1)
        now = _held(pid)
        if now[1] != held[1]:
            since = time.monotonic()
        held = now
    return held


async def _kill_at_random(backends: Backends, random_: random.Random, every_s: float) -> None:
    while True:
        await asyncio.sleep(random_.uniform(0.3, 1.7) * every_s)
        at = random_.randrange(len(backends.ports))
        backends.kill(at)
        await asyncio.sleep(random_.uniform(0.0, 0.3))
        backends.start(at)


async def _load(port: int, tally: Tally, connections: int, work: Iterator[list[Asked]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(talk(port, work, tally))


async def _run(
    gateway: Child,
    port: int,
    backends: Backends,
    requests: int,
    connections: int,
    seed: int,
    kill_every_s: float,
) -> Report:
    random_ = random.Random(seed)
    numbers = itertools.count(1)
    services = len(backends.ports)
    tally = Tally()
    # The first pass over all that grows once: buffers, memos, the interpreter's own pools.
    warm_up = min(requests, connections * 5)
    await _load(port, tally, connections, batches(numbers, tally, warm_up, services, random_))
    before = await _settled(gateway.pid)
    warm = tally.judged + len(tally.faults)
    started = time.monotonic()
    killer = asyncio.create_task(_kill_at_random(backends, random_, kill_every_s))
    try:
        await _load(port, tally, connections, batches(numbers, tally, warm + requests, services, random_))
    finally:
        killer.cancel()
    took_s = time.monotonic() - started
    gateway.check_alive()
    after = await _settled(gateway.pid, before[1])
    report = Report(tally, backends.kills, Counter(), before, after, took_s)
    _judge_the_rest(report, backends)
    return report


def _judge_the_rest(report: Report, backends: Backends) -> None:
    """What no single answer shows: how often a request was seen, who shortened it, and what the gateway still holds."""
    tally = report.tally
    faults = report.faults = list(tally.faults)
    seen: Counter[int] = Counter()
    shorteners = set()
    for mark, number, word in backends.seen():
        if mark == "S":
            seen[number] += 1
            if word.encode() != tally.methods.get(number):
                faults.append(f"{number}: a backend saw {word}, which nobody sent")
        else:
            report.lies[word] += 1
            if word == SHORT_MARK:
                shorteners.add(number)
    for number, times in seen.items():
        if times > (2 if tally.methods.get(number) in IDEMPOTENT else 1):
            faults.append(f"{number}: {tally.methods.get(number)!r} was seen {times} times")
    faults += [f"{number}: shortened by the gateway" for number in tally.shortened - shorteners]
    if report.after[1] > report.before[1]:
        faults.append(f"{report.after[1]} descriptors at the end, {report.before[1]} at the start")
    if report.after[0] > report.before[0] + MAX_GROWTH_MB:
        faults.append(f"memory grew by {report.after[0] - report.before[0]:.1f} MB")


def run(requests: int, connections: int, backends: int, seed: int, kill_every_s: float) -> Report:
    """Do one whole run, and leave nothing behind."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authgate-chaos-")))
        children = stack.enter_context(Children(directory))
        group = stack.enter_context(Backends(directory, backends, seed))
        deadline = time.monotonic() + START_S
        while not all(accepts(port) for port in group.ports):
            if time.monotonic() > deadline:
                raise BenchError(f"the backends did not listen within {START_S:g} s")
            time.sleep(0.05)
        gateway, port = _start_gateway(children, directory, group.ports)
        return asyncio.run(_run(gateway, port, group, requests, connections, seed, kill_every_s))


def main() -> int:
    """Run it as a command."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--backends", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kill-every", type=float, default=1.0, metavar="S", help="seconds between two kills, about"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        report = run(
            options.requests, options.connections, options.backends, options.seed, options.kill_every
        )
    except BenchError as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    print("\n".join(report.lines()))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
