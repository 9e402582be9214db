"""A JWT gateway without IO: its keys in memory, its users, and tokens of every kind."""

from __future__ import annotations

import asyncio
from typing import Any

from authgate_fast.auth.interface import Denial
from authgate_fast.auth.jwt import TOKEN_TYPE, JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.signing import Keyring, SigningKey, StoredKey, new_key, open_key
from authgate_fast.auth.tokens import sign
from authgate_fast.decision import Client, Pending
from authgate_fast.http.request import RequestHead
from authgate_fast.lookup.keyring import Keyrings
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.snapshot import Consumers, Identity, User
from tests.auth.users import user

NOW = 1_900_000_000.0
PEER = "192.0.2.7"


class JwtGateway:
    """One gateway with the consumer ann; `made` is its one signing key."""

    def __init__(
        self, name: str = "kit", algorithm: str = "EdDSA", consumers: Consumers | None = None
    ) -> None:
        self.name = name
        self.issuer = f"https://{name}.example"
        self.consumers = Consumers() if consumers is None else consumers
        self.authenticator = JwtAuthenticator(
            name,
            self.issuer,
            self.consumers,
            access_ttl_s=900,
            refresh_ttl_s=1_209_600,
            algorithm=algorithm,
        )
        self.made: StoredKey = new_key(algorithm, name=f"authgate:secret:{name}", now=NOW, active_at=NOW)
        self.keyring = Keyring((self.made,))
        self.signing: SigningKey = open_key(self.made, name="", sealing_key=None)
        self.store = MemoryStore()
        self.keyrings = Keyrings(self.store, clock=lambda: NOW)
        self.ann = self.add(user("ann", "no hash", roles=("reader",)))
        asyncio.run(self.store.put(f"authgate:secret:{name}", self.keyring.dump(), None))
        self.authenticator.set_keys(self.keyring.verifying(NOW))

    def add(self, one: User) -> User:
        self.consumers.users[one.username] = one
        return one

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token; None leaves one out."""
        claims = {
            "iss": self.issuer,
            "aud": self.name,
            "sub": "ann",
            "preferred_username": "ann",
            "roles": ["reader"],
            "iat": int(NOW),
            "exp": int(NOW) + 900,
            "jti": "jti-of-ann",
            "sid": "sid-of-ann",
        }
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changes: Any) -> bytes:
        """Return a token that this gateway has signed."""
        return sign(
            self.claims(**changes),
            key=self.signing.key,
            kid=self.signing.kid,
            algorithm=self.signing.algorithm,
            kind=TOKEN_TYPE,
        )

    def shows(
        self, token: bytes, *, now: float = NOW, client: Client | None = None
    ) -> Identity | Denial | SigningKeysLookup:
        """Return what the authenticator says at once."""
        head = RequestHead(b"GET", b"/", 1, [])
        found = self.authenticator.identify(
            head, [(b"authorization", b"Bearer " + token)], client or Client(PEER), now
        )
        assert isinstance(found, Identity | Denial | SigningKeysLookup)
        return found

    def resolve(self, presented: list[tuple[bytes, bytes]], lookup: SigningKeysLookup, now: float) -> Any:
        """Answer a look-up as the room ``lookup`` does."""
        asyncio.run(self.keyrings.refresh(self.authenticator, lookup))
        return self.authenticator.identify_again(presented, now)

    def ask(self, token: bytes, *, now: float = NOW) -> Identity | Denial:
        """Return what comes out in the end."""
        found = self.shows(token, now=now)
        if isinstance(found, SigningKeysLookup):
            found = self.resolve([(b"authorization", b"Bearer " + token)], found, now)
        assert isinstance(found, Identity | Denial)
        return found

    def answer(self, pending: Pending, now: float) -> Identity | Denial:
        """Answer a look-up of the plan."""
        assert isinstance(pending.lookup, SigningKeysLookup)
        found: Identity | Denial = self.resolve(pending.presented, pending.lookup, now)
        return found
