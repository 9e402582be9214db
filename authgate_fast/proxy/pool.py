"""Kept-alive connections to backends, one pool for each (scheme, host, port) and worker.

Taking an idle connection is synchronous; only a new one waits. Pools outlive snapshots: a change of
configuration closes no connection that the next request could use.
"""

from __future__ import annotations

import asyncio
import ssl
from errno import EMFILE, ENFILE
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.proxy.upstream import Upstream

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.snapshot import Target

_NO_FILES: Final = (EMFILE, ENFILE)
"""The process, or the system, has no file descriptor left: not the backend's fault."""


class Pool:
    """The connections to one endpoint. ``idle`` is a stack: the warmest is used first."""

    __slots__ = ("_context", "_host", "_port", "_ssl", "_tasks", "idle", "open")

    def __init__(self, context: Context, target: Target, tasks: set[asyncio.Task[None]]) -> None:
        self._context = context
        self._host = target.host
        self._port = target.port
        self._ssl: ssl.SSLContext | None = None
        if target.scheme == "https":
            self._ssl = ssl.create_default_context()
            self._ssl.minimum_version = ssl.TLSVersion.TLSv1_2
            self._ssl.set_alpn_protocols(["http/1.1"])
        self._tasks = tasks
        self.idle: list[Upstream] = []
        self.open = 0

    def take(self) -> Upstream | None:
        """Return an idle connection that is still good, or None.

        What the loop has not told yet, the kernel knows: a byte that no request asked for would be read as the
        answer to this one, and a request that goes into a closed connection may be one that cannot go twice.
        """
        idle = self.idle
        while idle:
            upstream = idle.pop()
            if upstream.closed or upstream.transport.is_closing():
                continue
            if upstream.idle_until_s <= self._context.now_s:
                upstream.abort()
                continue
            if not upstream.is_silent():
                upstream.abort()
                continue
            return upstream
        return None

    def release(self, upstream: Upstream) -> None:
        """Keep a connection whose exchange ended cleanly."""
        context = self._context
        limits = context.limits
        if len(self.idle) >= limits.max_idle_upstream or context.draining:
            upstream.abort()
            return
        keep_s = limits.pool_idle_timeout_s
        if upstream.keep_alive_s >= 0:
            # A second less than the backend says: its clock starts earlier than ours.
            keep_s = min(keep_s, upstream.keep_alive_s - 1)
        upstream.idle_until_s = context.now_s + keep_s
        self.idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """A connection is gone."""
        if upstream.counted:
            self.open -= 1
        if upstream in self.idle:
            self.idle.remove(upstream)

    def check_time(self) -> None:
        """Close what has been idle for too long."""
        now_s = self._context.now_s
        for upstream in [u for u in self.idle if u.idle_until_s <= now_s]:
            self.idle.remove(upstream)
            upstream.abort()

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for `exchange`, which hears of it by `attach` or `refuse`."""
        if self.open >= self._context.limits.max_upstream_connections:
            self._context.counters.hit("max_upstream_connections")
            exchange.refuse(Reason.OVERLOADED, "max_upstream_connections reached")
            return
        self.open += 1
        task = self._context.loop.create_task(self._connect(exchange), name="upstream-connect")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: Exchange) -> None:
        timeout_s = exchange.forward.route.settings.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                upstream: Upstream
                _, upstream = await self._context.loop.create_connection(  # type: ignore[type-var]  # by its methods
                    lambda: Upstream(self._context, self),
                    self._host,
                    self._port,
                    ssl=self._ssl,
                    server_hostname=self._host if self._ssl is not None else None,
                )
        except TimeoutError:
            self._context.counters.hit("connect_timeout_s")
            self._failed(exchange, Reason.UPSTREAM_TIMEOUT, f"no connection within {timeout_s:g} s")
        except (OSError, UnicodeError) as error:  # ssl.SSLError and socket.gaierror are OSErrors
            if isinstance(error, OSError) and error.errno in _NO_FILES:
                self._context.counters.hit("open_files")
                self._failed(exchange, Reason.OVERLOADED, f"{error}")
            else:
                self._failed(exchange, Reason.UPSTREAM_UNREACHABLE, f"{error}")
        except Exception as bug:  # of ours: it must not leave a client without an answer
            self._failed(exchange, Reason.INTERNAL_ERROR, f"{type(bug).__name__}: {bug}")
        except BaseException:
            self.open -= 1
            raise
        else:
            self._connected(exchange, upstream)

    def _connected(self, exchange: Exchange, upstream: Upstream) -> None:
        # Over TLS a server speaks first: its session tickets.
        if upstream.closed or (self._ssl is None and not upstream.is_silent()):
            upstream.abort()
            self._failed(exchange, Reason.UPSTREAM_UNREACHABLE, "it closed or spoke before any request")
            return
        upstream.counted = True  # from here on `forget` counts it off
        if exchange.finished:
            self.release(upstream)  # the client left meanwhile; the next one may use it
        else:
            self._attach(exchange, upstream)

    @staticmethod
    def _attach(exchange: Exchange, upstream: Upstream) -> None:
        try:
            exchange.attach(upstream, reused=False)
        except Exception as error:  # as above
            upstream.abort()
            exchange.refuse(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _failed(self, exchange: Exchange, reason: Reason, what: str) -> None:
        self.open -= 1
        if not exchange.finished:
            exchange.connect_failed(reason, f"{self._host}:{self._port}: {what}")


class Pools:
    """All pools of a worker."""

    __slots__ = ("_by_endpoint", "_context", "_last", "_last_target", "_tasks")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_endpoint: dict[tuple[str, str, int, bool], Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_target: Target | None = None
        self._last: Pool | None = None

    def get(self, target: Target) -> Pool:
        """Return the pool of a target's endpoint."""
        last = self._last
        if last is not None and target is self._last_target:
            return last
        endpoint = target.endpoint
        pool = self._by_endpoint.get(endpoint)
        if pool is None:
            pool = self._by_endpoint[endpoint] = Pool(self._context, target, self._tasks)
        self._last_target = target
        self._last = pool
        return pool

    def check_time(self) -> None:
        """Sweep all pools; one that has nothing left goes."""
        for endpoint, pool in list(self._by_endpoint.items()):
            pool.check_time()
            if not pool.open:
                del self._by_endpoint[endpoint]
                self._last = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Return open and idle connections by endpoint, for /status."""
        return {
            f"{scheme}://{host}:{port}": {"open": pool.open, "idle": len(pool.idle)}
            for (scheme, host, port, _), pool in self._by_endpoint.items()
        }

    async def close(self) -> None:
        """Close every connection and wait for connects under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in self._by_endpoint.values():
            for upstream in list(pool.idle):
                upstream.abort()
