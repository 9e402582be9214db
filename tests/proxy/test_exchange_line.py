"""The JSON line of an exchange is written without an entry, and says the same as that of its entry, byte for byte."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import TypeVar

import pytest

from authgate_fast.decision import Client, Forward
from authgate_fast.http.request import RequestHead
from authgate_fast.http.trace_context import Trace
from authgate_fast.plan import plan
from authgate_fast.proxy.access_line import Clock, Lines, combined_line, json_line
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.exchange_line import exchange_line
from authgate_fast.proxy.line_parts import MAX_TEXT_BYTES
from authgate_fast.proxy.record import (
    ACCESS_ENDED,
    CLIENT_CLOSED,
    COMPLETE,
    UPSTREAM_BROKEN,
    exchange_ended,
    exchange_entry,
)
from authgate_fast.snapshot import Gateway, Identity, Service, Target
from tests.proxy.harness import make_snapshot
from tests.proxy.test_record import Log

T = TypeVar("T")
NOW_S = 1_700_000_000.25
AGENTS = [
    b"",
    b"curl/8",
    b"Mozilla/5.0 (X11; Linux x86_64)",
    b"b" * 1_100,
    b'a "quoted" \\ one',
    "straße".encode(),
    b"a" * 3_000,
    b"\xff\xfe",
]
HOSTS = [b"shop.example.com", b"a:8080", b"[::1]"]
TARGETS = [
    b"/p/1",
    b"/p/2?token=secret",
    b"/p/%22?",
    b'/p/"',
    b"/p/\\x",
    b'/p/ok?"',
    b"/p/" + b"long" * 500,
    b"/p/" + b"long" * 300 + b"?q",
    b"/" + b"x" * (MAX_TEXT_BYTES - 1),
    b"/" + b"x" * MAX_TEXT_BYTES,
]
METHODS = [b"GET", b"HEAD", b"POST", b"M-SEARCH", b"PROPFIND"]
STATUSES = [0, 200, 204, 304, 404, 502, 599, 600, 999]
OUTCOMES = [COMPLETE, COMPLETE, COMPLETE, CLIENT_CLOSED, UPSTREAM_BROKEN, ACCESS_ENDED]
ADDRESSES = ["127.0.0.1", "2001:db8::1", "unix:", "", "203.0.113.77"]
FORWARDED = [
    b"",
    b"",
    b"",
    b"X-Forwarded-For: 192.0.2.7",
    b'X-Forwarded-For: ", 10.0.0.1',
    b"X-Forwarded-For: 192.0.2.8, 127.0.0.1",
]
CALLERS = [("", ""), ("app", "default"), ('a"b\n', "ключ"), ("", "oidc"), ("long" * 100, "x")]
BACKENDS = [
    Target("http", "127.0.0.1", 9_000, b"", b"Host: a\r\n"),
    Target("https", "::1", 443, b"/v2", b"Host: a\r\n"),
    Target("http", '/run/a "socket"\\ of ours', 0, b"/v1", b"Host: a\r\n"),
]
SECONDS = [0.0, 0.0000004, 0.000_999_6, 0.0123456, 0.9999996, 61.002003, 100_000.0]
SIZES = [0, 1, 4_095, 4_096, 1_000_000, 5_000_000_000]


class World:
    """A worker's state, and what connections and their requests are made of."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.context = Context(asyncio.get_running_loop())
        self.context.snapshot = self.snapshot = make_snapshot(9_000)
        self.context.wall_s = NOW_S
        self.context.ticked_s = 50.0
        assert self.snapshot.default is not None
        self.gateway: Gateway = self.snapshot.default
        self.gateway.trusted_proxies = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))
        self.identities = [Identity(*caller, frozenset(), 0.0, b"") for caller in CALLERS]

    def one(self, options: Sequence[T]) -> T:
        return self.chance.choice(options)

    def connection(self) -> Downstream:
        connection = Downstream(self.context)
        client = connection.client = Client(self.one(ADDRESSES))
        client.gateway = self.gateway
        client.trusted = self.one([False, False, True])
        return connection

    def exchanges(self) -> Iterator[tuple[Exchange, float]]:
        """The exchanges of one connection whose heads are often alike, and when they end."""
        connection = self.connection()
        agent, host, forwarded = self.one(AGENTS), self.one(HOSTS), self.one(FORWARDED)
        for _ in range(16):
            if self.chance.random() < 0.1:
                agent, host = self.one(AGENTS), self.one(HOSTS)
            yield self._exchange(connection, self._head(connection, agent, host, forwarded))

    def _head(self, connection: Downstream, agent: bytes, host: bytes, forwarded: bytes) -> RequestHead:
        version = self.one([b"1.1"] * 11 + [b"1.0"])
        start = b"%b %b HTTP/%b" % (self.one(METHODS), self.one(TARGETS[:2] * 10 + TARGETS), version)
        lines = [start, b"Host: " + host, b"User-Agent: " + agent, forwarded, b"Content-Length: 7"]
        kept = [line for line in lines if line not in (b"", b"User-Agent: ")]
        snapshot = self.snapshot
        head = self.context.request_reader.read(
            b"\r\n".join((*kept, b"", b"")), 100, snapshot, connection.shape
        )
        assert isinstance(head, RequestHead), kept
        connection.shape = head.shape
        plan(head, snapshot, Client(""), NOW_S, b"1")  # it notes the path, whatever it decides
        if self.one([False, False, True]):
            head.trace = Trace()
            head.trace.trace_id = self.one([b"", b"0af7651916cd43dd8448eb211c80319c"])
        return head

    def _exchange(self, connection: Downstream, head: RequestHead) -> tuple[Exchange, float]:
        leaf = self.gateway.trie.match([self.one([b"p", b"p", b"s"]), b"1"])
        assert leaf is not None
        assert leaf.any_route is not None
        target, identity = self.one(BACKENDS), self.one([None, *self.identities])
        service = Service("svc", (target,))
        forward = Forward(
            self.gateway,
            leaf.any_route,
            service,
            target,
            identity,
            b"%x-1" % self.chance.getrandbits(32),
            b"",
        )
        exchange = Exchange(connection, head, forward)
        connection.head_bytes, connection.sent_before = self.one(SIZES), self.one(SIZES)
        connection.written = connection.sent_before + self.one(SIZES)
        connection.begun_s = 50.0 + self.one(SECONDS)
        exchange.status = self.one(STATUSES)
        exchange.response_s = connection.begun_s + self.one(SECONDS)
        exchange.sends = self.one([0, 1, 1, 2, 9])
        exchange.left = self.one([0, 7])
        return exchange, connection.begun_s + self.one(SECONDS)


@pytest.mark.parametrize("seed", range(8))
async def test_the_line_of_an_exchange_is_that_of_its_entry(seed: int) -> None:
    world, clock = World(seed), Clock()
    shaped = 0
    for _ in range(80):
        for exchange, ended_s in world.exchanges():
            forward = exchange.forward
            tally = world.context.recorder.of_route(forward.gateway, forward.route)
            outcome, status = world.one(OUTCOMES), exchange.status or 499
            shape = exchange.head.shape
            shaped += shape is not None and exchange.head.known_lines is shape.lines
            request_bytes = exchange.downstream.head_bytes + exchange.body_received()
            line = exchange_line(exchange, tally, clock, outcome, status, request_bytes, ended_s)
            assert line == json_line(exchange_entry(exchange, outcome, status, ended_s), Clock())
            assert line.count(b"\n") == 1
            assert b"secret" not in line
            assert len(json.loads(line)) in (22, 23)
    assert shaped > 50, "most exchanges of a busy gateway are read by their shape: they must be among these"


def lines_for(write: object) -> Lines:
    return Lines(write, 1 << 20, lambda: None, lambda: None)  # type: ignore[arg-type]  # one of the two formats


async def test_a_json_log_gets_the_line_and_no_entry_is_made() -> None:
    world, lines = World(1), lines_for(json_line)
    recorder = world.context.recorder
    recorder.log_to(lines)
    recorder.log = None  # an entry would go here
    (exchange, _), *_ = world.exchanges()
    exchange_ended(exchange, COMPLETE)
    (line,) = lines.take()
    assert json.loads(line)["request_id"] == exchange.forward.request_id.decode()


async def test_a_combined_log_gets_combined_lines() -> None:
    world, lines = World(1), lines_for(combined_line)
    world.context.recorder.log_to(lines)
    (exchange, _), *_ = world.exchanges()
    exchange_ended(exchange, COMPLETE)
    (line,) = lines.take()
    assert b'] "' in line


@pytest.mark.parametrize(("span_id", "spans_of_it"), [(b"", 0), (b"b7ad6b7169203331", 1)])
async def test_with_spans_a_request_is_logged_once_whether_or_not_it_has_one(
    span_id: bytes, spans_of_it: int
) -> None:
    world, lines, spans = World(1), lines_for(json_line), Log()
    world.context.recorder.log_to(lines)
    world.context.recorder.spans = spans
    (exchange, _), *_ = world.exchanges()
    trace = exchange.head.trace = Trace()
    trace.trace_id, trace.span_id = b"0af7651916cd43dd8448eb211c80319c", span_id
    exchange_ended(exchange, COMPLETE)
    (line,) = lines.take()
    assert json.loads(line)["trace_id"] == trace.trace_id.decode()
    assert len(spans) == spans_of_it
