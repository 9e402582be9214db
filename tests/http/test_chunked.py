"""The chunked coding: what is accepted, to the byte, and how it is read whatever the cuts."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authgate_fast.http.chunked import (
    LAST_CHUNK,
    MAX_LINE_BYTES,
    MAX_OVERHEAD_BYTES,
    MAX_RESPONSE_OVERHEAD_BYTES,
    MAX_TRAILER_BYTES,
    ChunkedDecoder,
    FramingError,
    encode_chunk,
    encode_pieces,
)
from tests.http.second_opinion import read_chunked


def decode(*parts: bytes) -> tuple[bytes, int, bool]:
    """Feed `parts` one by one; return the body, the bytes of the message, and whether it ended."""
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []
    used = 0
    for part in parts:
        if decoder.done:
            break
        taken = decoder.feed(part, pieces)
        assert taken == len(part) or decoder.done
        used += taken
    assert all(pieces), "no empty pieces: an empty chunk would end the message for the backend"
    return b"".join(pieces), used, decoder.done


def outcome(*parts: bytes) -> tuple[bytes, int, bool] | None:
    """Like `decode`, or None where it is refused."""
    try:
        return decode(*parts)
    except FramingError:
        return None


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


GOOD: dict[bytes, bytes] = {
    b"0\r\n\r\n": b"",
    b"000\r\n\r\n": b"",
    b"5\r\nhello\r\n0\r\n\r\n": b"hello",
    b"05\r\nhello\r\n00\r\n\r\n": b"hello",
    b"000000000000005\r\nhello\r\n0\r\n\r\n": b"hello",
    b"a\r\n0123456789\r\n0\r\n\r\n": b"0123456789",
    b"A\r\n0123456789\r\n0\r\n\r\n": b"0123456789",
    b"2\r\n\r\n\r\n0\r\n\r\n": b"\r\n",
    b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n": b"0\r\n\r\n\r\n",
    b"1;a\r\nx\r\n0\r\n\r\n": b"x",
    b"1;a=b\r\nx\r\n0;c\r\n\r\n": b"x",
    b"1;a=b;c;d=e\r\nx\r\n0\r\n\r\n": b"x",
    b'1;a="b;c\\"d\t"\r\nx\r\n0\r\n\r\n': b"x",
    b'1;a=""\r\nx\r\n0\r\n\r\n': b"x",
    b"1\r\nx\r\n0\r\nX-A: 1\r\n\r\n": b"x",
    b"1\r\nx\r\n0\r\nX-A: 1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n": b"x",
    b"1\r\nx\r\n0\r\nX-A:\r\n\r\n": b"x",
    b"1\r\nx\r\n0\r\nX-A: \xff\t\r\n\r\n": b"x",
}

BAD: dict[str, bytes] = {
    "size missing": b"\r\nx\r\n0\r\n\r\n",
    "size with plus (CVE-2022-24761)": b"+1\r\nx\r\n0\r\n\r\n",
    "size with minus": b"-1\r\nx\r\n0\r\n\r\n",
    "size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "size with underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "size with a letter": b"g\r\nx\r\n0\r\n\r\n",
    "size with leading space": b" 1\r\nx\r\n0\r\n\r\n",
    "size with trailing space": b"1 \r\nx\r\n0\r\n\r\n",
    "size with trailing tab": b"1\t\r\nx\r\n0\r\n\r\n",
    "size in full-width digits": "\uff11".encode() + b"\r\nx\r\n0\r\n\r\n",
    "size of 16 digits": b"0000000000000001\r\nx\r\n0\r\n\r\n",
    "size that overflows": b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "size of empty line after data": b"1\r\nx\r\n\r\n0\r\n\r\n",
    "size line ends in LF": b"1\nx\r\n0\r\n\r\n",
    "size line ends in CR": b"1\rx\r\n0\r\n\r\n",
    "size line ends in CR CR LF": b"1\r\r\nx\r\n0\r\n\r\n",
    "size line with NUL": b"1\x00\r\nx\r\n0\r\n\r\n",
    "extension without name": b"1;\r\nx\r\n0\r\n\r\n",
    "extension without value": b"1;a=\r\nx\r\n0\r\n\r\n",
    "extension with bare CR": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "extension with LF (CVE-2024-52304)": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "extension with NUL": b"1;a\x00\r\nx\r\n0\r\n\r\n",
    "extension with open quote": b'1;a="b\r\nx\r\n0\r\n\r\n',
    "extension with LF in quotes": b'1;a="b\nc"\r\nx\r\n0\r\n\r\n',
    "extension with escaped LF in quotes": b'1;a="b\\\nc"\r\nx\r\n0\r\n\r\n',
    "extension not ASCII": b"1;\xe9\r\nx\r\n0\r\n\r\n",
    "extension behind a comma": b"1,a\r\nx\r\n0\r\n\r\n",
    "extension with trailing space": b"1;a \r\nx\r\n0\r\n\r\n",
    "data longer than its size": b"1\r\nxy\r\n0\r\n\r\n",
    "data shorter than its size": b"2\r\nx\r\n0\r\n\r\n",
    "data followed by LF": b"1\r\nx\n0\r\n\r\n",
    "data followed by CR": b"1\r\nx\r0\r\n\r\n",
    "data followed by two other bytes (CVE-2025-43859)": b"1\r\nxAB0\r\n\r\n",
    "data followed by the next size": b"1\r\nx0\r\n\r\n",
    "last chunk ended by LF": b"0\n\r\n",
    "message ended by LF": b"0\r\n\n",
    "message ended by CR and more": b"0\r\n\rX\r\n\r\n",
    "trailer without colon": b"0\r\nX-A\r\n\r\n",
    "trailer without name": b"0\r\n: 1\r\n\r\n",
    "trailer with space before the colon": b"0\r\nX-A : 1\r\n\r\n",
    "trailer with space before the name": b"0\r\n X-A: 1\r\n\r\n",
    "trailer folded": b"0\r\nX-A: 1\r\n 2\r\n\r\n",
    "trailer with NUL": b"0\r\nX-A: \x00\r\n\r\n",
    "trailer with CR": b"0\r\nX-A: 1\rX-B: 2\r\n\r\n",
    "trailer with DEL": b"0\r\nX-A: \x7f\r\n\r\n",
    "trailer ended by LF": b"0\r\nX-A: 1\nX-B: 2\r\n\r\n",
    "request in the trailer (CVE-2025-53643)": b"0\r\nGET /admin HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("message", GOOD)
def test_a_well_formed_message_gives_its_body_and_its_exact_end(message: bytes) -> None:
    for behind in (b"", b"G", b"\r\n", b"\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        assert decode(message + behind) == (GOOD[message], len(message), True)


@pytest.mark.parametrize("message", GOOD)
def test_cuts_change_nothing_in_a_good_message(message: bytes) -> None:
    expected = (GOOD[message], len(message), True)
    data = message + b"NEXT"
    assert decode(*one_by_one(data)) == expected
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert decode(data[:first], data[first:second], data[second:]) == expected


@pytest.mark.parametrize("message", GOOD)
def test_a_message_is_not_done_before_its_last_byte(message: bytes) -> None:
    for end in range(len(message)):
        body, used, done = decode(message[:end])
        assert (used, done) == (end, False)
        assert GOOD[message].startswith(body)


@pytest.mark.parametrize("name", BAD)
def test_broken_framing_is_refused_whatever_the_cuts(name: str) -> None:
    message = BAD[name]
    assert outcome(message) is None
    assert outcome(*one_by_one(message)) is None
    for at in range(1, len(message)):
        assert outcome(message[:at], message[at:]) is None


def test_chunk_data_is_not_waited_past_when_its_end_is_wrong() -> None:
    decoder = ChunkedDecoder()
    with pytest.raises(FramingError):
        decoder.feed(b"1\r\nxA", [])


# --- bounds ---------------------------------------------------------------------------------------------


def test_a_size_line_is_bounded_with_or_without_its_end() -> None:
    longest = b"1;" + b"a" * (MAX_LINE_BYTES - 4) + b"\r\n"
    assert len(longest) == MAX_LINE_BYTES
    assert decode(longest + b"x\r\n0\r\n\r\n")[2]
    too_long = b"1;" + b"a" * (MAX_LINE_BYTES - 3) + b"\r\n"
    assert outcome(too_long) is None
    assert outcome(*one_by_one(too_long)) is None
    assert outcome(b"1;" + b"a" * MAX_LINE_BYTES) is None


def test_the_trailer_section_is_bounded_as_a_whole() -> None:
    line = b"X: " + b"a" * 95 + b"\r\n"
    fits = MAX_TRAILER_BYTES // len(line)
    assert decode(b"0\r\n" + line * fits + b"\r\n")[2]
    assert outcome(b"0\r\n" + line * (fits + 1) + b"\r\n") is None
    assert outcome(b"0\r\n", *[line] * (fits + 1), b"\r\n") is None
    assert outcome(b"0\r\nX: " + b"a" * MAX_TRAILER_BYTES) is None
    assert outcome(b"0\r\n", *one_by_one(b"X: " + b"a" * MAX_TRAILER_BYTES)) is None


def test_a_flood_of_tiny_chunks_is_refused() -> None:
    tiny = b"1\r\nx\r\n"  # four bytes of framing beyond one for the body byte
    most = MAX_OVERHEAD_BYTES // 4
    assert decode(tiny * most)[0] == b"x" * most
    assert outcome(tiny * (most + 1)) is None


def test_a_backend_may_spend_more_on_framing_but_not_without_end() -> None:
    tiny = b"1\r\nx\r\n"
    most = MAX_RESPONSE_OVERHEAD_BYTES // 4
    decoder = ChunkedDecoder(MAX_RESPONSE_OVERHEAD_BYTES)
    decoder.feed(tiny * (MAX_OVERHEAD_BYTES // 4 + 1), [])
    assert most > 1_000_000, "an hour of an answer that is flushed word by word"
    small = ChunkedDecoder(40)
    small.feed(tiny * 10, [])
    with pytest.raises(FramingError):
        small.feed(tiny, [])


def test_extensions_count_as_overhead() -> None:
    padded = b"1;" + b"a" * 1_000 + b"\r\nx\r\n"
    assert outcome(padded * (MAX_OVERHEAD_BYTES // 1_000 + 1)) is None


def test_ordinary_chunks_pay_for_their_framing_for_ever() -> None:
    chunk = encode_chunk(b"x" * 16)
    assert decode(chunk * (MAX_OVERHEAD_BYTES // 4))[1] == len(chunk) * (MAX_OVERHEAD_BYTES // 4)


def test_one_big_chunk_does_not_buy_a_flood() -> None:
    tiny = b"1\r\nx\r\n"
    assert outcome(encode_chunk(b"x" * 1_000_000) + tiny * (MAX_OVERHEAD_BYTES // 4 + 1)) is None


def test_whole_chunks_in_one_read_are_passed_on_without_a_copy() -> None:
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []
    decoder.feed(b"100\r\n", pieces)
    data = b"x" * 100
    decoder.feed(data, pieces)
    assert pieces[0] is data


@pytest.mark.parametrize("pieces", [[b"a"], [b"a" * 16, b"b"], [b"\r\n", b"0\r\n\r\n"], [b"x" * 300] * 9])
def test_pieces_become_one_chunk(pieces: list[bytes]) -> None:
    assert encode_pieces(pieces) == encode_chunk(b"".join(pieces))


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_no_byte_is_no_chunk_for_an_empty_one_would_end_the_body(pieces: list[bytes]) -> None:
    assert encode_pieces(pieces) == b""


def test_after_the_end_nothing_is_taken() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(LAST_CHUNK, []) == len(LAST_CHUNK)
    assert decoder.feed(b"GET / HTTP/1.1\r\n", []) == 0


# --- a second opinion -----------------------------------------------------------------------------------

bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(bodies, st.lists(st.integers(0, 400), max_size=5))
def test_what_is_encoded_h11_reads_and_so_do_we(body: list[bytes], cuts: list[int]) -> None:
    message = b"".join(map(encode_chunk, body)) + LAST_CHUNK
    assert read_chunked(message) == b"".join(body)
    at = 0
    parts = []
    for cut in sorted(cut % (len(message) + 1) for cut in cuts):
        parts.append(message[at:cut])
        at = cut
    assert decode(*parts, message[at:] + b"NEXT") == (b"".join(body), len(message), True)


fragments = st.sampled_from(
    [
        b"0",
        b"1",
        b"2",
        b"a",
        b"5",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b";",
        b"=",
        b'"',
        b"x",
        b"xy",
        b" ",
        b"\t",
        b"\\",
        *(b"0\r\n\r\n", b"1\r\nx\r\n", b"X-A: 1\r\n", b":", b"\x00", b"\xff", b"-", b"+", b"_", b"0x"),
    ]
)
rubbish = st.lists(fragments, max_size=14).map(b"".join)
mutated = st.builds(
    lambda message, at, junk, drop: (
        message[: at % (len(message) + 1)] + junk + message[at % (len(message) + 1) + drop :]
    ),
    st.sampled_from([*GOOD, *BAD.values()]),
    st.integers(0, 200),
    fragments | st.just(b""),
    st.integers(0, 2),
)


@settings(max_examples=400)
@given(rubbish | mutated)
@example(b"1 ;a\r\nx\r\n0\r\n\r\n")
def test_whatever_we_accept_h11_reads_as_the_same_body(message: bytes) -> None:
    found = outcome(message)
    if found is None or not found[2]:
        return
    body, used, _ = found
    lowered = message.lower()
    if b"transfer-encoding" in lowered or b"content-length" in lowered:
        return  # a trailer field: we drop it, h11 judges its value
    # RFC 9112 section 7.1.1 has us take the white space around an extension; h11 does not know it.
    assert read_chunked(message[:used]) == body or b" ;" in message or b"\t;" in message


@settings(max_examples=300)
@given(rubbish | mutated, st.integers(0, 200), st.integers(0, 200))
def test_cuts_change_nothing_in_any_message(message: bytes, first: int, second: int) -> None:
    first, second = sorted((first % (len(message) + 1), second % (len(message) + 1)))
    whole = outcome(message)
    assert outcome(message[:first], message[first:second], message[second:]) == whole
    assert outcome(*one_by_one(message)) == whole
