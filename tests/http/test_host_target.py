"""Host values and absolute targets: what names a gateway, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.http.request import IDEMPOTENT, METHODS, normalise_host, split_absolute

HOSTS: dict[bytes, bytes | None] = {
    b"shop.localhost": b"shop.localhost",
    b"SHOP.LocalHost": b"shop.localhost",
    b"shop.localhost.": b"shop.localhost",
    b"shop.localhost:8080": b"shop.localhost",
    b"shop.localhost.:8080": b"shop.localhost",
    b"shop.localhost:0": b"shop.localhost",
    b"shop.localhost:65535": b"shop.localhost",
    b"shop.localhost:65536": None,
    b"shop.localhost:99999": None,
    b"shop.localhost:123456": None,
    b"shop.localhost:": None,
    b"shop.localhost:+80": None,
    b"shop.localhost:80a": None,
    b"shop.localhost:80:80": None,
    b"shop.localhost:-1": None,
    b"shop.localhost: 80": None,
    b"shop.localhost..": None,
    b"shop..localhost": None,
    b".shop.localhost": None,
    b".": None,
    b"..": None,
    b"": None,
    b":80": None,
    b"a": b"a",
    b"xn--bcher-kva.example": b"xn--bcher-kva.example",
    b"user-service_1": b"user-service_1",
    b"_dmarc.example": b"_dmarc.example",
    b"127.0.0.1": b"127.0.0.1",
    b"127.0.0.1:8080": b"127.0.0.1",
    b"[::1]": b"[::1]",
    b"[::1]:8080": b"[::1]",
    b"[2001:DB8::A]": b"[2001:db8::a]",
    b"[::ffff:10.0.0.1]:80": b"[::ffff:10.0.0.1]",
    b"[::1]:65536": None,
    b"[::1].": None,
    b"[::1]:": None,
    b"[::::]": None,
    b"[12345::]": None,
    b"[10.0.0.1]": None,
    b"[...]": None,
    b"[::1]x": None,
    b"[]": None,
    b"[::1": None,
    b"::1": None,
    b"[fe80::1%25eth0]": None,
    b"[v1.x]": None,
    b"-shop.localhost": None,
    b"shop.-localhost": None,
    b"user@shop.localhost": None,
    b"shop.localhost@evil": None,
    b"http://shop.localhost": None,
    b"shop.localhost/": None,
    b"shop.localhost/admin": None,
    b"shop.localhost?x": None,
    b"shop.localhost#x": None,
    b"shop.localhost,evil": None,
    b"shop.localhost, shop.localhost": None,
    b"shop localhost": None,
    b"shop.localhost\n": None,
    b"shop.localhost\r": None,
    b"shop.localhost\x00": None,
    b"shop\x00.localhost": None,
    b"shop.localhost\x0b": None,
    b"shop%2elocalhost": None,
    b"*": None,
    b"*.shop.localhost": None,
    b"sh\xc3\xb6p.localhost": None,
    b"shop\\.localhost": None,
    b"(shop)": None,
    b"shop;x": None,
}


@pytest.mark.parametrize("value", HOSTS)
def test_a_host_is_a_plain_name_or_address_with_an_optional_port(value: bytes) -> None:
    assert normalise_host(value) == HOSTS[value]


@given(st.one_of(st.binary(max_size=20), st.text("aZ0.-_:[]%@ ", max_size=12).map(str.encode)))
def test_a_normalised_host_is_a_fixed_point_in_lower_case(value: bytes) -> None:
    name = normalise_host(value)
    if name is not None:
        assert normalise_host(name) == name
        assert name == name.lower()
        assert not name.endswith(b".")
        assert normalise_host(value.upper()) == name


def test_a_host_of_the_greatest_size_is_judged_in_linear_time() -> None:
    assert normalise_host(b"a." * 16_000 + b"!") is None
    assert normalise_host(b"a" * 32_000 + b"/") is None


# --- the target ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://a/b?c", (b"http", b"a", b"/b?c")),
        (b"HTTPS://A:1/b", (b"https", b"A:1", b"/b")),
        (b"http://a", (b"http", b"a", b"")),
        (b"http://a?c", (b"http", b"a", b"/?c")),
        (b"http://a#c", (b"http", b"a", b"/#c")),
        (b"http://a//b", (b"http", b"a", b"//b")),
        (b"http:///b", (b"http", b"", b"/b")),
        (b"http://u@a/b", (b"http", b"u@a", b"/b")),
        (b"http://a?/@b", (b"http", b"a", b"/?/@b")),
        (b"http://", (b"http", b"", b"")),
        (b"ftp://a/b", None),
        (b"ws://a/b", None),
        (b"http:/a/b", None),
        (b"http:a", None),
        (b"a:80", None),
        (b"*", None),
        (b"http", None),
        (b"http:", None),
        (b"", None),
        (b"://a/", None),
        (b" http://a/", None),
        (b"httpx://a/", None),
    ],
)
def test_an_absolute_target_is_cut_at_the_first_slash_question_mark_or_hash(
    target: bytes, expected: tuple[bytes, bytes, bytes] | None
) -> None:
    assert split_absolute(target) == expected


def test_tunnels_and_echoes_are_not_served() -> None:
    assert not METHODS & {b"CONNECT", b"TRACE", b"PRI", b"SOURCE", b"get", b""}
    assert IDEMPOTENT < METHODS
    assert not IDEMPOTENT & {b"POST", b"PATCH"}
