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

from bench.load import measure
from bench.peers import PEERS, Contestant, Ground, find_tool, lua_modules, start_backend
from bench.processes import BenchError, Child, Children, MissingToolError
from bench.run import check_work, main
from bench.workload import PUBLIC_PREFIX, make_consumers, wrk_script

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
        ["--connections", "1001"],
        ["--rounds", "x"],
        ["--peers", "caddy"],
    ],
)
def test_load_beyond_the_bounds_and_unknown_peers_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_missing_tool_is_named_with_the_packages_before_anything_starts(monkeypatch, capsys) -> None:
    monkeypatch.setattr("bench.peers.shutil.which", lambda *_, **__: None)
    assert main([]) == 3
    error = capsys.readouterr().err
    assert "wrk is not installed" in error
    assert "apt-get install nginx libnginx-mod-http-lua haproxy wrk" in error


def _peers_here() -> bool:
    try:
        for tool in ("nginx", "haproxy", "wrk"):
            find_tool(tool)
        lua_modules()
    except MissingToolError:
        return False
    return len(os.sched_getaffinity(0)) > 1


@pytest.mark.slow
@pytest.mark.skipif(not _peers_here(), reason="needs nginx with Lua, HAProxy, wrk and two cores")
def test_the_real_peers_do_the_work_under_load_without_an_error(tmp_path) -> None:
    *load_cpus, proxy_cpu = sorted(os.sched_getaffinity(0))
    script = tmp_path / "load.lua"
    script.write_text(wrk_script(_CONSUMERS))
    with Children(tmp_path) as children:
        port = start_backend(children, tmp_path / "backend", set(load_cpus))
        ground = Ground(tmp_path, children, {proxy_cpu}, set(load_cpus), _CONSUMERS, port)
        for start in PEERS.values():
            contestant = start(ground)
            check_work(contestant, _CONSUMERS)
            contestant.script = script
            sample = measure(contestant, ground, connections=8, seconds=1)
            assert sample.requests > 100, contestant.name
            assert (sample.refused, sample.socket_errors, sample.not_forwarded) == (0, 0, 0), contestant.name
            assert 1 < sample.cpu_us_per_request < 10_000
