"""What every auth type offers to the plan. Pure: no IO, no clock; time arrives as an argument.

The plan asks an `Authenticator` who is calling. Memory answers at once with an `Identity` or a `Denial`; where it
cannot, the answer is a `Lookup`: data that says what has to be found out. Whoever does IO finds it out
(room ``lookup``) and hands the outcome to ``plan.finish``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from authgate_fast.errors import Reason

if TYPE_CHECKING:
    from authgate_fast.decision import Client
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Identity, Route

Presented = list[tuple[bytes, bytes]]
"""The (lower-case name, value without outer white space) of every credential field of one request."""

NO_ENDPOINTS: Final[dict[bytes, tuple[bytes, ...]]] = {}


class Denial:
    """Why a caller is not let in.

    ``detail`` and ``extra_lines`` (complete field lines, such as WWW-Authenticate) are for the client; ``why`` is
    for the operator alone: the log and `authgate explain`. ``location`` (not empty): a redirect there instead of an
    error. ``is_failure``: a credential was shown and was not good, which counts against the caller;
    ``account`` is whose it claimed to be, as far as that is known.
    """

    __slots__ = ("account", "detail", "extra_lines", "is_failure", "location", "reason", "why")

    def __init__(
        self,
        reason: Reason,
        *,
        detail: str | None = None,
        extra_lines: bytes = b"",
        why: str = "",
        location: bytes = b"",
        is_failure: bool = False,
        account: bytes = b"",
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.extra_lines = extra_lines
        self.why = why
        self.location = location
        self.is_failure = is_failure
        self.account = account


class Lookup:
    """Something that memory does not hold. Subclasses say what; ``account`` is as in `Denial`.

    ``is_guess``: answering costs work that a guesser could make us do for nothing, so an address or account with too
    many failures is refused first.
    """

    __slots__ = ("account", "is_guess")

    def __init__(self, account: bytes = b"", *, is_guess: bool = False) -> None:
        self.account = account
        self.is_guess = is_guess


class Authenticator(Protocol):
    """Answers one question for a SECURE route: who is calling.

    ``credential_fields`` are the lower-case names of the fields that carry the credential; they are never
    forwarded, except for what `kept_lines` keeps (asked only if ``keeps_lines``). ``reserved`` is the first path
    segment that the gateway answers itself (b"auth", b"bff", or b"" for none), ``endpoints`` maps the second one
    to its methods.
    """

    credential_fields: frozenset[bytes]
    keeps_lines: bool
    reserved: bytes
    endpoints: dict[bytes, tuple[bytes, ...]]

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        """Return who is calling, why that is refused, or what must be looked up first.

        `presented` holds this type's credential fields only; `now` is in seconds since the epoch.
        """
        ...

    def current(self, identity: Identity, now: float) -> Identity | None:
        """Return who a caller is now that this gateway let in as `identity` before; None: its access has ended.

        For what takes long: a tunnel, a stream. Memory alone answers. What ends a browser session is not asked here,
        and a token that was good at the beginning may run out.
        """
        ...

    def kept_lines(self, presented: Presented) -> bytes:
        """Return what of the credential fields goes on to a backend, as field lines."""
        ...

    def forbidden_lines(self, route: Route) -> bytes:
        """Return field lines for a 403 of `route` (RFC 6750 section 3.1), or b""."""
        ...
