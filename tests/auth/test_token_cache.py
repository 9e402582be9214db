"""What is remembered of tokens has an end in number and in bytes."""

from __future__ import annotations

import pytest

from authgate_fast.auth import token_cache
from authgate_fast.auth.token_cache import TokenCache
from authgate_fast.snapshot import Identity


def identity(size: int = 10) -> Identity:
    return Identity("", "u", frozenset(), 1.0, b"", token_line=b"x" * size)


def test_what_is_kept_is_found_until_it_is_forgotten() -> None:
    cache, one = TokenCache(), identity()
    cache.keep(b"a", one, 5.0)
    assert cache.good[b"a"] == (one, 5.0)
    cache.forget(b"a")
    cache.forget(b"a")
    assert cache.good == {}


def test_a_full_cache_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MAX_TOKENS", 3)
    monkeypatch.setattr(token_cache, "MAX_REFUSED", 3)
    cache = TokenCache()
    for name in (b"a", b"b", b"a", b"c", b"d"):
        cache.keep(name, identity(), 1.0)
        cache.keep_refused(name, 1.0)
    assert list(cache.good) == [b"a", b"c", b"d"]
    assert list(cache.refused) == [b"a", b"c", b"d"]


def test_large_tokens_are_kept_in_smaller_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MAX_BYTES", 30_000)
    cache = TokenCache()
    for number in range(50):
        cache.keep(b"%d" % number, identity(8_000), 1.0)
    assert list(cache.good) == [b"47", b"48", b"49"]
    for number in range(50):
        cache.keep(b"small %d" % (number % 5), identity(1), 1.0)
    assert len(cache.good) == 7, "replacing an entry takes its bytes off"
    cache.forget_all()
    for number in range(3):
        cache.keep(b"%d" % number, identity(8_000), 1.0)
    assert len(cache.good) == 3
