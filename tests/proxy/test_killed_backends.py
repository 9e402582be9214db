"""Backends as processes, killed and started again under load; what they wrote down is the witness."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.snapshot import Balancing, Service, Target
from tests.proxy.harness import Stack, gateway, make_snapshot
from tests.proxy.scripted import exchange, request, until

ROOT = Path(__file__).parents[2]
METHODS = (b"GET", b"PUT", b"POST")
CLIENTS = 12


class Process:
    """A counting backend on a port of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = [sys.executable, "-m", "tests.proxy.counting_backend", str(self.port), str(self._log)]
        self._process = subprocess.Popen(program, cwd=ROOT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    async def listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@contextmanager
def processes(count: int, log: Path) -> Iterator[list[Process]]:
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        sockets = [first, second, third][:count]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        found = [Process(each.getsockname()[1], log) for each in sockets]
    try:
        for process in found:
            process.start()
        yield found
    finally:
        for process in found:
            process.kill()


@asynccontextmanager
async def load(stack: Stack) -> AsyncIterator[Counter[tuple[bytes, int]]]:
    """Keep clients asking until the block ends; each request has a number, and its answer must be its own."""
    numbers = itertools.count(1)
    seen: Counter[tuple[bytes, int]] = Counter()
    ended = asyncio.Event()

    async def client() -> None:
        reader, writer = await stack.connect()
        while not ended.is_set():
            number = next(numbers)
            method = METHODS[number % len(METHODS)]
            path = b"/p/%d" % number
            body = b"" if method == b"GET" else b"some body"
            answer = await exchange(reader, writer, request(method, path, body=body), method)
            seen[method, answer.status] += 1
            assert answer.status != 200 or answer.body == b"/%d" % number
            if answer.get(b"connection") == b"close":
                reader, writer = await stack.connect()

    clients = [asyncio.ensure_future(client()) for _ in range(CLIENTS)]
    try:
        yield seen
    finally:
        ended.set()
        await asyncio.wait_for(asyncio.gather(*clients), 30)


async def answered(seen: Counter[tuple[bytes, int]], count: int) -> None:
    """Let the load go on for a while."""
    before = seen.total()
    await until(lambda: seen.total() >= before + count, 30)


def judge(log: Path) -> None:
    """No request that could do harm twice was seen twice."""
    times = Counter(log.read_bytes().splitlines())
    assert times
    for line, count in times.items():
        assert count <= (1 if line.startswith(b"POST") else 3), line


def make_service(backends: list[Process], **settings: object) -> Service:
    targets = tuple(Target("http", "127.0.0.1", b.port, b"", b"Host: b\r\n") for b in backends)
    return Service("svc", targets, balancing=Balancing(**settings))  # type: ignore[arg-type]


async def test_a_backend_of_three_killed_and_back_costs_no_idempotent_request(tmp_path: Path) -> None:
    log = tmp_path / "seen"
    with processes(3, log) as backends:
        await asyncio.gather(*[b.listens() for b in backends])
        service = make_service(backends, eject_s=0.2, slow_start_s=0.5)
        async with gateway(make_snapshot(0, service=service)) as stack, load(stack) as seen:
            for victim in backends:
                await answered(seen, 300)
                victim.kill()
                await answered(seen, 300)
                victim.start()
                await victim.listens()
            await answered(seen, 300)
        failed = {key: count for key, count in seen.items() if key[1] != 200}
        assert not [key for key in failed if key[0] != b"POST"], failed
        assert sum(failed.values()) <= 3 * CLIENTS  # what was in flight at a kill, and nothing after it
    judge(log)


async def outages(stack: Stack, backend: Process) -> Counter[tuple[bytes, int]]:
    async with load(stack) as seen:
        for _ in range(4):
            await answered(seen, 500)
            backend.kill()
            await asyncio.sleep(0.4)
            backend.start()
            await backend.listens()
        await answered(seen, 500)
    return seen


async def test_the_only_backend_gone_for_a_moment_costs_next_to_nothing(tmp_path: Path) -> None:
    log = tmp_path / "seen"
    limits = Limits(connect_retry_s=20)  # a process starts slowly on a busy machine
    with processes(1, log) as (backend,):
        await backend.listens()
        service = make_service([backend])
        async with gateway(make_snapshot(0, limits, service=service), limits) as stack:
            seen = await outages(stack, backend)
        good = sum(count for (_, status), count in seen.items() if status == 200)
        assert good >= 0.98 * seen.total(), seen
    judge(log)


async def test_all_backends_gone_for_a_moment_are_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "seen"
    limits = Limits(connect_retry_s=20)
    with processes(2, log) as backends:
        await asyncio.gather(*[b.listens() for b in backends])
        service = make_service(backends, eject_s=0.2)
        async with gateway(make_snapshot(0, limits, service=service), limits) as stack, load(stack) as seen:
            await answered(seen, 300)
            for each in backends:
                each.kill()
            await asyncio.sleep(0.2)
            for each in backends:
                each.start()
            await asyncio.gather(*[b.listens() for b in backends])
            await answered(seen, 300)
        failed = {key: count for key, count in seen.items() if key[1] != 200}
        assert sum(failed.values()) <= CLIENTS, failed
    judge(log)


def test_the_waiting_for_a_restart_is_shorter_than_a_clients_patience() -> None:
    assert DEFAULTS.connect_retry_s < DEFAULTS.connect_timeout_s
