"""Reads documents out of Redis over a `Link`: which keys there are, and what they hold.

What is there and no usable text comes back as `Unreadable`, what is not there as None. Keys under our
prefixes that name no document are reported by `KeyReader`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Container, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from redis.exceptions import InvalidResponse

from authgate_fast.config.keys import KEY_PREFIXES, ConsumerKeys, DocumentKey, Unreadable, parse_redis_key
from authgate_fast.config.pages import Named, Page, pair
from authgate_fast.config.redis_link import Link
from authgate_fast.config.redis_texts import Text

if TYPE_CHECKING:
    from authgate_fast.config.store import Configuration

SCAN_KEYS = 480
"""Keys that one SCAN looks at; it tells some more, which mostly fit the same page of documents."""
PAGE_KEYS = 500
"""Documents that one MGET reads. Working through a page holds the loop for about a millisecond."""
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
        self._consumers = ConsumerKeys()
        self._names: dict[bytes, DocumentKey] = {}
        self._limit = MAX_GONE
        self._malformed: set[bytes] = set()

    def parse(self, raw_keys: Iterable[bytes], malformed: set[bytes] | None = None) -> Named:
        """Return the documents that the keys name; report the malformed ones, and add them to `malformed`."""
        named, others = self._consumers.split(raw_keys)
        for raw in others:
            key = self._names.get(raw) or parse_redis_key(raw.decode("ascii", "replace"))
            if key is not None:
                if key.kind != "consumer":
                    self._names[raw] = key
                named.append((key, raw))
            elif raw.startswith(PREFIXES):
                self._report(raw)
                if malformed is not None:
                    malformed.add(raw)
        return named

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


class Question(NamedTuple):
    """What is asked for at once: a page of SCAN, if there is a ``cursor``, and the documents ``named``."""

    cursor: bytes | None
    named: Named


class Names(Protocol):
    """Says what to read next."""

    def next(self) -> Question | None:
        """Return what to ask for; None: that is all."""

    def take(self, cursor: bytes, raw_keys: list[bytes]) -> None:
        """Note the names that SCAN has told, and where it goes on (b"0": nowhere)."""


async def read_pages(link: Link, names: Names, *, ahead: bool) -> AsyncGenerator[Page, None]:
    """Yield documents page by page, some pages empty.

    `ahead`: while a page is worked through, Redis works on the next one, and nothing else may be asked of the `link`
    but to give up the rest. What is yielded may then be older than a change that the listener tells during the work.
    """
    question = names.next()
    await _ask(link, question)
    while question is not None:
        told, texts = await link.answers()
        page = await _whole(link, question.named, texts)
        if told is not None:
            names.take(*told)
        if ahead:
            question = names.next()
            await _ask(link, question)
            yield page
        else:
            yield page
            question = names.next()
            await _ask(link, question)


async def fetch(link: Link, named: Named) -> Page:
    """Read one page of documents. One that changes meanwhile may be left out: it will be named again."""
    await _ask(link, Question(None, named))
    return await _whole(link, named, (await link.answers())[1])


async def _ask(link: Link, question: Question | None) -> None:
    if question is None:
        return
    cursor, named = question
    await link.ask(
        None if cursor is None else ("SCAN", cursor, "MATCH", SCAN_PATTERN, "COUNT", SCAN_KEYS),
        ["MGET", *[raw for _, raw in named]] if named else None,
    )


async def _whole(link: Link, named: Named, texts: list[Text]) -> Page:
    """Return the page that `texts` make; of what has none Redis says why."""
    if len(texts) != len(named):
        raise InvalidResponse(f"{len(texts)} values came for {len(named)} keys")
    page, absent = pair(named, texts)
    # MGET answers nil for a key of another type as for none at all.
    kinds = await link.call_many([("TYPE", raw) for _, raw in absent]) if absent else []
    for (key, _), kind in zip(absent, kinds, strict=True):
        if isinstance(kind, Exception):
            raise kind
        if kind == b"none":
            page.append((key, None))
        elif kind != b"string":
            message = f"the key holds a {kind.decode()}; a document is JSON in a string, written with SET"
            page.append((key, Unreadable(message)))
    return page


async def read_history(link: Link) -> bytes | None:
    """Return the id of the data set's replication history; None if this user may not know it."""
    (reply,) = await link.call_many([("INFO", "replication")])
    match = _REPLICATION_ID.search(reply) if isinstance(reply, bytes) else None
    return match[1] if match is not None else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
