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
_HASH_DIGITS = 64
_HASH_BYTES = b"0123456789abcdef"

Frame = tuple[bytes, bytes]
"""What stands before and behind the hash."""


class _Form:
    """A frame whose texts are all good: each gives its consumer the one key whose hash stands in it, and no more."""

    __slots__ = ("before", "behind", "prefix", "size")

    def __init__(self, frame: Frame, prefix: bytes) -> None:
        self.before, self.behind = frame
        self.prefix = prefix
        self.size = len(self.before) + _HASH_DIGITS + len(self.behind)


class _Frames:
    """The frames in use, each known by a prefix of two bytes. A frame counts from its second use on, so that one which
    no other consumer has costs nothing; a consumer's first text in a frame is held as it is.

    ``_forms`` are those that are `learned`; ``_last_forms`` holds the last one of each size, to be tried first.
    """

    __slots__ = ("_forms", "_frames", "_free", "_last_forms", "_prefixes", "_seen_once", "_uses")

    def __init__(self) -> None:
        self._prefixes: dict[Frame, bytes] = {}
        self._frames: dict[bytes, Frame] = {}
        self._uses: dict[bytes, int] = {}
        self._free = [number.to_bytes(_PREFIX_BYTES) for number in range(MAX_FRAMES, 0, -1)]
        self._seen_once: set[Frame] = set()
        self._forms: dict[bytes, _Form] = {}
        self._last_forms: dict[int, _Form] = {}

    def learn(self, prefix: bytes) -> None:
        """Note that all texts of a frame in use are good (`_Form`)."""
        self._forms[prefix] = _Form(self._frames[prefix], prefix)

    def is_learned(self, prefix: bytes) -> bool:
        return prefix in self._forms

    def pack(self, text: bytes) -> bytes | None:
        """Return how a text in a learned frame is held, without counting a use; None for any other text."""
        form = self._last_forms.get(len(text))
        if form is not None and text.startswith(form.before) and text.endswith(form.behind):
            start = len(form.before)
            digits = text[start : start + _HASH_DIGITS]
            if not digits.translate(None, _HASH_BYTES):
                return form.prefix + unhexlify(digits)
        if not self._forms:
            return None
        found = _find_hash(text)
        if found is None:
            return None
        start, end = found.span()
        form = self._forms.get(self._prefixes.get((text[:start], text[end:]), _AS_IT_IS))
        if form is None:
            return None
        self._last_forms[form.size] = form
        return form.prefix + unhexlify(text[start:end])

    def count(self, prefix: bytes) -> None:
        """Count a use of a frame that is in use."""
        self._uses[prefix] += 1

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
            form = self._forms.pop(prefix, None)
            if form is not None and self._last_forms.get(form.size) is form:
                del self._last_forms[form.size]

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

    def add_alike(self, key: DocumentKey, text: bytes) -> bytes | None:
        """Hold the text of a new consumer if it says the same as others that were read, but for the hash of its key.

        Return the key's digest; None if nothing was done, and the text must be read.
        """
        held = self._frames.pack(text)
        if held is None:
            return None
        consumers = self._consumers.get(key[1])
        if consumers is None or consumers.setdefault(key[2], held) is not held:
            return None
        self._count += 1
        self._frames.count(held[:_PREFIX_BYTES])
        return held[_PREFIX_BYTES:]

    def learn(self, key: DocumentKey, digest: bytes) -> None:
        """Note that a consumer's text, which is held, gives it the key of `digest` and nothing else that it claims.

        So does every other text that differs from it in the digits of that hash alone, and none of them needs to be
        read (`add_alike`). Sure is that where the digits stand there once, and no escape can hide others.
        """
        held = self._consumers[key[1]][key[2]]
        prefix = held[:_PREFIX_BYTES]
        if prefix == _AS_IT_IS or self._frames.is_learned(prefix) or held[_PREFIX_BYTES:] != digest:
            return
        around = b"\0".join(self._frames.frame(prefix))
        if b"\\" not in around and hexlify(digest) not in around.lower():
            self._frames.learn(prefix)

    def lacking(self, keys: list[tuple[DocumentKey, bytes]]) -> list[tuple[DocumentKey, bytes]]:
        """Return those of some keys, with what comes with them, that are not here."""
        return [one for one in keys if one[0] not in self]

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
