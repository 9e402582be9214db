"""A bug of ours costs one request, never the worker."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

import pytest

from authgate_fast.limits import Limits
from authgate_fast.proxy import downstream, heads
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.pool import Pool
from authgate_fast.proxy.tunnel import Tunnel
from authgate_fast.proxy.upstream import Upstream
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, Reply, answers, exchange, read_answer, request, running, until
from tests.proxy.tunnels import ASK, GRANT, UPGRADES


class FaultError(Exception):
    """No code may know this kind."""


def fail(*args: object, **kwargs: object) -> None:
    raise FaultError("on purpose")


@pytest.mark.replaces_insides
@pytest.mark.parametrize(("owner", "first"), [(Exchange, b""), (Tunnel, GRANT)], ids=["exchange", "tunnel"])
async def test_a_fault_in_a_timeout_ends_that_connection_and_the_others_keep_theirs(
    owner: type, first: bytes, monkeypatch: pytest.MonkeyPatch, fast_ticks: None
) -> None:
    recorder = Recorder(lambda seen: Reply(first, "stall"))
    limits = Limits(idle_timeout_s=0.5, head_timeout_s=0.5)
    async with (
        backend(recorder.handle) as port,
        gateway(make_snapshot(port, limits, upgrades=UPGRADES), limits) as stack,
    ):
        faulty, writer = await stack.connect()
        monkeypatch.setattr(owner, "check_time", fail)
        writer.write(request(b"GET", b"/p/a", *ASK))
        others = [(await stack.connect())[0] for _ in range(20)]
        for reader in (faulty, *others):
            await asyncio.wait_for(reader.read(-1), BOUND_S)
        await until(lambda: not stack.context.connections and not stack.context.tunnels)
        assert ("internal_error", "FaultError: on purpose") in stack.reports


class BrokenAuthenticator:
    """Fails where it is asked; the rest is as an honest one's."""

    credential_fields = frozenset({b"x-api-key"})
    keeps_lines = False
    reserved = b""
    endpoints: ClassVar[dict[bytes, tuple[bytes, ...]]] = {}
    identify = kept_lines = forbidden_lines = staticmethod(fail)


async def test_a_fault_in_a_security_check_is_500_and_nothing_reaches_the_backend() -> None:
    async with running() as (stack, recorder):
        (gateway,) = stack.context.snapshot.gateways.values()
        gateway.authenticator = BrokenAuthenticator()
        raw = await stack.talk(request(b"GET", b"/s/a", b"X-Api-Key: k") + request(b"GET", b"/p/never"))
        (answer,) = answers(raw, b"GET")
        assert (answer.status, answer.get(b"connection")) == (500, b"close")
        assert b"internal_error" in answer.body
        assert b"on purpose" not in answer.body
        assert stack.reports == [("internal_error", "FaultError: on purpose")]
        assert recorder.seen == []
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200


class BrokenTransport:
    """A backend's transport that fails at one call."""

    def __init__(self, transport: asyncio.Transport, name: str) -> None:
        self._transport = transport
        self._name = name

    def __getattr__(self, name: str) -> object:
        return fail if name == self._name else getattr(self._transport, name)


def idle_upstream(stack: Stack) -> Upstream:
    (target,) = stack.context.snapshot.gateways["gw"].trie.match([b"p"]).any_route.service.targets  # type: ignore[union-attr]
    (upstream,) = stack.context.pools.get(target).idle
    return upstream


@pytest.mark.parametrize("name", ["is_closing", "write"])
async def test_a_fault_at_an_idle_backend_connection_is_500(name: str) -> None:
    async with running() as (stack, _):
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/warm"))).status == 200
        upstream = idle_upstream(stack)
        upstream.transport = BrokenTransport(upstream.transport, name)  # type: ignore[assignment]
        answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
        assert answer.status == 500
        assert ("internal_error", "FaultError: on purpose") in stack.reports
        upstream.abort()
        await until(lambda: not stack.context.connections)
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200


@pytest.mark.replaces_insides
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (downstream, "plan"),
        (downstream, "RequestHead"),
        (Exchange, "start"),
        (Pool, "take"),
        (Pool, "connect"),
    ],
    ids=["plan", "head", "start", "take", "connect"],
)
async def test_a_fault_before_the_backend_is_reached_is_500(
    owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "RequestHead":
        owner = __import__("authgate_fast.http.plain", fromlist=["RequestHead"])
    async with running() as (stack, recorder):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            raw = await stack.talk(request(b"GET", b"/p/a") + request(b"GET", b"/p/never"))
        (answer,) = answers(raw, b"GET", b"GET")
        assert (answer.status, answer.get(b"connection")) == (500, b"close")
        assert b"internal_error" in answer.body
        assert b"on purpose" not in answer.body
        assert ("internal_error", "FaultError: on purpose") in stack.reports
        assert recorder.seen == []
        await until(lambda: not stack.context.connections)
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200


@pytest.mark.replaces_insides
async def test_a_fault_while_a_connection_is_made_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as (stack, _):
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "attach", fail)
            reader, writer = await stack.connect()
            writer.write(request(b"GET", b"/p/a"))
            answer = await read_answer(reader)
        assert answer.status == 500
        assert not any(c["open"] - c["idle"] for c in stack.context.pools.counts().values())
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200


@pytest.mark.replaces_insides
async def test_a_fault_in_reading_a_response_ends_that_exchange_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()
        await exchange(reader, writer, request(b"GET", b"/p/warm"))
        with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL):
            patch.setattr(heads, "read_plain_response", fail)
            answer = await exchange(reader, writer, request(b"GET", b"/p/a"))
        assert answer.status == 500
        assert [seen.path for seen in recorder.seen] == [b"/warm", b"/a"]  # and it was not tried twice
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200


@pytest.mark.replaces_insides
async def test_a_fault_in_an_upload_ends_that_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as (stack, recorder):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/p/a", b"Content-Length: 10"))
        await asyncio.wait_for(recorder.began.wait(), BOUND_S)
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "request_data", fail)
            writer.write(b"x")
            await until(lambda: not stack.context.connections)
        await until(lambda: not recorder.open)
        reader, writer = await stack.connect()
        assert (await exchange(reader, writer, request(b"GET", b"/p/a"))).status == 200
