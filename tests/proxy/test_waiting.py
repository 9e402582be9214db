"""Requests that wait for a look-up, and requests that the gateway answers at its own endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from authgate_fast.auth.interface import Denial, Lookup, Presented
from authgate_fast.auth.session import Session
from authgate_fast.decision import Client, Local, Pending, Reply
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.proxy.phases import IDLE
from authgate_fast.proxy.waiting import MAX_OWN_BODY_BYTES
from authgate_fast.snapshot import Identity, Route
from tests.proxy.harness import Stack
from tests.proxy.scripted import Recorder, answers, exchange, read_answer, request, running, until

ANN = Identity("ann", "default", frozenset(), float("inf"), b"X-Consumer-Id: ann\r\n")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class AlwaysLooksUp:
    credential_fields = frozenset({b"authorization"})
    keeps_lines = False
    reserved = b"own"
    endpoints = {b"echo": (b"POST", b"GET")}  # noqa: RUF012  # the interface asks for an attribute

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        return Lookup()

    def current(self, identity: Identity, now: float) -> Identity | None:
        return identity

    def kept_lines(self, presented: Presented) -> bytes:
        return b""

    def forbidden_lines(self, route: Route) -> bytes:
        return b""


class Gate:
    """A resolver that answers when the test opens it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.outcome: Identity | Denial = ANN
        self.begun = 0
        self.cancelled = 0
        self.error: Exception | None = None
        self.bodies: list[bytes] = []

    async def _pass(self) -> None:
        self.begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error

    async def resolve(self, pending: Pending) -> Identity | Denial:
        await self._pass()
        return self.outcome

    async def answer(self, local: Local, body: bytes) -> Reply | Denial:
        self.bodies.append(body)
        await self._pass()
        if isinstance(self.outcome, Denial):
            return self.outcome
        return Reply(200, b"Content-Type: text/plain\r\n", b"[%b?%b]" % (body, local.query))

    def has_ended(self, session: Session) -> bool:
        return False


@asynccontextmanager
async def waiting(limits: Limits = DEFAULTS) -> AsyncIterator[tuple[Stack, Recorder, Gate]]:
    async with running(limits=limits) as (stack, recorder):
        gate = Gate()
        snapshot = stack.context.snapshot
        assert snapshot.default is not None
        authenticator = AlwaysLooksUp()
        snapshot.default.authenticator = authenticator
        snapshot.credential_fields = authenticator.credential_fields
        stack.context.resolver = gate
        yield stack, recorder, gate


async def begun(gate: Gate, count: int = 1) -> None:
    await until(lambda: gate.begun >= count)


# --- look-ups ---------------------------------------------------------------------------------------


async def test_a_request_waits_for_its_lookup_and_pipelined_ones_come_after_it_in_order() -> None:
    async with waiting() as (stack, recorder, gate):
        reader, writer = await stack.connect()
        writer.write(
            request(b"GET", b"/s/1") + request(b"GET", b"/p/2") + request(b"GET", b"/s/3", close=True)
        )
        await begun(gate)
        assert recorder.seen == []
        gate.open.set()
        found = answers(await asyncio.wait_for(reader.read(-1), 10), b"GET", b"GET", b"GET")
        assert [answer.body for answer in found] == [b"/1", b"/2", b"/3"]
        assert b"X-Consumer-Id: ann\r\n" in recorder.heads[0]
        await until(lambda: stack.context.lookups == 0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_arrives_during_the_lookup_goes_on_whole_wherever_it_is_cut(framing: str) -> None:
    if framing == "length":
        message = request(b"POST", b"/s/up", body=b"upload")
    else:
        message = request(b"POST", b"/s/up", b"Transfer-Encoding: chunked") + b"6\r\nupload\r\n0\r\n\r\n"
    message += request(b"GET", b"/p/next", close=True)
    head_ends = message.index(b"\r\n\r\n") + 4
    async with waiting() as (stack, recorder, gate):
        for cut in range(head_ends, len(message) + 1):
            gate.open.clear()
            before = gate.begun
            reader, writer = await stack.connect()
            writer.write(message[:cut])
            await begun(gate, before + 1)
            writer.write(message[cut:])
            await writer.drain()
            gate.open.set()
            found = answers(await asyncio.wait_for(reader.read(-1), 10), b"POST", b"GET")
            assert [answer.body for answer in found] == [b"/up", b"/next"]
            assert recorder.seen[-2].body == b"upload"


async def test_a_large_upload_is_not_taken_in_before_the_lookup_is_done() -> None:
    size = 4_000_000
    async with waiting() as (stack, recorder, gate):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/s/up", b"Content-Length: %d" % size) + bytes(size))
        await begun(gate)
        (connection,) = stack.context.connections
        await until(lambda: connection.read_paused)
        assert len(connection.buffer) < 600_000
        gate.open.set()
        assert (await read_answer(reader, b"POST")).status == 200
        assert len(recorder.seen[0].body) == size


async def test_an_upload_is_asked_for_only_after_the_lookup() -> None:
    async with waiting() as (stack, _, gate):
        reader, writer = await stack.connect()
        head = request(b"POST", b"/s/up", b"Expect: 100-continue", b"Content-Length: 6")
        writer.write(head)
        await begun(gate)
        gate.open.set()
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == CONTINUE
        assert (await exchange(reader, writer, b"upload", b"POST")).status == 200
        gate.outcome = Denial(Reason.CREDENTIALS_INVALID)
        writer.write(head)
        refused = await read_answer(reader, b"POST")
        assert (refused.status, refused.interim) == (401, [])


async def test_a_denied_request_keeps_the_connection_where_the_next_request_is_known() -> None:
    async with waiting() as (stack, recorder, gate):
        gate.open.set()
        gate.outcome = Denial(Reason.CREDENTIALS_INVALID, extra_lines=b"WWW-Authenticate: X\r\n", why="wrong")
        reader, writer = await stack.connect()
        refused = await exchange(reader, writer, request(b"GET", b"/s/1"), b"GET")
        assert (refused.status, refused.get(b"www-authenticate")) == (401, b"X")
        gate.outcome = ANN
        assert (await exchange(reader, writer, request(b"GET", b"/s/2"), b"GET")).body == b"/2"
        assert [seen.path for seen in recorder.seen] == [b"/2"]
        assert ("credentials_invalid", "wrong") in stack.reports


async def test_pipelined_requests_behind_a_denied_one_are_served() -> None:
    async with waiting() as (stack, _, gate):
        gate.outcome = Denial(Reason.CREDENTIALS_INVALID)
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/s/1") + request(b"GET", b"/p/2", close=True))
        await begun(gate)
        gate.open.set()
        found = answers(await asyncio.wait_for(reader.read(-1), 10), b"GET", b"GET")
        assert [answer.status for answer in found] == [401, 200]


async def test_a_client_that_leaves_ends_its_lookup() -> None:
    async with waiting() as (stack, recorder, gate):
        _, writer = await stack.connect()
        writer.write(request(b"GET", b"/s/1"))
        await begun(gate)
        writer.transport.abort()
        await until(lambda: gate.cancelled == 1)
        await until(lambda: not stack.context.connections)
        await until(lambda: stack.context.lookups == 0)
        assert recorder.seen == []


@pytest.mark.parametrize("path", [b"/s/1", b"/own/echo"])
async def test_a_task_that_is_cancelled_before_it_begins_is_not_counted_for_ever(path: bytes) -> None:
    async with waiting() as (stack, _, gate):
        _, writer = await stack.connect()
        await until(lambda: bool(stack.context.connections))
        (connection,) = stack.context.connections
        for _ in range(3):
            connection.data_received(request(b"GET", path))
            assert stack.context.lookups == 1
            assert connection.exchange is not None
            connection.exchange.cancel()  # in the same turn of the loop: the task has not run yet
            connection.exchange = None
            connection.phase = IDLE
            await until(lambda: stack.context.lookups == 0)
        assert gate.begun == 0
        writer.close()


@pytest.mark.parametrize("path", [b"/s/1", b"/own/echo"])
async def test_clients_that_pipeline_and_leave_hold_no_place(path: bytes) -> None:
    async with waiting() as (stack, _, gate):
        gate.open.set()
        for _ in range(40):
            _, writer = await stack.connect()
            writer.write(request(b"GET", path) * 40)
            writer.close()
        await until(lambda: not stack.context.connections)
        await until(lambda: stack.context.lookups == 0)


async def test_a_client_that_half_closes_still_gets_its_answer() -> None:
    async with waiting() as (stack, _, gate):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/s/1"))
        writer.write_eof()
        await begun(gate)
        gate.open.set()
        (found,) = answers(await asyncio.wait_for(reader.read(-1), 10), b"GET")
        assert found.body == b"/1"


async def test_a_half_closed_upload_that_is_not_whole_ends_with_its_lookup() -> None:
    async with waiting() as (stack, _, gate):
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/s/1", b"Content-Length: 9") + b"x")
        writer.write_eof()
        await begun(gate)
        gate.open.set()
        assert await asyncio.wait_for(reader.read(-1), 10) == b""


async def test_only_so_many_requests_of_a_gateway_wait_at_once() -> None:
    async with waiting(Limits(max_lookups=4)) as (stack, _, gate):
        for _ in range(2):
            _, writer = await stack.connect()
            writer.write(request(b"GET", b"/s/1"))
        await begun(gate, 2)
        reader, writer = await stack.connect()
        for path in (b"/s/1", b"/own/echo"):
            refused = await exchange(reader, writer, request(b"GET", path), b"GET")
            assert refused.status == 503
            assert b"overloaded" in refused.body
        assert stack.context.may_look_up("another"), "one gateway must not take the places of all others"
        assert not stack.context.may_look_up("gw")
        for _ in range(2):
            stack.context.look_up_begun("another")
        assert not stack.context.may_look_up("a third one")
        for _ in range(2):
            stack.context.look_up_done("another")
        gate.open.set()
        await until(lambda: stack.context.lookups == 0)
        assert stack.context.gateway_lookups == {}
        assert (await exchange(reader, writer, request(b"GET", b"/s/1"), b"GET")).status == 200


@pytest.mark.parametrize("path", [b"/s/1", b"/own/echo"])
async def test_a_lookup_that_fails_or_hangs_is_answered(path: bytes) -> None:
    async with waiting(Limits(lookup_timeout_s=0.1)) as (stack, _, gate):
        reader, writer = await stack.connect()
        slow = await exchange(reader, writer, request(b"GET", path), b"GET")
        assert slow.status == 503
        assert b"auth_unavailable" in slow.body
        gate.error = RuntimeError("a bug with a secret in it")
        gate.open.set()
        broken = await exchange(reader, writer, request(b"GET", path), b"GET")
        assert broken.status == 500
        assert b"secret" not in broken.body
        assert ("internal_error", "RuntimeError: a bug with a secret in it") in stack.reports
        await until(lambda: stack.context.lookups == 0)


# --- the gateway's own endpoints ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5", b"hello"),
        (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: x\r\n\r\n"),
        (b"Content-Length: 0", b""),
        (b"X: y", b""),
    ],
)
async def test_an_endpoint_reads_its_body_wherever_it_is_cut(framing: bytes, body: bytes) -> None:
    message = request(b"POST", b"/own/echo?q=1", framing) + body
    wanted = b"[%b?q=1]" % (b"hello" if body else b"")
    async with waiting() as (stack, recorder, gate):
        gate.open.set()
        for cut in range(1, len(message)):
            reader, writer = await stack.connect()
            writer.write(message[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(message[cut:] + request(b"GET", b"/p/next"))
            assert (await read_answer(reader, b"POST")).body == wanted
            assert (await read_answer(reader, b"GET")).body == b"/next"
            writer.close()
        assert len(recorder.seen) == len(message) - 1


async def test_head_gets_the_fields_of_an_endpoint_without_its_body() -> None:
    async with waiting() as (stack, _, gate):
        gate.open.set()
        reader, writer = await stack.connect()
        found = await exchange(reader, writer, request(b"HEAD", b"/own/echo"), b"HEAD")
        assert (found.status, found.get(b"content-length"), found.body) == (200, b"3", b"")
        assert (await exchange(reader, writer, request(b"GET", b"/own/echo"), b"GET")).body == b"[?]"


async def test_a_body_too_large_for_an_endpoint_is_refused_unread() -> None:
    async with waiting() as (stack, _, gate):
        gate.open.set()
        size = MAX_OWN_BODY_BYTES + 1
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size))
        for head, body in (
            (request(b"POST", b"/own/echo", b"Content-Length: %d" % size), b""),
            (request(b"POST", b"/own/echo", b"Transfer-Encoding: chunked"), chunk),
        ):
            raw = await stack.talk(head + body)
            (found,) = answers(raw, b"POST")
            assert (found.status, found.get(b"connection")) == (413, b"close")
        assert gate.bodies == []


async def test_a_malformed_body_is_refused_and_nothing_behind_it_is_read() -> None:
    async with waiting() as (stack, recorder, gate):
        gate.open.set()
        head = request(b"POST", b"/own/echo", b"Transfer-Encoding: chunked")
        (found,) = answers(await stack.talk(head + b"x\r\n" + request(b"GET", b"/p/evil")), b"POST")
        assert found.status == 400
        assert (recorder.seen, gate.bodies) == ([], [])


async def test_an_endpoint_asks_for_a_body_that_waits_to_be_asked_for() -> None:
    async with waiting() as (stack, _, gate):
        gate.open.set()
        reader, writer = await stack.connect()
        writer.write(request(b"POST", b"/own/echo", b"Expect: 100-continue", b"Content-Length: 2"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == CONTINUE
        assert (await exchange(reader, writer, b"ok", b"POST")).body == b"[ok?]"


async def test_a_body_that_stops_arriving_is_408() -> None:
    async with waiting(Limits(body_timeout_s=0.1)) as (stack, _, gate):
        (found,) = answers(
            await stack.talk(request(b"POST", b"/own/echo", b"Content-Length: 2") + b"x"), b"POST"
        )
        assert found.status == 408
        assert gate.bodies == []


async def test_a_denial_at_an_endpoint_keeps_the_connection() -> None:
    async with waiting() as (stack, _, gate):
        gate.open.set()
        gate.outcome = Denial(Reason.CREDENTIALS_INVALID, is_failure=True)
        reader, writer = await stack.connect()
        for _ in range(2):
            refused = await exchange(reader, writer, request(b"POST", b"/own/echo", body=b"abc"), b"POST")
            assert refused.status == 401
        assert (await exchange(reader, writer, request(b"GET", b"/p/x"), b"GET")).body == b"/x"


async def test_a_client_that_leaves_an_endpoint_ends_the_work() -> None:
    async with waiting() as (stack, _, gate):
        _, writer = await stack.connect()
        writer.write(request(b"POST", b"/own/echo", body=b"abc"))
        await begun(gate)
        writer.transport.abort()
        await until(lambda: gate.cancelled == 1)
        await until(lambda: stack.context.lookups == 0)


async def test_an_endpoint_says_close_while_draining() -> None:
    async with waiting() as (stack, _, gate):
        reader, writer = await stack.connect()
        writer.write(request(b"GET", b"/own/echo"))
        await begun(gate)
        stack.context.draining = True
        gate.open.set()
        assert (await read_answer(reader, b"GET")).get(b"connection") == b"close"
        assert await asyncio.wait_for(reader.read(), 10) == b""
