"""What systemd is told, and the watchdog's interval: sd_notify(3) without its library.

A datagram to the Unix socket that NOTIFY_SOCKET names, abstract ones too. Where there is none, nothing happens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """Takes its settings out of `environment`, so that workers do not inherit them."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        watchdog = environment.pop("WATCHDOG_USEC", "")
        watched_pid = environment.pop("WATCHDOG_PID", "")
        # sd_notify(3): an absolute path, or "@" for an abstract name; anything else is not for us.
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self._status = ""
        self.watchdog_s: float | None = None
        """Half of what systemd allows between two signs of life, or None."""
        if watchdog.isascii() and watchdog.isdecimal() and watched_pid in {"", str(os.getpid())}:
            self.watchdog_s = int(watchdog) / 2e6 or None

    def send(self, *lines: str) -> None:
        """Send ``NAME=VALUE`` lines. A manager that does not listen is no reason to stop serving."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)
                one.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete."""
        self._status = status
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=replacing the workers")

    def stopping(self) -> None:
        """The end begins."""
        self.send("STOPPING=1", "STATUS=draining")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`; said again only when it is another."""
        if text != self._status:
            self._status = text
            self.send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self.send("WATCHDOG=1")
