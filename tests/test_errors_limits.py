"""The table of refusals and the limits: complete, stable, and refused with a sentence where wrong."""

from __future__ import annotations

import dataclasses
import re

import pytest

from authgate_fast.errors import TABLE, Blame, Reason, markdown_table
from authgate_fast.limits import DEFAULTS, NARROWABLE, Limits, with_settings
from authgate_fast.snapshot import TimeoutSettings

# DESIGN section 6, and the reasons that section 8's limits and the protocol need besides.
STATUSES = {
    "bad_request": 400,
    "invalid_path": 400,
    "invalid_host": 400,
    "login_failed": 400,
    "credentials_missing": 401,
    "credentials_invalid": 401,
    "forbidden": 403,
    "csrf_rejected": 403,
    "gateway_not_found": 404,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "target_too_long": 414,
    "expectation_failed": 417,
    "too_many_failures": 429,
    "head_too_large": 431,
    "internal_error": 500,
    "method_not_implemented": 501,
    "upstream_unreachable": 502,
    "upstream_protocol_error": 502,
    "service_not_configured": 503,
    "overloaded": 503,
    "auth_unavailable": 503,
    "not_ready": 503,
    "upstream_timeout": 504,
    "version_not_supported": 505,
    "loop_detected": 508,
}


def test_every_reason_has_a_row_and_every_row_its_own_reason() -> None:
    assert set(TABLE) == set(Reason)
    assert all(row.reason is reason for reason, row in TABLE.items())


def test_published_codes_keep_their_status() -> None:
    assert {reason.value: TABLE[reason].status for reason in Reason} == STATUSES


@pytest.mark.parametrize("reason", Reason)
def test_a_code_is_a_plain_word_and_its_text_a_sentence(reason: Reason) -> None:
    row = TABLE[reason]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", reason.value)
    assert row.title
    assert row.detail[0].isupper()
    assert row.detail.endswith(".")
    assert "|" not in row.detail, "it goes into a Markdown table"


@pytest.mark.parametrize("reason", Reason)
def test_blame_fits_the_status(reason: Reason) -> None:
    row = TABLE[reason]
    if row.status < 500 or row.status in (501, 505):
        assert row.blame is Blame.CLIENT
    else:
        assert row.blame in (Blame.GATEWAY, Blame.UPSTREAM)
    assert (row.blame is Blame.UPSTREAM) == reason.value.startswith("upstream_")


@pytest.mark.parametrize("reason", Reason)
def test_a_retry_is_offered_only_where_it_may_help(reason: Reason) -> None:
    row = TABLE[reason]
    assert row.retry_after_s >= 0
    if row.retry_after_s:
        assert row.retryable
    if row.status == 503:
        assert row.retry_after_s >= 1


@pytest.mark.parametrize(
    "code",
    [
        "bad_request",
        "invalid_host",
        "request_timeout",
        "body_too_large",
        "target_too_long",
        "head_too_large",
        "internal_error",
        "version_not_supported",
        "loop_detected",
    ],
)
def test_a_connection_is_not_trusted_after_these(code: str) -> None:
    assert TABLE[Reason(code)].closes


def test_ordinary_refusals_keep_the_connection() -> None:
    for code in (
        "credentials_missing",
        "credentials_invalid",
        "forbidden",
        "route_not_found",
        "method_not_allowed",
    ):
        assert not TABLE[Reason(code)].closes


def test_the_documented_table_has_a_line_for_each_code() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(Reason)
    for line, row in zip(lines[2:], TABLE.values(), strict=True):
        again = "yes" if row.retryable else "no"
        assert line == f"| {row.status} | `{row.reason.value}` | {again} | {row.detail} |"
    assert [row.status for row in TABLE.values()] == sorted(row.status for row in TABLE.values())


# --- limits ---------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_contract() -> None:
    promised = {
        "max_head_bytes": 32_768,
        "max_fields": 100,
        "max_target_bytes": 8_192,
        "max_body_bytes": None,
        "head_timeout_s": 10,
        "idle_timeout_s": 75,
        "body_timeout_s": 30,
        "connect_timeout_s": 5,
        "first_byte_timeout_s": 60,
        "between_bytes_timeout_s": 60,
    }
    assert {name: getattr(DEFAULTS, name) for name in promised} == promised


def test_what_may_be_narrowed_is_what_a_route_carries() -> None:
    assert {field.name for field in dataclasses.fields(TimeoutSettings)} == NARROWABLE
    assert {field.name for field in dataclasses.fields(Limits)} > NARROWABLE


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_fields=200", 200),
        ("max_fields=1", 1),
        ("max_body_bytes=1048576", 1_048_576),
        ("max_body_bytes=none", None),
        ("connect_timeout_s=2", 2.0),
        ("connect_timeout_s=0.25", 0.25),
    ],
)
def test_a_setting_changes_one_limit(setting: str, value: float | None) -> None:
    name = setting.split("=", maxsplit=1)[0]
    changed = with_settings(dataclasses.replace(DEFAULTS, max_body_bytes=7), [setting])
    assert getattr(changed, name) == value
    others = {field.name for field in dataclasses.fields(Limits)} - {name, "max_body_bytes"}
    assert all(getattr(changed, other) == getattr(DEFAULTS, other) for other in others)


def test_no_setting_changes_nothing_and_the_last_one_wins() -> None:
    assert with_settings(DEFAULTS, []) == DEFAULTS
    assert with_settings(DEFAULTS, ["max_fields=1", "max_fields=2"]).max_fields == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("max_fields", "NAME=VALUE"),
        ("", "NAME=VALUE"),
        ("max_field=5", "no such limit"),
        ("MAX_FIELDS=5", "no such limit"),
        ("__class__=5", "no such limit"),
        ("=5", "no such limit"),
        ("max_fields=", "a whole number"),
        ("max_fields=ten", "a whole number"),
        ("max_fields=1.5", "a whole number"),
        ("max_fields=none", "a whole number"),
        ("max_fields=0x10", "a whole number"),
        ("max_body_bytes=None", "a whole number"),
        ("idle_timeout_s=none", "a number of seconds"),
        ("idle_timeout_s=5s", "a number of seconds"),
        ("idle_timeout_s=", "a number of seconds"),
        ("max_fields=0", "above zero"),
        ("max_fields=-1", "above zero"),
        ("idle_timeout_s=0", "above zero"),
        ("idle_timeout_s=-0.1", "above zero"),
        ("idle_timeout_s=nan", "above zero"),
        ("idle_timeout_s=inf", "10^15"),
        ("max_body_bytes=1000000000000000", "10^15"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_settings(DEFAULTS, [setting])
    assert sentence in str(caught.value)
    assert f"--limit {setting.split('=', maxsplit=1)[0]}" in str(caught.value)


def test_an_unknown_limit_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError) as caught:
        with_settings(DEFAULTS, ["max_feilds=5"])
    assert all(field.name in str(caught.value) for field in dataclasses.fields(Limits))


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.max_fields = 5  # type: ignore[misc]
