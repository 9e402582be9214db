"""Fixtures around the independent provider (`tests.oidc_provider`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from authgate_fast.auth.interface import Denial
from authgate_fast.auth.oauth2 import (
    IntrospectionLookup,
    IssuerKeysLookup,
    OAuth2Authenticator,
    OAuth2Settings,
)
from authgate_fast.auth.secret import SecretRef
from authgate_fast.decision import Client
from authgate_fast.http.request import RequestHead
from authgate_fast.lookup.http_client import HttpClient
from authgate_fast.lookup.issuer import Issuers, IssuerUnavailableError
from authgate_fast.snapshot import Identity
from tests.oidc_provider import Provider, provider


@dataclass
class Relying:
    """Who relies on a provider: what an OAUTH2 or BFF gateway's settings have in common."""

    issuer: str
    client_id: str
    client_secret: SecretRef | None = None


class World:
    """A provider, the look-ups of one worker, and clocks that a test can move."""

    def __init__(self, idp: Provider) -> None:
        self.idp = idp
        self.offset_s = 0.0
        self.issuers = Issuers(
            HttpClient(1.0, 2.0),
            lambda: time.monotonic() + self.offset_s,
            lambda: time.time() + self.offset_s,
        )
        self.shop = self.client("shop")

    @property
    def now(self) -> float:
        return time.time() + self.offset_s

    def client(self, client_id: str, secret: str | None = None) -> Relying:
        secret = secret if secret is not None else self.idp.clients[client_id].secret
        return Relying(self.idp.issuer, client_id, SecretRef(text=secret) if secret else None)

    def authenticator(
        self,
        client_id: str = "shop",
        *,
        audience: str | None = None,
        introspect: bool = False,
        cache_s: int = 30,
        secret: str | None = None,
    ) -> OAuth2Authenticator:
        client = self.client(client_id, secret)
        settings = OAuth2Settings(
            client.issuer, client_id, client.client_secret, audience, introspect, cache_s, "roles"
        )
        return OAuth2Authenticator("gw", settings)

    async def ask(self, checker: OAuth2Authenticator, token: str) -> Identity | Denial:
        """Show a token, and do what the resolver does where that needs a look-up."""
        presented = [(b"authorization", b"Bearer " + token.encode())]
        found = checker.identify(RequestHead(b"GET", b"/", 1, []), presented, Client("192.0.2.1"), self.now)
        if isinstance(found, IssuerKeysLookup):
            await self.issuers.refresh_keys(checker, found)
            return checker.identify_again(presented, self.now)
        if isinstance(found, IntrospectionLookup):
            return await self.issuers.introspect(checker, found)
        assert isinstance(found, Identity | Denial)
        return found

    async def outcome(self, checker: OAuth2Authenticator, token: str) -> str:
        """Return the subject, the reason of a denial, or that the provider is not available."""
        try:
            found = await self.ask(checker, token)
        except IssuerUnavailableError:
            return "unavailable"
        return found.credential_id if isinstance(found, Identity) else found.reason.value


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
async def world(idp: Provider) -> AsyncIterator[World]:
    made = World(idp)
    yield made
    await made.issuers.close()
