"""Worker processes as the supervisor sees them: how one is started, and what is known of it.

A worker is a fresh interpreter, so that a reload runs the code that is installed then. It inherits one
descriptor, its end of the channel; everything else comes through that. The spare has loaded all code and waits: when
every core is busy, loading takes seconds that a slot without a worker should not wait. It can be forked into a worker
in milliseconds, for it has no loop and no threads; that worker is handed to the supervisor, which adopts orphans.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

from authgate_fast.server.channel import PROTOCOL, Channel, Message

if TYPE_CHECKING:
    import asyncio

SPARE, STARTING, STARTED, READY, LEAVING = "spare", "starting", "started", "ready", "leaving"
NO_SLOT = -1
LATE_S = 2.5
"""A worker without a sign of life for so long is helped by its neighbours, before it counts as hung."""
FORK_TIMEOUT_S = 1.0
"""The longest that the supervisor stands still for the spare to fork; then a fresh process is started instead."""
_PR_SET_CHILD_SUBREAPER = 36
_FIRST_MESSAGE_BYTES = 256
_COMMAND = ("-m", "authgate_fast.server.worker_process")


class Process(Protocol):
    """What the supervisor needs of a process: `subprocess.Popen`, or one that was forked from the spare."""

    @property
    def pid(self) -> int: ...

    returncode: int | None


@dataclass(slots=True)
class Forked:
    """A process that the spare has forked."""

    pid: int
    returncode: int | None = None


@dataclass(slots=True, eq=False)
class Child:
    """One worker process. ``heard_s`` is when it last gave a sign of life, ``report`` the last numbers it sent."""

    process: Process
    channel: Channel = field(init=False)
    slot: int = NO_SLOT
    state: str = SPARE
    is_loaded: bool = False
    accepts: bool = False
    started_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    ready_s: float | None = None
    kill_at_s: float | None = None
    is_hung: bool = False
    failure: tuple[int, str] | None = None
    report: Message = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def __str__(self) -> str:
        return (
            f"worker {self.slot} (pid {self.pid})" if self.slot != NO_SLOT else f"the spare (pid {self.pid})"
        )

    def serves(self) -> bool:
        """Tell whether its slot needs no help: it accepts, has a configuration and gives signs of life."""
        return self.accepts and self.state == READY and time.monotonic() - self.heard_s < LATE_S

    def begin(self, slot: int, workers: int, arguments: list[str]) -> None:
        """Have it become the worker of a slot."""
        self.slot, self.state = slot, STARTING
        self.started_s = self.heard_s = time.monotonic()
        self.send("run", protocol=PROTOCOL, slot=slot, workers=workers, arguments=arguments)

    def send(self, kind: str, fds: list[int] | None = None, **values: object) -> None:
        """Send it a message."""
        self.channel.send({"kind": kind, **values}, fds or ())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; it may have ended, and as long as nobody has waited for it the number is its own."""
        if self.process.returncode is None:
            os.kill(self.pid, number)


def start_child(loop: asyncio.AbstractEventLoop, on_message: Callable[[Child, Message], None]) -> Child:
    """Start a process that can become a worker. Raises OSError when the system has none to give."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, *_flags(), *_COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        except OSError:
            ours.close()
            raise
    return _joined(loop, Child(process), ours, on_message)


def fork_child(
    loop: asyncio.AbstractEventLoop, spare: Child, on_message: Callable[[Child, Message], None]
) -> Child | None:
    """Have the spare fork a process that can become a worker; None if it does not answer in time."""
    ours, theirs = socket.socketpair()
    with theirs:
        spare.send("fork", [theirs.fileno()])
        if spare.channel.unsent:
            ours.close()
            return None
    ours.settimeout(FORK_TIMEOUT_S)
    try:
        first = orjson.loads(ours.recv(_FIRST_MESSAGE_BYTES))  # of a line this short nothing is missing
        child = Child(Forked(int(first["pid"])), is_loaded=True)
    except (OSError, ValueError, KeyError, TypeError):
        ours.close()
        return None
    return _joined(loop, child, ours, on_message)


def adopt_orphans() -> bool:
    """Become the parent of what a child leaves behind (PR_SET_CHILD_SUBREAPER); tell whether the system can do that."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _joined(
    loop: asyncio.AbstractEventLoop,
    child: Child,
    ours: socket.socket,
    on_message: Callable[[Child, Message], None],
) -> Child:
    def received(message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)  # a worker has none to give
        on_message(child, message)

    child.channel = Channel(loop, ours, received, lambda: None)  # its end comes as SIGCHLD
    return child


def _flags() -> list[str]:
    """Keep the directory where the operator stands out of the module path: it must not replace a module."""
    return ["-P", *(f"-W{option}" for option in sys.warnoptions)]


def _environment() -> dict[str, str]:
    """Return the worker's environment: ours, and where the package is, if it runs from a checkout."""
    environment = dict(os.environ)
    root = Path(__file__).parents[2]
    if root.name not in {"site-packages", "dist-packages"}:
        paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *paths])
    return environment


def how_it_ended(code: int) -> str:
    """Say how a process ended, from its return code as `subprocess` counts it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
