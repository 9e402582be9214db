"""Browser sessions: found in the store, kept true in memory, renewed, ended (DESIGN section 7, BFF).

What a worker remembers is checked against the store at least every `CHECK_S` while it is used, and at once when the
store tells of a change; a session that is over is never remembered again. With the store away, one that is known
goes on for `GRACE_S` after its last check, then nobody can tell whether it still is one: 503.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from authgate_fast.auth.bff import RECHECK_S, digest_of_name
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.login import new_secret
from authgate_fast.auth.session import (
    Record,
    SealError,
    Session,
    open_record,
    seal_record,
    session_key,
    session_name,
)
from authgate_fast.auth.tokens import TokenError
from authgate_fast.auth.user_lines import UnusableClaimError
from authgate_fast.errors import Reason
from authgate_fast.lookup.session_index import SessionIndex
from authgate_fast.lookup.session_refresh import RETRY_S, RefreshFailedError, Renewer
from authgate_fast.lookup.store import StateUnavailableError

if TYPE_CHECKING:
    from authgate_fast.auth.bff import BffAuthenticator, SessionLookup
    from authgate_fast.lookup.issuer import Issuers
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.snapshot import Identity

GRACE_S = 60.0
"""How long a session is believed in that the store could not be asked about: DESIGN's minute."""
PATIENCE_S = 2.0
"""How long a request waits for a new token while the old one is still good."""
MAX_READS = 3
"""A record that changes each time while it is read is used for this one request and not remembered."""
CLOSE_S = 5.0
HELD_S = 30.0
"""How long work may take that is finished although its client left: longer than its calls together."""
MAX_HELD = 1_000
"""So many at once: clients that leave make room for others, whose work would be held too."""

_Outcome = TypeVar("_Outcome")

log = logging.getLogger("authgate.sessions")


class Sessions:
    """All sessions that this worker has to do with. One task at a time checks a session, one renews it."""

    def __init__(self, store: StateStore, issuers: Issuers, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.renewer = Renewer(store, issuers, clock)
        self.index = SessionIndex(store)
        self._authenticators: dict[str, BffAuthenticator] = {}
        self._reading: dict[str, Session] = {}
        self._checks: dict[str, asyncio.Task[Session | None]] = {}
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._rechecks: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Task[Any]] = set()
        store.on_change.append(self._changed)
        store.on_gap.append(self._missed)

    # --- for requests -----------------------------------------------------------------------------------------

    async def find(self, authenticator: BffAuthenticator, lookup: SessionLookup) -> Identity | Denial:
        """Answer a look-up of the plan."""
        try:
            session = await self.session_of(authenticator, lookup.cookie)
        except RefreshFailedError as error:
            return Denial(Reason.AUTH_UNAVAILABLE, why=str(error))
        if session is None or session.identity is None:
            return authenticator.refuse(lookup)
        return session.identity

    async def session_of(self, authenticator: BffAuthenticator, cookie: bytes) -> Session | None:
        """Return the live session of a well-formed cookie. Raises RefreshFailedError, StateUnavailableError."""
        digest = sha256(cookie).digest()
        if digest in authenticator.dead:
            return None
        self._authenticators[authenticator.gateway] = authenticator
        session = authenticator.sessions.get(digest)
        if session is None or self._clock() >= session.good_until:
            name = session_name(authenticator.gateway, cookie)
            session = await _shared(
                self._checks, name, lambda: self._check(authenticator, cookie, digest, name)
            )
        if session is not None and session.refresh_at <= self._clock():
            await self._renewed(authenticator, session, digest)
        return None if session is None or session.ended else session

    async def begin(self, authenticator: BffAuthenticator, record: Record) -> bytes:
        """Store a new session; return the cookie's value.

        Raises SealError if the provider's tokens are too large, TokenError if a logout came in between.
        """
        cookie = new_secret().encode("ascii")
        gateway = authenticator.gateway
        name = session_name(gateway, cookie)
        value = seal_record(session_key(cookie), name, record)
        await self.index.add(gateway, record, name, float(authenticator.settings.absolute_ttl_s))
        await self._store.put(name, value, self._idle_s(authenticator, record.ends_at))
        if not await self.index.holds(gateway, record, name):
            await self._store.delete(name)
            raise TokenError("the user was logged out at the same moment")
        return cookie

    async def end(self, authenticator: BffAuthenticator, cookie: bytes) -> Record | None:
        """End the session of a cookie, here and everywhere; return what it was."""
        name = session_name(authenticator.gateway, cookie)
        value = await self._store.take(name)
        digest = sha256(cookie).digest()
        if value is not None or digest in authenticator.sessions or name in self._reading:
            self._bury(
                authenticator, digest, name
            )  # and not what was made up, or it would crowd out the others
        if value is None:
            return None
        try:
            return open_record(session_key(cookie), name, value)
        except SealError:
            return None

    def has_ended(self, session: Session) -> bool:
        """Tell whether a session is over; ask the store again in the background. A stream alone keeps none alive."""
        now = self._clock()
        if session.ended or session.ends_at <= now or now - session.checked_at > GRACE_S:
            return True
        if now >= session.recheck_at:
            session.recheck_at = now + RETRY_S
            task = asyncio.get_running_loop().create_task(self._recheck(session), name="session-recheck")
            self._rechecks.add(task)
            task.add_done_callback(self._rechecks.discard)
        return False

    async def hold(self, work: Coroutine[None, None, _Outcome]) -> _Outcome:
        """Await what must not be left half done: whoever waits may leave, it goes on. Bounded in time and number.

        Raises StateUnavailableError if too much is under way, TimeoutError if it took too long.
        """
        if len(self._held) >= MAX_HELD:
            work.close()
            raise StateUnavailableError("too many logins and logouts are under way")
        task = asyncio.get_running_loop().create_task(_bounded(work), name="session-held")
        self._held.add(task)
        task.add_done_callback(self._let_go)
        return await asyncio.shield(task)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._held.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def close(self) -> None:
        """Let what must not be left half done come to its end, in a bounded time; the rest is given up."""
        due: list[asyncio.Task[Any]] = [*self._renewals.values(), *self._held]
        if due:
            await asyncio.wait(due, timeout=CLOSE_S)
        tasks = [*self._renewals.values(), *self._held, *self._checks.values(), *self._rechecks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what the store tells -----------------------------------------------------------------------------------

    def _changed(self, name: str) -> None:
        found = digest_of_name(name)
        if found is None:
            return
        authenticator = self._authenticators.get(found[0])
        known = None if authenticator is None else authenticator.sessions.get(found[1])
        for session in (known, self._reading.get(name)):
            if session is not None:
                session.told = True
                session.good_until = session.recheck_at = 0.0
                session.touched_at = self._clock()  # whoever changed it has moved its end, so we need not

    def _missed(self) -> None:
        for authenticator in self._authenticators.values():
            for session in authenticator.sessions.values():
                session.good_until = session.recheck_at = 0.0
        for session in self._reading.values():
            session.told = True

    def _bury(self, authenticator: BffAuthenticator, digest: bytes, name: str) -> None:
        authenticator.bury(digest)
        reading = self._reading.get(name)
        if reading is not None:
            reading.end()

    # --- checking -------------------------------------------------------------------------------------------------

    async def _check(
        self, authenticator: BffAuthenticator, cookie: bytes, digest: bytes, name: str
    ) -> Session | None:
        session = authenticator.sessions.get(digest)
        if session is None:
            session = Session(name, session_key(cookie))
        was_told = session.told
        self._reading[name] = session
        try:
            alive = await self._read(authenticator, session)
        except StateUnavailableError:
            now = self._clock()
            session.told = session.told or was_told
            grace_ends_at = min(session.checked_at + GRACE_S, session.ends_at)
            if session.told or session.ended or now >= grace_ends_at:
                raise
            session.good_until = min(now + RETRY_S, grace_ends_at, session.refresh_at)
            return session
        finally:
            del self._reading[name]
        if not alive or session.ended:
            session.end()
            authenticator.bury(digest)
            return None
        if not session.told:
            authenticator.rely_on(session, self._clock())
            authenticator.remember(digest, session)
        return session

    async def _read(self, authenticator: BffAuthenticator, session: Session) -> bool:
        """Bring `session` up to what the store has; tell whether it is alive."""
        for _ in range(MAX_READS):
            session.told = False
            value = await self._store.get(session.name)
            if value is None or not self._take_over(authenticator, session, value):
                return False
            now = self._clock()
            if session.ends_at <= now:
                await self._store.delete(session.name)
                return False
            if now - session.touched_at >= authenticator.touch_s:
                if not await self._store.touch(session.name, self._idle_s(authenticator, session.ends_at)):
                    return False
                session.touched_at = now
            if not session.told:
                break
        return True

    def _take_over(self, authenticator: BffAuthenticator, session: Session, value: bytes) -> bool:
        """Put what the store holds into `session`; False if that is not for us."""
        sealed = sha256(value).digest()
        if sealed == session.sealed:
            return True
        settings = authenticator.settings
        try:
            record = open_record(session.key, session.name, value)
            if (record.issuer, record.client_id) != (settings.issuer, settings.client_id):
                return False  # the gateway has another provider now
            authenticator.fill(session, record)
        except (SealError, UnusableClaimError) as error:
            log.warning("a session is of no use: %s", error)
            return False
        session.sealed = sealed
        return True

    def _idle_s(self, authenticator: BffAuthenticator, ends_at: float) -> float:
        return max(min(float(authenticator.settings.idle_ttl_s), ends_at - self._clock()), 0.001)

    async def _recheck(self, session: Session) -> None:
        """Ask the store about a session that a stream uses. Its idle end stays where it is."""
        try:
            value = await self._store.get(session.name)
        except StateUnavailableError:
            return
        if value is None:
            session.end()
            found = digest_of_name(session.name)
            authenticator = self._authenticators.get(found[0]) if found is not None else None
            if found is not None and authenticator is not None:
                self._bury(authenticator, found[1], session.name)
            return
        session.checked_at = self._clock()
        session.recheck_at = session.checked_at + RECHECK_S

    # --- renewing -------------------------------------------------------------------------------------------------

    async def _renewed(self, authenticator: BffAuthenticator, session: Session, digest: bytes) -> None:
        """Wait for a new access token; while the old one is good, only a little. Raises RefreshFailedError."""
        name = session.name
        task = self._renewals.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._renew(authenticator, session, digest), name="session-renewal"
            )
            self._renewals[name] = task
            task.add_done_callback(lambda done: _retrieve(self._renewals, name, done))
        is_good = self._clock() < session.access_ends_at
        await asyncio.wait({task}, timeout=PATIENCE_S if is_good else None)
        now = self._clock()
        error = task.exception() if task.done() and not task.cancelled() else None
        if session.ended or (task.done() and error is None):
            return
        if error is not None and (
            now >= session.access_ends_at or not isinstance(error, RefreshFailedError | StateUnavailableError)
        ):
            raise error
        if now >= session.access_ends_at:
            raise RefreshFailedError("the access token has ended, and no new one came in time")
        if not session.told:
            session.good_until = min(now + RETRY_S, session.access_ends_at, session.ends_at)

    async def _renew(self, authenticator: BffAuthenticator, session: Session, digest: bytes) -> None:
        try:
            value = await self.renewer.renew(authenticator.settings, session.name, session.key)
        except SealError as error:
            log.warning("a session is of no use: %s", error)
            value = None
        except RefreshFailedError as error:
            log.warning("a token was not renewed: %s", error)
            raise
        if value is None or not self._take_over(authenticator, session, value):
            self._bury(authenticator, digest, session.name)
            session.end()
        elif not session.ended:
            session.touched_at = self._clock()
            authenticator.rely_on(session, session.touched_at)


async def _bounded(work: Coroutine[None, None, _Outcome]) -> _Outcome:
    async with asyncio.timeout(HELD_S):
        return await work


async def _shared(
    tasks: dict[str, asyncio.Task[Session | None]],
    name: str,
    start: Callable[[], Coroutine[None, None, Session | None]],
) -> Session | None:
    """Await the one task of a name. Whoever waits may leave; the task goes on."""
    task = tasks.get(name)
    if task is None:
        task = tasks[name] = asyncio.get_running_loop().create_task(start(), name="session-check")
        task.add_done_callback(lambda done: _retrieve(tasks, name, done))
    return await asyncio.shield(task)


def _retrieve(tasks: dict[str, asyncio.Task[_Outcome]], name: str, task: asyncio.Task[_Outcome]) -> None:
    del tasks[name]
    if not task.cancelled():
        task.exception()  # whoever waited has it
