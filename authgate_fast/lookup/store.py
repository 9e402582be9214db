"""Where runtime state lives: sessions, login transactions, refresh tokens, signing keys.

Every value is bytes under a Redis key (`authgate:state:...`, `authgate:secret:<gateway>`), with an end. A store
in memory (a gateway on a file) and one in Redis keep the same promises; a kit of tests holds both to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

STATE_PREFIX = "authgate:state:"
SECRET_PREFIX = "authgate:secret:"
WATCHED_PREFIXES = ("authgate:state:session:", SECRET_PREFIX)
"""What workers remember and must be told of: a name elsewhere changes in silence."""


class StateUnavailableError(Exception):
    """The store cannot be reached or did not answer in time; the text is one line for an operator."""


class StateStore(Protocol):
    """Bytes under names, each with an end. Every call is bounded in time and raises `StateUnavailableError`.

    ``on_change`` is called with each name under `WATCHED_PREFIXES` that anybody (this worker too) changed, deleted or
    let expire; ``on_gap`` when changes may have been missed (a connection that was lost is there again, all was
    flushed), so that what was remembered of the store is not to be trusted any more. Neither is called from
    within a call to the store, and both only while `run` does.
    """

    on_change: list[Callable[[str], None]]
    on_gap: list[Callable[[], None]]

    async def get(self, name: str) -> bytes | None:
        """Return a value that has not ended, or None."""
        ...

    async def put(self, name: str, value: bytes, ttl_s: float | None) -> None:
        """Set a value; `ttl_s` None means without end."""
        ...

    async def add(self, name: str, value: bytes, ttl_s: float | None) -> bool:
        """Set a value only if there is none; tell whether it did."""
        ...

    async def take(self, name: str) -> bytes | None:
        """Return a value and delete it: of several callers at once, one gets it."""
        ...

    async def swap(self, name: str, old: bytes, new: bytes, ttl_s: float | None) -> bool:
        """Set a value only if it is still `old`; tell whether it did."""
        ...

    async def delete(self, name: str) -> bool:
        """Delete a value; tell whether there was one."""
        ...

    async def touch(self, name: str, ttl_s: float) -> bool:
        """Move a value's end to `ttl_s` from now; tell whether there is one."""
        ...

    async def names(self, prefix: str, limit: int) -> list[str]:
        """Return the names that start with `prefix`, at most `limit`, in no order."""
        ...

    async def run(self) -> None:
        """Listen for changes until cancelled."""
        ...

    async def close(self) -> None:
        """Give up connections; a call after it makes new ones."""
        ...

    def status(self) -> dict[str, object]:
        """What /status shows of the store."""
        ...
