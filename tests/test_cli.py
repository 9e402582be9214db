"""The command from a user's side: real processes, real sockets, and the mistakes people make."""

from __future__ import annotations

import http.server
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import BOUND_S, authgate, running, until, write_config


class _Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hold = threading.Event()
    entered = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.entered.set()
            self.hold.wait(BOUND_S)
        body = b"from the backend"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def backend_port() -> Iterator[int]:
    _Backend.hold.clear()
    _Backend.entered.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    _Backend.hold.set()
    server.shutdown()
    server.server_close()


def test_a_file_is_served_and_secure_routes_ask_for_the_key(tmp_path: Path, backend_port: int) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    with running("--config", str(config), "--ops", "off") as gateway:
        assert gateway.get("/open/a") == (200, b"from the backend")
        assert gateway.code("/closed/a") == "credentials_missing"
        assert gateway.code("/closed/a", X_Api_Key="wrong") == "credentials_invalid"
        assert gateway.get("/closed/a", X_Api_Key="the-key")[0] == 200
        assert gateway.stop() == 0


def test_an_edit_of_the_file_goes_live_and_a_bad_edit_keeps_the_last_good_state(
    tmp_path: Path, backend_port: int
) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    good = config.read_text()
    with running("--config", str(config), "--ops", "off") as gateway:
        assert gateway.code("/new/a") == "route_not_found"
        config.write_text(good.replace("security: PUBLIC", "security: PUBLICK"))
        until(lambda: "did you mean" in gateway.log, "the mistake in the log")
        assert "PUBLICK" in gateway.log
        until(lambda: "last good state" in gateway.log, "what stays in force")
        assert gateway.get("/open/a")[0] == 200
        config.write_text(good.replace("/open/", "/new/"))
        # Each worker sees the edit for itself.
        until(lambda: all(gateway.code("/new/a") == "200" for _ in range(8)), "the new path")
        until(
            lambda: all(gateway.code("/open/a") == "route_not_found" for _ in range(8)), "the old path's end"
        )


def test_sigterm_finishes_the_request_in_flight_and_takes_no_new_connection(
    tmp_path: Path, backend_port: int
) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    with running("--config", str(config), "--ops", "off") as gateway:
        answers: list[tuple[int, bytes]] = []
        client = threading.Thread(target=lambda: answers.append(gateway.get("/open/slow")))
        client.start()
        assert _Backend.entered.wait(BOUND_S)
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in gateway.log, "the drain")
        until(lambda: not _accepts(gateway.port), "the listener to close")
        _Backend.hold.set()
        client.join(BOUND_S)
        assert answers == [(200, b"from the backend")]
        assert gateway.process.wait(BOUND_S) == 0


def test_a_second_signal_ends_the_drain(tmp_path: Path, backend_port: int) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    with running("--config", str(config), "--ops", "off") as gateway:
        client = socket.create_connection(("127.0.0.1", gateway.port))
        client.sendall(b"GET /open/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert _Backend.entered.wait(BOUND_S)
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in gateway.log, "the drain")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(5) == 0
        client.close()


def test_the_drain_timeout_cuts_what_does_not_end(tmp_path: Path, backend_port: int) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    with (
        running("--config", str(config), "--ops", "off", "--drain-timeout", "0.2") as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as client,
    ):
        client.settimeout(BOUND_S)
        client.sendall(b"GET /open/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert _Backend.entered.wait(BOUND_S)
        assert gateway.stop() == 0
        until(lambda: "drain timeout: 1 connections are cut" in gateway.log, "the cut in the log")
        assert _receives_nothing(client)


def test_ops_shows_health_readiness_and_status(tmp_path: Path, backend_port: int) -> None:
    config = write_config(tmp_path / "g.yaml", backend_port)
    with running("--config", str(config), "--ops", f"127.0.0.1:{_free_port()}") as gateway:
        match = re.search(r"ops on 127\.0\.0\.1:([0-9]+)", gateway.log)
        assert match is not None
        ops_port = int(match[1])
        assert gateway.get("/healthz", port=ops_port)[0] == 200
        until(lambda: gateway.get("/readyz", port=ops_port)[0] == 200, "readiness")
        gateway.get("/open/a")
        status = gateway.get("/status", port=ops_port)[1]
        assert b'"requests_total":1' in status
        assert b"shop-api" in status


def test_a_port_in_use_is_said_with_what_to_do(tmp_path: Path) -> None:
    config = write_config(tmp_path / "g.yaml", 9)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = authgate("run", "--config", str(config), "--listen", listen, "--ops", "off")
    assert done.returncode == 3
    assert f"cannot listen on {listen}: address already in use" in done.stderr
    assert "--listen HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_refuses_a_bad_file_with_every_mistake(tmp_path: Path) -> None:
    config = write_config(tmp_path / "g.yaml", 9)
    config.write_text(config.read_text().replace("PUBLIC}", "PUBLICK}").replace("method: GET", "metod: GET"))
    for command in (("run", "--ops", "off", "--config"), ("check",)):
        done = authgate(*command, str(config))
        assert done.returncode == 1
        assert done.stderr.count("did you mean") >= 3, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "--config FILE or --redis URL"),
        (("run", "--config", "x", "--redis", "redis://h"), "not allowed with argument"),
        (("run", "--config", "x", "--listen", "8080"), "HOST:PORT"),
        (("run", "--config", "x", "--listen", "a:99999"), "HOST:PORT"),
        (("run", "--config", "x", "--workers", "0"), "whole number from 1"),
        (("run", "--config", "x", "--workers", "many"), "whole number from 1"),
        (("run", "--config", "x", "--drain-delay", "soon"), "number of seconds"),
        (("run", "--config", "x", "--limit", "max_field=1"), "no such limit"),
        (("run", "--config", "x", "--limit", "max_fields=many"), "whole number"),
        (("run", "--config", "x", "--drain-timeout", "soon"), "number of seconds"),
        (("run", "--config", "x", "--state-dir", "d"), "goes with --redis"),
        (("explain", "GET", "/path-only", "--config", "config/demo.yaml"), "whole URL"),
        (("explain", "GET", "http://a/", "-H", "nocolon", "--config", "config/demo.yaml"), "Name: value"),
        (("fly",), "invalid choice"),
    ],
)
def test_a_usage_mistake_exits_with_2_and_says_how(arguments: tuple[str, ...], said: str) -> None:
    done = authgate(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_named() -> None:
    done = authgate("check", "no-such-file.yaml")
    assert done.returncode == 1
    assert "no-such-file.yaml" in done.stderr


def test_check_tells_of_a_SECURE_path_that_is_PUBLIC_with_a_slash_behind_it(tmp_path: Path) -> None:
    routes = (
        "      admin: {method: GET, public_path: /admin, target_path: /, service: backend, security: SECURE}\n"
        '      rest: {method: GET, public_path: "/{rest*}", target_path: /, service: backend, security: PUBLIC}'
    )
    config = write_config(tmp_path / "g.yaml", 9, extra_routes=routes)
    done = authgate("check", str(config))
    assert done.returncode == 0
    assert "note: gateway" in done.stderr
    assert "/admin/ is another path" in done.stderr


def test_options_come_from_the_environment_too(tmp_path: Path) -> None:
    config = write_config(tmp_path / "g.yaml", 9)
    done = authgate("explain", "GET", "http://a/open/x", env={"AUTHGATE_CONFIG": str(config)})
    assert done.returncode == 0
    assert "route     open" in done.stdout


def test_explain_says_gateway_route_check_backend_and_why(tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "g.yaml", 9, hosts='["shop.localhost"]'))
    passed = authgate(
        "explain", "GET", "http://shop.localhost/closed/x", "-H", "X-Api-Key: the-key", "--config", config
    )
    assert passed.returncode == 0
    for part in (
        "gateway   shop-api",
        "route     closed",
        "consumer app",
        "GET /x HTTP/1.1",
        "X-Consumer-Id: app",
    ):
        assert part in passed.stdout
    assert "the-key" not in passed.stdout
    keyless = authgate("explain", "GET", "http://shop.localhost/closed/x", "--config", config)
    assert keyless.returncode == 1
    assert "401 credentials_missing" in keyless.stdout
    assert (
        "hosts with a gateway: shop.localhost"
        in authgate("explain", "GET", "http://b/", "--config", config).stdout
    )
    assert (
        "trailing slash" in authgate("explain", "GET", "http://shop.localhost/no", "--config", config).stdout
    )
    assert (
        "400 invalid_path"
        in authgate("explain", "GET", "http://shop.localhost/open/..", "--config", config).stdout
    )


def test_the_demo_prints_lines_that_answer_200_401_200_and_ends_on_ctrl_c() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "authgate_fast.cli", "demo", "--listen", "127.0.0.1:0", "--ops", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        commands: list[str] = []
        while len(commands) < 3:
            line = demo.stdout.readline()
            assert line, "the demo ended"
            if line.strip().startswith("curl -i"):
                commands.append(line.strip())
        statuses = []
        for command in commands:
            done = subprocess.run(
                command, shell=True, capture_output=True, text=True, timeout=BOUND_S, check=True
            )
            statuses.append(done.stdout.split(" ", 2)[1])
        assert statuses == ["200", "401", "200"]
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=BOUND_S)
        assert demo.returncode == 0
        assert "Traceback" not in said
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.communicate(timeout=BOUND_S)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _receives_nothing(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
