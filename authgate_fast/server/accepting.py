"""The listening sockets that one worker accepts from: its own slot's, and for a while those of a slot without a
worker.

The sockets are shared: the supervisor holds them too, and during a reload so does the successor. Ending to accept
therefore loses nothing, as long as somebody else holds the socket. Who holds it last takes what waits in its
queue before closing it, because the kernel resets what is left there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from authgate_fast.server.entrance import Entrance
from authgate_fast.server.listening import BACKLOG


class Acceptor:
    """Makes a protocol with `factory` for each connection; must be used in the loop that serves them.

    Connections that need more than that (TLS, PROXY headers, Unix sockets) go through the `entrance`.
    """

    def __init__(self, factory: Callable[[], asyncio.Protocol], entrance: Entrance) -> None:
        self._factory = factory
        self._entrance = entrance
        self._servers: dict[int, list[tuple[asyncio.Server | _Through, socket.socket]]] = {}

    @property
    def is_listening(self) -> bool:
        """Tell whether connections are accepted at all."""
        return bool(self._servers)

    async def add(self, slot: int, sockets: Sequence[socket.socket]) -> None:
        """Accept from the sockets of a slot, which belong to the acceptor from now on. Raises OSError."""
        if slot in self._servers:
            for one in sockets:
                one.close()
            return
        self._servers[slot] = [(await self._begin(one), one) for one in sockets]

    async def _begin(self, one: socket.socket) -> asyncio.Server | _Through:
        if self._entrance.is_needed(one):
            one.listen(BACKLOG)
            return _Through(self._entrance, one.dup())
        # The server closes what it was given, and its queue must still be reachable then.
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._factory, sock=one.dup(), backlog=BACKLOG)

    async def remove(self, slot: int, *, is_last: bool) -> None:
        """Stop accepting from a slot; with `is_last`, take what waits in its queue."""
        waiting: list[socket.socket] = []
        for server, one in self._servers.pop(slot, []):
            server.close()
            taken = _take_queue(one) if is_last else []
            if self._entrance.is_needed(one):
                for connection in taken:
                    self._entrance.take_late(connection, one)
            else:
                waiting += taken
            one.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            try:
                await loop.connect_accepted_socket(self._factory, connection)
            except OSError:
                connection.close()  # it is gone already
        # What the loop has accepted becomes a connection in its next turns only.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def remove_all(self, *, is_last: bool) -> None:
        """Stop accepting."""
        for slot in list(self._servers):
            await self.remove(slot, is_last=is_last)


class _Through:
    """Accepts through the entrance from a socket of its own, until it is closed."""

    def __init__(self, entrance: Entrance, one: socket.socket) -> None:
        self._entrance = entrance
        self._one = one
        entrance.accept_from(one)

    def close(self) -> None:
        self._entrance.stop(self._one)
        self._one.close()


def _take_queue(one: socket.socket) -> list[socket.socket]:
    taken: list[socket.socket] = []
    while True:
        try:
            connection, _ = one.accept()
        except ConnectionAbortedError:
            continue  # a client that left while it waited
        except OSError:
            return taken  # the queue is empty, or there are no more descriptors
        connection.setblocking(False)
        taken.append(connection)
