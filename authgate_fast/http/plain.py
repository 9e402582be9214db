"""Plain heads: the quick way through a head made of lines that were seen before or hold nothing special.

The promise: a head is taken here only if the parser would take it too and find the same in it. So
the grammar is narrower than the parser's (visible ASCII, one space behind the colon, no fold), and what
frames or ends a message in any unusual way is left alone: None means that the parser must judge. Most
clients and backends repeat their lines, so what a line means is remembered, one dict look-up for each;
never a credential field, a cookie, a URL that may hold one, or a line that is taken out of a request.

Quicker still is a head like the connection's last one: `http.shape`.
"""

from __future__ import annotations

import re
from typing import Final

from authgate_fast.http.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    CREDENTIAL,
    DATE,
    DROP,
    END_TO_END,
    EXPECT,
    HOP_BY_HOP,
    HOST,
    KEEP_ALIVE,
    TRANSFER_ENCODING,
    VIA,
    classify_request,
    classify_response,
    lower,
)
from authgate_fast.http.request import METHODS, RequestHead
from authgate_fast.http.response import ResponseHead, has_own_cookies, keep_alive_timeout
from authgate_fast.http.shape import (
    MAX_SHAPES_IN_VAIN,
    NO_SHAPE,
    Shape,
    is_plain_target,
    is_plain_value,
    may_serve,
    read_shaped,
    shape_of,
)

MEMO_LINES: Final = 4_096
"""Lines remembered at most; a memo that is full starts again."""
MEMO_STARTS: Final = 256
"""Status lines remembered at most."""
MEMO_LINE_BYTES: Final = 128
"""Longer lines are not remembered, so that a memo stays below three megabytes."""

_plain_status_line: Final = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) [!-~](?:[ -~]*[!-~])?").fullmatch
_plain_line: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([!-~](?:[ -~]*[!-~])?)").fullmatch
_digits: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_NO_FIELDS: Final[list[tuple[bytes, bytes]]] = []

# Their values are nobody's business in a memory that outlives the request.
_SECRET: Final = frozenset(
    {b"authorization", b"cookie", b"set-cookie", b"location", b"content-location", b"referer", b"link"}
)


# Fields that are taken out and hold no secret: Connection: keep-alive, what names the client to us, a status line.
_DROPPED_AND_PLAIN: Final = frozenset({b"connection", b"x-request-id", b"x-real-ip", b""})


class Line:
    """What a field line means. ``wire`` is the line with its CRLF; ``number`` the length or time-out it announces.

    Of a credential field without its value, ``wire`` is the beginning, up to the value.
    """

    __slots__ = ("code", "name", "number", "value", "wire")

    def __init__(self, code: int, name: bytes, value: bytes, wire: bytes, number: int = -1) -> None:
        self.code = code
        self.name = name
        self.value = value
        self.wire = wire
        self.number = number


_NO_LINE: Final = b"\r\n"  # no line looks like that
_NOTHING: Final = Line(DROP, b"", b"", b"")


class Memo:
    """What was learnt: ``lines`` by their bytes, and the last head by place, where the next one is likely the same.

    ``starts`` are status lines; they are kept apart, for a text means another thing in another place.
    ``credentials`` are credential fields by their name as it is spelt; their values are not remembered.
    ``last_response`` is what ``last_head``, of ``last_count`` lines, was read as.
    """

    __slots__ = (
        "credentials",
        "last",
        "last_count",
        "last_head",
        "last_lines",
        "last_response",
        "lines",
        "starts",
    )

    def __init__(self) -> None:
        self.lines: dict[bytes, Line] = {}
        self.starts: dict[bytes, Line] = {}
        self.credentials: dict[bytes, Line] = {}
        self.last: list[bytes] = []
        self.last_lines: list[Line] = []
        self.last_head = b""
        self.last_response: ResponseHead | None = None
        self.last_count = 0

    def keep(self, text: bytes, line: Line) -> None:
        """Remember a line; a memo that is full starts again."""
        if _may_stay(text, line):
            if len(self.lines) >= MEMO_LINES:
                self.lines.clear()
            self.lines[text] = line

    def expect(self, at: int, text: bytes, line: Line) -> None:
        """Expect the line at this place of the next head; nothing, where it may not stay."""
        if not _may_stay(text, line):
            text, line = _NO_LINE, _NOTHING
        self._expect(at, text, line)

    def expect_credential(self, at: int, line: Line) -> None:
        """Expect a credential field at this place: its name, for `line` is one of ``credentials`` and has no value."""
        self._expect(at, _NO_LINE, line)

    def _expect(self, at: int, text: bytes, line: Line) -> None:
        if at < len(self.last):
            self.last[at] = text
            self.last_lines[at] = line
        elif at == len(self.last):
            self.last.append(text)
            self.last_lines.append(line)


def _may_stay(text: bytes, line: Line) -> bool:
    """Tell whether a line may be remembered. What is dropped may be a credential in another spelling."""
    if line.code == CREDENTIAL or (line.code == DROP and line.name not in _DROPPED_AND_PLAIN):
        return False
    return len(text) <= MEMO_LINE_BYTES and line.name not in _SECRET


def read_plain_request(
    data: bytes,
    max_fields: int,
    memo: Memo,
    field_memo: dict[bytes, int],
    credential_fields: frozenset[bytes],
    shape: Shape | None = None,
) -> RequestHead | None:
    """Read one complete request head, fields included, or leave it to the parser.

    `shape` is that of the connection's last head; the head found has the one for the next.
    """
    if shape is not None and shape.memo is not memo:
        shape = NO_SHAPE  # it would keep all that was learnt for another snapshot
    if shape is not None and may_serve(shape, memo, max_fields):
        shaped = read_shaped(data, shape)
        if shaped is not None:
            return shaped
    lines = data.split(b"\r\n")
    count = len(lines) - 2  # the empty line, and nothing behind it
    if count > max_fields + 1:
        return None
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] != b"HTTP/1.1" or words[0] not in METHODS or not is_plain_target(words[1]):
        return None
    head = RequestHead(words[0], words[1], 1, _NO_FIELDS)
    kept = head.lines
    hosts = 0
    specials = 0
    places: list[int] = []  # of credentials
    last = memo.last
    known = len(last)
    for at in range(1, count):
        text = lines[at]
        line = memo.last_lines[at - 1] if at <= known else _NOTHING
        if line.code == CREDENTIAL and text.startswith(line.wire):
            value = text[len(line.wire) :]
            if not is_plain_value(value):
                return None
            _present(head, line.name, value)
            places.append(at)
            continue
        if at > known or text != last[at - 1]:
            # A line that is too long to be remembered is not looked up either: its hash costs its length.
            found = memo.lines.get(text) if len(text) <= MEMO_LINE_BYTES else None
            if found is None:
                name, _, value = text.partition(b": ")
                found = memo.credentials.get(name)
                if found is not None:
                    if not is_plain_value(value):
                        return None
                    memo.expect_credential(at - 1, found)
                    _present(head, found.name, value)
                    places.append(at)
                    continue
                found = _learn(text, memo, field_memo, credential_fields)
                if found is None:
                    return None
            line = found
            memo.expect(at - 1, text, line)
        code = line.code
        if code == END_TO_END:
            kept.append(line.wire)
        elif code == HOST:
            hosts += 1
            head.host = line.value
        elif code == CREDENTIAL:
            _present(head, line.name, line.value)
            places.append(at)
        elif code != DROP:
            if head.read_special(code, line.value) is not None:
                return None
            if code != CONTENT_LENGTH:
                specials += 1
    if hosts != 1:
        return None
    head.is_read = True
    if shape is None:
        head.shape = NO_SHAPE
    elif specials == 0 and shape.in_vain < MAX_SHAPES_IN_VAIN:
        head.shape = shape_of(data, lines, head, places, memo, shape)
    else:
        head.shape = shape
    return head


def _present(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.presented is None:
        head.presented = [(name, value)]
    else:
        head.presented.append((name, value))


def _learn(
    text: bytes, memo: Memo, field_memo: dict[bytes, int], credential_fields: frozenset[bytes]
) -> Line | None:
    match = _plain_line(text)
    if match is None:
        return None
    name, value = match.groups()
    code = field_memo.get(name)
    if code is None:
        code = classify_request(name, field_memo, credential_fields)
    folded = lower(name)
    if code == CONNECTION and value == b"keep-alive":
        code = DROP
    elif code in (CONNECTION, TRANSFER_ENCODING, EXPECT) or folded in HOP_BY_HOP:
        return None
    line = Line(code, folded, value, text + b"\r\n")
    if code == CREDENTIAL:
        if len(memo.credentials) < MEMO_LINES and len(name) <= MEMO_LINE_BYTES:
            memo.credentials[name] = Line(code, folded, b"", name + b": ")
    elif code in (END_TO_END, HOST, DROP, VIA):
        memo.keep(text, line)
    return line


def read_plain_response(head: bytes, max_fields: int, memo: Memo) -> ResponseHead | None:
    """Read a response head without its empty line, or leave it to the parser; never an interim one.

    The same head gets the same object again: nobody may change it.
    """
    if head == memo.last_head and memo.last_response is not None and memo.last_count <= max_fields + 1:
        return memo.last_response
    lines = head.split(b"\r\n")
    count = len(lines)
    if count > max_fields + 1:
        return None
    last = memo.last
    known = len(last)
    is_known = True
    if known and lines[0] == last[0]:
        start = memo.last_lines[0]
    else:
        is_known = False
        found = memo.starts.get(lines[0]) or _learn_status(lines[0], memo)
        if found is None:
            return None
        start = found
        memo.expect(0, lines[0], start)
    response = ResponseHead(start.number, 1)
    kept = [b""]
    for at in range(1, count):
        text = lines[at]
        if at < known and text == last[at]:
            line = memo.last_lines[at]
        else:
            is_known = False
            found = memo.lines.get(text) or _learn_response(text, memo)
            if found is None:
                return None
            line = found
            memo.expect(at, text, line)
        code = line.code
        if code == END_TO_END:
            kept.append(text)
        elif code == CONTENT_LENGTH:
            if response.content_length != -1 or start.number == 204:
                return None
            response.content_length = line.number
            kept.append(text)
        elif code == DATE:
            response.has_date = True
            kept.append(text)
        elif code == KEEP_ALIVE:
            if line.number >= 0:
                response.keep_alive_s = line.number
        elif code == TRANSFER_ENCODING:
            if response.chunked:
                return None
            response.chunked = True
    if response.chunked and response.content_length != -1:
        return None
    kept.append(b"")
    response.block = b"\r\n".join(kept)
    response.own_cookies = has_own_cookies(response.block)
    if is_known:  # there is no line in it that may not stay
        memo.last_head = head
        memo.last_response = response
        memo.last_count = count
    return response


def _learn_status(text: bytes, memo: Memo) -> Line | None:
    match = _plain_status_line(text)
    if match is None:
        return None
    line = Line(DROP, b"", b"", b"", int(match.group(1)))  # three ASCII digits
    if len(text) <= MEMO_LINE_BYTES:
        if len(memo.starts) >= MEMO_STARTS:
            memo.starts.clear()
        memo.starts[text] = line
    return line


def _learn_response(text: bytes, memo: Memo) -> Line | None:
    match = _plain_line(text)
    if match is None:
        return None
    name, value = match.groups()
    folded = lower(name)
    code = classify_response(name)
    number = -1
    if code == CONNECTION:
        if value != b"keep-alive":
            return None
        code = DROP
    elif code == CONTENT_LENGTH:
        if _digits(value) is None:
            return None
        number = int(value)  # plain ASCII digits
    elif code == KEEP_ALIVE:
        number = keep_alive_timeout(value)
    elif code == TRANSFER_ENCODING:
        if value != b"chunked":
            return None
    elif code not in (END_TO_END, DATE) and folded != b"x-request-id":
        return None
    line = Line(code, folded, value, b"", number)
    memo.keep(text, line)
    return line
