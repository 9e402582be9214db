"""The JSON text of every document in force, held tightly where there may be a million of them.

Consumers differ in little but their names and the hash of a key. Of a consumer's text the 64 hex digits are held as 32
bytes, and what stands around them, the frame, once for all that have the same. What fits no such form is held as it
is. A text comes back exactly as it was put in. Pure, no IO.
"""

from __future__ import annotations

import re
from binascii import hexlify, unhexlify
from collections.abc import Iterator, MutableMapping
from sys import intern
from typing import Any, Final

from authgate_fast.config.keys import DocumentKey

MAX_FRAMES = 4_096
MAX_FRAME_BYTES = 1_024
MAX_SEEN_ONCE = 1_024

_find_hash = re.compile(rb"(?<=\")[0-9a-f]{64}(?=\")").search
_AS_IT_IS: Final = b"\0\0"
_PREFIX_BYTES: Final = 2
_HASH_DIGITS: Final = 64
_HASH_BYTES: Final = b"0123456789abcdef"
_NONE: Final[dict[str, bytes]] = {}

Frame = tuple[bytes, bytes]
"""What stands before and behind the hash."""


class _Known:
    """A frame in use: its prefix, and how many texts have it.

    ``is_plain``: all texts in it are good, and each gives its consumer the one key whose hash stands in it and no more.
    """

    __slots__ = ("before", "behind", "is_plain", "prefix", "size", "uses")

    def __init__(self, frame: Frame, prefix: bytes) -> None:
        self.before, self.behind = frame
        self.prefix = prefix
        self.size = len(self.before) + _HASH_DIGITS + len(self.behind)
        self.uses = 0
        self.is_plain = False


class _Frames:
    """The frames in use, each known by a prefix of two bytes. A frame counts from its second use on, so that one which
    no other consumer has costs nothing; a consumer's first text in a frame is held as it is.
    """

    __slots__ = ("_by_frame", "_by_prefix", "_free", "_last_plain", "_seen_once")

    def __init__(self) -> None:
        self._by_frame: dict[Frame, _Known] = {}
        self._by_prefix: dict[bytes, _Known] = {}
        self._free = [number.to_bytes(_PREFIX_BYTES) for number in range(MAX_FRAMES, 0, -1)]
        self._seen_once: set[Frame] = set()
        self._last_plain: dict[int, _Known] = {}
        """The plain one that was met last, by the size of its texts: mostly the next text of that size has it too."""

    def take(self, frame: Frame) -> bytes:
        """Return the frame's prefix and count a use; `_AS_IT_IS` where a text is better held whole."""
        known = self._by_frame.get(frame)
        if known is None:
            known = self._new(frame)
            if known is None:
                return _AS_IT_IS
        known.uses += 1
        return known.prefix

    def release(self, prefix: bytes) -> None:
        """Count a use less; a frame that nothing uses is forgotten."""
        known = self._by_prefix[prefix]
        known.uses -= 1
        if not known.uses:
            del self._by_prefix[prefix], self._by_frame[(known.before, known.behind)]
            self._free.append(prefix)
            if self._last_plain.get(known.size) is known:
                del self._last_plain[known.size]

    def known(self, prefix: bytes) -> _Known:
        return self._by_prefix[prefix]

    def plain(self, text: bytes) -> tuple[_Known, bytes] | None:
        """Return the plain frame of a text, and the digest in it; None if its frame is not known as plain."""
        known = self._last_plain.get(len(text))
        if known is not None and text.startswith(known.before) and text.endswith(known.behind):
            start = len(known.before)
            digits = text[start : start + _HASH_DIGITS]
            if not digits.translate(None, _HASH_BYTES):
                return known, unhexlify(digits)
        found = _find_hash(text) if self._by_frame else None
        if found is None:
            return None
        start, end = found.span()
        known = self._by_frame.get((text[:start], text[end:]))
        if known is None or not known.is_plain:
            return None
        self._last_plain[known.size] = known
        return known, unhexlify(text[start:end])

    def __len__(self) -> int:
        return len(self._by_frame)

    def _new(self, frame: Frame) -> _Known | None:
        if not self._free or len(frame[0]) + len(frame[1]) > MAX_FRAME_BYTES:
            return None
        if frame not in self._seen_once:
            if len(self._seen_once) >= MAX_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(frame)
            return None
        self._seen_once.discard(frame)
        known = _Known(frame, self._free.pop())
        self._by_frame[frame] = self._by_prefix[known.prefix] = known
        return known


class Texts(MutableMapping[DocumentKey, bytes]):
    """Maps documents to their JSON."""

    __slots__ = ("_consumers", "_count", "_frames", "_others")

    def __init__(self) -> None:
        self._others: dict[DocumentKey, bytes] = {}
        self._consumers: dict[str, dict[str, bytes]] = {}
        self._count = 0
        self._frames = _Frames()

    def __getitem__(self, key: DocumentKey) -> bytes:
        if key[0] != "consumer":
            return self._others[key]
        return self._unpack(self._consumers[key[1]][key[2]])

    def get(self, key: DocumentKey, default: Any = None) -> Any:
        # What a mapping has of itself raises an error for each of a million new names.
        if key[0] != "consumer":
            return self._others.get(key, default)
        consumers = self._consumers.get(key[1])
        held = None if consumers is None else consumers.get(key[2])
        return default if held is None else self._unpack(held)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, DocumentKey):
            return False
        if key[0] != "consumer":
            return key in self._others
        return key[2] in self._consumers.get(key[1], ())

    def __setitem__(self, key: DocumentKey, text: bytes) -> None:
        if key[0] != "consumer":
            self._others[key] = text
            return
        consumers = self._consumers.get(key[1])
        if consumers is None:
            consumers = self._consumers[intern(key[1])] = {}
        before = consumers.get(key[2])
        if before is None:
            self._count += 1
        consumers[key[2]] = self._pack(text)
        if before is not None:
            self._release(before)

    def __delitem__(self, key: DocumentKey) -> None:
        if key[0] != "consumer":
            del self._others[key]
            return
        consumers = self._consumers[key[1]]
        self._release(consumers.pop(key[2]))
        self._count -= 1
        if not consumers:
            del self._consumers[key[1]]

    def __len__(self) -> int:
        return len(self._others) + self._count

    def __iter__(self) -> Iterator[DocumentKey]:
        yield from self._others
        for gateway, consumers in self._consumers.items():
            for name in consumers:
                yield DocumentKey("consumer", gateway, name)

    def add_alike(self, key: DocumentKey, text: bytes) -> bytes | None:
        """Hold the text of a new consumer if it says the same as others that were read, but for the hash of its key.

        Return the key's digest; None if nothing was done, and the text must be read.
        """
        plain = self._frames.plain(text)
        if plain is None:
            return None
        known, digest = plain
        held = known.prefix + digest
        consumers = self._consumers.get(key[1])
        if consumers is None or consumers.setdefault(key[2], held) is not held:
            return None
        self._count += 1
        known.uses += 1
        return digest

    def can_teach(self, key: DocumentKey) -> bool:
        """Tell whether a consumer's text stands in a frame that others have, and nobody knows yet what it says."""
        prefix = self._consumers[key[1]][key[2]][:_PREFIX_BYTES]
        return prefix != _AS_IT_IS and not self._frames.known(prefix).is_plain

    def learn(self, key: DocumentKey, digest: bytes) -> None:
        """Note that a consumer's text, which can teach, gives it the key of `digest` and nothing else that it claims.

        So does every other text that differs from it in the digits of that hash alone, and none of them needs to be
        read (`add_alike`). Sure is that where the digits stand there once, and no escape can hide others.
        """
        held = self._consumers[key[1]][key[2]]
        known = self._frames.known(held[:_PREFIX_BYTES])
        around = known.before + b" " + known.behind
        if held[_PREFIX_BYTES:] == digest and b"\\" not in around:
            known.is_plain = hexlify(digest) not in around.lower()

    def lacking(self, keys: list[tuple[DocumentKey, bytes]]) -> list[tuple[DocumentKey, bytes]]:
        """Return those of some keys, with what comes with them, that are not here."""
        others, consumers = self._others, self._consumers
        lacking: list[tuple[DocumentKey, bytes]] = []
        for one in keys:
            key = one[0]
            if key[2] not in consumers.get(key[1], _NONE) if key[0] == "consumer" else key not in others:
                lacking.append(one)
        return lacking

    def pages(self, size: int) -> Iterator[list[DocumentKey]]:
        """Return the documents there are now, `size` at a time; until a page is asked for, its own may be gone."""
        others = list(self._others)
        consumers = [(gateway, list(names)) for gateway, names in self._consumers.items()]
        return _pages(others, consumers, size)

    def _pack(self, text: bytes) -> bytes:
        found = _find_hash(text)
        if found is None:
            return _AS_IT_IS + text
        start, end = found.span()
        prefix = self._frames.take((text[:start], text[end:]))
        return _AS_IT_IS + text if prefix == _AS_IT_IS else prefix + unhexlify(text[start:end])

    def _unpack(self, held: bytes) -> bytes:
        prefix, rest = held[:_PREFIX_BYTES], held[_PREFIX_BYTES:]
        if prefix == _AS_IT_IS:
            return rest
        known = self._frames.known(prefix)
        return known.before + hexlify(rest) + known.behind

    def _release(self, held: bytes) -> None:
        prefix = held[:_PREFIX_BYTES]
        if prefix != _AS_IT_IS:
            self._frames.release(prefix)


def _pages(
    others: list[DocumentKey], consumers: list[tuple[str, list[str]]], size: int
) -> Iterator[list[DocumentKey]]:
    for start in range(0, len(others), size):
        yield others[start : start + size]
    for gateway, names in consumers:
        for start in range(0, len(names), size):
            yield [DocumentKey("consumer", gateway, name) for name in names[start : start + size]]
