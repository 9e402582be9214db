"""The endpoints of a BFF gateway, /bff/* (DESIGN section 7): me and logout here, the others in modules of their own.

Tokens never leave for the browser; it gets a cookie. Every answer is ``no-store``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson

from authgate_fast.auth.bff import BffAuthenticator
from authgate_fast.auth.browser import field_value
from authgate_fast.auth.cookies import clear_session, is_secret, session_cookie, session_cookies
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.login import with_query
from authgate_fast.decision import Reply, caller_address
from authgate_fast.errors import Reason
from authgate_fast.lookup.bff_backchannel import BackChannelLogout
from authgate_fast.lookup.bff_login import MAX_OLD_SESSIONS, BffLogins, is_secure, origin_of
from authgate_fast.lookup.issuer import IssuerUnavailableError
from authgate_fast.lookup.session_refresh import RefreshFailedError

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Presented
    from authgate_fast.decision import Local
    from authgate_fast.lookup.issuer import Issuers, ProviderMetadata
    from authgate_fast.lookup.sessions import Sessions
    from authgate_fast.lookup.store import StateStore

_NO_STORE = b"Cache-Control: no-store\r\n"
_JSON = b"Content-Type: application/json\r\n" + _NO_STORE

log = logging.getLogger("authgate.bff")


class BffEndpoints:
    """Answers at the endpoints of all BFF gateways of a worker."""

    def __init__(
        self, store: StateStore, issuers: Issuers, sessions: Sessions, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuers = issuers
        self._sessions = sessions
        self._clock = clock
        self._logins = BffLogins(store, issuers, sessions, clock)
        self._back_channel = BackChannelLogout(store, issuers, sessions.index, clock)

    async def answer(self, local: Local, body: bytes) -> Reply | Denial:
        """Answer one request."""
        authenticator = local.gateway.authenticator
        assert isinstance(authenticator, BffAuthenticator)
        presented = [item for item in local.head.presented or () if item[0] == b"cookie"]
        try:
            if local.endpoint == b"login":
                return await self._logins.begin(authenticator, local)
            if local.endpoint == b"callback":
                return await self._logins.finish(authenticator, local, presented)
            if local.endpoint == b"me":
                return await self._me(authenticator, local, presented)
            if local.endpoint == b"logout":
                return await self._logout(authenticator, local, presented)
            return await self._back_channel.answer(authenticator, local, body)
        except (IssuerUnavailableError, RefreshFailedError) as error:
            return Denial(
                Reason.AUTH_UNAVAILABLE,
                detail="The identity provider cannot be reached at the moment.",
                why=str(error),
            )

    async def _me(
        self, authenticator: BffAuthenticator, local: Local, presented: Presented
    ) -> Reply | Denial:
        cookie = session_cookie(presented)
        anonymous = Reply(401, _JSON + authenticator.challenge, b'{"authenticated":false}')
        if cookie is None or not is_secret(cookie):
            return anonymous
        now = self._clock()
        digest = sha256(cookie).digest()
        guard = (
            None if digest in authenticator.sessions or digest in authenticator.dead else local.client.guard
        )
        address = caller_address(local.head, local.client)
        if guard is not None and guard.retry_after_s(address, b"", now):
            return Denial(Reason.CREDENTIALS_INVALID, is_failure=True)
        session = await self._sessions.session_of(authenticator, cookie)
        if session is None:
            if guard is not None:
                guard.failed(address, b"", now)
            return anonymous
        now = self._clock()
        body = {
            "authenticated": True,
            "user": session.claims,
            "gatewayName": authenticator.gateway,
            "oauthClientId": authenticator.settings.client_id,
            "scope": session.scope,
            # How long the session lives on if nothing more is asked; the access token is renewed behind the scenes.
            "expiresIn": max(int(min(authenticator.settings.idle_ttl_s, session.ends_at - now)), 0),
        }
        return Reply(200, _JSON, orjson.dumps(body))

    async def _logout(
        self, authenticator: BffAuthenticator, local: Local, presented: Presented
    ) -> Reply | Denial:
        # Also without a session: else another site could clear the cookie, and so log a user out.
        problem = authenticator.cross_site_problem(local.head, local.client)
        if problem:
            return Denial(Reason.CSRF_REJECTED, why=problem)
        cookies = session_cookies(presented)
        if len(cookies) > MAX_OLD_SESSIONS:
            return authenticator.doubled
        ended = await self._sessions.hold(self._end(authenticator, local, cookies))
        if isinstance(ended, Denial):
            return ended
        settings = authenticator.settings
        origin = origin_of(local)
        lines = clear_session(secure=origin is not None and is_secure(origin))
        if b"application/json" not in (field_value(local.head, b"accept") or b"").lower():
            return Reply(204, lines + _NO_STORE)
        try:
            metadata = await self._issuers.metadata(settings)
        except IssuerUnavailableError as error:
            log.warning("no logout URL: %s", error)
            return Reply(200, lines + _JSON, b'{"logoutUrl":null}')
        url = _logout_url(metadata, settings.client_id, ended, origin)
        return Reply(200, lines + _JSON, orjson.dumps({"logoutUrl": url}))

    async def _end(self, authenticator: BffAuthenticator, local: Local, cookies: list[bytes]) -> str | Denial:
        """End the sessions of `cookies` and their grants; return the last one's ID token, "" without one."""
        settings = authenticator.settings
        address = caller_address(local.head, local.client)
        id_token = ""
        for cookie in cookies:
            digest, now = sha256(cookie).digest(), self._clock()
            if digest in authenticator.dead:
                continue
            guard = None if digest in authenticator.sessions else local.client.guard
            if guard is not None and guard.retry_after_s(address, b"", now):
                return Denial(Reason.CREDENTIALS_INVALID, is_failure=True)
            record = await self._sessions.end(authenticator, cookie)
            if record is not None:
                id_token = record.id_token
                await self._sessions.renewer.revoke(settings, record.refresh_token)
            elif guard is not None:
                guard.failed(address, b"", now)
        return id_token


def _logout_url(
    metadata: ProviderMetadata, client_id: str, id_token: str, origin: bytes | None
) -> str | None:
    """OpenID Connect RP-Initiated Logout section 2. The way back is this origin's own front page."""
    if not metadata.end_session_endpoint:
        return None
    parameters = {"client_id": client_id}
    if id_token:
        parameters["id_token_hint"] = id_token
    if origin is not None:
        parameters["post_logout_redirect_uri"] = origin.decode("ascii") + "/"
    return with_query(metadata.end_session_endpoint, parameters)
