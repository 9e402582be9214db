"""WebSocket messages: ``python -m bench.echoes FILE`` sends them, ``... serve PORT`` sends them back.

Each connection has one message under way. Its mask is zero, which RFC 6455 section 5.3 allows and which lets both sides
move payloads as they are: they must cost little.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import time
from functools import partial
from typing import cast

import uvloop

from bench.client import Tally, Task, print_result, read_task

_PAYLOAD = b"0123456789abcdef" * 4
_ASKED = bytes((0x82, 0x80 | len(_PAYLOAD), 0, 0, 0, 0)) + _PAYLOAD
_ECHOED = bytes((0x82, len(_PAYLOAD))) + _PAYLOAD
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = base64.b64encode(b"0123456789abcdef")
_START_S = 20.0


def accept_of(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept of a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _MAGIC).digest())


def opening(head: str) -> bytes:
    """Return the request `head` as one that opens a WebSocket."""
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    return head.encode().removesuffix(b"\r\n") + fields + _KEY + b"\r\n\r\n"


class _Side(asyncio.Protocol):
    """What both ends do: a head first, then frames of one size."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._received = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another ancestor

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        received = self._received + data if self._received else data
        if not self._is_open:
            head, mark, received = received.partition(b"\r\n\r\n")
            if not mark:
                self._received = head
                return
            self._is_open = True
            self.head_complete(self._transport, head)
        frames, left = divmod(len(received), self._frame_bytes)
        self._received = received[frames * self._frame_bytes :] if left else b""
        for at in range(frames):
            frame = received[at * self._frame_bytes : (at + 1) * self._frame_bytes]
            self.frame_complete(self._transport, frame)

    def head_complete(self, transport: asyncio.Transport, head: bytes) -> None:
        raise NotImplementedError

    def frame_complete(self, transport: asyncio.Transport, frame: bytes) -> None:
        raise NotImplementedError


class _Echo(_Side):
    def __init__(self) -> None:
        super().__init__(len(_ASKED))

    def head_complete(self, transport: asyncio.Transport, head: bytes) -> None:
        if (
            b"\r\nsec-websocket-key:" not in head.lower()
        ):  # the check before the load: is it open, and for whom
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            transport.close()
            return
        accept = accept_of(_KEY)
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def frame_complete(self, transport: asyncio.Transport, frame: bytes) -> None:
        transport.write(frame[:1] + bytes((frame[1] & 0x7F,)) + frame[6:])


class _Asker(_Side):
    def __init__(self, tally: Tally, until: float, opened: asyncio.Future[None]) -> None:
        super().__init__(len(_ECHOED))
        self._tally = tally
        self._until = until
        self._opened = opened

    def head_complete(self, transport: asyncio.Transport, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101 "):
            self._tally.refused += 1
            transport.close()
            return
        transport.write(_ASKED)

    def frame_complete(self, transport: asyncio.Transport, frame: bytes) -> None:
        self._tally.requests += 1
        self._tally.errors += frame != _ECHOED
        if time.perf_counter() < self._until:
            transport.write(_ASKED)
        else:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._tally.errors += time.perf_counter() < self._until
        if not self._opened.done():
            self._opened.set_result(None)


def _itself(side: _Asker) -> _Asker:
    return side


async def _load(task: Task) -> None:
    tally = Tally()
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    until = begun + task.seconds
    ended = []
    for turn in range(task.connections):
        end: asyncio.Future[None] = loop.create_future()
        ended.append(end)
        side = _Asker(tally, until, end)
        transport, _ = await loop.create_connection(partial(_itself, side), "127.0.0.1", task.port)
        transport.write(opening(task.heads[turn % len(task.heads)]))
    await asyncio.wait(ended, timeout=task.seconds + _START_S)
    print_result(tally, time.perf_counter() - begun)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", port, backlog=4_096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[2])) if sys.argv[1] == "serve" else _load(read_task()))
