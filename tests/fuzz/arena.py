"""The gateway under test between raw client sockets and a backend that keeps every byte.

Each run of a case has a client address of its own (127.x.y.z), and the gateway's X-Forwarded-For says at the backend
whose request it is: so many cases can be under way at once, and share backend connections as strangers do.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from authgate_fast.config.file import load_file
from authgate_fast.config.store import Configuration
from authgate_fast.decision import Forward
from authgate_fast.http.request import RequestHead
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.resolver import Resolver
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.exchange import Exchange
from tests.fuzz import world
from tests.fuzz.backend import Backend, Script, Seen
from tests.proxy.harness import gateway
from tests.running import running

BOUND_S = 20.0
SLOTS = 16
"""Client connections at once."""


class Client(Protocol):
    """Talks to the gateway from an address of its own; `start`s, and calls `done` of the arena once."""

    seen: Seen

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Arena:
    """`faults` is what nobody's case can be blamed for at once; `reports` what the gateway said of itself."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = port
        self.loop = loop
        self.bound_s = BOUND_S
        self.lies = 0
        self.serial = 10_000_000  # of eight digits for ever: the judge masks them
        self.faults: list[str] = []
        self._by_address: dict[bytes, Seen] = {}
        self._before: dict[bytes, Seen] = {}
        self.backends: set[Backend] = set()
        self.scripts: dict[bytes, Script] = {}
        self.reports: list[str] = []
        self.settled: Callable[[], bool] = lambda: True
        self.objects: Callable[[], int] = lambda: 0
        self._left = 0
        self._queue: list[Client] = []
        self._done: asyncio.Future[None] | None = None
        self._addresses = itertools.count()

    def take_faults(self) -> list[str]:
        """Return what nobody's case was blamed for, and what the gateway said of its own mistakes."""
        found = [
            f"internal: {line}"
            for line in self.reports
            if re.search("internal_error|Traceback|ERROR|CRITICAL", line)
        ]
        found += self.faults
        self.reports.clear()
        self.faults.clear()
        return found

    def whose(self, address: bytes) -> Seen | None:
        """Return the run that has this address, of this batch or, for a connection that was slow to end, the one before."""
        return self._by_address.get(address) or self._before.get(address)

    def forget(self) -> None:
        """A batch has been judged."""
        self._before, self._by_address = self._by_address, {}
        self.scripts.clear()

    def address(self) -> str:
        """Return the next client address."""
        number = next(self._addresses) % 16_000_000
        return f"127.{1 + number // 62_500 % 250}.{1 + number // 250 % 250}.{1 + number % 250}"

    async def run(self, clients: list[Client], slots: int = SLOTS) -> None:
        """Run `clients`, `slots` of them at once, and wait until nothing of them is left."""
        self._queue = clients[::-1]
        self._left = len(clients)
        self._done = self.loop.create_future()
        for _ in range(min(slots, len(clients))):
            self._queue.pop().start()
        try:
            await asyncio.wait_for(self._done, self.bound_s)
        except TimeoutError:
            for client in clients:
                client.stop()
        await self._settle()

    def done(self, client: Client) -> None:
        """A client is through; the next one may begin."""
        self._left -= 1
        if self._queue:
            self.loop.call_soon(self._queue.pop().start)
        elif self._left == 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def _settle(self) -> None:
        deadline_s = self.loop.time() + self.bound_s / 4
        while not self.settled() or any(backend.buffer for backend in self.backends):
            if self.loop.time() > deadline_s:
                self.faults.append("connections are left although all clients have gone")
                for backend in list(self.backends):
                    backend.transport.abort()
                return
            await asyncio.sleep(0)

    def connect(self, seen: Seen) -> socket.socket:
        """Open a connection to the gateway for the run that `seen` is about."""
        address = self.address()
        self._by_address[address.encode()] = seen
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.bind((address, 0))
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        return client


class StreamClient:
    """Sends a stream in pieces, each in a turn of the loop of its own, says that this was all, and reads to the end."""

    __slots__ = ("arena", "at", "pieces", "seen", "sock")

    def __init__(self, arena: Arena, data: bytes, cuts: list[int]) -> None:
        self.arena = arena
        self.pieces = cut(data, cuts)
        self.at = 0
        self.seen = Seen()
        self.sock: socket.socket | None = None

    def start(self) -> None:
        self.sock = self.arena.connect(self.seen)
        self._send()

    def _send(self) -> None:
        sock = self.sock
        if sock is None:
            return
        try:
            if self.at < len(self.pieces):
                sent = sock.send(self.pieces[self.at])
                self.pieces[self.at] = self.pieces[self.at][sent:]
                if not self.pieces[self.at]:
                    self.at += 1
            if self.at == len(self.pieces):
                sock.shutdown(socket.SHUT_WR)
                self.arena.loop.add_reader(sock, self._read)
                return
        except BlockingIOError:
            pass
        except OSError:  # the gateway has closed; its answer may still be there
            self.arena.loop.add_reader(sock, self._read)
            return
        self.arena.loop.call_soon(self._send)

    def _read(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            self.seen.was_reset = True
            data = b""
        if data:
            self.seen.raw += data
        else:
            self._end()

    def _end(self) -> None:
        assert self.sock is not None
        self.arena.loop.remove_reader(self.sock)
        self.sock.close()
        self.sock = None
        self.arena.done(self)

    def stop(self) -> None:
        if self.sock is not None:
            self.seen.hung = True
            self._end()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at `cuts`, which grow."""
    if not data:
        return []
    return [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]


@asynccontextmanager
async def backends(arena: Arena) -> AsyncIterator[dict[str, int]]:
    """Serve all services of the world; yield their ports."""
    async with AsyncExitStack() as stack:
        ports = {}
        for service in world.BASES:
            server = await arena.loop.create_server(
                lambda s=service: Backend(arena, s), "127.0.0.1", 0, backlog=1_024
            )  # type: ignore[misc]
            stack.callback(server.close)
            ports[service] = server.sockets[0].getsockname()[1]
        yield ports
        for backend in list(arena.backends):
            backend.transport.abort()


def _write_config(directory: str, ports: dict[str, int]) -> Path:
    path = Path(directory, "world.yaml")
    path.write_text(world.config_text(ports))
    return path


@asynccontextmanager
async def here() -> AsyncIterator[Arena]:
    """Run the request path in this process, from the same configuration as the command would read."""
    loop = asyncio.get_running_loop()
    arena = Arena(0, loop)
    async with backends(arena) as ports:
        with tempfile.TemporaryDirectory() as directory:
            path = _write_config(directory, ports)
            configuration = Configuration(world.LIMITS)
            configuration.replace_all(load_file(path).documents)
        assert not configuration.refused, configuration.refused
        async with gateway(configuration.snapshot, world.LIMITS) as stack:
            context = stack.context

            def settled() -> bool:
                counts = context.pools.counts().values()
                return not context.connections and all(c["open"] == c["idle"] for c in counts)

            def objects() -> int:
                return sum(
                    isinstance(thing, (Downstream, Exchange, RequestHead, Forward))
                    for thing in gc.get_objects()
                )

            def on_exception(_: object, about: dict[str, object]) -> None:
                arena.faults.append(f"internal: {about.get('message')} {about.get('exception')!r}")

            context.report = lambda reason, forward, request_id, what: arena.reports.append(
                f"{reason.value}: {what}"
            )
            resolver = Resolver(MemoryStore())
            context.resolver = resolver
            resolving = loop.create_task(resolver.run(), name="resolver")
            loop.set_exception_handler(on_exception)
            arena.port, arena.settled, arena.objects = stack.port, settled, objects
            try:
                yield arena
            finally:
                resolving.cancel()
                await asyncio.gather(resolving, return_exceptions=True)
                await resolver.close()


@asynccontextmanager
async def apart() -> AsyncIterator[Arena]:
    """Run the real command as a process of its own."""
    arena = Arena(0, asyncio.get_running_loop())
    async with backends(arena) as ports:
        with tempfile.TemporaryDirectory() as directory:
            path = _write_config(directory, ports)
            with running("--config", str(path), "--ops", "127.0.0.1:0", *world.limit_options()) as process:
                arena.port = process.port
                arena.reports = process.lines
                yield arena
                if process.process.poll() is not None:
                    arena.faults.append(f"the gateway's process has ended: {process.log[-2_000:]}")
