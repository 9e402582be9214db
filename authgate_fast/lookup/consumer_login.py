"""The endpoints of a JWT gateway (DESIGN section 7): login, refresh, logout, and the public keys.

A login begins a family: one record in the store, under a name made of the SHA-256 of the family's secret name. A
refresh token is that secret name and 256 random bits; the record holds the SHA-256 of those bits for the one token that
is good, so reading the store gives nobody a token. Each use swaps in the next one. A token of the family that is not
the good one was used before: somebody has a copy, and the family ends, for both. Who has never seen a token of a family
cannot name it, so nobody else can end it. Of two uses at once one loses the swap, and that is a second use too.

A family lives while its consumer is enabled and has the same username and the password that began it, and
``refresh_ttl_s`` after its last use. Every failure of login and refresh has one text for all reasons and counts.
"""

from __future__ import annotations

import logging
import secrets
import time
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import orjson

from authgate_fast.auth.basic import MAX_USERNAME_BYTES, read_credential
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.json_object import JsonError, read_object
from authgate_fast.auth.jwt import JwtAuthenticator, SigningKeysLookup
from authgate_fast.auth.password import identity_of, stand_in
from authgate_fast.auth.tokens import TokenError, UnknownKeyError, bearer_token, encode_base64url
from authgate_fast.decision import Reply, caller_address
from authgate_fast.errors import Reason
from authgate_fast.lookup.families import count_family
from authgate_fast.lookup.passwords import Caller, PoolFailedError, PoolFullError
from authgate_fast.lookup.store import STATE_PREFIX

if TYPE_CHECKING:
    from authgate_fast.auth.signing import SigningKey
    from authgate_fast.auth.tokens import Claims
    from authgate_fast.decision import Local
    from authgate_fast.lookup.keyring import Keyrings
    from authgate_fast.lookup.passwords import PasswordPool
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.snapshot import User

REFRESH_PREFIX = f"{STATE_PREFIX}refresh:"
TOKEN_PREFIX = "agr_"
MAX_PASSWORD_BYTES = 4_096
JWKS_MAX_AGE_S = 60

_FAMILY_BYTES, _SECRET_BYTES, _JTI_BYTES, _SID_BYTES = 16, 32, 12, 24
_FAMILY_CHARACTERS, _SECRET_CHARACTERS = 22, 43
_PRIVATE_LINES = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
_JWKS_LINES = (
    b"Content-Type: application/jwk-set+json\r\nCache-Control: public, max-age=%d\r\n" % JWKS_MAX_AGE_S
)

log = logging.getLogger("authgate.jwt")


class ConsumerLogin:
    """Answers at ``/auth/*``. Raises StateUnavailableError."""

    def __init__(
        self,
        store: StateStore,
        keyrings: Keyrings,
        passwords: PasswordPool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keyrings = keyrings
        self._passwords = passwords
        self._clock = clock

    async def answer(self, local: Local, body: bytes) -> Reply | Denial:
        """Answer one request."""
        authenticator = local.gateway.authenticator
        assert isinstance(authenticator, JwtAuthenticator)
        try:
            if local.endpoint == b"login":
                return await self._login(authenticator, local, body)
            if local.endpoint == b"refresh":
                return await self._refresh(authenticator, local, body)
            if local.endpoint == b"logout":
                return await self._logout(authenticator, local, body)
        except _BadRequestError as error:
            return Denial(Reason.BAD_REQUEST, detail=str(error), why=str(error))
        return Reply(200, _JWKS_LINES, await self._keyrings.jwks(authenticator))

    async def _login(self, authenticator: JwtAuthenticator, local: Local, body: bytes) -> Reply | Denial:
        credential = _read_login(local, body)
        if credential is None:
            return Denial(
                Reason.CREDENTIALS_MISSING,
                detail='Send {"username": "...", "password": "..."} as application/json, or HTTP Basic.',
                extra_lines=_challenge(authenticator),
                why="the request has neither a JSON body nor HTTP Basic credentials",
            )
        username, password = credential
        caller = _caller(local, f"{authenticator.gateway}/".encode("ascii") + username)
        if caller.is_blocked(self._clock()):  # the plan makes it the 429
            return _refused_login(authenticator, caller, "too many failures")
        users = authenticator.consumers.users
        user = users.get(username)
        try:
            identity = await self._passwords.verify(
                user, password, self._clock(), caller, stand_in(users, username)
            )
        except PoolFullError:
            return Denial(Reason.OVERLOADED, why="too many password checks wait already")
        except PoolFailedError as error:
            return Denial(Reason.AUTH_UNAVAILABLE, why=str(error))
        if user is None or identity is None:
            return _refused_login(
                authenticator, caller, "unknown username, wrong password, or it has expired"
            )
        # The consumer may have changed while the check waited: what counts is its document now.
        phc = next(phc for phc, own in user.passwords if own is identity)
        user, now = users.get(username), self._clock()
        if user is None or identity_of(user, phc, now) is None:
            return _refused_login(authenticator, caller, "the consumer was changed or disabled meanwhile")
        key = await self._keyrings.signing_key(authenticator)
        family = secrets.token_bytes(_FAMILY_BYTES)
        secret = secrets.token_bytes(_SECRET_BYTES)
        record = _record(user, _fingerprint(phc), secret, now)
        await self._store.put(_name(authenticator, family), record, authenticator.refresh_ttl_s)
        await count_family(
            self._store,
            prefix=_prefix(authenticator),
            gateway=authenticator.gateway,
            consumer=user.consumer,
            sid=_sid(family),
            ttl_s=authenticator.refresh_ttl_s,
        )
        return _tokens(authenticator, user, key, family, secret, now)

    async def _refresh(self, authenticator: JwtAuthenticator, local: Local, body: bytes) -> Reply | Denial:
        caller = _caller(local, b"")
        if caller.is_blocked(self._clock()):
            return authenticator.refusal("too many failures")
        parts = _read_refresh_token(_field(local, body))
        if parts is None:
            return authenticator.refusal("it is no refresh token")
        family, secret = parts
        name = _name(authenticator, family)
        text = await self._store.get(name)
        if text is None:
            return authenticator.refusal("its family has ended, or never was")
        now = self._clock()
        record = _read_record(text)
        if not compare_digest(str(record.get("current")), _digest(secret)):
            return await self._end_reused(authenticator, name, record)
        user, fingerprint = _user_of(authenticator, record, now)
        if user is None:
            await self._store.delete(name)
            return authenticator.refusal("its consumer is disabled or changed its password, or it is too old")
        key = await self._keyrings.signing_key(authenticator)
        secret = secrets.token_bytes(_SECRET_BYTES)
        changed = _record(user, fingerprint, secret, now)
        if not await self._store.swap(name, text, changed, authenticator.refresh_ttl_s):
            return await self._end_reused(authenticator, name, record)
        return _tokens(authenticator, user, key, family, secret, now)

    async def _end_reused(self, authenticator: JwtAuthenticator, name: str, record: dict[str, Any]) -> Denial:
        """End a family of which a token was used twice (RFC 9700 section 4.14.2)."""
        await self._store.delete(name)
        log.warning(
            "a refresh token of consumer %s/%s was used twice; its family has ended",
            authenticator.gateway,
            record.get("consumer"),
        )
        return authenticator.refusal("it was used before; its family has ended")

    async def _logout(self, authenticator: JwtAuthenticator, local: Local, body: bytes) -> Reply | Denial:
        if body:
            parts = _read_refresh_token(_field(local, body))
            if parts is not None:
                await self._store.delete(_name(authenticator, parts[0]))
            return Reply(204, b"Cache-Control: no-store\r\n")
        values = _authorization(local)
        token = bearer_token(values[0]) if len(values) == 1 else None
        if not values:
            return Denial(
                Reason.CREDENTIALS_MISSING,
                detail='Send {"refresh_token": "..."} as application/json, or the access token as Bearer.',
                extra_lines=_challenge(authenticator),
                why="the request has neither a refresh token nor a bearer token",
            )
        if not token or _caller(local, b"").is_blocked(self._clock()):
            return authenticator.refusal("no bearer token, or too many failures")
        try:
            claims = await self._claims_of(authenticator, token)
        except TokenError as error:
            return authenticator.refusal(f"its token is not good: {error}")
        await self._store.delete(_prefix(authenticator) + claims["sid"])
        return Reply(204, b"Cache-Control: no-store\r\n")

    async def _claims_of(self, authenticator: JwtAuthenticator, token: bytes) -> Claims:
        try:
            return authenticator.claims_of(token, self._clock())
        except UnknownKeyError as error:
            await self._keyrings.refresh(authenticator, SigningKeysLookup(error.kid))
            return authenticator.claims_of(token, self._clock())


class _BadRequestError(Exception):
    """The body is not what the endpoint takes; the text is a sentence for the client."""


def _read_login(local: Local, body: bytes) -> tuple[bytes, bytes] | None:
    """Return a username and a password, or None if nothing is shown. Raises _BadRequestError."""
    values = _authorization(local)
    if len(values) > 1:
        raise _BadRequestError("The Authorization field was sent twice.")
    scheme, _, token = values[0].partition(b" ") if values else (b"", b"", b"")
    is_basic = (
        scheme.lower() == b"basic"
    )  # an old bearer token, as some clients add to all they send, is none
    if not body:
        if not is_basic:
            return None
        credential = read_credential(token.lstrip(b" "))
        if credential is None:
            raise _BadRequestError("The HTTP Basic credentials are malformed.")
        return credential
    if is_basic:
        raise _BadRequestError("Send either a JSON body or HTTP Basic credentials, not both.")
    fields = _read_body(local, body, ("username", "password"))
    username, password = (fields[name].encode("utf-8") for name in ("username", "password"))
    if not 0 < len(username) <= MAX_USERNAME_BYTES or len(password) > MAX_PASSWORD_BYTES:
        raise _BadRequestError(
            f"A username has 1 to {MAX_USERNAME_BYTES} bytes, a password at most {MAX_PASSWORD_BYTES}."
        )
    return username, password


def _read_body(local: Local, body: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Return the fields of a JSON body, which are exactly `names`, all of them texts."""
    shape = "{" + ", ".join(f'"{name}": "..."' for name in names) + "}"
    kinds = local.head.values(b"content-type")
    # Other types come from plain HTML forms, which any site can make a browser send.
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip(b" \t").lower() != b"application/json":
        raise _BadRequestError(f"Send {shape} with Content-Type: application/json.")
    try:
        fields = read_object(body)
    except JsonError as error:
        raise _BadRequestError(f"The body cannot be used: {error}. Send {shape}.") from None
    if fields.keys() != set(names) or not all(isinstance(value, str) for value in fields.values()):
        raise _BadRequestError(f"The body must be {shape}, with no other fields.")
    return fields


def _field(local: Local, body: bytes) -> str:
    return _read_body(local, body, ("refresh_token",))["refresh_token"]


def _read_refresh_token(text: str) -> tuple[bytes, bytes] | None:
    """Return the family's secret name and the token's own secret; None: it is none of our tokens."""
    size = len(TOKEN_PREFIX) + _FAMILY_CHARACTERS + _SECRET_CHARACTERS
    if len(text) != size or not text.isascii() or not text.startswith(TOKEN_PREFIX):
        return None
    data = text.encode("ascii")[len(TOKEN_PREFIX) :]
    try:
        family = urlsafe_b64decode(data[:_FAMILY_CHARACTERS] + b"==")
        secret = urlsafe_b64decode(data[_FAMILY_CHARACTERS:] + b"=")
    except Base64Error:
        return None
    return (family, secret) if _write_refresh_token(family, secret) == text else None


def _write_refresh_token(family: bytes, secret: bytes) -> str:
    return TOKEN_PREFIX + (encode_base64url(family) + encode_base64url(secret)).decode("ascii")


def _record(user: User, fingerprint: str, secret: bytes, now: float) -> bytes:
    return orjson.dumps(
        {
            "consumer": user.consumer,
            "username": user.username.decode("utf-8"),
            "password": fingerprint,
            "current": _digest(secret),
            "issued_at": now,
        }
    )


def _read_record(text: bytes) -> dict[str, Any]:
    """Return a record; what is none of ours is an empty one, which no token fits."""
    try:
        return read_object(text)
    except JsonError:
        return {}


def _user_of(authenticator: JwtAuthenticator, record: dict[str, Any], now: float) -> tuple[User | None, str]:
    """Return whose family it is, if that consumer may still go on with it, and the password's fingerprint."""
    fingerprint, issued_at = record.get("password"), record.get("issued_at")
    user = authenticator.consumers.users.get(str(record.get("username")).encode("utf-8"))
    if (
        user is None
        or user.consumer != record.get("consumer")
        or user.expires_at <= now
        or not isinstance(fingerprint, str)
        or not isinstance(issued_at, int | float)
        or issued_at + authenticator.refresh_ttl_s <= now  # the setting may be shorter by now
    ):
        return None, ""
    for phc, identity in user.passwords:
        if identity.expires_at > now and compare_digest(_fingerprint(phc), fingerprint):
            return user, fingerprint
    return None, ""


def _tokens(
    authenticator: JwtAuthenticator, user: User, key: SigningKey, family: bytes, secret: bytes, now: float
) -> Reply:
    jti = encode_base64url(secrets.token_bytes(_JTI_BYTES)).decode("ascii")
    token, expires_in = authenticator.issue(user, key, now, jti, _sid(family))
    body = orjson.dumps(
        {
            "access_token": token.decode("ascii"),
            "token_type": "Bearer",
            "expires_in": expires_in,
            "refresh_token": _write_refresh_token(family, secret),
        }
    )
    return Reply(200, _PRIVATE_LINES, body)


def _name(authenticator: JwtAuthenticator, family: bytes) -> str:
    return _prefix(authenticator) + _sid(family)


def _prefix(authenticator: JwtAuthenticator) -> str:
    return f"{REFRESH_PREFIX}{authenticator.gateway}:"


def _sid(family: bytes) -> str:
    """Return what a family is called where others may read it: in the store and in access tokens."""
    return encode_base64url(sha256(b"authgate family\0" + family).digest()[:_SID_BYTES]).decode("ascii")


def _digest(secret: bytes) -> str:
    return sha256(secret).hexdigest()


def _fingerprint(phc: str) -> str:
    """Return what tells one stored password hash from another, and nothing else."""
    return sha256(b"authgate password\0" + phc.encode("utf-8")).hexdigest()


def _caller(local: Local, account: bytes) -> Caller:
    return Caller(caller_address(local.head, local.client), account, local.client.guard)


def _authorization(local: Local) -> list[bytes]:
    return [value for name, value in local.head.presented or () if name == b"authorization"]


def _challenge(authenticator: JwtAuthenticator) -> bytes:
    # Bearer, not Basic: no browser shall open a dialog over a page's own login form.
    return f'WWW-Authenticate: Bearer realm="{authenticator.gateway}"\r\n'.encode("ascii")


def _refused_login(authenticator: JwtAuthenticator, caller: Caller, why: str) -> Denial:
    return Denial(
        Reason.CREDENTIALS_INVALID,
        detail="The username or the password was not accepted.",
        extra_lines=_challenge(authenticator),
        why=why,
        is_failure=True,
        account=caller.account,
    )
