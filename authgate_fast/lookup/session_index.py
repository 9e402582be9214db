"""Which sessions belong to one sign-in at the provider, and which to one user.

The lists are in the store, so that a logout at the provider ends all of them and needs no search. Each is the SHA-256
digests of cookies, the oldest first. It is written before the session is, and looked at again after it: so of a login
and a logout at the same moment one sees the other. A list that is full loses what is over; if nothing is, its oldest
session ends. So no session that lives is ever missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from authgate_fast.auth.session import session_prefix, sid_name, sub_name
from authgate_fast.lookup.store import StateUnavailableError

if TYPE_CHECKING:
    from authgate_fast.auth.session import Record
    from authgate_fast.lookup.store import StateStore

MAX_PER_SIGN_IN = 32
"""Sessions of one sign-in at the provider, which is one browser there."""
MAX_PER_USER = 1_000
_SIZE = 32
_LOOKED_AT = 64
"""Of a full list so many are looked at for one that is over."""
_AT_ONCE = 8
_ATTEMPTS = 40
_PAUSE_S = 0.01
_EMPTY_S = 1.0


class SessionIndex:
    """The lists of all BFF gateways. Every method raises StateUnavailableError."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def add(self, gateway: str, record: Record, name: str, ttl_s: float) -> None:
        """Put the session `name`, which is about to be stored, into its lists."""
        for place, limit in _places(gateway, record):
            await self._add(place, limit, session_prefix(gateway), _digest(name), ttl_s)

    async def holds(self, gateway: str, record: Record, name: str) -> bool:
        """Tell whether `name` is still in all of its lists: if not, it was to end meanwhile."""
        digest = _digest(name)
        for place, _ in _places(gateway, record):
            if digest not in _digests(await self._store.get(place) or b""):
                return False
        return True

    async def end_sign_in(self, gateway: str, sid: str) -> int:
        """End all sessions of one sign-in at the provider; return how many there were."""
        return await self._end(sid_name(gateway, sid), session_prefix(gateway))

    async def end_user(self, gateway: str, sub: str) -> int:
        """End all sessions of a user; return how many there were."""
        return await self._end(sub_name(gateway, sub), session_prefix(gateway))

    async def _add(self, place: str, limit: int, prefix: str, digest: bytes, ttl_s: float) -> None:
        for attempt in range(_ATTEMPTS):
            value = await self._store.get(place)
            if value is None:
                if await self._store.add(place, digest, ttl_s):
                    return
            else:
                listed = _digests(value)
                if len(listed) >= limit:
                    listed = await self._with_room(listed, prefix)
                if await self._store.swap(place, value, b"".join([*listed, digest]), ttl_s):
                    return
            await asyncio.sleep(_PAUSE_S * (attempt % 4))  # somebody else was quicker
        raise StateUnavailableError("the list of a user's sessions changes too fast")

    async def _with_room(self, listed: list[bytes], prefix: str) -> list[bytes]:
        oldest = listed[:_LOOKED_AT]
        over = {digest for digest in oldest if await self._store.get(prefix + digest.hex()) is None}
        if not over:
            await self._store.delete(prefix + oldest[0].hex())
            over.add(oldest[0])
        return [digest for digest in listed if digest not in over]

    async def _end(self, place: str, prefix: str) -> int:
        """End what is listed, then the list: a call that failed on the way can be made again."""
        count = 0
        for _ in range(_ATTEMPTS):
            value = await self._store.get(place)
            if not value:
                return count
            names = [prefix + digest.hex() for digest in _digests(value)]
            count += await self._delete(names)
            if await self._store.swap(place, value, b"", _EMPTY_S):
                # And what was stored just before that, by logins that will have found themselves in the list.
                return count + await self._delete(names)
        raise StateUnavailableError("the list of a user's sessions changes too fast")

    async def _delete(self, names: list[str]) -> int:
        count = 0
        for start in range(0, len(names), _AT_ONCE):
            several = names[start : start + _AT_ONCE]
            count += sum(await asyncio.gather(*(self._store.delete(name) for name in several)))
        return count


def _places(gateway: str, record: Record) -> Iterable[tuple[str, int]]:
    if record.sid:
        yield sid_name(gateway, record.sid), MAX_PER_SIGN_IN
    yield sub_name(gateway, str(record.claims.get("sub", ""))), MAX_PER_USER


def _digest(name: str) -> bytes:
    return bytes.fromhex(name[-2 * _SIZE :])


def _digests(value: bytes) -> list[bytes]:
    return [value[start : start + _SIZE] for start in range(0, len(value), _SIZE)]
