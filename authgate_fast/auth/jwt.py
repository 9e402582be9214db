"""Tokens of a gateway's own login (DESIGN section 7, JWT; claims as in RFC 9068). Pure: no IO, no clock.

A token is verified once per worker; from then on memory knows it by its digest, until its end. Who it stands for is
read from the consumer as it is now: roles come from the document and not from the token, and a consumer that was
changed, disabled or deleted is another `User` object, or none, which ends what is remembered. The digest is one of
the whole Authorization value, so another spelling of a token is another token, and is verified.

Bounds: `MAX_REMEMBERED` tokens per gateway and worker. Signatures are checked only for addresses that have not failed
too often.
"""

from __future__ import annotations

import hashlib
from math import floor
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.held_keys import HeldKeys
from authgate_fast.auth.interface import Denial, Lookup, Presented
from authgate_fast.auth.signing import KID_CHARACTERS
from authgate_fast.auth.tokens import (
    MAX_TOKEN_BYTES,
    TokenError,
    UnknownKeyError,
    bearer_token,
    expires_at,
    read_header,
    sign,
    verify,
)
from authgate_fast.errors import Reason
from authgate_fast.snapshot import Identity

if TYPE_CHECKING:
    from authgate_fast.auth.signing import SigningKey
    from authgate_fast.auth.tokens import Claims, VerifyingKey
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Consumers, Route, User

MAX_REMEMBERED = 20_000
"""Verified tokens, some 600 bytes each; past it the oldest is verified again."""
MAX_VALUE_BYTES: Final = MAX_TOKEN_BYTES + 16
TOKEN_TYPE: Final = "at+jwt"  # RFC 9068 section 2.1

_TYPES: Final = frozenset({TOKEN_TYPE})
_ID_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MAX_ID_CHARACTERS: Final = 64
_sha256: Final = hashlib.sha256


class SigningKeysLookup(Lookup):
    """A token that is not judged yet.

    ``kid`` is the key that is not known; empty where no key is known at all.
    """

    __slots__ = ("kid",)

    def __init__(self, kid: str = "") -> None:
        super().__init__(is_guess=True)
        self.kid = kid


class JwtAuthenticator:
    """Checks the tokens of one gateway. ``held`` are its keys, given by whoever can read them."""

    __slots__ = (
        "_challenge", "_malformed", "_missing", "_remembered",
        "access_ttl_s", "algorithm", "consumers", "credential_fields", "endpoints", "gateway", "held", "hits", "issuer",
        "keeps_lines", "misses", "refresh_ttl_s", "reserved",
    )  # fmt: skip

    def __init__(
        self,
        gateway: str,
        issuer: str,
        consumers: Consumers,
        *,
        access_ttl_s: int,
        refresh_ttl_s: int,
        algorithm: str,
    ) -> None:
        self.credential_fields = frozenset({b"authorization"})
        self.keeps_lines = False
        self.reserved = b"auth"
        self.endpoints: dict[bytes, tuple[bytes, ...]] = {
            b"login": (b"POST",),
            b"refresh": (b"POST",),
            b"logout": (b"POST",),
            b"jwks": (b"GET",),
        }
        self.gateway = gateway
        self.issuer = issuer
        self.consumers = consumers
        self.access_ttl_s = access_ttl_s
        self.refresh_ttl_s = refresh_ttl_s
        self.algorithm = algorithm
        self.held = HeldKeys()
        self._remembered = self.held.verified
        self.hits = 0  # tokens that memory knew, and others
        self.misses = 0
        self._challenge = f'WWW-Authenticate: Bearer realm="{gateway}"'.encode("ascii")
        self._missing = Denial(
            Reason.CREDENTIALS_MISSING,
            detail="This route needs a token in the Authorization header (Bearer); POST /auth/login gives one.",
            extra_lines=self._challenge + b"\r\n",
            why="the request has no Authorization field with the scheme Bearer",
        )
        self._malformed = self.refusal("the Authorization field was sent twice, or is no bearer token")

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Say who a remembered token stands for; another one is verified."""
        if len(presented) != 1:
            return self._malformed if presented else self._missing
        value = presented[0][1]
        if len(value) > MAX_VALUE_BYTES:
            return self._malformed
        digest = _sha256(value).digest()
        known = self._remembered.get(digest)
        if known is not None:
            identity, user, ends_at = known
            if ends_at > now and self.consumers.users.get(user.username) is user:
                self.hits += 1
                return identity
            del self._remembered[digest]
        if client.guess_wait_s(head, b"", now):
            return self._malformed  # the plan answers 429; no signature is checked for a guesser
        self.misses += 1
        return self._judge(value, digest, now)

    def identify_again(self, presented: Presented, now: float) -> Identity | Denial:
        """Say who a token stands for, after the look-up: a key that is still not known is nobody's."""
        value = presented[0][1]
        found = self._judge(value, _sha256(value).digest(), now)
        if isinstance(found, Lookup):
            return self.refusal("its token is signed with a key that is not known here")
        return found

    def _judge(self, value: bytes, digest: bytes, now: float) -> Identity | Denial | Lookup:
        token = bearer_token(value)
        if not token:
            return self._missing if token is None else self._malformed
        try:
            if self.held.keys is None:
                read_header(token)  # what is no token needs no keys
                return SigningKeysLookup()
            claims = self.claims_of(token, now)
        except UnknownKeyError as unknown:
            if not _is_id(unknown.kid, KID_CHARACTERS) or len(unknown.kid) != KID_CHARACTERS:
                return self.refusal("its token names a key that cannot be one of ours")
            return SigningKeysLookup(unknown.kid)
        except TokenError as error:
            return self.refusal(f"its token is not good: {error}")
        user = self.user_of(claims)
        if user is None or user.expires_at <= now:
            return self.refusal("its token is of a consumer that does not exist, is disabled or has expired")
        jti = claims["jti"]
        ends_at = min(expires_at(claims), user.expires_at)
        lines = user.lines + b"X-Credential-Id: %b\r\n" % jti.encode("ascii")
        identity = Identity(user.consumer, jti, user.roles, ends_at, lines, name=user.username)
        remembered = self._remembered
        if len(remembered) >= MAX_REMEMBERED:
            del remembered[next(iter(remembered))]
        remembered[digest] = (identity, user, ends_at)
        return identity

    def claims_of(self, token: bytes, now: float) -> Claims:
        """Return the claims of a token of this gateway that is valid now. Raises TokenError."""
        claims = verify(
            token,
            self.held.keys or {},
            issuer=self.issuer,
            now=now,
            types=_TYPES,
            audience=self.gateway,
            kid_required=True,
        )
        # One clock gave the token and takes it back, so its end is the end: no leeway.
        if expires_at(claims) <= now:
            raise TokenError("it has expired (exp)")
        for name in ("iat", "sub", "jti", "sid", "preferred_username"):
            if claims.get(name) is None:
                raise TokenError(f"it has no {name}")
        if not (_is_id(claims["jti"]) and _is_id(claims["sid"])):
            raise TokenError("its jti or sid is none of ours")
        return claims

    def user_of(self, claims: Claims) -> User | None:
        """Return the user that verified claims are about, as it is now; None: there is none any more."""
        username = claims["preferred_username"]
        if not isinstance(username, str):
            return None
        user = self.consumers.users.get(username.encode("utf-8"))
        return user if user is not None and user.consumer == claims["sub"] else None

    def issue(self, user: User, key: SigningKey, now: float, jti: str, session: str) -> tuple[bytes, int]:
        """Return a new token for `user`, and in how many seconds it ends. `session` names its refresh tokens."""
        issued_at = floor(now)
        ends_at = int(min(issued_at + self.access_ttl_s, user.expires_at))
        claims = {
            "iss": self.issuer,
            "aud": self.gateway,
            "sub": user.consumer,
            "preferred_username": user.username.decode("utf-8"),
            "roles": sorted(user.roles),
            "iat": issued_at,
            "exp": ends_at,
            "jti": jti,
            "sid": session,
        }
        token = sign(claims, key=key.key, kid=key.kid, algorithm=key.algorithm, kind=TOKEN_TYPE)
        return token, ends_at - issued_at

    @property
    def remembered(self) -> int:
        """How many tokens are known as good."""
        return len(self._remembered)

    @property
    def keys(self) -> dict[str, VerifyingKey] | None:
        """The keys in force, by kid; None: nobody has read them yet."""
        return self.held.keys

    def set_keys(self, keys: dict[str, VerifyingKey]) -> None:
        """Take the keys in force."""
        self.held.replace(keys)

    def refusal(self, why: str, account: bytes = b"") -> Denial:
        """Make the one answer for all that is wrong with a token; `why` is for the operator."""
        return Denial(
            Reason.CREDENTIALS_INVALID,
            # RFC 6750 section 3.1
            extra_lines=self._challenge
            + b', error="invalid_token", error_description="The token is not valid here, or not any more."\r\n',
            why=why,
            is_failure=True,
            account=account,
        )

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Find the consumer as it is now. A token may run out meanwhile: it was good when it was shown."""
        user = None if identity.secret else self.consumers.users.get(identity.name)
        if user is None or user.consumer != identity.consumer or user.expires_at <= now:
            return None
        if user.roles == identity.roles:
            return identity
        return Identity(
            user.consumer,
            identity.credential_id,
            user.roles,
            identity.expires_at,
            identity.identity_lines,
            name=user.username,
        )

    def kept_lines(self, presented: Presented) -> bytes:
        """Keep nothing: the token is for the gateway."""
        return b""

    def forbidden_lines(self, route: Route) -> bytes:
        """Say what the token is not enough for (RFC 6750 section 3.1)."""
        scope = f', scope="{" ".join(sorted(route.scopes))}"'.encode("ascii") if route.scopes else b""
        return self._challenge + b', error="insufficient_scope"' + scope + b"\r\n"


def _is_id(text: object, limit: int = _MAX_ID_CHARACTERS) -> bool:
    """Tell whether `text` is one of our random names; nothing else goes into a field line."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= limit
        and text.isascii()
        and not text.encode("ascii").translate(None, _ID_BYTES)
    )
