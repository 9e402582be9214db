"""TLS to backends: one context for each set of settings, made in a thread when it is first needed.

A certificate is verified before a byte of a request leaves, by the system's authorities or a service's own; the
files are looked at again when a connection is opened, and what has changed counts from then on. Files that are
no good any more change nothing for a context that exists, and the log says so. Sessions are resumed: each context
remembers the last one by server name, so none outlives the settings that it was verified under.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import TYPE_CHECKING, Final

from authgate_fast.upstream_tls import UpstreamTlsError, files_of, make_client_context

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context
    from authgate_fast.snapshot import UpstreamTls

_log = logging.getLogger("authgate.upstream_tls")

LOOK_S = 2.0
"""How old what is known of the files may be when a connection is opened."""
MAX_CONTEXTS: Final = 1_024
"""More sets of settings than this are those of services that are gone."""

Signatures = tuple[tuple[int, int, int] | None, ...]


class _Made:
    """What came of one set of settings: a context, or why there is none. ``seen`` are the files it was made from."""

    __slots__ = ("failure", "looked_s", "seen", "tls")

    def __init__(self, tls: ssl.SSLContext | None, failure: str, seen: Signatures, looked_s: float) -> None:
        self.tls = tls
        self.failure = failure
        self.seen = seen
        self.looked_s = looked_s


class TlsContexts:
    """The contexts of one worker."""

    __slots__ = ("_context", "_made", "_making")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: dict[UpstreamTls, _Made] = {}
        self._making: dict[UpstreamTls, asyncio.Future[_Made]] = {}

    async def get(self, settings: UpstreamTls) -> ssl.SSLContext:
        """Return the context for a new connection. Raises UpstreamTlsError."""
        made = self._made.get(settings)
        now_s = self._context.loop.time()
        if made is None or now_s - made.looked_s > LOOK_S:
            seen = _signatures(settings)
            if made is None or made.seen != seen:
                made = await self._make(settings, made, seen)
            else:
                made.looked_s = now_s
        if made.tls is None:
            raise UpstreamTlsError(made.failure)
        return made.tls

    async def _make(self, settings: UpstreamTls, before: _Made | None, seen: Signatures) -> _Made:
        """Make a context once, however many wait for it, and whoever of them leaves."""
        making = self._making.get(settings)
        if making is None:
            making = self._making[settings] = self._context.loop.create_task(
                self._make_in_thread(settings, before, seen), name="upstream-tls"
            )
        return await asyncio.shield(making)

    async def _make_in_thread(self, settings: UpstreamTls, before: _Made | None, seen: Signatures) -> _Made:
        tls: ssl.SSLContext | None = None
        failure = ""
        try:
            tls = await asyncio.to_thread(make_client_context, settings)
        except UpstreamTlsError as error:
            failure = str(error)
            if before is not None and before.tls is not None:
                tls = before.tls
                _log.error("TLS to backends: %s; what was in use before stays in use", failure)
        else:
            if not settings.verify:
                _log.warning(
                    "TLS to backends: verify is false for a service, so anybody can pose as its backend"
                )
            elif before is not None:
                _log.info("TLS to backends: new files are in use: %s", ", ".join(files_of(settings)))
        finally:
            del self._making[settings]
        made = _Made(tls, failure, seen, self._context.loop.time())
        if len(self._made) >= MAX_CONTEXTS and settings not in self._made:
            self._made.clear()
        self._made[settings] = made
        return made


def _signatures(settings: UpstreamTls) -> Signatures:
    """Return what changes whenever one of the files does."""
    found: list[tuple[int, int, int] | None] = []
    for file in files_of(settings):
        try:
            status = os.stat(file)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
