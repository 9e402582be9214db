"""One worker's identity providers: what they publish, kept fresh; what they are asked, shared and bounded.

A provider that is away costs nobody who can do without it: keys and metadata that are known go on working, and are
asked for again in the background of use. Who cannot do without it hears so at once while the last try is a moment old.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from authgate_fast.auth.id_token import ID_TOKEN_TYPES, check_id_token
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.json_object import JsonError, read_object
from authgate_fast.auth.jwks import KeySetError, read_key_set
from authgate_fast.auth.logout_token import LOGOUT_TOKEN_TYPES, LoggedOut, read_logout_token
from authgate_fast.auth.oauth2 import KEY_LIFETIME_S, NEWS_PAUSE_S
from authgate_fast.auth.tokens import UnknownKeyError, VerifyingKey, verify
from authgate_fast.errors import Reason
from authgate_fast.lookup.fetched import LONGEST_PAUSE_S, Backoff, Fetched, IssuerUnavailableError
from authgate_fast.lookup.http_client import CallError, HttpClient
from authgate_fast.lookup.issuer_calls import (
    OidcClient,
    TokenRefusedError,
    TokenSet,
    ask_introspection,
    ask_token,
    ask_userinfo,
    needed,
    post,
)
from authgate_fast.lookup.provider import MetadataError, ProviderMetadata, discovery_url, read_metadata

if TYPE_CHECKING:
    from authgate_fast.auth.oauth2 import IntrospectionLookup, IssuerKeysLookup, OAuth2Authenticator
    from authgate_fast.auth.tokens import Claims
    from authgate_fast.snapshot import Identity

__all__ = [
    "IssuerUnavailableError",
    "Issuers",
    "OidcClient",
    "ProviderMetadata",
    "TokenRefusedError",
    "TokenSet",
]

METADATA_LIFETIME_S = 3_600.0
MAX_ISSUERS = 1_024
MAX_INTROSPECTIONS = 512
"""Tokens that one provider is asked about at the same time; a client that leaves does not end the question."""
MAX_CONNECTIONS = 32
"""Introspection calls to one provider at the same time; the others wait their turn."""
_TOLERATED_FAILURES = 3
"""Introspections in a row that may fail before the next ones are not tried for a moment."""

_Keys = dict[str, VerifyingKey]


class _Issuer:
    """One provider."""

    __slots__ = ("backoff", "http", "introspections", "issuer", "keys", "metadata", "turns")

    def __init__(self, issuer: str, http: HttpClient, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self.http = http
        self.metadata: Fetched[ProviderMetadata] = Fetched(
            f"metadata of {issuer}", self._fetch_metadata, METADATA_LIFETIME_S, clock
        )
        self.keys: Fetched[_Keys] = Fetched(f"keys of {issuer}", self._fetch_keys, KEY_LIFETIME_S, clock)
        self.introspections: dict[tuple[OAuth2Authenticator, bytes], asyncio.Task[Identity | Denial]] = {}
        self.turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self.backoff = Backoff(_TOLERATED_FAILURES)

    async def _fetch_metadata(self) -> ProviderMetadata:
        url = discovery_url(self.issuer)
        try:
            return read_metadata(await self._document(url), self.issuer)
        except MetadataError as error:
            raise IssuerUnavailableError(f"{url}: {error}") from None

    async def _fetch_keys(self) -> _Keys:
        url = needed((await self.metadata.get()).jwks_uri, self.issuer, "jwks_uri")
        try:
            return read_key_set(await self._document(url))
        except KeySetError as error:
            raise IssuerUnavailableError(f"{url}: {error}") from None

    async def _document(self, url: str) -> object:
        try:
            answer = await self.http.get(url)
            if answer.status != 200:
                raise IssuerUnavailableError(f"{url}: answered with status {answer.status}")
            return read_object(answer.body)
        except (CallError, JsonError) as error:
            raise IssuerUnavailableError(f"{url}: {error}") from None

    async def close(self) -> None:
        tasks = list(self.introspections.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.keys.close()
        await self.metadata.close()


class Issuers:
    """All providers that gateways are bound to, by issuer; gateways with one issuer share what is known of it.

    `clock` is in monotonic seconds, `wall` in seconds since the epoch.
    """

    def __init__(
        self,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._http = HttpClient() if http is None else http
        self._clock = clock
        self._wall = wall
        self._issuers: dict[str, _Issuer] = {}

    # For OAUTH2 gateways

    async def refresh_keys(self, authenticator: OAuth2Authenticator, lookup: IssuerKeysLookup) -> None:
        """Bring the provider's keys, the one that a token names among them if it exists.

        Raises IssuerUnavailableError if there are none, or not that one and the provider cannot be asked.
        """
        issuer = self._issuer(authenticator.settings.issuer)
        try:
            await self._keys(issuer, lookup.kid)
        finally:
            if issuer.keys.value is not None:
                now = self._wall()
                read_at = now - (self._clock() - issuer.keys.fetched_at)
                authenticator.set_keys(issuer.keys.value, read_at, now)

    async def introspect(
        self, authenticator: OAuth2Authenticator, lookup: IntrospectionLookup
    ) -> Identity | Denial:
        """Ask the provider about a token; requests that show the same one share the question."""
        issuer = self._issuer(authenticator.settings.issuer)
        key = (authenticator, lookup.digest)
        task = issuer.introspections.get(key)
        if task is None:
            if len(issuer.introspections) >= MAX_INTROSPECTIONS:
                return _unavailable("the provider is being asked about as many tokens as it may be at once")
            task = asyncio.create_task(self._introspect(issuer, authenticator, lookup), name="introspection")
            issuer.introspections[key] = task
        return await asyncio.shield(task)

    async def _introspect(
        self, issuer: _Issuer, authenticator: OAuth2Authenticator, lookup: IntrospectionLookup
    ) -> Identity | Denial:
        settings = authenticator.settings
        try:
            metadata = await issuer.metadata.get()
            url = needed(metadata.introspection_endpoint, issuer.issuer, "introspection_endpoint")
            methods = metadata.introspection_auth_methods
            token = lookup.token.decode("ascii")
            async with issuer.turns:
                if issuer.backoff.is_pausing(self._clock(), LONGEST_PAUSE_S):
                    return _unavailable(f"{url}: the last calls have failed, the next one waits a moment")
                answer = await ask_introspection(self._http, settings, url, methods, token)
        except IssuerUnavailableError as error:
            issuer.backoff.failed(self._clock())
            return _unavailable(str(error))
        finally:
            del issuer.introspections[authenticator, lookup.digest]
        issuer.backoff.succeeded()
        return authenticator.introspected(lookup, answer, self._wall())

    # For BFF gateways

    async def metadata(self, client: OidcClient) -> ProviderMetadata:
        """Return what the client's provider says about itself. Raises IssuerUnavailableError."""
        return await self._issuer(client.issuer).metadata.get()

    async def exchange_code(
        self, client: OidcClient, code: str, verifier: str, redirect_uri: str
    ) -> TokenSet:
        """Swap an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).

        Raises TokenRefusedError or IssuerUnavailableError.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        return await self._ask_token(client, form)

    async def refresh(self, client: OidcClient, refresh_token: str) -> TokenSet:
        """Get new tokens (RFC 6749 section 6). Raises TokenRefusedError or IssuerUnavailableError."""
        return await self._ask_token(client, {"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def revoke(self, client: OidcClient, token: str, hint: str) -> None:
        """Tell the provider that a token is not needed any more (RFC 7009): as far as it can be told."""
        try:
            metadata = await self.metadata(client)
            if metadata.revocation_endpoint:
                form = {"token": token, "token_type_hint": hint}
                methods = metadata.revocation_auth_methods
                await post(self._http, client, metadata.revocation_endpoint, methods, form)
        except IssuerUnavailableError:
            pass

    async def userinfo(self, client: OidcClient, access_token: str) -> Claims | None:
        """Return the user's claims, or None if the provider gives none. Raises IssuerUnavailableError.

        The caller must compare ``sub`` with the ID token's (OpenID Connect Core section 5.3.2).
        """
        metadata = await self.metadata(client)
        if not metadata.userinfo_endpoint:
            return None
        return await ask_userinfo(self._http, metadata.userinfo_endpoint, access_token)

    async def id_token_claims(
        self, client: OidcClient, id_token: str, nonce: str | None, now: float
    ) -> Claims:
        """Check an ID token. Raises TokenError, or IssuerUnavailableError if its key cannot be had.

        `nonce` None: it comes with refreshed tokens, and was part of no login.
        """
        claims = await self._verified(client, id_token, ID_TOKEN_TYPES, now)
        check_id_token(claims, client.client_id, nonce)
        return claims

    async def logout_token(self, client: OidcClient, logout_token: str, now: float) -> LoggedOut:
        """Check a logout token. Raises TokenError, or IssuerUnavailableError if its key cannot be had."""
        claims = await self._verified(client, logout_token, LOGOUT_TOKEN_TYPES, now)
        return read_logout_token(claims, client.client_id)

    async def _verified(self, client: OidcClient, text: str, types: frozenset[str], now: float) -> Claims:
        issuer = self._issuer(client.issuer)
        token = text.encode("ascii", "replace")
        keys = await issuer.keys.get()
        try:
            return _verify(token, keys, client, types, now)
        except UnknownKeyError as error:
            return _verify(token, await self._keys(issuer, error.kid), client, types, now)

    async def close(self) -> None:
        """End what is under way."""
        for issuer in self._issuers.values():
            await issuer.close()
        await self._http.close()

    # What both need

    async def _ask_token(self, client: OidcClient, form: dict[str, str]) -> TokenSet:
        metadata = await self.metadata(client)
        url = needed(metadata.token_endpoint, client.issuer, "token_endpoint")
        return await ask_token(self._http, client, url, metadata.token_auth_methods, form)

    async def _keys(self, issuer: _Issuer, kid: str | None) -> _Keys:
        """Return the provider's keys; an unknown `kid` makes them be read anew, but not again for a while."""
        keys = await issuer.keys.get()
        if kid is None or kid in keys:
            return keys
        return await issuer.keys.renewed(NEWS_PAUSE_S)

    def _issuer(self, name: str) -> _Issuer:
        found = self._issuers.get(name)
        if found is None:
            if (
                len(self._issuers) >= MAX_ISSUERS
            ):  # after many changes of configuration; one in use is read anew
                del self._issuers[next(iter(self._issuers))]
            found = self._issuers[name] = _Issuer(name, self._http, self._clock)
        return found


def _unavailable(why: str) -> Denial:
    return Denial(Reason.AUTH_UNAVAILABLE, why=why)


def _verify(token: bytes, keys: _Keys, client: OidcClient, types: frozenset[str], now: float) -> Claims:
    return verify(token, keys, issuer=client.issuer, now=now, types=types, audience=client.client_id)
