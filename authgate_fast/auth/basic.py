"""A username and a password in every request (RFC 7617; DESIGN section 7, BASIC).

A password is checked once, off the loop (`PasswordLookup`); from then on memory knows its credential by a keyed digest.
The key is random and never leaves the process, so what is remembered is of no use elsewhere. A remembered credential
counts as long as its consumer is the very same `User` object and has not expired: every change of a consumer makes
another object.
"""

from __future__ import annotations

import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Consumers, Identity, Route, User

MAX_TOKEN_BYTES: Final = 4_096
"""The base64 text; longer ones are refused unread. A username may have 512 bytes, so passwords have room."""
MAX_USERNAME_BYTES: Final = 512
"""128 characters of UTF-8: the most that a document allows."""
MAX_REMEMBERED = 65_536
"""Credentials known as good, per gateway and worker; about 15 MB. Past it the oldest is asked for again."""

_CONTROLS: Final = bytes(range(32)) + b"\x7f"


class PasswordLookup(Lookup):
    """A username and a password that memory does not know. ``user`` is None where nobody has this name.

    ``digest`` names exactly this credential at this gateway, without telling anything about it.
    """

    __slots__ = ("authenticator", "digest", "password", "user", "username")

    def __init__(
        self,
        authenticator: BasicAuthenticator,
        user: User | None,
        username: bytes,
        password: bytes,
        digest: bytes,
        account: bytes,
    ) -> None:
        super().__init__(account, is_guess=True)
        self.authenticator = authenticator
        self.user = user
        self.username = username
        self.password = password
        self.digest = digest


class BasicAuthenticator:
    """Checks Basic credentials against the passwords of a gateway's users."""

    __slots__ = (
        "_account_prefix", "_challenge", "_invalid", "_keyed", "_known", "_missing",
        "consumers", "credential_fields", "endpoints", "hits", "keeps_lines", "misses", "reserved",
    )  # fmt: skip

    def __init__(self, gateway: str, realm: str, consumers: Consumers) -> None:
        self.credential_fields = frozenset({b"authorization"})
        self.keeps_lines = False
        self.reserved = b""
        self.endpoints = NO_ENDPOINTS
        self.consumers = consumers
        self._account_prefix = gateway.encode("ascii") + b"/"
        self._keyed = blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._known: dict[bytes, tuple[User, Identity]] = {}
        self.hits = 0  # credentials that memory knew, and others
        self.misses = 0
        self._challenge = f'WWW-Authenticate: Basic realm="{realm}", charset="UTF-8"\r\n'.encode("ascii")
        self._missing = Denial(
            Reason.CREDENTIALS_MISSING,
            detail="This route needs a username and a password (HTTP Basic authentication).",
            extra_lines=self._challenge,
            why="the request has no Authorization field with the scheme Basic",
        )
        self._invalid = self.refusal(b"", "the Authorization field was sent twice, is malformed or too long")

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Say who a remembered credential is; others are read, and their password is to be checked."""
        if len(presented) != 1:
            return self._invalid if presented else self._missing
        value = presented[0][1]
        if value.startswith(b"Basic ") and not value.startswith(b"Basic  "):
            token = value[6:]  # the usual spelling
        else:
            scheme, _, token = value.partition(b" ")
            # The scheme has no case (RFC 9110 section 11.1); of bytes, `lower` knows ASCII letters only.
            if scheme.lower() != b"basic":
                return self._missing
            token = token.lstrip(b" ")  # one space or more (RFC 9110 section 11.4)
        if len(token) > MAX_TOKEN_BYTES:
            return self._invalid
        keyed = self._keyed.copy()
        keyed.update(token)
        digest = keyed.digest()
        known = self._known.get(digest)
        if known is not None:
            user, identity = known
            if self.consumers.users.get(user.username) is user and identity.expires_at > now:
                self.hits += 1
                return identity
            del self._known[digest]
        return self._read(token, digest)

    def _read(self, token: bytes, digest: bytes) -> Denial | Lookup:
        credential = read_credential(token)
        if credential is None:
            return self._invalid
        username, password = credential
        user = self.consumers.users.get(username)
        self.misses += 1
        return PasswordLookup(self, user, username, password, digest, self._account_prefix + username)

    @property
    def remembered(self) -> int:
        """How many credentials are known as good."""
        return len(self._known)

    def remember(self, digest: bytes, user: User, identity: Identity) -> None:
        """Keep a credential that was found to be good. Failures are not kept: guesses would fill the memory."""
        known = self._known
        if len(known) >= MAX_REMEMBERED and digest not in known:
            del known[next(iter(known))]
        known[digest] = (user, identity)

    def refusal(self, account: bytes, why: str) -> Denial:
        """Make the one answer for all that is wrong with a credential; `why` is for the operator."""
        return Denial(
            Reason.CREDENTIALS_INVALID,
            extra_lines=self._challenge,
            why=why,
            is_failure=True,
            account=account,
        )

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Find the password that was good among those of the user as it is now."""
        user = self.consumers.users.get(identity.name)
        if user is not None and user.consumer == identity.consumer:
            for secret, current in user.passwords:
                if secret == identity.secret and current.expires_at > now:
                    return current
        return None

    def kept_lines(self, presented: Presented) -> bytes:
        """Keep nothing: the password is for the gateway."""
        return b""

    def forbidden_lines(self, route: Route) -> bytes:
        """Say no more: the scheme has no such parameters."""
        return b""


def read_credential(token: bytes) -> tuple[bytes, bytes] | None:
    """Return the username and the password that a Basic credential is made of; None if it is malformed."""
    if len(token) > MAX_TOKEN_BYTES:
        return None
    try:
        credential = a2b_base64(token)
    except Base64Error:
        return None
    # What decodes to the same bytes but is written otherwise is refused too: padding is not optional, unknown
    # characters are not skipped, and there is one text for one credential (RFC 4648 section 3).
    if b2a_base64(credential, newline=False) != token:
        return None
    username, colon, password = credential.partition(b":")  # RFC 7617 section 2: the first one
    if not colon or not username or len(username) > MAX_USERNAME_BYTES:
        return None
    if len(credential.translate(None, _CONTROLS)) != len(credential):  # RFC 7617 section 2
        return None
    try:
        credential.decode("utf-8")  # what our challenge asks for (RFC 7617 section 2.1)
    except UnicodeDecodeError:
        return None
    return username, password
