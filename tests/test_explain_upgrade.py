"""`authgate check` and `explain` about upgrades."""

from __future__ import annotations

from pathlib import Path

import pytest

from authgate_fast import cli
from authgate_fast.config.check import check_file
from tests.running import write_config

UPGRADE = ("-H", "Connection: upgrade", "-H", "Upgrade: websocket")
ROUTES = """\
      none: {method: GET, public_path: /none, service: backend, security: PUBLIC, upgrades: []}
      own: {method: GET, public_path: /own, service: backend, security: PUBLIC, upgrades: [my-proto]}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_config(tmp_path / "gateway.yaml", 9, extra_routes=ROUTES))


def test_explain_says_whether_a_request_may_leave_http(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(config: str, path: str, *fields: str) -> str:
        cli.main(["explain", "GET", f"http://shop.localhost{path}", *fields, "--config", config])
        return capsys.readouterr().out

    assert "upgrade to websocket: yes" in ask(config, "/open/x", *UPGRADE)
    closed = ask(config, "/closed/x", *UPGRADE, "-H", "X-Api-Key: the-key")
    assert "upgrade to websocket: yes" in closed
    assert "Upgrade: websocket\n" in closed
    no = ask(config, "/none", *UPGRADE)
    assert "upgrade to websocket: no" in no
    assert "upgrades of this route: none" in no
    own = ask(config, "/own", *UPGRADE)
    assert "upgrades of this route: my-proto" in own
    assert "upgrade to my-proto: yes" in ask(
        config, "/own", "-H", "Connection: upgrade", "-H", "Upgrade: my-proto"
    )
    assert "upgrade" not in ask(config, "/open/x")
    assert "401 credentials_missing" in ask(config, "/closed/x", *UPGRADE)


def test_check_names_the_protocol_that_no_route_may_have(tmp_path: Path) -> None:
    route = '      bad: {method: GET, public_path: "/b", service: backend, security: PUBLIC, upgrades: [websocket, h2c]}\n'
    path = write_config(tmp_path / "gateway.yaml", 9, extra_routes=route)
    (problem,) = check_file(path)
    assert problem.path.endswith("upgrades[1]")
    assert "another version of HTTP" in problem.message
