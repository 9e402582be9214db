"""Faults of Redis, from which the node has its documents: it dies and comes back, and it changes a great deal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from bench.faults_stage import START_S, Outcome, Stage, count_seen, p99_ms, until_time, wait_for
from bench.numbered import Backend
from bench.processes import Child, MissingToolError, free_ports

DOCUMENTS = 10_000
P99_RATIO = 2.0
_TICK_S = 0.02
_KEYS = 100
_IN_A_ROW = 20


def find_redis() -> str | None:
    """Return the path of a redis-server."""
    return shutil.which("redis-server")


class RedisProcess:
    """A redis-server that keeps its data in a file and is killed and started again."""

    def __init__(self, stage: Stage) -> None:
        binary = find_redis()
        if binary is None:
            raise MissingToolError("no redis-server: install Debian's redis-server")
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._stage = stage
        self._command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(stage.directory), "--save", "",
            "--appendonly", "yes",
        ]  # fmt: skip
        self._starts = 0
        self._child: Child | None = None

    async def start(self) -> None:
        """Start it; return when it has its data."""
        self._starts += 1
        child = self._child = self._stage.start(f"redis-{self._starts}", *self._command)
        await wait_for(child, self._answers, "answer")

    def kill(self) -> None:
        """Kill it; what was written is in its file."""
        assert self._child is not None
        self._child.popen.kill()
        self._child.popen.wait()

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Connect."""
        client = redis.Redis(port=self.port, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _consumer(key: str, roles: tuple[str, ...] = ()) -> str:
    return json.dumps({"api_key_sha256": hashlib.sha256(key.encode()).hexdigest(), "roles": roles})


def _service(backend_port: int, timeout_s: int = 60) -> str:
    return json.dumps({"target_url": f"http://127.0.0.1:{backend_port}", "first_byte_timeout_s": timeout_s})


def _route(path: str) -> str:
    return json.dumps(
        {"method": "ANY", "public_path": f"{path}/{{any*}}", "target_path": "/{any*}", "service": "backend",
         "security": "SECURE"}
    )  # fmt: skip


def _with_key(number: int) -> bytes:
    return b"GET /closed/n/%d HTTP/1.1\r\nHost: test\r\nX-Api-Key: key-%d\r\n\r\n" % (number, number % _KEYS)


def _documents(backend_port: int) -> dict[str, str]:
    return {
        "authgate:gateway:shop": json.dumps({"hosts": ["*"], "auth": {"type": "API_KEY"}}),
        "authgate:service:shop:backend": _service(backend_port),
        "authgate:route:shop:closed": _route("/closed"),
        **{f"authgate:consumer:shop:client{at}": _consumer(f"key-{at}") for at in range(_KEYS)},
    }


async def _until_let_in(stage: Stage, key: str) -> None:
    """Wait until so many new connections in a row are let in with a key that all workers must know it."""
    request = (
        f"GET /closed/n/0 HTTP/1.1\r\nHost: test\r\nX-Api-Key: {key}\r\nConnection: close\r\n\r\n".encode()
    )
    let_in = 0
    async with asyncio.timeout(START_S):
        while let_in < _IN_A_ROW:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(request)
            let_in = let_in + 1 if (await reader.read()).startswith(b"HTTP/1.1 200 ") else 0
            writer.close()
            if not let_in:
                await asyncio.sleep(0.02)


async def redis_away(stage: Stage) -> Outcome:
    """Redis is killed and comes back with its data: nothing fails, and what is written then is live."""
    server = RedisProcess(stage)
    await server.start()
    async with Backend() as serving:
        with server.client() as client:
            client.mset(_documents(serving.port))
        await stage.start_node("--redis", server.url, "--limit", "max_failures_per_address=1000000")
        async with stage.load(request=_with_key) as load:
            outcome = Outcome(
                stage.kind, load, recovery="after Redis was back, a new key was known to all workers in"
            )
            away_s = 0.4 * stage.seconds / stage.events
            async for number in stage.beats(0.2):
                begun_s = time.monotonic()
                server.kill()
                await until_time(begun_s + away_s)
                await server.start()
                outcome.notes.append(f"Redis was away for {time.monotonic() - begun_s:.1f} s")
                begun_s = time.monotonic()
                with server.client() as client:
                    client.set(f"authgate:consumer:shop:late{number}", _consumer(f"late-{number}"))
                await _until_let_in(stage, f"late-{number}")
                outcome.recoveries_s.append(time.monotonic() - begun_s)
        count_seen(outcome, serving)
    outcome.judge()
    return outcome


# --- many changes -----------------------------------------------------------------------------------------


def _changes(backend_port: int) -> list[tuple[str, str]]:
    """Return what is written: nine of ten are consumers, then routes, and the service itself now and then."""
    changes = []
    for at in range(DOCUMENTS):
        if at % 100 == 99:
            changes.append(("authgate:service:shop:backend", _service(backend_port, 30 + at // 100 % 2)))
        elif at % 10 == 9:
            changes.append((f"authgate:route:shop:r{at % 1_000}", _route(f"/r{at % 1_000}/v{at}")))
        elif at % 10 == 0:
            changes.append(
                (
                    f"authgate:consumer:shop:client{at // 10 % _KEYS}",
                    _consumer(f"key-{at // 10 % _KEYS}", (f"r{at}",)),
                )
            )
        else:
            changes.append((f"authgate:consumer:shop:other{at}", _consumer(f"new-{at}")))
    return changes


def _command(key: str, value: str) -> bytes:
    """Write a SET as Redis reads it: the load's process has no time for a client library."""
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(key),
        key.encode(),
        len(value),
        value.encode(),
    )


async def _write(port: int, commands: list[bytes], seconds: float) -> None:
    """Send commands evenly spread over a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ticks = max(1, int(seconds / _TICK_S))
    begun_s = time.monotonic()
    for tick in range(ticks):
        now = commands[tick * len(commands) // ticks : (tick + 1) * len(commands) // ticks]
        writer.write(b"".join(now))
        for _ in now:
            reply = await reader.readline()
            assert reply == b"+OK\r\n", reply
        await until_time(begun_s + (tick + 1) * seconds / ticks)
    writer.close()


async def documents(stage: Stage) -> Outcome:
    """10,000 documents are changed, in stretches between quiet ones: nothing fails, and p99 stays below twice."""
    server = RedisProcess(stage)
    await server.start()
    async with Backend() as serving:
        changes = _changes(serving.port)
        with server.client() as client:
            client.mset(_documents(serving.port))
            client.mset({key: value.replace("new-", "old-") for key, value in changes if ":other" in key})
        await stage.start_node("--redis", server.url, "--limit", "max_failures_per_address=1000000")
        commands = [_command(key, value) for key, value in changes]
        stretch_s = stage.seconds / (2 * stage.events)
        quiet: list[list[float]] = []
        changing: list[list[float]] = []
        async with stage.load(request=_with_key) as load:
            outcome = Outcome(stage.kind, load, recovery="the last change was live in all workers after")
            for number in range(stage.events):
                first, last = (at * len(commands) // stage.events for at in (number, number + 1))
                begun_s = time.monotonic()
                await until_time(begun_s + stretch_s)
                middle_s = time.monotonic()
                await _write(server.port, commands[first:last], stretch_s)
                quiet.append(load.took_between(begun_s, middle_s))
                changing.append(load.took_between(middle_s, time.monotonic()))
            begun_s = time.monotonic()
            await _until_let_in(stage, f"new-{DOCUMENTS - 2}")
            outcome.recoveries_s.append(time.monotonic() - begun_s)
        count_seen(outcome, serving)
    outcome.judge()
    _judge_p99(outcome, quiet, changing, stage)
    return outcome


def _judge_p99(outcome: Outcome, quiet: list[list[float]], changing: list[list[float]], stage: Stage) -> None:
    """Compare the slowest hundredth of the quiet stretches, all together, with that of the changing ones."""
    calm_ms, busy_ms = (p99_ms([took for part in parts for took in part]) for parts in (quiet, changing))
    ratio = busy_ms / calm_ms if calm_ms else 0.0
    outcome.notes.append(
        f"{DOCUMENTS:,} documents changed in {len(changing)} stretches of {stage.seconds / (2 * stage.events):.1f} s: "
        f"p99 {calm_ms:.1f} ms quiet, {busy_ms:.1f} ms while changing, ratio {ratio:.2f}"
    )
    pairs = zip(quiet, changing, strict=True)
    outcome.notes.append(
        "each pair, ms: " + ", ".join(f"{p99_ms(calm):.1f}/{p99_ms(busy):.1f}" for calm, busy in pairs)
    )
    if stage.options.timed:
        outcome.require(
            ratio < P99_RATIO, f"p99 grew to {ratio:.2f} times; less than {P99_RATIO:g} is promised"
        )
