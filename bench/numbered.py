"""A load in which every answer is checked: each request has a number of its own, and its answer must carry that number.

`Backend` answers ``/n/NUMBER`` with the number and remembers which ones it has seen; as ``python -m bench.numbered
PORT LOG PAUSE_MS`` it is a process that can be killed. `Load` keeps a number of clients busy, one request after the
other each; a client whose connection ends opens another. What can happen to a request is counted apart: answered,
refused (an error status), cut (a part of the answer came), unanswered (sent, and the connection ended before a byte
came), unsent (no connection to be had), wrong (somebody else's answer).
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import os
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

ANSWERED, REFUSED, CUT, UNANSWERED, UNSENT, WRONG = (
    "answered", "refused", "cut", "unanswered", "unsent", "wrong",
)  # fmt: skip
TIMEOUT_S = 15.0
_BODY = b"number %d " + b"x" * 400
_PAUSE_S = 0.02
READY = "ready to listen"


def number_body(number: int) -> bytes:
    """Return the body that answers a number."""
    return _BODY % number


def open_request(number: int) -> bytes:
    """Write the request to the PUBLIC route of `gateway_file`."""
    return b"GET /open/n/%d HTTP/1.1\r\nHost: test\r\n\r\n" % number


class Backend:
    """Answers numbers on a free port of 127.0.0.1, after a pause if one is wanted. With `log`, it writes them there."""

    def __init__(self, pause_s: float = 0.0, log: int | None = None) -> None:
        self.pause_s = pause_s
        self._log = log
        self.seen: Counter[int] = Counter()
        self.port = 0
        self.transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Backend:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answering(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def listen_at(self, port: int) -> None:
        """Listen at a port that somebody else may hold too (SO_REUSEPORT)."""
        self.port = port
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Answering(self), "127.0.0.1", port, reuse_port=True, backlog=1_024
        )

    def note(self, number: int) -> None:
        """Remember that a request has come, before it is answered, so that it outlives a SIGKILL."""
        if self._log is None:
            self.seen[number] += 1
        else:
            os.write(self._log, b"%d\n" % number)

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
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own has another base
        self._backend.transports.add(self._transport)

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
            self._backend.note(number)
            body = number_body(number)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            if self._backend.pause_s:
                asyncio.get_running_loop().call_later(self._backend.pause_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def _serve(port: int, log: Path, pause_s: float) -> None:
    backend = Backend(pause_s, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    await backend.listen_at(port)
    await asyncio.Event().wait()


def hold_port() -> socket.socket:
    """Hold a free port of 127.0.0.1 without listening there: who connects is refused, and nobody else gets it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


@dataclass
class Load:
    """`connections` clients that ask 127.0.0.1:`port`; `think_s` is the pause between two requests of one.

    `request` writes the request of a number; with `renew_every`, a client opens a new connection after so many. Over
    TLS, `on_connect` is told when the connect began, and the certificate that was shown (DER).
    """

    port: int
    connections: int
    think_s: float = 0.0
    request: Callable[[int], bytes] = open_request
    first_number: int = 1
    renew_every: int = 0
    tls: ssl.SSLContext | None = None
    on_connect: Callable[[float, bytes], None] | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    answered_at: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    """How long each of them took, in the same order."""
    slowest_s: float = 0.0
    examples: list[str] = field(default_factory=list)
    answered_numbers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(self.first_number)
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

    def took_between(self, begin_s: float, end_s: float) -> list[float]:
        """Return how long the requests took that were answered between two moments of `time.monotonic`."""
        first, last = (bisect.bisect_left(self.answered_at, at) for at in (begin_s, end_s))
        return self.took_s[first:last]

    async def _client(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        asked = 0
        while not self._stopped:
            number = next(self._numbers)
            begun_s = time.monotonic()
            if streams is not None and (
                streams[0].at_eof()
                or streams[0].exception() is not None
                or (self.renew_every and asked >= self.renew_every)
            ):
                # A client sees that its kept connection was closed while it did not use it.
                await _close(streams[1])
                streams = None
            if streams is None:
                asked = 0
                try:
                    streams = await self._connect()
                except (OSError, TimeoutError) as error:
                    self._count(UNSENT, number, repr(error))
                    await asyncio.sleep(_PAUSE_S)
                    continue
            asked += 1
            outcome, keeps = await self._ask(*streams, number)
            now_s = time.monotonic()
            self.slowest_s = max(self.slowest_s, now_s - begun_s)
            if outcome == ANSWERED:
                self.answered_at.append(now_s)
                self.took_s.append(now_s - begun_s)
            if not keeps:
                await _close(streams[1])
                streams = None
            if self.think_s:
                await asyncio.sleep(self.think_s)
        if streams is not None:
            await _close(streams[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        begun_s = time.monotonic()
        name = "localhost" if self.tls is not None else None
        async with asyncio.timeout(TIMEOUT_S):
            streams = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls, server_hostname=name
            )
        if self.on_connect is not None:
            self.on_connect(begun_s, streams[1].get_extra_info("ssl_object").getpeercert(binary_form=True))
        return streams

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> tuple[str, bool]:
        """Send one request, read its answer, count; tell the outcome and whether the connection can go on."""
        head = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(self.request(number))
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
        if body != number_body(number):
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


def main() -> None:
    """Serve numbers until killed: listen when SIGUSR1 comes, so that a start takes no longer than it should."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    print(READY, flush=True)
    signal.sigwait({signal.SIGUSR1})
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) / 1e3))


if __name__ == "__main__":
    main()
