"""Cases: status lines, field names and values, line ends, sizes; and fields that are not for the client."""

from __future__ import annotations

from tests.attacks.responses_case import OK, TWO, Case, fields, good

_REST = b"\r\nContent-Length: 2\r\n\r\nok"


def _line(name: str, line: bytes) -> Case:
    return Case(f"status line: {name}", line + _REST)


def _good_line(name: str, line: bytes, status: int = 200, **more: object) -> Case:
    return good(f"status line: {name}", line + _REST, status=status, **more)


STATUS_LINES = [
    _good_line("no reason", b"HTTP/1.1 200 "),
    _good_line("no reason and no space", b"HTTP/1.1 200"),
    _good_line("a long reason", b"HTTP/1.1 200 " + b"a" * 2_000, lacks=(b"aaa",)),
    _good_line("a reason of UTF-8", "HTTP/1.1 200 D'accord, ça va".encode()),
    _good_line("a reason of Latin-1", b"HTTP/1.1 200 \xc4\xff", lacks=(b"\xc4",)),
    _good_line("a reason with tabs and two spaces", b"HTTP/1.1 200  O\tK"),
    _good_line("HTTP/1.0", b"HTTP/1.0 200 OK", reused=False),
    _good_line("code 299", b"HTTP/1.1 299 Odd", status=299),
    _good_line("code 418", b"HTTP/1.1 418 I'm a teapot", status=418),
    _good_line("code 599", b"HTTP/1.1 599 X", status=599),
    _good_line("code 600", b"HTTP/1.1 600 X", status=600),
    _good_line("code 999", b"HTTP/1.1 999 Request denied", status=999),
    _line("HTTP/2.0", b"HTTP/2.0 200 OK"),
    _line("HTTP/2", b"HTTP/2 200 OK"),
    _line("HTTP/3.0", b"HTTP/3.0 200 OK"),
    _line("HTTP/1.2", b"HTTP/1.2 200 OK"),
    _line("HTTP/1.9", b"HTTP/1.9 200 OK"),
    _line("HTTP/0.9", b"HTTP/0.9 200 OK"),
    _line("HTTP/1.10", b"HTTP/1.10 200 OK"),
    _line("HTTP/01.1", b"HTTP/01.1 200 OK"),
    _line("HTTP/1.", b"HTTP/1. 200 OK"),
    _line("HTTP/1", b"HTTP/1 200 OK"),
    _line("HTTP/1,1", b"HTTP/1,1 200 OK"),
    _line("http/1.1", b"http/1.1 200 OK"),
    _line("Http/1.1", b"Http/1.1 200 OK"),
    _line("HTTPS/1.1", b"HTTPS/1.1 200 OK"),
    _line("RTSP/1.0", b"RTSP/1.0 200 OK"),
    _line("ICE/1.0", b"ICE/1.0 200 OK"),
    _line("ICY", b"ICY 200 OK"),
    _line("SIP/2.0", b"SIP/2.0 200 OK"),
    _line("no version", b"200 OK"),
    _line("no code", b"HTTP/1.1 OK"),
    _line("nothing behind the version", b"HTTP/1.1"),
    _line("a space and nothing behind the version", b"HTTP/1.1 "),
    _line("a code of no digits", b"HTTP/1.1 abc OK"),
    _line("a code of one digit", b"HTTP/1.1 2 OK"),
    _line("a code of two digits", b"HTTP/1.1 20 OK"),
    _line("a code of four digits", b"HTTP/1.1 2000 OK"),
    _line("a code of four digits and no reason", b"HTTP/1.1 2000"),
    _line("code 1000", b"HTTP/1.1 1000 OK"),
    _line("code 099", b"HTTP/1.1 099 OK"),
    _line("code 000", b"HTTP/1.1 000 OK"),
    _line("code 0200", b"HTTP/1.1 0200 OK"),
    _line("a code with plus", b"HTTP/1.1 +200 OK"),
    _line("a code with minus", b"HTTP/1.1 -200 OK"),
    _line("a hexadecimal code", b"HTTP/1.1 0xC OK"),
    _line("a fraction", b"HTTP/1.1 20.0 OK"),
    _line("a code of Arabic digits", "HTTP/1.1 \u0662\u0660\u0660 OK".encode()),
    _line("a code that runs into its reason", b"HTTP/1.1 200OK"),
    _line("two spaces before the code", b"HTTP/1.1  200 OK"),
    _line("a tab before the code", b"HTTP/1.1\t200 OK"),
    _line("a tab behind the code", b"HTTP/1.1 200\tOK"),
    _line("a space before the version", b" HTTP/1.1 200 OK"),
    _line("an empty line before it", b"\r\nHTTP/1.1 200 OK"),
    _line("a bare LF before it", b"\nHTTP/1.1 200 OK"),
    _line("a BOM before it", b"\xef\xbb\xbfHTTP/1.1 200 OK"),
    _line("a NUL before it", b"\x00HTTP/1.1 200 OK"),
    _line("a NUL in the reason", b"HTTP/1.1 200 O\x00K"),
    _line("a control byte in the reason", b"HTTP/1.1 200 O\x01K"),
    _line("an escape in the reason", b"HTTP/1.1 200 \x1b[31m"),
    _line("DEL in the reason", b"HTTP/1.1 200 O\x7fK"),
    _line("a vertical tab in the reason", b"HTTP/1.1 200 \x0bOK"),
    _line("a form feed alone as the reason", b"HTTP/1.1 200 \x0c"),
    _line("a bare CR in the reason", b"HTTP/1.1 200 O\rK"),
    _line("twice", b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK"),
    _line("a request line", b"GET / HTTP/1.1\r\nHost: a"),
    _line("a folded one", b"HTTP/1.1 200 OK\r\n more"),
    Case("status line: its body alone, as HTTP/0.9 has it", b"<html>hello</html>\r\n", then="close"),
    Case("status line: its body alone, long, as HTTP/0.9 has it", b"<html>" * 10_000, then="close"),
    Case("status line: only it, then the end", OK, then="close"),
    Case("status line: another protocol's greeting", b"SSH-2.0-OpenSSH_9.2\r\n"),
    Case("status line: SMTP's greeting", b"220 mail.example ESMTP\r\n"),
    Case("status line: a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    Case("status line: an HTTP/2 settings frame", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    Case("status line: a kilobyte of zeros", b"\x00" * 1_024),
]

_BAD_IN_NAMES = bytes(range(0x21)) + b'"(),/;<=>?@[\\]{}\x7f\x80\xa0\xe9\xff'
_BAD_IN_VALUES = bytes(set(range(0x20)) - set(b"\t\n\r")) + b"\x7f"

NAMES = [
    *(
        Case(f"name with byte {byte:02x}", fields(b"X" + bytes((byte,)) + b"Y: 1", b"Content-Length: 2"))
        for byte in _BAD_IN_NAMES
    ),
    good("name of every sign it may have", fields(b"!#$%&'*+-.^_`|~09aZ: 1", b"Content-Length: 2"), has=(b"!#$%&'*+-.^_`|~09aZ: 1",)),
    good("name in other capitals", fields(b"x-aBc: 1", b"CONTENT-length: 2"), has=(b"x-aBc: 1",)),
    Case("name empty", fields(b": 1", b"Content-Length: 2")),
    Case("name missing", fields(b"1", b"Content-Length: 2")),
    Case("name without a colon before the end", fields(b"Content-Length: 2", b"X-A")),
    Case("name with a space before the colon", fields(b"X-A : 1", b"Content-Length: 2")),
    Case("name with a tab before the colon", fields(b"X-A\t: 1", b"Content-Length: 2")),
    Case("name behind a space, first", fields(b" X-A: 1", b"Content-Length: 2")),
    Case("name behind a tab, first", fields(b"\tX-A: 1", b"Content-Length: 2")),
    Case("name of UTF-8", fields("X-\u00c4: 1".encode(), b"Content-Length: 2")),
]  # fmt: skip

VALUES = [
    *(
        Case(f"value with byte {byte:02x}", fields(b"X-A: 1" + bytes((byte,)) + b"2", b"Content-Length: 2"))
        for byte in _BAD_IN_VALUES
    ),
    Case("value with a bare CR", fields(b"X-A: 1\r2", b"Content-Length: 2")),
    Case("value with a bare LF", fields(b"X-A: 1\n2: 3", b"Content-Length: 2")),
    Case("value that ends in CR CR LF", fields(b"X-A: 1\r", b"Content-Length: 2")),
    Case("value folded with a space", fields(b"X-A: 1\r\n 2", b"Content-Length: 2")),
    Case("value folded with a tab", fields(b"X-A: 1\r\n\t2", b"Content-Length: 2")),
    Case("value folded, empty at first", fields(b"X-A:\r\n 2", b"Content-Length: 2")),
    Case("value folded, last", fields(b"Content-Length: 2", b"X-A: 1\r\n 2")),
    Case("value folded to nothing", fields(b"X-A: 1\r\n ", b"Content-Length: 2")),
    good("value with tabs and spaces inside", fields(b"X-A: 1 \t 2", b"Content-Length: 2"), has=(b"X-A: 1 \t 2",)),
    good("value of high bytes", fields(b"X-A: \x80\xe9\xff", b"Content-Length: 2"), has=(b"X-A: \x80\xe9\xff",)),
    good("value of UTF-8", fields("X-A: grün".encode(), b"Content-Length: 2"), has=("X-A: grün".encode(),)),
    good("value empty", fields(b"X-A:", b"X-B: ", b"Content-Length: 2"), has=(b"X-A:", b"X-B:")),
    good("value with colons", fields(b"X-A:: a: b:", b"Content-Length: 2"), has=(b"X-A:: a: b:",)),
    good("value of 8,000 bytes", fields(b"X-A: " + b"a" * 8_000, b"Content-Length: 2"), has=(b"X-A: " + b"a" * 8_000,)),
    good("value with an encoded line end", fields(b"Location: /%0d%0aSet-Cookie:%20a=b", b"Content-Length: 2"), has=(b"Location: /%0d%0aSet-Cookie:%20a=b",)),
]  # fmt: skip

LINE_ENDS = [
    Case("line ends: all bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    Case("line ends: all bare LF, then the end", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", then="close"),
    Case("line ends: LF behind the status line", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok"),
    Case("line ends: LF behind a field", b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok"),
    Case("line ends: LF for the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
    Case("line ends: CR for the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\rok"),
    Case("line ends: all bare CR", b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok"),
    Case("line ends: CR CR LF", b"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok"),
    Case("line ends: LF CR", b"HTTP/1.1 200 OK\n\rContent-Length: 2\n\r\n\rok"),
    Case("line ends: a line of one space", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n \r\n\r\nok"),
    good(
        "line ends: none of Unicode's",
        "HTTP/1.1 200 OK\u2028Content-Length: 1\r\n\r\nok".encode(),
        then="close",
        reused=False,
        lacks=(b"Content-Length",),
    ),
]

SIZES = [
    good("size: 100 fields", fields(*[b"X-A: 1"] * 99, b"Content-Length: 2")),
    Case("size: 101 fields", fields(*[b"X-A: 1"] * 100, b"Content-Length: 2")),
    Case("size: 8,000 fields of two bytes", fields(*[b"a:"] * 8_000, b"Content-Length: 2")),
    Case("size: a head over 32 KiB", fields(b"X-A: " + b"a" * 33_000, b"Content-Length: 2")),
    Case("size: a head over 32 KiB in many fields", fields(*[b"X-A: " + b"a" * 500] * 90, b"Content-Length: 2")),
    Case("size: a name over 32 KiB", fields(b"a" * 33_000 + b": 1", b"Content-Length: 2")),
    Case("size: a reason over 32 KiB", b"HTTP/1.1 200 " + b"a" * 33_000 + b"\r\n\r\n"),
    Case("size: a head without an end", OK + b"X-A: " + b"a" * 40_000),
    Case("size: a status line without an end", b"HTTP/1.1 200 " + b"a" * 40_000),
    Case("size: fields without an end", OK + b"X-A: 1\r\n" * 5_000),
    Case("size: a head without an end, in pieces", (OK, *[b"X-A: " + b"a" * 1_000 + b"\r\n"] * 40)),
]  # fmt: skip

_HOP = (
    b"Keep-Alive: timeout=9",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authenticate: Basic",
    b"Proxy-Authentication-Info: a=b",
    b"Proxy-Authorization: Basic eDp5",
    b"TE: trailers",
    b"Trailer: X-T",
    b"Upgrade: h2c",
)

FIELDS = [
    *(
        good(f"field {line.partition(b':')[0].decode()} stays behind", fields(line, b"X-Stay: 1", b"Content-Length: 2"), has=(b"X-Stay: 1",), lacks=(b"\r\n" + line.partition(b":")[0] + b":",))
        for line in _HOP
    ),
    good("field that Connection names", fields(b"Connection: x-hop", b"X-Hop: 1", b"Content-Length: 2"), lacks=(b"x-hop", b"connection: x")),
    good("field that Connection names later", fields(b"X-Hop: 1", b"Connection: keep-alive, X-Hop", b"Content-Length: 2"), lacks=(b"x-hop", b"connection:")),
    good("fields that two Connections name", fields(b"Connection: X-A", b"X-A: 1", b"Connection: X-B", b"X-B: 1", b"Content-Length: 2"), lacks=(b"x-a", b"x-b")),
    good("Connection names the length", fields(b"Connection: content-length", b"Content-Length: 2"), has=(b"Content-Length: 2",)),
    good("Connection names Set-Cookie", fields(b"Connection: set-cookie", b"Set-Cookie: a=b", b"Content-Length: 2"), has=(b"Set-Cookie: a=b",)),
    good("Connection names Via and X-Request-ID", fields(b"Connection: via, x-request-id, date", b"Content-Length: 2"), has=(b"Via: 1.1 authgate", b"X-Request-ID: ", b"Date: ")),
    good("Connection says close", fields(b"Connection: close", b"Content-Length: 2"), reused=False, lacks=(b"connection: close",)),
    good("Connection says Close in a list", fields(b"Connection: x-a ,\tClose", b"Content-Length: 2"), reused=False),
    good("Connection says close and keep-alive", fields(b"Connection: keep-alive", b"Connection: close", b"Content-Length: 2"), reused=False),
    good("Connection is empty", fields(b"Connection:", b"Connection: ,,", b"Content-Length: 2"), lacks=(b"connection:",)),
    good("X-Request-ID of the backend's", fields(b"X-Request-ID: forged", b"x-request-id: twice", b"Content-Length: 2"), lacks=(b"forged", b"twice")),
    good("Via of the backend's", fields(b"Via: 1.1 cache", b"Content-Length: 2"), has=(b"Via: 1.1 cache", b"Via: 1.1 authgate")),
    good("Date missing", fields(b"Content-Length: 2"), has=(b"Date: ",)),
    good("Date given", fields(b"Date: Tue, 15 Nov 1994 08:12:31 GMT", b"Content-Length: 2"), has=(b"Date: Tue, 15 Nov 1994 08:12:31 GMT",)),
    good("Set-Cookie several times, in order", fields(b"Set-Cookie: a=1", b"X: 1", b"Set-Cookie: b=2", b"Content-Length: 2"), has=(b"Set-Cookie: a=1\r\nX: 1\r\nSet-Cookie: b=2",)),
    good("Set-Cookie of the gateway's own name", fields(b"Set-Cookie: AUTHGATE_BFF_SESSION=x; Domain=test", b"set-cookie: =AUTHGATE_BFF_LOGIN_1=x", b"Set-Cookie: a=1", b"Content-Length: 2"), has=(b"Set-Cookie: a=1",), lacks=(b"AUTHGATE_BFF",)),
    good("Set-Cookie of the gateway's own name in an interim answer", b"HTTP/1.1 103 X\r\nSet-Cookie: AUTHGATE_BFF_SESSION=x\r\n\r\n" + TWO, interim=(103,), lacks=(b"AUTHGATE_BFF",)),
    good("a problem of the backend's own", b"HTTP/1.1 500 X\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}", b"{}", status=500, has=(b"application/problem+json",)),
    good("a 401 with its challenge", b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nok", status=401, has=(b"WWW-Authenticate: Basic realm=x",)),
    good("a 407 without its challenge", b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nok", status=407, lacks=(b"proxy-authenticate",)),
    good("in one piece behind an honest one", TWO),
]  # fmt: skip

HONEST = [
    good("honest: nginx", b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.0\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\nConnection: keep-alive\r\nETag: \"662a\"\r\nAccept-Ranges: bytes\r\n\r\nok"),
    good("honest: Node", b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\nETag: W/\"2-eCd\"\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nok"),
    good("honest: Node, chunked", b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    good("honest: Go", b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nok"),
    good("honest: gunicorn", b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\n\r\nok", then="close", reused=False),
    good("honest: Spring on Tomcat", b"HTTP/1.1 200 \r\nVary: Origin\r\nVary: Access-Control-Request-Method\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nKeep-Alive: timeout=60\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    good("honest: PHP's own server", b"HTTP/1.1 200 OK\r\nHost: a\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nConnection: close\r\nX-Powered-By: PHP/8.3.6\r\nContent-type: text/html; charset=UTF-8\r\n\r\nok", then="close", reused=False),
    good("honest: Python's http.server", b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-type: text/html; charset=utf-8\r\nContent-Length: 2\r\n\r\nok", then="close", reused=False),
    good("honest: uvicorn", b"HTTP/1.1 200 OK\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\nserver: uvicorn\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok"),
    good("honest: Apache", b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: Apache/2.4.59 (Unix)\r\nUpgrade: h2c\r\nConnection: Upgrade, Keep-Alive\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 2\r\n\r\nok", lacks=(b"upgrade",)),
    good("honest: Kestrel", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: Kestrel\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
]  # fmt: skip

CASES = [*STATUS_LINES, *NAMES, *VALUES, *LINE_ENDS, *SIZES, *FIELDS, *HONEST]
