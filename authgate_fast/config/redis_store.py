"""Documents in Redis as the management commands see them: read, compare, write in one MULTI. Blocking.

Nothing is overwritten that the caller has not seen: `write` takes what each document held when the change was
decided, and raises `ChangedError`, with nothing written, if one of them holds something else by now. Every
failure of Redis is a `StoreError` whose text is one line for a user, without the password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from authgate_fast.config.keys import DocumentKey, Unreadable, parse_redis_key, redis_key
from authgate_fast.config.redis_link import (
    CONNECT_TIMEOUT_S,
    FAILURES,
    MAX_VALUE_BYTES,
    check_role,
    parse_address,
)
from authgate_fast.config.redis_read import PREFIXES, SCAN_PATTERN

MAX_WATCHED = 1_000
"""Keys under WATCH, which costs their square in Redis. The others are only re-read right before the MULTI."""
REPLY_TIMEOUT_S = 30.0
"""A person waits for the answer, and one MULTI may write a hundred thousand documents."""
_PAGE_KEYS = 500

Value = bytes | Unreadable | None
"""What a document's key holds: its text, something unusable, or nothing."""


class StoreError(Exception):
    """Redis failed, or could not be reached."""


class ChangedError(Exception):
    """Somebody else changed a document meanwhile; nothing was written."""

    def __init__(self, key: DocumentKey | None = None) -> None:
        super().__init__(redis_key(key) if key is not None else "a document")


@dataclass(slots=True)
class Stored:
    """All configuration in one Redis. ``malformed`` are keys under our prefixes that name no document."""

    values: dict[DocumentKey, bytes | Unreadable] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)

    @property
    def documents(self) -> dict[DocumentKey, bytes]:
        return {key: value for key, value in self.values.items() if isinstance(value, bytes)}


class RedisStore:
    """One Redis, used in a `with` block. Raises RedisUrlError for a URL that cannot be used."""

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)
        self._connected: redis.Redis | None = None

    @property
    def shown(self) -> str:
        """The address without the password."""
        return self._address.shown

    def __enter__(self) -> RedisStore:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._connected is not None:
            self._connected.close()

    def read_all(self) -> Stored:
        """Read every document."""
        with self._speaking():
            stored = Stored()
            raw_keys = {raw for raw in self._scan(SCAN_PATTERN) if raw.startswith(PREFIXES)}
            keys = []
            for raw in sorted(raw_keys):
                text = raw.decode("utf-8", "backslashreplace")
                key = parse_redis_key(text)
                if key is None:
                    stored.malformed.append(text)
                else:
                    keys.append(key)
            values = self._read(self._client, keys)
            stored.values = {key: value for key, value in values.items() if value is not None}
            return stored

    def read(self, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Value]:
        """Read some documents; None for one that is not there."""
        with self._speaking():
            return self._read(self._client, list(keys))

    def gateways(self) -> list[str]:
        """Return the names of all gateways."""
        with self._speaking():
            return sorted(key.gateway for key in self._keys("authgate:gateway:*"))

    def consumers(self, gateway: str) -> dict[DocumentKey, Value]:
        """Read the consumers of one gateway."""
        with self._speaking():
            return self._read(self._client, sorted(self._keys(f"authgate:consumer:{gateway}:*")))

    def write(
        self, changes: Mapping[DocumentKey, bytes | None], expected: Mapping[DocumentKey, Value]
    ) -> None:
        """Write `changes` (None deletes) in one MULTI, if each document still holds what is `expected`."""
        with self._speaking(), self._client.pipeline(transaction=True) as pipe:
            # Those that would be lost by an overwrite come first.
            keys = sorted(changes, key=lambda key: (expected[key] is None, key))
            pipe.watch(*(redis_key(key) for key in keys[:MAX_WATCHED]))  # type: ignore[no-untyped-call]  # redis-py has no type for it
            for key, value in self._read(pipe, keys).items():
                if value != expected[key]:
                    raise ChangedError(key)
            pipe.multi()
            for key, text in changes.items():
                if text is None:
                    pipe.delete(redis_key(key))
                else:
                    pipe.set(redis_key(key), text)
            try:
                pipe.execute()
            except redis.WatchError:
                raise ChangedError from None

    def _scan(self, pattern: str | bytes) -> Iterator[bytes]:
        yield from self._client.scan_iter(match=pattern, count=_PAGE_KEYS)

    def _keys(self, pattern: str) -> set[DocumentKey]:
        keys = (parse_redis_key(raw.decode("ascii", "replace")) for raw in self._scan(pattern))
        return {key for key in keys if key is not None}

    def _read(
        self, client: redis.Redis | redis.client.Pipeline, keys: list[DocumentKey]
    ) -> dict[DocumentKey, Value]:
        values: dict[DocumentKey, Value] = {}
        for start in range(0, len(keys), _PAGE_KEYS):
            page = keys[start : start + _PAGE_KEYS]
            texts: Any = client.mget([redis_key(key) for key in page])
            values.update(zip(page, texts, strict=True))
            absent = [key for key in page if values[key] is None]
            # MGET answers nil for a key of another type as for none at all.
            if absent and client.exists(*(redis_key(key) for key in absent)):
                values.update((key, self._unusable(client, key)) for key in absent)
        for key, value in values.items():
            if isinstance(value, bytes) and len(value) > MAX_VALUE_BYTES:
                message = f"it holds {len(value)} bytes, and a document has at most {MAX_VALUE_BYTES}"
                values[key] = Unreadable(message)
        return values

    def _unusable(self, client: redis.Redis | redis.client.Pipeline, key: DocumentKey) -> Value:
        kind: Any = client.type(redis_key(key))
        return (
            None if kind in (b"none", b"string") else Unreadable(f"it holds a {kind.decode()}, not a string")
        )

    @property
    def _client(self) -> redis.Redis:
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _connect(self) -> redis.Redis:
        address = self._address
        url = address.url
        if address.sentinels is not None:
            url = address.sentinels.url_of(asyncio.run(address.sentinels.find()))
        options: dict[str, Any] = {}
        if "ssl_check_hostname" in address.options:
            options["ssl_check_hostname"] = address.options["ssl_check_hostname"]
        client: redis.Redis = redis.Redis.from_url(
            url,
            # RESP2 needs nothing that an old or proxied Redis lacks.
            protocol=2,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        if address.sentinels is not None:
            check_role(client.role())
        return client

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise StoreError(self._address.explain(error)) from None
