"""What a full read asks for, and what it has found.

First come the documents in Redis that are not in force, then those in force: each is read once, and all that are
gone are found, without a list of a million names. No IO.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from authgate_fast.config.keys import DocumentKey, redis_key
from authgate_fast.config.redis_read import PAGE_KEYS, Question

if TYPE_CHECKING:
    from authgate_fast.config.pages import Named, Page
    from authgate_fast.config.redis_read import KeyReader
    from authgate_fast.config.store import Configuration, Raw


class FullRead:
    """What a full read has found so far.

    ``changes``: what differs from what is in force, and is not applied yet; ``missed``: how many were. ``has_names``:
    some document is there, ``has_text``: some text is. ``malformed``: keys that name no document.
    """

    __slots__ = ("changes", "has_names", "has_text", "malformed", "missed")

    def __init__(self) -> None:
        self.changes: dict[DocumentKey, Raw] = {}
        self.malformed: set[bytes] = set()
        self.has_names = False
        self.has_text = False
        self.missed = 0

    def note(self, page: Page) -> None:
        """Note whether there are texts."""
        if not self.has_text:
            self.has_text = any(isinstance(raw, bytes) for _, raw in page)

    def overtake(self, page: Page) -> None:
        """Forget what a change has brought newer."""
        self.note(page)
        for key, raw in page:
            self.changes.pop(key, None)
            self.has_names = self.has_names or raw is not None

    def take_present_consumers(self) -> dict[DocumentKey, Raw]:
        """Move the consumers that are there out of the changes."""
        taken: dict[DocumentKey, Raw] = {
            key: raw for key, raw in self.changes.items() if key.kind == "consumer" and raw is not None
        }
        for key in taken:
            del self.changes[key]
        return taken


class NewNames:
    """Asks for all names that Redis has, and for the documents among them that are not in force."""

    __slots__ = ("_cursor", "_found", "_in_force", "_is_first", "_keys", "_waiting")

    def __init__(self, configuration: Configuration, keys: KeyReader, found: FullRead) -> None:
        self._in_force = configuration.documents
        self._is_first = not self._in_force
        self._keys = keys
        self._found = found
        self._cursor: bytes | None = b"0"
        self._waiting: Named = []

    def next(self) -> Question | None:
        named, self._waiting = self._waiting[:PAGE_KEYS], self._waiting[PAGE_KEYS:]
        cursor = None if self._waiting else self._cursor
        return None if cursor is None and not named else Question(cursor, named)

    def take(self, cursor: bytes, raw_keys: list[bytes]) -> None:
        self._cursor = None if cursor == b"0" else cursor
        named = self._keys.parse(raw_keys, self._found.malformed)
        self._found.has_names = self._found.has_names or bool(named)
        changes = self._found.changes
        new = named if self._is_first else self._in_force.lacking(named)
        self._waiting += [one for one in new if one[0] not in changes] if changes else new


class KnownNames:
    """Asks for the documents that were in force at the start, and those that are refused and were not in Redis."""

    __slots__ = ("_configuration", "_found", "_known", "_refused")

    def __init__(
        self, configuration: Configuration, known: Iterable[list[DocumentKey]], found: FullRead
    ) -> None:
        self._configuration = configuration
        self._known = iter(known)
        self._found = found
        self._refused: list[DocumentKey] | None = None

    def next(self) -> Question | None:
        changes = self._found.changes
        for keys in self._known:
            named = [(key, redis_key(key).encode()) for key in keys if key not in changes]
            if named:
                return Question(None, named)
        if self._refused is None:
            self._refused = [key for key in self._configuration.bad if key not in changes]
        keys, self._refused = self._refused[:PAGE_KEYS], self._refused[PAGE_KEYS:]
        return Question(None, [(key, redis_key(key).encode()) for key in keys]) if keys else None

    def take(self, cursor: bytes, raw_keys: list[bytes]) -> None:
        """No SCAN was asked for."""
