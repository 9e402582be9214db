"""One measured run: wrk's numbers for a contestant, and what the contestant used meanwhile.

CPU time is the kernel's own account of the proxy's processes and threads, system calls and the network
work done within them included. Memory is PSS: pages that processes share count once. Field names carry
their units.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Contestant, Ground, backend_count, find_tool
from bench.processes import BenchError, run_pinned
from bench.workload import WRK_MARK

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_WRK_GRACE_S = 30.0
_WRK_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What wrk counted. ``refused`` are answers with a status of 400 or more."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    socket_errors: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant in one round. ``foreign`` is the share of its cores' time that others used or held."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_request: float
    busy: float
    foreign: float
    memory_mb: float
    refused: int
    socket_errors: int
    not_forwarded: int


def parse_wrk(output: str) -> WrkResult:
    """Read the line that the script of ``workload.wrk_script`` prints; raise BenchError without one."""
    lines = [line for line in output.splitlines() if line.startswith(WRK_MARK)]
    if len(lines) != 1:
        raise BenchError(f"wrk did not report its numbers; it said:\n{output}")
    numbers = json.loads(lines[0][len(WRK_MARK) :])
    return WrkResult(
        requests=numbers["requests"],
        duration_s=numbers["duration_us"] / 1e6,
        p50_ms=numbers["p50_us"] / 1e3,
        p99_ms=numbers["p99_us"] / 1e3,
        refused=numbers["refused"],
        socket_errors=sum(numbers[kind] for kind in ("connect", "read", "write", "timeout")),
    )


def drive(port: int, script: Path, connections: int, seconds: float, cpus: set[int]) -> WrkResult:
    """Run wrk once against 127.0.0.1:`port`."""
    whole_seconds = max(1, round(seconds))
    arguments = [find_tool("wrk"), "-t1", f"-c{connections}", f"-d{whole_seconds}s"]
    arguments += ["--timeout", f"{_WRK_TIMEOUT_S}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    return parse_wrk(run_pinned(arguments, cpus, whole_seconds + _WRK_GRACE_S))


def measure(contestant: Contestant, ground: Ground, connections: int, seconds: float) -> Sample:
    """Drive one contestant once, with its script, and account for what it used."""
    script = contestant.script
    assert script is not None  # set before the first round
    contestant.child.check_alive()
    answered = backend_count(ground.backend_port)
    others = _core_s(ground.proxy_cpus)
    own = cpu_s(contestant.child.pid)
    result = drive(contestant.port, script, connections, seconds, ground.load_cpus)
    own = cpu_s(contestant.child.pid) - own
    others = _core_s(ground.proxy_cpus) - others - own
    answered = backend_count(ground.backend_port) - answered
    contestant.child.check_alive()
    if not result.requests:
        raise contestant.child.failed("answered nothing")
    return Sample(
        requests=result.requests,
        requests_per_s=result.requests / result.duration_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        cpu_us_per_request=own * 1e6 / result.requests,
        busy=own / result.duration_s,
        foreign=max(0.0, others / result.duration_s),
        memory_mb=memory_mb(contestant.child.pid),
        refused=result.refused,
        socket_errors=result.socket_errors,
        not_forwarded=max(0, result.requests - result.refused - answered),
    )


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its living descendants, threads that ended included."""
    return sum(_process_cpu_ns(one) for one in _family(pid)) / 1e9


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants, shared pages counted once, in MB (10^6 bytes)."""
    return sum(_pss_kib(one) for one in _family(pid)) * 1024 / 1e6


def _family(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    family = [pid]
    for parent in family:  # grows while it is read
        for task in _tasks(parent):
            family += [int(child) for child in _read(task / "children").split()]
    return family


def _process_cpu_ns(pid: int) -> int:
    clock = ~pid << 3 | 2  # what clock_getcpuclockid(3) answers: exact, where /proc/PID/stat has 10 ms steps
    try:
        return time.clock_gettime_ns(clock)
    except OSError:  # ended meanwhile
        return 0


def _pss_kib(pid: int) -> int:
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        for line in _read(_PROC / str(pid) / name).splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def _core_s(cpus: set[int]) -> float:
    """Return the time that these cores were busy, or taken away by the machine's host."""
    ticks = 0
    names = {f"cpu{cpu}" for cpu in cpus}
    for line in _read(_PROC / "stat").splitlines():
        name, *numbers = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(n) for n in numbers[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / _TICKS_PER_S


def _tasks(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except OSError:  # ended meanwhile
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
