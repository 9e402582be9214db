"""The origin that a browser sees, and the cookies that a backend may not set."""

from __future__ import annotations

import pytest

from authgate_fast.http.request import RequestHead
from authgate_fast.http.response import without_own_cookies
from authgate_fast.proxy.heads import ResponseReader

Fields = list[tuple[bytes, bytes]]


def origin(
    host: bytes, *fields: tuple[bytes, bytes], scheme: bytes = b"http", trusted: bool = False
) -> bytes | None:
    head = RequestHead(b"GET", b"/", 1, [(b"Host", host), *fields])
    assert head.read({}, frozenset()) is None
    return head.public_origin(scheme, trusted=trusted)


def test_the_name_in_an_origin_is_that_of_the_host_that_it_is_of() -> None:
    fields = [(b"Host", b"Inner.test:81"), (b"X-Forwarded-Host", b" Shop.TEST.:8080 ")]
    head = RequestHead(b"GET", b"/", 1, fields)
    assert head.read({}, frozenset()) is None
    assert (head.public_name(trusted=True), head.public_name(trusted=False)) == (b"shop.test", b"inner.test")
    assert head.public_origin(b"http", trusted=True) == b"http://shop.test.:8080"


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        (b"shop.test", b"http", b"http://shop.test"),
        (b"Shop.TEST", b"https", b"https://shop.test"),
        (b"shop.test:8080", b"http", b"http://shop.test:8080"),
        (b"shop.test:80", b"http", b"http://shop.test"),
        (b"shop.test:443", b"https", b"https://shop.test"),
        (b"shop.test:80", b"https", b"https://shop.test:80"),
        (b"[::1]:8080", b"http", b"http://[::1]:8080"),
        (b"shop test", b"http", None),
        (b"", b"http", None),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(
    host: bytes, scheme: bytes, expected: bytes | None
) -> None:
    assert origin(host, scheme=scheme) == expected


PROTO, HOST = b"X-Forwarded-Proto", b"X-Forwarded-Host"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(PROTO, b"https")], b"https://inner"),
        ([(PROTO, b"https"), (HOST, b"shop.test")], b"https://shop.test"),
        ([(PROTO, b"https"), (HOST, b"shop.test:443")], b"https://shop.test"),
        ([(HOST, b"shop.test")], b"http://shop.test"),
        ([(PROTO, b"https, http")], None),
        ([(PROTO, b"https"), (PROTO, b"https")], None),
        ([(PROTO, b"wss")], None),
        ([(PROTO, b"")], None),
        ([(HOST, b"shop.test, evil.test")], None),
        ([(HOST, b"evil.test/")], None),
        ([(HOST, b"")], None),
    ],
)
def test_only_a_trusted_proxy_tells_another_origin(fields: Fields, expected: bytes | None) -> None:
    assert origin(b"inner", *fields, trusted=True) == expected
    assert origin(b"inner", *fields, trusted=False) == b"http://inner"


S = b"AUTHGATE_BFF_SESSION=x"


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: " + S,
        b"set-cookie: " + S + b"; Path=/; Domain=shop.test",
        b"SET-COOKIE:" + S,
        b"Set-Cookie: \t " + S,
        b"Set-Cookie: =" + S,
        b"Set-Cookie: = " + S,
        b"Set-Cookie: AUTHGATE_BFF_SESSION =x",
        b"Set-Cookie: AUTHGATE_BFF_SESSION",
        b"Set-Cookie: AUTHGATE_BFF_LOGIN_0123456789abcdef=x; Path=/bff/callback",
    ],
)
def test_a_backend_sets_no_cookie_of_ours(line: bytes) -> None:
    assert without_own_cookies(b"\r\nA: b\r\n%b\r\nC: d\r\n" % line) == b"\r\nA: b\r\nC: d\r\n"
    assert without_own_cookies(b"\r\n%b\r\n" % line) == b"\r\n"
    assert without_own_cookies(b"\r\n%b\r\n%b\r\n" % (line, line)) == b"\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: a=" + S,
        b"Set-Cookie: XAUTHGATE_BFF_SESSION=x",
        b"X-Cookie: " + S,
        b"Set-Cookie2: " + S,
        b"Set-Cookie: a=b; c=" + S,
    ],
)
def test_its_other_lines_stay(line: bytes) -> None:
    block = b"\r\nA: b\r\n%b\r\n" % line
    assert without_own_cookies(block) == block


@pytest.mark.parametrize(
    "line",
    [b"Set-Cookie: a\r\n " + S, b"Set-Cookie:\r\n\t" + S, b"Set-Cookie : " + S, b"Set-Cookie: \x0b" + S],
)
def test_forms_that_browsers_might_read_otherwise_never_get_here(line: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % line
    assert isinstance(ResponseReader().read(data, len(data), 100), str)
