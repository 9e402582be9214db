"""Reads documents out of Redis over a `Link`: which keys there are, and what they hold.

What is there and no usable text comes back as `Unreadable`, what is not there as None. Keys under our
prefixes that name no document are reported by `KeyReader`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Container, Iterable
from typing import TYPE_CHECKING

from authgate_fast.config.keys import KEY_PREFIXES, DocumentKey, Unreadable, parse_redis_key
from authgate_fast.config.redis_link import MAX_VALUE_BYTES, Link
from authgate_fast.config.redis_texts import TooLarge

if TYPE_CHECKING:
    from authgate_fast.config.store import Configuration, Raw

SCAN_KEYS = 500
"""Keys that one SCAN looks at."""
PAGE_KEYS = 250
"""Documents that one MGET reads. Decoding a page holds the loop for about a millisecond."""
MAX_MALFORMED = 1_000
"""Malformed keys that are reported one by one."""
MAX_GONE = 10_000
"""Names of deleted documents that may stay remembered, those of consumers left out."""

_KEY_FORMS = "authgate:gateway:<gateway>, authgate:service|route|consumer:<gateway>:<name>"
_REPLICATION_ID = re.compile(rb"master_replid:([0-9a-f]{40})")


def _scan_pattern() -> bytes:
    """Build a pattern that all prefixes match and `authgate:state:` and `authgate:secret:` do not.

    One SCAN with it costs a quarter of four, and Redis leaves millions of sessions out by itself.
    """
    columns = zip(*KEY_PREFIXES, strict=False)
    sets = ("".join(sorted(set(column))) for column in columns)
    return "".join(letters if len(letters) == 1 else f"[{letters}]" for letters in sets).encode() + b"*"


SCAN_PATTERN = _scan_pattern()
PREFIXES = tuple(prefix.encode() for prefix in KEY_PREFIXES)


class KeyReader:
    """Reads the names of keys, and reports those under our prefixes that name no document while they last.

    All names but those of consumers are remembered: a comparison that made ten thousand new objects and kept them for
    its time would make Python's garbage collection look at every object of the process, and hold the loop for as
    long. Of consumers there may be a million, and nobody keeps theirs.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._names: dict[bytes, DocumentKey] = {}
        self._limit = MAX_GONE
        self._malformed: set[bytes] = set()

    def parse(
        self, raw_keys: Iterable[bytes], malformed: set[bytes] | None = None
    ) -> dict[DocumentKey, bytes]:
        """Return the documents that the keys name; report the malformed ones, and add them to `malformed`."""
        keys: dict[DocumentKey, bytes] = {}
        for raw in raw_keys:
            key = self._names.get(raw) or parse_redis_key(raw.decode("ascii", "replace"))
            if key is not None:
                if key.kind != "consumer":
                    self._names[raw] = key
                keys[key] = raw
            elif raw.startswith(PREFIXES):
                self._report(raw)
                if malformed is not None:
                    malformed.add(raw)
        return keys

    def forget_all_but(self, documents: Container[DocumentKey], malformed: set[bytes]) -> None:
        """Forget the keys that are in Redis no more."""
        if len(self._names) > self._limit:
            self._names = {raw: key for raw, key in self._names.items() if key in documents}
            self._limit = len(self._names) + MAX_GONE
        self._forget(self._malformed - malformed)

    async def recheck(self, link: Link, raw_keys: Iterable[bytes]) -> None:
        """Forget those of `raw_keys` that are in Redis no more."""
        known = [raw for raw in raw_keys if raw in self._malformed]
        if known:
            kinds = await link.call_many([("TYPE", raw) for raw in known])
            self._forget(raw for raw, kind in zip(known, kinds, strict=True) if kind == b"none")

    def _report(self, raw: bytes) -> None:
        if raw not in self._malformed and len(self._malformed) < MAX_MALFORMED:
            self._malformed.add(raw)
            self._configuration.report_malformed(_text(raw), f"the keys here are {_KEY_FORMS}")

    def _forget(self, raw_keys: Iterable[bytes]) -> None:
        for raw in list(raw_keys):
            self._malformed.discard(raw)
            self._configuration.forget_malformed(_text(raw))


async def scan(link: Link) -> AsyncGenerator[list[bytes], None]:
    """Yield every key that may name a document, page by page; a key may come twice."""
    cursor = b"0"
    while True:
        cursor, found = await link.page("SCAN", cursor, "MATCH", SCAN_PATTERN, "COUNT", SCAN_KEYS)
        yield found
        if cursor == b"0":
            return


async def fetch(link: Link, keys: dict[DocumentKey, bytes]) -> dict[DocumentKey, Raw]:
    """Read one page of documents. One that changes meanwhile may be left out: it will be named again."""
    if not keys:
        return {}
    texts: dict[DocumentKey, Raw] = {}
    for key, text in zip(keys, await link.texts("MGET", *keys.values()), strict=True):
        if isinstance(text, TooLarge):
            message = f"the value has {text.size} bytes; a document has at most {MAX_VALUE_BYTES}"
            texts[key] = Unreadable(message)
        else:
            texts[key] = text
    # MGET answers nil for a key of another type as for none at all.
    absent = [key for key, text in texts.items() if text is None]
    kinds = await link.call_many([("TYPE", keys[key]) for key in absent]) if absent else []
    for key, kind in zip(absent, kinds, strict=True):
        if isinstance(kind, Exception):
            raise kind
        if kind == b"string":
            del texts[key]
        elif kind != b"none":
            message = f"the key holds a {kind.decode()}; a document is JSON in a string, written with SET"
            texts[key] = Unreadable(message)
    return texts


async def read_history(link: Link) -> bytes | None:
    """Return the id of the data set's replication history; None if this user may not know it."""
    (reply,) = await link.call_many([("INFO", "replication")])
    match = _REPLICATION_ID.search(reply) if isinstance(reply, bytes) else None
    return match[1] if match is not None else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
