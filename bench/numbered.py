"""A load in which every answer is checked: each request has a number of its own, and its answer must carry that number.

`Backend` answers ``/n/NUMBER`` with the number and remembers which ones it has seen. `Load` keeps a number of
clients busy, one request after the other each; a client whose connection ends opens another. What can happen to a
request is counted apart: answered, refused (an error status), cut (a part of the answer came), unanswered (sent, and
the connection ended before a byte came), unsent (no connection to be had), wrong (somebody else's answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

ANSWERED, REFUSED, CUT, UNANSWERED, UNSENT, WRONG = (
    "answered", "refused", "cut", "unanswered", "unsent", "wrong",
)  # fmt: skip
TIMEOUT_S = 15.0
_BODY = b"number %d " + b"x" * 400
_PAUSE_S = 0.02


class Backend:
    """Answers numbers on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.port = 0
        self.transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Backend:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answering(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for transport in list(self.transports):
            transport.abort()
        await asyncio.sleep(0)


class _Answering(asyncio.Protocol):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._backend.transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            self._data = rest
            number = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
            self._backend.seen[number] += 1
            body = _BODY % number
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@dataclass
class Load:
    """`connections` clients that ask 127.0.0.1:`port`; `think_s` is the pause between two requests of one."""

    port: int
    connections: int
    think_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    answered_at: list[float] = field(default_factory=list)
    slowest_s: float = 0.0
    examples: list[str] = field(default_factory=list)
    answered_numbers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self.connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let every client finish the request that it has under way."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    @property
    def failed(self) -> int:
        """Requests that were not answered as they should be."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != ANSWERED)

    @property
    def availability(self) -> float:
        """The share of all requests that were answered."""
        return self.outcomes[ANSWERED] / max(1, self.outcomes.total())

    def rate(self, begin_s: float, end_s: float) -> float:
        """Answers a second between two moments of `time.monotonic`."""
        return sum(begin_s <= at < end_s for at in self.answered_at) / (end_s - begin_s)

    async def _client(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopped:
            number = next(self._numbers)
            begun_s = time.monotonic()
            if streams is not None and (streams[0].at_eof() or streams[0].exception() is not None):
                await _close(
                    streams[1]
                )  # a client sees that its kept connection was closed while it did not use it
                streams = None
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if streams is None:
                        streams = await asyncio.open_connection("127.0.0.1", self.port)
            except (OSError, TimeoutError) as error:
                self._count(UNSENT, number, repr(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            outcome, keeps = await self._ask(*streams, number)
            now_s = time.monotonic()
            self.slowest_s = max(self.slowest_s, now_s - begun_s)
            if outcome == ANSWERED:
                self.answered_at.append(now_s)
            if not keeps:
                await _close(streams[1])
                streams = None
            if self.think_s:
                await asyncio.sleep(self.think_s)
        if streams is not None:
            await _close(streams[1])

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> tuple[str, bool]:
        """Send one request, read its answer, count; tell the outcome and whether the connection can go on."""
        head = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(b"GET /open/n/%d HTTP/1.1\r\nHost: test\r\n\r\n" % number)
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.lower()
                length = int(fields.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError) as error:
            partial = head or (isinstance(error, asyncio.IncompleteReadError) and error.partial)
            return self._count(CUT if partial else UNANSWERED, number, repr(error)), False
        keeps = b"\r\nconnection: close\r\n" not in fields
        if not head.startswith(b"HTTP/1.1 200 "):
            return self._count(REFUSED, number, f"{head!r} {body!r}"), keeps
        if body != _BODY % number:
            return self._count(WRONG, number, repr(body)), False
        self.answered_numbers.add(number)
        return self._count(ANSWERED, number, ""), keeps

    def _count(self, outcome: str, number: int, what: str) -> str:
        self.outcomes[outcome] += 1
        if outcome != ANSWERED and len(self.examples) < 20:
            self.examples.append(f"{outcome} {number}: {what}")
        return outcome


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def gateway_file(backend_port: int) -> str:
    """Return a configuration whose PUBLIC route leads to the backend."""
    return f"""\
gateways:
  shop:
    hosts: ["*"]
    auth: {{type: API_KEY}}
    services:
      backend: {{target_url: "http://127.0.0.1:{backend_port}"}}
    routes:
      open: {{method: ANY, public_path: "/open/{{any*}}", target_path: "/{{any*}}", service: backend, security: PUBLIC}}
"""
