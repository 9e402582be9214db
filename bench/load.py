"""One measured run: what the client counted for a contestant, and what the contestant used meanwhile.

CPU time is the kernel's own account of the proxy's processes and threads, system calls and the network
work done within them included. Memory is PSS: pages that processes share count once. Field names carry
their units; "each" is one unit of the case: a request, a MiB, a message.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cases import MIB
from bench.ground import Contestant, Ground
from bench.nginx import backend_count
from bench.processes import BenchError
from bench.workload import RESULT_MARK

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Result:
    """What a client counted. ``refused`` are answers with a status of 400 or more; ``mib`` are of large bodies."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    socket_errors: int
    mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant in one round. ``foreign`` is the share of its cores' time that others used or held.

    ``kib_each`` is memory per connection, where that is measured.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_each: float
    busy: float
    foreign: float
    memory_mb: float
    refused: int
    socket_errors: int
    not_forwarded: int
    kib_each: float = 0.0


def parse_result(output: str) -> Result:
    """Read the line that a client prints at its end; raise BenchError without one."""
    lines = [line for line in output.splitlines() if line.startswith(RESULT_MARK)]
    if len(lines) != 1:
        raise BenchError(f"the client did not report its numbers; it said:\n{output}")
    numbers = json.loads(lines[0][len(RESULT_MARK) :])
    return Result(
        requests=numbers["requests"],
        duration_s=numbers["duration_us"] / 1e6,
        p50_ms=numbers["p50_us"] / 1e3,
        p99_ms=numbers["p99_us"] / 1e3,
        refused=numbers["refused"],
        socket_errors=sum(numbers[kind] for kind in ("connect", "read", "write", "timeout")),
        mib=numbers.get("bytes", 0) / MIB,
    )


class Account:
    """What a contestant uses from here on."""

    def __init__(self, contestant: Contestant, ground: Ground) -> None:
        contestant.child.check_alive()
        self._contestant = contestant
        self._ground = ground
        self._answered = backend_count(ground.count_port) if ground.count_port else 0
        self._others = _core_s(ground.proxy_cpus)
        self._own = cpu_s(contestant.child.pid)

    def close(self, result: Result) -> Sample:
        """Set what was used against what the client counted."""
        contestant, ground = self._contestant, self._ground
        own = cpu_s(contestant.child.pid) - self._own
        others = 0.0 if ground.case.shares_cores else _core_s(ground.proxy_cpus) - self._others - own
        not_forwarded = 0
        if ground.count_port:
            answered = backend_count(ground.count_port) - self._answered
            not_forwarded = max(0, result.requests - result.refused - answered)
        contestant.child.check_alive()
        if not result.requests:
            raise contestant.child.failed("answered nothing")
        units = result.mib or result.requests
        return Sample(
            per_s=units / result.duration_s,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            cpu_us_each=own * 1e6 / units,
            busy=own / result.duration_s,
            foreign=max(0.0, others / result.duration_s),
            memory_mb=memory_mb(contestant.child.pid),
            refused=result.refused,
            socket_errors=result.socket_errors,
            not_forwarded=not_forwarded,
        )


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its living descendants, threads that ended included."""
    return sum(_process_cpu_ns(one) for one in _family(pid)) / 1e9


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants, shared pages counted once, in MB (10^6 bytes)."""
    return sum(_pss_kib(one) for one in _family(pid)) * 1024 / 1e6


def largest_mb(pid: int) -> float:
    """Return the resident memory, shared pages included, of the largest one of a process and its descendants, in MB."""
    return max(_kib(_PROC / str(one) / "status", "VmRSS:") for one in _family(pid)) * 1024 / 1e6


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
    directory = _PROC / str(pid)
    return _kib(directory / "smaps_rollup", "Pss:") or _kib(directory / "status", "VmRSS:")


def _kib(path: Path, field: str) -> int:
    """Return a field of a file of the kernel's, or 0 without it."""
    for line in _read(path).splitlines():
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
