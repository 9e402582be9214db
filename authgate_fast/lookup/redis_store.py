"""Runtime state in Redis: shared by all workers and nodes.

Commands go over at most `max_links` connections, each used by one call at a time; a call that failed closes its own.
One more connection listens: `CLIENT TRACKING ON BCAST` makes Redis name each session and signing keyring that
changed, whoever changed it. When that connection is lost, so may be what it would have told: every time that it is
there again, and after a flush, listeners are told of a gap.

Promises: no call takes longer than `CALL_TIMEOUT_S` (`names`: `NAMES_TIMEOUT_S`), waiting for a free connection
included; every failure is a `StateUnavailableError` of one line without the password. A call that failed may still
have been carried out. `run` returns only by cancellation. The Redis user needs +hello +client +ping +get +set
+del +pexpire +scan +eval, +role behind Sentinels, and ~authgate:*.

Behind Sentinels every connection is to the master that they name; when they name another one, all are given up.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from authgate_fast.config.redis_link import FAILURES, Link, RedisAddress, parse_address, until_one_ends
from authgate_fast.config.redis_texts import TooLarge
from authgate_fast.lookup.store import WATCHED_PREFIXES, StateUnavailableError

MAX_LINKS = 8
MAX_WAITING = 1_000
"""Calls that wait for a connection: with all of them in use, Redis is slow, and more would not help."""
CALL_TIMEOUT_S = 1.5
NAMES_TIMEOUT_S = 10.0
QUIET_S = 1.0
"""After so long without a word the listener pings."""
SILENCE_S = 2.0
"""A ping without an answer for so long: the connection is dead, or Redis is."""
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0
STABLE_S = 1.0
_SCAN_COUNT = 1_000

# GETDEL needs Redis 6.2; a script is atomic on every version.
_TAKE = "local v = redis.call('GET', KEYS[1]) if v then redis.call('DEL', KEYS[1]) end return v"
_SWAP = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
    "if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2]) "
    "else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 1"
)

log = logging.getLogger("authgate.state")


class RedisStateStore:
    """A `StateStore`. Raises `RedisUrlError` for a URL that cannot be used."""

    def __init__(self, url: str, *, max_links: int = MAX_LINKS) -> None:
        address = parse_address(url)
        self.address: RedisAddress = replace(
            address,
            options={
                **address.options,
                "socket_timeout": CALL_TIMEOUT_S,
                "socket_connect_timeout": CALL_TIMEOUT_S,
            },
        )
        self.on_change: list[Callable[[str], None]] = []
        self.on_gap: list[Callable[[], None]] = []
        self.connected = False
        self.last_error: str | None = None
        self._slots = asyncio.Semaphore(max_links)
        self._idle: list[Link] = []
        self._generation = 0  # of connections; those of an older one are not used again
        self._waiting = 0

    async def get(self, name: str) -> bytes | None:
        """Return a value that has not ended, or None."""
        return _value(await self._call("GET", name))

    async def put(self, name: str, value: bytes, ttl_s: float | None) -> None:
        """Set a value; `ttl_s` None means without end."""
        await self._call("SET", name, value, *_end(ttl_s))

    async def add(self, name: str, value: bytes, ttl_s: float | None) -> bool:
        """Set a value only if there is none; tell whether it did."""
        return await self._call("SET", name, value, "NX", *_end(ttl_s)) is not None

    async def take(self, name: str) -> bytes | None:
        """Return a value and delete it: of several callers at once, one gets it."""
        return _value(await self._call("EVAL", _TAKE, 1, name))

    async def swap(self, name: str, old: bytes, new: bytes, ttl_s: float | None) -> bool:
        """Set a value only if it is still `old`; tell whether it did."""
        end = "" if ttl_s is None else _milliseconds(ttl_s)
        return bool(await self._call("EVAL", _SWAP, 1, name, old, new, end))

    async def delete(self, name: str) -> bool:
        """Delete a value; tell whether there was one."""
        return bool(await self._call("DEL", name))

    async def touch(self, name: str, ttl_s: float) -> bool:
        """Move a value's end to `ttl_s` from now; tell whether there is one."""
        return bool(await self._call("PEXPIRE", name, _milliseconds(ttl_s)))

    async def names(self, prefix: str, limit: int) -> list[str]:
        """Return the names that start with `prefix`, at most `limit`, in no order."""
        pattern = "".join(f"\\{c}" if c in "\\*?[]" else c for c in prefix) + "*"
        found: dict[str, None] = {}
        cursor: bytes | int = 0
        end = time.monotonic() + NAMES_TIMEOUT_S
        while len(found) < limit:
            cursor, keys = await self._call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            found.update(dict.fromkeys(key.decode("utf-8", "replace") for key in keys))
            if not int(cursor):
                break
            if time.monotonic() > end:
                raise StateUnavailableError(
                    f"Redis at {self.address.shown} holds so many keys that a search took too long"
                )
        return list(found)[:limit]

    async def run(self) -> None:
        """Listen for changes until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = time.monotonic()
            try:
                await self._listen()
            except FAILURES as error:
                self._note_failure(error)
            except Exception as error:  # a mistake of ours: start over, which tells of a gap
                log.error("a change of state could not be taken in; this is a bug", exc_info=error)
            finally:
                was_connected, self.connected = self.connected, False
                await self.close()
            if was_connected and time.monotonic() - started > STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    async def close(self) -> None:
        """Give up all connections, those in use after their call; a call after it makes new ones."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for link in idle:
            await link.close()

    def status(self) -> dict[str, object]:
        """What /status shows of the store."""
        return {
            "type": "redis",
            "redis": self.address.shown,
            "connected": self.connected,
            "last_error": self.last_error,
        }

    async def _call(self, *command: str | bytes | int) -> Any:
        if self._waiting >= MAX_WAITING:
            raise StateUnavailableError(
                f"Redis at {self.address.shown} is too slow: too many calls wait for it"
            )
        link: Link | None = None
        generation = self._generation
        self._waiting += 1
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S), self._slots:
                link = await self._take_idle()
                if link is None:
                    link = Link(self.address, "authgate-state")
                    await link.open()
                reply = await link.call(*command)
                if generation == self._generation:
                    self._idle.append(link)
                    link = None
                return reply
        except FAILURES as error:
            raise StateUnavailableError(self.address.explain(error)) from None
        finally:
            self._waiting -= 1
            if link is not None:
                await link.close()

    async def _take_idle(self) -> Link | None:
        """Return a connection that still stands; those that do not are closed."""
        while self._idle:
            link = self._idle.pop()
            if link.is_open:
                return link
            await link.close()
        return None

    def _note_failure(self, error: BaseException) -> None:
        said = self.address.explain(error)
        if said != self.last_error:
            log.warning("%s; sessions and logins wait until it is back, trying again", said)
        self.last_error = said

    async def _listen(self) -> None:
        """Live through one connection; ends by raising."""
        listener = Link(self.address, "authgate-state-listen")
        try:
            await listener.open()
            prefixes = [word for prefix in WATCHED_PREFIXES for word in ("PREFIX", prefix)]
            await listener.call("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            self.connected = True
            if self.last_error is not None:
                log.warning("following Redis at %s again", self.address.shown)
            self.last_error = None
            self._tell_gap()
            tasks = [asyncio.create_task(self._take_changes(listener), name="state-listen")]
            if self.address.sentinels is not None and listener.master is not None:
                watch = self.address.sentinels.watch(listener.master)
                tasks.append(asyncio.create_task(watch, name="state-sentinels"))
            await until_one_ends(*tasks)
        finally:
            await listener.close()

    async def _take_changes(self, listener: Link) -> None:
        is_pinged = False
        while True:
            reply = await listener.receive(SILENCE_S if is_pinged else QUIET_S)
            if reply is None:
                if is_pinged:
                    raise RedisTimeoutError(f"no answer to a ping for {SILENCE_S:g} seconds")
                await listener.send("PING")
            is_pinged = reply is None
            if isinstance(reply, list) and reply[0] == b"invalidate":
                self._tell(reply[1])

    def _tell(self, names: list[bytes] | None) -> None:
        if names is None:  # FLUSHDB, FLUSHALL
            self._tell_gap()
            return
        for name in names:
            for listener in self.on_change:
                listener(name.decode("utf-8", "replace"))

    def _tell_gap(self) -> None:
        for listener in self.on_gap:
            listener()


def _value(reply: Any) -> bytes | None:
    if isinstance(reply, TooLarge):
        raise StateUnavailableError(f"a value in Redis is too large ({reply.size} bytes); it is not ours")
    value: bytes | None = reply
    return value


def _milliseconds(ttl_s: float) -> int:
    return max(ceil(ttl_s * 1_000), 1)


def _end(ttl_s: float | None) -> tuple[str | int, ...]:
    return () if ttl_s is None else ("PX", _milliseconds(ttl_s))
