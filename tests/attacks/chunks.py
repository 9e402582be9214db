"""The chunked coding: sizes, extensions, line ends, the last chunk, trailers (RFC 9112 section 7.1)."""

from __future__ import annotations

from tests.attacks.cases import IN_BODY, Cases, Refused, chunked, posted, show

_LAST = b"0\r\n\r\n"
_BAD_SIZES = [
    b"", b" ", b"+5", b"-5", b"-0", b"0x5", b"0X5", b"x5", b"5h", b"5_0", b"5.0", b"5 5", b" 5", b"\t5", b"5 ", b"5\t", b"5,", b"5:",
    b"05 ", b"g", b"5g", b'"5"', b"'5'", b"5e+0", b"5#", b"\x005", b"5\x00", b"\x0b5", b"5\x0b", b"5\x0c", b"5\xa0", b"\xb2", b"5\x7f",
    "\uff15".encode(), "\u0665".encode(), b"10000000000000005", b"00000000000000005", b"ffffffffffffffff", b"fffffffffffffffff",
    b"8000000000000000", b"%35", b"5\r", b"\r5", b";", b";a=b", b" ;a", b"[5]", b"0x", b"0o5", b"5L", b"5u", b"5h;a", b"5$", b"5/5",
]  # fmt: skip
_GOOD_EXTENSIONS = [
    b";a", b";a=b", b";a=b;c=d", b';a="b"', b';a="b;c\\"d"', b' ; a = b', b"\t;\ta", b";a=\"\"", b";a=b;c", b';a="\t"',
]  # fmt: skip
_BAD_EXTENSIONS = [
    b";", b"; ", b";;", b";a=", b";=b", b"; =", b";a b", b";a=b c", b';a="b', b';a=b"', b';a="b"c', b';a="b\\"', b";a=b,c", b"x", b" a", b"=a", b';a="\xff"',
    b";a=\x00", b';a="\x00"', b';a="\x01"', b';a="\x7f"', b";\x7f", b";\xe4", b";a=\xff", b";a(b)", b";a/b", b";a:b", b";a\x0b", b";a ", b" ",
    b';a="b\rc"', b";a\rb", b";a=b\r", b"\r", b";a;", b";a=b;",
]  # fmt: skip
_BAD_LINE_ENDS = [
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\x0b",
    b"\r\x00\n",
    b" \n",
    b"\n\n",
    b"\r\n\n",
    b"\x85",
    "\u2028".encode(),
]
_BAD_TRAILERS = [
    b"X", b" X: y", b"X : y", b": y", b"X: y\x00", b"X: y\rz", b"X: y\nZ: z", b"X\x00: y", b"X(y): z", b"X\xe4: y", b"X: \x01", b"X: \x7f",
    b"GET /p/smuggled HTTP/1.1", b"X: y\r\n folded", b"\tX: y", b"Content-Length", b"X y", b"\x0bX: y", b"{}: y", b'"X": y', b"X: \x1b", b"X: y\x0b",
]  # fmt: skip
_FORBIDDEN_TRAILERS = [  # RFC 9110 section 6.5.1: framing, routing and who is calling are never read from there
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: evil", b"X-Api-Key: agk_test", b"X-Consumer-Id: root", b"Authorization: Basic eA==",
    b"Cookie: a=b", b"Connection: close", b"Trailer: X", b"Expect: 100-continue", b"X-Forwarded-For: 6.6.6.6", b"Content-Encoding: gzip", b"TE: trailers",
    b"X-User-Id: root", b"X-Request-ID: mine", b"Upgrade: h2c",
]  # fmt: skip

CHUNKS: Cases = {
    **{f"chunk size {show(size)}": (chunked(size + b"\r\nhello\r\n" + _LAST), IN_BODY) for size in _BAD_SIZES},
    **{f"chunk extension {show(text)}": (chunked(b"5" + text + b"\r\nhello\r\n0" + text + b"\r\n\r\n"), posted(b"hello")) for text in _GOOD_EXTENSIONS},
    **{f"chunk extension {show(text)}": (chunked(b"5" + text + b"\r\nhello\r\n" + _LAST), IN_BODY) for text in _BAD_EXTENSIONS},
    **{f"last chunk with extension {show(text)}": (chunked(b"5\r\nhello\r\n0" + text + b"\r\n\r\n"), IN_BODY) for text in _BAD_EXTENSIONS},
    "chunk extension of too many bytes": (chunked(b"5;" + b"a" * 1_100 + b"\r\nhello\r\n" + _LAST), IN_BODY),
    "chunk extensions without end": (chunked(b"5" + b";a=b" * 20_000), IN_BODY),
    "chunk extension with a line feed in quotes": (chunked(b'5;a="b\nc"\r\nhello\r\n' + _LAST), IN_BODY),
    "chunk extension with CRLF in quotes": (chunked(b'5;a="b\r\nhello\r\n0\r\n\r\n'), IN_BODY),
    **{f"chunk size ended by {show(end)}": (chunked(b"5" + end + b"hello\r\n" + _LAST), IN_BODY) for end in _BAD_LINE_ENDS},
    **{f"chunk data ended by {show(end)}": (chunked(b"5\r\nhello" + end + _LAST), IN_BODY) for end in (*_BAD_LINE_ENDS, b"", b"X", b"XX", b"\rX", b" \r\n", b"\r\n\r\n")},
    **{f"last chunk ended by {show(end)}": (chunked(b"5\r\nhello\r\n0" + end + b"\r\n"), IN_BODY) for end in _BAD_LINE_ENDS if end != b"\r\n\n"},
    **{f"trailers ended by {show(end)}": (chunked(b"5\r\nhello\r\n0\r\nX: y\r\n" + end), IN_BODY) for end in (b"\n", b"\rX", b"\r\r\n", b"\n\r\n", b" \r\n", b"\x00\r\n")},
    **{f"trailer {show(line)}": (chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"), IN_BODY) for line in _BAD_TRAILERS},
    **{
        f"trailer {show(line)} means nothing": (chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"), posted(b"hello", lacks=(b"cookie", b"authorization", b"content-encoding", b"trailer")))
        for line in _FORBIDDEN_TRAILERS
    },
    "trailers, several": (chunked(b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\nD: \xe4\r\n\r\n"), posted(b"hello", lacks=(b"a", b"c", b"d"))),
    "trailers of too many bytes": (chunked(b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 2_000 + b"\r\n"), IN_BODY),
    "trailers, more than fields are allowed": (chunked(b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 101 + b"\r\n"), IN_BODY),
    "trailers, one of too many bytes": (chunked(b"5\r\nhello\r\n0\r\nA: " + b"b" * 9_000 + b"\r\n\r\n"), IN_BODY),
    "trailer announced": (chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"Trailer: X-Sum"), posted(b"hello", lacks=(b"trailer", b"x-sum"))),
    "chunk size with leading zeros": (chunked(b"0005\r\nhello\r\n" + _LAST), posted(b"hello")),
    "chunk size of 15 digits": (chunked(b"000000000000005\r\nhello\r\n" + _LAST), posted(b"hello")),
    "chunk size in capitals": (chunked(b"A\r\n0123456789\r\n" + _LAST), posted(b"0123456789")),
    "chunk size in small letters": (chunked(b"a\r\n0123456789\r\n" + _LAST), posted(b"0123456789")),
    "last chunk 00": (chunked(b"5\r\nhello\r\n00\r\n\r\n"), posted(b"hello")),
    "last chunk 000 with extension": (chunked(b"5\r\nhello\r\n000;a=b\r\n\r\n"), posted(b"hello")),
    "last chunk of 16 zeros": (chunked(b"5\r\nhello\r\n0000000000000000\r\n\r\n"), IN_BODY),
    "last chunk without its empty line": (chunked(b"5\r\nhello\r\n0\r\n"), IN_BODY),
    "last chunk without its line end": (chunked(b"5\r\nhello\r\n0"), IN_BODY),
    "no last chunk": (chunked(b"5\r\nhello\r\n"), IN_BODY),
    "chunk size too small": (chunked(b"3\r\nhello\r\n" + _LAST), IN_BODY),
    "chunk size too large by one": (chunked(b"6\r\nhello\r\n" + _LAST), IN_BODY),
    "chunk size too large by two": (chunked(b"7\r\nhello\r\n" + _LAST), IN_BODY),
    "chunk data that looks like the end": (chunked(b"5\r\n0\r\n\r\n\r\n" + _LAST), posted(b"0\r\n\r\n")),
    "chunk data that looks like a request": (chunked(b"25\r\nGET /p/smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n" + _LAST), posted(b"GET /p/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")),
    "chunk data with another byte behind it": (chunked(b"5\r\nhelloX"), Refused(in_body=True, at_once=True)),
    "chunk data with a CR and another byte behind it": (
        chunked(b"5\r\nhello\rX"),
        Refused(in_body=True, at_once=True),
    ),
    "two chunks": (chunked(b"2\r\nhe\r\n3\r\nllo\r\n" + _LAST), posted(b"hello")),
    "no chunk size at all": (chunked(b"\r\n" + _LAST), IN_BODY),
    "body that is not chunked": (chunked(b"hello"), IN_BODY),
    "body that is JSON": (chunked(b'{"a": 1}'), IN_BODY),
    "tiny chunks with more framing than data": (chunked(b"1;abcdefghijklm\r\nx\r\n" * 5_000 + _LAST), IN_BODY),
}  # fmt: skip
