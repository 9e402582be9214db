"""WebSocket through the gateway with a client and a server that are not ours (`websockets`)."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.proxy.harness import BOUND_S
from tests.proxy.scripted import until
from tests.proxy.tunnels import dial, next_message, websocket_stack

MESSAGES: dict[str, str | bytes] = {
    "text": "grüße",
    "binary": bytes(range(256)),
    "empty": b"",
    "exactly_125": b"x" * 125,
    "exactly_126": b"x" * 126,
    "over_64k": b"y" * 65_536,
    "16_mib": b"z" * (16 * 1024 * 1024),
}


@pytest.mark.parametrize("deflate", [None, "deflate"])
@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_comes_back_as_it_was_sent(name: str, deflate: str | None) -> None:
    async with websocket_stack() as stack, dial(stack, compression=deflate) as client:
        await client.send(MESSAGES[name])
        assert await next_message(client) == MESSAGES[name]
    assert stack.reports == []


async def test_fragments_stay_fragments() -> None:
    async with websocket_stack() as stack, dial(stack, compression=None) as client:
        await client.send([b"a" * 1000, b"", b"b" * 70_000])
        assert await next_message(client) == b"a" * 1000 + b"b" * 70_000


async def test_ping_and_pong_pass_in_both_directions() -> None:
    async def pinging(connection: ServerConnection) -> None:
        await (await connection.ping(b"from the server"))
        await connection.send("ponged")
        await connection.wait_closed()

    async with websocket_stack(pinging) as stack, dial(stack) as client:
        await asyncio.wait_for(await client.ping(b"from the client"), BOUND_S)
        assert await next_message(client) == "ponged"


async def test_the_server_s_close_code_reaches_the_client() -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.close(4321, "enough")

    async with websocket_stack(closing) as stack, dial(stack) as client:
        with pytest.raises(ConnectionClosed):
            await next_message(client)
        assert (client.close_code, client.close_reason) == (4321, "enough")
        await until(lambda: not stack.context.tunnels and not stack.context.connections)


async def test_the_client_s_close_code_reaches_the_server() -> None:
    codes: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def listening(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.put_nowait((connection.close_code, connection.close_reason))

    async with websocket_stack(listening) as stack:
        async with dial(stack) as client:
            await client.close(4001, "done")
        assert await asyncio.wait_for(codes.get(), BOUND_S) == (4001, "done")
        await until(lambda: not stack.context.tunnels and not stack.context.connections)
        assert stack.context.pools.counts() in (
            {},
            {next(iter(stack.context.pools.counts())): {"open": 0, "idle": 0}},
        )


async def test_a_subprotocol_and_the_request_s_fields_pass() -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def noting(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append((connection.request.path, connection.request.headers.get("X-Mine")))
        await connection.send(connection.subprotocol or "none")

    fields = {"X-Mine": "1"}
    async with (
        websocket_stack(noting, subprotocols=["chat.v2"]) as stack,
        dial(stack, "/p/a/b?c=d", subprotocols=["chat.v1", "chat.v2"], additional_headers=fields) as client,
    ):
        assert client.subprotocol == "chat.v2"
        assert await next_message(client) == "chat.v2"
        assert client.response is not None
        assert client.response.headers["Via"] == "1.1 authgate"
        assert "X-Request-ID" in client.response.headers
    assert seen == [("/a/b?c=d", "1")]
