"""Open files: raised at the start, and survived when there are none left."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.server.descriptors import RESERVE, _connections_for, needed
from tests.proxy.harness import backend, echo
from tests.running import BOUND_S, Gateway, running, until, write_config

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import logging, resource, sys
from authgate_fast.limits import DEFAULTS
from authgate_fast.server.descriptors import fit_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
logging.basicConfig(stream=sys.stdout, format="%(message)s")
print(fit_open_files(DEFAULTS).max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def fit(soft: int, hard: int) -> str:
    """Return what is logged and printed by a process with these limits."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(soft), str(hard)],
        capture_output=True, text=True, timeout=BOUND_S, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    return done.stdout


def test_the_soft_limit_is_raised_to_the_hard_one_without_a_word() -> None:
    hard = needed(DEFAULTS)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.fail(f"this machine lets a process open fewer than {hard} files")
    assert fit(200, hard) == f"{DEFAULTS.max_connections} {hard}\n"


def test_a_hard_limit_that_is_too_low_means_fewer_connections_and_a_plain_warning() -> None:
    words, numbers = fit(512, 4_096).splitlines()
    assert "only 4096 files" in words
    assert f"lowered from {DEFAULTS.max_connections} to 2816" in words
    assert f"Raise the limit to {needed(DEFAULTS)}" in words
    assert numbers == "2816 4096"


@pytest.mark.parametrize("files", [1, 10, 100, 256, 1_024, 2_303, 2_304, 4_096, 100_000])
@pytest.mark.parametrize("max_upstream", [1, 64, 1_024])
def test_the_connections_that_are_left_leave_room_for_as_many_to_backends(
    files: int, max_upstream: int
) -> None:
    connections = _connections_for(files, max_upstream)
    assert connections >= 1
    limits = Limits(max_connections=connections, max_upstream_connections=max_upstream)
    if connections > 1:
        assert needed(limits) - RESERVE + min(RESERVE, files // 2) <= files


def open_files(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.worker_pid}/fd"))


def cpu_s(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.worker_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_process_without_descriptors_answers_whom_it_can_and_recovers(tmp_path: Path) -> None:
    async with backend(echo) as port:
        await asyncio.to_thread(_run_out, write_config(tmp_path / "a.yaml", port))


def _run_out(config: Path) -> None:
    with running("--config", str(config), "--ops", "127.0.0.1:0") as gateway:
        assert gateway.get("/open/a")[0] == 200
        at_rest = open_files(gateway)
        resource.prlimit(gateway.worker_pid, resource.RLIMIT_NOFILE, (at_rest + 30, 20_000))
        clients = [socket.create_connection(("127.0.0.1", gateway.port), BOUND_S) for _ in range(100)]
        until(lambda: open_files(gateway) >= at_rest + 30, "no descriptor left")
        # One that was let in asks for a backend, and there is an idle connection to it.
        assert ask(clients[0]).startswith(b"HTTP/1.1 200 ")
        # Then it keeps that connection busy: there is no other, and no descriptor for one.
        clients[0].sendall(b"GET /open/held HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        used_s = cpu_s(gateway)
        assert ask(clients[1]).startswith(b"HTTP/1.1 503 ")
        for client in clients[40:]:
            assert gone(client)
        assert cpu_s(gateway) - used_s < 1, "it spins"
        for client in clients:
            client.close()
        until(lambda: open_files(gateway) <= at_rest, "descriptors are free again")
        for _ in range(50):
            assert gateway.get("/open/a")[0] == 200
        assert metric(gateway, 'authgate_limit_hits_total{limit="open_files"}') == 1
        assert gateway.process.poll() is None
        assert "Traceback" not in gateway.log


def metric(gateway: Gateway, name: str) -> float:
    _, body = gateway.get("/metrics", port=gateway.ops_port)
    (line,) = [line for line in body.decode().splitlines() if line.startswith(name + " ")]
    return float(line.rpartition(" ")[2])


def ask(client: socket.socket) -> bytes:
    client.sendall(b"GET /open/a HTTP/1.1\r\nHost: a\r\n\r\n")
    return client.recv(65_536)


def gone(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
