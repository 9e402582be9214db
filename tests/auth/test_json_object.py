"""JSON objects from strangers: read in one way, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.auth.json_object import JsonError, read_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children)
    ),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES))
def test_every_object_is_read_as_what_it_is(value: dict[str, object]) -> None:
    assert read_object(json.dumps(value).encode()) == value
    assert read_object(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'{"x":{"a":1,"a":2}}', b'{"x":[{"a":1,"a":2}]}',
        b'{"a":1,"\\u0061":2}', b'{"":1,"":2}',
    ],
)  # fmt: skip
def test_a_name_that_stands_twice_is_refused(text: bytes) -> None:
    with pytest.raises(JsonError, match="stands twice"):
        read_object(text)


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"null", b"1", b'"a"', b"[]", b"{", b"{}{}", b"{} x", b"{a:1}", b"{'a':1}", b'{"a":1,}', b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":01}', b'{"a":1e999}', b'{"a":"\xff"}', b'{"a":"\\ud800"}',
        b'{"a":"\x00"}', b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"), b"{}\x00", b"/**/{}",
        b"[" * 100_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(JsonError):
        read_object(text)


@pytest.mark.parametrize("depth", [900, 990, 1_000, 1_010, 1_023, 1_100])
def test_deep_nesting_is_an_answer_and_never_an_accident(depth: int) -> None:
    for text in (b'{"a":' + b"[" * depth + b"]" * depth + b"}", b'{"a":' * depth + b"1" + b"}" * depth):
        try:
            read_object(text)
        except JsonError:
            pass


@given(st.binary(max_size=100))
def test_rubbish_is_never_an_accident(text: bytes) -> None:
    try:
        assert isinstance(read_object(text), dict)
    except JsonError:
        pass
