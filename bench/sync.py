"""How soon a change in Redis is live: `python -m bench.sync`, and the bench's cases of few and many consumers.

Starts a redis-server and the gateway with many documents, keeps a load on the gateway, and for each of N
writes measures the time from Redis' reply to the first answer that shows the change: a new key that
is let in, and a disabled one that is refused. Also load time and memory for that many documents.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.cases import CHANGE_MS, LOAD_S, WORKER_MB
from bench.load import largest_mb
from bench.processes import STOP_SIGNALS, BenchError, Child, Children, accepts, free_ports, wait_until

GATEWAY = "bench"
_BATCH = 5_000
_START_S = 20.0
_LOAD_S = 300.0
"""More than a million consumers take."""


@dataclass(frozen=True, slots=True)
class Scene:
    """How many documents there are, where the gateway's code is, and on which cores it runs and all else."""

    consumers: int
    routes: int
    writes: int
    source: Path
    cpus: set[int]
    load_cpus: set[int]
    outage_s: float = 0.0


@dataclass(slots=True)
class Seen:
    """What was measured. Times of changes are in ms."""

    load_s: float = 0.0
    worker_mb: float = 0.0
    let_in_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    answers: int = 0
    failures: int = 0
    outage: str = ""

    def figures(self) -> dict[str, float]:
        """Return what targets are about, by the names of `cases`."""
        return {
            LOAD_S: self.load_s,
            WORKER_MB: self.worker_mb,
            CHANGE_MS: max(p99(self.let_in_ms), p99(self.refused_ms)),
            "change live, median ms": statistics.median(self.let_in_ms + self.refused_ms),
        }


def p99(times: list[float]) -> float:
    """Return the 99th percentile."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def _consumer(key: str, *, enabled: bool = True) -> str:
    return json.dumps({"api_key_sha256": hashlib.sha256(key.encode()).hexdigest(), "enabled": enabled})


def _documents(backend_port: int, consumers: int, routes: int) -> Iterator[tuple[str, str]]:
    yield f"authgate:gateway:{GATEWAY}", json.dumps({"hosts": ["*"], "auth": {"type": "API_KEY"}})
    yield f"authgate:service:{GATEWAY}:s", json.dumps({"target_url": f"http://127.0.0.1:{backend_port}"})
    for number in range(routes):
        route = {
            "method": "GET",
            "public_path": f"/r{number}/{{id}}",
            "target_path": "/products/{id}",
            "service": "s",
            "security": "SECURE",
        }
        yield f"authgate:route:{GATEWAY}:r{number}", json.dumps(route)
    for number in range(consumers):
        yield f"authgate:consumer:{GATEWAY}:c{number}", _consumer(f"key-{number}")


def _fill(store: redis.Redis, documents: Iterator[tuple[str, str]]) -> None:
    batch: dict[str, str] = {}
    for name, document in documents:
        batch[name] = document
        if len(batch) == _BATCH:
            store.mset(batch)
            batch.clear()
    if batch:
        store.mset(batch)


def _status(port: int, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/r0/1", headers={"X-Api-Key": key})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class _Load:
    """What the load got: all answers, and those that were not 200, a broken connection counted as one."""

    def __init__(self) -> None:
        self.answers = 0
        self.failures = 0

    def run(self, port: int, stop: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not stop.is_set():
            try:
                connection.request("GET", "/r0/1", headers={"X-Api-Key": "key-0"})
                answer = connection.getresponse()
                answer.read()
                self.failures += answer.status != 200
            except (OSError, http.client.HTTPException):
                self.failures += 1
                connection.close()
            self.answers += 1


def _wait_live(connection: http.client.HTTPConnection, key: str, *, wanted_401: bool) -> float:
    begun = time.perf_counter()
    while time.perf_counter() - begun < 5:
        connection.request("GET", "/r0/1", headers={"X-Api-Key": key})
        answer = connection.getresponse()
        answer.read()
        if (answer.status == 401) == wanted_401:
            break
    return (time.perf_counter() - begun) * 1e3


def _start_redis(children: Children, scene: Scene, port: int, directory: Path, name: str = "redis") -> Child:
    arguments: list[str | Path] = ["redis-server", "--port", str(port), "--bind", "127.0.0.1"]
    arguments += ["--save", "", "--dir", directory]
    child = children.start(name, arguments, scene.load_cpus)
    wait_until(child, lambda: accepts(port), "listen", _START_S)
    return child


def run(scene: Scene) -> Seen:
    """Do the whole measurement; whatever it starts has ended when it is over."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authgate-sync-")))
        children = stack.enter_context(Children(directory))
        stop = threading.Event()
        stack.callback(stop.set)
        return _measure(scene, directory, children, stop)


def _measure(scene: Scene, directory: Path, children: Children, stop: threading.Event) -> Seen:
    redis_port, port, ops_port, backend_port = free_ports(4)
    server = _start_redis(children, scene, redis_port, directory)
    backend = [sys.executable, "-m", "authgate_fast.demo", "--listen", f"127.0.0.1:{backend_port}"]
    code = {"PYTHONPATH": str(scene.source)}
    children.start("backend", backend, scene.load_cpus, scene.source, code)
    store = redis.Redis(port=redis_port, socket_timeout=30)
    _until(store.ping)
    _fill(store, _documents(backend_port, scene.consumers, scene.routes))
    command = [
        sys.executable, "-m", "authgate_fast.cli", "run", "--redis", f"redis://127.0.0.1:{redis_port}/0",
        "--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}", "--workers", "1",
        "--limit", "max_failures_per_address=1000000",  # asking again and again is how this measures
    ]  # fmt: skip
    seen = Seen()
    begun = time.perf_counter()
    gateway = children.start("gateway", command, scene.cpus, scene.source, code)
    wait_until(gateway, lambda: _status(port, "key-0") not in (0, 401, 404, 503), "get ready", _LOAD_S)
    seen.load_s = time.perf_counter() - begun
    loads = [_Load() for _ in range(2)]
    threads = [threading.Thread(target=load.run, args=(port, stop), daemon=True) for load in loads]
    for thread in threads:
        thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for number in range(scene.writes):
        name, key = f"authgate:consumer:{GATEWAY}:new{number}", f"new-key-{number}"
        store.set(name, _consumer(key))
        seen.let_in_ms.append(_wait_live(connection, key, wanted_401=False))
        store.set(name, _consumer(key, enabled=False))
        seen.refused_ms.append(_wait_live(connection, key, wanted_401=True))
    seen.worker_mb = largest_mb(gateway.pid)
    if scene.outage_s:
        store.save()
        server.popen.kill()
        server.popen.wait(15)
        before = sum(load.answers for load in loads)
        time.sleep(scene.outage_s)
        during = sum(load.answers for load in loads) - before
        _start_redis(children, scene, redis_port, directory, "redis again")
        _until(store.ping)
        store.set(f"authgate:consumer:{GATEWAY}:after", _consumer("key-after"))
        back_ms = _wait_live(connection, "key-after", wanted_401=False)
        seen.outage = (
            f"Redis away for {scene.outage_s:.0f} s: {during:,} answers meanwhile; "
            f"back again, a write is live after {back_ms:.0f} ms"
        )
    stop.set()
    for thread in threads:
        thread.join(5)
    seen.answers = sum(load.answers for load in loads)
    seen.failures = sum(load.failures for load in loads)
    store.close()
    return seen


def _until(done: Callable[[], object], bound_s: float = 60.0) -> None:
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        with suppress(OSError, redis.RedisError):
            if done():
                return
        time.sleep(0.02)
    raise BenchError("Redis did not get ready in time")


def _line(name: str, times: list[float]) -> str:
    return (
        f"{name:<28} median {statistics.median(times):6.1f} ms   p99 {p99(times):6.1f} ms"
        f"   worst {max(times):6.1f} ms"
    )


def main() -> int:
    """Run the measurement as a command."""
    from bench.builds import build_here
    from bench.run import split_cpus

    parser = argparse.ArgumentParser(prog="python -m bench.sync")
    parser.add_argument("--consumers", type=int, default=100_000)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--outage", type=float, default=0.0, metavar="S", help="kill Redis for S seconds")
    parser.add_argument("--compiled", action="store_true", help="measure the compiled build")
    options = parser.parse_args()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: sys.exit(143))  # so that what was started is ended
    cpus, load_cpus = split_cpus()
    source = build_here(compiled=options.compiled)
    scene = Scene(options.consumers, options.routes, options.writes, source, cpus, load_cpus, options.outage)
    try:
        seen = run(scene)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 3
    print(
        f"{scene.consumers:,} consumers and {scene.routes:,} routes: live {seen.load_s:.1f} s "
        f"after the start of the process, {seen.worker_mb:.0f} MB in the worker"
    )
    if seen.outage:
        print(seen.outage)
    print(f"load: {seen.answers:,} answers, {seen.failures} of them not 200")
    print(_line("a new key is let in after", seen.let_in_ms))
    print(_line("a disabled key is refused", seen.refused_ms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
