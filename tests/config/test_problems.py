from __future__ import annotations

import pytest

from authgate_fast.config.problems import Problem, did_you_mean, join_path, printable, show


def test_a_problem_is_one_line_with_place_finding_rule_and_hint() -> None:
    problem = Problem(
        "shop.yaml:7", "gateways.shop.security", '"PUBLC"', "allowed: PUBLIC", "did you mean `PUBLIC`?"
    )
    assert str(problem) == (
        'shop.yaml:7: gateways.shop.security: found "PUBLC"; allowed: PUBLIC (did you mean `PUBLIC`?)'
    )
    assert (
        str(Problem("shop.yaml", "", "", "a file that can be read")) == "shop.yaml: a file that can be read"
    )


@pytest.mark.parametrize(
    "value",
    [
        "agk_0123",
        "ab" * 32,
        "$argon2id$v=19$m=1,t=1,p=1$abc$def",
        "https://user:password@host",
        {"password": "agk_0123"},
        ["agk_0123"],
    ],
)
def test_what_may_be_a_secret_is_never_shown(value: object) -> None:
    shown = show(value)
    for secret in ("agk_", "abab", "argon2", "password", "user"):
        assert secret not in shown
    assert len(shown) < 40


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing (null)"),
        (True, "true"),
        (1.5, "1.5"),
        ("", "an empty text"),
        ("/api/products/categories/featured/{id}", '"/api/products/categories/featured/{id}"'),
        ([], "an empty list"),
        ({}, "a mapping of fields"),
        (10**100, "a very long number"),
    ],
)
def test_other_values_are_shown_short(value: object, shown: str) -> None:
    assert show(value) == shown


def test_a_shown_text_is_short_and_cannot_act_on_a_terminal_or_a_log() -> None:
    assert printable("a\x1b[31m\r\nb\u202e") == "a?[31m??b?"
    assert len(show("a b " * 100)) <= 62
    assert join_path("a", ("b\n", 3, "agk_secret")) == "a.b?[3].agk_..."


def test_hints_ignore_case_and_say_nothing_when_nothing_is_near() -> None:
    assert did_you_mean("publc", ["PUBLIC", "SECURE"]) == "did you mean `PUBLIC`?"
    assert did_you_mean("xyz", ["PUBLIC", "SECURE"]) == ""
