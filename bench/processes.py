"""What a run starts, and the promise that all of it is ended.

Each child leads a session of its own, so that it and whatever it forks are one process group: ended by that
group's id, politely first, and also when the run fails or is interrupted. Times are in seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_S = 5.0
_POLL_S = 0.02
_LOG_TAIL_LINES = 15


class BenchError(Exception):
    """The run cannot go on; the text tells a user why."""


class MissingToolError(BenchError):
    """The machine lacks something that the run needs."""


@dataclass(slots=True)
class Child:
    """One started program; `log` holds its output."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def failed(self, what: str) -> BenchError:
        """Make the error that says `what` happened, with the end of the child's own words."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return BenchError("\n".join([f"{self.name} {what}", *(f"    {line}" for line in lines)]))

    def check_alive(self) -> None:
        """Raise BenchError if the program has ended by itself."""
        code = self.popen.poll()
        if code is not None:
            raise self.failed(f"ended by itself (exit code {code})")


class Children:
    """All programs of a run. A context manager: leaving it ends them, the last started first."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._children: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            for child in reversed(self._children):
                _end(child)

    def start(
        self,
        name: str,
        arguments: Sequence[str | Path],
        cpus: set[int],
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program that may run on `cpus` only, from its first instruction on."""
        log = self._log_directory / f"{name.replace('/', '_')}.log"
        with _undisturbed(), log.open("wb") as output, _affinity(cpus):
            popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,
            )
            child = Child(name, popen, log)
            self._children.append(child)
        return child


def run_pinned(arguments: Sequence[str | Path], cpus: set[int], timeout_s: float) -> str:
    """Run a program to its end on `cpus` and return what it printed; it never outlives the call."""
    with _affinity(cpus):
        popen = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    with popen:
        try:
            output, _ = popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{arguments[0]} was not done after {timeout_s:g} s") from None
        finally:
            if popen.returncode is None:
                _signal_group(popen.pid, signal.SIGKILL)
    if popen.returncode:
        raise BenchError(f"{arguments[0]} failed (exit code {popen.returncode}):\n{output}")
    return output


def wait_until(child: Child, is_done: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait until `is_done`, as long as the child lives and at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        child.check_alive()
        if time.monotonic() > deadline:
            raise child.failed(f"did not {what} within {timeout_s:g} s")
        time.sleep(_POLL_S)


def accepts(port: int) -> bool:
    """Tell whether something listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Find `count` different ports of 127.0.0.1 on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def _affinity(cpus: set[int]) -> Iterator[None]:
    """Let children started inside inherit `cpus`; no code has to run between their fork and exec."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold a request to stop back until the end of the block: no child may be half started or half ended."""
    asked = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _end(child: Child) -> None:
    if child.popen.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.popen.wait(_STOP_S)
    _signal_group(child.pid, signal.SIGKILL)  # what the leader left behind, or all of a deaf group
    child.popen.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
