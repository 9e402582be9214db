"""The line between the supervisor and a worker: JSON messages over a Unix socket pair, file descriptors beside them.

One message is one line. A message that comes with descriptors says so in ``fds``, and they arrive in order.
Sending never blocks and never raises: what a peer that is gone or stuck does not take is dropped with it.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

Message = dict[str, Any]

PROTOCOL = 1
"""Grows with any change that an older supervisor, or a worker of a newer package, would misread."""
MAX_MESSAGE_BYTES = 67_108_864
"""A report with the metrics of very many routes; beyond it the peer is broken."""
_READ_BYTES = 262_144
_FD_BYTES = array.array("i").itemsize
_RIGHTS_BYTES = socket.CMSG_SPACE(64 * _FD_BYTES)


class Channel:
    """One end. `on_message` gets each message; `on_end` is called once, when the other end is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._incoming = bytearray()
        self._searched = 0
        self._fds: list[int] = []
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._waits = False
        self.closed = False
        loop.add_reader(sock, self._readable)

    @property
    def unsent(self) -> int:
        """Messages, or what is left of one, that the other end has not taken yet."""
        return len(self._outgoing)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message; descriptors are copied at the moment of sending, so keep them open."""
        if self.closed:
            return
        if fds:
            message = message | {"fds": len(fds)}
        self._outgoing.append((orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE), tuple(fds)))
        if not self._waits:
            self._flush()

    def _flush(self) -> None:
        while self._outgoing and not self.closed:
            data, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([data], rights)
            except (BlockingIOError, InterruptedError):
                if not self._waits:
                    self._waits = True
                    self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                self._outgoing.clear()  # the reading side tells of the end
                break
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], ())
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        if not self.closed and not self._read_once():
            self.close()
            self._on_end()

    def read_rest(self) -> None:
        """Deliver what has arrived and was not read yet; for a peer that is known to be gone."""
        while not self.closed and self._read_once(again=False):
            pass

    def _read_once(self, *, again: bool = True) -> bool:
        """Read and deliver; False: there is no more, for ever (with `again` False: or for now)."""
        try:
            # Not `socket.recv_fds`: that of Python 3.11 forgets its flags.
            data, rights, _, _ = self._sock.recvmsg(_READ_BYTES, _RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return again
        except OSError:
            return False
        for level, kind, packed in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds += array.array("i", packed[: len(packed) - len(packed) % _FD_BYTES])
        if not data:
            return False
        self._incoming += data
        while not self.closed:
            end = self._incoming.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._incoming)
                return len(self._incoming) <= MAX_MESSAGE_BYTES
            line = bytes(self._incoming[:end])
            del self._incoming[: end + 1]
            self._searched = 0
            try:
                message = orjson.loads(line)
                count = message.get("fds", 0)
                fds, self._fds = self._fds[:count], self._fds[count:]
            except (ValueError, AttributeError, TypeError):
                return False
            self._on_message(message, fds)
        return True

    def close(self) -> None:
        """End this side. Harmless when called twice."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        if self._waits:
            self._loop.remove_writer(self._sock)
        self._sock.close()
        self._outgoing.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
