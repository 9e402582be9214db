"""Kept-alive connections to backends, one pool for each (scheme, host, port, TLS settings) and worker.

Taking an idle connection is synchronous; only a new one waits. Pools outlive snapshots: a change of
configuration closes no connection that the next request could use. A backend that refuses connections may be
restarting: for a short while, who has nowhere else to go waits, and one connect at a time asks for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from errno import EMFILE, ENFILE
from typing import TYPE_CHECKING, Final, TypeVar

from authgate_fast.errors import TABLE, Blame, Reason
from authgate_fast.proxy.names import Names, race
from authgate_fast.proxy.tls_contexts import TlsContexts
from authgate_fast.proxy.upstream import Upstream
from authgate_fast.snapshot import DEFAULT_TLS, place_of
from authgate_fast.upstream_tls import remember_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.snapshot import Target, UpstreamTls

_NO_FILES: Final = (EMFILE, ENFILE)
"""The process, or the system, has no file descriptor left: not the backend's fault."""


FIRST_PAUSE_S: Final = 0.025
LONGEST_PAUSE_S: Final = 0.2
"""Between two connects to a backend that refuses them."""
OUTAGE_OVER_S: Final = 30.0
"""A connect that fails this long after the last one that did begins another outage: kept connections did the work."""
KEPT_EMPTY_S: Final = 60.0
"""How long a pool without connections remembers that its backend is down."""


Dialled = TypeVar("Dialled")


class Pool:
    """The connections to one endpoint. ``idle`` is a stack: the warmest is used first.

    ``down_since_s`` is when the first connect failed after the last that did not, 0 while all is well. ``serial``
    counts changes of the name's addresses, ``addresses`` are those in force since the first change.
    """

    __slots__ = (
        "_allow_link_local",
        "_context",
        "_contexts",
        "_failed_s",
        "_host",
        "_names",
        "_parked",
        "_pause_s",
        "_port",
        "_probe",
        "_tasks",
        "_tls",
        "_used_s",
        "addresses",
        "down_since_s",
        "idle",
        "open",
        "serial",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        target: Target,
        tasks: set[asyncio.Task[None]],
        names: Names,
        contexts: TlsContexts,
    ) -> None:
        self._context = context
        self._host = target.host
        self._port = target.port
        self._allow_link_local = target.allow_link_local
        self._names = names
        self._tls = (target.tls or DEFAULT_TLS) if target.scheme == "https" else None
        self._contexts = contexts
        self._tasks = tasks
        self._parked: deque[Exchange] = deque()
        self._probe: asyncio.TimerHandle | None = None
        self._pause_s = FIRST_PAUSE_S
        self._used_s = 0.0
        self._failed_s = 0.0
        self.down_since_s = 0.0
        self.serial = 0
        self.addresses: frozenset[str] = frozenset()
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
        if upstream.serial != self.serial:
            if upstream.address not in self.addresses:
                upstream.abort()  # the name no longer leads there
                return
            upstream.serial = self.serial
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
        """Close what has been idle for too long; remember a TLS session, whose ticket came after the handshake."""
        now_s = self._context.now_s
        if self._tls is not None and self.idle:
            remember_session(self.idle[-1].transport.get_extra_info("ssl_object"))
        for upstream in [u for u in self.idle if u.idle_until_s <= now_s]:
            self.idle.remove(upstream)
            upstream.abort()

    def readdress(self, addresses: tuple[str, ...]) -> None:
        """The name leads elsewhere now: connections to an address that is gone serve their request and no other."""
        self.serial += 1
        self.addresses = frozenset(addresses)
        for upstream in [u for u in self.idle if u.address not in self.addresses]:
            self.idle.remove(upstream)
            upstream.abort()

    # --- new connections --------------------------------------------------------------------------

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for `exchange`, which hears of it by `attach` or `connect_failed`."""
        if self._parked and self._may_park():
            self._parked.append(exchange)
            return
        if self.open >= self._context.limits.max_upstream_connections:
            self._context.counters.hit("max_upstream_connections")
            exchange.connect_failed(Reason.OVERLOADED, "max_upstream_connections reached", None)
            return
        self.open += 1
        task = self._context.loop.create_task(self._connect(exchange), name="upstream-connect")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: Exchange) -> None:
        timeout_s = exchange.forward.route.settings.connect_timeout_s
        self._used_s = self._context.loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                upstream: Upstream = await self.dial(self._new_upstream, _abort)
        except TimeoutError:
            self._context.counters.hit("connect_timeout_s")
            self._failed(exchange, Reason.UPSTREAM_TIMEOUT, f"no connection within {timeout_s:g} s")
        except (OSError, UnicodeError) as error:  # ssl.SSLError and socket.gaierror are OSErrors
            if isinstance(error, OSError) and error.errno in _NO_FILES:
                self._context.counters.hit("open_files")
                self._failed(exchange, Reason.OVERLOADED, f"{error}")
            else:
                # What a restart looks like; the last is a Unix socket's.
                passing = isinstance(error, ConnectionRefusedError | ConnectionResetError | FileNotFoundError)
                self._failed(exchange, Reason.UPSTREAM_UNREACHABLE, f"{error}", passing=passing)
        except Exception as bug:  # of ours: it must not leave a client without an answer
            self._failed(exchange, Reason.INTERNAL_ERROR, f"{type(bug).__name__}: {bug}")
        except BaseException:
            self.open -= 1
            raise
        else:
            self._connected(exchange, upstream)

    def _connected(self, exchange: Exchange, upstream: Upstream) -> None:
        # Over TLS a server speaks first: its session tickets.
        if upstream.closed or (self._tls is None and not upstream.is_silent()):
            dying = upstream.closed  # what waited in the queue of a listener that is gone
            upstream.abort()
            what = "it closed or spoke before any request"
            self._failed(exchange, Reason.UPSTREAM_UNREACHABLE, what, passing=dying)
            return
        upstream.counted = True  # from here on `forget` counts it off
        if self.down_since_s:
            self._back_up()
        if exchange.finished:
            self.release(upstream)  # the client left meanwhile; the next one may use it
        else:
            self._attach(exchange, upstream, reused=False)

    async def dial(self, make: Callable[[], Dialled], give_up: Callable[[Dialled], None]) -> Dialled:
        """Open a connection to one of the name's addresses; raises OSError. `give_up` gets one that came too late."""

        if self._host.startswith("/"):
            return await self._dial_unix(make)
        tls = None if self._tls is None else await self._contexts.get(self._tls)
        name = None if self._tls is None else self._tls.server_name or self._host

        async def open_one(address: str) -> Dialled:
            protocol: Dialled
            _, protocol = await self._context.loop.create_connection(  # type: ignore[type-var]  # by its methods
                make,
                address,
                self._port,
                ssl=tls,
                server_hostname=name,
            )
            return protocol

        addresses = await self._names.addresses(self._host, allow_link_local=self._allow_link_local)
        return await race(addresses, open_one, give_up)

    async def _dial_unix(self, make: Callable[[], Dialled]) -> Dialled:
        protocol: Dialled
        _, protocol = await self._context.loop.create_unix_connection(  # type: ignore[type-var]  # by its methods
            make, self._host
        )
        return protocol

    def _new_upstream(self) -> Upstream:
        return Upstream(self._context, self)

    @staticmethod
    def _attach(exchange: Exchange, upstream: Upstream, *, reused: bool) -> None:
        try:
            exchange.attach(upstream, reused=reused)
        except Exception as error:  # as above
            upstream.abort()
            exchange.refuse(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")

    def _failed(self, exchange: Exchange, reason: Reason, what: str, *, passing: bool = False) -> None:
        """A connect failed; `passing`: in a way that a restart of the backend does, too."""
        self.open -= 1
        now_s = self._context.loop.time()
        if TABLE[reason].blame is Blame.UPSTREAM:
            if not self.down_since_s or now_s - self._failed_s > OUTAGE_OVER_S:
                self.down_since_s = now_s
                self._pause_s = FIRST_PAUSE_S
            self._failed_s = now_s
        what = f"{place_of(self._host, self._port)}: {what}"
        if not exchange.finished:
            exchange.connect_failed(reason, what, self if passing else None)
        if self._parked and (self._probe is None or not self._may_park()):
            if passing and self._may_park():
                self._probe_later()
            else:
                self._give_up(reason, what)

    # --- a backend that refuses connections -------------------------------------------------------

    def park(self, exchange: Exchange) -> bool:
        """Let `exchange` wait for a backend that may be back in a moment; return False if it has had its moment."""
        if not self._may_park():
            return False
        self._parked.append(exchange)
        if self._probe is None:
            self._probe_later()
        return True

    def _may_park(self) -> bool:
        down_s = self._context.loop.time() - self.down_since_s
        return down_s < self._context.limits.connect_retry_s

    def _probe_later(self) -> None:
        self._probe = self._context.loop.call_later(self._pause_s, self._probe_now)
        self._pause_s = min(self._pause_s * 2.0, LONGEST_PAUSE_S)

    def _probe_now(self) -> None:
        """Connect for who has waited longest; the outcome decides for the others."""
        self._probe = None
        parked = self._parked
        while parked:
            exchange = parked.popleft()
            if not exchange.finished:
                self.open += 1
                task = self._context.loop.create_task(self._connect(exchange), name="upstream-connect")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return

    def _back_up(self) -> None:
        self.down_since_s = 0.0
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        parked = self._parked
        self._parked = deque()
        for exchange in parked:
            if not exchange.finished:
                self.serve(exchange)

    def _give_up(self, reason: Reason, what: str) -> None:
        parked = self._parked
        self._parked = deque()
        for exchange in parked:
            if not exchange.finished:
                exchange.connect_failed(reason, what, None)

    def serve(self, exchange: Exchange) -> None:
        """Give `exchange` a connection, an idle one if there is one."""
        upstream = self.take()
        if upstream is not None:
            self._attach(exchange, upstream, reused=True)
        else:
            self.connect(exchange)

    def is_needless(self, now_s: float) -> bool:
        """Tell whether nothing is lost with this pool."""
        return not self.open and not self._parked and now_s - self._used_s > KEPT_EMPTY_S

    def close(self) -> None:
        """Close what is idle."""
        if self._probe is not None:
            self._probe.cancel()
        for upstream in list(self.idle):
            upstream.abort()


def _abort(upstream: Upstream) -> None:
    upstream.abort()


class Pools:
    """All pools of a worker, and the names that they connect to."""

    __slots__ = ("_by_endpoint", "_context", "_contexts", "_last", "_last_target", "_tasks", "names")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_endpoint: dict[tuple[str, str, int, bool, UpstreamTls | None], Pool] = {}
        self._contexts = TlsContexts(context)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_target: Target | None = None
        self._last: Pool | None = None
        self.names = Names(context, self._readdress)

    def get(self, target: Target) -> Pool:
        """Return the pool of a target's endpoint."""
        last = self._last
        if last is not None and target is self._last_target:
            return last
        endpoint = target.endpoint
        pool = self._by_endpoint.get(endpoint)
        if pool is None:
            pool = Pool(self._context, target, self._tasks, self.names, self._contexts)
            self._by_endpoint[endpoint] = pool
        self._last_target = target
        self._last = pool
        return pool

    def _readdress(self, host: str, addresses: tuple[str, ...]) -> None:
        for endpoint, pool in self._by_endpoint.items():
            if endpoint[1] == host:
                pool.readdress(addresses)

    def check_time(self) -> None:
        """Sweep all pools; one that has nothing left goes."""
        now_s = self._context.now_s
        for endpoint, pool in list(self._by_endpoint.items()):
            pool.check_time()
            if pool.open:
                self.names.keep(endpoint[1], now_s)
            elif pool.is_needless(now_s):
                del self._by_endpoint[endpoint]
                self._last = None
        self.names.check_time(now_s)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return open and idle connections by endpoint, for /status."""
        counts: dict[str, dict[str, int]] = {}
        for (scheme, host, port, _, _), pool in self._by_endpoint.items():
            of_endpoint = counts.setdefault(f"{scheme}://{place_of(host, port)}", {"open": 0, "idle": 0})
            of_endpoint["open"] += pool.open
            of_endpoint["idle"] += len(pool.idle)
        return counts

    async def close(self) -> None:
        """Close every connection and wait for connects under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.names.close()
        for pool in self._by_endpoint.values():
            pool.close()
