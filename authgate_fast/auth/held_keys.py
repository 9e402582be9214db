"""The keys in force at a JWT gateway, with the tokens that were verified with them. Pure.

This stands apart from the authenticator because that is compiled, and what is compiled cannot be referred to weakly:
whoever brings new keys knows everybody who still needs them by this, and keeps nobody alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.auth.tokens import VerifyingKey
    from authgate_fast.snapshot import Identity, User


class HeldKeys:
    """``keys`` are by kid, None until somebody has read them; ``verified`` are (identity, user, until when) by digest.

    ``verified`` is one dict for good: the authenticator reads and fills it.
    """

    __slots__ = ("__weakref__", "keys", "verified")

    def __init__(self) -> None:
        self.keys: dict[str, VerifyingKey] | None = None
        self.verified: dict[bytes, tuple[Identity, User, float]] = {}

    def replace(self, keys: dict[str, VerifyingKey]) -> None:
        """Take the keys in force. A key that is gone takes with it all that was verified."""
        if self.keys is not None and not self.keys.keys() <= keys.keys():
            self.verified.clear()
        self.keys = keys
