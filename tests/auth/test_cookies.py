"""Cookies of our own: found, taken out, written; the rest goes on as it came."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth.cookies import (
    LOGIN_PREFIX,
    OWN_PREFIX,
    SESSION_COOKIE,
    TWICE,
    clear_login,
    clear_session,
    is_secret,
    kept_cookie_lines,
    own_cookie,
    session_cookie,
    session_cookies,
    set_login,
    set_session,
)
from authgate_fast.http.response import OWN_COOKIES

S = b"AUTHGATE_BFF_SESSION"


def lines(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", value) for value in values]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], None),
        ([b"a=b"], None),
        ([S + b"=x"], b"x"),
        ([S + b"="], b""),
        ([b"a=b; " + S + b"=x"], b"x"),
        ([b"a=b;" + S + b"=x;c=d"], b"x"),
        ([b"a=b;\t " + S + b"=x \t; c"], b"x"),
        ([b"a=b", S + b"=x"], b"x"),
        ([S + b"=x=y"], b"x=y"),
        ([S], None),
        ([S + b" =x"], None),
        ([b"x" + S + b"=x"], None),
        ([S + b"2=x"], None),
        ([b"a=" + S + b"=x"], None),
        ([S.lower() + b"=x"], None),
        ([b"a=b, " + S + b"=x"], None),
        ([b";;=;" + S + b"=x;"], b"x"),
        ([S + b"=x; " + S + b"=x"], TWICE),
        ([S + b"=x", S + b"=y"], TWICE),
        ([S + b"=; " + S + b"=y"], TWICE),
    ],
)
def test_the_session_cookie_is_found_by_its_whole_name(values: list[bytes], found: bytes | None) -> None:
    assert session_cookie(lines(*values)) == found
    assert own_cookie(lines(*values), S) == found


def test_all_values_of_a_tossed_cookie_that_could_be_ours_are_told_once() -> None:
    x, y, z = b"x" * 43, b"y" * 43, b"z" * 43
    told = lines(S + b"=%b; a=b; " % x + S + b"=%b; " % y + S + b"=junk", S + b"=%b" % x, S + b"=%b" % z)
    assert session_cookies(told) == [x, y, z]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([S + b"=x"], b""),
        ([b"a=b"], b"Cookie: a=b\r\n"),
        ([b"a=b;  c"], b"Cookie: a=b;  c\r\n"),
        ([b"a=b; " + S + b"=x; c=d"], b"Cookie: a=b; c=d\r\n"),
        ([S + b"=x; a=b"], b"Cookie: a=b\r\n"),
        ([S + b" =x;a=b"], b"Cookie: a=b\r\n"),
        ([S + b"; a=b"], b"Cookie: a=b\r\n"),
        ([b"a=b; " + LOGIN_PREFIX + b"0123=x"], b"Cookie: a=b\r\n"),
        ([b"a=b", b"c=d; " + S + b"=x"], b"Cookie: a=b\r\nCookie: c=d\r\n"),
        ([b'a="1; ' + S + b'=x"; c=d'], b'Cookie: a="1; c=d\r\n'),
        ([b""], b""),
    ],
)
def test_other_cookies_go_on_and_ours_do_not(values: list[bytes], kept: bytes) -> None:
    assert kept_cookie_lines(lines(*values)) == kept


def test_an_authorization_is_not_kept() -> None:
    assert kept_cookie_lines([(b"authorization", b"Bearer x"), (b"cookie", b"a=b")]) == b"Cookie: a=b\r\n"


@given(
    st.lists(st.sampled_from([S, S + b"=v", b"=", b";", b" ", b"a", OWN_PREFIX, b'"', b"\t"])).map(b"".join)
)
def test_whatever_is_kept_no_session_can_be_read_from_it(value: bytes) -> None:
    kept = kept_cookie_lines(lines(value)).removeprefix(b"Cookie: ").removesuffix(b"\r\n")
    assert session_cookie(lines(kept)) is None
    assert not any(part.strip(b" \t").startswith(OWN_PREFIX) for part in kept.split(b";"))


def test_a_long_field_is_read_in_linear_time() -> None:
    begun = time.process_time()
    for value in (b";" * 1_000_000, (S + b";") * 50_000, (S + b"=x;") * 50_000, b'"' * 1_000_000 + S):
        session_cookie(lines(value))
        kept_cookie_lines(lines(value))
    assert time.process_time() - begun < 2


def test_the_session_cookie_is_for_this_host_alone_and_out_of_reach_of_scripts() -> None:
    assert set_session(b"x", secure=True) == (
        b"Set-Cookie: AUTHGATE_BFF_SESSION=x; Path=/; HttpOnly; SameSite=Lax; Secure\r\n"
    )
    assert set_session(b"x", secure=False) == (
        b"Set-Cookie: AUTHGATE_BFF_SESSION=x; Path=/; HttpOnly; SameSite=Lax\r\n"
    )


@pytest.mark.parametrize("secure", [True, False])
def test_a_cookie_is_cleared_with_the_attributes_it_was_set_with(secure: bool) -> None:
    for made, cleared in (
        (set_session(b"x", secure=secure), clear_session(secure=secure)),
        (set_login(b"n", b"x", secure=secure), clear_login(b"n", secure=secure)),
    ):
        attributes = [
            set(line.strip().split(b"; ")[1:]) - {b"Max-Age=0", b"Max-Age=600"} for line in (made, cleared)
        ]
        assert attributes[0] == attributes[1]
        assert b"=; " in cleared
        assert b"; Max-Age=0" in cleared


def test_a_login_cookie_lives_as_long_as_a_login_and_goes_to_the_callback_only() -> None:
    assert set_login(b"n", b"x", secure=True) == (
        b"Set-Cookie: n=x; Path=/bff/callback; Max-Age=600; HttpOnly; SameSite=Lax; Secure\r\n"
    )


@pytest.mark.parametrize(
    "value", [b"", b"A" * 42, b"A" * 44, b"A" * 42 + b"\n", b"A" * 42 + b"=", b"A" * 42 + b"\xe9"]
)
def test_what_is_not_made_here_is_no_secret(value: bytes) -> None:
    assert not is_secret(value)


def test_both_rooms_mean_the_same_names() -> None:
    assert SESSION_COOKIE.startswith(OWN_COOKIES)
    assert LOGIN_PREFIX.startswith(OWN_COOKIES)
    assert OWN_PREFIX == OWN_COOKIES
