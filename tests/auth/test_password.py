"""Password hashes: what is let in, what a document may ask for, and how new passwords look."""

from __future__ import annotations

import time

import pytest
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.auth.password import (
    NOBODYS_HASH,
    PasswordHashError,
    hash_password,
    hash_problem,
    hashes_to_try,
    identity_of,
    new_hash,
    new_password,
    read_hash,
    stand_in,
    verify_password,
)
from tests.auth.users import cheap_hash, user

NOW = 1_900_000_000.0
SALT = b"0123456789abcdef"
# From the documentation of argon2-cffi, which binds the reference implementation.
FOREIGN = "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"


def phc(m: int = 19_456, t: int = 2, p: int = 1, salt: str = "A" * 22, digest: str = "A" * 43) -> str:
    return f"$argon2id$v=19$m={m},t={t},p={p}${salt}${digest}"


def test_a_hash_of_the_reference_implementation_is_understood() -> None:
    assert verify_password(FOREIGN, b"correct horse battery staple")
    assert not verify_password(FOREIGN, b"correct horse battery stable")


def test_our_hashes_are_owasps_argon2id_and_others_understand_them() -> None:
    made = hash_password(b"secret", SALT)
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    Argon2id.verify_phc_encoded(b"secret", made)
    with pytest.raises(InvalidKey):
        Argon2id.verify_phc_encoded(b"Secret", made)


def test_the_same_password_has_another_hash_each_time() -> None:
    assert new_hash(b"secret") != new_hash(b"secret")


@settings(max_examples=30, deadline=None)
@given(password=st.text(max_size=40), other=st.text(max_size=40))
def test_only_the_exact_bytes_of_a_password_fit(password: str, other: str) -> None:
    made = cheap_hash(password)
    assert verify_password(made, password.encode())
    assert verify_password(made, other.encode()) is (other == password)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (phc(m=262_145), "m=262145 is more work"),
        (phc(m=9_999_999_999), "more work"),
        (phc(t=17), "t=17 is more work"),
        (phc(p=17), "p=17 is more work"),
        (phc(m=31, p=4), "less than 8 for each of 4 lanes"),
        (phc(salt="A" * 8), "salt is shorter"),
        (phc(digest="A" * 16), "hash is shorter"),
        (phc(salt="A" * 21), "base64"),
        (phc(salt="A" * 21 + "B"), "base64"),
        (phc(digest="A" * 42 + "B"), "base64"),
        ("", "form"),
        (phc() + "\n", "form"),
        (phc() + "=", "form"),
        (phc().replace("argon2id", "argon2i"), "form"),
        (phc().replace("v=19", "v=16"), "form"),
        (phc().replace("m=19456", "m=0x10"), "form"),
        (phc().replace("m=19456", "m=019456"), "form"),
        (phc().replace("m=19456", "m=１９４５６"), "form"),
        (phc().replace("t=2", "t=-2"), "form"),
        (phc(m=99_999_999_999), "form"),
        ("$2b$12$" + "a" * 53, "form"),
    ],
)
def test_a_hash_that_is_absurd_or_no_hash_fits_nothing_costs_nothing_and_is_explained(
    text: str, words: str
) -> None:
    begun = time.process_time()
    assert not verify_password(text, b"secret")
    assert words in hash_problem(text)
    assert time.process_time() - begun < 1, "the work it asks for would take minutes"
    with pytest.raises(PasswordHashError):
        read_hash(text)


def test_what_is_wrong_with_a_hash_is_told_without_the_hash() -> None:
    assert "SALTSALT" not in hash_problem(phc(t=99, salt="SALTSALT" * 2))


@pytest.mark.parametrize("text", [phc(), FOREIGN, phc(m=262_144, t=16, p=16), phc(m=8, t=1), NOBODYS_HASH])
def test_a_reasonable_hash_is_no_problem(text: str) -> None:
    assert hash_problem(text) == ""


def test_new_passwords_have_128_bits_are_readable_and_never_repeat() -> None:
    made = [new_password() for _ in range(300)]
    assert len(set(made)) == 300
    letters = set("".join(made)) - {"-"}
    assert letters == set("abcdefghjkmnpqrstuvwxyz23456789")
    for password in made:
        assert [len(group) for group in password.split("-")] == [4] * 7
    for position in range(34):
        assert position % 5 == 4 or len({password[position] for password in made}) > 20
    assert 31**28 > 2**128


def test_every_user_and_nobody_costs_at_least_one_comparison() -> None:
    one, two = cheap_hash("one"), cheap_hash("two")
    assert hashes_to_try(None, NOW) == (NOBODYS_HASH,)
    assert hashes_to_try(user("ann", one, two), NOW) == (one, two)
    assert hashes_to_try(user("ann", one, two, ends=(NOW, NOW + 1)), NOW) == (two,)
    assert hashes_to_try(user("ann", one, two, expires_at=NOW), NOW) == (one,)


def test_a_hash_gives_the_identity_of_its_own_password_while_that_lasts() -> None:
    one, two = cheap_hash("one"), cheap_hash("two")
    ann = user("ann", one, two, ends=(NOW, NOW + 1))
    found = identity_of(ann, two, NOW)
    assert found is not None
    assert found.credential_id == "p1"
    assert identity_of(ann, one, NOW) is None, "this password is over"
    assert identity_of(ann, two, NOW + 1) is None
    assert identity_of(ann, cheap_hash("three"), NOW) is None
    assert identity_of(None, NOBODYS_HASH, NOW) is None


def test_an_unknown_name_always_meets_the_same_user_and_different_ones_different_users() -> None:
    users = {b"%d" % n: user(str(n), cheap_hash("x")) for n in range(200)}
    met = {name: stand_in(users, name) for name in (b"unknown-%d" % n for n in range(300))}
    assert all(stand_in(users, name) is one for name, one in met.items())
    assert len({id(one) for one in met.values()}) > 40
    assert stand_in({}, b"unknown") is None
    (only,) = {id(stand_in({b"ann": users[b"1"]}, name)) for name in met}
    assert only == id(users[b"1"])
