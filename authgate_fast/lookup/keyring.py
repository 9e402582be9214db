"""The signing keys of JWT gateways, between the store and the authenticators.

A keyring is made when a gateway first needs one (`add`: of two workers that make one, both use the first). Workers
learn of a new key because the store tells of every change, and, should that be missed, because a token names a key
that they do not know: then the keyring is read again, but no more than `READ_BURST` times at once and once in
`READ_INTERVAL_S` per gateway, so that invented names of keys cost the store nothing. Reads that are wanted at the
same time are one read. What is known stays in force while the store is away.

Private keys are sealed if there is a key-encryption key, else stored as they are. A keyring that cannot be read or
opened is an error for the operator and never overwritten.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakSet

from authgate_fast.auth.held_keys import HeldKeys
from authgate_fast.auth.jwt import JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.signing import (
    MAX_KEYS,
    PUBLISH_S,
    Keyring,
    KeyringError,
    SigningKey,
    StoredKey,
    new_key,
    open_key,
    parse_keyring,
)
from authgate_fast.lookup.store import SECRET_PREFIX, StateStore, StateUnavailableError

READ_BURST = 5
READ_INTERVAL_S = 2.0
RETRY_S = 1.0
SETTLE_S = 10.0
"""A key younger than this is used although the gateway's ``algorithm`` is another: two workers in the middle of a
change of configuration must not make keys in turns."""
MAX_RINGS = 10_000
_ATTEMPTS = 5

log = logging.getLogger("authgate.jwt")


class SigningUnavailableError(StateUnavailableError):
    """There is no key to sign with; the text is one line for an operator."""


class _Ring:
    """What is known of one gateway's keys.

    ``authenticator`` asked last; ``authenticators`` are all that still serve somebody, and all of them get the keys:
    a request that began before a change of the gateway's document has an older one.
    """

    __slots__ = (
        "allowed_at",
        "authenticator",
        "flight",
        "gateway",
        "holders",
        "is_read",
        "keyring",
        "said",
        "signing",
    )

    def __init__(self, authenticator: JwtAuthenticator) -> None:
        self.gateway = authenticator.gateway
        self.authenticator = authenticator
        self.holders: WeakSet[HeldKeys] = WeakSet()
        self.keyring: Keyring | None = None
        self.is_read = False
        self.flight: asyncio.Task[None] | None = None
        self.signing: SigningKey | None = None
        self.allowed_at = 0.0
        self.said = ""

    @property
    def name(self) -> str:
        return SECRET_PREFIX + self.gateway


class Keyrings:
    """The keyrings of one worker. `sealing_key` (32 bytes) is the key-encryption key."""

    def __init__(
        self,
        store: StateStore,
        sealing_key: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._sealing_key = sealing_key
        self._clock = clock
        self._rings: dict[str, _Ring] = {}
        self._stale: dict[str, None] = {}
        self._catching_up: asyncio.Task[None] | None = None
        store.on_change.append(self._changed)
        store.on_gap.append(self._gap)

    async def refresh(self, authenticator: JwtAuthenticator, lookup: SigningKeysLookup | None = None) -> None:
        """Give an authenticator the keys there are; read them again if `lookup` names one that is not known."""
        ring = self._ring(authenticator)
        kid = "" if lookup is None else lookup.kid
        if not ring.is_read or (kid and not _knows(ring, kid) and self._may_read(ring)):
            await self._join(ring, self._read)

    async def signing_key(self, authenticator: JwtAuthenticator) -> SigningKey:
        """Return what signs for a gateway now; make it if need be."""
        ring = self._ring(authenticator)
        await self._need(ring)
        current = _current(ring, self._clock())
        if current is None or (
            current.algorithm != authenticator.algorithm
            and ring.keyring is not None
            and max(key.created_at for key in ring.keyring.keys) + SETTLE_S <= self._clock()
        ):
            await self._join(ring, self._renew)
            current = _current(ring, self._clock())
        if current is None:
            raise SigningUnavailableError(f"there is no signing key in {ring.name}")
        if ring.keyring is not None and ring.keyring.tidied(self._clock()) != ring.keyring:
            await self._join(ring, self._tidy)
        if ring.signing is None or ring.signing.kid != current.kid:
            try:
                ring.signing = open_key(current, name=ring.name, sealing_key=self._sealing_key)
            except KeyringError as error:
                raise self._unusable(ring, error) from None
        return ring.signing

    async def jwks(self, authenticator: JwtAuthenticator) -> bytes:
        """Return a gateway's public keys as JSON."""
        ring = self._ring(authenticator)
        await self._need(ring)
        assert ring.keyring is not None
        return ring.keyring.jwks(self._clock())

    async def close(self) -> None:
        """End what is under way."""
        tasks = [ring.flight for ring in self._rings.values() if ring.flight is not None]
        if self._catching_up is not None:
            tasks.append(self._catching_up)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ring(self, authenticator: JwtAuthenticator) -> _Ring:
        ring = self._rings.get(authenticator.gateway)
        if ring is None:
            if len(self._rings) >= MAX_RINGS:
                del self._rings[next(iter(self._rings))]
            ring = self._rings[authenticator.gateway] = _Ring(authenticator)
        # The gateway's document may have changed, and a request that began before it may still come here.
        ring.authenticator = authenticator
        ring.holders.add(authenticator.held)
        if authenticator.held.keys is None and ring.is_read:
            self._give(ring)
        return ring

    def _give(self, ring: _Ring) -> None:
        keyring = ring.keyring
        keys = {} if keyring is None else keyring.verifying(self._clock())
        for held in ring.holders:
            held.replace(keys)

    def _may_read(self, ring: _Ring) -> bool:
        now = time.monotonic()
        start = max(ring.allowed_at, now - (READ_BURST - 1) * READ_INTERVAL_S)
        if start > now:
            return False
        ring.allowed_at = start + READ_INTERVAL_S
        return True

    async def _need(self, ring: _Ring) -> None:
        if ring.keyring is None:
            await self._join(ring, self._read_or_make)

    async def _join(self, ring: _Ring, work: Callable[[_Ring], Coroutine[Any, Any, None]]) -> None:
        """Do `work`, one at a time for each ring; a read under way is everybody's. Who leaves does not end it."""
        for _ in range(_ATTEMPTS):
            flight = ring.flight
            if flight is None or flight.done():  # done, and `_landed` is yet to be called
                flight = ring.flight = asyncio.create_task(work(ring), name=f"keyring-{ring.gateway}")
                flight.add_done_callback(lambda task: self._landed(ring, task))
                await asyncio.shield(flight)
                return
            await asyncio.shield(flight)
            if work == self._read or (work == self._read_or_make and ring.keyring is not None):
                return
        raise SigningUnavailableError(f"{ring.name} is in use all the time")

    def _landed(self, ring: _Ring, task: asyncio.Task[None]) -> None:
        if ring.flight is task:
            ring.flight = None
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it; if they have all left, it is nobody's

    async def _read(self, ring: _Ring) -> None:
        text = await self._store.get(ring.name)
        self._take(ring, text)

    async def _read_or_make(self, ring: _Ring) -> None:
        await self._read(ring)
        if ring.keyring is not None:
            return
        now = self._clock()
        keyring = Keyring((await self._new_key(ring, active_at=now),))
        if await self._store.add(ring.name, keyring.dump(), None):
            self._said_how(ring, keyring.keys[-1])
            self._take(ring, keyring.dump())
        else:
            await self._read(ring)
        if ring.keyring is None:
            raise SigningUnavailableError(f"{ring.name} is deleted again and again")

    async def _renew(self, ring: _Ring) -> None:
        """Make a key of the algorithm that the gateway asks for; the old one goes on for a moment."""
        text = await self._store.get(ring.name)
        self._take(ring, text)
        keyring, algorithm = ring.keyring, ring.authenticator.algorithm
        if keyring is None or text is None:
            raise SigningUnavailableError(f"{ring.name} was deleted")
        now = self._clock()
        if keyring.keys[-1].algorithm == algorithm and keyring.keys[-1].may_sign:
            return
        keyring = keyring.tidied(now)
        if len(keyring.keys) >= MAX_KEYS:
            self._say(ring, f"{ring.name} holds {MAX_KEYS} keys that still count; no other is made")
            return
        key = await self._new_key(ring, active_at=now + PUBLISH_S)
        changed = keyring.with_new(key).dump()
        if await self._store.swap(ring.name, text, changed, None):
            self._said_how(ring, key)
            self._take(ring, changed)
        else:
            await self._read(ring)

    async def _tidy(self, ring: _Ring) -> None:
        """Leave out of the store what is over. Nothing depends on it, so what goes wrong may wait."""
        text = await self._store.get(ring.name)
        self._take(ring, text)
        if ring.keyring is None or text is None:
            return
        tidied = ring.keyring.tidied(self._clock())
        if tidied != ring.keyring and await self._store.swap(ring.name, text, tidied.dump(), None):
            self._take(ring, tidied.dump())

    async def _new_key(self, ring: _Ring, active_at: float) -> StoredKey:
        algorithm, name, sealing_key = ring.authenticator.algorithm, ring.name, self._sealing_key
        now = self._clock()
        # RSA takes so long that other traffic would feel it.
        return await asyncio.to_thread(
            lambda: new_key(algorithm, name=name, now=now, active_at=active_at, sealing_key=sealing_key)
        )

    def _take(self, ring: _Ring, text: bytes | None) -> None:
        """Put in force what the store holds. What cannot be read leaves the last good keys in force."""
        if text is None:
            keyring = None
        else:
            try:
                keyring = parse_keyring(text, ring.name)
            except KeyringError as error:
                raise self._unusable(ring, error) from None
        if ring.keyring is not None and keyring is None:
            log.warning(
                "the signing keys of gateway %s are gone from the store; its tokens end", ring.gateway
            )
        ring.keyring = keyring
        ring.is_read = True
        ring.said = ""
        if ring.signing is not None and (
            keyring is None or all(k.kid != ring.signing.kid for k in keyring.keys)
        ):
            ring.signing = None
        self._give(ring)

    def _said_how(self, ring: _Ring, key: StoredKey) -> None:
        log.info("gateway %s has a new signing key: %s (%s)", ring.gateway, key.kid, key.algorithm)
        if key.private is not None and self._store.status().get("type") == "redis":
            log.warning(
                "the signing key of gateway %s is stored in Redis as it is; with --secret-key-file FILE "
                "(AUTHGATE_SECRET_KEY_FILE) keys are encrypted there",
                ring.gateway,
            )

    def _unusable(self, ring: _Ring, error: KeyringError) -> SigningUnavailableError:
        self._say(ring, str(error))
        return SigningUnavailableError(str(error))

    def _say(self, ring: _Ring, text: str) -> None:
        if ring.said != text:
            log.error("%s", text)
        ring.said = text

    def _changed(self, name: str) -> None:
        if name.startswith(SECRET_PREFIX):
            self._stale[name.removeprefix(SECRET_PREFIX)] = None
            self._catch_up()

    def _gap(self) -> None:
        self._stale.update(dict.fromkeys(self._rings))
        self._catch_up()

    def _catch_up(self) -> None:
        self._stale = {gateway: None for gateway in self._stale if gateway in self._rings}
        if self._stale and self._catching_up is None:
            self._catching_up = asyncio.create_task(self._read_stale(), name="keyrings")
            self._catching_up.add_done_callback(self._caught_up)

    def _caught_up(self, task: asyncio.Task[None]) -> None:
        self._catching_up = None
        if not task.cancelled():
            task.result()

    async def _read_stale(self) -> None:
        """Read the keyrings that have changed, one after the other, until the store has given all of them."""
        while self._stale:
            gateway = next(iter(self._stale))
            ring = self._rings.get(gateway)
            del self._stale[gateway]
            if ring is None:
                continue
            try:
                if ring.flight is not None:  # it may have read before the change
                    await asyncio.wait([ring.flight])
                await self._join(ring, self._read)
            except SigningUnavailableError:
                pass  # said, and a change of the store will be told
            except StateUnavailableError:
                self._stale[gateway] = None
                await asyncio.sleep(RETRY_S)


def _knows(ring: _Ring, kid: str) -> bool:
    return ring.keyring is not None and any(key.kid == kid for key in ring.keyring.keys)


def _current(ring: _Ring, now: float) -> StoredKey | None:
    return None if ring.keyring is None else ring.keyring.current(now)
