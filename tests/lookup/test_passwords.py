"""Password checks in the pool: bounded, in turn, one for equal ones, and true when they are done."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from authgate_fast.auth.basic import BasicAuthenticator, PasswordLookup
from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.password import new_hash
from authgate_fast.decision import Client
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.lookup import passwords
from authgate_fast.lookup.passwords import Caller, PasswordPool, PoolFailedError, PoolFullError
from authgate_fast.snapshot import Consumers, Identity, User
from tests.auth.users import cheap_hash, user

NOW = 1_900_000_000.0
BOUND_S = 10.0
Outcome = Identity | Denial


class World:
    """A gateway with a pool; `compared` is what the pool's threads compared."""

    def __init__(self, *users: User, max_waiting: int = 512) -> None:
        self.consumers = Consumers(users={one.username: one for one in users})
        self.authenticator = BasicAuthenticator("shop", "shop", self.consumers)
        self.pool = PasswordPool(threads=1, max_waiting=max_waiting)
        self.now = NOW
        self.guard = FailureGuard(3, 100, 60)
        self.compared: list[tuple[tuple[str, ...], bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def find_match(self, hashes: tuple[str, ...], password: bytes) -> str | None:
        self.compared.append((hashes, password))
        self.entered.release()
        assert self.gate.wait(BOUND_S)
        return _real_find_match(hashes, password)

    def look(self, username: str, password: str) -> PasswordLookup | Identity:
        value = b"Basic " + b64encode(f"{username}:{password}".encode())
        head = RequestHead(b"GET", b"/", 1, [])
        found = self.authenticator.identify(head, [(b"authorization", value)], Client("192.0.2.1"), self.now)
        assert isinstance(found, PasswordLookup | Identity)
        return found

    async def ask(self, username: str, password: str, address: str) -> Outcome:
        """Wait for a check as a request from `address` would."""
        found = self.look(username, password)
        assert isinstance(found, PasswordLookup)
        caller = Caller(address, found.account, self.guard)
        return await self.pool.check(found, lambda: self.now, caller)

    def begin(self, username: str, password: str, address: str = "192.0.2.1") -> asyncio.Task[Outcome]:
        """Start a check."""
        return asyncio.create_task(self.ask(username, password, address))

    async def check(self, username: str, password: str, address: str = "192.0.2.1") -> Outcome:
        return await asyncio.wait_for(self.begin(username, password, address), BOUND_S)

    async def occupy(self) -> asyncio.Task[Outcome]:
        """Let a check hold the only thread until `release`."""
        self.gate.clear()
        task = self.begin("nobody", "occupies the thread", "198.51.100.1")
        await asyncio.to_thread(self.entered.acquire, timeout=BOUND_S)
        self.compared.clear()
        return task

    def release(self) -> None:
        self.gate.set()


_real_find_match = passwords._find_match


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(*users: User, max_waiting: int = 512) -> World:
        world = World(*users, max_waiting=max_waiting)
        monkeypatch.setattr(passwords, "_find_match", world.find_match)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.release()
        world.pool.close()


def denied(outcome: Outcome) -> Denial:
    assert isinstance(outcome, Denial)
    return outcome


async def settle() -> None:
    """Let what is ready on the loop run."""
    for _ in range(5):
        await asyncio.sleep(0)


def is_idle(pool: PasswordPool) -> bool:
    return not pool._checks and not pool._queues and pool._waiting == 0 and pool._running == 0


async def test_a_right_password_is_let_in_and_remembered(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")))
    found = await world.check("ann", "pass")
    assert isinstance(found, Identity)
    assert found.consumer == "ann"
    assert world.look("ann", "pass") is found
    assert len(world.compared) == 1
    assert is_idle(world.pool)


async def test_a_wrong_password_an_unknown_name_and_an_expired_user_differ_for_the_operator_only(
    make: Callable[..., World],
) -> None:
    world = make(user("ann", cheap_hash("pass")), user("old", cheap_hash("pass"), expires_at=NOW))
    denials = [
        denied(await world.check(name, password))
        for name, password in (("ann", "no"), ("nobody", "pass"), ("old", "pass"))
    ]
    assert len({(one.reason, one.detail, one.extra_lines, one.is_failure) for one in denials}) == 1
    assert len({one.why for one in denials}) == 3
    assert [one.account for one in denials] == [b"shop/ann", b"shop/nobody", b"shop/old"]
    assert not any("pass" in one.why.replace("password", "") for one in denials)
    assert [len(hashes) for hashes, _ in world.compared] == [1, 1, 1]
    assert world.authenticator._known == {}


async def test_an_unknown_name_with_the_password_of_its_stand_in_is_refused(
    make: Callable[..., World],
) -> None:
    world = make(user("ann", cheap_hash("pass")))
    assert denied(await world.check("nobody", "pass")).reason is Reason.CREDENTIALS_INVALID
    ((hashes, _),) = world.compared
    assert hashes == (cheap_hash("pass"),), "it cost what ann's password costs"
    assert world.authenticator._known == {}


async def test_each_live_password_of_a_user_opens_and_tells_which_it_was(make: Callable[..., World]) -> None:
    ann = user(
        "ann", cheap_hash("old"), cheap_hash("new"), cheap_hash("over"), ends=(NOW + 10, NOW + 99, NOW)
    )
    world = make(ann)
    for password, credential_id in (("old", "default"), ("new", "p1")):
        found = await world.check("ann", password)
        assert isinstance(found, Identity)
        assert found.credential_id == credential_id
    assert isinstance(await world.check("ann", "over"), Denial)
    world.now = NOW + 10
    assert isinstance(world.look("ann", "old"), PasswordLookup), "memory lets go of it at its end"
    assert isinstance(await world.check("ann", "old"), Denial)
    assert isinstance(world.look("ann", "new"), Identity)


async def test_an_unknown_name_costs_as_many_comparisons_as_some_user_with_several_passwords(
    make: Callable[..., World],
) -> None:
    world = make(user("ann", cheap_hash("1"), cheap_hash("2")))
    await world.check("ann", "wrong")
    await world.check("nobody", "wrong")
    assert [len(hashes) for hashes, _ in world.compared] == [2, 2]


async def test_equal_checks_at_the_same_time_are_one(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()
    tasks = [world.begin("ann", "pass", f"192.0.2.{n}") for n in range(50)]
    wrong = [world.begin("ann", "wrong") for _ in range(5)]
    await settle()
    world.release()
    found = await asyncio.wait_for(asyncio.gather(*tasks), BOUND_S)
    assert len(set(map(id, found))) == 1
    assert all(isinstance(one, Denial) for one in await asyncio.gather(*wrong, occupied))
    assert len(world.compared) == 2


async def test_too_many_that_wait_are_refused_as_an_overload(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")), max_waiting=3)
    occupied = await world.occupy()
    tasks = [world.begin("ann", f"guess {n}") for n in range(3)]
    await settle()
    full = denied(await world.check("ann", "pass"))
    assert full.reason is Reason.OVERLOADED
    assert not full.is_failure, "it is no failure of the caller's"
    world.release()
    await asyncio.wait_for(asyncio.gather(*tasks, occupied), BOUND_S)
    assert isinstance(await world.check("ann", "pass"), Identity)


async def test_a_full_queue_gives_up_the_last_of_who_has_most_in_it(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")), max_waiting=3)
    occupied = await world.occupy()
    greedy = [world.begin("ann", f"guess {n}", "203.0.113.9") for n in range(3)]
    await settle()
    modest = world.begin("ann", "pass", "192.0.2.1")
    assert denied(await asyncio.wait_for(greedy[2], BOUND_S)).reason is Reason.OVERLOADED
    world.release()
    assert isinstance(await asyncio.wait_for(modest, BOUND_S), Identity)
    await asyncio.gather(*greedy, occupied)


async def test_addresses_take_turns(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()
    greedy = [world.begin("ann", f"a{n}", f"2001:db8::{n:x}") for n in range(3)]
    await settle()
    modest = [world.begin("ann", f"b{n}", "192.0.2.1") for n in range(2)]
    await settle()
    world.release()
    await asyncio.wait_for(asyncio.gather(*greedy, *modest, occupied), BOUND_S)
    assert [password for _, password in world.compared] == [b"a0", b"b0", b"a1", b"b1", b"a2"]


async def test_guesses_that_waited_are_refused_unchecked_once_their_address_has_failed_too_often(
    make: Callable[..., World],
) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()

    async def guess(number: int) -> Outcome:
        found = await world.ask("ann", f"guess {number}", "203.0.113.9")
        # What the plan does with a failure, in the same step.
        world.guard.failed("203.0.113.9", denied(found).account, world.now)
        return found

    guesses = [asyncio.create_task(guess(n)) for n in range(20)]
    await settle()
    honest = world.begin("ann", "pass", "192.0.2.1")
    await settle()
    world.release()
    outcomes = [denied(one) for one in await asyncio.wait_for(asyncio.gather(*guesses), BOUND_S)]
    assert isinstance(await honest, Identity)
    await occupied
    tried = [password for _, password in world.compared if password != b"pass"]
    assert len(tried) == 3, "its limit, and not one more"
    assert outcomes[-1].is_failure
    assert "too many failures" in outcomes[-1].why


async def test_a_blocked_caller_does_not_take_along_who_waits_for_the_same_check(
    make: Callable[..., World],
) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()
    blocked = world.begin("ann", "pass", "203.0.113.9")
    honest = world.begin("ann", "pass", "192.0.2.1")
    await settle()
    for _ in range(4):
        world.guard.failed("203.0.113.9", b"", NOW)
    world.release()
    assert isinstance(await asyncio.wait_for(blocked, BOUND_S), Denial)
    assert isinstance(await asyncio.wait_for(honest, BOUND_S), Identity)
    await occupied


async def test_who_leaves_is_not_waited_for_and_leaves_nothing_behind(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")), max_waiting=2)
    occupied = await world.occupy()
    leaving = [world.begin("ann", f"guess {n}") for n in range(2)]
    await settle()
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    staying = world.begin("ann", "pass")  # there is room again
    await settle()
    world.release()
    assert isinstance(await asyncio.wait_for(staying, BOUND_S), Identity)
    await occupied
    assert [password for _, password in world.compared] == [b"pass"]
    assert is_idle(world.pool)


async def test_who_leaves_does_not_end_the_check_of_others(make: Callable[..., World]) -> None:
    for has_started in (False, True):
        world = make(user("ann", cheap_hash("pass")))
        occupied = await world.occupy()
        if has_started:
            world.release()
            await asyncio.wait_for(occupied, BOUND_S)
            world.gate.clear()
        first, second = world.begin("ann", "pass"), world.begin("ann", "pass", "192.0.2.2")
        await settle()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        world.release()
        assert isinstance(await asyncio.wait_for(second, BOUND_S), Identity)
        await occupied
        assert len(world.compared) == 1


async def test_all_may_leave_a_check_that_runs(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()
    occupied.cancel()
    await asyncio.gather(occupied, return_exceptions=True)
    world.release()
    assert isinstance(await world.check("ann", "pass"), Identity)
    assert is_idle(world.pool)


async def test_what_changes_while_a_check_waits_counts(make: Callable[..., World]) -> None:
    one, two = cheap_hash("one"), cheap_hash("two")
    changes: list[tuple[User | None, str]] = [
        (None, ""),  # disabled or deleted
        (user("ann", two), ""),  # another password
        (user("ann", one, expires_at=NOW), ""),
        (user("ann", one, roles=("new",)), "ann"),  # the password is the same, the roles are the new ones
        (user("ann", two, one), "ann"),
        (user("bob", one, username="ann"), "bob"),
    ]
    for changed, consumer in changes:
        world = make(user("ann", one))
        occupied = await world.occupy()
        task = world.begin("ann", "one")
        await settle()
        if changed is None:
            del world.consumers.users[b"ann"]
        else:
            world.consumers.users[b"ann"] = changed
        world.release()
        found = await asyncio.wait_for(task, BOUND_S)
        await occupied
        if consumer:
            assert isinstance(found, Identity)
            assert changed is not None
            assert found in [identity for _, identity in changed.passwords]
            assert world.look("ann", "one") is found
        else:
            assert denied(found).reason is Reason.CREDENTIALS_INVALID
            assert world.authenticator._known == {}


async def test_a_password_that_ends_while_its_check_waits_is_refused(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass"), expires_at=NOW + 1))
    occupied = await world.occupy()
    task = world.begin("ann", "pass")
    await settle()
    world.now = NOW + 1
    world.release()
    assert isinstance(await asyncio.wait_for(task, BOUND_S), Denial)
    await occupied


async def test_a_check_that_breaks_is_no_verdict(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(phc: str, password: bytes) -> bool:
        raise MemoryError

    world = make(user("ann", cheap_hash("pass")))
    with monkeypatch.context() as patched:
        patched.setattr(passwords, "verify_password", no_memory)
        found = denied(await world.check("ann", "pass"))
        assert found.reason is Reason.AUTH_UNAVAILABLE
        assert "MemoryError" in found.why
        assert not found.is_failure
    assert isinstance(await world.check("ann", "pass"), Identity)


async def test_a_closed_pool_answers_all_who_wait_and_takes_no_more(make: Callable[..., World]) -> None:
    world = make(user("ann", cheap_hash("pass")))
    occupied = await world.occupy()
    waiting = world.begin("ann", "pass")
    await settle()
    world.pool.close()
    world.release()
    for task in (occupied, waiting):
        assert denied(await asyncio.wait_for(task, BOUND_S)).reason is Reason.AUTH_UNAVAILABLE
    assert denied(await world.check("ann", "pass")).reason is Reason.AUTH_UNAVAILABLE


async def test_verify_is_the_same_for_a_login_with_name_and_password(make: Callable[..., World]) -> None:
    ann = user("ann", cheap_hash("pass"))
    world = make(ann, max_waiting=1)
    pool = world.pool
    assert await pool.verify(ann, b"pass", NOW) is ann.passwords[0][1]
    assert await pool.verify(ann, b"wrong", NOW) is None
    assert await pool.verify(None, b"pass", NOW, model=ann) is None
    assert len(world.compared) == 3
    for _ in range(4):
        world.guard.failed("203.0.113.9", b"", NOW)
    blocked = Caller("203.0.113.9", b"shop/ann", world.guard)
    assert await pool.verify(ann, b"pass", NOW, blocked) is None
    assert len(world.compared) == 3, "it was not worth a comparison"
    occupied = await world.occupy()
    names = (b"shop/bob", b"shop/bob", b"shop/eve")
    logins = [asyncio.create_task(pool.verify(None, b"pass", NOW, Caller("", name))) for name in names]
    await settle()
    with pytest.raises(PoolFullError):  # two unknown names are two checks, even with one password
        await logins[2]
    pool.close()
    for login in logins[:2]:  # two equal logins are one check, as they are where the name is known
        with pytest.raises(PoolFailedError):
            await login
    world.release()
    await occupied


async def test_an_unknown_name_where_nobody_is_known_costs_a_full_check() -> None:
    pool = PasswordPool(threads=1)
    try:
        assert await pool.verify(None, b"pass", NOW) is None
        ann = user("ann", new_hash(b"pass"))
        assert await pool.verify(ann, b"pass", NOW) is ann.passwords[0][1]
    finally:
        pool.close()


@contextmanager
def thread_numbers() -> Iterator[set[int]]:
    before = {thread.native_id for thread in threading.enumerate()}
    found: set[int] = set()
    yield found
    found |= {thread.native_id for thread in threading.enumerate() if thread.native_id} - before  # type: ignore[arg-type]


async def test_the_threads_give_way_to_the_loop_and_the_loop_does_not(make: Callable[..., World]) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    world = make(user("ann", cheap_hash("pass")))
    with thread_numbers() as numbers:
        occupied = await world.occupy()
    assert numbers
    if sys.platform == "linux":
        nice = [os.getpriority(os.PRIO_PROCESS, number) for number in numbers]
        assert max(nice) == min(19, max(before, passwords.NICENESS))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    world.release()
    await occupied
