"""Hostile clients of each kind against a real gateway, while a good client asks on: ``python -m bench.hostile``.

For each kind: its clients begin at once and come back whenever they are cut. A good client sends numbered requests
at a steady pace meanwhile, now and then on a new connection; each must be answered with its number. Shown are what it
waited, the gateway's memory, and which of its limits bit; when all are gone its descriptors must be as before.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import hostile_clients as clients
from bench.hostile_clients import Hostile

BOUND_S = 30.0
BIG_BYTES = 8_000_000
GOOD_PACE_S = 0.02
NEW_CONNECTION_EVERY = 10
AGAIN_S = 0.1
"""A new connection that was closed at once is tried again after this."""
LIMITS = {
    "head_timeout_s": 1, "body_timeout_s": 1, "send_timeout_s": 1.5, "linger_timeout_s": 0.5, "rate_grace_s": 0.5,
    "min_body_rate_bytes_s": 1000, "min_send_rate_bytes_s": 100_000, "max_body_bytes": 10_000_000,
    "max_buffered_bytes": 4_194_304, "between_bytes_timeout_s": 5, "first_byte_timeout_s": 5, "pool_idle_timeout_s": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of hostile client, the limits that it must run into (any of them), and limits of its own."""

    run: Hostile
    limits: tuple[str, ...] = ()
    share: float = 1.0
    """Of the clients that are asked for: some kinds are that much more work."""

    @property
    def name(self) -> str:
        return self.run.__name__


KINDS = (
    Kind(clients.silent, ("head_timeout_s",)),
    Kind(clients.slow_head, ("head_timeout_s",)),
    Kind(clients.slow_body, ("min_body_rate_bytes_s",)),
    Kind(clients.expect_and_silence, ("body_timeout_s", "min_body_rate_bytes_s")),
    Kind(clients.half_closed),
    Kind(clients.tiny_chunks, ("max_chunk_overhead_bytes",)),
    Kind(clients.endless_chunks, ("max_body_bytes",), 0.1),
    Kind(clients.endless_trailers, ("max_trailer_bytes", "max_trailer_fields")),
    Kind(clients.header_bombs, ("max_head_bytes", "max_fields", "max_target_bytes")),
    Kind(clients.pipelining_unread, ("send_timeout_s", "min_send_rate_bytes_s", "max_buffered_bytes"), 0.2),
    Kind(clients.slow_reader, ("min_send_rate_bytes_s", "max_buffered_bytes")),
    Kind(clients.deaf_reader, ("send_timeout_s", "max_buffered_bytes")),
    Kind(clients.head_hoarder, ("head_timeout_s", "max_buffered_bytes")),
    Kind(clients.pipeline_hoarder, ("max_buffered_bytes",)),
    Kind(clients.upload_hoarder, ("max_buffered_bytes",), 0.2),
    Kind(clients.reset_storm),
)

# --- the scene: a backend, a gateway, and what can be seen of it ------------------------------------------


class Backend:
    """Answers /n/NUMBER with the number, /big with much, /up when the body is there, /stall and /deaf never."""

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(BOUND_S):
            raise RuntimeError("the backend does not start")

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND_S)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listening = socket.create_server(("127.0.0.1", 0), backlog=2_048)
        listening.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768
        )  # what it leaves unread is soon too much
        server = await asyncio.start_server(self._serve, sock=listening)
        self.port = listening.getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            if task is not None:
                task.cancel()
        while self._tasks:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if path == b"/stall":
            await reader.read(-1)
        elif path == b"/deaf":
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of both ways
            await asyncio.sleep(BOUND_S)
        elif path == b"/up":
            await reader.read(-1)  # hostile bodies have no end
        elif path == b"/big":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG_BYTES)
            for _ in range(BIG_BYTES // 80_000):
                writer.write(b"x" * 80_000)
                await writer.drain()
        else:
            number = path.rpartition(b"/")[2]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))
            await writer.drain()


class Gateway:
    """A running `authgate run` of one worker, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ops_port: int) -> None:
        self.process = process
        self.port = port
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        (self.worker,) = [int(pid) for task in tasks for pid in task.read_text().split()]
        self._ops_port = ops_port

    def metrics(self) -> dict[str, float]:
        """Read /metrics: each sample by its name with labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ops_port, timeout=BOUND_S)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def limit_hits(self) -> dict[str, int]:
        """Return how often each limit bit so far."""
        prefix = 'authgate_limit_hits_total{limit="'
        return {
            name.removeprefix(prefix).removesuffix('"}'): int(value)
            for name, value in self.metrics().items()
            if name.startswith(prefix) and value
        }

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.worker}/fd"))

    def memory(self, what: str) -> int:
        """Return ``VmRSS`` (now) or ``VmHWM`` (the most so far) in bytes."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        found = re.search(rf"^{what}:\s+([0-9]+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_most_memory(self) -> None:
        """Let VmHWM begin anew (proc(5): clear_refs)."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")


@contextmanager
def scene(settings: dict[str, float]) -> Iterator[Gateway]:
    """Run a backend and a gateway with these limits until the block ends."""
    backend = Backend()
    backend.start()
    with tempfile.TemporaryDirectory(prefix="authgate-hostile-") as directory:
        config = Path(directory) / "config.yaml"
        config.write_text(
            "gateways:\n  g:\n    hosts: ['*']\n    auth: {type: API_KEY}\n    services:\n"
            f"      s: {{target_url: 'http://127.0.0.1:{backend.port}'}}\n    routes:\n"
            "      r: {method: ANY, public_path: '/n/{rest*}', target_path: '/n/{rest*}', service: s,"
            " security: PUBLIC}\n"
            + "".join(
                f"      {name}: {{method: ANY, public_path: /{name}, target_path: /{name}, service: s,"
                " security: PUBLIC}\n"
                for name in ("big", "up", "stall", "deaf")
            )
        )
        options = [part for name, value in settings.items() for part in ("--limit", f"{name}={value}")]
        log = Path(directory) / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "authgate_fast.cli", "run", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
                 "--workers", "1", "--spare", "off", "--drain-timeout", "0.5",
                 "--config", str(config), *options],
                stderr=written,
            )  # fmt: skip
        try:
            yield _started(process, log)
        finally:
            process.terminate()
            process.wait(BOUND_S)
            backend.stop()


def _started(process: subprocess.Popen[bytes], log: Path) -> Gateway:
    deadline_s = time.monotonic() + BOUND_S
    while time.monotonic() < deadline_s and process.poll() is None:
        found = re.search(r"listens on 127\.0\.0\.1:([0-9]+), ops on 127\.0\.0\.1:([0-9]+)", log.read_text())
        if found:
            return Gateway(process, int(found[1]), int(found[2]))
        time.sleep(0.02)
    raise RuntimeError(f"the gateway does not start: {log.read_text()}")


# --- one kind ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What was seen while one kind of hostile clients was there."""

    requests: int = 0
    retried_connects: int = 0
    wrong: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    connections: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    most_rss: int = 0
    rss_before: int = 0
    files_before: int = 0
    files_after: int = 0


async def attack(gateway: Gateway, kind: Kind, count: int, seconds: float) -> Outcome:
    """Let `count` hostile clients of one kind loose for `seconds`, and see how a good one fares."""
    first = await _ask(gateway.port, None, 0, Outcome())  # whatever is loaded late is loaded then
    if first is not None:
        first[1].close()
    outcome = Outcome(files_before=await _files_at_rest(gateway), rss_before=gateway.memory("VmRSS"))
    gateway.forget_most_memory()
    hits = await asyncio.to_thread(gateway.limit_hits)
    over = asyncio.Event()
    swarm = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hostile_clients",
        kind.name, str(gateway.port), str(max(int(count * kind.share), 1)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    good = asyncio.create_task(_good_client(gateway.port, outcome, over))
    await asyncio.sleep(seconds)
    deadline_s = time.monotonic() + BOUND_S
    while True:
        now = await asyncio.to_thread(gateway.limit_hits)
        outcome.hits = {name: more for name in now if (more := now[name] - hits.get(name, 0))}
        if not kind.limits or set(kind.limits) & set(outcome.hits) or time.monotonic() > deadline_s:
            break  # a busy machine takes its time to become as hostile as that
        await asyncio.sleep(0.2)
    over.set()
    await good
    connections, _ = await asyncio.wait_for(swarm.communicate(b""), BOUND_S)
    outcome.connections = int(connections)
    outcome.most_rss = gateway.memory("VmHWM")
    outcome.files_after = await _files_at_rest(gateway, outcome.files_before)
    return outcome


async def _files_at_rest(gateway: Gateway, wanted: int = 0) -> int:
    """Return how many files are open when clients are gone: no more than `wanted`, or the same for a while."""
    deadline_s = time.monotonic() + BOUND_S
    same = 0
    files = gateway.open_files()
    while time.monotonic() < deadline_s and same < 10 and not (wanted and files <= wanted):
        await asyncio.sleep(0.05)
        now = gateway.open_files()
        same = same + 1 if now == files and not wanted else 0
        files = now
    return files


async def _good_client(port: int, outcome: Outcome, over: asyncio.Event) -> None:
    streams: clients.Streams | None = None
    while not over.is_set():
        number = outcome.requests
        if streams is not None and number % NEW_CONNECTION_EVERY == 0:
            streams[1].close()
            streams = None
        begun_s = time.monotonic()
        streams = await _ask(port, streams, number, outcome)
        outcome.longest_s = max(outcome.longest_s, time.monotonic() - begun_s)
        outcome.requests += 1
        await asyncio.sleep(GOOD_PACE_S)
    if streams is not None:
        streams[1].close()


async def _ask(
    port: int, streams: clients.Streams | None, number: int, outcome: Outcome
) -> clients.Streams | None:
    """Send one numbered request. Only a new connection that was closed at once is tried again."""
    deadline_s = time.monotonic() + BOUND_S
    while True:
        is_new = streams is None
        if streams is None:
            streams = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = streams
        try:
            writer.write(b"GET /n/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
            length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
            body = await asyncio.wait_for(reader.readexactly(int(length[1]) if length else 0), BOUND_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            writer.transport.abort()
            streams = None
            partial = isinstance(error, asyncio.IncompleteReadError) and error.partial
            if is_new and not partial and time.monotonic() < deadline_s:
                outcome.retried_connects += 1
                await asyncio.sleep(AGAIN_S)
                continue
            outcome.wrong.append(f"request {number}: {error!r}")
            return None
        if not head.startswith(b"HTTP/1.1 200 ") or body != b"%d" % number:
            outcome.wrong.append(f"request {number}: {head!r} {body!r}")
        if b"\r\nConnection: close\r\n" in head:
            writer.close()
            return None
        return streams


# --- the command ------------------------------------------------------------------------------------------


def main() -> int:
    """Run every kind, print a table; return 1 if a good request failed or something was not let go."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000, help="hostile clients at once (default 1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind (default 10)")
    parser.add_argument("--only", action="append", help="a kind; repeatable")
    options = parser.parse_args()
    failed = False
    print(
        f"{'kind':<20}{'connects':>9}{'good':>7}{'longest':>9}{'retried':>8}{'rss':>13}{'files':>11}  limits that bit"
    )
    for kind in KINDS:
        if options.only and kind.name not in options.only:
            continue
        with scene(dict(LIMITS)) as gateway:
            seen = asyncio.run(attack(gateway, kind, options.clients, options.seconds))
        print(
            f"{kind.name:<20}{seen.connections:>9,}{seen.requests:>7,}{seen.longest_s:>7.2f} s"
            f"{seen.retried_connects:>8}"
            f"{seen.rss_before >> 20:>5} > {seen.most_rss >> 20:>3} MB{seen.files_before:>5} > {seen.files_after:>3}"
            f"  {', '.join(f'{name} {number:,}' for name, number in seen.hits.items())}",
            flush=True,
        )
        for wrong in seen.wrong[:5]:
            print(f"WRONG: {wrong}")
        failed = failed or bool(seen.wrong) or seen.files_after > seen.files_before
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
