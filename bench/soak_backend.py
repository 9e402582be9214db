"""The backend of the soak, a process of its own: ``python -m bench.soak_backend PORT``.

``/n/NUMBER`` answers as `bench.numbered` does, ``/body/NUMBER`` with a checksum of what it was sent, ``/big/NUMBER``
with a megabyte that is made of the number; a WebSocket is answered and its bytes are sent back as they come.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import sys
import zlib

import uvloop

from bench.chaos_backend import read_body
from bench.numbered import number_body

BIG_BYTES = 1_000_000
_PIECE_BYTES = 50_000
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def big_body(number: int) -> bytes:
    """Return the long body that belongs to a number."""
    unit = b"%d." % number
    return (unit * (BIG_BYTES // len(unit) + 1))[:BIG_BYTES]


def checksum_body(number: int, body: bytes) -> bytes:
    """Return the answer to a body that was sent."""
    return b"number %d, %d bytes, %08x" % (number, len(body), zlib.crc32(body))


def accept_of(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that answers a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await _answer(reader, writer)
    writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    path = head.split(b" ", 2)[1]
    number = int(path.rpartition(b"/")[2])
    if path.startswith(b"/ws/"):
        key = head.lower().partition(b"\r\nsec-websocket-key: ")[0]
        value = head[len(key) :].partition(b": ")[2].partition(b"\r\n")[0]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_of(value)
        )
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        raise ConnectionError
    if path.startswith(b"/body/"):
        body = checksum_body(number, await read_body(head, reader))
    elif path.startswith(b"/big/"):
        body = big_body(number)
    else:
        body = number_body(number)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), _PIECE_BYTES):
        writer.write(body[at : at + _PIECE_BYTES])
        await writer.drain()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1_024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
