"""Backends that do as they are told and count, and h11 as the client that reads what the gateway emits."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

import h11

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.snapshot import Target
from tests.proxy.harness import BOUND_S, Stack, backend, gateway, make_snapshot


@dataclass
class Answer:
    """One response as h11 reads it; `whole` is false where h11 says that it was cut short."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    whole: bool = True

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field that occurs once at most."""
        values = [value for key, value in self.fields if key == name]
        assert len(values) < 2, f"{name!r} is there {len(values)} times"
        return values[0] if values else None


def answers(raw: bytes, *methods: bytes) -> list[Answer]:
    """Read `raw`, all that came until the close, as the answers to `methods`; h11 must like every byte of it."""
    found = []
    for method in methods:
        if not raw:
            break
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        client.receive_data(b"")
        interim: list[int] = []
        answer: Answer | None = None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                assert answer is not None, f"not an HTTP response: {raw[:200]!r}"
                answer.whole = False
                break
            if isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                answer = Answer(event.status_code, list(event.headers), interim=interim)
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise AssertionError(f"{event!r} after {raw[:200]!r}")
        assert answer is not None
        found.append(answer)
        raw = client.trailing_data[0] if answer.whole else b""
    assert not raw, f"bytes that answer nothing: {raw[:200]!r}"
    return found


@dataclass
class Reply:
    """What a backend sends, and what it does then: `keep`, `close`, `reset`, `half_close`, `stall`."""

    data: bytes | Sequence[bytes]
    then: str = "keep"


Respond = Callable[["Seen"], Reply | bytes]


@dataclass
class Seen:
    """A request as a backend received it. `connection` and `turn` count from 1; `turn` within its connection."""

    connection: int
    turn: int
    head: bytes
    body: bytes

    @property
    def method(self) -> bytes:
        return self.head.partition(b" ")[0]

    @property
    def path(self) -> bytes:
        return self.head.split(b" ", 2)[1]


def ok(seen: Seen) -> bytes:
    """Answer 200 with the path as the body."""
    body = seen.path
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head if seen.method == b"HEAD" else head + body


class Recorder:
    """A backend that reads every request with h11, remembers it, and answers as `respond` says."""

    def __init__(self, respond: Respond = ok) -> None:
        self.respond = respond
        self.connections = 0
        self.open = 0
        self.seen: list[Seen] = []
        self.began = asyncio.Event()
        """A request's head has come in."""
        self.all_ended = asyncio.Event()
        """No connection is left that the gateway had opened."""

    @property
    def heads(self) -> list[bytes]:
        return [seen.head for seen in self.seen]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.all_ended.clear()
        try:
            await self._serve(self.connections, reader, writer)
        finally:
            self.open -= 1
            if not self.open:
                self.all_ended.set()

    async def _serve(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        turn = 0
        while True:
            request = await read_request(reader, self.began)
            if request is None:
                return
            turn += 1
            seen = Seen(connection, turn, *request)
            self.seen.append(seen)
            reply = self.respond(seen)
            if isinstance(reply, bytes):
                reply = Reply(reply)
            pieces = [reply.data] if isinstance(reply.data, bytes) else reply.data
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if reply.then == "close":
                return
            if reply.then == "reset":
                reset(writer)
                return
            if reply.then == "half_close":
                writer.write_eof()
            if reply.then != "keep":
                await reader.read(-1)
                return


async def read_request(
    reader: asyncio.StreamReader, began: asyncio.Event | None = None
) -> tuple[bytes, bytes] | None:
    """Read one request: its head as sent, and its body as h11 understands it. None at a clean end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    if began is not None:
        began.set()
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(head)
    request = server.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65_536)
            if not data:
                raise ConnectionError("the gateway broke off in a body")
            server.receive_data(data)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage), event
            break
    assert not server.trailing_data[0], "the gateway does not pipeline"
    return head, body


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def stop_reading(writer: asyncio.StreamWriter) -> None:
    """Take nothing from the socket any more, so that its buffers fill."""
    cast("asyncio.Transport", writer.transport).pause_reading()


def read_on(writer: asyncio.StreamWriter) -> None:
    """Undo `stop_reading`."""
    cast("asyncio.Transport", writer.transport).resume_reading()


@contextmanager
def small_window() -> Iterator[socket.socket]:
    """A client socket whose receive buffer is as small as the kernel allows."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.setblocking(False)
        yield client


@contextmanager
def full_listener() -> Iterator[int]:
    """A port that answers no connect, because its queue is full; yield its number."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


@asynccontextmanager
async def running(respond: Respond = ok, limits: Limits = DEFAULTS) -> AsyncIterator[tuple[Stack, Recorder]]:
    """Run a gateway in front of a `Recorder`."""
    recorder = Recorder(respond)
    async with backend(recorder.handle) as port, gateway(make_snapshot(port, limits), limits) as stack:
        yield stack, recorder


async def within(event: asyncio.Event, bound_s: float = BOUND_S) -> None:
    """Wait for an event that has to come."""
    await asyncio.wait_for(event.wait(), bound_s)


async def until(condition: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    """Wait for a state that announces itself by no event."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + bound_s
    while not condition():
        assert loop.time() < deadline_s, "the state was not reached in time"
        await asyncio.sleep(0.002)


def request(method: bytes, path: bytes, *lines: bytes, body: bytes = b"", close: bool = False) -> bytes:
    """Write a request; a body gets its Content-Length unless `lines` frame it."""
    fields = [b"Host: a", *lines]
    if body and not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in lines):
        fields.append(b"Content-Length: %d" % len(body))
    if close:
        fields.append(b"Connection: close")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, path, b"\r\n".join(fields), body)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, method: bytes = b"GET"
) -> Answer:
    """Send one request on an open connection and read its answer, framed by h11."""
    writer.write(data)
    return await read_answer(reader, method)


async def read_answer(
    reader: asyncio.StreamReader, method: bytes = b"GET", bound_s: float = BOUND_S
) -> Answer:
    """Read one answer and not a byte more than h11 needs."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    interim: list[int] = []
    answer: Answer | None = None
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await asyncio.wait_for(reader.read(65_536), bound_s))
        elif isinstance(event, h11.InformationalResponse):
            interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            answer = Answer(event.status_code, list(event.headers), interim=interim)
        elif isinstance(event, h11.Data):
            assert answer is not None
            answer.body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage), event
            assert answer is not None
            assert not client.trailing_data[0]
            return answer


def a_target(stack: Stack) -> Target:
    """Return the one target of the harness' gateway."""
    (target,) = stack.context.snapshot.gateways["gw"].trie.match([b"p"]).any_route.service.targets  # type: ignore[union-attr]
    return target
