"""Basic credentials: how they are read, and what memory keeps of them."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth import basic
from authgate_fast.auth.basic import BasicAuthenticator, PasswordLookup
from authgate_fast.auth.interface import Denial, Lookup
from authgate_fast.decision import Client
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Consumers, Identity, User
from tests.auth.users import cheap_hash, user

NOW = 1_900_000_000.0
ANN = user("ann", cheap_hash("pass"))
NO_CONTROLS = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=60)


def make(*users: User) -> BasicAuthenticator:
    return BasicAuthenticator("shop", "The Shop", Consumers(users={one.username: one for one in users}))


def show(authenticator: BasicAuthenticator, *values: bytes, now: float = NOW) -> Identity | Denial | Lookup:
    presented = [(b"authorization", value) for value in values]
    return authenticator.identify(RequestHead(b"GET", b"/", 1, []), presented, Client("192.0.2.1"), now)


def lookup(authenticator: BasicAuthenticator, value: bytes, now: float = NOW) -> PasswordLookup:
    found = show(authenticator, value, now=now)
    assert isinstance(found, PasswordLookup), getattr(found, "why", found)
    return found


def credential(text: bytes, scheme: bytes = b"Basic ") -> bytes:
    return scheme + b64encode(text)


def remembered(authenticator: BasicAuthenticator, value: bytes, one: User = ANN) -> Identity:
    identity = one.passwords[0][1]
    authenticator.remember(lookup(authenticator, value).digest, one, identity)
    return identity


@given(username=NO_CONTROLS.filter(lambda t: t and ":" not in t), password=NO_CONTROLS)
def test_name_and_password_are_read_as_rfc_7617_says(username: str, password: str) -> None:
    one = user("ann", cheap_hash("pass"), username=username)
    found = lookup(make(one), credential(f"{username}:{password}".encode()))
    assert (found.username, found.password) == (username.encode(), password.encode())
    assert found.user is one
    assert found.is_guess
    assert found.account == b"shop/" + username.encode()


def test_the_example_of_the_rfc() -> None:
    found = lookup(make(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    assert (found.username, found.password, found.user) == (b"Aladdin", b"open sesame", None)
    found = lookup(make(), b"Basic dGVzdDoxMjPCow==")  # section 2.1
    assert found.password == "123£".encode()


@pytest.mark.parametrize("text", [b"ann:", b"ann::", b"ann:a:b", b"ann: ", b"ann:" + "é".encode(), b" :x"])
def test_only_the_first_colon_splits_and_a_password_may_be_anything(text: bytes) -> None:
    found = lookup(make(), credential(text))
    assert found.username + b":" + found.password == text


@pytest.mark.parametrize("scheme", [b"basic ", b"BASIC ", b"bAsIc ", b"Basic   "])
def test_the_scheme_has_no_case_and_any_number_of_spaces_after_it(scheme: bytes) -> None:
    authenticator = make(ANN)
    identity = remembered(authenticator, credential(b"ann:pass"))
    assert show(authenticator, credential(b"ann:pass", scheme)) is identity, "one credential, one memory"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basicx YW5uOnBhc3M=",
        b"Basic:YW5uOnBhc3M=",
        b"Basic\tYW5uOnBhc3M=",
        b"YW5uOnBhc3M=",
        b"Bearer YW5uOnBhc3M=",
        b"\xe2\x84\xaaasic x",
    ],
)
def test_another_scheme_is_no_credential(value: bytes) -> None:
    found = show(make(ANN), value)
    assert isinstance(found, Denial)
    assert found.reason is Reason.CREDENTIALS_MISSING
    assert not found.is_failure
    assert found.extra_lines == b'WWW-Authenticate: Basic realm="The Shop", charset="UTF-8"\r\n'


@pytest.mark.parametrize(
    "value",
    [
        b"Basic",
        b"Basic ",
        b"Basic =",
        b"Basic YW5uOnBhc3M",  # no padding
        b"Basic YW5uOnBhc3M==",
        b"Basic YW5uOnBhc3N=",  # the same bytes, written otherwise
        b"Basic YW5uOnBhc3M=YW5uOnBhc3M=",
        b"Basic YW5uOnBh c3M=",
        b"Basic YW5u\tOnBhc3M=",
        b"Basic YW5uOnBhc3M= x",
        b"Basic YW5uOnBhc3M=,Basic YW5uOnBhc3M=",
        b"Basic YW5uOnBhc3_-",  # base64url
        b"Basic \xff\xff\xff\xff",
        credential(b""),
        credential(b"ann"),
        credential(b":pass"),
        credential(b":"),
        credential(b"ann:\x00"),
        credential(b"ann:\n"),
        credential(b"a\x1fn:pass"),
        credential(b"ann:\x7f"),
        credential(b"ann:\xff"),
        credential(b"ann:\xc3"),
        credential(b"ann:\xed\xa0\x80"),  # a surrogate
        credential(b"\xe9:pass"),  # Latin-1
        credential(b"x" * (basic.MAX_USERNAME_BYTES + 1) + b":pass"),
        credential(b"ann:" + b"x" * basic.MAX_TOKEN_BYTES),
    ],
)
def test_a_malformed_credential_is_a_failure_and_costs_no_check(value: bytes) -> None:
    found = show(make(ANN), value)
    assert isinstance(found, Denial)
    assert found.reason is Reason.CREDENTIALS_INVALID
    assert found.is_failure


def test_the_longest_credential_is_read_and_a_longer_one_is_not() -> None:
    longest = credential(b"ann:" + b"x" * (basic.MAX_TOKEN_BYTES // 4 * 3 - 4))
    assert len(longest) == basic.MAX_TOKEN_BYTES + len(b"Basic ")
    assert lookup(make(ANN), longest).user is ANN
    assert isinstance(show(make(ANN), longest + b"AAAA"), Denial)


def test_two_fields_are_refused_even_if_they_are_equal_and_known() -> None:
    authenticator = make(ANN)
    value = credential(b"ann:pass")
    remembered(authenticator, value)
    for values in ((value, value), (value, b""), (b"", value), (b"Bearer x", value)):
        found = show(authenticator, *values)
        assert isinstance(found, Denial)
        assert found.reason is Reason.CREDENTIALS_INVALID


def test_memory_knows_a_credential_while_its_consumer_is_the_same_object() -> None:
    authenticator = make(ANN)
    value = credential(b"ann:pass")
    assert show(authenticator, value) is not remembered(authenticator, value)
    assert isinstance(show(authenticator, value), Identity)
    assert isinstance(show(authenticator, credential(b"ann:pasS")), PasswordLookup)
    authenticator.consumers.users[b"ann"] = user("ann", cheap_hash("pass"))
    assert isinstance(show(authenticator, value), PasswordLookup)
    authenticator.consumers.users[b"ann"] = ANN
    assert isinstance(show(authenticator, value), PasswordLookup), "once dropped, it is checked again"


def test_memory_lets_go_of_a_consumer_that_is_gone_and_of_one_that_has_expired() -> None:
    for change in ("gone", "expired"):
        one = user("ann", cheap_hash("pass"), expires_at=NOW + 10)
        authenticator = make(one)
        value = credential(b"ann:pass")
        identity = remembered(authenticator, value, one)
        assert show(authenticator, value, now=NOW + 9.9) is identity
        if change == "gone":
            del authenticator.consumers.users[b"ann"]
        assert isinstance(show(authenticator, value, now=NOW + 10), PasswordLookup)
        assert authenticator._known == {}


def test_memory_holds_neither_name_nor_password_and_differs_between_gateways() -> None:
    one, two = make(ANN), make(ANN)
    value = credential(b"ann:pass")
    remembered(one, value)
    assert isinstance(show(two, value), PasswordLookup)
    (digest,) = one._known
    assert len(digest) == 32
    assert digest != lookup(two, value).digest


def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic, "MAX_REMEMBERED", 10)
    authenticator = make(ANN)
    values = [credential(b"ann:%d" % n) for n in range(15)]
    for value in values:
        remembered(authenticator, value)
    assert len(authenticator._known) == 10
    known = [isinstance(show(authenticator, value), Identity) for value in values]
    assert known == [False] * 5 + [True] * 10


def test_a_credential_that_comes_twice_takes_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic, "MAX_REMEMBERED", 2)
    authenticator = make(ANN)
    one, two = lookup(authenticator, credential(b"ann:1")), lookup(authenticator, credential(b"ann:2"))
    for found in (one, two, two, two):
        authenticator.remember(found.digest, ANN, ANN.passwords[0][1])
    assert isinstance(show(authenticator, credential(b"ann:1")), Identity)


def test_nothing_is_kept_for_a_backend() -> None:
    assert make().kept_lines([(b"authorization", credential(b"ann:pass"))]) == b""
