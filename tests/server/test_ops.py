from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from authgate_fast.observe.exposition import Family, counter
from authgate_fast.server.ops import OpsServer
from tests.plain_client import ask, send_raw


class Node:
    """What the ops listener asks."""

    def __init__(self) -> None:
        self.is_ready = True
        self.status: dict[str, object] = {"ready": True, "snapshot_revision": 7}

    def ready(self) -> bool:
        return self.is_ready

    def show(self) -> dict[str, object]:
        return self.status

    def metrics(self) -> list[Family]:
        return [counter("authgate_things_total", "Things.", 3)]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def ops(node: Node) -> AsyncIterator[OpsServer]:
    server = OpsServer(node.show, node.ready, node.metrics)
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def test_healthz_answers_while_the_node_is_not_ready(ops: OpsServer, node: Node) -> None:
    node.is_ready = False
    answer = await ask(ops.port, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_readyz_follows_the_node(ops: OpsServer, node: Node) -> None:
    assert (await ask(ops.port, "/readyz")).status == 200
    node.is_ready = False
    answer = await ask(ops.port, "/readyz")
    assert answer.status == 503
    assert b"no configuration yet" in answer.body


async def test_status_is_json_of_this_moment(ops: OpsServer, node: Node) -> None:
    node.status = {"snapshot_revision": 8}
    answer = await ask(ops.port, "/status?pretty=1")
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/json"
    assert json.loads(answer.body) == {"snapshot_revision": 8}


async def test_metrics_are_in_the_text_format_of_prometheus(ops: OpsServer) -> None:
    answer = await ask(ops.port, "/metrics")
    assert answer.status == 200
    assert answer.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body.endswith(b"\nauthgate_things_total 3\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/status", "/metrics"])
async def test_nothing_is_kept_by_a_cache(ops: OpsServer, path: str) -> None:
    assert (await ask(ops.port, path)).fields["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/status", "/metrics"])
async def test_head_gets_the_fields_of_get_without_the_body(ops: OpsServer, path: str) -> None:
    of_get, of_head = await ask(ops.port, path), await ask(ops.port, path, "HEAD")
    assert of_head.body == b""
    assert of_head.fields["content-length"] == str(len(of_get.body))
    assert of_head.status == of_get.status


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/", "/status/x", "/HEALTHZ"])
async def test_an_unknown_path_is_404(ops: OpsServer, path: str) -> None:
    assert (await ask(ops.port, path)).status == 404


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
async def test_another_method_is_405_with_allow(ops: OpsServer, method: str) -> None:
    answer = await ask(ops.port, "/status", method)
    assert answer.status == 405
    assert answer.fields["allow"] == "GET, HEAD"


async def test_a_status_that_fails_is_500_and_the_listener_lives_on(
    ops: OpsServer, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.status = {"not json": object()}
    assert (await ask(ops.port, "/status")).status == 500
    assert "ops: a handler failed" in caplog.text
    assert (await ask(ops.port, "/healthz")).status == 200


async def test_requests_sent_at_once_are_answered_in_order(ops: OpsServer) -> None:
    data = b"".join(
        b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % path for path in (b"/healthz", b"/status", b"/nothing")
    )
    answers = await send_raw(ops.port, data, count=3)
    assert [answer.status for answer in answers] == [200, 200, 404]


async def test_close_ends_open_connections_and_frees_the_port(ops: OpsServer) -> None:
    port = ops.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)
    await ops.close()
    try:
        assert await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        pass
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await ops.close()


async def test_an_address_in_use_is_an_oserror(ops: OpsServer, node: Node) -> None:
    second = OpsServer(node.show, node.ready, node.metrics)
    with pytest.raises(OSError):
        await second.start("127.0.0.1", ops.port)
    await second.close()
