"""Shapes: what a head has in common with the last one of its connection, so that it is read by a few comparisons.

Such heads differ in their request lines and their credentials alone. What stands around those is compared as it is: a
head is taken here only if the reader by the line (`http.plain`) would take it too and find the same in it. A shape
belongs to one connection and ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.http.request import METHODS, RequestHead

if TYPE_CHECKING:
    from authgate_fast.http.plain import Memo

MAX_SHAPE_BYTES: Final = 2_048
"""Longer heads have no shape: a connection would keep some three times as much."""
MAX_SHAPES_IN_VAIN: Final = 4
"""A connection whose heads keep differing makes no more shapes."""
MAX_CREDENTIALS: Final = 3
"""Heads with more of them have no shape: what follows a credential is copied once for each."""

# Tables for `translate`: what may not stand in a text becomes another byte, so that a good text is equal to what it
# becomes. Compiled, this takes a sixth of what a regular expression does.
_VALUE: Final = bytes(byte if 0x20 <= byte <= 0x7E else 0x41 for byte in range(256))
# Without a fragment, and without what JSON escapes, though the parser takes that: the access log writes such a target
# as it is.
_TARGET: Final = bytes(byte if 0x21 <= byte <= 0x7E and byte not in b'#"\\' else 0x41 for byte in range(256))
_NO_FIELDS: Final[list[tuple[bytes, bytes]]] = []
_NO_LINES: Final[list[bytes]] = []


class Shape:
    """What the heads of one connection have in common, read once.

    ``before`` is what follows the target and its space, up to the first credential's value or the end; ``after`` what
    follows the last one's value, b"" where there is none. ``credential`` is the name of the last one. ``others`` are
    those before it: the name, and what stands between the end of its line and the next value. ``method`` is that of the
    head it was made of, and likely the next one's. ``block`` are ``lines``, joined; ``agent``, ``referrer`` and
    ``log_part`` are found when the access log first asks; ``log_place`` is the route that ``log_part`` is about.
    ``memo`` is the one that it was read by: another snapshot reads fields in another way.
    """

    __slots__ = (
        "after",
        "agent",
        "before",
        "block",
        "content_length",
        "count",
        "credential",
        "has_served",
        "host",
        "in_vain",
        "lines",
        "log_part",
        "log_place",
        "memo",
        "method",
        "others",
        "referrer",
    )

    def __init__(self, memo: Memo | None, in_vain: int) -> None:
        self.memo = memo
        self.in_vain = in_vain
        self.has_served = False
        self.count = 0
        self.method = b""
        self.before = b""
        self.after = b""
        self.credential = b""
        self.others: list[tuple[bytes, bytes]] = _NO_FIELDS
        self.host = b""
        self.content_length = -1
        self.lines: list[bytes] = _NO_LINES
        self.block = b""
        self.agent: bytes | None = None
        self.referrer = b""
        self.log_place = b""
        self.log_part = b""


NO_SHAPE: Final = Shape(None, 0)
"""After a connection's first head: many have no second one."""


def may_serve(shape: Shape, memo: Memo, max_fields: int) -> bool:
    """Tell whether heads may be read by a shape: it is of the snapshot in force, and within the limit in force."""
    return shape.memo is memo and shape.count <= max_fields + 1


def read_shaped(data: bytes, shape: Shape) -> RequestHead | None:
    """Read one whole head of this shape with nothing behind it, or leave it to who looks at each line.

    `data` may be anything: that it is one head, and where it ends, is part of what is found out.
    """
    words = data.split(b" ", 2)
    if len(words) != 3:
        return None
    rest = words[2]
    if not rest.startswith(shape.before):
        return None
    begin = len(shape.before)
    end = len(rest) - len(shape.after)
    presented: list[tuple[bytes, bytes]] | None = None
    if shape.after == b"":
        if begin != end:
            return None
    else:
        if not rest.endswith(shape.after):
            return None
        # Values are printable: none holds an end of a line. So each ends with its line, and all other lines are those
        # of the shape.
        value = rest[begin:end]  # nothing, if one piece reaches into the other: no value
        presented = []
        for name, between in shape.others:
            other, _, value = value.partition(b"\r\n")
            if not value.startswith(between) or not is_plain_value(other):
                return None
            presented.append((name, other))
            value = value[len(between) :]
        if not is_plain_value(value):
            return None
        presented.append((shape.credential, value))
    method = shape.method
    if words[0] != method:
        method = words[0]
        if method not in METHODS:
            return None
    if not is_plain_target(words[1]):
        return None
    head = RequestHead(method, words[1], 1, _NO_FIELDS)
    head.presented = presented
    head.host = shape.host
    head.content_length = shape.content_length
    head.known_lines = shape.lines
    head.block = shape.block
    head.shape = shape
    head.is_read = True
    shape.has_served = True
    return head


def shape_of(
    data: bytes, lines: list[bytes], head: RequestHead, places: list[int], memo: Memo, last: Shape
) -> Shape:
    """Return the shape for the next head: that of `data`, or the `last` one if this may have none.

    `head` is what was read of its `lines`; `places` are those of the credentials among them.
    """
    begin = len(lines[0]) - len(b"HTTP/1.1")
    if len(data) - begin > MAX_SHAPE_BYTES or len(places) > MAX_CREDENTIALS:
        return last
    shape = Shape(memo, 0 if last.has_served else last.in_vain + 1)
    shape.count = len(lines) - 2
    shape.method = head.method
    shape.host = head.host
    shape.content_length = head.content_length
    shape.lines = head.lines.copy()  # what is added to a head must not stay
    shape.block = b"".join(shape.lines)
    presented = head.presented
    if presented is None:
        shape.before = data[begin:]
        return shape
    names = [name for name, _ in presented]
    pieces: list[bytes] = []
    first = 0
    for place, (_, value) in zip(places, presented, strict=True):
        line = lines[place]
        pieces.append(b"\r\n".join([*lines[first:place], line[: len(line) - len(value)]]))
        first = place + 1
    shape.before = pieces[0][begin:]
    shape.after = b"\r\n".join([b"", *lines[first:]])
    shape.credential = names[-1]
    shape.others = list(zip(names[:-1], pieces[1:], strict=True))
    return shape


def is_plain_target(target: bytes) -> bool:
    """Tell whether a target is in origin-form and visible ASCII without a fragment, quotes and backslashes."""
    return target.startswith(b"/") and target.translate(_TARGET) == target


def is_plain_value(value: bytes) -> bool:
    """Tell whether a value is printable ASCII with no space at its ends."""
    return value != b"" and value[0] != 0x20 and value[-1] != 0x20 and value.translate(_VALUE) == value
