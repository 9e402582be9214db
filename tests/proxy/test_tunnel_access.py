"""A tunnel, like a long answer, ends within seconds when what let its caller in is taken away, and not before."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
from typing import Any

import pytest

from authgate_fast.auth.api_key import key_digest
from tests.auth.users import cheap_hash
from tests.proxy.harness import BOUND_S, answer, backend, read_head
from tests.proxy.scripted import request, until
from tests.proxy.tunnel_worker import APP, KEY, Running, closed, running

pytestmark = pytest.mark.usefixtures("fast_ticks")
LATER = {"X-Api-Key": "another-key"}


def soon(seconds: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.isoformat()


async def sweeps(world: Running, count: int = 4) -> None:
    """Wait until the once-a-second sweep has come by a few times (the test's seconds are short)."""
    begun = world.worker._ticker.ticks
    await until(lambda: world.worker._ticker.ticks > begun + 4 * count)


ENDS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "disabled": ("app", APP | {"enabled": False}),
    "deleted": ("app", None),
    "expired": ("app", APP | {"expires_at": "2020-01-01T00:00:00Z"}),
    "another_key": ("app", APP | {"api_key_sha256": key_digest("another-key")}),
    "no_key": ("app", {"roles": ["reader"]}),
}


@pytest.mark.parametrize("path", ["/s", "/r"])
@pytest.mark.parametrize("name", ENDS)
async def test_a_tunnel_ends_with_the_access_of_its_consumer(name: str, path: str) -> None:
    async with (
        running() as world,
        world.dial(path, additional_headers=KEY) as client,
        world.dial("/p") as other,
    ):
        await sweeps(world)
        assert len(world.context.tunnels) == 2
        consumer, document = ENDS[name]
        world.put("consumer", consumer, document)
        assert await closed(client) == 1008
        await until(lambda: len(world.ended) == 1)
        assert world.ended[0].close_code == 1008
        await other.send("still here")
        assert await other.recv() == "still here"


async def test_the_role_that_the_route_asks_for_is_taken_away() -> None:
    async with (
        running() as world,
        world.dial("/r", additional_headers=KEY) as reader,
        world.dial("/s", additional_headers=KEY) as any_caller,
    ):
        world.put("consumer", "app", APP | {"roles": ["writer"]})
        assert await closed(reader) == 1008
        await any_caller.send("hi")
        assert await any_caller.recv() == "hi"


async def test_a_key_that_moves_to_another_consumer_lets_nobody_stay() -> None:
    async with running() as world, world.dial("/s", additional_headers=KEY) as client:
        world.put("consumer", "app", None)
        world.put("consumer", "other", APP)
        assert await closed(client) == 1008


async def test_a_key_that_expires_while_the_tunnel_is_open() -> None:
    consumers = {"app": APP | {"expires_at": soon(0.5)}}
    async with running(consumers=consumers) as world, world.dial("/s", additional_headers=KEY) as client:
        await client.send("early")
        assert await client.recv() == "early"
        assert await closed(client) == 1008


async def test_a_gateway_that_is_gone_lets_nobody_stay() -> None:
    async with running() as world, world.dial("/s", additional_headers=KEY) as client:
        world.put("gateway", "shop", {"hosts": ["*"], "auth": {"type": "API_KEY"}, "enabled": False})
        assert await closed(client) == 1008


STAYS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "described": ("consumer", "app", APP | {"description": "the same, read anew"}),
    "a_second_key": ("consumer", "app", APP | {"api_keys": [{"id": "b", "sha256": key_digest("b")}]}),
    "the_same_key_by_another_name": (
        "consumer", "app", {"roles": ["reader"], "api_keys": [{"id": "b", "sha256": key_digest("the-key")}]}
    ),
    "one_more_role": ("consumer", "app", APP | {"roles": ["reader", "writer"]}),
    "a_later_end": ("consumer", "app", APP | {"expires_at": "2999-01-01T00:00:00Z"}),
    "another_consumer": ("consumer", "new", {"api_key_sha256": key_digest("new")}),
    "a_route": ("route", "p", None),
    "its_route": ("route", "r", None),
    "another_header": ("gateway", "shop", {"hosts": ["*"], "auth": {"type": "API_KEY", "header": "X-Key"}}),
    "another_host": ("gateway", "shop", {"hosts": ["shop.localhost"], "auth": {"type": "API_KEY"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
async def test_what_takes_no_access_away_leaves_the_tunnel_alone(name: str) -> None:
    async with running() as world, world.dial("/r", additional_headers=KEY) as client:
        world.put(*STAYS[name])
        await sweeps(world)
        await client.send("still here")
        assert await asyncio.wait_for(client.recv(), BOUND_S) == "still here"


# --- passwords and tokens ---------------------------------------------------------------------------------

ANN = {"password_hash": cheap_hash("ann-password"), "roles": ["reader"]}
BASIC = {"Authorization": "Basic YW5uOmFubi1wYXNzd29yZA=="}


PASSWORDS: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "disabled": (ANN | {"enabled": False}, False),
    "deleted": (None, False),
    "another_password": (ANN | {"password_hash": cheap_hash("another")}, False),
    "no_role": (ANN | {"roles": []}, False),
    "another_name": (ANN | {"username": "anna"}, False),
    "described": (ANN | {"description": "the same, read anew"}, True),
    "one_more": (ANN | {"passwords": [{"id": "b", "hash": cheap_hash("b")}]}, True),
    "kept_as_the_second": (
        {"roles": ["reader"], "passwords": [{"id": "old", "hash": ANN["password_hash"]}, {"id": "b", "hash": cheap_hash("b")}]},
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSWORDS)
async def test_a_tunnel_that_a_password_opened(name: str) -> None:
    document, stays = PASSWORDS[name]
    async with (
        running(auth={"type": "BASIC"}, consumers={"ann": ANN}) as world,
        world.dial("/r", additional_headers=BASIC) as client,
    ):
        world.put("consumer", "ann", document)
        if stays:
            await sweeps(world)
            await client.send("still here")
            assert await asyncio.wait_for(client.recv(), BOUND_S) == "still here"
        else:
            assert await closed(client) == 1008


async def token_of(world: Running) -> dict[str, str]:
    def log_in() -> str:
        link = http.client.HTTPConnection("127.0.0.1", world.worker.port, timeout=BOUND_S)
        body = json.dumps({"username": "ann", "password": "ann-password"})
        link.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        found = json.loads(link.getresponse().read())
        link.close()
        return str(found["access_token"])

    return {"Authorization": f"Bearer {await asyncio.to_thread(log_in)}"}


TOKENS = {
    name: PASSWORDS[name]
    for name in ("disabled", "deleted", "no_role", "another_name", "described", "one_more")
}


@pytest.mark.parametrize("name", TOKENS)
async def test_a_tunnel_that_a_token_of_the_gateway_opened(name: str) -> None:
    document, stays = TOKENS[name]
    async with running(auth={"type": "JWT"}, consumers={"ann": ANN}) as world:
        client = await world.dial("/r", additional_headers=await token_of(world))
        world.put("consumer", "ann", document)
        if stays:
            await sweeps(world)
            await client.send("still here")
            assert await asyncio.wait_for(client.recv(), BOUND_S) == "still here"
            await client.close()
        else:
            assert await closed(client) == 1008


async def test_a_token_that_runs_out_ends_no_tunnel() -> None:
    auth = {"type": "JWT", "access_ttl_s": 60}
    async with running(auth=auth, consumers={"ann": ANN}) as world:
        client = await world.dial("/r", additional_headers=await token_of(world))
        world.worker._ticker.stop()
        world.context.wall_s += 3_600
        (tunnel,) = world.context.tunnels
        tunnel.check_time(world.context.now_s)
        await client.send("still here")
        assert await asyncio.wait_for(client.recv(), BOUND_S) == "still here"
        await client.close()


# --- long answers -----------------------------------------------------------------------------------------


async def test_a_long_answer_is_cut_when_its_consumer_is_disabled() -> None:
    async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"9\r\ndata: x\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with backend(streaming) as port, running(port=port) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.worker.port)
        writer.write(request(b"GET", b"/s", b"X-Api-Key: the-key"))
        assert b"200 OK" in await read_head(reader)
        await sweeps(world)
        await reader.readuntil(b"data: x")
        world.put("consumer", "app", APP | {"enabled": False})
        rest = await asyncio.wait_for(reader.read(-1), BOUND_S)
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()


async def test_an_answer_that_has_not_begun_is_401_when_its_consumer_is_deleted() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(-1)
        writer.write(answer())

    async with backend(slow) as port, running(port=port) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.worker.port)
        writer.write(request(b"GET", b"/s", b"X-Api-Key: the-key"))
        await until(lambda: any(one.exchange is not None for one in world.context.connections))
        world.put("consumer", "app", None)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 401 ")
        writer.close()
