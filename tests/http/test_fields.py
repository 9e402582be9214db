"""Which request fields a client may not set, in whatever spelling, and the bounds of the memo."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.http import fields
from authgate_fast.http.fields import (
    CREDENTIAL,
    DROP,
    END_TO_END,
    FORWARDED_FOR,
    HOST,
    MAX_FORWARDS,
    MEMO_LIMIT,
    PROTECTED,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    UPGRADE,
    VIA,
    classify_request,
    classify_response,
    connection_options,
    is_reserved,
    lower,
    plain_response_names,
    without_fields,
)

KEY_FIELDS = frozenset({b"x-api-key"})

IDENTITY = [
    b"X-Consumer-Id",
    b"X-Consumer-Roles",
    b"X-Consumer-Anything",
    b"X-Consumer-",
    b"X-User-Id",
    b"X-User-Roles",
    b"X-User-Whatever",
    b"X-Gateway-Id",
    b"X-Credential-Id",
    b"X-Client-Id",
    b"X-Tenant-Id",
    b"X-Anonymous-Consumer",
    b"X-Consumer",
    b"X-User",
    b"X-Remote-User",
    b"Remote-User",
    b"X-Authenticated-Userid",
    b"X-Authenticated-Scope",
]
CLAIMS = [
    b"Forwarded",
    b"X-Real-IP",
    b"X-Forwarded-Port",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-Server",
    b"X-Forwarded-Uri",
    b"X-Client-IP",
    b"X-Cluster-Client-IP",
    b"True-Client-IP",
    b"X-Envoy-Original-Path",
    b"X-Host",
    b"X-Original-URL",
    b"X-Original-Method",
    b"X-Rewrite-URL",
    b"X-HTTP-Method-Override",
    b"X-Method-Override",
    b"X-HTTP-Method",
    b"Proxy",
]
HOP_BY_HOP = [
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"TE",
    b"Trailer",
    b"HTTP2-Settings",
]
FORWARDED_SPELT_ODDLY = [b"X_Forwarded_For", b"X-Forwarded.For", b"x.forwarded.proto", b"X_FORWARDED-HOST"]


def classify(name: bytes) -> int:
    return classify_request(name, {}, KEY_FIELDS)


def spellings(name: bytes) -> set[bytes]:
    """Return the name with each of its dashes as ``-``, ``_`` or ``.``, in three cases."""
    parts = name.split(b"-")
    found = set()
    for joints in itertools.product(b"-_.", repeat=len(parts) - 1):
        joined = parts[0]
        for joint, part in zip(joints, parts[1:], strict=True):
            joined += bytes((joint,)) + part
        found |= {joined, joined.lower(), joined.upper(), joined.swapcase()}
    return found


@pytest.mark.parametrize("name", IDENTITY + CLAIMS + HOP_BY_HOP)
def test_what_only_the_gateway_may_say_is_dropped_in_every_spelling(name: bytes) -> None:
    for spelling in spellings(name):
        assert classify(spelling) == DROP, spelling


@pytest.mark.parametrize("joint", [bytes((byte,)) for byte in b"!#$%&'*+-.^_`|~"])
def test_what_a_backend_could_fold_to_a_name_of_ours_is_dropped(joint: bytes) -> None:
    """Every character of a token that is neither letter nor digit (RFC 9110 section 5.6.2)."""
    for name in (b"X-Consumer-Id", b"X-User-Roles", b"X-Forwarded-For", b"X-Original-URL", b"X-Api-Key"):
        spelling = name.replace(b"-", joint)
        assert spelling == name or classify(spelling) == DROP, spelling


def test_upgrade_is_taken_out_and_read_in_any_case() -> None:
    for spelling in (b"Upgrade", b"upgrade", b"UPGRADE"):
        assert classify(spelling) == UPGRADE
        assert is_reserved(spelling), spelling


@pytest.mark.parametrize("name", FORWARDED_SPELT_ODDLY)
def test_forwarding_fields_spelt_oddly_are_dropped_not_appended_to(name: bytes) -> None:
    assert classify(name) == DROP


@pytest.mark.parametrize(
    "name", [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-Request-ID"]
)
def test_only_the_exact_name_has_its_meaning_other_spellings_are_dropped(name: bytes) -> None:
    code = classify(name)
    assert code not in (END_TO_END, DROP)
    for spelling in spellings(name):
        is_exact = spelling.lower() == name.lower()
        assert classify(spelling) == (code if is_exact else DROP), spelling


@pytest.mark.parametrize(
    "name",
    [
        b"Accept",
        b"Authorization",
        b"Cookie",
        b"Origin",
        b"Trace-Parent",
        b"X-Consumers",
        b"X-Consumers-Id",
        b"X-UserId",
        b"XX-User-Id",
        b"X-Api-Keys",
        b"Content-Type",
        b"Upgrade-Insecure-Requests",
        b"X-Forward",
        b"Tenant",
    ],
)
def test_ordinary_fields_pass(name: bytes) -> None:
    assert classify(name) == END_TO_END
    assert not is_reserved(name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"Via", VIA),
        (b"VIA", VIA),
        (b"max-forwards", MAX_FORWARDS),
        (b"Traceparent", TRACEPARENT),
        (b"tracestate", TRACESTATE),
    ],
)
def test_what_a_gateway_reads_and_passes_on_is_not_reserved(name: bytes, code: int) -> None:
    assert classify(name) == code
    assert not is_reserved(name)
    assert classify(b"Max_Forwards") == END_TO_END


@pytest.mark.parametrize("spelling", sorted(spellings(b"X-Api-Key")))
def test_a_credential_is_taken_by_its_name_and_dropped_in_folded_spellings(spelling: bytes) -> None:
    expected = CREDENTIAL if b"-" in spelling and not set(b"_.") & set(spelling) else DROP
    assert classify(spelling) == expected


@pytest.mark.parametrize("configured", [b"x_api_key", b"x.api-key"])
def test_a_credential_field_configured_with_underscore_or_dot_is_dropped_when_spelt_with_dashes(
    configured: bytes,
) -> None:
    names = frozenset({configured})
    assert classify_request(configured.upper(), {}, names) == CREDENTIAL
    assert classify_request(b"X-Api-Key", {}, names) == DROP
    assert classify_request(b"X.Api.Key", {}, names) == DROP


def test_the_memo_gives_the_same_answer_and_stays_bounded() -> None:
    memo: dict[bytes, int] = {}
    for number in range(MEMO_LIMIT + 100):
        classify_request(b"X-%d" % number, memo, KEY_FIELDS)
        assert len(memo) <= MEMO_LIMIT
    assert classify_request(b"X_Consumer_Id", memo, KEY_FIELDS) == DROP


def test_who_invents_names_does_not_keep_the_names_of_others_out_of_the_memo() -> None:
    memo: dict[bytes, int] = {}
    for number in range(MEMO_LIMIT):
        classify_request(b"X-%d" % number, memo, KEY_FIELDS)
    classify_request(b"User-Agent", memo, KEY_FIELDS)
    assert memo[b"User-Agent"] == END_TO_END


def test_the_memo_does_not_keep_long_names() -> None:
    memo: dict[bytes, int] = {}
    assert classify_request(b"X-User-" + b"a" * 30_000, memo, KEY_FIELDS) == DROP
    assert memo == {}


def test_the_memo_of_responses_is_bounded_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    memo: dict[bytes, int] = {}
    monkeypatch.setattr(fields, "_response_memo", memo)
    known = set(plain_response_names)
    try:
        assert classify_response(b"Y" * 30_000) == END_TO_END
        assert memo == {}
        for number in range(MEMO_LIMIT + 100):
            classify_response(b"Y-%d" % number)
            assert len(memo) <= MEMO_LIMIT
        assert set(memo) == plain_response_names
        assert len(memo) == 100
    finally:
        plain_response_names.clear()
        plain_response_names.update(known)


def test_codes_are_shared_by_no_two_meanings() -> None:
    assert len({classify(name) for name in (b"Host", b"X-Request-ID", b"X-Forwarded-For", b"A", b"TE")}) == 5
    assert (classify(b"Host"), classify(b"X-Request-ID"), classify(b"X-Forwarded-For")) == (
        HOST,
        REQUEST_ID,
        FORWARDED_FOR,
    )


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"", []),
        (b",", []),
        (b" , ,", []),
        (b"close", [b"close"]),
        (b"Close,X-A", [b"close", b"x-a"]),
        (b" a \t,\tb ", [b"a", b"b"]),
        (b"a b", [b"a b"]),
        (b"a\x0b,b", [b"a\x0b", b"b"]),
    ],
)
def test_connection_options_are_cut_at_commas_and_freed_of_space_and_tab_only(
    value: bytes, options: list[bytes]
) -> None:
    assert connection_options(value) == options


def test_lines_are_removed_by_their_whole_name() -> None:
    lines = [b"X-A: 1\r\n", b"x-a: X-B: 2\r\n", b"X-AB: 3\r\n", b"X-B: X-A\r\n"]
    assert without_fields(lines, {b"x-a"}) == lines[2:]
    assert without_fields(lines, set()) == lines


@given(st.binary())
def test_lower_touches_ascii_letters_only(text: bytes) -> None:
    expected = bytes(byte + 32 if 0x41 <= byte <= 0x5A else byte for byte in text)
    assert lower(text) == expected


def test_protected_names_are_lower_case() -> None:
    assert all(name == lower(name) for name in PROTECTED)
    assert b"authorization" in PROTECTED
