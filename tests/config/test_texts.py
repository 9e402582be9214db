"""The texts of the documents in force: as they were put in, and small where there are many."""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.config import texts as module
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.texts import Texts


def consumer(name: str, gateway: str = "shop") -> DocumentKey:
    return DocumentKey("consumer", gateway, name)


def text_of(name: str, **fields: object) -> bytes:
    return json.dumps({"api_key_sha256": hashlib.sha256(name.encode()).hexdigest(), **fields}).encode()


HASH = hashlib.sha256(b"x").hexdigest()
TEXTS = [
    b"",
    b"{}",
    b'{"api_key_sha256":"%b"}' % HASH.encode(),
    b'{"api_key_sha256":"%b"}' % HASH.upper().encode(),
    b'{"api_key_sha256": "%b", "enabled": false}' % HASH.encode(),
    b'{"api_keys":[{"id":"a","sha256":"%b"},{"id":"b","sha256":"%b"}]}' % (HASH.encode(), b"ab" * 32),
    b'{"description":"%b"}' % (b"ab" * 33),
    b'{"description":"%b"}' % (b"\0\0" * 20),
    b"\0\0",
    b"\0\1" + b"x" * 32,
    b'"%b"' % HASH.encode(),
    b"\xff\xfe",
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.one_of(st.none(), st.sampled_from(TEXTS), st.binary(max_size=80))
        )
    )
)
def test_every_text_comes_back_as_it_was_put_in(steps: list[tuple[str, bytes | None]]) -> None:
    texts, wanted = Texts(), {}
    for name, text in steps:
        for key in (consumer(name), DocumentKey("route", "shop", name)):
            if text is None:
                assert texts.pop(key, None) == wanted.pop(key, None)
            else:
                texts[key] = wanted[key] = text
        assert texts == wanted
        assert len(texts) == len(wanted)
        assert set(texts) == wanted.keys()
        for name in "abc":
            assert (consumer(name) in texts) == (consumer(name) in wanted)
            assert texts.get(consumer(name)) == wanted.get(consumer(name))
    frames = {text for key, text in wanted.items() if key.kind == "consumer"}
    assert len(texts._frames) <= len(frames)


def test_gateways_have_their_own_consumers() -> None:
    texts = Texts()
    texts[consumer("a", "one")] = text_of("1")
    texts[consumer("a", "two")] = text_of("2")
    del texts[consumer("a", "one")]
    assert dict(texts) == {consumer("a", "two"): text_of("2")}
    with pytest.raises(KeyError):
        del texts[consumer("a", "one")]
    with pytest.raises(KeyError):
        texts[consumer("a", "one")]
    assert "a" not in texts
    assert texts.get(consumer("b", "two")) is None
    assert len(texts) == 1


def test_pages_name_what_was_there_at_the_call() -> None:
    texts = Texts()
    keys = [DocumentKey("route", "shop", f"r{n}") for n in range(3)] + [consumer(f"c{n}") for n in range(5)]
    keys.append(consumer("c", "zoo"))
    for key in keys:
        texts[key] = text_of(key.name)
    pages = texts.pages(2)
    del texts[keys[3]]
    texts[consumer("new")] = b"{}"
    found = list(pages)
    assert [key for page in found for key in page] == keys
    assert max(map(len, found)) == 2
    assert list(Texts().pages(2)) == []


def test_a_frame_nobody_uses_is_forgotten() -> None:
    texts = Texts()
    for number in range(module.MAX_FRAMES * 2):
        for name in ("a", "b", "c"):
            texts[consumer(name)] = text_of(name, description=str(number))
        assert len(texts._frames) <= 2
        assert texts[consumer("c")] == text_of("c", description=str(number))
    for name in ("a", "b", "c"):
        del texts[consumer(name)]
    assert len(texts._frames) == 0
    assert len(texts._frames._free) == module.MAX_FRAMES


def test_frames_without_end_are_held_as_they_are() -> None:
    texts, wanted = Texts(), {}
    for number in range(module.MAX_FRAMES + 100):
        for name in ("a", "b"):
            key, text = consumer(f"{name}{number}"), text_of(f"{name}{number}", description=str(number))
            texts[key] = wanted[key] = text
    assert len(texts._frames) == module.MAX_FRAMES
    assert texts == wanted
    assert len(texts._frames._seen_once) <= module.MAX_SEEN_ONCE


def test_a_large_frame_is_held_once_per_document_and_never_beside_them() -> None:
    texts = Texts()
    for name in "abc":
        texts[consumer(name)] = text_of(name, description="x" * module.MAX_FRAME_BYTES)
    assert len(texts._frames) == 0


def test_a_hundred_thousand_consumers_are_held_in_little_more_than_their_names_and_hashes() -> None:
    texts = Texts()
    names = [f"c{number}" for number in range(100_000)]
    tracemalloc.start()
    for name in names:
        texts[consumer(name)] = text_of(name, enabled=True)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    alone = sum(sys.getsizeof(text_of(name, enabled=True)) for name in names)
    assert held < alone  # 136 bytes each; the names' own objects are the caller's here
