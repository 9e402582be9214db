"""The request line and field lines as bytes: control bytes, line ends, folds, names, white space (RFC 9112 2 to 5)."""

from __future__ import annotations

from tests.attacks.cases import (
    INVALID_PATH,
    NOT_IMPLEMENTED,
    REFUSED,
    VERSION,
    Cases,
    Forwarded,
    Refused,
    get,
    head,
    show,
)

_CONTROLS = [bytes((byte,)) for byte in (*range(0x09), *range(0x0A, 0x20), 0x7F)]
_HIGH = [b"\x80", b"\x85", b"\xa0", b"\xad", b"\xff", "\u00e9".encode(), "\u212a".encode(), b"\xc0\x8a"]
_BAD_IN_NAME = [*b'"(),/:;<=>?@[\\]{} \t'.decode()]
_GOOD_IN_NAME = [*"!#$%&'*+-^`|~0aZ"]
_HOST = b"Host: a"
_START = b"GET /p/a HTTP/1.1"

FIELDS: Cases = {
    **{f"value with byte {show(byte)}": (get(b"X-A: b" + byte + b"c"), REFUSED) for byte in _CONTROLS},
    **{f"value that begins with byte {show(byte)}": (get(b"X-A: " + byte + b"c"), REFUSED) for byte in _CONTROLS},
    **{f"value that ends in byte {show(byte)}": (get(b"X-A: c" + byte), REFUSED) for byte in _CONTROLS},
    **{f"name with byte {show(byte)}": (get(b"X" + byte + b"A: c"), REFUSED) for byte in (*_CONTROLS, *_HIGH)},
    **{f"name that begins with byte {show(byte)}": (get(byte + b"X-A: c"), REFUSED) for byte in (*_CONTROLS, *_HIGH)},
    **{f"name that ends in byte {show(byte)}": (get(b"X-A" + byte + b": c"), REFUSED) for byte in (*_CONTROLS, *_HIGH)},
    **{f"name with {char!r}": (get(f"X{char}A: b".encode()), REFUSED) for char in _BAD_IN_NAME if char != ":"},
    **{f"name that is {char!r}": (get(f"{char}: b".encode()), REFUSED) for char in _BAD_IN_NAME},
    **{f"name with {char!r}": (get(f"X{char}A: b".encode()), Forwarded(has=(f"X{char}A: b".encode(),))) for char in _GOOD_IN_NAME},
    **{f"value with {show(text)}": (get(b"X-A: b" + text + b"c"), Forwarded(has=(b"X-A: b" + text + b"c",))) for text in (b"\t", b"  ", b":", b'"', b"\\", *_HIGH[:6])},
    "value empty": (get(b"X-A:"), Forwarded(has=(b"X-A: ",))),
    "value of spaces": (get(b"X-A:   "), Forwarded(has=(b"X-A: ",))),
    "value between spaces": (get(b"X-A:   b c   "), Forwarded(has=(b"X-A: b c",))),
    "value between tabs": (get(b"X-A:\tb\tc\t"), Forwarded(has=(b"X-A: b\tc",))),
    "no space behind the colon": (get(b"X-A:b"), Forwarded(has=(b"X-A: b",))),
    "a field twice": (get(b"X-A: b", b"X-A: c"), Forwarded(has=(b"X-A: b", b"X-A: c"))),
    "name empty (CVE-2023-25725)": (get(b": b"), REFUSED),
    "name empty, value empty": (get(b":"), REFUSED),
    **{
        f"the field {show(name)} of HTTP/2": (get(name + b": evil"), REFUSED)
        for name in (b":authority", b":path", b":method", b":scheme", b":protocol")
    },
    "no colon": (get(b"X-A"), REFUSED),
    "no colon, a request line": (get(b"GET /p/smuggled HTTP/1.1"), REFUSED),
    "space before colon": (get(b"X-A : b"), REFUSED),
    "tab before colon": (get(b"X-A\t: b"), REFUSED),
    "fold by space": (get(b"X-A: b", b" c"), REFUSED),
    "fold by tab": (get(b"X-A: b", b"\tc"), REFUSED),
    "fold that is empty": (get(b"X-A: b", b" "), REFUSED),
    "fold of a field": (get(b"X-A: b", b" X-B: c"), REFUSED),
    "fold in the first field line": (head(_START, b" " + _HOST, _HOST), REFUSED),
    "fold by tab in the first field line": (head(_START, b"\t" + _HOST, _HOST), REFUSED),
    "fold of an empty first line": (head(_START, b" ", _HOST), REFUSED),
    "fold of Host": (head(_START, b"Host:", b" a"), REFUSED),
    "fold behind Host": (head(_START, b"Host: a", b" b"), REFUSED),
    "fold of a credential": (get(b"X-Api-Key:", b" agk_test"), REFUSED),
    "LF ends a field": (head(_START, _HOST, b"X-A: b\nX-B: c"), REFUSED),
    "CR ends a field": (head(_START, _HOST, b"X-A: b\rX-B: c"), REFUSED),
    "CR CR LF ends a field": (head(_START, _HOST, b"X-A: b\r", b"X-B: c"), REFUSED),
    "LF CR ends a field": (head(_START, _HOST, b"X-A: b\n\rX-B: c"), REFUSED),
    "LF ends the request line": (b"GET /p/a HTTP/1.1\nHost: a\r\n\r\n", REFUSED),
    "CR ends the request line": (b"GET /p/a HTTP/1.1\rHost: a\r\n\r\n", REFUSED),
    "LF ends every line": (b"GET /p/a HTTP/1.1\nHost: a\n\n", REFUSED),
    "CR ends every line": (b"GET /p/a HTTP/1.1\rHost: a\r\r", REFUSED),
    "LF LF in the middle": (b"GET /p/a HTTP/1.1\r\nHost: a\n\nX: y\r\n\r\n", REFUSED),
    "LF CRLF ends the head": (b"GET /p/a HTTP/1.1\r\nHost: a\n\r\n", REFUSED),
    "CRLF LF ends the head": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n\n", REFUSED),
    "CR LF CR X ends the head (CVE-2025-23167)": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n", REFUSED),
    "CR LF CR CR LF ends the head": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n\r\r\n", REFUSED),
    "the empty line has a space": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n \r\n\r\n", REFUSED),
    "the empty line has a NUL": (b"GET /p/a HTTP/1.1\r\nHost: a\r\n\x00\r\n\r\n", REFUSED),
    "CRLF encoded in a value is text": (get(b"X-A: %0d%0aX-B: c"), Forwarded(has=(b"X-A: %0d%0aX-B: c",))),
    "a line feed of another alphabet in a value is text": (get("X-A: \u560a\u010a".encode()), Forwarded(has=("X-A: \u560a\u010a".encode(),))),
}  # fmt: skip


def line(text: bytes) -> bytes:
    """Write a request with this request line."""
    return head(text, _HOST)


_VERSIONS = [
    b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/2", b"HTTP/3", b"HTTP/1", b"HTTP/0.0",
]  # fmt: skip
_NO_VERSIONS = [
    b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1.10", b"HTTP/11.1", b"HTTP/1.1.1", b"http/1.1", b"Http/1.1", b"HTTP/1,1", b"HTTP/1.", b"HTTP/.1", b"HTTP/", b"HTTP",
    b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTP/1. 1", b"HTTP1.1", b"HTTP//1.1", b"HTTP\\1.1", b"HTTP/1.1x", b"xHTTP/1.1", b"HTTPS/1.1", b"HTTP/a.b",
    b"HTTP/1.a", b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/1.-1", b"HTTP/1_1", b"HTTP/\xb9.1", "HTTP/\uff11.1".encode(), b"HTTP/1.1\x00", b"\x00HTTP/1.1",
    b"HTTP/1.1\x0b", b"HTTP/1.1\t", b"HTTP/1.1 ", b"HTTP/1.1  ", b"HTTP/1.1 X", b"HTTP/1.1 HTTP/1.1", b"HTTP/1.1;a=b", b"HTTP/1.1,", b"RTSP/1.0", b"RTSP/2.0",
    b"ICE/1.0", b"SIP/2.0", b"ICY/1.0", b"HTCPCP/1.0", b"FOO/1.1", b"h2c", b"1.1", b"HTTP/1.1\r", b"HTTP/4294967297.1", b"HTTP/1.4294967297",
]  # fmt: skip

START_LINES: Cases = {
    **{f"version {show(text)}": (line(b"GET /p/a " + text), Refused((505, 400))) for text in _VERSIONS},
    **{f"version {show(text)}": (line(b"GET /p/a " + text), REFUSED) for text in _NO_VERSIONS},
    "HTTP/0.9": (b"GET /p/a\r\n", REFUSED),
    "HTTP/0.9 with fields": (line(b"GET /p/a"), REFUSED),
    "HTTP/0.9 with a space": (line(b"GET /p/a "), REFUSED),
    "HTTP/0.9 with LF": (b"GET /p/a\n", REFUSED),
    "HTTP/0.9 POST": (line(b"POST /p/a"), REFUSED),
    "HTTP/1.0": (line(b"GET /p/a HTTP/1.0"), Forwarded(closes=True, has=(b"Via: 1.0 authgate",))),
    "HTTP/1.0 with keep-alive": (head(b"GET /p/a HTTP/1.0", _HOST, b"Connection: keep-alive"), Forwarded(closes=True)),
    "HTTP/1.0 without Host": (head(b"GET /p/a HTTP/1.0", b"X: y"), Forwarded(closes=True)),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
    "the preface of HTTP/2 with a frame": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", VERSION),
    "PRI on HTTP/1.1": (line(b"PRI * HTTP/1.1"), Refused((400, 501))),
    "PRI with a path": (line(b"PRI /p/a HTTP/1.1"), Refused((400, 501))),
    **{f"two separators {show(text)}": (line(text), REFUSED) for text in (
        b"GET  /p/a HTTP/1.1", b"GET /p/a  HTTP/1.1", b"GET\t/p/a HTTP/1.1", b"GET /p/a\tHTTP/1.1", b"GET \t/p/a HTTP/1.1", b"GET /p/a \tHTTP/1.1",
        b"GET\x0b/p/a HTTP/1.1", b"GET /p/a\x0bHTTP/1.1", b"GET\x0c/p/a HTTP/1.1", b"GET /p/a\x0cHTTP/1.1", b"GET\r/p/a HTTP/1.1", b"GET /p/a\rHTTP/1.1",
        b"GET\x00/p/a HTTP/1.1", b"GET /p/a\x00HTTP/1.1", b"GET\xa0/p/a HTTP/1.1", b"GET /p/a\xa0HTTP/1.1", b"GET\x1f/p/a HTTP/1.1", b"GET /p/a\x1fHTTP/1.1",
        b"GET /p/a /p/b HTTP/1.1", b"GET /p/a b HTTP/1.1", b"GET /p/a?b c HTTP/1.1", b"GET HTTP/1.1", b"GET /p/aHTTP/1.1", b"GET/p/a HTTP/1.1", b"GET", b"GET ",
        b" ", b"  HTTP/1.1", b"/p/a HTTP/1.1", b" /p/a HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1 200 OK", b":", b"Host: a",
    )},
    "a space before": (b" " + get(), REFUSED),
    "a tab before": (b"\t" + get(), REFUSED),
    "a NUL before": (b"\x00" + get(), REFUSED),
    "a byte order mark before": (b"\xef\xbb\xbf" + get(), REFUSED),
    "a CR before": (b"\r" + get(), REFUSED),
    "an LF before": (b"\n" + get(), REFUSED),
    "a CRLF and a space before": (b"\r\n " + get(), REFUSED),
    "a CRLF before": (b"\r\n" + get(), Forwarded()),
    "CRLFs before": (b"\r\n\r\n\r\n" + get(), Forwarded()),
    "a CRLF and an LF before": (b"\r\n\n" + get(), REFUSED),
    **{f"target with byte {show(byte)}": (get(target=b"/p/a" + byte + b"b"), REFUSED) for byte in (*_CONTROLS, b"\t")},
    **{f"query with byte {show(byte)}": (get(target=b"/p/a?b" + byte + b"c"), REFUSED) for byte in (*_CONTROLS, b"\t")},
    **{f"target with byte {show(byte)}": (get(target=b"/p/a" + byte + b"b"), Refused()) for byte in _HIGH},
    **{f"query with byte {show(byte)}": (get(target=b"/p/a?b=" + byte), Refused()) for byte in _HIGH},
    **{f"query with {char!r}": (get(target=f"/p/a?b={char}".encode()), Forwarded(f"GET /a?b={char} HTTP/1.1".encode())) for char in "\"'<>[]\\^`{|}%;:@,?/"},
    "query with #": (get(target=b"/p/a?b#c"), INVALID_PATH),
    "query empty": (get(target=b"/p/a?"), Forwarded(b"GET /a? HTTP/1.1")),
}  # fmt: skip

# llhttp knows the methods of RTSP and ICE too; some take them for HTTP.
_FOREIGN = (
    b"DESCRIBE", b"ANNOUNCE", b"SETUP", b"PLAY", b"PAUSE", b"TEARDOWN", b"GET_PARAMETER", b"SET_PARAMETER", b"REDIRECT", b"RECORD", b"FLUSH", b"SOURCE",
)  # fmt: skip
_ODD_METHODS = [
    b"get", b"Get", b"gET", b"GETT", b"GE", b"XGET", b"GET1", b"BREW", b"FOO", b"REBAR", b"TRACK", b"DEBUG", b"CONNECTX", b"HTTP", b"-", b"!", b"a",
    b"GET-", b"G" * 20,
]  # fmt: skip
_BAD_METHODS = [
    b"GET,POST", b"GET/", b"GET:", b"G@T", b"(GET)", b"[GET]", b'"GET"', b"G\x00T", b"\xc7ET", b"GET;", b"{}", b"<x>", b"G=T", b"?", b"GET\x7f", b"A" * 33,
    b"A" * 2_000,
]  # fmt: skip

METHODS: Cases = {
    **{f"method {show(method)} of RTSP": (head(method + b" /p/a RTSP/1.0", _HOST), REFUSED) for method in _FOREIGN},
    **{f"method {show(method)} of RTSP or ICE on HTTP/1.1": (get(method=method), Refused((400, 501))) for method in _FOREIGN},
    **{f"method {show(method)}": (get(method=method), NOT_IMPLEMENTED) for method in (*_ODD_METHODS, b"TRACE", b"CONNECT")},
    **{f"method {show(method)}": (get(method=method), Refused((400, 501))) for method in _BAD_METHODS},
    "method of 32 letters": (get(method=b"A" * 32), NOT_IMPLEMENTED),
    "method of 33 letters": (get(method=b"A" * 33), REFUSED),
    "ICE SOURCE": (head(b"SOURCE /p/a ICE/1.0", _HOST), REFUSED),
    "TRACE with Max-Forwards 0": (get(b"Max-Forwards: 0", method=b"TRACE"), NOT_IMPLEMENTED),
    **{f"method {show(method)} passes": (get(method=method), Forwarded(method + b" /a HTTP/1.1")) for method in (
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"REPORT", b"M-SEARCH", b"PURGE", b"QUERY",
    )},
}  # fmt: skip
