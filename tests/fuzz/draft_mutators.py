"""Mutations of one request while it is still in parts: each spoils one thing that proxies have been wrong about."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from tests.fuzz.grammar import CLAIMS, CRLF, HOP_FIELDS, INNER, TRAILERS, UPGRADES, Draft
from tests.fuzz.tricks import (
    CHUNK_LINES,
    CODING_NAMES,
    CODINGS,
    EXPECTS,
    HOST_LINES,
    KEYS,
    LENGTH_NAMES,
    LENGTHS,
    LINE_ENDS,
    METHODS,
    PATHS,
    SPACES,
    STRANGE_FIELDS,
    TAILS,
    VERSIONS,
)

_NAME = re.compile(rb"[^:]*")


def _insert(rng: Random, one: Draft, line: bytes) -> None:
    one.fields.insert(rng.randint(0, len(one.fields)), line)


def _named(one: Draft, name: bytes) -> list[int]:
    return [at for at, line in enumerate(one.fields) if line.lower().startswith(name + b":")]


def _length(rng: Random, one: Draft) -> None:
    line = rng.choice(LENGTH_NAMES if rng.random() < 0.3 else LENGTH_NAMES[:1]) + b": " + rng.choice(LENGTHS)
    places = _named(one, b"content-length")
    if places and rng.random() < 0.5:
        one.fields[places[0]] = line
    else:
        _insert(rng, one, line)


def _same_length_twice(rng: Random, one: Draft) -> None:
    size = len(b"".join(one.body))
    for _ in range(1 if _named(one, b"content-length") else 2):
        _insert(rng, one, b"Content-Length: %d" % size)


def _coding(rng: Random, one: Draft) -> None:
    line = rng.choice(CODING_NAMES if rng.random() < 0.3 else CODING_NAMES[:1]) + b": " + rng.choice(CODINGS)
    places = _named(one, b"transfer-encoding")
    if places and rng.random() < 0.5:
        one.fields[places[0]] = line
    else:
        _insert(rng, one, line)


def _both_framings(rng: Random, one: Draft) -> None:
    one.fields = [
        line for line in one.fields if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]
    size = rng.choice((0, 3, 5, len(b"".join(one.body)), len(INNER) + 5))
    lines = [
        b"Content-Length: %d" % size,
        b"Transfer-Encoding: " + rng.choice((b"chunked", b"chunked", rng.choice(CODINGS))),
    ]
    rng.shuffle(lines)
    for line in lines:
        one.fields.append(line)
    if rng.random() < 0.6:
        one.body = [b"0\r\n", b"\r\n", INNER]


def _no_framing(rng: Random, one: Draft) -> None:
    one.fields = [
        line for line in one.fields if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]


def _host(rng: Random, one: Draft) -> None:
    places = _named(one, b"host")
    if places and rng.random() < 0.5:
        one.fields[places[0]] = rng.choice(HOST_LINES)
    else:
        _insert(rng, one, rng.choice(HOST_LINES))


def _no_host(rng: Random, one: Draft) -> None:
    one.fields = [line for line in one.fields if not line.lower().startswith(b"host")]


def _path(rng: Random, one: Draft) -> None:
    if rng.random() < 0.7:
        one.target = rng.choice(PATHS)
    else:
        at = rng.randint(0, len(one.target))
        one.target = (
            one.target[:at]
            + rng.choice(
                (
                    b"/",
                    b"//",
                    b"/..",
                    b"/.",
                    b"%2e",
                    b"%2f",
                    b"%5c",
                    b";",
                    b"#",
                    b"?",
                    b"%25",
                    b"%00",
                    b"\\",
                    b"%",
                    b"@",
                    b"%c3%a9",
                    b"\xff",
                )
            )
            + one.target[at:]
        )


def _version(rng: Random, one: Draft) -> None:
    one.version = rng.choice(VERSIONS)


def _coding_in_1_0(rng: Random, one: Draft) -> None:
    one.version = b"HTTP/1.0"
    _no_framing(rng, one)
    one.fields += rng.choice(
        ((b"Transfer-Encoding: chunked",), (b"Transfer-Encoding: chunked", b"Connection: keep-alive"))
    )
    one.body = [b"5\r\n", b"hello", CRLF, b"0\r\n", CRLF]


def _method(rng: Random, one: Draft) -> None:
    one.method = rng.choice(METHODS)


def _strange_field(rng: Random, one: Draft) -> None:
    _insert(rng, one, rng.choice(STRANGE_FIELDS))


def _fields(rng: Random, one: Draft) -> None:
    for line in rng.choice(
        (
            (rng.choice(CLAIMS),),
            (rng.choice(HOP_FIELDS),),
            rng.choice(UPGRADES),
            (rng.choice(EXPECTS),),
            (rng.choice(KEYS),),
        )
    ):
        _insert(rng, one, line)


def _two_keys(rng: Random, one: Draft) -> None:
    one.target = rng.choice((b"/s/a", b"/s/x/y", b"/items/special"))
    one.fields = [line for line in one.fields if not line.lower().startswith((b"host", b"x-api-key"))]
    one.fields += [b"Host: shop.test", KEYS[0], rng.choice(KEYS)]


def _nominate(rng: Random, one: Draft) -> None:
    """Connection names a field of this very request, or one that the gateway will add."""
    names = [match[0] for line in one.fields if (match := _NAME.match(line))]
    added = [
        b"X-Consumer-Id",
        b"X-Gateway-Id",
        b"X-Forwarded-For",
        b"Via",
        b"X-Request-ID",
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
    ]
    _insert(
        rng,
        one,
        b"Connection: "
        + rng.choice((b", ", b",", b" ,\t", b",,")).join(rng.sample(names + added, min(3, len(names)))),
    )


def _space_before_colon(rng: Random, one: Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        name, colon, value = one.fields[at].partition(b":")
        one.fields[at] = name + rng.choice(SPACES) + colon + value


def _space_in_value(rng: Random, one: Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        name, colon, value = one.fields[at].partition(b":")
        space = rng.choice(SPACES)
        one.fields[at] = (
            name + colon + rng.choice((space + value, value + space, b" " + space + value.strip(b" \t")))
        )


def _fold(rng: Random, one: Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        one.fields[at] = (
            one.fields[at].replace(b" ", b"\r\n ", 1)
            if rng.random() < 0.5
            else one.fields[at] + b"\r\n\tmore"
        )


def _twice(rng: Random, one: Draft) -> None:
    if one.fields:
        _insert(rng, one, rng.choice(one.fields))


def _drop(rng: Random, one: Draft) -> None:
    if one.fields:
        one.fields.pop(rng.randrange(len(one.fields)))


def _spelling(rng: Random, one: Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        name, colon, value = one.fields[at].partition(b":")
        one.fields[at] = (
            rng.choice(
                (
                    name.upper(),
                    name.swapcase(),
                    name.replace(b"-", b"_"),
                    name.replace(b"-", b"."),
                    name + b"\x00",
                    b"\xef\xbb\xbf" + name,
                )
            )
            + colon
            + value
        )


def _many_fields(rng: Random, one: Draft) -> None:
    count = rng.choice((20, 29, 30, 31, 32, 33, 60))
    one.fields += [
        b"X-%d: %d" % (number, number) for number in range(count - rng.randint(0, 2) * len(one.fields))
    ]


def _long_field(rng: Random, one: Draft) -> None:
    _insert(rng, one, b"X-Long: " + b"l" * rng.choice((1_000, 3_900, 4_000, 4_096, 5_000)))


def _chunk_line(rng: Random, one: Draft) -> None:
    places = [
        at
        for at in range(len(one.body))
        if re.match(rb"[0-9A-Fa-f]+[^0-9A-Fa-f]", one.body[at]) and one.body[at].endswith(b"\r\n")
    ]
    if places:
        at = rng.choice(places)
        one.body[at] = rng.choice(
            (
                rng.choice(CHUNK_LINES),
                one.body[at][:-2] + rng.choice(LINE_ENDS),
                one.body[at].replace(b"\r\n", rng.choice(CHUNK_LINES)[1:]),
            )
        )


def _chunk_end(rng: Random, one: Draft) -> None:
    places = [at for at, piece in enumerate(one.body) if piece == CRLF]
    if places:
        one.body[rng.choice(places)] = rng.choice(
            (*LINE_ENDS, b"XX", b"\r\r", b"\n\n", b"\rX", b"0\r\n", b"  ")
        )


def _body_piece(rng: Random, one: Draft) -> None:
    if one.body:
        at = rng.randrange(len(one.body))
        kind = rng.random()
        if kind < 0.3:
            one.body.pop(at)
        elif kind < 0.6:
            one.body.insert(
                at,
                rng.choice(
                    (
                        rng.choice(TAILS),
                        b"5\r\n",
                        rng.choice(TRAILERS) + CRLF,
                        rng.choice(STRANGE_FIELDS) + CRLF,
                    )
                ),
            )
        else:
            one.body.insert(at, one.body[at])


def _line_end(rng: Random, one: Draft) -> None:
    if one.fields:
        at = rng.randrange(len(one.fields))
        one.fields[at] += rng.choice(LINE_ENDS) + rng.choice(
            (b"", b"X-B: c", b"Transfer-Encoding: chunked", b"Host: partner.test", b"GET /s/a HTTP/1.1")
        )


def _request_line(rng: Random, one: Draft) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        one.method += rng.choice(SPACES)
    elif kind == 1:
        one.target += rng.choice(SPACES)
    elif kind == 2:
        one.method = rng.choice((b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\x00", b"\r", b"\t")) + one.method
    else:
        one.version += rng.choice(LINE_ENDS)


def _tail(rng: Random, one: Draft) -> None:
    one.body.append(rng.choice(TAILS))


DRAFT_MUTATORS: tuple[Callable[[Random, Draft], None], ...] = (
    _two_keys, _length, _length, _same_length_twice, _coding, _coding, _both_framings, _both_framings, _no_framing, _host, _host, _no_host, _coding_in_1_0, _path, _path, _version, _method, _strange_field, _fields,
    _fields, _nominate, _space_before_colon, _space_in_value, _fold, _twice, _drop, _spelling, _many_fields, _long_field, _chunk_line, _chunk_line, _chunk_end, _chunk_end, _body_piece, _line_end, _request_line, _tail,
)  # fmt: skip
