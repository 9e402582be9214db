"""A node with several workers as a child process, for tests that hurt it. Nothing of it outlives a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.plain_client import ask

BOUND_S = 40.0
_LISTENS = re.compile(r"listens on (?:\S+):([0-9]+)(?:, ops on (?:\S+):([0-9]+))?, ([0-9]+) worker")


class Node:
    """A running `authgate run`; `log` is what it and its workers wrote to stderr so far."""

    def __init__(self, process: asyncio.subprocess.Process, ops_port: int) -> None:
        self.process = process
        self.ops_port = ops_port
        self.log = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65_536):
            self.log += data.decode()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        match = _LISTENS.search(self.log)
        assert match is not None, self.log
        return int(match[1])

    def worker_pids(self) -> list[int]:
        """Return the workers, without the spare: it has no name yet."""
        return [pid for pid in children_of(self.pid) if name_of(pid).startswith("authgate-w")]

    async def until_listening(self) -> None:
        await until(
            lambda: bool(_LISTENS.search(self.log)) or self.process.returncode is not None, "listening"
        )
        assert _LISTENS.search(self.log), self.log

    async def until_ended(self) -> int:
        async with asyncio.timeout(BOUND_S):
            code = await self.process.wait()
            await self._reading
        return code

    async def status(self) -> dict[str, Any]:
        answer = await ask(self.ops_port, "/status")
        assert answer.status == 200, answer.body
        status: dict[str, Any] = json.loads(answer.body)
        return status

    async def metric(self, name: str) -> float:
        answer = await ask(self.ops_port, "/metrics")
        for line in answer.body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no {name}")

    async def serving(self) -> int:
        return int(await self.metric("authgate_workers_serving"))

    async def until_serving(self, count: int, bound_s: float = BOUND_S) -> float:
        """Wait until so many workers serve; return how long that took."""
        begun_s = time.monotonic()
        async with asyncio.timeout(bound_s):
            while await self.serving() != count:  # noqa: ASYNC110  # another process's fact
                await asyncio.sleep(0.02)
        return time.monotonic() - begun_s

    async def until_spare(self) -> None:
        """Wait until a process stands ready to replace a worker."""
        async with asyncio.timeout(BOUND_S):
            while not (await self.status())["spare_ready"]:  # noqa: ASYNC110  # another process's fact
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """End whatever is left, workers first, so that none is left alone."""
        pids = [*children_of(self.pid), self.pid] if self.process.returncode is None else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.until_ended()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AUTHGATE_")}
    return clean | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "authgate_fast.cli", "run", *arguments]


@asynccontextmanager
async def started(
    arguments: Sequence[str], ops_port: int, env: dict[str, str] | None = None, prefix: Sequence[str] = (),
    pass_fds: Sequence[int] = (), cwd: Path | None = None,
) -> AsyncIterator[Node]:  # fmt: skip
    """Start a node and end it when the block ends; it need not get ready."""
    words = [*prefix, *command(*arguments)]
    process = await asyncio.create_subprocess_exec(
        *words, stderr=asyncio.subprocess.PIPE, env=environment(**(env or {})), pass_fds=pass_fds, cwd=cwd
    )
    node = Node(process, ops_port)
    try:
        yield node
    finally:
        await node.end()


@asynccontextmanager
async def running_node(config: Path, *arguments: str, **how: Any) -> AsyncIterator[Node]:
    """Run a node on free ports until the block ends."""
    ops_port = free_port()
    words = ["--config", str(config), "--ops", f"127.0.0.1:{ops_port}", *arguments]
    if "--listen" not in arguments:
        words += ["--listen", "127.0.0.1:0"]
    async with started(words, ops_port, **how) as node:
        await node.until_listening()
        yield node


async def until(done: Callable[[], bool], what: str, bound_s: float = BOUND_S) -> None:
    """Wait for a fact, with a bound."""
    deadline_s = time.monotonic() + bound_s
    while not done():
        assert time.monotonic() < deadline_s, f"waited {bound_s} s for: {what}"
        await asyncio.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Return the living children of a process, oldest first."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in sorted(found) if is_alive(child)]


def name_of(pid: int) -> str:
    """Return what a process calls itself."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be buried does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}
