"""The ops listener: health, readiness, status and metrics on a port of its own, loopback by default.

It asks the node through three functions and knows nothing else of it, so it answers while Redis is away
and before the first configuration. It never carries proxied traffic. Nothing here needs a credential: whoever
can reach the port may read ``/status`` and ``/metrics``, which hold no secret.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from authgate_fast.observe.exposition import CONTENT_TYPE, Family, render
from authgate_fast.server.listening import Address, listen_error
from authgate_fast.server.small_http import Bounds, Request, Response, SmallServer, json_response

_READ_ONLY = ((b"Allow", b"GET, HEAD"),)
_NO_STORE = ((b"Cache-Control", b"no-store"),)
_BOUNDS = Bounds(max_head_bytes=8_192, max_body_bytes=4_096, max_connections=64)
_PATHS = frozenset({b"/healthz", b"/readyz", b"/status", b"/metrics"})

_T = TypeVar("_T")


class OpsServer:
    """Answers ``/healthz``, ``/readyz``, ``/status`` and ``/metrics``.

    `status` returns what ``/status`` shows, as JSON can hold it; `metrics` what ``/metrics`` does. `ready`
    tells whether traffic should be sent here: there is a snapshot, and the node is not draining.
    """

    def __init__(
        self,
        status: Callable[[], dict[str, object] | Awaitable[dict[str, object]]],
        ready: Callable[[], bool],
        metrics: Callable[[], list[Family] | Awaitable[list[Family]]],
    ) -> None:
        self._status = status
        self._ready = ready
        self._metrics = metrics
        self._server = SmallServer("ops", self._handle, _BOUNDS)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._server.port

    async def listen(self, address: Address | None, passed: list[socket.socket] | None = None) -> None:
        """Listen on the sockets that were passed, or else on `address`, or nowhere. Raises ListenError."""
        if passed:
            await self._server.start_on(passed[0])
        elif address is not None:
            try:
                await self._server.start(address.host, address.port)
            except OSError as error:
                raise listen_error("--ops", address, error) from error

    async def start(self, host: str, port: int) -> None:
        """Listen on `host` and `port` (0: a free one). Raises OSError."""
        await self._server.start(host, port)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self._server.close()

    async def _handle(self, request: Request) -> Response:
        if request.path not in _PATHS:
            return json_response(
                404, {"error": "there are /healthz, /readyz, /status and /metrics"}, _NO_STORE
            )
        if request.method not in {b"GET", b"HEAD"}:
            return json_response(405, {"error": "only GET and HEAD"}, _READ_ONLY + _NO_STORE)
        if request.path == b"/status":
            return json_response(200, await _value(self._status()), _NO_STORE)
        if request.path == b"/metrics":
            return Response(200, render(await _value(self._metrics())), CONTENT_TYPE, _NO_STORE)
        if request.path == b"/healthz":
            return Response(200, b"ok\n", fields=_NO_STORE)
        if self._ready():
            return Response(200, b"ready\n", fields=_NO_STORE)
        return Response(503, b"not ready: no configuration yet, or draining\n", fields=_NO_STORE)


async def _value(given: _T | Awaitable[_T]) -> _T:
    """Return a value that is there, or that comes."""
    return await given if inspect.isawaitable(given) else given
