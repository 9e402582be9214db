"""Access tokens that were found good, until when: by digest, bounded in number and in bytes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.snapshot import Identity

MAX_TOKENS = 20_000
MAX_BYTES = 33_554_432
"""Per gateway and worker. An identity holds its token's line, so large tokens are kept in smaller numbers."""
MAX_REFUSED = 20_000
_OVERHEAD_BYTES: Final = 1_000  # the objects around an identity's text, roles and scopes of the usual size


class TokenCache:
    """What is remembered of tokens. A full cache forgets what it has known the longest.

    ``good`` maps a digest to (identity, until when), ``refused`` one to when it may be asked about again; times
    are in seconds since the epoch. Readers look into both directly.
    """

    __slots__ = ("_bytes", "good", "refused")

    def __init__(self) -> None:
        self.good: dict[bytes, tuple[Identity, float]] = {}
        self.refused: dict[bytes, float] = {}
        self._bytes = 0

    def keep(self, digest: bytes, identity: Identity, until: float) -> None:
        """Remember a good token."""
        self.forget(digest)
        self.good[digest] = (identity, until)
        self._bytes += _size(identity)
        while len(self.good) > MAX_TOKENS or self._bytes > MAX_BYTES:
            self.forget(next(iter(self.good)))

    def forget(self, digest: bytes) -> None:
        """Forget a token that was good."""
        known = self.good.pop(digest, None)
        if known is not None:
            self._bytes -= _size(known[0])

    def forget_all(self) -> None:
        """Forget every token that was good: what it was checked with is not believed any more."""
        self.good.clear()
        self._bytes = 0

    def keep_refused(self, digest: bytes, until: float) -> None:
        """Remember a token that was refused."""
        refused = self.refused
        refused.pop(digest, None)
        if len(refused) >= MAX_REFUSED:
            del refused[next(iter(refused))]
        refused[digest] = until


def _size(identity: Identity) -> int:
    return len(identity.token_line) + len(identity.identity_lines) + _OVERHEAD_BYTES
