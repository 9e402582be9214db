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
from typing import Any

from authgate_fast.config.keys import DocumentKey

MAX_FRAMES = 4_096
MAX_FRAME_BYTES = 1_024
MAX_SEEN_ONCE = 1_024

_find_hash = re.compile(rb"(?<=\")[0-9a-f]{64}(?=\")").search
_AS_IT_IS = b"\0\0"
_PREFIX_BYTES = 2

Frame = tuple[bytes, bytes]
"""What stands before and behind the hash."""


class _Frames:
    """The frames in use, each known by a prefix of two bytes. A frame counts from its second use on, so that one which
    no other consumer has costs nothing; a consumer's first text in a frame is held as it is.
    """

    __slots__ = ("_frames", "_free", "_prefixes", "_seen_once", "_uses")

    def __init__(self) -> None:
        self._prefixes: dict[Frame, bytes] = {}
        self._frames: dict[bytes, Frame] = {}
        self._uses: dict[bytes, int] = {}
        self._free = [number.to_bytes(_PREFIX_BYTES) for number in range(MAX_FRAMES, 0, -1)]
        self._seen_once: set[Frame] = set()

    def take(self, frame: Frame) -> bytes:
        """Return the frame's prefix and count a use; `_AS_IT_IS` where a text is better held whole."""
        prefix = self._prefixes.get(frame)
        if prefix is None:
            prefix = self._new(frame)
            if prefix is _AS_IT_IS:
                return prefix
        self._uses[prefix] += 1
        return prefix

    def release(self, prefix: bytes) -> None:
        """Count a use less; a frame that nothing uses is forgotten."""
        self._uses[prefix] -= 1
        if not self._uses[prefix]:
            del self._uses[prefix], self._prefixes[self._frames.pop(prefix)]
            self._free.append(prefix)

    def frame(self, prefix: bytes) -> Frame:
        return self._frames[prefix]

    def __len__(self) -> int:
        return len(self._frames)

    def _new(self, frame: Frame) -> bytes:
        if not self._free or len(frame[0]) + len(frame[1]) > MAX_FRAME_BYTES:
            return _AS_IT_IS
        if frame not in self._seen_once:
            if len(self._seen_once) >= MAX_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(frame)
            return _AS_IT_IS
        self._seen_once.discard(frame)
        prefix = self._free.pop()
        self._prefixes[frame], self._frames[prefix], self._uses[prefix] = prefix, frame, 0
        return prefix


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
        return _AS_IT_IS + text if prefix is _AS_IT_IS else prefix + unhexlify(text[start:end])

    def _unpack(self, held: bytes) -> bytes:
        prefix, rest = held[:_PREFIX_BYTES], held[_PREFIX_BYTES:]
        if prefix == _AS_IT_IS:
            return rest
        before, behind = self._frames.frame(prefix)
        return before + hexlify(rest) + behind

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
