"""A BFF authenticator with the sessions of one worker, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

from authgate_fast.auth.bff import BffAuthenticator, BffSettings, SessionLookup
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.session import SESSION_PREFIX, Record
from authgate_fast.decision import Client
from authgate_fast.http.request import RequestHead
from authgate_fast.lookup.issuer import Issuers
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.sessions import Sessions
from authgate_fast.snapshot import Identity

NOW = 1_900_000_000.0
SETTINGS = BffSettings("https://iam.test", "shop", None, ("openid",), 1_800, 43_200, "roles")


def record(now: float = NOW, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "issuer": SETTINGS.issuer,
        "client_id": SETTINGS.client_id,
        "created_at": now,
        "ends_at": now + 43_200,
        "claims": {"sub": "u-1", "roles": ["buyer"], "name": "Ann Example"},
        "access_token": "access-1",
        "access_ttl_s": 3_600.0,
        "access_ends_at": now + 3_600,
        "refresh_token": "refresh-1",
        "id_token": "id-1",
        "scope": "openid email",
    }
    return Record(**fields | changes)


class CountingStore(MemoryStore):
    """A store in memory that counts what is asked about sessions."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.gets = self.touches = 0

    async def get(self, name: str) -> bytes | None:
        self.gets += name.startswith(SESSION_PREFIX)
        return await super().get(name)

    async def touch(self, name: str, ttl_s: float) -> bool:
        self.touches += 1
        return await super().touch(name, ttl_s)


class BffWorld:
    """`identify` and `find` as plan and resolver call them."""

    def __init__(self, gateway: str = "kit", settings: BffSettings = SETTINGS, issuers: Any = None) -> None:
        self.now = NOW
        self.store = CountingStore(lambda: self.now)
        self.authenticator = BffAuthenticator(gateway, settings)
        self.sessions = Sessions(self.store, issuers or Issuers(), lambda: self.now)
        self.client = Client("192.0.2.7")

    def begin(self, made: Record | None = None) -> bytes:
        return asyncio.run(self.sessions.begin(self.authenticator, made or record(self.now)))

    def identify(
        self,
        cookie: bytes | None,
        *fields: tuple[bytes, bytes],
        method: bytes = b"GET",
        target: bytes = b"/x",
    ) -> Any:
        head = RequestHead(method, target, 1, [(b"Host", b"shop.test"), *fields])
        assert head.read({}, frozenset()) is None
        presented = [] if cookie is None else [(b"cookie", b"AUTHGATE_BFF_SESSION=" + cookie)]
        return self.authenticator.identify(head, presented, self.client, self.now)

    async def ask(self, cookie: bytes, **how: Any) -> Identity | Denial:
        """Identify, with the look-up if there must be one."""
        found = self.identify(cookie, **how)
        if isinstance(found, SessionLookup):
            found = await self.sessions.find(self.authenticator, found)
        assert isinstance(found, Identity | Denial)
        return found
