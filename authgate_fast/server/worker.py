"""One worker: the place where configuration, listeners and the request path are put together.

It starts the coarse clock, the listeners and the source of documents, serves until it is told to
stop, and then drains: no new connections, every request in flight finished, idle connections closed. Under a
supervisor the listening sockets come and go (`accept_from`, `leave`); alone it opens its own (`listen`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from authgate_fast import __version__, is_compiled
from authgate_fast.http.trace_context import Tracing
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.resolver import Resolver
from authgate_fast.observe.access_log import AccessLog
from authgate_fast.observe.answer_metrics import access_log_metrics, answer_metrics
from authgate_fast.observe.auth_metrics import auth_metrics
from authgate_fast.observe.source_metrics import certificate_metrics, source_metrics
from authgate_fast.observe.spans import Spans, span_metrics
from authgate_fast.observe.worker_metrics import worker_metrics
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.farewell import Farewell
from authgate_fast.proxy.pool import Pools
from authgate_fast.proxy.timeouts import Ticker
from authgate_fast.server.accepting import Acceptor
from authgate_fast.server.certificates import CertificateError
from authgate_fast.server.descriptors import fit_open_files
from authgate_fast.server.entrance import Entrance, ProxySources
from authgate_fast.server.listening import Address, ListenError, address_of, open_all
from authgate_fast.server.ops import OpsServer
from authgate_fast.server.options import WorkerOptions
from authgate_fast.server.report import FailureLog
from authgate_fast.server.tls import ServerTls
from authgate_fast.server.trace_options import BEGIN, OFF, PASS, TraceOptions

if TYPE_CHECKING:
    import socket

    from authgate_fast.config.store import Configuration
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.observe.exposition import Family
    from authgate_fast.snapshot import Snapshot

__all__ = ["Address", "ListenError", "Source", "Worker", "WorkerOptions"]

_log = logging.getLogger("authgate")

DRAIN_IDLE_S = 0.5
"""How long a kept-alive client connection stays open in a drain, for a request that is already on its way."""
_POLL_S = 0.02
CERTIFICATES_WAIT_S = 3.0
"""How long a worker that starts waits for certificates that cannot be used: somebody may be writing them."""


class Source(Protocol):
    """Where documents come from: feeds a `Configuration` until cancelled."""

    async def run(self) -> None: ...

    def status(self) -> dict[str, object]: ...


class Worker:
    """Serves one `Configuration` in the running event loop, between `start` and `drain`.

    `store` holds the runtime state (sessions, refresh tokens, signing keys); None: in memory, until the end of
    this process. `sealing_key` encrypts signing keys there.
    """

    def __init__(
        self,
        configuration: Configuration,
        source: Source | None,
        options: WorkerOptions,
        store: StateStore | None = None,
        sealing_key: bytes | None = None,
    ) -> None:
        self._configuration = configuration
        self._source = source
        self._options = options
        self._context = context = Context(asyncio.get_running_loop(), fit_open_files(options.limits))
        context.pools = Pools(context)
        context.resolver = self._resolver = Resolver(MemoryStore() if store is None else store, sealing_key)
        context.report = FailureLog(context)
        context.groups.listener = _log_target
        context.snapshot = configuration.snapshot
        configuration.on_swap.append(self._swap)
        self._ticker = Ticker(context)
        self._ops = OpsServer(self.status, self.is_ready, self.metrics)
        self._tls = None if options.tls is None else ServerTls(options.tls)
        self._entrance = Entrance(
            context,
            self._tls,
            ProxySources.of(options.proxy_sources),
            frozenset(one.port for one in options.listen if isinstance(one, Address) and one.plain),
        )
        # A protocol by its methods only.
        self._acceptor = Acceptor(lambda: Downstream(context), self._entrance)  # type: ignore[arg-type, return-value]
        self._access_log: AccessLog | None = None
        self._spans: Spans | None = None
        self._tls_task: asyncio.Task[None] | None = None
        self._port = 0
        self._source_task: asyncio.Task[None] | None = None
        self._resolver_task: asyncio.Task[None] | None = None
        self._started_s = time.time()
        self._changed_at = 0.0
        self._frozen = False
        self._swap(configuration.snapshot)

    @property
    def port(self) -> int:
        """The port that clients reach, once started."""
        return self._port

    @property
    def ops_port(self) -> int:
        """The port of the ops listener, once started."""
        return self._ops.port

    def is_ready(self) -> bool:
        """Tell whether traffic should be sent here."""
        return self._context.snapshot.ready and not self._context.draining

    def _swap(self, snapshot: Snapshot) -> None:
        self._context.snapshot = snapshot
        self._context.groups.sync(snapshot)
        if snapshot.ready:
            self._changed_at = time.time()
        if snapshot.ready and not self._frozen:
            # The first configuration lives for long: the collector need not walk it again and again.
            self._frozen = True
            gc.collect()
            gc.freeze()

    async def start(self) -> None:
        """Start everything but the accepting of connections.

        Raises ListenError, CertificateError and AccessLogError.
        """
        loop = asyncio.get_running_loop()
        if self._options.access_log is not None:
            self._access_log = AccessLog(self._options.access_log, self._options.access_log_format, loop)
            self._context.recorder.log_to(self._access_log.take)
        self._start_traces(self._options.traces)
        if self._tls is not None:
            await _load(self._tls)
        self._ticker.start()
        try:
            await self._ops.listen(self._options.ops)
        except ListenError:
            self._ticker.stop()
            raise
        if self._tls is not None:
            self._tls_task = loop.create_task(self._tls.run(), name="certificates")
            self._tls_task.add_done_callback(self._task_ended)
        if self._source is not None:
            self._source_task = loop.create_task(self._source.run(), name="source")
            self._source_task.add_done_callback(self._task_ended)
        self._resolver_task = loop.create_task(self._resolver.run(), name="resolver")
        self._resolver_task.add_done_callback(self._task_ended)

    def _start_traces(self, options: TraceOptions) -> None:
        context = self._context
        if options.endpoint:
            context.recorder.spans = self._spans = Spans(options.endpoint, context.id_prefix.decode("ascii"))
        elif options.mode == PASS:
            return  # no work for requests without a trace
        context.tracing = Tracing(
            random.Random().getrandbits,
            passes=options.mode != OFF,
            begins=options.mode == BEGIN,
            records=self._spans is not None,
            ratio=options.ratio,
        )

    async def listen(self) -> None:
        """Open the address of the options and accept from it. Raises ListenError."""
        slots, _ = open_all(self._options.listen, 1)
        await self.accept_from(0, slots[0])

    async def accept_from(self, slot: int, sockets: Sequence[socket.socket]) -> None:
        """Accept from the sockets of a slot, its own or another's."""
        for address in map(address_of, sockets):
            if isinstance(address, Address):
                self._port = self._port or address.port
        await self._acceptor.add(slot, sockets)

    async def leave(self, slot: int) -> None:
        """Accept no more from a slot, which has a worker again; what was accepted stays."""
        await self._acceptor.remove(slot, is_last=False)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical(
                "the %s stopped; serving the last good state", task.get_name(), exc_info=task.exception()
            )

    async def drain(self, *, is_last: bool = True, idle_s: float = DRAIN_IDLE_S) -> None:
        """Stop accepting, finish what is in flight within the drain timeout, close everything.

        `is_last`: nobody else holds the listening sockets, so what waits in their queues is served too. `idle_s`:
        how long a kept-alive connection may stay without a request.
        """
        context = self._context
        context.draining = True
        await self._acceptor.remove_all(is_last=is_last)
        begun_s = context.loop.time()
        deadline_s = begun_s + self._options.drain_timeout_s
        farewell = Farewell(context, begun_s, self._options.drain_timeout_s / 2)
        entrance = self._entrance
        while (
            context.connections or context.tunnels or entrance.pending
        ) and context.loop.time() < deadline_s:
            farewell.go_on(context.loop.time())
            await asyncio.sleep(_POLL_S)
            if context.loop.time() - begun_s >= idle_s:
                await asyncio.sleep(0)
                await asyncio.sleep(0)  # what has arrived meanwhile is read first, and is served
                entrance.close_idle()
                for connection in list(context.connections):
                    connection.close_idle()
        if context.connections:
            _log.warning("drain timeout: %d connections are cut", len(context.connections))
            for connection in list(context.connections):
                connection.abort()
        for tunnel in list(context.tunnels):
            tunnel.abort()
        await entrance.close()
        for task in (self._source_task, self._resolver_task, self._tls_task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        await self._resolver.close()
        await context.groups.checks.close()
        await context.pools.close()
        await self._ops.close()
        self._ticker.stop()
        if self._access_log is not None:
            self._access_log.close()
        if self._spans is not None:
            self._spans.close()

    async def serve_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once."""
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        await told.wait()
        told.clear()
        _log.info("draining: finishing %d connections", len(self._context.connections))
        draining = asyncio.ensure_future(self.drain())
        again = asyncio.ensure_future(told.wait())
        await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if not draining.done():
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining
        else:
            draining.result()

    def status(self) -> dict[str, object]:
        """What /status shows."""
        context = self._context
        configuration = self._configuration
        counters = context.counters
        gateways = context.snapshot.gateways
        return {
            "version": __version__,
            "compiled": is_compiled(),
            "ready": self.is_ready(),
            "draining": context.draining,
            "uptime_s": round(time.time() - self._started_s, 1),
            "snapshot_revision": context.snapshot.revision,
            "revision": configuration.revision,
            "documents": len(configuration.documents),
            "gateways": {name: {"hosts": list(gateway.hosts)} for name, gateway in gateways.items()},
            "source": self._source.status() if self._source is not None else {"type": "fixed"},
            "state": self._resolver.store.status(),
            "refused_documents": {name: str(problem) for name, problem in configuration.refused.items()},
            "tasks": len(asyncio.all_tasks()),
            "connections": len(context.connections),
            "connections_total": counters.connections,
            "requests_total": counters.requests,
            "refused_total": dict(counters.refused),
            "limit_hits_total": dict(counters.limit_hits),
            "tunnels": len(context.tunnels),
            "tunnels_total": counters.tunnels,
            "tunnel_bytes_total": counters.tunnel_bytes,
            "retries_total": counters.retries,
            "upstream_failures_total": counters.upstream_failures,
            "upstreams": context.pools.counts(),
            **self._entrance.status(),
            **({} if self._tls is None else {"tls": self._tls.status()}),
            "balanced_services": context.groups.status(),
            "names": context.pools.names.status(),
        }

    def metrics(self) -> list[Family]:
        """What /metrics shows."""
        families = worker_metrics(
            self._context,
            self._ticker,
            ready=self.is_ready(),
            refused_documents=len(self._configuration.refused),
        )
        families += source_metrics(
            self._source.status() if self._source is not None else {},
            self._resolver.store.status(),
            changed_at=self._changed_at,
            uptime_s=time.time() - self._started_s,
        )
        if self._tls is not None:
            families.append(certificate_metrics(self._tls.expiries()))
        families += answer_metrics(self._context.recorder)
        families += auth_metrics(self._context.snapshot.gateways)
        if self._access_log is not None:
            families += access_log_metrics(self._access_log)
        if self._spans is not None:
            families += span_metrics(self._spans)
        return families

    def reopen_logs(self) -> None:
        """SIGUSR1: a log file that was moved away is opened anew."""
        if self._access_log is not None:
            self._access_log.reopen()


async def _load(tls: ServerTls) -> None:
    """Load the certificates, which were good when the node started. Raises CertificateError."""
    deadline_s = time.monotonic() + CERTIFICATES_WAIT_S
    while True:
        try:
            tls.load(is_strict=False)
        except CertificateError:
            if time.monotonic() >= deadline_s:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def _log_target(text: str, is_bad: bool) -> None:
    """A target's state has changed."""
    _log.log(logging.WARNING if is_bad else logging.INFO, "%s", text)
