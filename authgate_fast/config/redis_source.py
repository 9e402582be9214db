"""Keeps a `Configuration` equal to what Redis holds, and keeps it good while Redis is not.

Sync. One connection listens: `CLIENT TRACKING ON BCAST` with the four prefixes makes Redis name every changed
key, whoever changed it. A second one reads. Start: subscribe, then read all, so that nothing falls between.
A change: its keys are gathered for `COLLECT_S`, read, applied. Whatever ends a connection (silence too: the
listener pings) ends both; the last good configuration stays in force, and after a pause that grows the whole
begins again, with a full read. Every `compare_interval_s` a full read, with pauses, finds what was missed.

Emptiness. A full read that finds no document, while some are in force (or saved in the state directory), is
believed only when it is somebody's word: Redis is still on the replication history (`master_replid`) under
which the documents were read, or it told of a flush on the history of the last read. Otherwise it has
lost its data (a restart without persistence, a replica that followed such a master, the wrong server): the
last good configuration stays, the log says what to do, and `suspect_empty` is set until documents appear
again, which then replace all, or until a FLUSHDB says that it is meant. What is deleted one by one is gone.

Sentinel. Both connections are to the master that the Sentinels name and that says so itself; when they name another,
or it is lost, both end and the new master is read whole. A failover begins a new history, so a promoted replica
that is empty (it had not copied its master yet) is not believed, and one that has documents is simply read.

Promises: `run` returns only by cancellation, and lets a change that it has begun to apply come to its end
first. Every wait is bounded. The loop is never held longer than one page or one step takes. The password is
in no message. The Redis user needs +hello +ping +scan +mget +type +info +client, +role
behind Sentinels, and ~authgate:*.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from contextlib import aclosing
from itertools import chain
from typing import TYPE_CHECKING, Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from authgate_fast.config.full_read import FullRead, KnownNames, NewNames
from authgate_fast.config.keys import KEY_PREFIXES, DocumentKey
from authgate_fast.config.pages import take_consumers
from authgate_fast.config.redis_link import (
    FAILURES,
    Link,
    RedisUrlError,
    SentinelError,
    parse_address,
    until_one_ends,
)
from authgate_fast.config.redis_read import PAGE_KEYS, KeyReader, fetch, read_history, read_pages

if TYPE_CHECKING:
    from authgate_fast.config.compile import Steps
    from authgate_fast.config.pages import Page
    from authgate_fast.config.redis_read import Names
    from authgate_fast.config.state_dir import StateDir
    from authgate_fast.config.store import Configuration, Raw

__all__ = ["RedisSource", "RedisUrlError"]

COMPARE_INTERVAL_S = 60.0
COLLECT_S = 0.002
"""How long changed keys are gathered: a pipeline of many writes becomes one change."""
REST = 3.0
"""A change that follows another waits for so many times as long as that one took: all routes of a gateway are compiled
anew for one of them, and a stream of such changes must leave most of a worker to the requests."""
MAX_REST_S = 0.025
"""A change is to be live within 50 ms, also in a stream of them."""
SETTLE_S = 0.5
"""The same while an empty Redis is being filled again: half of a configuration is worse than the old one."""
MAX_SETTLE_S = 5.0
MANY_CHANGES = 5_000
"""So many that a full read has found are not gathered further: consumers come in force while it goes on. A few thousand
are one change, as a deployment meant them; a million would not fit beside themselves. Those that are gone go last, so a
key that moved between two parts is a clash until then."""
PAUSE_S = 0.002
"""Between two pages of a comparison, which is in no hurry."""
QUIET_S = 1.0
"""After so long without a word the listener pings; so does the reader, so that no firewall forgets it."""
SILENCE_S = 4.0
"""A ping without an answer for so long: the connection is dead, or Redis is."""
STATE_GRACE_S = 1.0
"""How long a start waits for Redis before it serves the documents of the last run."""
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0
STABLE_S = 1.0
"""A connection that lived so long lets the next pause be a short one again."""

log = logging.getLogger("authgate.redis")


class RedisSource:
    """Follows one Redis. Raises `RedisUrlError` for a URL that cannot be used.

    ``connected``: changes are told to us, and all was read since they are. ``last_sync_at``: when a read was
    last applied, in seconds since the epoch. ``last_error``: why Redis cannot be followed, None while it is.
    """

    def __init__(
        self,
        url: str,
        configuration: Configuration,
        state_dir: StateDir | None = None,
        compare_interval_s: float = COMPARE_INTERVAL_S,
    ) -> None:
        self.address = parse_address(url)
        self.connected = False
        self.suspect_empty = False
        self.last_sync_at: float | None = None
        self.last_error: str | None = None
        self._configuration = configuration
        self._state_dir = state_dir
        self._compare_interval_s = compare_interval_s
        self._master: str | None = None
        self._current_at: float | None = None
        self._loads = 0
        self._apply_lock = asyncio.Lock()
        self._outcome = asyncio.Event()  # the first attempt to follow Redis has succeeded or failed
        # What the listener was told and what is not read yet.
        self._wake = asyncio.Event()
        self._dirty: set[bytes] = set()
        self._is_flushed = False
        # Of all connections together.
        self._keys = KeyReader(configuration)
        self._history_read: bytes | None = None
        self._history_of_documents: bytes | None = None

    @property
    def sync_lag_s(self) -> float | None:
        """Seconds since the configuration was last known to be what Redis holds; None: never yet."""
        return None if self._current_at is None else time.monotonic() - self._current_at

    def status(self) -> dict[str, object]:
        """What /status tells about this source."""
        lag_s = self.sync_lag_s
        return {
            "type": "redis",
            "redis": self.address.shown,
            **({} if self.address.sentinels is None else {"master": self._master}),
            "connected": self.connected,
            "last_sync_at": self.last_sync_at,
            "sync_lag_s": None if lag_s is None else round(lag_s, 3),
            "suspect_empty": self.suspect_empty,
            "last_error": self.last_error,
        }

    async def run(self) -> None:
        """Follow Redis until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="redis-follow")
            if self._state_dir is not None:
                group.create_task(self._fall_back(), name="redis-fall-back")
                group.create_task(self._state_dir.run(self._configuration.documents), name="state-dir")

    async def _fall_back(self) -> None:
        """Serve the documents of the last run if Redis does not give others at once."""
        try:
            async with asyncio.timeout(STATE_GRACE_S):
                await self._outcome.wait()
        except TimeoutError:
            pass
        await self._load_saved()

    async def _load_saved(self) -> None:
        """Put the documents of the last run in force, unless there are others already."""
        state_dir = self._state_dir
        if state_dir is None or self._configuration.snapshot.ready:
            return
        documents = await asyncio.to_thread(state_dir.load)
        async with self._apply_lock:
            if documents and not self._configuration.snapshot.ready:
                await _finish(self._configuration.replace_all_steps(documents))
                self._loads += 1
                log.warning("serving the %d documents saved in %s", len(documents), state_dir.path)

    async def _follow(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = time.monotonic()
            try:
                await self._session()
            except Exception as error:
                self._note_failure(error)
            finally:
                was_connected, self.connected = self.connected, False
            if was_connected and time.monotonic() - started > STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    def _note_failure(self, error: BaseException) -> None:
        if isinstance(error, FAILURES):
            said = self.address.explain(error)
            if said != self.last_error:
                log.warning("%s; the last good configuration stays in force, trying again", said)
            self.last_error = said
        else:
            # A mistake of ours. To stop following Redis, or to stop the worker, would turn a change that
            # cannot be taken in into an outage, so it is shown as loudly as a log can and tried again.
            self.last_error = f"internal error: {type(error).__name__}"
            log.error("a change from Redis could not be taken in; this is a bug", exc_info=error)
        self._outcome.set()

    async def _session(self) -> None:
        """Live through one pair of connections; ends by raising."""
        listener, reader = Link(self.address, "authgate-listen"), Link(self.address, "authgate-read")
        try:
            await listener.open()
            await reader.open()
            prefixes = [word for prefix in KEY_PREFIXES for word in ("PREFIX", prefix)]
            await listener.call("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            if listener.master != reader.master:
                raise SentinelError("a failover is under way")
            tasks = [
                asyncio.create_task(self._listen(listener), name="redis-listen"),
                asyncio.create_task(self._synchronise(reader), name="redis-read"),
            ]
            if self.address.sentinels is not None and reader.master is not None:
                watch = self.address.sentinels.watch(reader.master)
                tasks.append(asyncio.create_task(watch, name="redis-sentinels"))
                self._master = f"{reader.master.host}:{reader.master.port}"
            await until_one_ends(*tasks)
        finally:
            await listener.close()
            await reader.close()

    async def _listen(self, listener: Link) -> None:
        is_pinged = False
        while True:
            reply = await listener.receive(SILENCE_S if is_pinged else QUIET_S)
            if reply is None:
                if is_pinged:
                    raise RedisTimeoutError(f"no answer to a ping for {SILENCE_S:g} seconds")
                is_pinged = True
                await listener.send("PING")
                continue
            is_pinged = False
            if isinstance(reply, list):
                self._take_push(reply)
            elif self.connected and not self._wake.is_set() and not self.suspect_empty:
                self._current_at = time.monotonic()

    def _take_push(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            self._is_flushed = True
        else:
            self._dirty.update(push[1])
        self._wake.set()

    async def _synchronise(self, reader: Link) -> None:
        await self._read_all(reader)
        self.connected = True
        if self.last_error is not None:
            log.warning("following Redis at %s again", self.address.shown)
        elif not self._outcome.is_set():
            documents = len(self._configuration.documents)
            log.info("following Redis at %s: %d documents", self.address.shown, documents)
        self.last_error = None
        self._outcome.set()
        loop = asyncio.get_running_loop()
        compare_at = loop.time() + self._compare_interval_s
        rested_at = 0.0
        while True:
            now = loop.time()
            if now >= compare_at:
                await self._read_all(reader, PAUSE_S)
                compare_at = loop.time() + self._compare_interval_s
                continue
            try:
                async with asyncio.timeout(min(compare_at - now, QUIET_S)):
                    await self._wake.wait()
            except TimeoutError:
                await reader.call("PING")
                continue
            await self._gather(rested_at)
            begun = loop.time()
            if self._is_flushed or self.suspect_empty:
                await self._read_all(reader)
            else:
                await self._read_changes(reader)
            ended = loop.time()
            rested_at = ended + min(REST * (ended - begun), MAX_REST_S)

    async def _gather(self, rested_at: float) -> None:
        """Wait until a burst of writes is likely to be over, and requests have had their share of the loop."""
        if not self.suspect_empty:
            await asyncio.sleep(max(COLLECT_S, rested_at - asyncio.get_running_loop().time()))
            return
        end = time.monotonic() + MAX_SETTLE_S
        while self._wake.is_set() and not self._is_flushed and time.monotonic() < end:
            self._wake.clear()
            await asyncio.sleep(SETTLE_S)

    async def _read_changes(self, reader: Link, malformed: set[bytes] | None = None) -> Page:
        """Read and apply what the listener has named; return it, and add to `malformed` what names no document."""
        self._wake.clear()
        raw_keys, self._dirty = self._dirty, set()
        named = self._keys.parse(raw_keys, malformed)
        page: Page = []
        for start in range(0, len(named), PAGE_KEYS):
            page += await fetch(reader, named[start : start + PAGE_KEYS])
        await self._keys.recheck(reader, raw_keys)
        await self._apply(dict(page))
        self._note_sync()
        return page

    async def _read_all(self, reader: Link, pause_s: float = 0.0) -> None:
        while not await self._scan(reader, pause_s):
            pass

    async def _scan(self, reader: Link, pause_s: float) -> bool:
        """Read all once and apply what differs; False: Redis was flushed meanwhile, so read it again."""
        was_flushed, self._is_flushed = self._is_flushed, False
        self._wake.clear()
        self._dirty.clear()
        history = await read_history(reader)
        in_force = self._configuration.documents
        found = FullRead()
        loads = self._loads
        known = in_force.pages(PAGE_KEYS)
        new_names = NewNames(self._configuration, self._keys, found)
        if not await self._read_pages(reader, new_names, found, pause_s):
            return False
        # In an empty Redis nobody asks for a million documents by name, at every comparison again.
        known_names = KnownNames(self._configuration, known, found)
        if found.has_names and not await self._read_pages(reader, known_names, found, pause_s):
            return False
        if not found.has_text:
            await self._load_saved()
            if not self._is_emptiness_meant(history, was_flushed):
                self._history_read = history
                self._suspect()
                return True
            if not found.has_names:
                found.changes.update(dict.fromkeys(chain(in_force, self._configuration.bad)))
        missed = found.missed + self._not_refused(found.changes)
        if missed and self.connected and not was_flushed and not self.suspect_empty:
            log.info("the comparison with Redis found %d missed changes", missed)
        await self._apply(found.changes, is_all=True)
        self._keys.forget_all_but(in_force, found.malformed)
        if loads != self._loads:
            return False  # documents of the last run have come in force meanwhile, and nobody has looked for them
        self._note_sync()
        self._history_read = self._history_of_documents = history
        self.suspect_empty = False
        return True

    async def _read_pages(self, reader: Link, names: Names, found: FullRead, pause_s: float) -> bool:
        """Read documents page by page, and gather what differs; False: Redis was flushed meanwhile.

        The first read of a connection asks for a page ahead. What it holds then may be older than a change, but none
        is overtaken: until that read has ended and all of it is applied, changes are only gathered
        (`_read_changes` comes later), so each is read again after whatever was read before it was told.
        """
        many = len(found.changes) + MANY_CHANGES
        async with aclosing(read_pages(reader, names, ahead=not self.connected)) as pages:
            async for page in pages:
                found.note(page)
                rest = page
                if not self._configuration.snapshot.ready:
                    # Nobody is served yet, and all that comes is one batch, whatever its parts are.
                    consumers, rest = take_consumers(page)
                    if consumers:
                        await self._apply(consumers)
                found.changes.update(self._configuration.differing(rest))
                await asyncio.sleep(pause_s)
                if self._is_flushed:
                    return False
                if self._wake.is_set() and self.connected and not self.suspect_empty:
                    # A change does not wait for a comparison to end, and what it has read is newer.
                    found.overtake(await self._read_changes(reader, found.malformed))
                if len(found.changes) >= many:
                    present = found.take_present_consumers()
                    found.missed += self._not_refused(present)
                    await self._apply(present)
                    many = len(found.changes) + MANY_CHANGES
        return True

    def _not_refused(self, changes: Iterable[DocumentKey]) -> int:
        refused = self._configuration.bad
        return sum(key not in refused for key in changes)

    def _is_emptiness_meant(self, history: bytes | None, was_flushed: bool) -> bool:
        if not self._configuration.documents or not self._configuration.snapshot.ready:
            return True
        if history is not None and history == self._history_of_documents:
            return True
        return was_flushed and history == self._history_read

    def _suspect(self) -> None:
        if not self.suspect_empty:
            log.error(
                "Redis at %s answers, but all documents are gone: it has lost its data, or it is another "
                "Redis. The last good configuration (%d documents) stays in force. Write the documents back "
                "(authgate apply FILE --redis URL); if Redis is meant to be empty, say so with FLUSHDB.",
                self.address.shown,
                len(self._configuration.documents),
            )
        self.suspect_empty = True

    async def _apply(self, changes: dict[DocumentKey, Raw] | Page, *, is_all: bool = False) -> None:
        """Put documents in force; a page may hold consumers only."""
        async with self._apply_lock:
            configuration = self._configuration
            revision = configuration.revision
            if isinstance(changes, list):
                await _finish(configuration.take_consumers_steps(changes))
            elif changes or (is_all and not configuration.snapshot.ready):
                await _finish(configuration.apply_steps(changes, becomes_ready=is_all))
            is_whole = configuration.snapshot.ready
            if self._state_dir is not None and is_whole and configuration.revision != revision:
                self._state_dir.note_change()

    def _note_sync(self) -> None:
        """Note that what is in force is what Redis held a moment ago."""
        self.last_sync_at = time.time()
        self._current_at = time.monotonic()


async def _finish(steps: Steps) -> None:
    """Run the steps with the loop's other work in between; a cancellation comes after their end."""
    try:
        for _ in steps:
            await asyncio.sleep(0)
    finally:
        for _ in steps:
            pass
