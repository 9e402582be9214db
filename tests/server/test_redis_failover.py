"""A node on a Redis behind Sentinels whose master is killed: no request fails, and all goes on with the new master."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from authgate_fast.cli import main
from bench.numbered import ANSWERED, Backend, Load, gateway_file
from tests.plain_client import ask
from tests.redis_sentinels import NAME, Cluster, cluster
from tests.running import authgate
from tests.server.node_kit import Node, free_port, started

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(120)]
LOGIN = """\
  people:
    hosts: [people.test]
    auth: {type: JWT}
    services:
      backend: {target_url: "http://127.0.0.1:%d"}
    routes:
      mine: {method: GET, public_path: "/mine/{any*}", target_path: "/n/{any*}", service: backend, security: SECURE}
    consumers:
      ann:
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$dBsbg149L8XH/UN1VOT1jw$z8DrIevSACtNKZod4TiTynnS2b8KKllYoGog+6qgzy0"
"""
LATE = {"method": "GET", "public_path": "/late/{any*}", "target_path": "/n/{any*}", "service": "backend", "security": "PUBLIC"}  # fmt: skip


async def post(node: Node, path: str, body: dict[str, str]) -> tuple[int, dict[str, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    text = json.dumps(body).encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: people.test\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(text), text)
    )
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(answer)


async def until_master_is(servers: Cluster, port: int) -> None:
    def named() -> bool:
        with servers.sentinel(0) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1]) == port

    async with asyncio.timeout(20):
        while not await asyncio.to_thread(named):  # noqa: ASYNC110  # another process's fact
            await asyncio.sleep(0.05)


async def until_followed(node: Node, port: int, worker_count: int) -> None:
    """Wait until every worker follows the server at the port."""
    async with asyncio.timeout(20):
        while True:
            sources = [one.get("source", {}) for one in (await node.status())["workers"]]
            here = [one for one in sources if one.get("connected") and one["master"] == f"127.0.0.1:{port}"]
            if len(here) == worker_count:
                return
            await asyncio.sleep(0.05)


async def test_a_killed_master_costs_no_request_and_the_new_one_is_followed(tmp_path: Path) -> None:
    ops_port = free_port()
    async with Backend() as backend:
        file = tmp_path / "g.yaml"
        file.write_text(gateway_file(backend.port) + LOGIN % backend.port)
        with cluster(tmp_path) as servers:
            done = await asyncio.to_thread(authgate, "apply", str(file), "--redis", servers.url)
            assert done.returncode == 0, done.stderr
            words = ("--redis", servers.url, "--workers", "2", "--ops", f"127.0.0.1:{ops_port}")
            async with started((*words, "--listen", "127.0.0.1:0"), ops_port) as node:
                await node.until_listening()
                await node.until_serving(2)
                await until_followed(node, servers.master.port, 2)
                status, before = await post(node, "/auth/login", {"username": "ann", "password": "correct horse battery"})  # fmt: skip
                assert status == 200, node.log
                with servers.master.client() as client:
                    assert (
                        client.execute_command("WAIT", 1, 5000) == 1
                    )  # the replica has what the login wrote
                async with Load(node.port, 30, 0.02) as load:
                    await asyncio.sleep(0.3)
                    servers.kill_sentinel(2)  # two of three decide
                    servers.master.kill()
                    await until_master_is(servers, servers.replica.port)
                    await until_followed(node, servers.replica.port, 2)
                    with servers.replica.client() as client:
                        client.set("authgate:route:shop:late", json.dumps(LATE))
                    began_s = time.monotonic()
                    while (await ask(node.port, "/late/7")).status != 200:
                        assert time.monotonic() - began_s < 5
                    refresh = {"refresh_token": before["refresh_token"]}
                    status, after = await post(node, "/auth/refresh", refresh)
                    assert status == 200, after
                    assert (await post(node, "/auth/refresh", refresh))[0] == 401  # used once already
                    done = await asyncio.to_thread(authgate, "export", "--redis", servers.url)
                    assert "/late/{any*}" in done.stdout, done.stderr
                    # The old one comes back as what it was, and is made a replica.
                    servers.master.start()
                    await asyncio.sleep(0.3)
                    assert load.outcomes[ANSWERED] > 100
                assert load.failed == 0, load.examples
                assert await node.metric("authgate_sync_lag_seconds") < 10
                assert await node.metric("authgate_state_connected") == 2
                assert await node.metric("authgate_sync_suspect_empty") == 0
                metrics = (await ask(ops_port, "/metrics")).body
                everything = node.log.encode() + metrics + json.dumps(await node.status()).encode()
            for secret in (b"hunter2", b"hunter3"):
                assert secret not in everything


def test_every_command_takes_the_address(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        (tmp_path / "g.yaml").write_text(gateway_file(1) + LOGIN % 1)
        for words in (
            ("apply", str(tmp_path / "g.yaml")),
            ("export",),
            ("consumer", "create", "shop", "app"),
            ("consumer", "list", "shop"),
            ("secret", "rotate", "people"),
            ("explain", "GET", "http://shop.test/open/1"),
        ):
            code = main([*words, "--redis", servers.url])
            out, err = capsys.readouterr()
            assert code == 0, (words, err)
            assert "hunter" not in out + err
