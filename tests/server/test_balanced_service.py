"""Several targets from a user's side: the file, `authgate explain`, the log, /status, and a change while a target is out."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from authgate_fast.server.sums import Status, sum_status
from authgate_fast.server.worker import _log_target
from tests.running import authgate, running, until

CONFIG = """\
gateways:
  shop-api:
    hosts: ["*"]
    auth: {{type: API_KEY}}
    services:
      catalog:
        target_urls: ["http://127.0.0.1:{dead}", {{url: "http://127.0.0.1:{alive}", weight: {weight}}}]
        {more}
    routes:
      all: {{method: ANY, public_path: "/{{rest*}}", service: catalog, security: PUBLIC}}
"""


def write(file: Path, dead: int, alive: int, weight: int = 1, more: str = "eject_s: 60") -> str:
    changed = file.with_suffix(".new")
    changed.write_text(CONFIG.format(dead=dead, alive=alive, weight=weight, more=more), encoding="utf-8")
    changed.replace(file)
    return str(file)


@pytest.mark.parametrize(
    ("more", "fields", "words"),
    [
        ("", (), "a worker chooses by least_connections"),
        ("balance: hash\n        hash_on: address", (), "by hash on the client's address"),
        (
            "balance: hash\n        hash_on: {header: X-Tenant}",
            ("-H", "X-Tenant: a"),
            "by hash on the field x-tenant\n",
        ),
        (
            "balance: hash\n        hash_on: {cookie: sid}",
            (),
            "the cookie sid, which is missing: so by least_",
        ),
    ],
)
def test_explain_shows_all_targets_and_how_one_is_chosen(
    tmp_path: Path, more: str, fields: tuple[str, ...], words: str
) -> None:
    config = write(tmp_path / "g.yaml", 9001, 9002, 0, more)
    done = authgate("explain", "GET", "http://a/x", *fields, "--config", config)
    assert done.returncode == 0, done.stderr
    assert "targets   the first of 2 is shown; " in done.stdout
    assert words in done.stdout
    assert "http://127.0.0.1:9001 weight 1\n" in done.stdout
    assert "http://127.0.0.1:9002 weight 0 (drained)\n" in done.stdout


def test_a_dead_target_is_told_of_once_and_stays_out_through_a_change(tmp_path: Path) -> None:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        dead, alive = first.getsockname()[1], second.getsockname()[1]
    program = [sys.executable, "-m", "tests.proxy.counting_backend", str(alive), str(tmp_path / "seen")]
    backend = subprocess.Popen(program, cwd=Path(__file__).parents[2])
    try:
        until(lambda: listens(alive), "the backend")
        file = tmp_path / "g.yaml"
        with running("--config", write(file, dead, alive), "--ops", "127.0.0.1:0") as gateway:
            for _ in range(20):
                assert gateway.get("/x")[0] == 200
            ops = int(gateway.log.rpartition("ops on 127.0.0.1:")[2].split()[0].rstrip(",.;"))

            def target(port: int) -> dict[str, Any]:
                _, body = gateway.get("/status", port=ops)
                status = json.loads(body)["balanced_services"]["shop-api/catalog"]
                found: dict[str, Any] = status["targets"][f"http://127.0.0.1:{port}"]
                return found

            assert target(dead)["states"] == {"ejected": 1}
            assert (target(alive)["states"], target(alive)["requests_total"]) == ({"up": 1}, 20)
            assert gateway.log.count("gets no requests for") == 1
            assert "catalog" in gateway.log
            write(file, dead, alive, weight=5)
            until(lambda: target(alive)["weight"] == 5, "the change")
            assert target(dead)["states"] == {"ejected": 1}
            assert target(alive)["requests_total"] == 20
            assert gateway.get("/x")[0] == 200
    finally:
        backend.kill()
        backend.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_targets_trouble_is_a_warning_and_its_return_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "authgate"):
        _log_target("service a/b: http://c is out", True)
        _log_target("service a/b: http://c is back", False)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_the_targets_of_all_workers_are_one_picture() -> None:
    def worker(states: dict[str, int], in_flight: int, **more: object) -> Status:
        target = {"states": states, "weight": 3, "in_flight": in_flight, **more}
        return {"balanced_services": {"a/b": {"balance": "hash", "targets": {"http://c": target}}}}

    living = [worker({"up": 1}, 2), worker({"ejected": 1}, 1, ejected_for_s=4.0), worker({"up": 1}, 4)]
    (service,) = sum_status(living, {})["balanced_services"].values()
    assert service == {
        "balance": "hash",
        "targets": {
            "http://c": {
                "states": {"up": 2, "ejected": 1},
                "weight": 3,
                "in_flight": 7,
                "ejected_for_s": 4.0,
            }
        },
    }
