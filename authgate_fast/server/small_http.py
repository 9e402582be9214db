"""A small HTTP/1.1 server on h11, for the ops listener and the demo backend. Not for proxied traffic.

Promises: bounded heads, bodies and connections; every wait has a limit; a message that h11 refuses is
answered once and its connection closed; a response streams with backpressure and keeps one chunk in
memory. A handler gets a whole request and returns a whole `Response`; what it raises is a 500 and is logged.
Times are in seconds.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import h11
import orjson

_log = logging.getLogger(__name__)

_READ_BYTES = 65_536
_LINGER_S = 1.0  # how long a refused sender is read, so that it sees the answer and not a reset


@dataclass(slots=True, frozen=True)
class Request:
    """One request. ``path`` is the target up to ``?``, as it was sent; field names are lower-case."""

    method: bytes
    path: bytes
    query: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a field, by its lower-case name."""
        return next((value for known, value in self.fields if known == name), None)


@dataclass(slots=True, frozen=True)
class Response:
    """One response: a body in memory, or ``chunks`` that together have ``length`` bytes."""

    status: int
    body: bytes = b""
    content_type: bytes = b"text/plain; charset=utf-8"
    fields: tuple[tuple[bytes, bytes], ...] = ()
    chunks: Iterable[bytes] | None = None
    length: int = 0


Handler = Callable[[Request], Awaitable[Response]]


def json_response(status: int, value: object, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """Return `value` as a JSON response with a newline at its end, kind to terminals."""
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return Response(status, body, b"application/json", fields)


@dataclass(slots=True, frozen=True)
class Bounds:
    """What one server accepts. ``request_timeout_s`` counts from a request's first byte to its last;
    ``send_timeout_s`` is for each piece of a response."""

    max_head_bytes: int = 16_384
    max_body_bytes: int = 65_536
    max_connections: int = 64
    idle_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    handler_timeout_s: float = 10.0
    send_timeout_s: float = 10.0


class _RequestError(Exception):
    """The request is answered with this status, and the connection is closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class _Connection:
    """One client's connection and its protocol state."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    bounds: Bounds
    protocol: h11.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=self.bounds.max_head_bytes)

    async def receive(self) -> Request | None:
        """Return the next request; None when the client has no more or sent none in time."""
        if not self.protocol.trailing_data[0]:
            try:
                async with asyncio.timeout(self.bounds.idle_timeout_s):
                    self.protocol.receive_data(await self.reader.read(_READ_BYTES))
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(self.bounds.request_timeout_s):
                return await self._read_request()
        except TimeoutError:
            raise _RequestError(408, "the request did not arrive in time") from None
        except h11.RemoteProtocolError as error:
            raise _RequestError(error.error_status_hint, "the request is not well-formed HTTP/1.1") from None

    async def _read_request(self) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self.protocol.next_event()
            if event is h11.NEED_DATA:
                if self.protocol.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                self.protocol.receive_data(await self.reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self.bounds.max_body_bytes:
                    raise _RequestError(413, f"the body is over {self.bounds.max_body_bytes} bytes")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                path, _, query = head.target.partition(b"?")
                return Request(head.method, path, query, list(head.headers), bytes(body))
            else:  # the client has closed between two requests
                return None

    async def send(self, event: h11.Event) -> None:
        data = self.protocol.send(event)
        if data:
            self.writer.write(data)
            async with asyncio.timeout(self.bounds.send_timeout_s):
                await self.writer.drain()

    async def respond(self, response: Response, bodiless: bool, close: bool) -> None:
        length = response.length if response.chunks is not None else len(response.body)
        fields = [(b"Content-Type", response.content_type)] if length else []
        if response.status not in {204, 304}:
            fields.append((b"Content-Length", b"%d" % length))
        if close:
            fields.append((b"Connection", b"close"))
        await self.send(h11.Response(status_code=response.status, headers=[*fields, *response.fields]))
        if not bodiless:
            for chunk in response.chunks if response.chunks is not None else (response.body,):
                await self.send(h11.Data(data=chunk))
        await self.send(h11.EndOfMessage())

    async def refuse(self, refused: _RequestError) -> None:
        """Answer if an answer can still be sent, then read on for a moment and close."""
        if self.protocol.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        await self.respond(json_response(refused.status, {"error": str(refused)}), False, True)
        if not self.writer.can_write_eof():
            return
        self.writer.write_eof()
        try:
            async with asyncio.timeout(_LINGER_S):
                while await self.reader.read(_READ_BYTES):
                    pass
        except TimeoutError:
            pass

    async def finish(self) -> None:
        """Close once the client has taken what was written, or after the time for that."""
        self.writer.close()
        try:
            async with asyncio.timeout(self.bounds.send_timeout_s):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            pass


class SmallServer:
    """Serves one handler on one address until it is closed."""

    def __init__(self, name: str, handler: Handler, bounds: Bounds) -> None:
        self._name = name
        self._handler = handler
        self._bounds = bounds
        self._server: asyncio.Server | None = None
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, and ``port`` tells which. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def start_on(self, sock: socket.socket) -> None:
        """Listen on a socket that is there."""
        self._server = await asyncio.start_server(self._accepted, sock=sock)
        self.port = sock.getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end every connection. Harmless when called twice or before `start`."""
        self._closing = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing or len(self._tasks) >= self._bounds.max_connections:
            writer.transport.abort()
            return
        connection = _Connection(reader, writer, self._bounds)
        task = asyncio.get_running_loop().create_task(
            self._serve(connection), name=f"{self._name} connection"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: _Connection) -> None:
        clean = False
        try:
            while await self._exchange(connection):
                connection.protocol.start_next_cycle()
            clean = True
        except _RequestError as refused:
            try:
                await connection.refuse(refused)
                clean = True
            except (OSError, TimeoutError):
                pass
        except (OSError, TimeoutError):
            pass  # the client is gone, or takes nothing any more
        finally:
            if clean:
                await connection.finish()
            connection.writer.transport.abort()

    async def _exchange(self, connection: _Connection) -> bool:
        """Serve one request; tell whether another one may follow on this connection."""
        request = await connection.receive()
        if request is None:
            return False
        response = await self._answer(request)
        await connection.respond(response, request.method == b"HEAD", False)
        return connection.protocol.our_state is h11.DONE and connection.protocol.their_state is h11.DONE

    async def _answer(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._bounds.handler_timeout_s):
                return await self._handler(request)
        except Exception:
            _log.exception("%s: a handler failed", self._name)
            return json_response(500, {"error": "internal server error"})
