"""A login at a BFF gateway: /bff/login sends the browser to the provider, /bff/callback makes its session.

RFC 9700 by RFC 9700: PKCE, a state that is used once and bound to the browser, nonce, the issuer compared, no open
redirector, a new session id each time. What goes wrong is told in words that help and name no secret; the exact
reason is for the operator alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from authgate_fast.auth.bff import own_origin
from authgate_fast.auth.browser import form_values, is_page, safe_return_to
from authgate_fast.auth.cookies import (
    CALLBACK_PATH,
    LOGIN_TTL_S,
    clear_login,
    is_secret,
    own_cookie,
    session_cookies,
    set_login,
    set_session,
)
from authgate_fast.auth.failures import FailureGuard, address_name
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.login import (
    Transaction,
    authorization_url,
    begin,
    login_cookie,
    login_name,
    open_transaction,
    seal_transaction,
)
from authgate_fast.auth.session import Record, SealError
from authgate_fast.auth.tokens import TokenError
from authgate_fast.auth.user_lines import UnusableClaimError, subject_of
from authgate_fast.decision import Reply, caller_address
from authgate_fast.errors import Reason
from authgate_fast.lookup.issuer import IssuerUnavailableError, TokenRefusedError
from authgate_fast.lookup.session_refresh import access_ttl_s
from authgate_fast.lookup.store import StateUnavailableError

if TYPE_CHECKING:
    from authgate_fast.auth.bff import BffAuthenticator
    from authgate_fast.auth.interface import Presented
    from authgate_fast.auth.tokens import Claims
    from authgate_fast.decision import Local
    from authgate_fast.lookup.issuer import Issuers, TokenSet
    from authgate_fast.lookup.sessions import Sessions
    from authgate_fast.lookup.store import StateStore

LOGINS_PER_ADDRESS = 120
"""Logins that one address may begin in a minute, at each worker; an office behind one address needs some."""
LOGINS_PER_GATEWAY = 6_000
"""And all addresses together: each one stands in the store for ten minutes, with some 700 bytes."""
LOGIN_WINDOW_S = 60.0
MAX_OLD_SESSIONS = 4
"""Session cookies that a request may have to end them; a browser has one, and may have been given others."""
# The callback's URL holds a code: no cache keeps it, and nobody on the next page gets to see it.
_PRIVATE = b"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,4096}")
_LOCATION = re.compile(r"https?://[\x21-\x7e]{1,8192}")
# The errors of RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6: what a client may be told by name.
_ERRORS = frozenset(
    {
        "access_denied", "account_selection_required", "consent_required", "interaction_required",
        "invalid_request", "invalid_request_object", "invalid_request_uri", "invalid_scope", "login_required",
        "registration_not_supported", "request_not_supported", "request_uri_not_supported", "server_error",
        "temporarily_unavailable", "unauthorized_client", "unsupported_response_type",
    }
)  # fmt: skip
# Of a token and not of a user (RFC 7519 section 4.1, OpenID Connect Core section 2): nothing for a page.
_TOKEN_CLAIMS = frozenset(
    {"iss", "aud", "exp", "nbf", "iat", "jti", "nonce", "azp", "at_hash", "c_hash", "s_hash", "sid", "typ"}
)
_START_AGAIN = "Start again at /bff/login."


class _Caller:
    """Tells work that goes on without its client that it does."""

    __slots__ = ("is_gone",)

    def __init__(self) -> None:
        self.is_gone = False


class BffLogins:
    """The logins of all BFF gateways of a worker."""

    def __init__(
        self, store: StateStore, issuers: Issuers, sessions: Sessions, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._issuers = issuers
        self._sessions = sessions
        self._clock = clock
        self._begun = FailureGuard(LOGINS_PER_ADDRESS, LOGINS_PER_GATEWAY, LOGIN_WINDOW_S)

    async def begin(self, authenticator: BffAuthenticator, local: Local) -> Reply | Denial:
        origin = origin_of(local)
        if origin is None:
            return _no_origin()
        if not is_page(local.head):
            return _failed("/bff/login was asked for by something other than a page that a browser goes to")
        now = self._clock()
        # Of this gateway and of logins alone: what other sites can make a browser begin shuts nobody out elsewhere.
        address = f"{authenticator.gateway} {address_name(caller_address(local.head, local.client))}"
        name = authenticator.gateway.encode("ascii")
        if self._begun.retry_after_s(address, name, now):
            return Denial(
                Reason.TOO_MANY_FAILURES,
                detail="Too many logins were begun; wait before the next one.",
                why="too many logins begun from this address, or at this gateway",
            )
        self._begun.failed(address, name, now)
        settings = authenticator.settings
        metadata = await self._issuers.metadata(settings)
        if not metadata.authorization_endpoint:
            raise IssuerUnavailableError("the provider names no authorization_endpoint")
        methods = metadata.code_challenge_methods_supported
        if methods and "S256" not in methods:  # RFC 9700 section 2.1.1: no weaker way instead
            raise IssuerUnavailableError("the provider does not offer PKCE with S256")
        wanted = form_values(local.query).get("return_to", ["/"])
        return_to = safe_return_to(wanted[0].encode("utf-8", "surrogateescape")) if len(wanted) == 1 else b"/"
        redirect_uri = (origin + CALLBACK_PATH).decode("ascii")
        state, binding, transaction = begin(redirect_uri, return_to, now)
        place = login_name(authenticator.gateway, state)
        await self._store.put(place, seal_transaction(transaction, place, state, binding), LOGIN_TTL_S)
        url = authorization_url(
            metadata.authorization_endpoint, settings.client_id, settings.scopes, state, transaction
        )
        if _LOCATION.fullmatch(url) is None:
            raise IssuerUnavailableError("the provider's authorization_endpoint cannot go into a field line")
        cookie = set_login(login_cookie(state), binding, secure=is_secure(origin))
        return Reply(302, b"Location: %b\r\n%b%b" % (url.encode("ascii"), cookie, _PRIVATE))

    # --- callback -------------------------------------------------------------------------------------------------

    async def finish(
        self, authenticator: BffAuthenticator, local: Local, presented: Presented
    ) -> Reply | Denial:
        origin = origin_of(local)
        if origin is None:
            return _no_origin()
        old_sessions = session_cookies(presented)
        if len(old_sessions) > MAX_OLD_SESSIONS:
            return authenticator.doubled
        secure = is_secure(origin)
        query = form_values(local.query)
        state = _one(query, "state").encode("utf-8", "surrogateescape")
        if not is_secret(state):
            return _failed("the callback has no state, or one that was never made here")
        clear = clear_login(login_cookie(state), secure=secure)
        transaction = await self._take(authenticator, state, local, presented, clear)
        if isinstance(transaction, Denial):
            return transaction
        denial = await self._check_response(authenticator, query, clear)
        if denial is not None:
            return denial
        caller, code = _Caller(), _one(query, "code")
        work = self._make_session(authenticator, transaction, code, old_sessions, clear, caller)
        try:
            made = await self._sessions.hold(work)
        except asyncio.CancelledError:
            caller.is_gone = True
            raise
        if isinstance(made, Denial):
            return made
        return_to = safe_return_to(transaction.return_to.encode("ascii"))
        lines = b"Location: %b\r\n%b%b" % (return_to, set_session(made, secure=secure), clear)
        return Reply(302, lines + _PRIVATE)

    async def _make_session(
        self,
        authenticator: BffAuthenticator,
        transaction: Transaction,
        code: str,
        old_sessions: list[bytes],
        clear: bytes,
        caller: _Caller,
    ) -> bytes | Denial:
        """Swap the code for a session; return its cookie. What was obtained and is of no use to anybody is revoked."""
        settings = authenticator.settings
        try:
            tokens = await self._issuers.exchange_code(
                settings, code, transaction.verifier, transaction.redirect_uri
            )
        except TokenRefusedError as error:
            return _failed(f"the provider refused the code: {error}", clear)
        refresh_token = tokens.refresh_token or ""
        try:
            record = await self._make_record(authenticator, transaction, tokens)
            cookie = await self._sessions.begin(authenticator, record)
            # A session id that the browser came with is never taken over, and its session ends (fixation). Its tokens
            # are not revoked: at some providers that would end the new ones too, which are of the same sign-in.
            for old in old_sessions:
                await self._sessions.end(authenticator, old)
            if not caller.is_gone:
                return cookie
            await self._sessions.end(authenticator, cookie)
        except (TokenError, UnusableClaimError, SealError) as error:
            await self._sessions.renewer.revoke(settings, refresh_token)
            return _failed(f"the provider's tokens are not good: {error}", clear)
        except (IssuerUnavailableError, StateUnavailableError, asyncio.CancelledError):
            await self._sessions.renewer.revoke(settings, refresh_token)
            raise
        await self._sessions.renewer.revoke(settings, refresh_token)
        return _failed("the browser left before its login was complete", clear)

    async def _take(
        self, authenticator: BffAuthenticator, state: bytes, local: Local, presented: Presented, clear: bytes
    ) -> Transaction | Denial:
        """Take the transaction of a state out of the store: it is used once, whatever comes of it.

        First the cookie: a page of another site can send a browser here, but not with that. So what such pages send
        costs the store nothing, and does not count against the browser's address.
        """
        binding = own_cookie(presented, login_cookie(state))
        if binding is None or not is_secret(binding):
            return _failed(
                "no login with this state is under way in this browser: used before, begun in another one, or the "
                "browser keeps no cookies",
                clear,
            )
        now = self._clock()
        client = local.client
        if client.guard is not None and client.guard.retry_after_s(
            caller_address(local.head, client), b"", now
        ):
            return _failed("too many failed callbacks from this address", counts=True)
        place = login_name(authenticator.gateway, state)
        value = await self._store.take(place)
        if value is None:
            return _failed(
                "no login with this state is under way: used before, too old, or never begun",
                clear,
                counts=True,
            )
        try:
            return open_transaction(value, place, state, binding, now)
        except SealError as error:
            return _failed(f"the login was begun in another browser: {error}", clear)

    async def _check_response(
        self, authenticator: BffAuthenticator, query: dict[str, list[str]], clear: bytes
    ) -> Denial | None:
        """Judge what the provider sent with the browser; None if there is a code of this provider in it."""
        if any(len(query.get(name, ())) > 1 for name in ("code", "iss", "error")):
            return _failed("a parameter of the callback stands twice", clear)
        issuer = _one(query, "iss")
        if issuer and issuer != authenticator.settings.issuer:  # RFC 9207 section 2.4: a mix-up
            return _failed("the answer comes from another provider (iss)", clear)
        if not issuer:
            metadata = await self._issuers.metadata(authenticator.settings)
            if metadata.authorization_response_iss_parameter_supported:
                return _failed("the answer does not say from which provider it comes (iss)", clear)
        error = _one(query, "error")
        if error:
            named = error if error in _ERRORS else "an error of its own"
            return _failed(
                f"the provider answered {named}",
                clear,
                detail=f"The identity provider answered: {named}. {_START_AGAIN}",
            )
        if _VISIBLE.fullmatch(_one(query, "code")) is None:
            return _failed("the answer has no code", clear)
        return None

    async def _make_record(
        self, authenticator: BffAuthenticator, transaction: Transaction, tokens: TokenSet
    ) -> Record:
        """Check who logged in. Raises TokenError, UnusableClaimError, IssuerUnavailableError."""
        settings = authenticator.settings
        now = self._clock()
        if not tokens.id_token:
            raise TokenError("there is no ID token among them")
        claims = await self._issuers.id_token_claims(settings, tokens.id_token, transaction.nonce, now)
        user = _user_claims(claims)
        more = await self._issuers.userinfo(settings, tokens.access_token)
        if more is not None:
            # OpenID Connect Core section 5.3.2: else one user could get another's claims.
            if more.get("sub") != claims.get("sub"):
                raise TokenError("the userinfo endpoint tells of another user (sub)")
            user |= _user_claims(more)
        subject_of(user)
        sid = claims.get("sid")
        ttl_s = access_ttl_s(tokens)
        return Record(
            issuer=settings.issuer,
            client_id=settings.client_id,
            created_at=now,
            ends_at=now + settings.absolute_ttl_s,
            claims=user,
            access_token=tokens.access_token,
            access_ttl_s=ttl_s,
            access_ends_at=now + ttl_s,
            refresh_token=tokens.refresh_token or "",
            id_token=tokens.id_token,
            scope=" ".join(settings.scopes) if tokens.scope is None else tokens.scope,
            sid=sid if isinstance(sid, str) else "",
        )


def origin_of(local: Local) -> bytes | None:
    return own_origin(local.head, local.client)


def is_secure(origin: bytes) -> bool:
    return origin.startswith(b"https:")


def _user_claims(claims: Claims) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in _TOKEN_CLAIMS}


def _one(query: dict[str, list[str]], name: str) -> str:
    """Return the one value of a parameter; "" without it, or if it stands twice."""
    values = query.get(name, ())
    return values[0] if len(values) == 1 else ""


def _failed(why: str, lines: bytes = b"", *, detail: str = "", counts: bool = False) -> Denial:
    return Denial(
        Reason.LOGIN_FAILED,
        detail=detail or f"The login could not be completed, or was completed already. {_START_AGAIN}",
        extra_lines=lines,
        why=why,
        is_failure=counts,
    )


def _no_origin() -> Denial:
    return Denial(
        Reason.LOGIN_FAILED,
        detail="The address of this site is not clear from the request.",
        why="Host, X-Forwarded-Host or X-Forwarded-Proto is missing, doubled or malformed, or of another gateway",
    )
