"""Sealed sessions and logins: of no use without the cookie, bound to their place, never altered."""

from __future__ import annotations

import orjson
import pytest

from authgate_fast.auth.login import (
    authorization_url,
    begin,
    code_challenge,
    login_cookie,
    login_name,
    open_transaction,
    seal_transaction,
    with_query,
)
from authgate_fast.auth.session import (
    _FIELDS,
    MAX_RECORD_BYTES,
    SealError,
    open_record,
    read_clear,
    seal_record,
    session_key,
    session_name,
)
from tests.auth.bff_world import NOW, record

COOKIE = b"A" * 43
NAME = session_name("shop", COOKIE)


def sealed() -> bytes:
    return seal_record(session_key(COOKIE), NAME, record())


def test_a_session_comes_back_as_it_was() -> None:
    again = open_record(session_key(COOKIE), NAME, sealed())
    for name in _FIELDS:
        assert getattr(again, name) == getattr(record(), name), name


def test_a_token_without_end_stays_without_end() -> None:
    made = record(access_ends_at=float("inf"), access_ttl_s=float("inf"))
    again = open_record(session_key(COOKIE), NAME, seal_record(session_key(COOKIE), NAME, made))
    assert again.access_ends_at == again.access_ttl_s == float("inf")


def test_in_clear_stands_whose_it_is_and_when_it_ends_and_nothing_else() -> None:
    value = sealed()
    assert read_clear(value) == {"v": 1, "created_at": NOW, "ends_at": NOW + 43_200, "sub": "u-1"}
    for secret in (b"access-1", b"refresh-1", b"id-1", b"Ann Example", b"buyer", COOKIE):
        assert secret not in value
        assert secret not in NAME.encode()


def test_the_name_gives_neither_the_cookie_nor_the_key() -> None:
    digest = bytes.fromhex(NAME.rsplit(":", 1)[1])
    for key in (digest, session_key(digest), session_key(digest.hex().encode()), session_key(NAME.encode())):
        with pytest.raises(SealError):
            open_record(key, NAME, sealed())


def test_a_sealed_session_opens_at_its_own_place_only() -> None:
    key = session_key(COOKIE)
    for other in (session_name("shop", b"B" * 43), session_name("other", COOKIE), NAME.upper()):
        with pytest.raises(SealError):
            open_record(key, other, sealed())


def test_no_byte_of_it_can_be_changed() -> None:
    value, key = sealed(), session_key(COOKIE)
    for at in range(len(value)):
        with pytest.raises(SealError):
            open_record(key, NAME, value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :])
    for cut in (b"", value[:-1], value + b"x", b"\n" + value, value.partition(b"\n")[2], b"{}\n"):
        with pytest.raises(SealError):
            open_record(key, NAME, cut)


def test_the_same_session_is_never_sealed_twice_the_same_way() -> None:
    assert sealed() != sealed()


def test_a_session_that_is_too_large_is_refused() -> None:
    with pytest.raises(SealError):
        seal_record(session_key(COOKIE), NAME, record(claims={"sub": "u", "x": "y" * MAX_RECORD_BYTES}))


@pytest.mark.parametrize("value", [b"", b"\n", b"no json\nx", b"[1]\nx", b"7"])
def test_what_is_unreadable_has_nothing_in_clear(value: bytes) -> None:
    assert read_clear(value) is None


def test_a_login_needs_both_its_state_and_its_browser() -> None:
    state, binding, transaction = begin("https://shop.test/bff/callback", b"/cart", NOW)
    name = login_name("shop", state)
    value = seal_transaction(transaction, name, state, binding)
    for secret in (transaction.verifier, transaction.nonce, "/cart"):
        assert secret.encode() not in value
    again = open_transaction(value, name, state, binding, NOW + 599)
    assert (again.verifier, again.return_to) == (transaction.verifier, "/cart")
    for other_state, other_binding in (
        (state, state),
        (binding, binding),
        (binding, state),
        (b"A" * 43, binding),
    ):
        with pytest.raises(SealError):
            open_transaction(value, name, other_state, other_binding, NOW)
    with pytest.raises(SealError):
        open_transaction(value, login_name("other", state), state, binding, NOW)
    with pytest.raises(SealError, match="too long"):
        open_transaction(value, name, state, binding, NOW + 600)


def test_every_login_has_secrets_of_its_own() -> None:
    seen = set()
    for _ in range(100):
        state, binding, transaction = begin("https://shop.test/bff/callback", b"/", NOW)
        seen |= {
            state.decode(),
            binding.decode(),
            transaction.nonce,
            transaction.verifier,
            login_cookie(state).decode(),
        }
        assert all(len(secret) == 43 for secret in (state, binding, transaction.nonce, transaction.verifier))
    assert len(seen) == 500


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_provider_is_asked_with_s256_and_never_sees_the_verifier() -> None:
    state, _, transaction = begin("https://shop.test/bff/callback", b"/", NOW)
    url = authorization_url("https://iam.test/a?tenant=x&y", "a client", ("openid", "x"), state, transaction)
    assert url.startswith("https://iam.test/a?tenant=x&y&response_type=code&client_id=a%20client&")
    assert "&redirect_uri=https%3A%2F%2Fshop.test%2Fbff%2Fcallback&scope=openid%20x&" in url
    assert "&code_challenge_method=S256" in url
    assert transaction.verifier not in url


def test_a_parameter_cannot_add_another() -> None:
    assert (
        with_query("https://x.test", {"a": "b&c=d#e", "f": "é/"})
        == "https://x.test?a=b%26c%3Dd%23e&f=%C3%A9%2F"
    )


def test_the_clear_part_is_one_line() -> None:
    made = record(claims={"sub": "a\nb"})
    value = seal_record(session_key(COOKIE), NAME, made)
    clear = read_clear(value)
    assert clear is not None
    assert clear["sub"] == "a\nb"
    assert orjson.dumps("a\nb") in value.partition(b"\n")[0]
