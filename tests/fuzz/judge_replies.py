"""The oracle for a backend's answer: what the client got, against the strict parser's reading of what was sent."""

from __future__ import annotations

import asyncio

from tests.fuzz import strict
from tests.fuzz.arena import Arena
from tests.fuzz.backend import Script, Seen
from tests.fuzz.judge import Finding, compare_answer_with_h11, require
from tests.fuzz.replies import Lie
from tests.fuzz.strict import COMPLETE, INCOMPLETE, Message
from tests.fuzz.world import LIMITS

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"transfer-encoding",
        b"content-length",
    )
)
# These the gateway takes out, puts in, or may.
NOT_COMPARED = HOP_BY_HOP | {b"proxy-authenticate", b"x-request-id", b"date", b"via"}
_MOST_INTERIM = LIMITS.max_interim_responses
_WEBSOCKET_FIELDS = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
_SETTLE_TURNS = 4
_MOST_TURNS = 5_000
"""The gateway may never ask: a POST that met a connection just closed is not sent again."""


class LieClient:
    """Asks for a lie, waits until the backend has said all of it, then asks for the truth: here, and on a fresh connection."""

    __slots__ = ("arena", "kept", "lie", "link", "number", "raw", "script", "seen", "step", "turns")

    def __init__(self, arena: Arena, lie: Lie, number: int) -> None:
        self.arena = arena
        self.lie = lie
        self.number = number
        self.script: Script = lie.script()
        arena.scripts[b"/lie/%d" % number] = self.script
        self.seen = Seen()
        self.link: _Link | None = None
        self.step = 0
        self.turns = 0
        self.kept = False
        self.raw = [b"", b"", b""]

    def start(self) -> None:
        lie = self.lie
        line = b"%b /p/lie/%d HTTP/1.%d\r\nHost: shop.test\r\n" % (lie.method, self.number, lie.minor)
        if lie.asks:
            line += b"Connection: Upgrade\r\nUpgrade: %b\r\n%b" % (lie.asks, _WEBSOCKET_FIELDS)
        # A POST is answered before its body has come whole: such an answer ends both connections.
        self.link = _Link(
            self, line + (b"Content-Length: 5\r\n\r\nhel" if lie.method == b"POST" else b"\r\n")
        )

    def heard(self, data: bytes) -> None:
        """Take bytes of an answer."""
        self.raw[self.step] += data
        if len(self.seen.answers) > self.step:
            return  # more than the answer; the judge will see
        answer = self._read(eof=False)
        if answer.state != INCOMPLETE:
            self.seen.answers.append(answer)
            self.kept = answer.state == COMPLETE and b"close" not in answer.options()
            self._go_on()

    def closed(self, *, was_reset: bool) -> None:
        """The gateway has ended the connection."""
        self.link = None
        self.kept = False
        if len(self.seen.answers) > self.step:
            return
        if self.step == 0:
            self.seen.was_reset = was_reset
        self.seen.answers.append(self._read(eof=not was_reset))
        self._go_on()

    def _read(self, *, eof: bool) -> Message:
        method, asks = (self.lie.method, self.lie.asks) if self.step == 0 else (b"GET", b"")
        return strict.read_response(self.raw[self.step], 0, method, eof=eof, upgrade=asks)

    def _go_on(self) -> None:
        """Ask on when the backend has said all, and the gateway has had some turns to read it."""
        if self.step == 0 and self.turns < (_SETTLE_TURNS if self.script.ended else _MOST_TURNS):
            self.turns = 0 if self.script.sent and not self.script.ended else self.turns + 1
            self.arena.loop.call_soon(self._go_on)
        elif self.step == 0 and self.kept and self.link is not None:
            self.step = 1
            self.link.send(b"GET /p/true/%d HTTP/1.1\r\nHost: shop.test\r\n\r\n" % self.number)
        elif self.step < 2:
            self._hang_up()
            if self.step == 0:
                self.seen.answers.append(Message())
            self.step = 2
            self.link = _Link(
                self, b"GET /p/true/%d HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n" % self.number
            )
        else:
            self._hang_up()
            self.arena.scripts.pop(b"/lie/%d" % self.number, None)
            self.arena.done(self)

    def _hang_up(self) -> None:
        if self.link is not None:
            self.link.hang_up()
            self.link = None

    def stop(self) -> None:
        if len(self.seen.answers) < 3 or self.link is not None:
            self.seen.hung = True
        self._hang_up()


class _Link(asyncio.Protocol):
    """One connection of a client; uvloop's readers of bare sockets do not hear of a reset."""

    def __init__(self, client: LieClient, data: bytes) -> None:
        self.client: LieClient | None = client
        self.transport: asyncio.Transport | None = None
        self.data = data
        arena = client.arena
        self.task = arena.loop.create_task(
            arena.loop.create_connection(lambda: self, sock=arena.connect(client.seen))
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport
        self.send(self.data)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.client is not None:
            self.client.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.client is not None:
            self.client.closed(was_reset=exc is not None)

    def hang_up(self) -> None:
        self.client = None
        if self.transport is not None:
            self.transport.abort()


def judge_lie(client: LieClient) -> list[str]:
    """Return what is wrong with what the client got."""
    try:
        _judge(client)
    except Finding as finding:
        return [str(finding)]
    return []


def _judge(client: LieClient) -> None:
    require(not client.seen.hung, "hang: the client waited in vain")
    lie, raw = client.lie, client.raw[0]
    told = lie.read()
    got = strict.read_response(raw, 0, lie.method, eof=not client.seen.was_reset, upgrade=lie.asks)
    if got.framing == "tunnel":
        _judge_tunnel(told, got, lie)
    else:
        _judge_answer(told, got, client)
    _judge_truth(client)


def _judge_tunnel(told: Message, got: Message, lie: Lie) -> None:
    require(told.framing == "tunnel", f"tunnel: opened by {told.state} ({told.why}): {lie.data!r}")
    is_same = told.body.startswith(got.body) if lie.then == "reset" else got.body == told.body
    require(is_same, f"tunnel: {got.body!r} for {told.body!r}")
    require(got.options() == {b"upgrade"}, f"tunnel: {got.fields!r}")


def _judge_answer(told: Message, got: Message, client: LieClient) -> None:
    lie, raw = client.lie, client.raw[0]
    if got.state == COMPLETE:
        require(got.end == len(raw), f"answers: bytes behind one: {raw!r}")
        require(got.odd in ("", strict.UNKNOWN_STATUS), f"answers: {got.odd}: {raw!r}")
        require(got.framing != "close" or lie.minor == 0, f"answers: no framing: {raw!r}")
        compare_answer_with_h11(raw, lie.method, got)
    else:
        require(got.state == INCOMPLETE, f"answers: malformed ({got.why}): {raw!r}")
    is_error = (
        got.state == COMPLETE
        and got.status == 502
        and got.values(b"content-type") == [b"application/problem+json"]
    )
    if told.state != COMPLETE:
        require(
            got.state != COMPLETE or is_error,
            f"{told.state} ({told.why}), but the client got a whole answer: {raw!r}",
        )
    elif got.state == COMPLETE and not is_error:
        _compare(told, got, lie)
    else:
        # A reset may overtake what was sent before it; and a POST may have met a connection that had just closed.
        never_asked = lie.method == b"POST" and not client.script.sent
        may_fail = lie.then == "reset" or never_asked or bool(told.odd)
        require(is_error or may_fail, f"good, but the client got a part: {raw!r}")
        require(may_fail or _over_limits(lie, told), f"good, but refused: {raw!r}")


def _compare(told: Message, got: Message, lie: Lie) -> None:
    require(got.status == told.status, f"status {got.status} for {told.status}")
    require(got.body == told.body, f"body: {got.body!r} for {told.body!r}")
    length = told.values(b"content-length")
    if got.framing == "length" or (lie.method == b"HEAD" and told.status != 204):
        require(got.values(b"content-length") == length, "Content-Length: another one")
    require(
        len(got.values(b"x-request-id")) == 1
        and len(got.values(b"date")) == max(1, len(told.values(b"date"))),
        "fields: X-Request-ID or Date",
    )
    require(got.values(b"via")[-1:] == [b"1.1 authgate"], "fields: Via")
    require(got.options() <= {b"close"}, "fields: Connection")
    hops = [
        name
        for name, _ in got.fields
        if name in HOP_BY_HOP - {b"connection", b"transfer-encoding", b"content-length"}
    ]
    require(not hops, f"fields: {hops!r}")
    nominated = told.options()
    sent = [f for f in told.fields if f[0] not in NOT_COMPARED and f[0] not in nominated]
    passed = [f for f in got.fields if f[0] not in NOT_COMPARED and f[0] not in nominated]
    require(sent == passed, f"fields: {passed!r} for {sent!r}")
    wanted = [one.status for one in told.interim if one.status != 100] if lie.minor == 1 else []
    require([one.status for one in got.interim] == wanted, "interim answers")


def _over_limits(lie: Lie, told: Message) -> bool:
    if len(told.interim) > _MOST_INTERIM:
        return True
    heads = [*told.interim, told]
    return any(
        len(head.fields) > LIMITS.max_fields
        or lie.data.index(b"\r\n\r\n", head.at) + 4 - head.at > LIMITS.max_head_bytes
        for head in heads
    )


def _judge_truth(client: LieClient) -> None:
    """The requests after the lie get answers of their own."""
    for step in (1, 2):
        raw = client.raw[step]
        if step == 1 and not raw and not client.seen.answers[1].head_read:
            continue
        answer = strict.read_response(raw, 0, b"GET", eof=True)
        require(answer.state == COMPLETE and answer.end == len(raw), f"crossed: {raw!r}")
        require(
            answer.status == 200 and answer.body.endswith(b" GET /true/%d" % client.number),
            f"crossed: {raw!r}",
        )
