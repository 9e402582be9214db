"""The check before the load against contestants that cheat, and against the real peers where installed."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bench.cases import CASES
from bench.certificate import make_certificate
from bench.check import check_case, check_work
from bench.credentials import check_of
from bench.drivers import start_sink
from bench.ground import Contestant, Ground, find_envoy, find_tool, key_check, lua_modules
from bench.nginx import start_backend
from bench.peers import PEERS
from bench.processes import BenchError, Child, Children, MissingToolError
from bench.run import main
from bench.workload import PUBLIC_PREFIX, callers, make_consumers

_CONSUMERS = make_consumers()
_NAMES = {consumer.key: consumer.name for consumer in _CONSUMERS}


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Answers as an honest contestant would, but for `fault`."""

    fault = ""

    def do_GET(self) -> None:
        key, fault = self.headers["X-Api-Key"], self.fault
        name = _NAMES.get(key)
        if fault == "no-key" and key is None:
            name = "anybody"
        if fault == "any-key" and key is not None and name is None:
            name = "anybody"
        if fault == "one-name" and name:
            name = _CONSUMERS[0].name
        if fault == "refuses":
            name = None
        if name is None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        seen = {
            "consumer": self.headers["X-Consumer-Id"] if fault == "believes-client" else name,
            "key": key if fault == "leaks-key" else "",
            "path": self.path if fault == "same-path" else self.path.removeprefix(PUBLIC_PREFIX),
        }
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(tmp_path) -> Iterator[Contestant]:
    log = tmp_path / "log"
    log.write_text("")
    with http.server.HTTPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with subprocess.Popen([sys.executable, "-c", ""]) as popen:
            yield Contestant("fake", Child("fake", popen, log), server.server_port)
        server.shutdown()
        thread.join()


def test_an_honest_contestant_passes(proxy: Contestant) -> None:
    check_work(proxy, _CONSUMERS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no-key", "answered 200 to no key"),
        ("any-key", "answered 200 to a wrong key"),
        ("one-name", "it should see"),
        ("believes-client", "it should see"),
        ("leaks-key", "it should see"),
        ("same-path", "it should see"),
        ("refuses", "answered 401 to a good key"),
    ],
)
def test_a_contestant_that_does_less_work_is_found(
    proxy: Contestant, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setattr(_Proxy, "fault", fault)
    with pytest.raises(BenchError, match=message):
        check_work(proxy, _CONSUMERS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--seconds", "601"],
        ["--cases", "key,cake"],
        ["--rounds", "x"],
        ["--peers", "caddy"],
    ],
)
def test_load_beyond_the_bounds_and_unknown_names_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_missing_tool_is_named_with_the_packages_before_anything_starts(monkeypatch, capsys) -> None:
    monkeypatch.setattr("bench.ground.shutil.which", lambda *_, **__: None)
    assert main([]) == 3
    error = capsys.readouterr().err
    assert "wrk is not installed" in error
    assert "apt-get install nginx libnginx-mod-http-lua haproxy wrk" in error


def _is_here(peer: str) -> bool:
    try:
        find_tool("wrk")
        if peer == "nginx":
            find_tool("nginx")
            lua_modules()
        elif peer == "envoy":
            find_envoy()
        else:
            find_tool(peer)
    except MissingToolError:
        return False
    return len(os.sched_getaffinity(0)) > 1


def _needs(peer: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not _is_here(peer), reason=f"needs {peer}, wrk and two cores")


@pytest.mark.parametrize("peer", [pytest.param(peer, marks=_needs(peer)) for peer in PEERS])
@pytest.mark.parametrize("name", ["key", "public", "jwt", "basic", "bff", "tls-both", "echo", "workers-2"])
def test_the_real_peers_do_the_work_of_each_kind_of_case(tmp_path, name: str, peer: str) -> None:
    case, cpus = CASES[name], os.sched_getaffinity(0)
    schemes = {"jwt": "Authorization: Bearer ", "basic": "Authorization: Basic ", "bff": "Cookie: a="}
    lines = [f"{schemes[name]}{caller.key}" for caller in callers(_CONSUMERS)] if name in schemes else None
    check = check_of(lines, _CONSUMERS) if lines else key_check(_CONSUMERS) if name != "public" else None
    with Children(tmp_path) as children:
        certificate = make_certificate(tmp_path) if case.tls_in else None
        port = start_sink(children, case.driver, cpus)
        if not port:
            port, _ = start_backend(children, tmp_path / "backend", cpus, certificate=certificate)
        ground = Ground(tmp_path, children, cpus, cpus, _CONSUMERS, port, case, check, certificate)
        contestant = PEERS[peer](ground)
        contestant.lines = lines
        check_case(contestant, ground)


@pytest.mark.slow
@_needs("haproxy")
def test_a_whole_run_has_no_error_and_writes_its_results(tmp_path) -> None:
    samples, results = tmp_path / "samples.json", tmp_path / "results.md"
    arguments = ["--cases", "key", "--peers", "haproxy", "--rounds", "1", "--seconds", "1", "--with-log"]
    assert main([*arguments, "--json", str(samples), "--results", str(results)]) == 0
    (case,) = json.loads(samples.read_text())["cases"]
    assert list(case["samples"]) == ["authgate", "authgate+log", "haproxy"]
    for (sample,) in case["samples"].values():
        assert (sample["refused"], sample["socket_errors"], sample["not_forwarded"]) == (0, 0, 0)
        assert 1 < sample["cpu_us_each"] < 10_000
    assert "| key | CPU | haproxy | >= 1.1 |" in results.read_text()
