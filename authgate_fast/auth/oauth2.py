"""OAUTH2: access tokens of an identity provider (DESIGN section 7, RFC 6750, RFC 9068, RFC 7662).

A token that was found good is remembered by its digest, so a request costs one digest and one dict look-up. A JWT is
checked here with the provider's keys, which the room ``lookup`` brings and keeps fresh; with `introspect` the provider
is asked about each token instead. Times are in seconds since the epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.access_token import TOKEN_TYPES, check_client, check_kind, scopes_of
from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.auth.token_cache import TokenCache
from authgate_fast.auth.tokens import (
    LEEWAY_S,
    MAX_TOKEN_BYTES,
    Claims,
    TokenError,
    UnknownKeyError,
    VerifyingKey,
    bearer_token,
    expires_at,
    read_header,
    verify,
)
from authgate_fast.auth.user_lines import UnusableClaimError, roles_of, subject_of, user_lines
from authgate_fast.errors import Reason
from authgate_fast.snapshot import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authgate_fast.auth.secret import SecretRef
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Route

KEY_LIFETIME_S: Final = 600.0
"""How long the provider's keys, and what was checked with them, are believed without asking for them again."""
NEWS_PAUSE_S = 30.0
"""After the keys were read, a token that names an unknown one is refused without asking again for this long."""
REFUSED_S: Final = 5.0
"""How long a token that the provider called inactive is refused without asking again."""
_STALE_S: Final = 60.0
"""The same while the provider is away: known keys go on, and each token is checked anew after this long."""
_SCHEME_BYTES: Final = len(b"Bearer ")
_MAX_VALUE_BYTES: Final = MAX_TOKEN_BYTES + _SCHEME_BYTES
_sha256: Final = hashlib.sha256


class IssuerKeysLookup(Lookup):
    """The provider's keys are missing or old, or a token names one that is not among them.

    ``kid`` is what the token names, None for nothing.
    """

    __slots__ = ("kid",)

    def __init__(self, kid: str | None) -> None:
        super().__init__(is_guess=True)
        self.kid = kid


class IntrospectionLookup(Lookup):
    """The provider is to say whether `token` is good; `digest` is what the answer is remembered under."""

    __slots__ = ("digest", "token")

    def __init__(self, token: bytes, digest: bytes) -> None:
        super().__init__(is_guess=True)
        self.token = token
        self.digest = digest


@dataclass(frozen=True, slots=True)
class OAuth2Settings:
    """What a gateway's document says. `audience` None: tokens must name the client instead."""

    issuer: str
    client_id: str
    client_secret: SecretRef | None
    audience: str | None
    introspect: bool
    introspection_cache_s: int
    roles_claim: str


class OAuth2Authenticator:
    """Checks the access tokens of one client of one provider."""

    __slots__ = (
        "_asked_at",
        "_cache",
        "_keys",
        "_keys_until",
        "_missing",
        "_realm",
        "credential_fields",
        "endpoints",
        "hits",
        "keeps_lines",
        "misses",
        "reserved",
        "settings",
    )

    def __init__(self, gateway: str, settings: OAuth2Settings) -> None:
        self.settings = settings
        self.credential_fields = frozenset({b"authorization"})
        self.keeps_lines = False
        self.reserved = b""
        self.endpoints = NO_ENDPOINTS
        self._cache = TokenCache()
        self.hits = 0  # tokens that memory knew as good, and others
        self.misses = 0
        self._keys: Mapping[str, VerifyingKey] = {}
        self._keys_until = 0.0
        self._asked_at = 0.0
        self._realm = f'WWW-Authenticate: Bearer realm="{gateway}"'.encode("ascii")
        # RFC 6750 section 3: who shows no token is told no error code.
        self._missing = Denial(
            Reason.CREDENTIALS_MISSING,
            detail="This route needs an access token, sent as 'Authorization: Bearer <token>'.",
            extra_lines=self._realm + b"\r\n",
            why="the request has no Authorization field with the scheme Bearer",
        )

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Answer from memory where the token is known; else check it, or say what that needs."""
        if len(presented) != 1:
            return self._refusal("the request has two Authorization fields") if presented else self._missing
        value = presented[0][1]
        if len(value) > _MAX_VALUE_BYTES:
            return self._refusal(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        # The digest is the token's, so that one token is judged once however the field is spelt (1*SP, any case).
        digest = _sha256(value[_SCHEME_BYTES:]).digest() if value.startswith(b"Bearer ") else b""
        known = self._cache.good.get(digest)
        if known is not None and known[1] > now:
            self.hits += 1
            return known[0]
        token = self._token(value)
        if isinstance(token, Denial):
            return token
        if len(token) != len(value) - _SCHEME_BYTES or not digest:
            digest = _sha256(token).digest()
            known = self._cache.good.get(digest)
            if known is not None and known[1] > now:
                self.hits += 1
                return known[0]
        if self.settings.introspect:
            if self._cache.refused.get(digest, 0.0) > now:
                return self._refusal("the provider has said that the token is not active")
            self.misses += 1
            return IntrospectionLookup(token, digest)
        # A check of a signature is work that a guesser could make us do: not beyond the limit (the plan answers 429).
        if client.guess_wait_s(head, b"", now):
            return self._refusal("too many failed checks from this address; the token was not looked at")
        self.misses += 1
        if now >= self._keys_until:
            return self._ask_for_keys(token)
        return self._check(token, digest, now)

    def identify_again(self, presented: Presented, now: float) -> Identity | Denial:
        """Answer after the provider's keys were looked up."""
        value = presented[0][1]
        token = self._token(value)
        if isinstance(token, Denial):
            return token
        found = self._check(token, _sha256(token).digest(), now)
        if isinstance(found, IssuerKeysLookup):
            return self._refusal("the token names a key that the provider does not publish")
        return found

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Only the provider could say more. A token may run out meanwhile: it was good when it was shown."""
        return None if identity.consumer else identity

    def kept_lines(self, presented: Presented) -> bytes:
        """Keep nothing: a token that goes on is the identity's ``token_line``."""
        return b""

    def forbidden_lines(self, route: Route) -> bytes:
        """Say which scopes the route asks for (RFC 6750 section 3.1)."""
        if not route.scopes:
            return b""
        scopes = " ".join(sorted(route.scopes)).encode("ascii")
        return self._realm + b', error="insufficient_scope", scope="%b"\r\n' % scopes

    # What the room ``lookup`` finds out

    @property
    def remembered(self) -> int:
        """How many tokens are known as good."""
        return len(self._cache.good)

    @property
    def remembered_refusals(self) -> int:
        """How many tokens the provider need not be asked about again for a while."""
        return len(self._cache.refused)

    @property
    def keys(self) -> Mapping[str, VerifyingKey]:
        """The provider's keys as they were read last."""
        return self._keys

    def set_keys(self, keys: Mapping[str, VerifyingKey], read_at: float, now: float) -> None:
        """Take the provider's keys, which were read at `read_at`.

        If one of those known so far is gone or is another, nothing that was checked with them is believed any more.
        """
        if any(keys.get(kid) != key for kid, key in self._keys.items()):
            self._cache.forget_all()
        self._keys = keys
        self._asked_at = read_at
        self._keys_until = max(read_at + KEY_LIFETIME_S, now + _STALE_S)

    def introspected(self, lookup: IntrospectionLookup, answer: Claims, now: float) -> Identity | Denial:
        """Judge what the provider says about a token (RFC 7662 section 2.2), and remember it."""
        try:
            if answer.get("active") is not True:
                raise TokenError("the provider says that it is not active")
            # What the provider leaves out, it has checked itself; what it says must be right (RFC 7662 section 4).
            if answer.get("iss", self.settings.issuer) != self.settings.issuer:
                raise TokenError("it was issued by somebody else (iss)")
            if str(answer.get("token_type", "bearer")).lower() not in {"bearer", "access_token"}:
                raise TokenError("it is no bearer token (token_type)")
            ends_at = expires_at(answer) if answer.get("exp") is not None else float("inf")
            if ends_at <= now:
                raise TokenError("it has expired (exp)")
            check_kind({"scope": "", **answer}, "")
            identity = self._identity(answer, lookup.token, ends_at)
        except (TokenError, UnusableClaimError) as error:
            self._cache.keep_refused(lookup.digest, now + REFUSED_S)
            return self._refusal(str(error))
        until = min(ends_at, now + self.settings.introspection_cache_s)
        if until > now:
            self._cache.keep(lookup.digest, identity, until)
        return identity

    # What is decided here

    def _token(self, value: bytes) -> bytes | Denial:
        if not value:
            return self._missing
        token = bearer_token(value)
        if token is None:
            return self._missing  # another scheme: RFC 6750 section 3.1 gives no error code for that either
        return token or self._refusal("the Authorization field holds no token that could be one")

    def _ask_for_keys(self, token: bytes) -> Denial | IssuerKeysLookup:
        try:
            kid = read_header(token).get("kid")
        except TokenError as error:
            return self._refusal(str(error))
        return IssuerKeysLookup(kid if isinstance(kid, str) else None)

    def _check(self, token: bytes, digest: bytes, now: float) -> Identity | Denial | IssuerKeysLookup:
        settings = self.settings
        try:
            claims = verify(token, self._keys, issuer=settings.issuer, now=now, types=TOKEN_TYPES)
            kind = str(read_header(token).get("typ", "")).lower().removeprefix("application/")
            check_kind(claims, kind)
            ends_at = expires_at(claims)
            identity = self._identity(claims, token, ends_at)
        except UnknownKeyError as unknown:
            if 0 <= now - self._asked_at < NEWS_PAUSE_S:
                return self._refusal(str(unknown))
            return IssuerKeysLookup(unknown.kid)
        except (TokenError, UnusableClaimError) as error:
            return self._refusal(str(error))
        self._cache.keep(digest, identity, min(ends_at + LEEWAY_S, self._keys_until))
        return identity

    def _identity(self, claims: Claims, token: bytes, ends_at: float) -> Identity:
        settings = self.settings
        client_id = check_client(claims, settings.client_id, settings.audience)
        subject = subject_of(claims)
        roles = roles_of(claims, settings.roles_claim)
        return Identity(
            "",
            subject,
            frozenset(roles),
            ends_at,
            user_lines(subject, roles, client_id),
            scopes=scopes_of(claims),
            token_line=b"Authorization: Bearer %b\r\n" % token,
        )

    def _refusal(self, why: str) -> Denial:
        """One answer for all that is wrong with a token: which of them it is, only the operator is told."""
        return Denial(
            Reason.CREDENTIALS_INVALID,
            detail="The access token is not valid or has expired.",
            extra_lines=self._realm
            + b', error="invalid_token", error_description="The token is not valid or has expired"\r\n',
            why=f"the access token was not accepted: {why}",
            is_failure=True,
        )
