"""Answers what the plan could not decide from memory: one place that knows which part does what.

Implements ``proxy.context.Resolver``. Every way out is an `Identity`, a `Reply` or a `Denial`; the parts raise
`StateUnavailableError` where the store is away, `IssuerUnavailableError` where a provider is; that is 503 here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from authgate_fast.auth.basic import PasswordLookup
from authgate_fast.auth.bff import BffAuthenticator, SessionLookup
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.jwt import JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.oauth2 import IntrospectionLookup, IssuerKeysLookup, OAuth2Authenticator
from authgate_fast.decision import caller_address
from authgate_fast.errors import Reason
from authgate_fast.lookup.bff import BffEndpoints
from authgate_fast.lookup.consumer_login import ConsumerLogin
from authgate_fast.lookup.issuer import Issuers, IssuerUnavailableError
from authgate_fast.lookup.keyring import Keyrings
from authgate_fast.lookup.passwords import Caller, PasswordPool
from authgate_fast.lookup.sessions import Sessions
from authgate_fast.lookup.store import StateUnavailableError

if TYPE_CHECKING:
    from authgate_fast.auth.session import Session
    from authgate_fast.decision import Local, Pending, Reply
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.snapshot import Identity


class Resolver:
    """One worker's look-ups. `run` it as long as the worker serves.

    `sealing_key` is the key-encryption key for signing keys in the store; None: they are stored as they are.
    """

    def __init__(self, store: StateStore, sealing_key: bytes | None = None) -> None:
        self.store = store
        self.passwords = PasswordPool()
        self.keyrings = Keyrings(store, sealing_key)
        self.issuers = Issuers()
        self.sessions = Sessions(store, self.issuers)
        self.consumer_login = ConsumerLogin(store, self.keyrings, self.passwords)
        self.bff = BffEndpoints(store, self.issuers, self.sessions)

    async def resolve(self, pending: Pending) -> Identity | Denial:
        """Find out who is calling."""
        lookup = pending.lookup
        authenticator = pending.gateway.authenticator
        try:
            if isinstance(lookup, PasswordLookup):
                address = caller_address(pending.head, pending.client)
                caller = Caller(address, lookup.account, pending.client.guard)
                return await self.passwords.check(lookup, time.time, caller)
            if isinstance(lookup, SigningKeysLookup) and isinstance(authenticator, JwtAuthenticator):
                await self.keyrings.refresh(authenticator, lookup)
                return authenticator.identify_again(pending.presented, time.time())
            if isinstance(lookup, IssuerKeysLookup) and isinstance(authenticator, OAuth2Authenticator):
                await self.issuers.refresh_keys(authenticator, lookup)
                return authenticator.identify_again(pending.presented, time.time())
            if isinstance(lookup, IntrospectionLookup) and isinstance(authenticator, OAuth2Authenticator):
                return await self.issuers.introspect(authenticator, lookup)
            if isinstance(lookup, SessionLookup) and isinstance(authenticator, BffAuthenticator):
                return await self.sessions.find(authenticator, lookup)
        except (StateUnavailableError, IssuerUnavailableError) as error:
            return Denial(Reason.AUTH_UNAVAILABLE, why=str(error))
        raise AssertionError(f"nobody can answer a {type(lookup).__name__}")

    async def answer(self, local: Local, body: bytes) -> Reply | Denial:
        """Answer at one of the gateway's own endpoints."""
        try:
            if isinstance(local.gateway.authenticator, JwtAuthenticator):
                return await self.consumer_login.answer(local, body)
            return await self.bff.answer(local, body)
        except (StateUnavailableError, IssuerUnavailableError) as error:
            return Denial(Reason.AUTH_UNAVAILABLE, why=str(error))

    def has_ended(self, session: Session) -> bool:
        """Tell whether a browser session is over."""
        return self.sessions.has_ended(session)

    async def run(self) -> None:
        """Keep what is remembered true until cancelled."""
        await self.store.run()

    async def close(self) -> None:
        """End what is under way."""
        self.passwords.close()
        await self.keyrings.close()
        await self.sessions.close()
        await self.issuers.close()
        await self.store.close()
