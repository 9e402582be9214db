"""A backend that answers numbered requests, and now and then lies: ``python -m bench.chaos_backend PORT SEED LOG``.

Each request and each lie is one line of LOG, written before anything is answered, so that it outlives a SIGKILL.
What an honest answer to a request is, `answer` says; clients ask it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import sys
import zlib
from dataclasses import dataclass

BY_LENGTH, BY_CHUNKS, BY_CLOSE = range(3)
STOLEN = b"HTTP/1.1 200 OK\r\nX-Number: 0\r\nContent-Length: 6\r\n\r\nstolen"
LIES = (
    "truncate", "truncate", "half head", "reset", "close", "silent", "long", "short", "extra", "second", "second",
    "garbage", "lengths", "bad chunk",
)  # fmt: skip
LIE_SHARE = 0.10
SLOW_SHARE = 0.05
SHORT_MARK = "short"
"""The lie that a gateway cannot know: less of its own body than there is, framed as if that were all."""


def answer(number: int, request_body: bytes) -> bytes:
    """Return the one right body of the answer to request `number`."""
    filler = b"%d." % number * (number * 7_919 % (4_000 if number % 50 else 40_000) // 4)
    return b"answer to %d with %08x:%b" % (number, zlib.crc32(request_body), filler)


def framing(number: int) -> int:
    """Return how the answer to request `number` is framed."""
    if number % 16 == 3:
        return BY_CLOSE
    return BY_CHUNKS if number % 3 == 1 else BY_LENGTH


def render(number: int, method: bytes, body: bytes) -> bytes:
    """Write the honest answer."""
    head = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n" % number
    how = framing(number)
    if number % 29 == 0:
        head = b"HTTP/1.1 103 Early Hints\r\nX-Number: %d\r\n\r\n" % number + head
    if how == BY_LENGTH:
        head += b"Content-Length: %d\r\n" % len(body)
    elif how == BY_CHUNKS:
        head += b"Transfer-Encoding: chunked\r\n"
    else:
        head += b"Connection: close\r\n"
    if method == b"HEAD":
        return head + b"\r\n"
    if how != BY_CHUNKS:
        return head + b"\r\n" + body
    at = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part)
    return head + b"\r\n" + chunks + b"0\r\nX-Trailer: %d\r\n\r\n" % number


@dataclass
class Turn:
    """What is sent, how long between its pieces, and what happens then: ``keep``, ``close``, ``reset``, ``stall``."""

    pieces: list[bytes]
    then: str
    pause_s: float = 0.0


def lie(kind: str, number: int, method: bytes, body: bytes, random_: random.Random) -> Turn:
    """Write an answer that is not what it should be."""
    data = render(number, method, body)
    head = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n" % number
    end = random_.choice(("close", "reset"))
    if kind == "truncate":
        # An orderly close within a body that ends with the connection is no lie that anybody could see.
        return Turn([data[: random_.randrange(len(data))]], "reset" if framing(number) == BY_CLOSE else end)
    if kind == "half head":
        return Turn([head[: random_.randrange(1, len(head))]], end)
    if kind in ("reset", "close"):
        return Turn([], kind)
    if kind == "silent":
        return Turn([], "stall")
    if kind == "garbage":
        return Turn(
            [random_.choice((b"\x16\x03\x01\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"hello\n\n"))], "keep"
        )
    if kind == "lengths":
        return Turn([head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" + STOLEN], "keep")
    if method == b"HEAD":
        return Turn([data + STOLEN], "keep")
    if kind == "long":
        return Turn([head + b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body], end)
    if kind == "short":
        return Turn([head + b"Content-Length: %d\r\n\r\n" % (len(body) - 9) + body], "keep")
    if kind == "bad chunk":
        return Turn([head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nans\r\nzz\r\n" + STOLEN], "keep")
    extra = STOLEN if kind == "second" else bytes(random_.randrange(1, 256) for _ in range(9))
    if framing(number) == BY_CLOSE:
        return Turn([head + b"Content-Length: %d\r\n\r\n" % len(body) + body + extra], "keep")
    return Turn([data + extra], "keep")


class Backend:
    """One process: serves until it is killed."""

    def __init__(self, seed: int, log: int) -> None:
        self._random = random.Random(seed)
        self._log = log

    def _note(self, text: str) -> None:
        os.write(self._log, text.encode("ascii") + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._serve_one(reader, writer):
                pass
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        number = int(target.rpartition(b"/")[2])
        self._note(f"S {number} {method.decode('ascii')}")
        body = answer(number, await read_body(head, reader))
        turn = self._turn(number, method, body)
        for at, piece in enumerate(turn.pieces):
            if at:
                await asyncio.sleep(turn.pause_s)
            writer.write(piece)
            await writer.drain()
        if turn.then == "reset":
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif turn.then == "stall":
            await reader.read(-1)
        return turn.then == "keep"

    def _turn(self, number: int, method: bytes, body: bytes) -> Turn:
        chance = self._random.random()
        honest_end = "close" if framing(number) == BY_CLOSE else "keep"
        data = render(number, method, body)
        if chance < LIE_SHARE:
            kind = self._random.choice(LIES)
            self._note(f"L {number} {kind}")
            return lie(kind, number, method, body, self._random)
        if chance < LIE_SHARE + SLOW_SHARE:
            cuts = sorted(self._random.randrange(len(data)) for _ in range(3))
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            return Turn(pieces, honest_end, self._random.uniform(0.0, 0.1))
        return Turn([data], honest_end)


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Return the body of a request, decoded."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"content-length":
            return await reader.readexactly(int(value))
        if name.lower() == b"transfer-encoding":
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            return body
    return b""


async def _main(port: int, seed: int, log: str) -> None:
    backend = Backend(seed, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    server = await asyncio.start_server(backend.serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
