"""What each step of a request costs, in nanoseconds, without sockets: ``python -m bench.micro``.

A process for each build that is compared waits for orders; a round asks every process in turn for one sample of each
case, so that a machine that becomes slower or faster touches all alike. The median over the rounds is printed, and
of ratios the median of those within a round. Exit codes are those of ``python -m bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from bench.builds import ROOT, build_here, build_revision
from bench.micro_cases import CASES
from bench.processes import STOP_SIGNALS, BenchError, MissingToolError

_SAMPLE_S = 0.004
_MOST_LOOPS = 2_000  # a connection's request number has one look from 4,096 on
_ANSWER_S = 60.0
Samples = dict[str, list[list[float]]]
"""By case, then by build: a figure for each round."""


class Runner:
    """A process that runs the cases with one build; a context manager that ends it."""

    def __init__(self, name: str, build: Path, cases: Sequence[str]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "bench.micro_cases", *cases],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            # The build before the checkout, whose directory must not come first by itself.
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{build}{os.pathsep}{ROOT}"},
            start_new_session=True,
        )
        self.cases: list[str] = []
        self.missing: dict[str, str] = {}
        self.is_compiled = False

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.kill()
        self._popen.communicate()

    def greet(self) -> None:
        """Wait until the cases are prepared."""
        about = json.loads(self._answer())
        self.cases = about["cases"]
        self.missing = about["missing"]
        self.is_compiled = about["compiled"]

    def sample(self, case: str, loops: int) -> float:
        """Return the nanoseconds of one call."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(f"{case} {loops}\n")
        except BrokenPipeError:
            raise BenchError(f"{self.name}: its process has ended by itself") from None
        return float(self._answer())

    def _answer(self) -> str:
        assert self._popen.stdout is not None
        ready, _, _ = select.select([self._popen.stdout], [], [], _ANSWER_S)
        line = self._popen.stdout.readline() if ready else ""
        if not line:
            raise BenchError(f"{self.name}: its process {'ended by itself' if ready else 'did not answer'}")
        return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench from the command line."""
    options = _parser().parse_args(arguments)
    names = [name for name in CASES if not options.only or any(part in name for part in options.only)]
    if not names:
        print(
            f"bench: no case has {' or '.join(options.only)} in its name: {', '.join(CASES)}", file=sys.stderr
        )
        return 2
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        return _run(options, names)
    except MissingToolError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything it started has ended", file=sys.stderr)
        return 130


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro", description="Time the steps of a request, without sockets."
    )
    parser.add_argument("--rounds", type=_rounds, default=25, help="samples of each case (default 25)")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="cases with this in their names; may be repeated",
    )
    parser.add_argument("--against", metavar="REV", help="also time this git revision, and print ratios")
    parser.add_argument("--pure", action="store_true", help="time the sources, not the compiled build")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every sample to this file")
    return parser


def _rounds(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1_000:
        raise argparse.ArgumentTypeError("must be between 1 and 1000")
    return number


def _run(options: argparse.Namespace, names: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as directory, ExitStack() as stack:
        builds = [("here", build_here(compiled=not options.pure))]
        if options.against is not None:
            source = build_revision(options.against, Path(directory) / "against", compiled=not options.pure)
            builds.append((options.against, _without_bench(source)))
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cpus)})  # one core, and so one clock and cache, for all
        try:
            runners = [stack.enter_context(Runner(name, build, names)) for name, build in builds]
            for runner in runners:
                runner.greet()
        finally:
            os.sched_setaffinity(0, cpus)
        for runner in runners:
            for name, why in runner.missing.items():
                print(f"{runner.name} has no {name}: {why}")
        samples = _measure(runners, names, options.rounds)
        kinds = [f"{runner.name} {'compiled' if runner.is_compiled else 'pure'}" for runner in runners]
    print(_render(samples, kinds))
    if options.json:
        options.json.write_text(json.dumps({"builds": kinds, "ns": samples}, indent=1) + "\n")
    return 0 if samples else 1


def _without_bench(source: Path) -> Path:
    """Hide the revision's own bench: the cases are those of the checkout."""
    bench = source / "bench"
    if bench.exists():
        bench.rename(source / "bench.of-revision")
    return source


def _measure(runners: list[Runner], names: list[str], rounds: int) -> Samples:
    """Take the samples; the builds take turns, and who begins changes with every round."""
    loops = {}
    for name in names:
        for runner in runners:
            if name in runner.cases:
                runner.sample(name, 200)  # memory, branches and caches learn the case
        if name in runners[0].cases:
            one_ns = runners[0].sample(name, 50)
            loops[name] = int(min(max(_SAMPLE_S * 1e9 / max(one_ns, 1.0), 10), _MOST_LOOPS))
    samples: Samples = {name: [[] for _ in runners] for name in loops}
    for number in range(rounds):
        turn = number % len(runners)
        order = [*range(turn, len(runners)), *range(turn)]
        for name in samples:
            for at in order:
                if name in runners[at].cases:
                    samples[name][at].append(runners[at].sample(name, loops[name]))
    return samples


def _render(samples: Samples, kinds: list[str]) -> str:
    """Write the table: nanoseconds of each build, and how they compare (above 1: here is quicker)."""
    width = max(len(name) for name in CASES)
    head = f"{'ns, median':<{width}}" + "".join(f"  {kind:>14}" for kind in kinds)
    lines = [head + ("  theirs/ours (lowest to highest)" if len(kinds) > 1 else "  what")]
    for name, (ours, *others) in samples.items():
        line = f"{name:<{width}}  {statistics.median(ours):>14,.0f}"
        if len(kinds) == 1:
            line += f"  {CASES[name][0]}"
        for theirs in others:
            if not theirs:
                line += f"  {'-':>14}"
                continue
            ratios = sorted(their / our for their, our in zip(theirs, ours, strict=True))
            line += f"  {statistics.median(theirs):>14,.0f}  {statistics.median(ratios):.3f}"
            line += f" ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
