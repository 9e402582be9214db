"""A second reader of HTTP/1.1, written from RFC 9112 and RFC 9110 alone, as strict as they allow.

It reads whole buffers, is slow and plain, and shares nothing with the gateway: where the two read the same bytes
differently, one of them is wrong. Where the RFC leaves a choice between refusing and repairing, it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

COMPLETE = "complete"
INCOMPLETE = "incomplete"
"""The bytes end before the message does; more bytes could make it a good one, or not."""
INVALID = "invalid"
UNKNOWN_STATUS = "a status code above 599"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_token = re.compile(_TOKEN).fullmatch
_field_line = re.compile(
    rb"(" + _TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
).fullmatch
_request_line = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])").fullmatch
_first_word = re.compile(_TOKEN + rb"(?= )").match
_status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) ([0-9]{3})(?: ([\t -~\x80-\xff]*))?").fullmatch
_chunk_line = re.compile(
    rb"([0-9A-Fa-f]+)((?:[ \t]*;[ \t]*"
    + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*)"
).fullmatch
_digits = re.compile(rb"[0-9]+").fullmatch
# RFC 3986 section 3.2.2: a registered name, an IPv4 address or an IP literal; and a port.
_host = re.compile(
    rb"(?:\[[0-9A-Fa-fvV:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?"
).fullmatch
_MOST_DIGITS = 18
"""Of a length or a chunk size: more would not fit into what other readers count with."""


@dataclass(slots=True)
class Message:
    """One message as far as it could be read. Field names are in lower case, values without outer white space."""

    start: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    state: str = INVALID
    why: str = ""
    head_read: bool = False
    """The head is good, whatever became of the body."""
    minor: int = 1
    framing: str = "none"
    """none, length, chunked, close (a response that only the end of the connection ends), or tunnel (behind a 101)"""
    at: int = 0
    end: int = 0
    """Where the message begins and, if complete, ends in the buffer."""
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    odd: str = ""
    """Something that is not forbidden to accept, but no good sender writes."""
    interim: list[Message] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field."""
        return [value for key, value in self.fields if key == name]

    def options(self) -> set[bytes]:
        """Return the connection options."""
        found = set()
        for value in self.values(b"connection"):
            found |= {part.strip(b" \t").lower() for part in value.split(b",")}
        return found - {b""}

    def fail(self, why: str) -> Message:
        """Call the message invalid."""
        self.state, self.why = INVALID, why
        return self


def read_requests(data: bytes) -> list[Message]:
    """Read a client's stream: complete requests, and last perhaps one that is invalid or incomplete."""
    found = []
    at = 0
    while True:
        while data.startswith(b"\r\n", at):  # RFC 9112 section 2.2: empty lines before a request
            at += 2
        if at == len(data):
            return found
        message = read_request(data, at)
        found.append(message)
        if message.state != COMPLETE:
            return found
        at = message.end


def read_request(data: bytes, at: int = 0) -> Message:
    """Read one request that begins at `at`."""
    message = Message(at=at)
    word = _first_word(data, at)
    message.method = word[0] if word is not None else b""
    lines, end = _head_lines(data, at)
    if lines is None:
        message.state = INCOMPLETE
        return message
    match = _request_line(lines[0])
    if match is None:
        return message.fail("request line")
    message.start = lines[0]
    message.method, message.target = match[1], match[2]
    if match[3] != b"1" or match[4] not in b"01":
        return message.fail("version")
    message.minor = int(match[4])  # one ASCII digit
    if not _read_fields(message, lines[1:]) or not _check_host(message) or not _read_framing(message):
        return message
    message.head_read = True
    return _read_body(message, data, end, ends=False)


def read_response(data: bytes, at: int, method: bytes, *, eof: bool, upgrade: bytes = b"") -> Message:
    """Read one final response to `method` with the interim ones before it; `eof`: the stream ended well there.

    `upgrade` is the protocol that the request asked for, if any: where a 101 grants it, the rest is the tunnel's.
    """
    interim: list[Message] = []
    while True:
        message = Message(at=at, interim=interim)
        lines, end = _head_lines(data, at)
        if lines is None:
            message.state = INCOMPLETE
            return message
        match = _status_line(lines[0])
        if match is None or match[1] != b"1" or match[2] not in b"01":
            return message.fail("status line")
        message.start = lines[0]
        message.minor = int(match[2])  # one ASCII digit
        message.status = int(match[3])  # three ASCII digits
        if message.status < 100:
            return message.fail("status code")
        if match[4] is None:
            message.odd = "a status line without its second space"
        elif message.status >= 600:
            message.odd = UNKNOWN_STATUS
        if not _read_fields(message, lines[1:]):
            return message
        if not 100 <= message.status < 200:
            break
        if message.values(b"transfer-encoding") or message.values(b"content-length"):
            message.odd = (
                "framing fields of an interim response"  # RFC 9110 section 8.6, RFC 9112 section 6.1
            )
        if message.status == 101:
            message.odd = message.odd or next((one.odd for one in interim if one.odd), "")
            return _read_tunnel(message, data, end, upgrade, ends=eof)
        interim.append(message)
        at = end
    if not _read_framing(message):
        return message
    message.head_read = True
    if any(one.odd for one in interim):
        message.odd = "framing fields of an interim response"
    bodiless = message.status in (204, 304)
    if bodiless and (message.framing == "chunked" or (message.framing == "length" and message.status == 204)):
        message.odd = "framing fields of a response without a body"
    if method == b"HEAD" or bodiless:
        message.framing = "none"
    elif message.framing == "none":
        message.framing = "close"
    return _read_body(message, data, end, ends=eof)


def _read_tunnel(message: Message, data: bytes, at: int, upgrade: bytes, *, ends: bool) -> Message:
    """RFC 9110 section 7.8: a 101 switches to the protocol that was asked for, and has no body."""
    if not upgrade or message.minor == 0:
        return message.fail("an upgrade that nobody asked for")
    if [value.lower() for value in message.values(b"upgrade")] != [
        upgrade
    ] or b"upgrade" not in message.options():
        return message.fail("an upgrade to something else, or to nothing")
    if message.values(b"transfer-encoding") or message.values(b"content-length"):
        return message.fail("an upgrade with a body")
    message.head_read = True
    message.framing = "tunnel"
    message.body = data[at:]
    message.end = len(data)
    message.state = COMPLETE if ends else INCOMPLETE
    return message


def _head_lines(data: bytes, at: int) -> tuple[list[bytes] | None, int]:
    end = data.find(b"\r\n\r\n", at)
    if end == -1:
        return None, len(data)
    return data[at:end].split(b"\r\n"), end + 4


def _read_fields(message: Message, lines: list[bytes]) -> bool:
    for line in lines:
        match = _field_line(line)
        if match is None:
            message.fail("field line")
            return False
        message.fields.append((match[1].lower(), match[2]))
        if match[1].lower() == b"transfer-encoding" and line.endswith((b" ", b"\t")):
            message.odd = "white space behind a transfer coding"
    return True


def _check_host(message: Message) -> bool:
    """RFC 9112 section 3.2."""
    hosts = message.values(b"host")
    if len(hosts) > 1 or (not hosts and message.minor == 1):
        message.fail("no Host, or several")
        return False
    if hosts and _host(hosts[0]) is None:
        message.fail("Host value")
        return False
    return True


def _read_framing(message: Message) -> bool:
    """RFC 9112 section 6.3."""
    lengths = message.values(b"content-length")
    codings = message.values(b"transfer-encoding")
    if codings:
        if lengths:
            message.fail("Content-Length and Transfer-Encoding")
        elif message.minor == 0:
            message.fail("Transfer-Encoding in HTTP/1.0")
        elif len(codings) > 1 or codings[0].lower() != b"chunked":
            message.fail("a transfer coding that is not chunked")
        else:
            message.framing = "chunked"
            return True
        return False
    if lengths:
        if len(lengths) > 1 or _digits(lengths[0]) is None or len(lengths[0]) > _MOST_DIGITS:
            message.fail("Content-Length")
            return False
        message.framing = "length"
    return True


def _read_body(message: Message, data: bytes, at: int, *, ends: bool) -> Message:
    if message.framing == "chunked":
        return _read_chunked(message, data, at)
    if message.framing == "close":
        message.body = data[at:]
        message.end = len(data)
        message.state = COMPLETE if ends else INCOMPLETE
        return message
    size = int(message.values(b"content-length")[0]) if message.framing == "length" else 0
    message.body = data[at : at + size]
    message.end = at + size
    message.state = COMPLETE if message.end <= len(data) else INCOMPLETE
    return message


def _read_chunked(message: Message, data: bytes, at: int) -> Message:
    """RFC 9112 section 7.1."""
    message.state = INCOMPLETE
    pieces: list[bytes] = []
    while True:
        line, at = _line(message, data, at)
        if line is None:
            break
        match = _chunk_line(line)
        if match is None or len(match[1]) > _MOST_DIGITS - 3:
            message.fail("chunk size")
            break
        if len(line) > 1_000:
            message.odd = "a very long chunk line"
        size = int(match[1], 16)  # ASCII hex digits
        if size == 0:
            _read_trailers(message, data, at)
            break
        pieces.append(data[at : at + size])
        at += size
        if not b"\r\n".startswith(data[at : at + 2]):
            message.fail("no line end behind a chunk")
            break
        if len(data) < at + 2:
            break
        at += 2
    message.body = b"".join(pieces)
    return message


def _read_trailers(message: Message, data: bytes, at: int) -> None:
    while True:
        line, at = _line(message, data, at)
        if line is None:
            return
        if not line:
            message.state, message.end = COMPLETE, at
            return
        match = _field_line(line)
        if match is None:
            message.fail("trailer field")
            return
        message.trailers.append((match[1].lower(), match[2]))


def _line(message: Message, data: bytes, at: int) -> tuple[bytes | None, int]:
    """Return the line at `at` and where the next one begins; None where there is no whole line."""
    end = data.find(b"\n", at)
    if end == -1:
        return None, len(data)
    if end == at or data[end - 1] != 0x0D:
        message.fail("bare LF")
        return None, len(data)
    return data[at : end - 1], end + 1
