"""How a contestant of a case is driven: one function for each kind of driver, bounded by the seconds it is given."""

from __future__ import annotations

import json
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.cases import DOWNLOAD, ECHO, IDLE, PACED, UPLOAD, WRK
from bench.client import discard, length_of, read_head
from bench.ground import START_S, Contestant, Ground, find_tool
from bench.load import Account, Result, Sample, memory_mb, parse_result
from bench.processes import Children, accepts, free_ports, run_pinned, wait_until
from bench.workload import request_heads, wrk_script

_GRACE_S = 60.0
_WRK_TIMEOUT_S = 10
_ROOT = Path(__file__).resolve().parent.parent

Driver = Callable[[Contestant, Ground, float, float], Sample]
"""Drives a contestant for so many seconds, at so many requests per second where it is one that is paced."""


def prepare(contestant: Contestant, ground: Ground) -> None:
    """Write the script that wrk sends to a contestant."""
    contestant.script = ground.directory / f"{contestant.name.replace('/', '_')}.lua"
    contestant.script.write_text(wrk_script(ground.consumers, contestant.lines, ground.case))


def drive(contestant: Contestant, ground: Ground, seconds: float) -> Result:
    """Run wrk once against a contestant."""
    whole_seconds = max(1, round(seconds))
    scheme = "https" if ground.case.tls_in else "http"
    # What is measured idle must not have been there before.
    connections = 8 if ground.case.driver == IDLE else ground.case.connections
    arguments = [find_tool("wrk"), "-t1", f"-c{connections}", f"-d{whole_seconds}s"]
    arguments += ["--timeout", f"{_WRK_TIMEOUT_S}s", "-s", str(contestant.script)]
    arguments.append(f"{scheme}://127.0.0.1:{contestant.port}/")
    return parse_result(run_pinned(arguments, ground.load_cpus, whole_seconds + _GRACE_S))


def by_wrk(contestant: Contestant, ground: Ground, seconds: float, _per_s: float = 0.0) -> Sample:
    """Measure a contestant under wrk's load: as much as it takes."""
    account = Account(contestant, ground)
    return account.close(drive(contestant, ground, seconds))


def _by_client(module: str) -> Driver:
    def driver(contestant: Contestant, ground: Ground, seconds: float, per_s: float) -> Sample:
        task = {
            "port": contestant.port,
            "heads": request_heads(ground.consumers, contestant.lines, ground.case),
            "connections": ground.case.connections,
            "seconds": seconds,
            "body_bytes": ground.case.body_bytes,
            "per_s": per_s,
        }
        path = ground.directory / "task.json"
        path.write_text(json.dumps(task))
        command = [sys.executable, "-m", module, str(path)]
        account = Account(contestant, ground)
        return account.close(parse_result(run_pinned(command, ground.load_cpus, seconds + _GRACE_S)))

    return driver


def by_idle(contestant: Contestant, ground: Ground, _seconds: float, _per_s: float) -> Sample:
    """Open the connections of the case, have one answer on each, and see what the contestant holds for them."""
    heads = [head.encode() for head in request_heads(ground.consumers, contestant.lines, ground.case)]
    _allow_open_files(ground.case.connections + 256)
    scratch = bytearray(65_536)
    before_mb = memory_mb(contestant.child.pid)
    account = Account(contestant, ground)
    refused = 0
    with ExitStack() as stack:
        for number in range(ground.case.connections):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", contestant.port), 10))
            refused += not _ask(connection, heads[number % len(heads)], scratch)
        sample = account.close(Result(ground.case.connections, 1.0, 0.0, 0.0, refused, 0))
    grown_kib = (sample.memory_mb - before_mb) * 1e6 / 1_024
    return Sample(
        per_s=0.0,
        p50_ms=0.0,
        p99_ms=0.0,
        cpu_us_each=sample.cpu_us_each,
        busy=0.0,
        foreign=0.0,
        memory_mb=sample.memory_mb,
        refused=refused,
        socket_errors=0,
        not_forwarded=sample.not_forwarded,
        kib_each=grown_kib / ground.case.connections,
    )


def _ask(connection: socket.socket, head: bytes, scratch: bytearray) -> bool:
    connection.sendall(head)
    answer, rest = read_head(connection)
    discard(connection, length_of(answer) - len(rest), scratch)
    return answer.startswith(b"HTTP/1.1 200 ")


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


DRIVERS: dict[str, Driver] = {
    WRK: by_wrk,
    DOWNLOAD: _by_client("bench.streams"),
    UPLOAD: _by_client("bench.streams"),
    ECHO: _by_client("bench.echoes"),
    PACED: _by_client("bench.paced"),
    IDLE: by_idle,
}

_SINKS: dict[str, Sequence[str]] = {
    UPLOAD: ("bench.streams", "sink"),
    ECHO: ("bench.echoes", "serve"),
}


def start_sink(children: Children, driver: str, cpus: set[int]) -> int:
    """Start what takes the bodies or the messages of a driver; return its port, or 0 if it needs none."""
    if driver not in _SINKS:
        return 0
    module, verb = _SINKS[driver]
    (port,) = free_ports(1)
    child = children.start("sink", [sys.executable, "-m", module, verb, str(port)], cpus, directory=_ROOT)
    wait_until(child, lambda: accepts(port), "listen", START_S)
    return port
