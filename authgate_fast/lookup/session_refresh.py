"""Renews the access token of a browser session: once, however many workers and nodes ask for it.

A lock in the store lets one of them call the provider; the others wait, with a bound, and read what it stored. Many
providers rotate refresh tokens and take a second use for theft (RFC 9700 section 4.14), so a call that was sent is
finished and its outcome stored, whoever is still waiting for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from authgate_fast.auth.bff import refresh_at
from authgate_fast.auth.session import SESSION_PREFIX, Record, open_record, seal_record
from authgate_fast.auth.tokens import TokenError
from authgate_fast.lookup.issuer import IssuerUnavailableError, TokenRefusedError
from authgate_fast.lookup.store import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.auth.bff import BffSettings
    from authgate_fast.lookup.issuer import Issuers, TokenSet
    from authgate_fast.lookup.store import StateStore

LOCK_PREFIX = "authgate:state:session-lock:"
CALL_S = 10.0
"""For the provider's answer."""
ID_TOKEN_S = 3.0
"""For checking the ID token that came with it; the provider's keys are at hand, as a rule."""
LOCK_TTL_S = 30.0
"""Longer than a call, checking its ID token and storing its outcome: only a holder that died lets its lock run out."""
WAIT_S = 14.0
"""How long the others wait for the holder."""
RETRY_S = 5.0
"""After a provider failed, it is left alone for this long by every session's waiters."""
REVOKE_S = 3.0
_RELEASE_S = 0.01
_SHORTEST_TTL_S = 1.0  # or each request would ask for another token
_FAILED = b"failed"
_STORE_ATTEMPTS = 5

log = logging.getLogger("authgate.sessions")


class RefreshFailedError(Exception):
    """The provider did not renew a token, and did not refuse either; the text is one line for an operator."""


def access_ttl_s(tokens: TokenSet) -> float:
    """Return how long an access token lives; without end if the provider does not say (RFC 6749 section 5.1)."""
    return float("inf") if tokens.expires_in is None else max(float(tokens.expires_in), _SHORTEST_TTL_S)


class Renewer:
    """Renews one session at a time, by its name and key."""

    def __init__(self, store: StateStore, issuers: Issuers, clock: Callable[[], float]) -> None:
        self._store = store
        self._issuers = issuers
        self._clock = clock

    async def renew(self, settings: BffSettings, name: str, key: bytes) -> bytes | None:
        """Return the stored record with an access token that is not due; None if the session is over.

        Raises RefreshFailedError, StateUnavailableError, SealError.
        """
        store = self._store
        lock = LOCK_PREFIX + name.removeprefix(SESSION_PREFIX)
        mine = secrets.token_bytes(16)
        begun_s = asyncio.get_running_loop().time()
        pause_s = 0.02
        while True:
            if await store.add(lock, mine, LOCK_TTL_S):
                return await self._renew_locked(settings, name, key, lock, mine)
            if await store.get(lock) == _FAILED:
                raise RefreshFailedError("the provider failed to renew this session's token a moment ago")
            if asyncio.get_running_loop().time() - begun_s > WAIT_S:
                raise RefreshFailedError("another worker renews this session's token and does not come back")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.25)
            value = await store.get(name)
            if value is None or not self._is_due(open_record(key, name, value)):
                return value

    def _is_due(self, record: Record) -> bool:
        return refresh_at(record) <= self._clock()

    async def _renew_locked(
        self, settings: BffSettings, name: str, key: bytes, lock: str, mine: bytes
    ) -> bytes | None:
        left_as, for_s = b"free", _RELEASE_S
        try:
            value = await self._store.get(name)
            if value is None:
                return None
            record = open_record(key, name, value)
            if not self._is_due(record):
                return value
            tokens = await self._ask(settings, record.refresh_token)
            if tokens is None:
                await self._store.delete(name)
                return None
            problem = await self._id_token_problem(settings, record, tokens)
            if problem:
                log.warning("gateway client %s: a session ends: %s", settings.client_id, problem)
                try:
                    await self._store.delete(name)
                finally:
                    await self.revoke(settings, tokens.refresh_token or record.refresh_token)
                return None
            self._put_in(record, tokens)
            return await self._save(settings, name, key, value, record)
        except RefreshFailedError:
            left_as, for_s = _FAILED, RETRY_S
            raise
        finally:
            try:
                await self._store.swap(lock, mine, left_as, for_s)
            except StateUnavailableError:
                pass  # it runs out by itself

    async def _ask(self, settings: BffSettings, refresh_token: str) -> TokenSet | None:
        """Ask the provider; None if the grant is over (RFC 6749 section 5.2), and with it the session."""
        try:
            async with asyncio.timeout(CALL_S):
                return await self._issuers.refresh(settings, refresh_token)
        except TokenRefusedError as error:
            if error.error == "invalid_grant":
                return None
            # Whatever else it says is about this client and not about this user.
            raise RefreshFailedError(f"the provider does not renew tokens for this client: {error}") from None
        except IssuerUnavailableError as error:
            raise RefreshFailedError(str(error)) from None
        except TimeoutError:
            raise RefreshFailedError(f"the provider did not renew a token within {CALL_S:g} s") from None

    async def _id_token_problem(self, settings: BffSettings, record: Record, tokens: TokenSet) -> str:
        """Return why the ID token among renewed tokens is not of this session's user, or "" (OpenID Connect Core
        section 12.2); it may be missing. What cannot be checked is not believed: the old refresh token is used up.
        """
        if not tokens.id_token:
            return ""
        try:
            async with asyncio.timeout(ID_TOKEN_S):
                claims = await self._issuers.id_token_claims(settings, tokens.id_token, None, self._clock())
        except (TokenError, IssuerUnavailableError) as error:
            return f"the ID token of a renewal is not good: {error}"
        except TimeoutError:
            return f"the ID token of a renewal could not be checked within {ID_TOKEN_S:g} s"
        if claims.get("iss") != record.issuer or claims.get("sub") != record.claims.get("sub"):
            return "the provider renewed its tokens as another user's (iss, sub)"
        return ""

    def _put_in(self, record: Record, tokens: TokenSet) -> None:
        """Take over what the provider sent; what it left out stays as it was (RFC 6749 section 6)."""
        record.access_token = tokens.access_token
        record.access_ttl_s = access_ttl_s(tokens)
        record.access_ends_at = self._clock() + record.access_ttl_s
        record.refresh_token = tokens.refresh_token or record.refresh_token
        record.scope = record.scope if tokens.scope is None else tokens.scope

    async def _save(
        self, settings: BffSettings, name: str, key: bytes, old: bytes, record: Record
    ) -> bytes | None:
        """Store a renewed record if the session still is what it was; never bring back one that was ended."""
        new = seal_record(key, name, record)
        ttl_s = max(min(settings.idle_ttl_s, record.ends_at - self._clock()), 1.0)
        for attempt in range(_STORE_ATTEMPTS):
            try:
                if await self._store.swap(name, old, new, ttl_s):
                    return new
                current = await self._store.get(name)
                if current == new:
                    return new  # an attempt whose answer was lost
                if current is None:
                    await self.revoke(settings, record.refresh_token)
                return current
            except StateUnavailableError as error:
                log.warning("a renewed token could not be stored (attempt %d): %s", attempt + 1, error)
                await asyncio.sleep(0.1 * 2**attempt)
        return new  # this worker at least can go on with it

    async def revoke(self, settings: BffSettings, refresh_token: str) -> None:
        """Tell the provider that a refresh token is done with (RFC 7009); bounded, and without a promise."""
        if not refresh_token:
            return
        try:
            async with asyncio.timeout(REVOKE_S):
                await self._issuers.revoke(settings, refresh_token, "refresh_token")
        except (IssuerUnavailableError, TokenRefusedError) as error:
            log.warning("a refresh token could not be revoked: %s", error)
        except TimeoutError:
            log.warning("a refresh token could not be revoked: no answer within %g s", REVOKE_S)
