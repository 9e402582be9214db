"""The run: case after case, start everything, check that each contestant does the work, drive them in turn, report.

Contestants take turns within a round, and the order moves on by one with every round, so that a machine
which becomes slower or faster touches all alike. Everything is bounded by rounds and seconds, and whatever
happens, all that was started is ended. Exit codes: 0; 1 the work was not done right; 2 usage; 3 the machine
lacks something; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench import sync
from bench.builds import ROOT, build_here, build_revision
from bench.cases import CASES, DOWNLOAD, IDLE, PACED, PEER_NAMES, SYNC, WRK, Case
from bench.certificate import make_certificate
from bench.check import check_case
from bench.credentials import CREDENTIALS, check_of
from bench.drivers import DRIVERS, drive, prepare, start_sink
from bench.gateway import documents_of, start_gateway
from bench.ground import Contestant, Ground, find_envoy, find_tool, key_check, lua_modules
from bench.load import Sample
from bench.machine import describe
from bench.nginx import start_backend
from bench.peers import PEERS
from bench.processes import STOP_SIGNALS, BenchError, Children, MissingToolError
from bench.report import Outcome, as_json, doubts, faults, render
from bench.results import render_results
from bench.workload import DISTINCT_REQUESTS, Consumer, make_consumers

_WARM_UP_S = 1.0
_WARM_UPS = 10
_TOP_RATE_S = 2.0
_SYNC_ROUTES = 1_000
_SYNC_WRITES = 200
OURS = "authgate"
LOGGED = f"{OURS}+log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench from the command line."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{case.name:<18} {case.about}" for case in CASES.values()))
        return 0
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        return _run(options, list(sys.argv[1:] if arguments is None else arguments))
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
        prog="python -m bench", description="Measure the gateway beside nginx with Lua, HAProxy and Envoy."
    )
    parser.add_argument(
        "--cases",
        type=partial(_names, "case", list(CASES)),
        default=list(CASES),
        help="which cases, with commas between (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="say which cases there are, and end")
    parser.add_argument("--rounds", type=_between(1, 100), default=5, help="rounds (default 5)")
    parser.add_argument(
        "--seconds", type=_between(1, 600), default=1, help="of load per contestant and round (default 1)"
    )
    parser.add_argument(
        "--peers",
        type=partial(_names, "peer", list(PEER_NAMES)),
        default=list(PEER_NAMES),
        help="which of nginx,haproxy,envoy (default: all), or none",
    )
    parser.add_argument("--against", metavar="REV", help="also measure the gateway of this git revision")
    parser.add_argument(
        "--with-log",
        action="store_true",
        help="also measure the gateway with an access log, where the case is of API keys or PUBLIC",
    )
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="measure the compiled build of the checkout (and of REV), not its sources; `make bench` does",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every sample to this file")
    parser.add_argument(
        "--results", metavar="FILE", type=Path, help="also write the tables in Markdown to this file"
    )
    return parser


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be between {low} and {high}")
        return value

    return number


def _names(what: str, known: list[str], text: str) -> list[str]:
    names = [] if text == "none" and what == "peer" else text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no such {what}: {name}; there are {', '.join(known)}")
    return names


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    _check_tools(options.peers)
    proxy_cpus, load_cpus = split_cpus()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as name:
        directory = Path(name)
        sources = _sources(options, directory)
        about = describe(ROOT, options, arguments, proxy_cpus, load_cpus)
        print("\n".join(f"{title}: {text}" for title, text in about.items()), flush=True)
        consumers = make_consumers()
        for case_name in options.cases:
            case = CASES[case_name]
            place = directory / case_name
            place.mkdir()
            cores = proxy_cpus | load_cpus if case.shares_cores else None
            outcome = Outcome(case, {}, [], {})
            try:
                _run_case(
                    outcome, options, sources, consumers, place, cores or proxy_cpus, cores or load_cpus
                )
            except MissingToolError:
                raise
            except BenchError as error:  # the other cases are worth having
                outcome.samples.clear()
                outcome.failure = str(error)
            outcomes.append(outcome)
            print(render(outcome))
            for doubt in doubts(outcome):
                print(f"in doubt: {doubt}")
            for fault in faults(outcome):
                print(f"WRONG: {fault}", flush=True)
            if options.json:
                options.json.write_text(
                    json.dumps({"about": about, "cases": [as_json(one) for one in outcomes]}, indent=1) + "\n"
                )
            if options.results:
                options.results.write_text(render_results(about, outcomes))
    return 1 if any(faults(outcome) for outcome in outcomes) else 0


def _check_tools(peers: list[str]) -> None:
    """Name what is missing before anything starts."""
    for tool in ("wrk", "nginx", *(peer for peer in peers if peer != "envoy")):
        find_tool(tool)
    if "nginx" in peers:
        lua_modules()
    if "envoy" in peers:
        find_envoy()


def split_cpus() -> tuple[set[int], set[int]]:
    """Give the proxy under test one core, the load and the backend the others."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        raise MissingToolError("the bench needs two cores: one for the proxy, one for the load")
    return {cpus[-1]}, set(cpus[:-1])


def _sources(options: argparse.Namespace, directory: Path) -> dict[str, Path]:
    """Return the gateways by name, with the code of each."""
    compiled = options.compiled
    sources = {OURS: build_here(compiled=compiled)}
    if options.against is not None:
        against = build_revision(options.against, directory / "against", compiled=compiled)
        sources[f"{OURS}@{options.against}"] = against
    if options.with_log:
        sources[LOGGED] = sources[OURS]
    return sources


def _run_case(
    outcome: Outcome,
    options: argparse.Namespace,
    sources: dict[str, Path],
    consumers: list[Consumer],
    directory: Path,
    proxy_cpus: set[int],
    load_cpus: set[int],
) -> None:
    """Do one case, and put down in `outcome` what came of it."""
    case = outcome.case
    if case.driver == SYNC:
        _sync(case, sources, proxy_cpus, load_cpus, outcome)
        return
    with Children(directory) as children:
        certificate = make_certificate(directory) if case.tls_in or case.tls_out else None
        ground = Ground(
            directory, children, proxy_cpus, load_cpus, consumers, 0, case, certificate=certificate
        )
        port = start_sink(children, case.driver, load_cpus)
        if not port:
            port, count_port = start_backend(
                children,
                directory / "backend",
                load_cpus,
                case if case.driver == DOWNLOAD else None,
                certificate if case.tls_out else None,
            )
            ground = replace(ground, count_port=count_port)
        contestants = _start_all(replace(ground, backend_port=port), options, sources, outcome)
        ground = replace(ground, backend_port=port)
        _rounds(contestants, ground, options, outcome)


def _start_all(
    ground: Ground, options: argparse.Namespace, sources: dict[str, Path], outcome: Outcome
) -> list[Contestant]:
    """Start and check the contestants. An older gateway that cannot do the case is left out, and that is noted."""
    contestants: list[Contestant] = []
    for name, source in sources.items():
        if name == LOGGED and ground.case.auth in CREDENTIALS:
            continue
        try:
            contestant = _gateway(ground, name, source)
            check_case(contestant, ground)
        except BenchError as error:
            if name == OURS:
                raise
            _leave_out(name, error, outcome)
            continue
        contestants.append(contestant)
    ours = contestants[0]
    if ours.lines is not None:
        ground = replace(ground, check=check_of(ours.lines, ground.consumers))
    elif ground.case.auth == "API_KEY":
        ground = replace(ground, check=key_check(ground.consumers))
    for peer in options.peers if ground.case.with_peers else ():
        contestant = PEERS[peer](ground)
        contestant.lines = ours.lines
        check_case(contestant, ground)
        contestants.append(contestant)
    outcome.builds.update({one.name: one.build for one in contestants if one.build})
    return contestants


def _leave_out(name: str, error: BenchError, outcome: Outcome) -> None:
    outcome.notes.append(f"{name} cannot do this case: {str(error).splitlines()[0]}")


def _gateway(ground: Ground, name: str, source: Path) -> Contestant:
    start = CREDENTIALS.get(ground.case.auth)
    if start is not None:
        return start(ground, name, source)
    arguments = ("--access-log", str(ground.directory / "access.log")) if name == LOGGED else ()
    return start_gateway(ground, name, source, documents_of(ground), arguments)


def _sync(
    case: Case, sources: dict[str, Path], proxy_cpus: set[int], load_cpus: set[int], outcome: Outcome
) -> None:
    for name, source in sources.items():
        if name == LOGGED:
            continue
        scene = sync.Scene(case.consumers, _SYNC_ROUTES, _SYNC_WRITES, source, proxy_cpus, load_cpus)
        try:
            seen = sync.run(scene)
        except BenchError as error:
            if name == OURS:
                raise
            _leave_out(name, error, outcome)
            continue
        outcome.figures[name] = seen.figures()
        if seen.failures:
            outcome.notes.append(f"{name}: {seen.failures} of {seen.answers:,} answers were not 200")


def _rounds(
    contestants: list[Contestant], ground: Ground, options: argparse.Namespace, outcome: Outcome
) -> None:
    case = ground.case
    driver = DRIVERS[case.driver]
    rates: dict[str, float] = {}
    for contestant in contestants:
        prepare(contestant, ground)
        outcome.samples[contestant.name] = []
        if case.driver in (WRK, PACED, IDLE):
            rates[contestant.name] = _warm_up(contestant, ground) / 2
    rounds = 1 if case.driver == IDLE else options.rounds  # memory that was used once is used again
    for number in range(rounds):
        turn = number % len(contestants)
        for contestant in contestants[turn:] + contestants[:turn]:
            sample = driver(contestant, ground, options.seconds, rates.get(contestant.name, 0.0))
            outcome.samples[contestant.name].append(sample)
            _say(f"{case.name} {number + 1}/{rounds}  {contestant.name}", case, sample)


def _warm_up(contestant: Contestant, ground: Ground) -> float:
    """Drive until each credential has been shown, so that memory knows it; return the rate of the last time."""
    seconds = _TOP_RATE_S if ground.case.driver == PACED else _WARM_UP_S
    shown, rate = 0, 0.0
    for _ in range(_WARM_UPS):
        result = drive(contestant, ground, seconds)
        shown += result.requests
        rate = result.requests / result.duration_s
        if shown >= 2 * DISTINCT_REQUESTS:
            break
    return rate


def _say(what: str, case: Case, sample: Sample) -> None:
    print(
        f"{what:<40} {sample.per_s:>9,.0f} {case.units}/s {sample.cpu_us_each:>8.1f} us CPU each"
        f" {sample.busy:>5.0%} of its core",
        flush=True,
    )
