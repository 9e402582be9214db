"""Hostile clients, one function for each kind: what one of them does on one connection, until the gateway ends it.

They expect nothing; what the gateway must do about them is in `bench.hostile`, which runs this module as a process of
its own (``python -m bench.hostile_clients KIND PORT COUNT``) until it closes its standard input.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import cast

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Hostile = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""(reader, writer, number of the client)."""

PACE_S = 0.1
POUR_PACE_S = 0.01
"""Between two pieces of what has no end: the point is that it does not end, not to fill the machine."""
COME_AGAIN_S = 0.2
"""After a hostile client was cut."""
_RESET = struct.pack("ii", 1, 0)
_POST = b"POST /up HTTP/1.1\r\nHost: a\r\n"


async def _drip(writer: asyncio.StreamWriter, piece: bytes, every_s: float = PACE_S) -> None:
    while not writer.transport.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(every_s)


async def _pour(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while not writer.transport.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(POUR_PACE_S)


def _stop_reading(writer: asyncio.StreamWriter) -> None:
    cast("asyncio.Transport", writer.transport).pause_reading()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _number: int) -> None:
    """Connect and say nothing."""
    await reader.read(-1)


async def slow_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Send a head byte by byte, for ever."""
    writer.write(b"GET /n/0 HTTP/1.1\r\nHost: a\r\nX-Drip: ")
    await _drip(writer, b"x")


async def slow_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send a body byte by byte."""
    if number % 2:
        writer.write(_POST + b"Content-Length: 1000000\r\n\r\n")
        await _drip(writer, b"x")
    else:
        writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await _drip(writer, b"1\r\nx\r\n")


async def expect_and_silence(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int
) -> None:
    """Ask whether a body is welcome, and never send it."""
    writer.write(_POST + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    await reader.read(-1)


async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """End the stream at a moment when more has to come, and wait."""
    writer.write(
        (b"", b"GET /n/0 HT", b"GET /n/0 HTTP/1.1\r\nHost: a\r\nX", _POST + b"Content-Length: 9\r\n\r\nhalf")[
            number % 4
        ]
    )
    writer.write_eof()
    await reader.read(-1)


async def tiny_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Wrap each byte in as much framing as is allowed."""
    writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await asyncio.gather(_pour(writer, b"1;padding=xxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n" * 500), reader.read(-1))


async def endless_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Send a body without end."""
    writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await asyncio.gather(_pour(writer, b"ffff\r\n%b\r\n" % (b"x" * 0xFFFF)), reader.read(-1))


async def endless_trailers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send a trailer section without end: many fields, or a long one."""
    writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    piece = b"X-Trailer: x\r\n" * 100 if number % 2 else b"X-Trailer-without-end-" * 50
    await asyncio.gather(_pour(writer, piece), reader.read(-1))


async def header_bombs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send heads that are too much in one way or the other."""
    start = b"GET /n/0 HTTP/1.1\r\nHost: a\r\n"
    bomb = (
        start + b"".join(b"X-%d: 1\r\n" % n for n in range(2_000)),
        start + b"X-Same: 1\r\n" * 2_000,
        start + b"X-Long: " + b"x" * 100_000,
        start + b"Cookie: " + b"; ".join(b"c%d=v" % n for n in range(20_000)),
        start + b"Connection: " + b", ".join(b"x-%d" % n for n in range(20_000)),
        b"GET /" + b"x" * 100_000,
        start + (b"Accept: " + b"x" * 250 + b"\r\n") * 110 + b"\r\n",
    )[number % 7]
    writer.write(bomb)
    await reader.read(-1)


async def pipelining_unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Send request after request and never read an answer."""
    _stop_reading(writer)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    path = b"/nowhere" if number % 2 else b"/big"
    await _pour(writer, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path * 500)


async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Ask for much and take a little now and then."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    while await reader.read(64):
        await asyncio.sleep(PACE_S)


async def deaf_reader(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Ask for much and take nothing."""
    _stop_reading(writer)
    writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    while not writer.transport.is_closing():
        await asyncio.sleep(PACE_S)


async def head_hoarder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Leave as much as is allowed of a head with the gateway, and wait."""
    writer.write(b"GET /n/0 HTTP/1.1\r\nHost: a\r\nX-Pad: " + b"x" * 32_000)
    await reader.read(-1)


async def pipeline_hoarder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Leave many requests behind one that takes its time."""
    writer.write(b"GET /stall HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /n/0 HTTP/1.1\r\nHost: a\r\n\r\n" * 8_000)
    await reader.read(-1)


async def upload_hoarder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
    """Upload to a backend that does not read."""
    writer.write(b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
    await reader.read(-1)


_PHASES = (
    b"",
    b"GET /n/0 HT",
    b"GET /n/0 HTTP/1.1\r\nHost: a\r\nX",
    b"GET /stall HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
    _POST + b"Content-Length: 1000\r\n\r\nhalf",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nha",
    b"GET /n/0 HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
)
_moments = cycle((0.0, 0.0, 0.01, 0.05))


async def reset_storm(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Reset the connection, at each phase of a request."""
    writer.write(_PHASES[number % len(_PHASES)])
    await asyncio.sleep(next(_moments))
    _reset(writer)


HOSTILE: dict[str, Hostile] = {
    run.__name__: run
    for run in (
        silent, slow_head, slow_body, expect_and_silence, half_closed, tiny_chunks, endless_chunks, endless_trailers,
        header_bombs, pipelining_unread, slow_reader, deaf_reader, head_hoarder, pipeline_hoarder, upload_hoarder,
        reset_storm,
    )
}  # fmt: skip


async def swarm(kind: str, port: int, count: int) -> int:
    """Keep `count` clients of a kind at it until standard input ends; return how many connections they made."""
    made = 0

    async def come_again(number: int) -> None:
        nonlocal made
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                made += 1
                try:
                    await HOSTILE[kind](reader, writer, number)
                finally:
                    writer.transport.abort()
            except OSError:
                pass
            number += 1
            await asyncio.sleep(COME_AGAIN_S)

    tasks = [asyncio.create_task(come_again(number)) for number in range(count)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return made


if __name__ == "__main__":
    print(asyncio.run(swarm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
