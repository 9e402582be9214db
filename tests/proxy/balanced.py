"""A gateway in front of several backends that can go away and come back on their ports."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.snapshot import Balancing, HealthCheck, Service, Snapshot, Target
from tests.proxy.harness import Stack, gateway, make_snapshot
from tests.proxy.scripted import Answer, Recorder, Respond, exchange, ok, request, reset


class Backend(Recorder):
    """A recorder with a port of its own, kept through `stop` and `start`."""

    def __init__(self, respond: Respond = ok, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(respond)
        self.host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self.handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def stop(self) -> None:
        """Go away as a killed process does: no listener, and every connection reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            reset(writer)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def targets(backends: list[Backend], weights: list[int] | None = None) -> tuple[Target, ...]:
    return tuple(
        Target("http", "127.0.0.1", b.port, b"/b%d" % at, b"Host: b%d\r\n" % at, weight)
        for at, (b, weight) in enumerate(zip(backends, weights or [1] * len(backends), strict=True))
    )


@dataclass
class World:
    """``told`` is what the operator was told of targets."""

    stack: Stack
    backends: list[Backend]
    limits: Limits
    told: list[str]

    def snapshot(
        self,
        *,
        only: list[int] | None = None,
        weights: list[int] | None = None,
        check: HealthCheck | None = None,
        upgrades: frozenset[bytes] = frozenset(),
        **settings: object,
    ) -> Snapshot:
        """Make a snapshot whose service has all backends, or those of the given numbers."""
        service = Service(
            "svc",
            tuple(t for at, t in enumerate(targets(self.backends, weights)) if only is None or at in only),
            balancing=Balancing(**settings),  # type: ignore[arg-type]
            health_check=check,
        )
        return make_snapshot(0, self.limits, service=service, upgrades=upgrades)

    def use(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force, as a worker does."""
        self.stack.context.snapshot = snapshot
        self.stack.context.groups.sync(snapshot)

    async def ask(
        self, *lines: bytes, method: bytes = b"GET", path: bytes = b"/p/a", body: bytes = b""
    ) -> Answer:
        """Send one request on a connection of its own."""
        reader, writer = await self.stack.connect()
        try:
            return await exchange(reader, writer, request(method, path, *lines, body=body), method)
        finally:
            writer.close()

    async def spread(self, count: int, *lines: bytes) -> Counter[int]:
        """Send requests one after the other; return how many each backend answered."""
        seen: Counter[int] = Counter()
        for _ in range(count):
            answer = await self.ask(*lines)
            assert answer.status == 200, answer
            seen[int(answer.body.removeprefix(b"/b").partition(b"/")[0])] += 1
        return seen

    def target(self, at: int) -> dict[str, object]:
        """Return what /status shows of one target."""
        (group,) = self.stack.context.groups.status().values()
        found: dict[str, object] = group["targets"][f"http://127.0.0.1:{self.backends[at].port}/b{at}"]  # type: ignore[index]
        (state,) = found["states"]  # type: ignore[misc]
        return {**found, "state": state}

    def group(self) -> dict[str, object]:
        (group,) = self.stack.context.groups.status().values()
        assert isinstance(group, dict)
        return group


@asynccontextmanager
async def balanced(
    count: int = 3,
    *,
    respond: Respond = ok,
    limits: Limits = DEFAULTS,
    weights: list[int] | None = None,
    check: HealthCheck | None = None,
    upgrades: frozenset[bytes] = frozenset(),
    **settings: object,
) -> AsyncIterator[World]:
    """Run a gateway in front of `count` backends; the first answers ``/b0/...`` and so on, by its base path."""
    async with AsyncExitStack() as everything:
        backends = [Backend(respond) for _ in range(count)]
        for each in backends:
            await each.start()
            everything.push_async_callback(each.stop)
        stack = await everything.enter_async_context(gateway(Snapshot(), limits))
        world = World(stack, backends, limits, [])
        stack.context.groups.listener = lambda text, is_bad: world.told.append(text)
        world.use(world.snapshot(weights=weights, check=check, upgrades=upgrades, **settings))
        yield world
