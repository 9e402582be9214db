"""BFF: a browser shows a session cookie; the tokens stay here (DESIGN section 7, RFC 9700, OAuth for browser apps).

Memory answers for a live session: one digest, one dict look-up, one comparison. Everything else is a `SessionLookup`.
The authenticator holds what its worker remembers: live sessions, and cookies that are known to be worth nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from authgate_fast.auth.browser import SAFE_METHODS, cross_site_problem, is_navigation, login_location
from authgate_fast.auth.cookies import SECRET_LENGTH, TWICE, is_secret, kept_cookie_lines, session_cookie
from authgate_fast.auth.interface import Denial, Lookup, Presented
from authgate_fast.auth.session import SESSION_PREFIX, Record, Session
from authgate_fast.auth.user_lines import UnusableClaimError, roles_of, subject_of, user_lines
from authgate_fast.errors import Reason
from authgate_fast.snapshot import Identity, find_gateway

if TYPE_CHECKING:
    from authgate_fast.auth.secret import SecretRef
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Route

ENDPOINTS: Final[dict[bytes, tuple[bytes, ...]]] = {
    b"login": (b"GET",),
    b"callback": (b"GET",),
    b"me": (b"GET",),
    b"logout": (b"POST",),
    b"backchannel-logout": (b"POST",),
}
MAX_SESSIONS = 20_000
"""Sessions that a worker remembers; those that are not cost a look-up. With tokens of 2 KB about 100 MB."""
MAX_DEAD = 20_000
"""Cookies remembered as worthless, so that a page's requests with an old one cost nothing. About 2 MB."""
CHECK_S: Final = 30.0
"""For how long memory answers for a session until the store is asked again."""
TOUCH_S: Final = 60.0
"""How often the idle end is moved in the store; a quarter of a short idle time if that is less, for both."""
REFRESH_AHEAD_S: Final = 30.0
"""An access token is renewed this long before its end, so that a backend still finds it valid; of a short-lived one
a quarter of its life."""
RECHECK_S = 20.0
"""How often the store is asked about a session that only a stream still uses."""
_sha256: Final = hashlib.sha256
_TOKEN: Final = re.compile(rb"[\x21-\x7e]{1,16384}")


@dataclass(frozen=True, slots=True)
class BffSettings:
    """The ``auth`` of a BFF gateway."""

    issuer: str
    client_id: str
    client_secret: SecretRef | None
    scopes: tuple[str, ...]
    idle_ttl_s: int
    absolute_ttl_s: int
    roles_claim: str


class SessionLookup(Lookup):
    """A session that memory does not hold, or has to be looked after: checked again, or its token renewed."""

    __slots__ = ("cookie", "digest", "head")

    def __init__(self, cookie: bytes, digest: bytes, head: RequestHead, *, is_guess: bool) -> None:
        super().__init__(is_guess=is_guess)
        self.cookie = cookie
        self.digest = digest
        self.head = head


class BffAuthenticator:
    """Checks the session cookie, and that what changes something comes from this site's own pages."""

    __slots__ = (
        "_ended",
        "_missing",
        "_unknown",
        "challenge",
        "check_s",
        "credential_fields",
        "dead",
        "doubled",
        "endpoints",
        "gateway",
        "hits",
        "keeps_lines",
        "misses",
        "reserved",
        "sessions",
        "settings",
        "touch_s",
    )

    def __init__(self, gateway: str, settings: BffSettings) -> None:
        self.gateway = gateway
        self.settings = settings
        self.credential_fields = frozenset({b"cookie", b"authorization"})
        self.keeps_lines = True
        self.reserved = b"bff"
        self.endpoints = ENDPOINTS
        self.sessions: dict[bytes, Session] = {}
        self.dead: dict[bytes, None] = {}
        self.hits = 0  # sessions that memory could answer for, and cookies that the store was asked about
        self.misses = 0
        self.check_s = min(CHECK_S, settings.idle_ttl_s / 4)
        self.touch_s = min(TOUCH_S, settings.idle_ttl_s / 4)
        # Any scheme but Basic, which would open a browser's own dialog (CONVENTIONS section 4).
        self.challenge = f'WWW-Authenticate: Session realm="{gateway}"\r\n'.encode("ascii")
        self._missing = Denial(
            Reason.CREDENTIALS_MISSING,
            detail="This route needs a session; send the browser to /bff/login.",
            extra_lines=self.challenge,
            why="the request has no AUTHGATE_BFF_SESSION cookie",
        )
        invalid = "The session is not valid, or not any more; send the browser to /bff/login."
        self._ended = Denial(
            Reason.CREDENTIALS_INVALID,
            detail=invalid,
            extra_lines=self.challenge,
            why="the session cookie is malformed, or known to be of no session",
        )
        # Only what cost a look-up counts: a page with an old cookie must not shut its own address out.
        self._unknown = Denial(
            Reason.CREDENTIALS_INVALID,
            detail=invalid,
            extra_lines=self.challenge,
            why="the session cookie is of no session: it ended, or was never made here",
            is_failure=True,
        )
        self.doubled = Denial(
            Reason.CREDENTIALS_INVALID,
            detail="The request has two session cookies; clear the cookies of this site and of its parent domains.",
            extra_lines=self.challenge,
            why="two cookies named AUTHGATE_BFF_SESSION: another host of the domain may have set one of them",
        )

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Find the session of the cookie; what may change something is first checked for CSRF."""
        cookie = session_cookie(presented)
        if cookie is None:
            return self._refuse(head, self._missing)
        if cookie == TWICE:
            return self.doubled
        if head.method not in SAFE_METHODS or head.upgrade:  # a page of another site could read a tunnel, too
            problem = self.cross_site_problem(head, client)
            if problem:
                return Denial(Reason.CSRF_REJECTED, why=problem)
        if len(cookie) != SECRET_LENGTH:
            return self._refuse(head, self._ended)
        digest = _sha256(cookie).digest()
        session = self.sessions.get(digest)
        if session is not None and now < session.good_until:
            identity = session.identity
            if identity is not None:
                self.hits += 1
                return identity
        if session is None and (digest in self.dead or not is_secret(cookie)):
            return self._refuse(head, self._ended)
        self.misses += 1
        return SessionLookup(cookie, digest, head, is_guess=session is None)

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Return the session's identity, which a renewed token may have changed."""
        return None if identity.session is None else identity.session.identity

    def kept_lines(self, presented: Presented) -> bytes:
        """Keep the other cookies; the client's own Authorization never reaches a backend of this gateway."""
        return kept_cookie_lines(presented)

    def forbidden_lines(self, route: Route) -> bytes:
        """Say no more: the scheme has no such parameters."""
        return b""

    def cross_site_problem(self, head: RequestHead, client: Client) -> str:
        """Return why a request may not change anything here, or ""."""
        return cross_site_problem(head, own_origin(head, client))

    def refuse(self, lookup: SessionLookup) -> Denial:
        """Return the answer to a cookie that turned out to be of no session."""
        return self._refuse(lookup.head, self._unknown if lookup.is_guess else self._ended)

    def _refuse(self, head: RequestHead, denial: Denial) -> Denial:
        """Send a person to the login; tell a script."""
        if not is_navigation(head):
            return denial
        location = login_location(head.target)
        return Denial(denial.reason, why=denial.why, location=location, is_failure=denial.is_failure)

    @property
    def remembered(self) -> int:
        """How many sessions are in memory."""
        return len(self.sessions)

    @property
    def remembered_refusals(self) -> int:
        """How many cookies are known to be worth nothing."""
        return len(self.dead)

    def remember(self, digest: bytes, session: Session) -> None:
        """Keep a session that the store holds; the oldest goes when there are too many."""
        sessions = self.sessions
        if digest not in sessions and len(sessions) >= MAX_SESSIONS:
            del sessions[next(iter(sessions))]
        sessions[digest] = session

    def bury(self, digest: bytes) -> None:
        """Forget a session for good: names are never used twice, so its cookie stays worthless."""
        session = self.sessions.pop(digest, None)
        if session is not None:
            session.end()
        if digest not in self.dead and len(self.dead) >= MAX_DEAD:
            del self.dead[next(iter(self.dead))]
        self.dead[digest] = None

    def fill(self, session: Session, record: Record) -> None:
        """Put a record's contents into `session`. Raises UnusableClaimError."""
        settings = self.settings
        token = record.access_token.encode("utf-8")
        if _TOKEN.fullmatch(token) is None:
            raise UnusableClaimError("the provider's access token cannot go into a field line")
        roles = roles_of(record.claims, settings.roles_claim)
        ends_at = min(record.ends_at, record.created_at + settings.absolute_ttl_s)
        if not record.refresh_token:
            ends_at = min(ends_at, record.access_ends_at)
        session.claims = record.claims
        session.scope = record.scope
        session.ends_at = ends_at
        session.access_ends_at = record.access_ends_at
        session.refresh_at = refresh_at(record)
        session.identity = Identity(
            "",
            session.name[-64:-48],
            frozenset(roles),
            ends_at,
            user_lines(subject_of(record.claims), roles, settings.client_id),
            scopes=frozenset(record.scope.split(" ")) - {""},
            token_line=b"Authorization: Bearer %b\r\n" % token,
            session=session,
        )

    def rely_on(self, session: Session, now: float) -> None:
        """Let memory answer for a session that was just checked."""
        session.checked_at = now
        session.told = False
        session.recheck_at = now + RECHECK_S
        session.good_until = min(now + self.check_s, session.ends_at, session.refresh_at)


def own_origin(head: RequestHead, client: Client) -> bytes | None:
    """Return this gateway's origin as the browser sees it; None if that is in doubt.

    What a trusted proxy names as the host must be a host of this gateway, like any Host: it may only pass on what a
    client made up.
    """
    origin = head.public_origin(client.scheme, trusted=client.trusted)
    if origin is None or not client.trusted:
        return origin
    host = head.public_name(trusted=True)
    if host is None or client.snapshot is None or find_gateway(client.snapshot, host) is not client.gateway:
        return None
    return origin


def refresh_at(record: Record) -> float:
    """Return when the access token is due to be renewed; never without a refresh token."""
    if not record.refresh_token or record.access_ends_at == float("inf"):
        return float("inf")
    return record.access_ends_at - min(REFRESH_AHEAD_S, record.access_ttl_s / 4)


def digest_of_name(name: str) -> tuple[str, bytes] | None:
    """Return the gateway and the cookie's digest that a name in the store tells of, or None."""
    gateway, colon, digest = name.removeprefix(SESSION_PREFIX).partition(":")
    if not name.startswith(SESSION_PREFIX) or not colon or len(digest) != 64:
        return None
    try:
        return gateway, bytes.fromhex(digest)
    except ValueError:
        return None
