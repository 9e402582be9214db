"""What a node loses when it is hurt under load: ``python -m bench.faults [KIND...]``.

Starts the gateway with ``--workers N`` before a backend that counts, keeps C clients busy whose every answer is
checked (`bench.numbered`), and does one of:

kills    a worker is killed, 20 times spread over the run; the time until all serve again is measured each time
reloads  SIGHUP, 20 times
term     SIGTERM, half-way: whatever was read is answered, and nothing else is
hang     a worker is stopped (SIGSTOP), once

Prints what became of the requests. Exit codes: 0; 1 a promise was broken; 2 usage. It listens on free ports of
127.0.0.1 only, is bounded by its options, and ends all that it started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.numbered import ANSWERED, CUT, REFUSED, UNSENT, WRONG, Backend, Load, gateway_file
from bench.processes import Child, Children, free_ports, wait_until

KINDS = ("kills", "reloads", "term", "hang")
EVENTS = 20
START_S = 60.0
STRENGTH_S = 2.0
AVAILABILITY = 0.998


@dataclass
class Outcome:
    """What one run showed. `recoveries_s`: from a worker's end to full strength."""

    kind: str
    load: Load
    seen_twice: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        counts = ", ".join(f"{count} {name}" for name, count in self.load.outcomes.most_common())
        shown = [
            f"{self.kind}: {self.load.availability:.4%} of {self.load.outcomes.total()} requests answered ({counts}); "
            f"the slowest took {self.load.slowest_s:.2f} s"
        ]
        if self.recoveries_s:
            longest, mean = max(self.recoveries_s), sum(self.recoveries_s) / len(self.recoveries_s)
            shown.append(f"  back to full strength in {mean:.2f} s on average, {longest:.2f} s at most")
        return shown + [f"  BROKEN: {fault}" for fault in self.faults]


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults", description="What a node loses when it is hurt."
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--think-ms", type=float, default=20.0, help="a client's pause between two requests")
    options = parser.parse_args()
    wrong = set(options.kinds) - set(KINDS)
    if wrong:
        parser.error(f"no such kind: {', '.join(sorted(wrong))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # what was started is ended on every way out
    broken = False
    for kind in options.kinds or KINDS:
        outcome = asyncio.run(_run(kind, options))
        print("\n".join(outcome.lines()), flush=True)
        for example in outcome.load.examples[:5]:
            print(f"    {example}")
        broken = broken or bool(outcome.faults)
    return 1 if broken else 0


async def _run(kind: str, options: argparse.Namespace) -> Outcome:
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        async with Backend() as backend:
            config = Path(name) / "faults.yaml"
            config.write_text(gateway_file(backend.port))
            (port, ops_port) = free_ports(2)
            node = await _start(children, "node", config, port, ops_port, options.workers)
            async with Load(port, options.connections, options.think_ms / 1e3) as load:
                outcome = Outcome(kind, load)
                await HURTS[kind](outcome, node, ops_port, options)
            outcome.seen_twice = sum(count > 1 for count in backend.seen.values())
            _judge(outcome, options)
            lost = load.answered_numbers - set(backend.seen)
            if lost:
                outcome.faults.append(f"{len(lost)} answers to requests that no backend has seen")
            return outcome


def _judge(outcome: Outcome, options: argparse.Namespace) -> None:
    load = outcome.load
    for name in (WRONG, REFUSED, UNSENT):
        if load.outcomes[name]:
            outcome.faults.append(f"{load.outcomes[name]} {name}")
    if outcome.kind in {"reloads", "term"} and load.failed:
        outcome.faults.append(f"{load.failed} requests failed; none may")
    if load.availability < AVAILABILITY:
        outcome.faults.append(f"less than {AVAILABILITY:.1%} answered")
    if outcome.kind == "kills" and max(outcome.recoveries_s, default=0.0) > STRENGTH_S:
        outcome.faults.append(f"not back to full strength within {STRENGTH_S:g} s")
    if load.outcomes[CUT] > options.connections * len(outcome.recoveries_s):
        outcome.faults.append("more answers were cut than killed workers can have held")
    if not load.outcomes[ANSWERED]:
        outcome.faults.append("nothing was answered")


async def _start(
    children: Children, name: str, config: Path, port: int, ops_port: int, workers: int
) -> Child:
    node = children.start(
        name,
        [
            sys.executable, "-m", "authgate_fast.cli", "run", "--config", config, "--workers", str(workers),
            "--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}",
        ],
        os.sched_getaffinity(0),
    )  # fmt: skip
    await asyncio.to_thread(wait_until, node, lambda: "listens on" in node.log.read_text(), "listen", START_S)
    await _until(lambda status: bool(status["spare_ready"]), ops_port)
    return node


async def _status(ops_port: int) -> dict[str, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", ops_port)
    try:
        writer.write(b"GET /status HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
    status: dict[str, object] = json.loads(body)
    return status


async def _until(done: Callable[[dict[str, object]], bool], ops_port: int, bound_s: float = START_S) -> None:
    async with asyncio.timeout(bound_s):
        while not done(await _status(ops_port)):  # another process's fact
            await asyncio.sleep(0.02)


async def _until_whole(ops_port: int, workers: int, victim: int) -> None:
    """Wait until as many workers serve as should, without `victim`."""
    await _until(lambda status: len(set(_pids(status)) - {victim}) == workers, ops_port)


def _pids(status: dict[str, object]) -> list[int]:
    """Return the workers that serve."""
    workers = status["workers"]
    assert isinstance(workers, list)
    return [worker["pid"] for worker in workers if worker["state"] == "ready"]


async def _beats(seconds: float) -> AsyncIterator[int]:
    """Count `EVENTS` moments that are spread over the run, with quiet at both ends."""
    begun_s = time.monotonic()
    for number in range(EVENTS):
        await asyncio.sleep(max(0.0, begun_s + (number + 0.5) * seconds / EVENTS - time.monotonic()))
        yield number
    await asyncio.sleep(max(0.0, begun_s + seconds - time.monotonic()))


async def _kills(outcome: Outcome, node: Child, ops_port: int, options: argparse.Namespace) -> None:
    async for number in _beats(options.seconds):
        pids = _pids(await _status(ops_port))
        victim = pids[number % len(pids)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        begun_s = time.monotonic()
        await _until_whole(ops_port, options.workers, victim)
        outcome.recoveries_s.append(time.monotonic() - begun_s)


async def _reloads(outcome: Outcome, node: Child, ops_port: int, options: argparse.Namespace) -> None:
    async for number in _beats(options.seconds):
        await _reloaded(node, number)
        os.kill(node.pid, signal.SIGHUP)
    await _reloaded(node, EVENTS)


async def _reloaded(node: Child, count: int) -> None:
    def is_done() -> bool:
        return node.log.read_text().count(" workers replaced in ") >= count

    await asyncio.to_thread(wait_until, node, is_done, "reload", START_S)


async def _term(outcome: Outcome, node: Child, ops_port: int, options: argparse.Namespace) -> None:
    await asyncio.sleep(options.seconds / 2)
    os.kill(node.pid, signal.SIGTERM)
    # There is nowhere else to go: the clients stop as soon as the node takes no more.
    stopping = asyncio.create_task(outcome.load.stop())
    code = await asyncio.to_thread(node.popen.wait, 60)
    await stopping
    if code:
        outcome.faults.append(f"exit code {code}")


async def _hang(outcome: Outcome, node: Child, ops_port: int, options: argparse.Namespace) -> None:
    await asyncio.sleep(options.seconds / 4)
    victim = _pids(await _status(ops_port))[0]
    os.kill(victim, signal.SIGSTOP)
    begun_s = time.monotonic()
    await _until_whole(ops_port, options.workers, victim)
    outcome.recoveries_s.append(time.monotonic() - begun_s)
    await asyncio.sleep(max(0.0, options.seconds / 4))


HURTS = {"kills": _kills, "reloads": _reloads, "term": _term, "hang": _hang}


if __name__ == "__main__":
    sys.exit(main())
