"""What a browser tells: navigations, where a request comes from, where it may be sent back to."""

from __future__ import annotations

from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth.browser import (
    MAX_RETURN_TO_BYTES,
    cross_site_problem,
    form_values,
    is_from_browser,
    is_navigation,
    is_page,
    login_location,
    safe_return_to,
)
from authgate_fast.http.request import RequestHead

ORIGIN = b"https://shop.test"


def head(*fields: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
    made = RequestHead(method, b"/x", 1, [(b"Host", b"shop.test"), *fields])
    assert made.read({}, frozenset()) is None
    return made


OPEN_REDIRECTS = [
    b"", b"//evil.test", b"///evil.test", b"/\\evil.test", b"\\\\evil.test", b"\\/evil.test", b"/\t/evil.test", b"/\n/evil.test",
    b"https://evil.test", b"https:evil.test", b"http:/evil.test", b"javascript:alert(1)", b"data:text/html,x", b"evil.test",
    b"@evil.test", b".evil.test", b"/%2fevil.test", b"/%2Fevil.test", b"/%5cevil.test", b"/%5C%5Cevil.test", b"%2f%2fevil.test",
    b"/%252fevil.test", b"/%25%35%63evil.test", b"/%09/evil.test", b"/%0d%0aSet-Cookie:a=b", b"/x%00", b"/x\x00", b"/x\r\nA: b", b"/x%7f",
    b"/x?a=%0d%0aSet-Cookie:a=b", b"/a//evil.test", b"/a/..//evil.test", b"/./x", b"/../x", b"/a/%2e%2E/b", b"/.", b"/..",
    b"/x y", b"/\xe9", b"/x%", b"/x%2", b"/x%zz", b"/bff", b"/bff/login", b"/bff/logout?x", b"/bff#x", b" /x", b"/x ", b"/<x>", b'/"x"',
    b"/[x]", b"/{x}", b"/^", b"/`", b"/|", b"?x", b"#x", b"/" + b"a" * MAX_RETURN_TO_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("text", OPEN_REDIRECTS)
def test_an_open_redirect_becomes_the_front_page(text: bytes) -> None:
    assert safe_return_to(text) == b"/"


@pytest.mark.parametrize(
    "text",
    [
        b"/", b"/cart", b"/cart/", b"/a/b.c/d-e_f~g", b"/a?b=c&d=e", b"/a?next=/b//c", b"/a?u=https://x.test/", b"/a#top", b"/a?b#c", b"/#/cart",
        b"/a%20b", b"/%C3%A9", b"/a?q=%2F%5C%25", b"/a:b@c,d;e=f!$&'()*+", b"/bffs", b"/bf", b"/...", b"/.well-known/x", b"/a?",
    ],
)  # fmt: skip
def test_a_path_on_this_origin_is_kept(text: bytes) -> None:
    assert safe_return_to(text) == text


@given(st.text(alphabet=st.sampled_from("/\\.%25fFcC:@?#ab\t\n \x00é;")).map(lambda text: "/" + text))
def test_whatever_is_accepted_stays_on_this_origin_for_every_reader(text: str) -> None:
    kept = safe_return_to(text.encode())
    for again in (kept.decode(), urljoin("https://shop.test/bff/callback", kept.decode())):
        parts = urlsplit(urljoin("https://shop.test/", again.replace("\\", "/")))
        assert (parts.scheme, parts.netloc) == ("https", "shop.test")
    assert safe_return_to(kept) == kept


def test_where_a_browser_wanted_to_go_survives_the_way_through_the_login() -> None:
    target = b"/a%20b/c?d=e%26f&g=h+i"
    location = login_location(target)
    assert location.startswith(b"/bff/login?return_to=/a%2520b/c%3F")
    assert all(0x21 <= byte < 0x7F for byte in location)
    values = form_values(location.partition(b"?")[2])
    assert values == {"return_to": [target.decode()]}
    assert parse_qs(location.partition(b"?")[2].decode()) == values


@pytest.mark.parametrize("target", [b"*", b"http://shop.test/x", b"//x", b"/bff/login", b"/" + b"a" * 3_000])
def test_a_target_that_is_no_safe_way_back_is_left_out(target: bytes) -> None:
    assert login_location(target) == b"/bff/login"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"Sec-Fetch-Mode", b"navigate")], True),
        ([(b"sec-fetch-mode", b"navigate"), (b"Accept", b"application/json")], True),
        ([(b"Sec-Fetch-Mode", b"cors"), (b"Accept", b"text/html")], False),
        ([(b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Mode", b"navigate")], False),
        ([(b"Sec-Fetch-Mode", b"")], False),
        ([], False),
        ([(b"Accept", b"*/*")], False),
        ([(b"Accept", b"application/json")], False),
        ([(b"Accept", b"application/json, text/html")], False),
        ([(b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")], True),
        ([(b"Accept", b"TEXT/HTML")], True),
        ([(b"Accept", b"application/json;q=0.5, text/html;q=0.6")], True),
        ([(b"Accept", b"text/html;q=0")], False),
        ([(b"Accept", b"text/html;q=2, */*;q=0.1")], False),
        ([(b"Accept", b"text/html;q=-1, */*;q=0.1")], False),
        ([(b"Accept", b"text/html"), (b"Accept", b"text/html")], False),
    ],
)
def test_a_person_is_told_from_a_script(fields: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_navigation(head(*fields)) is expected


FETCH = [b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((None, None, None), True), ((b"none", b"navigate", b"document"), True), ((b"cross-site", b"navigate", b"document"), True),
        ((None, b"navigate", None), True), ((b"same-origin", b"same-origin", b"empty"), True), ((b"same-origin", b"navigate", b"iframe"), True),
        ((b"cross-site", b"no-cors", b"image"), False), ((b"cross-site", b"navigate", b"iframe"), False),
        ((b"same-site", b"cors", b"empty"), False), ((b"cross-site", b"no-cors", None), False), ((None, b"no-cors", None), False),
        ((b"cross-site", None, b"script"), False),
    ],
)  # fmt: skip
def test_another_sites_images_scripts_and_frames_are_no_pages(
    values: tuple[bytes | None, ...], expected: bool
) -> None:
    fields = [(name, value) for name, value in zip(FETCH, values, strict=True) if value is not None]
    assert is_page(head(*fields)) is expected


def test_what_a_page_posts_is_told_from_what_a_server_posts() -> None:
    assert not is_from_browser(head((b"Content-Type", b"text/plain"), method=b"POST"))
    for field in (
        (b"Origin", b"null"),
        (b"Origin", b"https://shop.test"),
        (b"Sec-Fetch-Site", b"same-origin"),
    ):
        assert is_from_browser(head(field, method=b"POST"))


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"PUT", b"get"])
def test_only_a_get_is_a_navigation(method: bytes) -> None:
    assert not is_navigation(head((b"Sec-Fetch-Mode", b"navigate"), (b"Accept", b"text/html"), method=method))


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Sec-Fetch-Site", b"same-origin")],
        [(b"SEC-FETCH-SITE", b"same-origin"), (b"Origin", b"https://evil.test")],
        [(b"Origin", b"https://shop.test")],
        [(b"origin", b"HTTPS://Shop.Test")],
    ],
)
def test_this_sites_own_pages_may_change_things(fields: list[tuple[bytes, bytes]]) -> None:
    assert cross_site_problem(head(*fields), ORIGIN) == ""


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"Sec-Fetch-Site", b"cross-site")],
        [(b"Sec-Fetch-Site", b"same-site")],
        [(b"Sec-Fetch-Site", b"none")],
        [(b"Sec-Fetch-Site", b"")],
        [(b"Sec-Fetch-Site", b"Same-Origin")],
        [(b"Sec-Fetch-Site", b"same-origin"), (b"Sec-Fetch-Site", b"same-origin")],
        [(b"Sec-Fetch-Site", b"cross-site"), (b"Origin", b"https://shop.test")],
        [(b"Origin", b"null")],
        [(b"Origin", b"")],
        [(b"Origin", b"http://shop.test")],
        [(b"Origin", b"https://shop.test:8443")],
        [(b"Origin", b"https://shop.test.evil.test")],
        [(b"Origin", b"https://evil.test/https://shop.test")],
        [(b"Origin", b"https://shop.test"), (b"Origin", b"https://shop.test")],
        [(b"Origin", b"https://shop.test https://evil.test")],
        [(b"Referer", b"https://shop.test/")],
    ],
)
def test_other_sites_may_not(fields: list[tuple[bytes, bytes]]) -> None:
    assert cross_site_problem(head(*fields), ORIGIN)


def test_without_a_certain_origin_of_our_own_none_is_equal_to_it() -> None:
    assert cross_site_problem(head((b"Origin", b"https://shop.test")), None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"", {}),
        (b"a=b&a=c&d", {"a": ["b", "c"]}),
        (b"a=%41+%2B%", {"a": ["A +%"]}),
        (b"a%3D=x=y", {"a=": ["x=y"]}),
        (b"a=%zz%4", {"a": ["%zz%4"]}),
        (b"a=%E2%82%AC", {"a": ["€"]}),
        (b"a=%ff", {"a": ["\udcff"]}),
        (b"a=%\xb2\xb2", {"a": ["%\udcb2\udcb2"]}),
    ],
)
def test_a_query_is_decoded_once(text: bytes, values: dict[str, list[str]]) -> None:
    assert form_values(text) == values


@given(st.binary())
def test_any_query_is_read(text: bytes) -> None:
    form_values(text)
