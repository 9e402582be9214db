"""The run: start everything, check that each contestant does the work, drive them in turn, report.

Contestants take turns within a round, and the order moves on by one with every round, so that a machine
which becomes slower or faster touches all alike. Everything is bounded by rounds and seconds, and whatever
happens, all that was started is ended. Exit codes: 0; 1 the work was not done right; 2 usage; 3 the machine
lacks something; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.builds import ROOT, build_here, build_revision
from bench.credentials import CREDENTIALS
from bench.load import Sample, drive, measure
from bench.peers import (
    PEERS,
    Contestant,
    Ground,
    Starter,
    find_tool,
    gateway_of,
    lua_modules,
    start_backend,
)
from bench.processes import STOP_SIGNALS, BenchError, Children, MissingToolError
from bench.report import as_json, doubts, faults, render
from bench.workload import HOST, PUBLIC_PREFIX, SEEN_PATH, Consumer, make_consumers, wrk_script

_WORKLOADS = ("all", "key", "credentials")
_WARM_UP_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench from the command line."""
    options = _parser().parse_args(arguments)
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        return _run(options)
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
        prog="python -m bench", description="Measure the gateway beside nginx with Lua and HAProxy."
    )
    parser.add_argument("--rounds", type=_between(1, 100), default=5, help="rounds (default 5)")
    parser.add_argument(
        "--seconds", type=_between(1, 600), default=4, help="of load per contestant and round (default 4)"
    )
    parser.add_argument(
        "--connections", type=_between(1, 1000), default=64, help="clients at once (default 64)"
    )
    parser.add_argument(
        "--only",
        choices=_WORKLOADS,
        default="all",
        help="key: against the peers; credentials: the other kinds of credential (default: both)",
    )
    parser.add_argument(
        "--peers", type=_peers, default=list(PEERS), help="nginx,haproxy (default), one of them, or none"
    )
    parser.add_argument("--against", metavar="REV", help="also measure the gateway of this git revision")
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="measure the compiled build of the checkout (and of REV), not its sources; `make bench` does",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every sample to this file")
    return parser


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be between {low} and {high}")
        return value

    return number


def _peers(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"no such peer: {name}; there are {', '.join(PEERS)}, or none")
    return names


def _run(options: argparse.Namespace) -> int:
    if options.only == "credentials":
        options.peers = []
    _check_tools(options.peers)
    proxy_cpus, load_cpus = _split_cpus()
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as name:
        directory = Path(name)
        with Children(directory) as children:
            backend_port = start_backend(children, directory / "backend", load_cpus)
            ground = Ground(directory, children, proxy_cpus, load_cpus, make_consumers(), backend_port)
            contestants = _start_all(ground, options.peers, options.against, compiled=options.compiled)
            for contestant in contestants:
                check_work(contestant, ground.consumers)
            if options.only != "key":
                source = build_here(compiled=options.compiled)
                contestants += [start(ground, source) for start in CREDENTIALS.values()]
            about = _about(options, proxy_cpus, load_cpus, contestants)
            print("\n".join(f"{title}: {text}" for title, text in about.items()) + "\n", flush=True)
            samples = _rounds(contestants, ground, options)
    print(render(samples))
    for doubt in doubts(samples):
        print(f"in doubt: {doubt}")
    found = faults(samples)
    for fault in found:
        print(f"WRONG: {fault}")
    if options.json:
        options.json.write_text(json.dumps({"about": about, **as_json(samples)}, indent=1) + "\n")
    return 1 if found else 0


def _check_tools(peers: list[str]) -> None:
    """Name what is missing before anything starts."""
    for tool in ("wrk", "nginx", *peers):
        find_tool(tool)
    if "nginx" in peers:
        lua_modules()


def _split_cpus() -> tuple[set[int], set[int]]:
    """Give the proxy under test one core, the load and the backend the others."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        raise MissingToolError("the bench needs two cores: one for the proxy, one for the load")
    return {cpus[-1]}, set(cpus[:-1])


def _start_all(ground: Ground, peers: list[str], against: str | None, *, compiled: bool) -> list[Contestant]:
    starters: list[Starter] = [gateway_of("authgate", build_here(compiled=compiled))]
    if against is not None:
        source = build_revision(against, ground.directory / "against", compiled=compiled)
        starters.append(gateway_of(f"authgate@{against}", source))
    starters += [PEERS[peer] for peer in peers]
    return [start(ground) for start in starters]


def check_work(contestant: Contestant, consumers: list[Consumer]) -> None:
    """Raise BenchError unless the contestant does all of the work that is going to be measured."""
    fake = {"X-Consumer-Id": "somebody-else"}
    for consumer in (consumers[0], consumers[-1]):
        status, body = _get(contestant, {"X-Api-Key": consumer.key, **fake})
        if status != 200:
            raise BenchError(f"{contestant.name} answered {status} to a good key: {body}")
        seen = json.loads(body)
        wanted = {"consumer": consumer.name, "key": "", "path": SEEN_PATH}
        if seen != wanted:
            raise BenchError(f"behind {contestant.name} the backend saw {seen}, it should see {wanted}")
    for what, fields in (("no key", fake), ("a wrong key", {"X-Api-Key": consumers[0].key + "0", **fake})):
        status, _ = _get(contestant, fields)
        if status not in (401, 403):
            raise BenchError(f"{contestant.name} answered {status} to {what}")


def _get(contestant: Contestant, fields: dict[str, str]) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", contestant.port, timeout=10)
    try:
        connection.request("GET", PUBLIC_PREFIX + SEEN_PATH, headers={"Host": HOST, **fields})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except OSError as error:
        raise contestant.child.failed(f"did not answer: {error}") from error
    finally:
        connection.close()


def _rounds(
    contestants: list[Contestant], ground: Ground, options: argparse.Namespace
) -> dict[str, list[Sample]]:
    script = ground.directory / "load.lua"
    script.write_text(wrk_script(ground.consumers))
    for contestant in contestants:
        contestant.script = contestant.script or script
        drive(contestant.port, contestant.script, options.connections, _WARM_UP_S, ground.load_cpus)
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(options.rounds):
        turn = number % len(contestants)
        for contestant in contestants[turn:] + contestants[:turn]:
            sample = measure(contestant, ground, options.connections, options.seconds)
            samples[contestant.name].append(sample)
            print(
                f"round {number + 1}/{options.rounds}  {contestant.name:<20}"
                f" {sample.requests_per_s:>9,.0f} requests/s {sample.cpu_us_per_request:>6.1f} us CPU each",
                flush=True,
            )
    print()
    return samples


def _about(
    options: argparse.Namespace, proxy_cpus: set[int], load_cpus: set[int], contestants: list[Contestant]
) -> dict[str, str]:
    """Say what was measured, on what."""
    commit = _says(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"], r"\S+")
    versions = [f"authgate {commit}", f"Python {platform.python_version()}"]
    versions += [f"{package} {version(package)}" for package in ("uvloop", "httptools")]
    for tool, arguments, pattern in (
        ("nginx", ["-v"], r"nginx/(\S+)"),
        ("haproxy", ["-v"], r"version (\S+)"),
        ("wrk", ["-v"], r"wrk \D*(\S+)"),
    ):
        if tool in ("nginx", "wrk", *options.peers):
            versions.append(f"{tool} {_says([find_tool(tool), *arguments], pattern)}")
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "workload": f"{options.only}: one SECURE route of 1,000, 10,000 consumers, small JSON answer; all but the"
        " API key are credentials that memory knows",
        "load": f"{options.connections} connections, {options.rounds} rounds x {options.seconds} s each,"
        f" proxy on core {_cores(proxy_cpus)}, wrk and backend on {_cores(load_cpus)}",
        "not the same": "the peers have one path prefix instead of 1,000 routes, and add no"
        " forwarding fields, request id or Via; access logs are off",
        "build": ", ".join(f"{c.name} {c.build}" for c in contestants if c.build),
        "versions": ", ".join(versions),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores,"
        f" Linux {platform.release()}, load average {os.getloadavg()[0]:.2f}",
    }


def _says(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[found.re.groups] if found and not (done.returncode and command[0] == "git") else "?"


def _cores(cpus: set[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))
