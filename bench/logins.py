"""What first logins cost everybody else: `python -m bench.logins`.

One worker serves two gateways. Clients call the one with API keys at a steady rate, and their latencies are taken for a
while. Then 500 clients, whose connections stand ready, show a name and a password to the other gateway at the same
moment, each for the first time: each costs a full Argon2id. The latencies of the first kind until the last login is
answered, over those before, are what is asked for. Every round has its own 500 users. Times are in seconds, unless
a name says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from authgate_fast.auth.api_key import key_digest, new_key
from authgate_fast.auth.password import new_hash
from bench.processes import BenchError, Children, MissingToolError, accepts, free_ports, wait_until

_PASSWORD = "correct horse battery staple"
_CONNECTIONS = 16
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_READY_S = 20.0
_LONGEST_S = 60.0


class Round(NamedTuple):
    """Latencies of the API-key traffic in ms, before and during the logins, and when each login was answered.

    ``foreign`` is the share of the gateway's cores that neither it nor idleness had.
    """

    before_ms: list[float]
    during_ms: list[float]
    logins_s: list[float]
    statuses: Counter[int]
    foreign: float

    @property
    def ratio(self) -> float:
        return p99(self.during_ms) / p99(self.before_ms)


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile of values, the one above it when it falls between two."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


class Cores:
    """What the gateway and others used of the gateway's cores since this was made, by the kernel's account."""

    def __init__(self, pid: int, cpus: set[int]) -> None:
        self._pid = pid
        self._names = {f"cpu{number}" for number in cpus}
        self._before = self._ticks()

    def foreign(self) -> float:
        """Return the share of the cores' time that others had, between 0 and 1."""
        total, busy, own = (now - then for now, then in zip(self._ticks(), self._before, strict=True))
        return max(0.0, busy - own) / max(total, 1)

    def _ticks(self) -> tuple[int, int, int]:
        total = busy = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *texts = line.split()
            if name in self._names:
                ticks = [int(text) for text in texts[:8]]
                total += sum(ticks)
                busy += sum(ticks) - ticks[3] - ticks[4]  # idle, and waiting for a disk
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(") ")[2].split()
        return total, busy, int(fields[11]) + int(fields[12])


class _Backend(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no common base

    def data_received(self, data: bytes) -> None:
        self._transport.write(_REPLY * data.count(b"\r\n\r\n"))


class _Client(asyncio.Protocol):
    """One kept-alive connection; a request at a time. Requests that fall due meanwhile wait, and that counts."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.latencies_s: list[float] = []
        self.status = 0
        self.answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._due: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no common base

    def send(self) -> None:
        self._due.append(time.perf_counter())
        if len(self._due) == 1:
            self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self._due or data[:9] != b"HTTP/1.1 ":
            return  # the rest of an answer
        now = time.perf_counter()
        self.latencies_s.append(now - self._due.pop(0))
        self.status = int(data[9:12])
        if not self.answered.done():
            self.answered.set_result(now)
        if self._due:
            self._transport.write(self.request)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(BenchError("the gateway closed a connection"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; return the exit code: 0, or 1 if a login was not let in."""
    parser = argparse.ArgumentParser(prog="python -m bench.logins")
    parser.add_argument("--logins", type=int, default=500, help="clients that log in at once (default 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load before each (default 5)")
    parser.add_argument("--rate", type=int, default=1_000, help="API-key requests per second (default 1000)")
    parser.add_argument("--cores", type=int, choices=(1, 2), default=1, help="for the gateway (default 1)")
    parser.add_argument("--backend", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.backend is not None:
        return uvloop.run(_serve(options.backend))
    if options.flood is not None:
        return uvloop.run(_flood(options.flood, options.first, options.logins))
    try:
        with tempfile.TemporaryDirectory() as directory, Children(Path(directory)) as children:
            return _run(options, Path(directory), children)
    except BenchError as error:
        print(f"bench.logins: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, directory: Path, children: Children) -> int:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MissingToolError("two cores are needed: one for the gateway, one for the load")
    gateway_cpus, load_cpus = set(cpus[-options.cores :]), {cpus[0]}
    port, backend_port = free_ports(2)
    key = new_key()
    file = directory / "documents.json"
    file.write_text(json.dumps(_documents(key, backend_port, options.logins * options.rounds)))
    me = [sys.executable, "-m", "bench.logins"]
    children.start("backend", [*me, "--backend", str(backend_port)], load_cpus)
    arguments = ["run", "--config", str(file), "--listen", f"127.0.0.1:{port}", "--ops", "off"]
    gateway = children.start("gateway", [sys.executable, "-m", "authgate_fast.cli", *arguments], gateway_cpus)
    wait_until(gateway, lambda: accepts(port) and accepts(backend_port), "listen", _READY_S)
    os.sched_setaffinity(0, load_cpus)
    rounds = [
        uvloop.run(_round(options, port, key, me, number * options.logins, Cores(gateway.pid, gateway_cpus)))
        for number in range(options.rounds)
    ]
    for number, one in enumerate(rounds, 1):
        print(_line(f"round {number}", one))
    ratios = [one.ratio for one in rounds]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"p99 of API-key traffic during first logins, over before: {statistics.median(ratios):.2f} ({spread})"
    )
    return 0 if all(set(one.statuses) == {200} for one in rounds) else 1


def _documents(key: str, backend_port: int, users: int) -> dict[str, object]:
    """Return two gateways, one key and many users. One hash for all costs the gateway no less work."""
    phc = new_hash(_PASSWORD.encode())

    def gateway(name: str, kind: str, consumers: dict[str, object]) -> dict[str, object]:
        return {
            "hosts": [f"{name}.test"],
            "auth": {"type": kind},
            "services": {"api": {"target_url": f"http://127.0.0.1:{backend_port}"}},
            "routes": {
                "r": {"method": "GET", "public_path": "/r/{id}", "service": "api", "security": "SECURE"}
            },
            "consumers": consumers,
        }

    return {
        "gateways": {
            "keys": gateway("keys", "API_KEY", {"app": {"api_key_sha256": key_digest(key)}}),
            "users": gateway("users", "BASIC", {f"u{n}": {"password_hash": phc} for n in range(users)}),
        }
    }


async def _serve(port: int) -> int:
    server = await asyncio.get_running_loop().create_server(_Backend, "127.0.0.1", port)
    await server.serve_forever()
    return 0


async def _connect(port: int, request: bytes) -> _Client:
    loop = asyncio.get_running_loop()
    _transport, client = await loop.create_connection(lambda: _Client(request), "127.0.0.1", port)
    return client


async def _flood(port: int, first: int, logins: int) -> int:
    """Connect all clients, say so, wait for a line, log all in at once, and print how that went."""
    clients = []
    for number in range(first, first + logins):
        token = base64.b64encode(f"u{number}:{_PASSWORD}".encode()).decode()
        text = f"GET /r/1 HTTP/1.1\r\nHost: users.test\r\nAuthorization: Basic {token}\r\n\r\n"
        clients.append(await _connect(port, text.encode()))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    begun = time.perf_counter()
    for client in clients:
        client.send()
    answered = await asyncio.gather(*(client.answered for client in clients))
    print(json.dumps([[client.status, at - begun] for client, at in zip(clients, answered, strict=True)]))
    return 0


async def _round(
    options: argparse.Namespace, port: int, key: str, me: list[str], first: int, cores: Cores
) -> Round:
    request = f"GET /r/1 HTTP/1.1\r\nHost: keys.test\r\nX-Api-Key: {key}\r\n\r\n".encode()
    clients = [await _connect(port, request) for _ in range(_CONNECTIONS)]
    flood = await asyncio.create_subprocess_exec(
        *me, "--flood", str(port), "--first", str(first), "--logins", str(options.logins),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert flood.stdin is not None
    assert flood.stdout is not None
    load = asyncio.create_task(_pace(clients, options.rate))
    try:
        await asyncio.wait_for(flood.stdout.readline(), _READY_S)
        await asyncio.sleep(1)
        before = await _latencies(clients, asyncio.sleep(options.seconds, b""))
        flood.stdin.write(b"\n")
        during = await _latencies(clients, asyncio.wait_for(flood.stdout.readline(), _LONGEST_S))
        outcomes = json.loads(during[1] or b"[]")
    finally:
        load.cancel()
        if flood.returncode is None:
            flood.terminate()
        await flood.wait()
    if any(client.status != 200 for client in clients):
        raise BenchError("the API-key traffic was not let in")
    statuses = Counter(status for status, _ in outcomes)
    return Round(before[0], during[0], sorted(at for _, at in outcomes), statuses, cores.foreign())


async def _pace(clients: list[_Client], rate: int) -> None:
    """Send requests at a steady rate, in turn."""
    begun, sent = time.perf_counter(), 0
    while True:
        due = int((time.perf_counter() - begun) * rate)
        for number in range(sent, due):
            clients[number % len(clients)].send()
        sent = due
        await asyncio.sleep(0.002)


async def _latencies(clients: list[_Client], until: object) -> tuple[list[float], bytes]:
    """Return the latencies in ms until something has come true, and what that gave."""
    for client in clients:
        client.latencies_s.clear()
    given: bytes = await until  # type: ignore[misc]  # a coroutine
    return [latency * 1e3 for client in clients for latency in client.latencies_s], given


def _line(name: str, one: Round) -> str:
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(one.statuses.items()))
    return (
        f"{name}: before p50 {statistics.median(one.before_ms):.2f} p99 {p99(one.before_ms):.2f} ms, "
        f"during p50 {statistics.median(one.during_ms):.2f} p99 {p99(one.during_ms):.2f} "
        f"worst {max(one.during_ms):.1f} ms ({len(one.during_ms)} requests), ratio {one.ratio:.2f}; "
        f"logins {statuses}, the median after {statistics.median(one.logins_s):.1f} s, "
        f"the last after {one.logins_s[-1]:.1f} s; others had {one.foreign:.0%} of the gateway's cores"
    )


if __name__ == "__main__":
    sys.exit(main())
