"""POST /bff/backchannel-logout: the provider tells that a user has logged out there.

OpenID Connect Back-Channel Logout 1.0. The request comes from the provider itself and without a cookie; a token that
it signed says whose sessions end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from authgate_fast.auth.browser import form_values, is_from_browser
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.tokens import LEEWAY_S, TokenError
from authgate_fast.decision import Reply, caller_address
from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.auth.bff import BffAuthenticator
    from authgate_fast.decision import Local
    from authgate_fast.lookup.issuer import Issuers
    from authgate_fast.lookup.session_index import SessionIndex
    from authgate_fast.lookup.store import StateStore

USED_PREFIX = "authgate:state:logout-token:"
_LINES = b"Cache-Control: no-store\r\n"  # section 2.8
_REFUSED = Reply(400, b"Content-Type: application/json\r\n" + _LINES, b'{"error":"invalid_request"}')

log = logging.getLogger("authgate.bff")


class BackChannelLogout:
    """Ends sessions at the provider's word."""

    def __init__(
        self, store: StateStore, issuers: Issuers, index: SessionIndex, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._index = index
        self._issuers = issuers
        self._clock = clock

    async def answer(self, authenticator: BffAuthenticator, local: Local, body: bytes) -> Reply | Denial:
        """End what a logout token names. Raises StateUnavailableError, IssuerUnavailableError."""
        if is_from_browser(
            local.head
        ):  # a form of any site; it must not count against its visitors' addresses
            log.info("a logout token for gateway %s came from a browser", authenticator.gateway)
            return _REFUSED
        values = form_values(body).get("logout_token", [])
        if len(values) != 1:
            log.info("a back-channel logout for gateway %s has not one logout_token", authenticator.gateway)
            return _REFUSED
        now = self._clock()
        client, address = local.client, caller_address(local.head, local.client)
        guard = client.guard
        if guard is not None and guard.retry_after_s(address, b"", now):
            return Denial(Reason.CREDENTIALS_INVALID, is_failure=True)
        try:
            told = await self._issuers.logout_token(authenticator.settings, values[0], now)
            used = f"{USED_PREFIX}{authenticator.gateway}:{sha256(told.jti.encode()).hexdigest()}"
            if await self._store.get(used) is not None:
                raise TokenError("it was used before (jti)")
        except TokenError as error:
            log.info("a logout token for gateway %s is not good: %s", authenticator.gateway, error)
            if guard is not None:
                guard.failed(address, b"", now)
            return _REFUSED
        gateway = authenticator.gateway
        if told.sid:
            count = await self._index.end_sign_in(gateway, told.sid)
        else:
            count = await self._index.end_user(gateway, told.sub)
        # Only now: a provider that was told of a failure sends its token again.
        await self._store.put(used, b"used", max(told.expires_at - now, 0.0) + 2 * LEEWAY_S)
        log.info("gateway %s: the provider ended %d sessions", authenticator.gateway, count)
        return Reply(200, _LINES)
