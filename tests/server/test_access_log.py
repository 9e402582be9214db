"""The access log and the metrics of a whole node: what they say is what was sent, exactly."""

from __future__ import annotations

import http.server
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import BOUND_S, Gateway, authgate, running, until, write_config


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield write_config(tmp_path / "gateway.yaml", server.server_port)
    server.shutdown()
    thread.join(BOUND_S)
    server.server_close()


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples(gateway: Gateway, name: str) -> dict[frozenset[tuple[str, str]], float]:
    _, text = gateway.get("/metrics", port=gateway.ops_port)
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


def test_two_workers_log_and_count_each_request_once(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    arguments = ("--config", str(config), "--ops", "127.0.0.1:0", "--workers", "2", "--access-log", str(path))
    with running(*arguments) as gateway:
        until(lambda: gateway.get("/readyz", port=gateway.ops_port)[0] == 200, "ready")
        for number in range(40):
            assert gateway.get(f"/open/{number}?token=secret")[0] == 200
        for _ in range(10):
            assert gateway.get("/closed/1", X_Api_Key="the-key")[0] == 200
        for _ in range(7):
            assert gateway.get("/closed/1", X_Api_Key="not-the-key")[0] == 401
        for _ in range(5):
            assert gateway.get("/open/missing")[0] == 404
        assert gateway.get("/nowhere")[0] == 404
        until(lambda: len(entries(path)) == 63, "63 lines")
        answers = samples(gateway, "authgate_answers_total")
        names = {"gateway": "shop-api", "service": "backend"}

        def count(route: str, status: str, auth: str) -> float:
            labels = {**names, "route": route, "status": status, "auth": auth}
            return answers[frozenset(labels.items())]

        assert count("open", "2xx", "none") == 40
        assert count("closed", "2xx", "accepted") == 10
        assert count("closed", "4xx", "invalid") == 7
        assert count("open", "4xx", "none") == 5
        assert sum(answers.values()) == 63
        assert samples(gateway, "authgate_requests_total") == {frozenset(): 63}
        duration = samples(gateway, "authgate_request_duration_seconds_count")
        assert duration == {frozenset(names.items()): 55}
        logged = entries(path)
        assert sum(entry["status"] == 200 for entry in logged) == 50
        assert samples(gateway, "authgate_response_bytes_total") == {
            frozenset(): sum(int(str(entry["response_bytes"])) for entry in logged)
        }
        assert samples(gateway, "authgate_access_log_dropped_lines_total") == {frozenset(): 0}
        _, metrics = gateway.get("/metrics", port=gateway.ops_port)
        assert b"# TYPE authgate_auth_cache_hits_total counter\n" in metrics
        text = path.read_text()
        assert "secret" not in text
        assert "the-key" not in text
        assert gateway.stop() == 0


def test_after_a_rotation_both_workers_write_to_the_new_file(config: Path, tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    with running("--config", str(config), "--workers", "2", "--access-log", str(path)) as gateway:
        assert gateway.get("/open/1")[0] == 200
        until(lambda: len(entries(path)) == 1, "a line")
        path.rename(old)
        gateway.process.send_signal(signal.SIGUSR1)
        until(path.exists, "the new file")
        sent = 0

        def both_write() -> bool:
            nonlocal sent
            for _ in range(20):
                assert gateway.get(f"/open/{sent}")[0] == 200
                sent += 1
            return len({str(entry["request_id"]).split("-")[0] for entry in entries(path)}) == 2

        until(both_write, "lines of both workers")
        assert gateway.stop() == 0
    assert len(entries(path)) + len(entries(old)) == sent + 1


def test_a_line_of_the_last_request_is_there_when_the_node_has_ended(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    arguments = ("--access-log", str(path), "--access-log-format", "combined")
    with running("--config", str(config), *arguments) as gateway:
        assert gateway.get("/open/1", User_Agent="probe")[0] == 200
        assert gateway.stop() == 0
    assert path.read_text().endswith(' "-" "probe"\n')
    assert '"GET /open/1 HTTP/1.1" 200 ' in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--access-log", "{tmp}/missing/log"), 3, "missing/log cannot be written: No such file or directory"),
        (("--access-log", "-", "--access-log-format", "xml"), 2, "--access-log-format xml: write json or combined"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_be_is_said_at_the_start(
    config: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    words = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    ended = authgate("run", "--config", str(config), "--listen", "127.0.0.1:0", "--ops", "off", *words)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
