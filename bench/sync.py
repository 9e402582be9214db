"""How soon a change in Redis is live: `python -m bench.sync`.

Starts a redis-server and the gateway with many documents, keeps a load on the gateway, and for each of N
writes measures the time from Redis' reply to the first answer that shows the change: a new key that
is let in, and a disabled one that is refused. Also prints load time and memory for that many documents.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import redis

GATEWAY = "bench"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _consumer(key: str, *, enabled: bool = True) -> str:
    return json.dumps({"api_key_sha256": hashlib.sha256(key.encode()).hexdigest(), "enabled": enabled})


def _fill(store: redis.Redis, backend_port: int, consumers: int, routes: int) -> None:
    documents = {
        f"authgate:gateway:{GATEWAY}": json.dumps({"hosts": ["*"], "auth": {"type": "API_KEY"}}),
        f"authgate:service:{GATEWAY}:s": json.dumps({"target_url": f"http://127.0.0.1:{backend_port}"}),
    }
    for number in range(routes):
        documents[f"authgate:route:{GATEWAY}:r{number}"] = json.dumps(
            {"method": "GET", "public_path": f"/r{number}/{{id}}", "target_path": "/products/{id}", "service": "s",
             "security": "SECURE"}
        )  # fmt: skip
    for number in range(consumers):
        documents[f"authgate:consumer:{GATEWAY}:c{number}"] = _consumer(f"key-{number}")
    items = list(documents.items())
    for at in range(0, len(items), 5_000):
        store.mset(dict(items[at : at + 5_000]))


def _status(port: int, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/r0/1", headers={"X-Api-Key": key})
    status = connection.getresponse().status
    connection.close()
    return status


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


def _wait_live(connection: http.client.HTTPConnection, key: str, wanted_401: bool) -> float:
    begun = time.perf_counter()
    while time.perf_counter() - begun < 5:
        connection.request("GET", "/r0/1", headers={"X-Api-Key": key})
        answer = connection.getresponse()
        answer.read()
        if (answer.status == 401) == wanted_401:
            break
    return (time.perf_counter() - begun) * 1e3


def _memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _print(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(
        f"{name:<28} median {statistics.median(ordered):6.1f} ms   p99 {p99:6.1f} ms   worst {ordered[-1]:6.1f} ms"
    )


def main() -> int:
    """Run the measurement; return 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.sync")
    parser.add_argument("--consumers", type=int, default=100_000)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--outage", type=float, default=0.0, metavar="S", help="kill Redis for S seconds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    children: list[subprocess.Popen[bytes]] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        try:
            _measure(options, Path(directory), children, stop)
        finally:
            stop.set()
            for child in reversed(children):
                child.terminate()
                child.wait(15)
    return 0


def _measure(
    options: argparse.Namespace,
    directory: Path,
    children: list[subprocess.Popen[bytes]],
    stop: threading.Event,
) -> None:
    redis_port, port, ops_port, backend_port = (_free_port() for _ in range(4))
    children.append(_start_redis(redis_port, directory))
    children.append(
        subprocess.Popen(
            [sys.executable, "-m", "authgate_fast.demo", "--listen", f"127.0.0.1:{backend_port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    store = redis.Redis(port=redis_port, socket_timeout=30)
    _until(store.ping)
    _fill(store, backend_port, options.consumers, options.routes)
    begun = time.perf_counter()
    gateway = subprocess.Popen(
        [sys.executable, "-m", "authgate_fast.cli", "run", "--redis", f"redis://127.0.0.1:{redis_port}/0",
         "--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}",
         "--limit", "max_failures_per_address=1000000"],  # asking again and again is how this measures
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children.append(gateway)
    _until(lambda: _status(port, "key-0") not in (401, 404, 503))
    print(f"{options.consumers:,} consumers and {options.routes:,} routes: live {time.perf_counter() - begun:.1f} s "
          f"after the start of the process, {_memory_mb(gateway.pid):.0f} MB")  # fmt: skip
    counted = [_Load() for _ in range(2)]
    loads = [threading.Thread(target=load.run, args=(port, stop), daemon=True) for load in counted]
    for load in loads:
        load.start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    let_in, refused = [], []
    for number in range(options.writes):
        name, key = f"authgate:consumer:{GATEWAY}:new{number}", f"new-key-{number}"
        store.set(name, _consumer(key))
        let_in.append(_wait_live(connection, key, wanted_401=False))
        store.set(name, _consumer(key, enabled=False))
        refused.append(_wait_live(connection, key, wanted_401=True))
    if options.outage:
        store.save()
        children[0].kill()
        children[0].wait(15)
        before = sum(load.answers for load in counted)
        time.sleep(options.outage)
        during = sum(load.answers for load in counted) - before
        children[0] = _start_redis(redis_port, directory)
        _until(store.ping)
        store.set(f"authgate:consumer:{GATEWAY}:after", _consumer("key-after"))
        back_ms = _wait_live(connection, "key-after", wanted_401=False)
        print(
            f"Redis away for {options.outage:.0f} s: {during:,} answers meanwhile; "
            f"back again, a write is live after {back_ms:.0f} ms"
        )
    stop.set()
    for load in loads:
        load.join(5)
    answers, failures = (sum(getattr(load, name) for load in counted) for name in ("answers", "failures"))
    print(f"load: {answers:,} answers, {failures} of them not 200")
    _print("a new key is let in after", let_in)
    _print("a disabled key is refused", refused)


def _start_redis(port: int, directory: Path) -> subprocess.Popen[bytes]:
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    return subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)


def _until(done: object, bound_s: float = 60.0) -> None:
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        try:
            if done():  # type: ignore[operator]  # any callable
                return
        except (OSError, redis.RedisError):
            pass
        time.sleep(0.02)
    raise SystemExit("the measurement did not get ready in time")


if __name__ == "__main__":
    sys.exit(main())
