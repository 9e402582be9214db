"""Traces of a whole node: a real collector gets what was sent, exactly, and its absence hurts no request."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.collector import attributes, collecting
from tests.running import BOUND_S, authgate, running, until, write_config
from tests.server.test_access_log import samples

ID = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = f"00-{ID}-b7ad6b7169203331-01", f"00-{ID}-b7ad6b7169203331-00"


@dataclass
class Backend:
    """``seen`` are the traceparent values by path."""

    config: Path
    seen: dict[str, str | None] = field(default_factory=dict)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    seen: dict[str, str | None] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one write

        def do_GET(self) -> None:
            seen[self.path.partition("?")[0]] = self.headers.get("traceparent")
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Backend(write_config(tmp_path / "gateway.yaml", server.server_port), seen)
    server.shutdown()
    thread.join(BOUND_S)
    server.server_close()


def test_two_workers_send_a_span_for_each_sampled_request_and_count_them(backend: Backend) -> None:
    with collecting() as collector:
        arguments = (
            "--config",
            str(backend.config),
            "--ops",
            "127.0.0.1:0",
            "--workers",
            "2",
            "--otlp",
            collector.url,
        )
        with running(*arguments, "--traces", "pass") as gateway:
            until(lambda: gateway.get("/readyz", port=gateway.ops_port)[0] == 200, "ready")
            for number in range(30):
                assert gateway.get(f"/open/{number}?token=secret", traceparent=SAMPLED)[0] == 200
            for number in range(30, 40):
                assert gateway.get(f"/open/{number}", traceparent=UNSAMPLED)[0] == 200
            for number in range(40, 50):
                assert gateway.get(f"/open/{number}")[0] == 200
            assert gateway.get("/closed/1", traceparent=SAMPLED)[0] == 401
            until(lambda: len(collector.spans) == 31, "31 spans")
            until(
                lambda: samples(gateway, "authgate_spans_exported_total") == {frozenset(): 31}, "31 counted"
            )
            assert samples(gateway, "authgate_spans_dropped_total") == {frozenset(): 0}
            assert samples(gateway, "authgate_spans_waiting") == {frozenset(): 0}
            assert gateway.stop() == 0
        ids = {str(attributes(span)["url.path"]): span.span_id.hex() for span in collector.spans}
        assert {span.trace_id.hex() for span in collector.spans} == {ID}
        assert {span.parent_span_id.hex() for span in collector.spans} == {"b7ad6b7169203331"}
        assert len(set(ids.values())) == 31
        for number in range(30):
            assert backend.seen[f"/{number}"] == f"00-{ID}-{ids[f'/open/{number}']}-01"
        assert {backend.seen[f"/{number}"] for number in range(30, 40)} == {UNSAMPLED}
        assert {backend.seen[f"/{number}"] for number in range(40, 50)} == {None}
        assert "secret" not in str(collector.spans)


def test_with_a_collector_every_trace_begins_and_what_waits_is_sent_at_the_end(backend: Backend) -> None:
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with running("--config", str(backend.config), env=env) as gateway:
            for number in range(5):
                assert gateway.get(f"/open/{number}")[0] == 200
            assert gateway.stop() == 0
        sent = {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in collector.spans}
        assert len(sent) == 5
        assert sent == set(backend.seen.values())
        assert all(not span.parent_span_id for span in collector.spans)


@pytest.mark.parametrize("is_slow", [False, True], ids=["away", "slow"])
def test_a_collector_that_is_away_or_slow_hurts_no_request(backend: Backend, is_slow: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # its queue accepts, and nobody answers
        port = listener.getsockname()[1]
        if not is_slow:
            listener.close()
        arguments = (
            "--config",
            str(backend.config),
            "--ops",
            "127.0.0.1:0",
            "--otlp",
            f"http://127.0.0.1:{port}",
        )
        with running(*arguments, env={"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}) as gateway:
            begun_s = time.monotonic()
            for number in range(300):
                assert gateway.get(f"/open/{number}")[0] == 200
            assert time.monotonic() - begun_s < 10
            assert samples(gateway, "authgate_spans_exported_total") == {frozenset(): 0}
            until(
                lambda: sum(samples(gateway, "authgate_spans_dropped_total").values()) > 0,
                "spans are dropped",
            )
            until(lambda: "spans are dropped: http://127.0.0.1" in gateway.log, "a line that says so")
            assert gateway.stop() == 0


def test_without_an_exporter_nothing_of_opentelemetry_is_loaded(backend: Backend) -> None:
    with running("--config", str(backend.config), "--traces", "begin", "--trace-sample", "1") as gateway:
        assert gateway.get("/open/1")[0] == 200
        assert str(backend.seen["/1"]).endswith("-01")
        maps = Path(f"/proc/{gateway.worker_pid}/maps").read_text()
        assert "google/_upb" not in maps
        assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--traces", "on"), "--traces on: write off, pass or begin"),
        (("--traces", "begin", "--trace-sample", "1.5"), "--trace-sample 1.5: write a number from 0 to 1"),
        (("--traces", "begin", "--trace-sample", "nan"), "--trace-sample nan: write a number from 0 to 1"),
        (("--trace-sample", "0.5"), "--trace-sample goes with --traces begin"),
        (("--otlp", "127.0.0.1:4318"), "--otlp 127.0.0.1:4318: write a URL such as http://127.0.0.1:4318"),
        (("--otlp", "http://127.0.0.1:4318", "--traces", "off"), "--traces off sends no spans"),
    ],
)
def test_an_option_that_cannot_be_is_said_at_the_start(
    backend: Backend, arguments: tuple[str, ...], said: str
) -> None:
    ended = authgate(
        "run", "--config", str(backend.config), "--listen", "127.0.0.1:0", "--ops", "off", *arguments
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_the_extra_a_plain_message_says_what_to_install(backend: Backend, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("")
    path = f"{hidden.parent}:{Path(__file__).parents[2]}"
    arguments = (
        "run",
        "--config",
        str(backend.config),
        "--listen",
        "127.0.0.1:0",
        "--otlp",
        "http://127.0.0.1:1",
    )
    ended = authgate(*arguments, env={"PYTHONPATH": path})
    assert ended.returncode == 2
    assert "pip install 'authgate-fast[otel]'" in ended.stderr
    assert "Traceback" not in ended.stderr
