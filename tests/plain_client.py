"""Sends bytes as they are to a server under test and reads its answers, every wait bounded."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import h11

WAIT_S = 10.0


class Answer(NamedTuple):
    """One response, its body whole."""

    status: int
    fields: dict[str, str]
    body: bytes


async def ask(port: int, target: str, method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
    """Send one request on a connection of its own and return the answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    (answer,) = await send_raw(port, head + body, method)
    return answer


async def send_raw(port: int, data: bytes, method: str = "GET", count: int = 1) -> list[Answer]:
    """Write `data` and read `count` answers; `method` tells how to read them."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            client = h11.Connection(h11.CLIENT)
            answers = []
            for number in range(count):
                if number:
                    client.start_next_cycle()
                client.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
                client.send(h11.EndOfMessage())
                answers.append(await _read_answer(client, reader))
            return answers
        finally:
            writer.close()


async def _read_answer(client: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    response: h11.Response | None = None
    body = b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            fields = {name.decode(): value.decode() for name, value in response.headers}
            return Answer(response.status_code, fields, body)
        else:
            assert isinstance(event, h11.InformationalResponse), event
