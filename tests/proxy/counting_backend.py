"""A backend that writes down each request before it answers: ``python -m tests.proxy.counting_backend PORT LOG``."""

from __future__ import annotations

import asyncio
import os
import sys


async def serve(port: int, log: str) -> None:
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.split(b" ", 2)
                at = head.lower().find(b"content-length: ")
                if at != -1:
                    await reader.readexactly(int(head[at + 16 : head.index(b"\r", at)]))
                os.write(file, b"%b %b\n" % (method, path))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
