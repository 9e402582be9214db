"""Mutations of requests by somebody who has read HAZARDS: on drafts, on bytes, and on the places of the cuts."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from tests.fuzz.grammar import CLAIMS, CRLF, HOP_FIELDS, INNER, TRAILERS, UPGRADES, Draft, draft, stream
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
    TOKENS,
    VERSIONS,
)

_NAME = re.compile(rb"[^:]*")


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
            rng.choice(_DRAFT_MUTATORS)(rng, rng.choice(drafts))
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


# --- on drafts ------------------------------------------------------------------------------------------------


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
                        CRLF,
                        INNER,
                        b"0\r\n\r\n",
                        b"5\r\n",
                        b"x",
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
    one.body.append(
        rng.choice(
            (
                CRLF,
                b"\r\n\r\n",
                b"\n",
                b"\x00",
                b"x",
                INNER,
                b" ",
                b"\r",
                b"0\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            )
        )
    )


_DRAFT_MUTATORS: tuple[Callable[[Random, Draft], None], ...] = (
    _length, _length, _same_length_twice, _coding, _coding, _both_framings, _both_framings, _no_framing, _host, _host, _no_host, _path, _path, _version, _method, _strange_field, _fields,
    _fields, _nominate, _space_before_colon, _space_in_value, _fold, _twice, _drop, _spelling, _many_fields, _long_field, _chunk_line, _chunk_line, _chunk_end, _chunk_end, _body_piece, _line_end, _request_line, _tail,
)  # fmt: skip
