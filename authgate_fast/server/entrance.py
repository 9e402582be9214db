"""What stands between an accepted connection and the request path: PROXY headers, TLS, Unix sockets.

A plain listener has no entrance; its connections go straight from the kernel to `Downstream`. Here each new
connection gets one task, which ends when the connection is handed over or refused. It looks at the first bytes in
the kernel's buffer (MSG_PEEK) and takes only those of a PROXY header, so that TLS and HTTP begin with their first
byte. Whoever is not let in gets no answer, except plain HTTP on a TLS port. Times are limits (`limits`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from authgate_fast.auth.failures import address_name
from authgate_fast.decision import UNIX, Client
from authgate_fast.errors import Reason
from authgate_fast.http.problem import problem_response
from authgate_fast.http.proxy_header import MAX_V2_BYTES, ProxyHeader, ProxyHeaderError, read_proxy_header
from authgate_fast.proxy.admission import SUSPECT_AFTER_S
from authgate_fast.proxy.downstream import Downstream

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.server.tls import ServerTls

_log = logging.getLogger("authgate.entrance")

ACCEPTS_AT_ONCE = 64
"""Connections taken from one queue before the loop turns to other work."""
NO_DESCRIPTORS_S = 1.0
"""How long nothing is accepted after the process ran out of file descriptors or memory."""
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TLS_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1: how every TLS connection begins


class ProxySources:
    """Who must begin a connection with a PROXY header: peers in `networks` and, with `unix`, those on Unix sockets."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network], *, unix: bool = False) -> None:
        self._networks = tuple(networks)
        self._unix = unix

    @classmethod
    def of(cls, texts: Sequence[str]) -> ProxySources | None:
        """Read what an option holds, which is known to be good; None: nobody."""
        if not texts:
            return None
        return cls([ip_network(text) for text in texts if text != UNIX], unix=UNIX in texts)

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


class _RefusedError(Exception):
    """The connection is closed without an answer."""


class Entrance:
    """Lets connections in to one worker's request path. `failures` counts the others by what was wrong."""

    def __init__(
        self,
        context: Context,
        tls: ServerTls | None = None,
        proxies: ProxySources | None = None,
        plain_ports: frozenset[int] = frozenset(),
    ) -> None:
        self._context = context
        self._tls = tls
        self._proxies = proxies
        self._plain_ports = plain_ports
        self._listening: set[socket.socket] = set()
        self._plain: set[socket.socket] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._arriving: dict[asyncio.Task[None], tuple[float, str]] = {}
        self._by_address: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.handshakes = 0
        self.resumed = 0

    # --- accepting ------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Connections on their way in."""
        return len(self._arriving)

    def is_needed(self, listening: socket.socket) -> bool:
        """Tell whether connections from a listening socket have to come through here."""
        return (
            listening.family == socket.AF_UNIX
            or self._proxies is not None
            or (self._tls is not None and not self._is_plain(listening))
        )

    def _is_plain(self, listening: socket.socket) -> bool:
        return listening.family == socket.AF_UNIX or listening.getsockname()[1] in self._plain_ports

    def accept_from(self, listening: socket.socket) -> None:
        """Accept from a socket that listens, until `stop`."""
        listening.setblocking(False)
        self._listening.add(listening)
        if self._is_plain(listening):
            self._plain.add(listening)
        self._context.loop.add_reader(listening.fileno(), self._accept, listening)

    def stop(self, listening: socket.socket) -> None:
        """Accept no more from a socket, which stays open."""
        if listening in self._listening:
            self._listening.discard(listening)
            self._plain.discard(listening)
            self._context.loop.remove_reader(listening.fileno())

    def close_idle(self) -> None:
        """In a drain: close those that have not said anything yet."""
        for task in list(self._waiting):
            task.cancel()

    async def close(self) -> None:
        """Stop everything; whoever is still on the way in is cut."""
        for listening in list(self._listening):
            self.stop(listening)
        for task in list(self._arriving):
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it left while it waited
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                _log.error("no connection can be accepted: %s", error.strerror)
                loop = self._context.loop
                loop.remove_reader(listening.fileno())
                loop.call_later(NO_DESCRIPTORS_S, self._accept_again, listening)
                return
            self.take(connection, peer, plain=listening in self._plain)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._context.loop.add_reader(listening.fileno(), self._accept, listening)

    def take_late(self, connection: socket.socket, listening: socket.socket) -> None:
        """Let in a connection that waited in the queue of a socket from which nobody accepts any more."""
        try:
            peer = connection.getpeername()
        except OSError:
            connection.close()  # it is gone already
            return
        self.take(connection, peer, plain=self._is_plain(listening))

    def take(self, connection: socket.socket, peer: Any, *, plain: bool = False) -> None:
        """Let in a connection that was accepted."""
        context = self._context
        limits = context.limits
        address = UNIX if connection.family == socket.AF_UNIX else str(peer[0])
        name = address_name(address)
        # A balancer's connections are its clients', whom only their headers tell apart.
        is_proxy = self._proxies is not None and address in self._proxies
        here = 0 if is_proxy else self._by_address[name]
        if here and here + context.admission.by_address.get(name, 0) >= limits.max_connections_per_address:
            context.counters.hit("max_connections_per_address")
            connection.close()
            return
        if len(self._arriving) + len(context.connections) >= limits.max_connections:
            context.counters.hit("max_connections")
            if not (self._make_room() or context.admission.make_room(context)):
                connection.close()
                return
        connection.setblocking(False)
        task = context.loop.create_task(self._let_in(connection, address, plain), name="entrance")
        self._arriving[task] = (context.loop.time(), name)
        self._by_address[name] += 1
        task.add_done_callback(self._arrived)

    def _make_room(self) -> bool:
        """Turn away who has been on the way in for longest, if that is long."""
        for task, (since_s, _) in self._arriving.items():
            if self._context.loop.time() - since_s < SUSPECT_AFTER_S:
                break
            if not task.cancelling():
                task.cancel()
                return True
        return False

    def _arrived(self, task: asyncio.Task[None]) -> None:
        _, name = self._arriving.pop(task)
        self._by_address[name] -= 1
        if not self._by_address[name]:
            del self._by_address[name]

    # --- one connection ---------------------------------------------------------------------------------

    async def _let_in(self, connection: socket.socket, address: str, plain: bool) -> None:
        limits = self._context.limits
        tls = None if plain else self._tls
        client = Client(address, b"http" if tls is None else b"https", self._context.guard)
        is_ours = True  # as long as no transport has the socket
        try:
            async with asyncio.timeout(limits.head_timeout_s):
                if self._proxies is not None and address in self._proxies:
                    self._introduce(client, await self._read_header(connection))
                if tls is not None and await self._begins_plainly(connection):
                    return
            is_ours = False
            await self._hand_over(connection, client, tls)
        except TimeoutError:
            self._context.counters.hit("head_timeout_s")
            self._failed("timeout", address, "nothing came in time")
        except (OSError, ProxyHeaderError, _RefusedError) as error:
            if is_ours:
                self._failed(
                    "PROXY header" if isinstance(error, ProxyHeaderError) else "closed", address, str(error)
                )
            elif isinstance(error, ConnectionAbortedError):  # uvloop's word for it
                self._context.counters.hit("tls_handshake_timeout_s")
                self._failed("timeout", address, "the TLS handshake took too long")
            # What is wrong with a handshake is counted where it is found, in `certificates`.
        finally:
            if is_ours:
                connection.close()

    def _failed(self, what: str, address: str, why: str) -> None:
        self.failures[what] += 1
        _log.debug("%s is not let in: %s", address, why)

    async def _read_header(self, connection: socket.socket) -> ProxyHeader:
        """Take the PROXY header off a connection, and not a byte more."""
        held = b""
        while True:
            seen = await self._peek(connection, MAX_V2_BYTES - len(held))
            header = read_proxy_header(held + seen)
            if header is not None:
                connection.recv(header.size - len(held))
                return header
            if not seen:
                raise _RefusedError("closed before its PROXY header was whole")
            held += connection.recv(len(seen))

    @staticmethod
    def _introduce(client: Client, header: ProxyHeader) -> None:
        if header.address:  # else the balancer speaks for itself
            client.address = header.address
        if header.tls:
            client.scheme = b"https"

    async def _begins_plainly(self, connection: socket.socket) -> bool:
        """Tell whether something else than TLS comes in on a TLS port; if it looks like HTTP, answer it."""
        first = await self._peek(connection, 1)
        if first == _TLS_HANDSHAKE:
            return False
        if not first.isalpha() or not first.isupper():  # one byte: bytes know ASCII letters only
            raise _RefusedError("no TLS" if first else "closed before its first byte")
        self.failures["plain HTTP"] += 1
        context = self._context
        answer = problem_response(
            Reason.BAD_REQUEST,
            request_id=b"%b-tls" % context.id_prefix,
            date_line=context.date_line,
            detail="This port speaks TLS; the URL begins with https://.",
            close=True,
        )
        await context.loop.sock_sendall(connection, answer)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(context.limits.linger_timeout_s):
                while await context.loop.sock_recv(connection, 65_536):
                    pass
        return True

    async def _peek(self, connection: socket.socket, size: int) -> bytes:
        """Look at what has arrived, waiting for the first byte; b"" at the end of the stream."""
        while True:
            try:
                return connection.recv(size, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(connection)

    async def _readable(self, connection: socket.socket) -> None:
        loop = self._context.loop
        arrived: asyncio.Future[None] = loop.create_future()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        loop.add_reader(connection.fileno(), _set, arrived)
        try:
            await arrived
        finally:
            loop.remove_reader(connection.fileno())
            self._waiting.discard(task)

    async def _hand_over(self, connection: socket.socket, client: Client, tls: ServerTls | None) -> None:
        context = self._context
        if tls is None:
            await context.loop.connect_accepted_socket(  # type: ignore[type-var]  # a protocol by its methods
                lambda: Downstream(context, lambda _: client), connection
            )
            return

        def meet(transport: asyncio.BaseTransport) -> Client | None:
            connected: ssl.SSLObject = transport.get_extra_info("ssl_object")
            self.handshakes += 1
            self.resumed += bool(connected.session_reused)
            if tls.asks_for_certificates:
                lines = tls.client_lines(connected)
                if lines is None:
                    self._failed("client certificate", client.address, "its certificate cannot be told whole")
                    return None
                client.certificate_lines = lines
            return client

        await context.loop.connect_accepted_socket(  # type: ignore[type-var]  # as above
            lambda: Downstream(context, meet),
            connection,
            ssl=tls.context,
            ssl_handshake_timeout=context.limits.tls_handshake_timeout_s,
            ssl_shutdown_timeout=context.limits.send_timeout_s,
        )

    def status(self) -> dict[str, object]:
        """What /status shows."""
        failures = {} if self._tls is None else dict(self._tls.failures)
        return {
            "arriving": len(self._arriving),
            "tls_handshakes_total": self.handshakes,
            "tls_resumed_total": self.resumed,
            "tls_failures_total": failures,
            "turned_away_total": dict(self.failures),
        }


def _set(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
