"""Claims become field lines that no claim can break out of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth.user_lines import (
    MAX_ROLES_LINE_BYTES,
    UnusableClaimError,
    roles_of,
    subject_of,
    user_lines,
)


def test_plain_claims_go_as_they_are() -> None:
    assert user_lines("auth0|12", ("a", "b"), "shop") == (
        b"X-User-Id: auth0|12\r\nX-User-Roles: a,b\r\nX-Client-Id: shop\r\n"
    )


def test_without_roles_there_is_no_line_for_them() -> None:
    assert user_lines("u", (), "shop") == b"X-User-Id: u\r\nX-Client-Id: shop\r\n"


@given(st.text(min_size=1), st.lists(st.text(min_size=1, max_size=20), max_size=4), st.text(min_size=1))
def test_no_claim_makes_another_line_or_another_role(subject: str, roles: list[str], client: str) -> None:
    lines = user_lines(subject, tuple(roles), client).split(b"\r\n")
    assert len(lines) == (4 if roles else 3)
    assert lines[-1] == b""
    for line in lines[:-1]:
        assert all(0x20 <= byte < 0x7F for byte in line)
        assert line.count(b" ") == 1
    if roles:
        assert lines[1].count(b",") == len(roles) - 1


def test_roles_that_do_not_fit_are_left_out_whole() -> None:
    line = user_lines("u", tuple(f"{number:0>100}" for number in range(200)), "c").split(b"\r\n")[1]
    assert len(line) <= len(b"X-User-Roles: ") + MAX_ROLES_LINE_BYTES
    assert all(len(role) == 100 for role in line.removeprefix(b"X-User-Roles: ").split(b","))


@pytest.mark.parametrize(
    ("claims", "path", "roles"),
    [
        ({"roles": ["a", "b", "a"]}, "roles", ("a", "b")),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ("a",)),
        ({"https://x.test/roles": ["a"]}, "https://x.test/roles", ("a",)),
        ({"groups": "a b"}, "groups", ("a", "b")),
        ({"roles": [1, None, "", {"a": 1}, "x" * 129, "ok"]}, "roles", ("ok",)),
        ({"roles": {"a": 1}}, "roles", ()),
        ({"realm_access": "no"}, "realm_access.roles", ()),
        ({}, "roles", ()),
        ({"roles": 7}, "roles", ()),
    ],
)
def test_roles_stand_where_the_path_says(
    claims: dict[str, object], path: str, roles: tuple[str, ...]
) -> None:
    assert roles_of(claims, path) == roles


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": 7}, {"sub": None}, {"sub": "é" * 600}])
def test_a_user_without_a_usable_subject_is_nobody(claims: dict[str, object]) -> None:
    with pytest.raises(UnusableClaimError):
        subject_of(claims)
