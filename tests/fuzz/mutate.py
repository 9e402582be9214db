"""Mutations of streams: on drafts by one who knows how proxies were broken, on bytes, and on the places of the cuts."""

from __future__ import annotations

import re
from random import Random

from tests.fuzz.draft_mutators import DRAFT_MUTATORS
from tests.fuzz.grammar import draft, stream
from tests.fuzz.tricks import LINE_ENDS, TOKENS


def mutated(rng: Random, corpus: list[bytes]) -> bytes:
    """Return a stream; about every eighth is good, made of good requests only, unchanged."""
    if corpus and rng.random() < 0.1:
        return mutate_bytes(rng, rng.choice(corpus), corpus)
    drafts = stream(rng)
    kind = rng.random()
    if kind < 0.12:
        return b"".join(one.render() for one in drafts)
    if kind < 0.85:
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
            rng.choice(DRAFT_MUTATORS)(rng, rng.choice(drafts))
    data = b"".join(one.render() for one in drafts)
    if kind >= 0.85 or rng.random() < 0.15:
        data = mutate_bytes(rng, data, corpus)
    return data


def cuts(rng: Random, size: int) -> list[int]:
    """Return where a stream is cut: mostly in a few places, sometimes between all of its bytes."""
    if size < 2:
        return []
    kind = rng.random()
    if kind < 0.05 and size < 500:
        return list(range(1, size))
    if kind < 0.2:
        begin = rng.randrange(1, size)
        return list(range(begin, min(size, begin + rng.randint(1, 25))))
    return sorted({rng.randrange(1, size) for _ in range(rng.choice((1, 1, 2, 3, 6)))})


def mutate_bytes(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """Change bytes without knowing what they mean."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        at = rng.randint(0, len(data))
        length = rng.choice((1, 1, 1, 2, 4, 16))
        kind = rng.randrange(9)
        if kind == 0:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            token = rng.choice(TOKENS)
            data = data[:at] + token + data[at + len(token) :]
        elif kind == 3:
            data = data[: at + length] + data[at:]
        elif kind == 4 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 5:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at:]
        elif kind == 6:
            other = rng.choice(corpus) if corpus and rng.random() < 0.3 else draft(rng).render()
            data = data[:at] + other[rng.randint(0, len(other)) :]
        elif kind == 7:
            ends = [match.start() for match in re.finditer(rb"\r\n", data)]
            if ends:
                at = rng.choice(ends)
                data = data[:at] + rng.choice(LINE_ENDS) + data[at + 2 :]
        else:
            data = data[:at]
    return data
