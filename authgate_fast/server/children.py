"""Worker processes as the supervisor sees them: how one is started, and what is known of it.

A worker is a fresh interpreter, so that a reload runs the code that is installed then. It inherits one
descriptor, its end of the channel; everything else comes through that. A spare has loaded all code and waits for a
slot: when every core is busy, loading takes seconds that a slot without a worker should not wait.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from authgate_fast.server.channel import PROTOCOL, Channel, Message

if TYPE_CHECKING:
    import asyncio

SPARE, STARTING, STARTED, READY, LEAVING = "spare", "starting", "started", "ready", "leaving"
NO_SLOT = -1
LATE_S = 2.5
"""A worker without a sign of life for so long is helped by its neighbours, before it counts as hung."""
_COMMAND = ("-m", "authgate_fast.server.worker_process")


@dataclass(slots=True, eq=False)
class Child:
    """One worker process. ``heard_s`` is when it last gave a sign of life, ``report`` the last numbers it sent."""

    popen: subprocess.Popen[bytes]
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
        return self.popen.pid

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
        if self.popen.returncode is None:
            os.kill(self.pid, number)


def start_child(loop: asyncio.AbstractEventLoop, on_message: Callable[[Child, Message], None]) -> Child:
    """Start a process that can become a worker. Raises OSError when the system has none to give."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = subprocess.Popen(
                [sys.executable, *_flags(), *_COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        except OSError:
            ours.close()
            raise
    child = Child(popen)

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
