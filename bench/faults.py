"""What a node loses when it is hurt under load: ``python -m bench.faults [KIND...]``.

Starts the gateway with ``--workers N`` before a backend that counts, keeps C clients busy whose every answer is
checked (`bench.numbered`), and does one of what `KINDS` has.

Prints what became of the requests. Exit codes: 0; 1 a promise was broken; 2 usage; 3 it did not get to
its end. It listens on free ports of 127.0.0.1 only, is bounded by its options, and ends all that it started.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from asyncio import Runner
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import faults_backends, faults_redis, faults_soak, faults_tls, faults_workers
from bench.faults_stage import Outcome, Stage
from bench.processes import BenchError, Children


@dataclass(frozen=True)
class Kind:
    """A fault, what it is in words, how often it happens in a run, and how long the run is."""

    run: Callable[[Stage], Awaitable[Outcome]]
    what: str
    events: int = 1
    seconds: float = 60.0


KINDS = {
    "kills": Kind(faults_workers.kills, "a worker is killed; the time until all serve again is measured", 20),
    "reloads": Kind(faults_workers.reloads, "SIGHUP", 20),
    "term": Kind(faults_workers.term, "SIGTERM, half-way: what was read is answered, and nothing else is"),
    "hang": Kind(faults_workers.hang, "a worker is stopped (SIGSTOP)"),
    "backend": Kind(faults_backends.backend, "one backend of three is killed and comes back", 20),
    "gone": Kind(faults_backends.gone, "the only backend is gone for 0.4 s", 4),
    "redis": Kind(faults_redis.redis_away, "Redis is killed and comes back with its data", 3),
    "certificates": Kind(faults_tls.certificates, "the certificate of TLS clients is replaced", 5),
    "documents": Kind(faults_redis.documents, "stretches in which 10,000 documents are changed in all", 6),
    "soak": Kind(faults_soak.soak, "ten minutes of mixed traffic; reloads early on", 3, 600.0),
}


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults",
        description="What a node loses when it is hurt.",
        epilog="Kinds, with how often it happens in a run:\n"
        + "\n".join(f"  {name:<13}{kind.what} ({kind.events})" for name, kind in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: all")
    parser.add_argument("--seconds", type=float, help="default: 60, for the soak 600")
    parser.add_argument("--events", type=int, help="how often it happens")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--think-ms", type=float, default=20.0, help="a client's pause between two requests")
    options = parser.parse_args()
    wrong = set(options.kinds) - set(KINDS)
    if wrong:
        parser.error(f"no such kind: {', '.join(sorted(wrong))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # what was started is ended on every way out
    broken = False
    for name in options.kinds or KINDS:
        try:
            outcome = run(
                name,
                seconds=options.seconds,
                events=options.events,
                connections=options.connections,
                workers=options.workers,
                think_ms=options.think_ms,
            )
        except (BenchError, TimeoutError) as error:
            print(
                f"{name}: did not get to its end: {str(error) or 'something took too long'}", file=sys.stderr
            )
            return 3
        print("\n".join(outcome.lines()), flush=True)
        for load in (outcome.load, *(load for _, load in outcome.more)):
            for example in load.examples[:5]:
                print(f"    {example[:300]}")
        broken = broken or bool(outcome.faults)
    return 1 if broken else 0


def run(
    name: str,
    *,
    seconds: float | None = None,
    events: int | None = None,
    connections: int = 100,
    workers: int = 2,
    think_ms: float = 20.0,
    timed: bool = True,
    spare: bool = True,
) -> Outcome:
    """Do one run. `timed`: judge how long things took (on a busy machine that says little). `spare`: keep one."""
    kind = KINDS[name]
    settings = argparse.Namespace(
        seconds=seconds or kind.seconds,
        connections=connections,
        workers=workers,
        think_ms=think_ms,
        timed=timed,
        spare=spare,
    )
    with (
        tempfile.TemporaryDirectory(prefix="authgate-faults-") as directory,
        Children(Path(directory)) as children,
        Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        stage = Stage(name, Path(directory), children, settings, kind.events if events is None else events)

        async def play() -> Outcome:
            return await kind.run(stage)

        return runner.run(play())


if __name__ == "__main__":
    sys.exit(main())
