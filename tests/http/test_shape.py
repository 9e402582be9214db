"""Heads with several credentials, read by their shape: the same is found in them as by the line and by the parser."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.http.plain import Memo
from authgate_fast.http.request import RequestHead
from authgate_fast.http.shape import MAX_CREDENTIALS, Shape, read_shaped
from tests.http.test_plain import (
    CREDENTIAL_FIELDS,
    REQUEST_FACTS,
    is_as_parsed,
    join,
    plain_request,
    shape_of,
)

NAMES = (b"X-Api-Key", b"Cookie", b"Authorization", b"x-api-key")
VALUES = (
    b"agk_1",
    b"a=b; c=d",
    b"Bearer a.b-c_d~e+/==",
    b"k",
    b"a: b",
    b"X-Api-Key: x",
    b"HTTP/1.1",
    b"/a  b",
)
BAD = (
    b"", b" ", b" a", b"a ", b"a\tb", b"\ta", b"a\x7fb", b"\xe4", b"a\0b", b"a\rb", b"a\nb", b"a\r", b"\na",
    b"a\r\n", b"\r\na", b"a\r\nB: y", b"a\r\nCookie: b", b"a\r\n B: y", b"a\r\n\r\n",
)  # fmt: skip
TWO = b"GET /%b HTTP/1.1\r\nHost: a\r\nX-Api-Key: %b\r\nB: y\r\nCookie: %b\r\nC: z\r\n\r\n"
THREE = b"POST /%b HTTP/1.1\r\nCookie: %b\r\nX-Api-Key: %b\r\nHost: a\r\nContent-Length: 3\r\nAuthorization: %b\r\n\r\n"


def shape_for(data: bytes) -> Shape:
    return shape_of(data, CREDENTIAL_FIELDS)


def by_line(data: bytes) -> RequestHead | None:
    """Read by a reader that has seen nothing yet."""
    return plain_request(data, Memo(), None, CREDENTIAL_FIELDS)


def skeleton(data: bytes) -> list[bytes]:
    """Return the field lines of a head, the credentials among them without their values."""
    lines = data.split(b"\r\n")[1:]
    names = [line.partition(b": ")[0] for line in lines]
    return [
        name + b": " if name.lower() in CREDENTIAL_FIELDS and line.startswith(name + b": ") else line
        for name, line in zip(names, lines, strict=True)
    ]


def check(data: bytes, shape: Shape, good: bytes) -> bool:
    """Tell whether the shape of `good` reads `data`: just if it is one plain head that differs from `good` as it may."""
    head, plain = read_shaped(data, shape), by_line(data)
    assert (head is not None) == (plain is not None and skeleton(data) == skeleton(good)), data
    if head is None or plain is None:
        return False
    for name in REQUEST_FACTS:
        assert getattr(head, name) == getattr(plain, name), (name, data)
    assert (head.known_lines, head.lines) == (plain.lines, [])
    assert data.index(b"\r\n\r\n") + 4 == len(data)
    return is_as_parsed(head, data, CREDENTIAL_FIELDS)


def test_a_shape_holds_several_credentials_in_their_places() -> None:
    memo = Memo()
    shape: Shape | None = None
    for number in range(4):
        data = THREE % (b"%d" % number, b"c%d" % number, b"k%d" % number, b"a%d" % number)
        last = shape
        head = plain_request(data, memo, shape, CREDENTIAL_FIELDS)
        assert head is not None
        shape = head.shape
        assert head.presented == [
            (b"cookie", b"c%d" % number), (b"x-api-key", b"k%d" % number), (b"authorization", b"a%d" % number),
        ]  # fmt: skip
        assert (head.method, head.target, head.host, head.content_length) == (
            b"POST",
            b"/%d" % number,
            b"a",
            3,
        )
        assert (shape is last) == (number > 1), "made of the second head, it reads all others"
    assert shape is not None
    assert shape.has_served


@pytest.mark.parametrize("count", range(MAX_CREDENTIALS + 3))
def test_a_shape_holds_no_more_than_a_few_credentials(count: int) -> None:
    data = join(b"GET / HTTP/1.1", [b"Host: a", *[b"Cookie: a=%d" % at for at in range(count)]])
    memo = Memo()
    first = plain_request(data, memo, None, CREDENTIAL_FIELDS)
    assert first is not None
    second = plain_request(data, memo, first.shape, CREDENTIAL_FIELDS)
    assert second is not None
    assert (second.shape is first.shape) == (count > MAX_CREDENTIALS)
    third = plain_request(data, memo, second.shape, CREDENTIAL_FIELDS)
    assert is_as_parsed(third, data, CREDENTIAL_FIELDS)


@pytest.mark.parametrize("bad", BAD)
def test_each_credential_is_judged(bad: bytes) -> None:
    for good, count in ((TWO, 2), (THREE, 3)):
        head = good % (b"0", *[b"zero"] * count)
        shape = shape_for(head)
        for at in range(count):
            values = [b"one", b"two", b"three"][:count]
            values[at] = bad
            data = good % (b"1", *values)
            assert read_shaped(data, shape) is None, data
            if b"\r\n\r\n" not in bad:
                assert not check(data, shape, head)


@pytest.mark.parametrize("value", VALUES)
def test_a_credential_may_look_like_what_stands_around_it(value: bytes) -> None:
    for good, count in ((TWO, 2), (THREE, 3)):
        head = good % (b"0", *[b"zero"] * count)
        shape = shape_for(head)
        for at in range(count):
            values = [b"one", b"two", b"three"][:count]
            values[at] = value
            assert check(good % (b"1", *values), shape, head)


@pytest.mark.parametrize(
    "fields",
    [
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1 B: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nCookie: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nC: z",
        b"Host: a\r\nB: y\r\nCookie: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\r\nC: z",
        b"Host: a\r\nCookie: 1\r\nB: y\r\nX-Api-Key: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\ncookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: x\r\nCookie: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\r\nb: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nB: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nX-Consumer-Id: me\r\nB: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nX-Consumer-Id: me\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie:2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\nB: y\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\rB: y\r\nCookie: 2\r\nC: z", b"Host: a\r\nX-Api-Key: 1\r\n\r\nB: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nC: y", b"Host: b\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2\r\nC: z",
        b"Host: a\r\nX-Api-Key: 1\r\nB: y\r\nCookie: 2", b"Host: a\r\nX-Api-Key: 1\r\nB: yCookie: 2\r\nC: z",
    ],
)  # fmt: skip
def test_fields_around_several_credentials_are_those_of_the_shape(fields: bytes) -> None:
    good = TWO % (b"0", b"zero", b"0")
    data = b"GET / HTTP/1.1\r\n%b\r\n\r\n" % fields
    assert check(data, shape_for(good), good) == (data == TWO % (b"", b"1", b"2"))


@pytest.mark.parametrize("tail", [b"", b"x", b"\r\n", TWO % (b"2", b"two", b"2")])
def test_no_more_and_no_less_than_one_head_with_several_credentials(tail: bytes) -> None:
    good = TWO % (b"1", b"one", b"1")
    shape = shape_for(good)
    assert (read_shaped(good + tail, shape) is not None) == (tail == b"")
    for size in range(len(good)):
        assert read_shaped(good[:size], shape) is None, size
        for gap in (1, 2, 5, 10):
            check(good[:size] + good[size + gap :], shape, good)


def test_each_byte_of_each_credential() -> None:
    good = THREE % (b"0", b"one", b"two", b"three")
    shape = shape_for(good)
    for byte in range(256):
        for at in range(3):
            values = [b"one", b"two", b"three"]
            values[at] = b"a%cb" % byte
            data = THREE % (b"1", *values)
            assert check(data, shape, good) == (0x20 <= byte <= 0x7E), data


def test_no_credential_stays_in_a_shape() -> None:
    shape = shape_for(THREE % (b"hidden0", b"hidden1", b"hidden2", b"hidden3"))
    assert read_shaped(THREE % (b"hidden0", b"hidden1", b"hidden2", b"hidden3"), shape) is not None
    held = [getattr(shape, name) for name in dir(shape) if name != "memo" and not name.startswith("_")]
    assert b"Cookie: " in shape.before
    assert "hidden" not in repr(held)


FIXED = (b"Host: a", b"B: y", b"Accept: */*", b"Content-Length: 5", b"X_Api_Key: k", b"X-Long: " + b"l" * 200)
credentials = st.lists(st.sampled_from(NAMES), max_size=4)


@st.composite
def kinds(draw: st.DrawFn) -> bytes:
    """Draw a head with a place for the target and for each of its credentials."""
    fixed = [b"Host: a", *draw(st.lists(st.sampled_from(FIXED[1:]), max_size=3, unique=True))]
    fields = [name + b": %b" for name in draw(credentials)]
    return join(b"GET /%b HTTP/1.1", draw(st.permutations(fixed + fields)))


@given(kinds(), st.data())
@settings(max_examples=500, deadline=None)
def test_heads_with_any_credentials_say_what_is_found_by_the_line(kind: bytes, data: st.DataObject) -> None:
    count = kind.count(b"%b") - 1
    draw = data.draw
    values = st.lists(st.sampled_from(VALUES), min_size=count, max_size=count)
    good, other = kind % (b"0", *draw(values)), kind % (b"1?q", *draw(values))
    memo, shape = Memo(), None
    for text in (good, good, other, good):
        head = plain_request(text, memo, shape, CREDENTIAL_FIELDS)
        assert is_as_parsed(head, text, CREDENTIAL_FIELDS)
        shape = None if head is None else head.shape
    if count > MAX_CREDENTIALS or shape is None:
        return
    assert check(other, shape, good)
    odd = st.lists(st.sampled_from(VALUES + BAD), min_size=count, max_size=count)
    check(kind % (b"2", *draw(odd)), shape, good)
    for _ in range(3):
        at, size = draw(st.integers(0, len(other))), draw(st.integers(0, 12))
        piece = draw(st.one_of(st.binary(max_size=3), st.sampled_from((b"\r\n", b" ", b": ")), slices(other)))
        check(other[:at] + piece + other[at + size :], shape, good)


@st.composite
def slices(draw: st.DrawFn, data: bytes) -> bytes:
    begin = draw(st.integers(0, len(data)))
    return data[begin : begin + draw(st.integers(0, 60))]


@pytest.mark.parametrize("count", range(MAX_CREDENTIALS + 2))
def test_all_orders_of_credentials_on_one_connection(count: int) -> None:
    for names in permutations(NAMES, count):
        memo, shape = Memo(), None
        for number in range(4):
            for gap in ([], [b"B: y"]):
                lines = [b"Host: a"]
                for at, name in enumerate(names):
                    lines += [name + b": v%d.%d" % (number, at), *gap]
                data = join(b"GET /%d HTTP/1.1" % number, lines)
                head = plain_request(data, memo, shape, CREDENTIAL_FIELDS)
                assert is_as_parsed(head, data, CREDENTIAL_FIELDS)
                assert head is not None
                shape = head.shape
