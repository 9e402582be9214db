"""What every auth type offers to the plan. Pure: no IO, no clock; time arrives as an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from authgate_fast.errors import Reason
    from authgate_fast.snapshot import Credential


class Authenticator(Protocol):
    """Answers one question for a SECURE route: who is calling.

    ``credential_fields`` are the lower-case names of the fields that carry the credential; they are never
    forwarded. ``challenge`` is the WWW-Authenticate value of a 401. ``missing_detail`` tells a
    beginner what to send.
    """

    credential_fields: frozenset[bytes]
    challenge: bytes
    missing_detail: str

    def identify(
        self, presented: list[bytes], credentials: dict[bytes, Credential], now: float
    ) -> Credential | Reason:
        """Return the credential's identity, or why it is refused.

        `presented` holds the values of every credential field in the request, outer white space
        removed; `now` is in seconds since the epoch.
        """
        ...
