"""Password checks off the loop: a thread of low priority, and a bounded queue in front of it.

One check costs some 25 ms of CPU (`auth.password`), so 500 first logins at once are seconds of work. They must not
slow other traffic, so there is one thread for a worker, and it gives way to the loop's. They must not be bought by
guessing: a caller that has failed too often is refused again when its turn comes, callers take turns by address, and
equal checks at the same time are one. Everything here runs on the loop, but for `_find_match`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm

from authgate_fast.auth.failures import address_name
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.password import hashes_to_try, identity_of, stand_in, verify_password
from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.auth.basic import PasswordLookup
    from authgate_fast.auth.failures import FailureGuard
    from authgate_fast.snapshot import Identity, User

THREADS = 1
"""Every core has a worker, so this is one for each core; more of them compete with the loop (`bench.logins`)."""
MAX_WAITING = 512
"""Checks that wait for a thread: some 13 s of work. Further ones are refused at once."""
NICENESS = 19
"""How far the thread gives way: as far as it goes. Where a core is busy all the time, logins still get 1.5 % of it."""


class PoolFullError(Exception):
    """Too many password checks wait already."""


class PoolFailedError(Exception):
    """A hash could not be computed; the text says why, for an operator."""


class BlockedError(Exception):
    """The caller has failed too often while its check waited."""


class Caller:
    """Who asks for a check: where the request comes from, and whose account it claims."""

    __slots__ = ("account", "address", "guard")

    def __init__(self, address: str = "", account: bytes = b"", guard: FailureGuard | None = None) -> None:
        self.address = address
        self.account = account
        self.guard = guard

    def is_blocked(self, now: float) -> bool:
        """Tell whether this caller has failed too often meanwhile."""
        return self.guard is not None and self.guard.retry_after_s(self.address, self.account, now) > 0


NOBODY = Caller()

_Name = tuple[bytes, object]


class _Check:
    """One comparison of a password with some hashes, and all who wait for its outcome."""

    __slots__ = ("address", "clock", "has_started", "hashes", "name", "password", "waiters")

    def __init__(
        self, name: _Name, hashes: tuple[str, ...], password: bytes, address: str, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.hashes = hashes
        self.password = password
        self.address = address
        self.clock = clock
        self.has_started = False
        self.waiters: dict[asyncio.Future[str | None], Caller] = {}

    def end(self, outcome: str | None) -> None:
        """Tell all who wait which hash was matched."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Tell all who wait that there is no outcome."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def drop_blocked(self) -> None:
        """Refuse those who have failed too often since they began to wait."""
        now = self.clock()
        for waiter in [waiter for waiter, caller in self.waiters.items() if caller.is_blocked(now)]:
            del self.waiters[waiter]
            if not waiter.done():
                waiter.set_exception(BlockedError())


class PasswordPool:
    """One worker's password checks; used on one loop."""

    def __init__(self, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._threads = threads
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(threads, "password", initializer=_give_way)
        self._key = secrets.token_bytes(32)
        self._checks: dict[_Name, _Check] = {}  # waiting and running ones
        self._queues: OrderedDict[str, deque[_Check]] = OrderedDict()  # by address; the first is next
        self._waiting = 0
        self._running = 0
        self._is_closed = False

    async def check(
        self, lookup: PasswordLookup, clock: Callable[[], float], caller: Caller = NOBODY
    ) -> Identity | Denial:
        """Find out whether the password of a Basic credential is right, and let the authenticator remember it."""
        authenticator = lookup.authenticator
        users = authenticator.consumers.users
        now = clock()
        model = lookup.user if lookup.user is not None else stand_in(users, lookup.username)
        hashes = hashes_to_try(model, now)
        try:
            matched = await self._run((lookup.digest, lookup.user), hashes, lookup.password, caller, clock)
        except PoolFullError:
            return Denial(Reason.OVERLOADED, why=f"{self._max_waiting} password checks wait already")
        except PoolFailedError as error:
            return Denial(Reason.AUTH_UNAVAILABLE, why=str(error))
        except BlockedError:  # one more failure; the plan makes it the 429
            return authenticator.refusal(lookup.account, "too many failures before its turn came")
        if lookup.user is None:
            return authenticator.refusal(lookup.account, "no enabled consumer has this username")
        if matched is None:
            return authenticator.refusal(lookup.account, f"wrong password for {lookup.user.consumer}")
        # The consumer may have changed while the check waited. What counts is its document now; the hash that was
        # matched says which of its passwords this is.
        user = users.get(lookup.username)
        identity = identity_of(user, matched, clock())
        if user is None or identity is None:
            why = f"{lookup.user.consumer} is disabled, or it or this password has expired"
            return authenticator.refusal(lookup.account, why)
        authenticator.remember(lookup.digest, user, identity)
        return identity

    async def verify(
        self,
        user: User | None,
        password: bytes,
        now: float,
        caller: Caller = NOBODY,
        model: User | None = None,
    ) -> Identity | None:
        """Return who logs in with a password, or None; an unknown user costs the work of `model`.

        Whether `user` is still the gateway's user afterwards is for the caller to see. Raises PoolFullError and
        PoolFailedError.
        """
        hashes = hashes_to_try(user if user is not None else model, now)
        # Equal logins at the same time are one check, whether or not somebody has the name: else time would tell.
        owner = user if user is not None else caller.account
        name = (blake2b(password, key=self._key, digest_size=32).digest(), owner)
        try:
            matched = await self._run(name, hashes, password, caller, lambda: now)
        except BlockedError:
            return None
        return None if matched is None else identity_of(user, matched, now)

    def close(self) -> None:
        """Give up what waits; what runs ends by itself, soon."""
        self._is_closed = True
        for check in list(self._checks.values()):
            check.fail(PoolFailedError("the worker stops"))
        self._checks.clear()
        self._queues.clear()
        self._waiting = 0
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        name: _Name,
        hashes: tuple[str, ...],
        password: bytes,
        caller: Caller,
        clock: Callable[[], float],
    ) -> str | None:
        """Return the hash that `password` matches, or None. Each caller waits on a future of its own."""
        if self._is_closed:
            raise PoolFailedError("the worker stops")
        check = self._checks.get(name)
        if check is None:
            address = address_name(caller.address)
            if self._waiting >= self._max_waiting:
                self._make_room(address)
            check = _Check(name, hashes, password, address, clock)
            self._checks[name] = check
            self._waiting += 1
            self._queues.setdefault(address, deque()).append(check)
        waiter: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        check.waiters[waiter] = caller
        self._go_on()
        try:
            return await waiter
        finally:
            check.waiters.pop(waiter, None)
            if not check.waiters and not check.has_started:
                self._take_out(check)

    def _make_room(self, address: str) -> None:
        """Let a newcomer in by giving up the last check of the address with the most, unless that is its own."""
        longest = max(self._queues, key=lambda other: len(self._queues[other]))
        if len(self._queues[longest]) <= len(self._queues.get(address, ())) + 1:
            raise PoolFullError
        last = self._queues[longest][-1]
        self._take_out(last)
        last.fail(PoolFullError())

    def _take_out(self, check: _Check) -> None:
        """Forget a check that has not started."""
        queue = self._queues.get(check.address)
        if self._checks.get(check.name) is not check or queue is None:
            return
        del self._checks[check.name]
        queue.remove(check)
        self._waiting -= 1
        if not queue:
            del self._queues[check.address]

    def _go_on(self) -> None:
        """Start what can be started."""
        while self._running < self._threads and self._queues:
            check = self._next()
            check.drop_blocked()
            if check.waiters:
                self._start(check)
            else:
                del self._checks[check.name]

    def _next(self) -> _Check:
        """Take the next check: addresses take turns."""
        address, queue = self._queues.popitem(last=False)
        check = queue.popleft()
        check.has_started = True
        self._waiting -= 1
        if queue:
            self._queues[address] = queue
        return check

    def _start(self, check: _Check) -> None:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._executor, _find_match, check.hashes, check.password)
        check.password = b""  # the thread has it
        self._running += 1

        def done(work: asyncio.Future[str | None]) -> None:
            self._running -= 1
            self._checks.pop(check.name, None)
            if work.cancelled():
                return  # the pool was closed, and those who waited know
            error = work.exception()
            if error is None:
                check.end(work.result())
            else:
                check.fail(error)
            loop.call_soon(self._go_on)  # when those who waited have counted their failures

        work.add_done_callback(done)


def _find_match(hashes: tuple[str, ...], password: bytes) -> str | None:
    """Return the first hash that `password` matches: the work of a thread."""
    try:
        for phc in hashes:
            if verify_password(phc, password):
                return phc
    except (MemoryError, UnsupportedAlgorithm) as error:
        raise PoolFailedError(f"{type(error).__name__} in Argon2id") from None
    return None


def _give_way() -> None:
    """Lower the priority of this thread alone; only Linux can, where a thread has a number of its own."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
