"""The real `authgate` command as a child process, for tests from a user's side."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BOUND_S = 20.0
_LISTENS = re.compile(r"listens on 127\.0\.0\.1:([0-9]+)(?:, ops on 127\.0\.0\.1:([0-9]+))?")


def authgate(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "authgate_fast.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        env={**_clean_environment(), **(env or {})},
    )


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AUTHGATE_")}


def until(done: Callable[[], bool], what: str, bound_s: float = BOUND_S) -> None:
    """Wait for a fact, with a bound."""
    deadline = time.monotonic() + bound_s
    while not done():
        assert time.monotonic() < deadline, f"waited {bound_s} s for: {what}"
        time.sleep(0.01)


class Gateway:
    """A running `authgate run`; `log` is what it wrote to stderr so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0
        self.ops_port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def close(self) -> None:
        self._reader.join(BOUND_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def worker_pid(self) -> int:
        """The process that serves; the one that was started is its supervisor."""
        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pid)

    def wait_listening(self) -> None:
        until(lambda: bool(_LISTENS.search(self.log)) or self.process.poll() is not None, "listening")
        match = _LISTENS.search(self.log)
        assert match is not None, self.log
        self.port = int(match[1])
        self.ops_port = int(match[2] or 0)

    def get(self, path: str, *, port: int | None = None, **fields: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=BOUND_S)
        try:
            connection.request(
                "GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def code(self, path: str, **fields: str) -> str:
        """Return the problem code of an answer, or its status as text when the backend answered."""
        status, body = self.get(path, **fields)
        try:
            return str(json.loads(body)["code"])
        except (ValueError, KeyError, TypeError):
            return str(status)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(BOUND_S)


@contextmanager
def running(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Gateway]:
    """Run `authgate run` on a free port until the block ends; one worker, unless the arguments say otherwise."""
    if "--workers" not in arguments:
        arguments = ("--workers", "1", "--spare", "off", *arguments)
    process = subprocess.Popen(
        [sys.executable, "-m", "authgate_fast.cli", "run", "--listen", "127.0.0.1:0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=_clean_environment() | (env or {}),
    )
    gateway = Gateway(process)
    try:
        gateway.wait_listening()
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(BOUND_S)
        gateway.close()


def write_config(path: Path, backend_port: int, *, extra_routes: str = "", hosts: str = '["*"]') -> Path:
    """Write a gateway with one PUBLIC and one SECURE route (key: "the-key")."""
    path.write_text(
        f"""\
gateways:
  shop-api:
    hosts: {hosts}
    auth: {{type: API_KEY}}
    services:
      backend: {{target_url: "http://127.0.0.1:{backend_port}"}}
    routes:
      open: {{method: GET, public_path: "/open/{{rest*}}", target_path: "/{{rest*}}", service: backend, security: PUBLIC}}
      closed: {{method: GET, public_path: "/closed/{{rest*}}", target_path: "/{{rest*}}", service: backend, security: SECURE}}
{extra_routes}
    consumers:
      app: {{api_key_sha256: "{hashlib.sha256(b"the-key").hexdigest()}"}}
"""
    )
    return path
