"""The parts of a JSON line of the access log, and how they become one. Pure.

A part that many lines have in common is kept where that comes from: at the connection, the route, the caller, the
target, the shape of a head. What stands around its texts belongs to it as far as it is fixed, for the fewer pieces
there are, the quicker is a line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from authgate_fast.http.trace_context import Trace

# What may stand in a JSON string as it is, and between the quotes of a combined line. `http.plain` takes no target with
# anything else.
is_plain: Final = re.compile(rb"[ !#-\[\]-~]*+").fullmatch
MAX_TEXT_BYTES: Final = 1_024
"""A path, a user agent or a referrer is cut here: a log line is no place for 8 KiB of somebody's target."""
MEMO_TEXTS: Final = 1_024
MEMO_TEXT_BYTES: Final = 256
"""Texts whose JSON strings are remembered, and how long they may be: below a megabyte."""
_texts: Final[dict[bytes, bytes]] = {}
_names: Final[dict[str, bytes]] = {}
_KNOWN_NUMBERS: Final = 4_096
_NUMBERS: Final = [str(number).encode("ascii") for number in range(_KNOWN_NUMBERS)]
_USUAL_END: Final = b',"retries":0}\n'
POINT_THOUSANDTHS: Final = [f".{number:03}".encode("ascii") for number in range(1_000)]


def caller_part(consumer: str, credential: str) -> bytes:
    """Return the part that is alike for all requests of a caller."""
    return b'","consumer":"%b","credential_id":"%b","client":"' % (
        _known_name(consumer),
        _known_name(credential),
    )


def place_part(gateway: str, route: str, service: str) -> bytes:
    """Return the part that is alike for all requests of a route."""
    return f'","gateway":"{gateway}","route":"{route}","service":"{service}","host":"'.encode()


def client_part(address: str, place: bytes, host: bytes, agent: bytes) -> bytes:
    """Return the part that is alike for all requests of a client to a route; `place` is of `place_part`."""
    return b'%b%b%b","user_agent":"%b","method":"' % (
        _known_name(address),
        place,
        known_text(host),
        known_text(agent),
    )


def result_part(protocol: bytes, status: int, outcome: bytes, code: bytes) -> bytes:
    """Return the part that is alike for all requests that ended in one way."""
    return b'","protocol":"%b","status":%b,"outcome":"%b","code":"%b","request_bytes":' % (
        known_text(protocol),
        number_text(status),
        outcome,
        code,
    )


def upstream_part(upstream: str) -> bytes:
    """Return the part that is alike for all requests that a target got."""
    return b',"upstream":"%b","upstream_ms":' % _known_name(upstream)


def end_part(retries: int, trace: Trace | None) -> bytes:
    """Return the end of a line, with the trace that the request belongs to, if there is one."""
    trace_id = b"" if trace is None else trace.trace_id
    if retries == 0 and trace_id == b"":
        return _USUAL_END
    if trace_id == b"":
        return b',"retries":%b}\n' % number_text(retries)
    return b',"retries":%b,"trace_id":"%b"}\n' % (number_text(retries), trace_id)


def line_of_parts(
    start: bytes,
    request_id: bytes,
    caller: bytes,
    client: bytes,
    method: bytes,
    path: bytes,
    result: bytes,
    request_bytes: int,
    response_bytes: int,
    duration_s: float,
    upstream: bytes,
    upstream_s: float,
    end: bytes,
) -> bytes:
    """Put a JSON line together, from all of its parts: every line comes through here.

    `start` is the clock's, `method` and `path` are as `in_json` writes them; the other texts are the parts above.
    Durations are written in milliseconds, to the microsecond.
    """
    duration_us = int(duration_s * 1e6 + 0.5)  # a float, not protocol text
    duration_ms = duration_us // 1_000
    upstream_ms, upstream_rest = b"null", b""
    if upstream_s >= 0:
        upstream_us = int(upstream_s * 1e6 + 0.5)  # a float, not protocol text
        whole_ms = upstream_us // 1_000
        upstream_ms = number_text(whole_ms)
        upstream_rest = POINT_THOUSANDTHS[upstream_us - whole_ms * 1_000]
    # One build of bytes: compiled, it is written in one go, without a parser of formats.
    return b'%b%b%b%b%b","path":"%b%b%b,"response_bytes":%b,"duration_ms":%b%b%b%b%b%b' % (
        start,
        request_id,
        caller,
        client,
        method,
        path,
        result,
        number_text(request_bytes),
        number_text(response_bytes),
        number_text(duration_ms),
        POINT_THOUSANDTHS[duration_us - duration_ms * 1_000],
        upstream,
        upstream_ms,
        upstream_rest,
        end,
    )


def number_text(number: int) -> bytes:
    """Write a number."""
    if 0 <= number < _KNOWN_NUMBERS:
        return _NUMBERS[number]
    return str(number).encode("ascii")


def known_text(text: bytes) -> bytes:
    """Do what `in_json` does, for a text that is likely in many lines, such as a user agent: it is remembered."""
    known = _texts.get(text)
    if known is None:
        known = in_json(text)
        if len(text) <= MEMO_TEXT_BYTES:
            if len(_texts) >= MEMO_TEXTS:
                _texts.clear()
            _texts[text] = known
    return known


def _known_name(name: str) -> bytes:
    """Do what `known_text` does, for a name of ours or an address."""
    known = _names.get(name)
    if known is None:
        known = in_json(name.encode("utf-8", "replace"))
        if len(name) <= MEMO_TEXT_BYTES:
            if len(_names) >= MEMO_TEXTS:
                _names.clear()
            _names[name] = known
    return known


def in_json(text: bytes) -> bytes:
    """Return what stands for a text between the quotes of a JSON string."""
    if len(text) > MAX_TEXT_BYTES:
        text = text[:MAX_TEXT_BYTES]
    if is_plain(text) is not None:
        return text
    return orjson.dumps(text.decode("utf-8", "replace"))[1:-1]
