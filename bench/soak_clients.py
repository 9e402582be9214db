"""The clients of the soak, a kind each: what they do for ever, and what they check of it.

A kind is a coroutine that does one thing once and says what came of it; `Mixed` keeps a number of clients of each kind
at it. Whatever is not as it should be is a fault in words.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.numbered import number_body
from bench.soak_backend import accept_of, big_body, checksum_body

BOUND_S = 30.0
KEY = "soak-key"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_READ_BYTES = 65_536
_SLOW_PAUSE_S = 0.05


@dataclass
class Mixed:
    """What all clients share. `counts` says how often each thing was done, `faults` what went wrong."""

    port: int
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    is_reloading: bool = False
    """While workers are replaced, their tunnels are ended."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(2_000_000_000)
        self._random = random.Random(1)
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, kinds: dict[Kind, int], think_s: float) -> None:
        """Start so many clients of each kind."""
        self._tasks = [
            asyncio.create_task(self._again(kind, think_s))
            for kind, count in kinds.items()
            for _ in range(count)
        ]

    async def stop(self) -> None:
        """Let all of them finish what they have under way."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _again(self, kind: Kind, think_s: float) -> None:
        while not self._stopped:
            number = next(self._numbers)
            name = kind.__name__
            try:
                async with asyncio.timeout(BOUND_S):
                    await kind(self, number)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.faults.append(f"{name} {number}: {error!r}")
            self.counts[name] += 1
            await asyncio.sleep(think_s * self._random.uniform(0.5, 1.5))

    def pick(self, count: int) -> int:
        """Return a number below `count`."""
        return self._random.randrange(count)

    def require(self, is_so: bool, what: str) -> None:
        """Note what is not as it should be."""
        if not is_so:
            self.faults.append(what)


Kind = Callable[[Mixed, int], Awaitable[None]]


async def _connect(mixed: Mixed) -> Streams:
    return await asyncio.open_connection("127.0.0.1", mixed.port)


async def _close(streams: Streams) -> None:
    streams[1].close()
    await asyncio.sleep(0)


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Return the status and the body of an answer, and whether the connection ends with it."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = head.lower()
    length = int(fields.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
    content = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), content, b"\r\nconnection: close\r\n" in fields


async def body(mixed: Mixed, number: int) -> None:
    """Send a few bodies on one connection, with a length and in chunks, in pieces; each is answered by its checksum."""
    streams = reader, writer = await _connect(mixed)
    for turn in range(4):
        sent = os.urandom(64) * (1 + mixed.pick(1_000))
        head = b"POST /open/body/%d HTTP/1.1\r\nHost: soak\r\n" % number
        if turn % 2:
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            pieces = [sent[at : at + 9_999] for at in range(0, len(sent), 9_999)]
            frames = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        else:
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(sent))
            frames = [sent[: len(sent) // 2], sent[len(sent) // 2 :]]
        for frame in frames:
            writer.write(frame)
            await writer.drain()
            await asyncio.sleep(0.001)
        status, content, is_last = await _receive(reader)
        is_right = (status, content) == (200, checksum_body(number, sent))
        mixed.require(is_right, f"body {number}: {status} {content!r:.200}")
        if is_last:  # the worker is being replaced
            break
    await _close(streams)


async def slow_reader(mixed: Mixed, number: int) -> None:
    """Read a megabyte in small steps."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_BYTES)
    raw.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", mixed.port))
    except OSError:
        raw.close()
        raise
    streams = reader, writer = await asyncio.open_connection(sock=raw, limit=_READ_BYTES)
    writer.write(b"GET /open/big/%d HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n" % number)
    head = await reader.readuntil(b"\r\n\r\n")
    got = b""
    while data := await reader.read(_READ_BYTES):
        got += data
        await asyncio.sleep(_SLOW_PAUSE_S)
    mixed.require(
        head.startswith(b"HTTP/1.1 200 ") and got == big_body(number),
        f"slow reader {number}: {head!r:.200} {len(got)} bytes",
    )
    await _close(streams)


async def abort(mixed: Mixed, number: int) -> None:
    """Go away in the middle of something: a head, a body, a wait, an answer."""
    streams = reader, writer = await _connect(mixed)
    way = mixed.pick(4)
    if way == 0:
        writer.write(b"GET /open/n/%d HTTP/1.1\r\nHo" % number)
    elif way == 1:
        writer.write(
            b"POST /open/body/%d HTTP/1.1\r\nHost: soak\r\nContent-Length: 9999\r\n\r\nhalf" % number
        )
    else:
        writer.write(b"GET /open/big/%d HTTP/1.1\r\nHost: soak\r\n\r\n" % number)
        if way == 3:
            await reader.read(100)
    await asyncio.sleep(mixed.pick(3) * 0.005)
    if mixed.pick(2):
        writer.transport.abort()
    await _close(streams)


async def refused(mixed: Mixed, number: int) -> None:
    """Ask for what is refused, and for what is not, on one connection."""
    streams = reader, writer = await _connect(mixed)
    for target, key, wanted in (
        ("closed/n", "", 401),
        ("closed/n", f"X-Api-Key: wrong-{number}\r\n", 401),
        ("closed/n", f"X-Api-Key: {KEY}\r\n", 200),
        ("nowhere", "", 404),
    ):
        writer.write(f"GET /{target}/{number} HTTP/1.1\r\nHost: soak\r\n{key}\r\n".encode())
        status, content, is_last = await _receive(reader)
        is_right = status == wanted and (status != 200 or content == number_body(number))
        mixed.require(is_right, f"refused {number}: {target}: {status} {content!r:.200}")
        if is_last:
            break
    await _close(streams)


async def tunnel(mixed: Mixed, number: int) -> None:
    """Open a WebSocket, and have messages come back as they were sent."""
    streams = reader, writer = await _connect(mixed)
    key = b"dGhlIHNhbXBsZSBub25jZQ=="
    writer.write(
        b"GET /open/ws/%d HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (number, key)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    is_right = head.startswith(b"HTTP/1.1 101 ") and accept_of(key) in head
    is_leaving = mixed.is_reloading and head.startswith(b"HTTP/1.1 503 ")  # a worker that drains opens none
    mixed.require(is_right or is_leaving, f"tunnel {number}: {head!r:.200}")
    try:
        for _ in range(5 * is_right):
            payload = os.urandom(4 + mixed.pick(30_000))
            frame = b"\x82\xfe%b\0\0\0\0%b" % (len(payload).to_bytes(2, "big"), payload)
            if len(payload) < 126:
                frame = b"\x82%c\0\0\0\0%b" % (0x80 | len(payload), payload)
            writer.write(frame)
            back = await reader.readexactly(len(frame))
            mixed.require(back == frame or mixed.is_reloading, f"tunnel {number}: not what was sent")
            await asyncio.sleep(0.02)
    except (OSError, EOFError):
        if not mixed.is_reloading:
            raise
    await _close(streams)
