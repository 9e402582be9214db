"""What a node says and does at its start, at a reload and at its end, and as others run it: systemd, a container."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.numbered import Backend, Load, gateway_file
from tests.server.node_kit import (
    children_of,
    free_port,
    is_alive,
    running_node,
    started,
    until,
)

pytestmark = pytest.mark.timeout(180)

JWT = """\
  people:
    hosts: [people.example.com]
    auth: {type: JWT}
"""
NODE = ("--workers", "2", "--spare", "off")


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend() as backend:
        yield backend


@pytest.fixture
def config(backend: Backend, tmp_path: Path) -> Path:
    file = tmp_path / "g.yaml"
    file.write_text(gateway_file(backend.port))
    return file


async def answers(port: int, count: int = 20) -> None:
    async with Load(port, 8) as load:
        await until(lambda: sum(load.outcomes.values()) >= count, "answers")
    assert load.failed == 0, load.examples


async def ended(*arguments: str, ops_port: int = 0, **how: object) -> tuple[int, str]:
    async with started(arguments, ops_port, **how) as node:  # type: ignore[arg-type]
        return await node.until_ended(), node.log


async def test_a_mistake_in_the_file_is_said_once_however_many_workers(config: Path) -> None:
    config.write_text(config.read_text().replace("PUBLIC", "PUBLICK"))
    code, log = await ended(
        "--config", str(config), "--ops", "off", "--listen", "127.0.0.1:0", "--workers", "3"
    )
    assert code == 1
    assert log.count("PUBLICK") == 1
    assert log.endswith("1 mistake\n")
    assert "Traceback" not in log


@pytest.mark.parametrize("option", ["--listen", "--ops"])
async def test_a_port_in_use_is_said_plainly(option: str, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        other = {"--listen": "--ops", "--ops": "--listen"}[option]
        code, log = await ended("--config", str(config), *NODE, option, at, other, "127.0.0.1:0")
    assert code == 3
    assert log.count("\n") == 1
    assert f"cannot listen on {at}: address already in use" in log
    assert f"{option} HOST:PORT" in log


async def test_a_state_directory_belongs_to_one_node_whatever_its_workers(tmp_path: Path) -> None:
    arguments = (
        "--redis",
        f"redis://127.0.0.1:{free_port()}/0",
        "--state-dir",
        str(tmp_path / "state"),
        *NODE,
    )
    async with started((*arguments, "--ops", "off", "--listen", "127.0.0.1:0"), 0) as node:
        await node.until_listening()  # without Redis it answers that it is not ready
        code, log = await ended(*arguments, "--ops", "off", "--listen", "127.0.0.1:0")
        assert code == 3
        assert "in use by another running node" in log
        assert node.process.returncode is None
        node.process.send_signal(signal.SIGTERM)
        assert await node.until_ended() == 0


async def test_a_jwt_gateway_in_a_file_gets_one_worker_and_more_are_refused(config: Path) -> None:
    config.write_text(config.read_text() + JWT)
    code, log = await ended("--config", str(config), "--ops", "off", "--listen", "127.0.0.1:0", *NODE)
    assert code == 2
    assert log.count("gateway people (JWT)") == 1
    assert "run with --workers 1" in log
    cpus = os.sched_getaffinity(0)
    async with running_node(config, "--spare", "off") as node:
        assert ", 1 worker\n" in node.log
        await until(lambda: len(node.worker_pids()) == 1, "the other one's end")
        assert (len(cpus) == 1) or "one worker only: gateway people (JWT)" in node.log
        await answers(node.port)


async def test_an_edit_that_several_workers_cannot_serve_keeps_the_last_good_state(config: Path) -> None:
    async with running_node(config, *NODE) as node:
        config.write_text(config.read_text() + JWT)
        await until(lambda: "last good state" in node.log, "the refusal of the edit")
        assert "gateway people (JWT)" in node.log
        assert "--workers 1" in node.log
        await answers(node.port)
        assert list((await node.status())["gateways"]) == ["shop"]


async def test_a_reload_with_a_bad_file_keeps_the_old_workers_and_says_why(config: Path) -> None:
    good = config.read_text()
    async with running_node(config, *NODE) as node:
        before = node.worker_pids()
        config.write_text(good.replace("PUBLIC", "PUBLICK"))
        node.process.send_signal(signal.SIGHUP)
        await until(lambda: "0 of 2 workers replaced" in node.log, "the end of the reload")
        assert "worker 0 cannot be replaced; the old one stays" in node.log
        assert "PUBLICK" in node.log
        assert node.worker_pids() == before
        await answers(node.port)
        assert await node.metric('authgate_reloads_total{result="failed"}') == 1
        config.write_text(good)
        node.process.send_signal(signal.SIGHUP)
        await until(lambda: "2 of 2 workers replaced" in node.log, "the next reload")
        await until(lambda: not any(map(is_alive, before)), "the end of the old ones")
        assert len(node.worker_pids()) == 2


async def test_a_reload_runs_the_code_that_is_there_then(config: Path, tmp_path: Path) -> None:
    package = tmp_path / "site"
    shutil.copytree(Path(__file__).parents[2] / "authgate_fast", package / "authgate_fast")
    async with running_node(
        config, "--workers", "1", "--spare", "on", env={"PYTHONPATH": str(package)}, cwd=tmp_path
    ) as node:
        await node.until_spare()
        worker = package / "authgate_fast" / "server" / "worker.py"
        worker.write_text(
            worker.read_text().replace('"connections_total":', '"new_code": 1, "connections_total":')
        )
        assert "new_code" not in await node.status()
        node.process.send_signal(signal.SIGHUP)
        await until(lambda: "1 of 1 workers replaced" in node.log, "the reload")
        assert (await node.status())["new_code"] == 1


async def test_a_worker_that_cannot_be_imported_is_said_once_and_ends_the_start(
    config: Path, tmp_path: Path
) -> None:
    package = tmp_path / "site"
    shutil.copytree(Path(__file__).parents[2] / "authgate_fast", package / "authgate_fast")
    (package / "authgate_fast" / "snapshot.py").write_text("raise ImportError('half installed')\n")
    code, log = await ended(
        "--config",
        str(config),
        *NODE,
        "--ops",
        "off",
        "--listen",
        "127.0.0.1:0",
        env={"PYTHONPATH": str(package)},
        cwd=tmp_path,
    )
    assert code == 3
    assert log.count("half installed") == 1 + log.count("raise ImportError('half installed')")


async def test_the_supervisor_loads_nothing_of_the_request_path() -> None:
    program = textwrap.dedent("""\
        import sys
        from authgate_fast.server import node, supervisor
        from authgate_fast import cli
        heavy = {"pydantic", "cryptography", "jwt", "redis", "httptools", "uvloop", "yaml"} & set(sys.modules)
        rooms = {name for name in sys.modules if name.startswith("authgate_fast.")
                 and name.split(".")[1] in {"plan", "proxy", "auth", "lookup", "model", "snapshot"}}
        print(sorted(heavy | rooms))
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout == "[]\n"


async def test_readyz_fails_from_sigterm_on_while_requests_are_still_taken(config: Path) -> None:
    async with running_node(config, *NODE, "--drain-delay", "2") as node:
        from tests.plain_client import ask

        assert (await ask(node.ops_port, "/readyz")).status == 200
        node.process.send_signal(signal.SIGTERM)
        await until(lambda: "draining" in node.log, "the drain")
        assert (await ask(node.ops_port, "/readyz")).status == 503
        await answers(node.port)
        assert await node.until_ended() == 0


async def test_a_second_sigterm_ends_at_once(config: Path) -> None:
    async with running_node(config, *NODE, "--drain-delay", "60") as node:
        workers = node.worker_pids()
        node.process.send_signal(signal.SIGTERM)
        await until(lambda: "draining" in node.log, "the drain")
        node.process.send_signal(signal.SIGTERM)
        assert await node.until_ended() == 0
        await until(lambda: not any(map(is_alive, workers)), "the workers' end")


async def test_a_worker_shows_where_it_is_when_it_hangs(config: Path) -> None:
    async with running_node(config, *NODE, "--limit", "worker_hang_timeout_s=3") as node:
        os.kill(node.worker_pids()[0], signal.SIGUSR2)
        await until(lambda: "worker_process.py" in node.log, "the traceback")
        assert len(node.worker_pids()) == 2


async def test_systemd_hears_of_the_start_a_reload_and_the_end(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        heard: list[str] = []
        asyncio.get_running_loop().add_reader(manager, lambda: heard.append(manager.recv(4_096).decode()))
        try:
            env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
            async with running_node(config, *NODE, env=env) as node:
                await until(lambda: any(text.startswith("READY=1") for text in heard), "READY=1")
                assert await node.serving() == 2
                await until(lambda: "WATCHDOG=1" in heard, "a sign of life")
                heard.clear()
                node.process.send_signal(signal.SIGHUP)
                await until(lambda: any(text.startswith("READY=1") for text in heard), "READY=1 again")
                assert heard[[text.startswith("RELOADING=1\nMONOTONIC_USEC=") for text in heard].index(True)]
                node.process.send_signal(signal.SIGTERM)
                assert await node.until_ended() == 0
                assert any(text.startswith("STOPPING=1") for text in heard)
        finally:
            asyncio.get_running_loop().remove_reader(manager)


async def test_sockets_from_systemd_are_shared_by_all_workers_and_outlive_them(config: Path) -> None:
    """As systemd does it: the sockets are descriptors 3 and 4, and LISTEN_PID is the process itself."""
    with socket.create_server(("127.0.0.1", 0)) as traffic, socket.create_server(("127.0.0.1", 0)) as ops:
        port, ops_port = (one.getsockname()[1] for one in (traffic, ops))
        program = (
            "import fcntl, os, sys\n"
            f"a, b = (fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in ({traffic.fileno()}, {ops.fileno()}))\n"
            "os.dup2(a, 3); os.dup2(b, 4)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='http:ops')\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        words = ("--config", str(config), *NODE, "--listen", "127.0.0.1:1", "--ops", "127.0.0.1:1")
        prefix = (sys.executable, "-c", program)
        fds = (traffic.fileno(), ops.fileno())
        async with started(words, ops_port, prefix=prefix, pass_fds=fds) as node:
            await node.until_listening()
            assert node.port == port
            await answers(port)
            node.process.send_signal(signal.SIGTERM)
            assert await node.until_ended() == 0
        waiting = socket.create_connection(("127.0.0.1", port))  # into the queue of nobody
        waiting.sendall(b"GET /open/n/7 HTTP/1.1\r\nHost: a\r\n\r\n")
        async with started(words, ops_port, prefix=prefix, pass_fds=fds) as node:
            waiting.settimeout(40)
            assert (await asyncio.to_thread(waiting.recv, 99)).startswith(b"HTTP/1.1 200 ")
            waiting.close()


async def test_as_the_first_process_of_a_container_it_ends_on_sigterm_and_buries_orphans(
    config: Path,
) -> None:
    unshare = shutil.which("unshare")
    assert unshare is not None, "util-linux is missing"
    can = subprocess.run([unshare, "--pid", "--fork", "true"], capture_output=True, check=False, timeout=20)
    if can.returncode != 0:
        pytest.skip(f"no process namespaces here: {can.stderr.decode().strip()}")
    prefix = (unshare, "--pid", "--fork", "--mount-proc", "--kill-child")
    async with running_node(config, *NODE, prefix=prefix) as node:
        (first,) = children_of(node.pid)
        assert "NSpid" in (status := Path(f"/proc/{first}/status").read_text())
        assert status.partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
        # An orphan: its parent, started inside, ends at once and leaves it to the first process.
        orphan = "import os, time\nif os.fork(): os._exit(0)\ntime.sleep(0.3)\n"
        inside = ("nsenter", "--target", str(first), "--pid", "--mount", sys.executable, "-c", orphan)
        done = await asyncio.create_subprocess_exec(*inside)
        await done.wait()
        await until(lambda: len(_with_zombies(first)) == 3, "the orphan", 5)
        await until(lambda: len(_with_zombies(first)) == 2, "its burial")
        os.kill(first, signal.SIGTERM)
        assert await node.until_ended() == 0
        assert "stopped" in node.log


def _with_zombies(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_crash_loop_of_one_worker_does_not_stop_the_others(config: Path) -> None:
    async with running_node(config, *NODE) as node:
        good = config.read_text()
        config.write_text(good.replace("PUBLIC", "PUBLICK"))
        await until(lambda: "last good state" in node.log, "the bad edit to be seen")
        os.kill(node.worker_pids()[0], signal.SIGKILL)
        await until(lambda: "cannot start:" in node.log, "the failure")
        await answers(node.port)  # the neighbour takes it all
        config.write_text(good)
        await node.until_serving(2)
        assert node.log.count("cannot start:") == 1


async def test_a_node_is_named_so_that_its_processes_can_be_told_apart(config: Path) -> None:
    async with running_node(config, *NODE) as node:
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in children_of(node.pid)}
        assert names == {"authgate-w0", "authgate-w1"}
