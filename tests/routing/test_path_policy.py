"""The request-path policy: tables of what is refused and taken, and what holds for all that is taken."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authgate_fast.routing.path_policy import (
    ALLOWABLE,
    STRICT,
    PathPolicy,
    query_is_clean,
    split_path,
    split_path_fully,
)
from authgate_fast.routing.template import (
    Rest,
    TemplateError,
    forward_path,
    parse_public,
    parse_target,
    target_pieces,
)

DOUBLE_SLASH = PathPolicy(frozenset({"double_slash"}))
SEMICOLON = PathPolicy(frozenset({"semicolon"}))
ENCODED_SLASH = PathPolicy(frozenset({"encoded_slash"}))
EVERYTHING = PathPolicy(ALLOWABLE)
POLICIES = (STRICT, DOUBLE_SLASH, SEMICOLON, ENCODED_SLASH, EVERYTHING)

# Pieces that attacks are made of, and plain ones, so that they meet.
_TOKENS = [
    *(b"/", b".", b"..", b";", b"%", b"a", b"b", b"x", b"0", b"1", b"2", b"5", b"c", b"e", b"f", b"E", b"F"),
    *(b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"%5C", b"%3b", b"%25", b"%252e", b"%252f", b"%25%32%65"),
    *(b"%25252e", b"%61", b"%41", b"%00", b"%1f", b"%7f", b"%c0%ae", b"%c3%a9", b"%e2%82%ac", b"%ed%a0%80"),
    *(b"\\", b"#", b" ", b"\x00", b"\n", b"\r", b"\t", b"\x7f", b"\x80", b"\xc3\xa9", b"\xff"),
    *(
        b"~",
        b"-",
        b"_",
        b"!",
        b"$",
        b"&",
        b"'",
        b"(",
        b")",
        b"*",
        b"+",
        b",",
        b"=",
        b":",
        b"@",
        b"|",
        b"[",
        b"]",
    ),
    *(b'"', b"<", b">", b"^", b"`", b"{", b"}", b"?"),
]
hostile_paths = st.lists(st.sampled_from(_TOKENS), max_size=9).map(lambda parts: b"/" + b"".join(parts))
# Of these a good part is accepted.
_MILD = [
    b"/",
    b"/",
    b"a",
    b"b",
    b".",
    b"%25",
    b"%61",
    b"2",
    b"e",
    b"%2e",
    b"%c3%a9",
    b"|",
    b"~",
    b"%2f",
    b";",
]
mild_paths = st.lists(st.sampled_from(_MILD), max_size=9).map(lambda parts: b"/" + b"".join(parts))
paths = st.one_of(hostile_paths, mild_paths, st.binary(max_size=12).map(lambda tail: b"/" + tail))
policies = st.sampled_from(POLICIES)
many = settings(max_examples=600, deadline=None)


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        (b"/", [b""]),
        (b"/a", [b"a"]),
        (b"/a/", [b"a", b""]),
        (b"/api/products/1", [b"api", b"products", b"1"]),
        (b"/A-Za-z0-9._~!$&'()*+,=:@|[]", [b"A-Za-z0-9._~!$&'()*+,=:@|[]"]),
        (b"/.well-known/jwks.json", [b".well-known", b"jwks.json"]),
        (b"/...", [b"..."]),
        (b"/..a/a../.a", [b"..a", b"a..", b".a"]),
    ],
)
def test_a_plain_path_is_cut_once_and_serves_for_both(path: bytes, segments: list[bytes]) -> None:
    answer = split_path(path, STRICT)
    assert answer == (segments, segments)
    assert answer[0] is answer[1]


@pytest.mark.parametrize(
    ("path", "raw", "decoded"),
    [
        (b"/caf%c3%A9/x", [b"caf%c3%A9", b"x"], ["café".encode(), b"x"]),
        (b"/a%2eb", [b"a%2eb"], [b"a.b"]),
        (b"/a%20b", [b"a%20b"], [b"a b"]),
        (b"/%3f%23", [b"%3f%23"], [b"?#"]),
        (b"/100%25", [b"100%25"], [b"100%"]),
        (b"/100%25.", [b"100%25."], [b"100%."]),
        (b"/50%2525", [b"50%2525"], [b"50%25"]),
        (b"/%252b", [b"%252b"], [b"%2b"]),
        (b"/%25c3%25a9", [b"%25c3%25a9"], [b"%c3%a9"]),
    ],
)
def test_segments_are_given_raw_and_decoded_once(path: bytes, raw: list[bytes], decoded: list[bytes]) -> None:
    assert split_path(path, STRICT) == (raw, decoded)


REFUSED = [
    *((path, "no slash") for path in (b"", b"a", b"*", b"%2fa")),
    *((path, "dot segment") for path in (b"/.", b"/..", b"/./a", b"/a/../b", b"/a/..", b"/a/./", b"/%2e")),
    *((path, "dot segment") for path in (b"/%2E%2e", b"/.%2e/a", b"/%2e./a", b"/a/%2e%2e/b", b"/a/%2E/")),
    *((path, "encoded slash") for path in (b"/a%2fb", b"/a%2F", b"/%2f", b"/..%2fa", b"/a/%2f..")),
    *((path, "backslash") for path in (b"/a\\b", b"/..\\a", b"/a%5cb", b"/%5C", b"/..%5ca")),
    *((path, "control byte") for path in (b"/\x00", b"/a\n", b"/a\r\nb", b"/\x1f", b"/\x7f", b"/a\tb")),
    *(
        (path, "control byte")
        for path in (b"/%00", b"/a%0a", b"/%0D%0A", b"/%1f", b"/%1F", b"/%7f", b"/a%09")
    ),
    *((path, "two hex digits") for path in (b"/%", b"/a%", b"/%2", b"/%g0", b"/%0g", b"/%%32e", b"/%u002e")),
    *((path, "two hex digits") for path in (b"/%2/e", b"/%+1", b"/%-1")),
    *(
        (path, "hides")
        for path in (b"/%252e%252e/a", b"/%25252f", b"/a%252E", b"/%255c", b"/%2500", b"/%253b")
    ),
    *(
        (path, "hides")
        for path in (b"/%25%32%65", b"/%25%32%46", b"/%2525%32e", b"/%25257F", b"/%251F", b"/%250a")
    ),
    *(
        (b"/a%25" + b"%02x" % byte + b"b", "hides")
        for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    ),
    *((path, "hides") for path in (b"/%2561dmin", b"/%25%36%31dmin", b"/%252561dmin", b"/%25%34%31")),
    *((path, "hides") for path in (b"/%25c0%25ae", b"/%25ff", b"/%2525e0%252580%2525af")),
    (b"/" + b"%25" + b"25" * 20, "too many layers"),
    *((path, "two slashes") for path in (b"//", b"//a", b"/a//b", b"/a//", b"///")),
    *(
        (path, "semicolon")
        for path in (b"/a;b", b"/;", b"/..;/a", b"/a;jsessionid=1/b", b"/a%3bb", b"/..%3B/a")
    ),
    *((path, "fragment") for path in (b"/a#b", b"/#")),
    *((path, "not ASCII") for path in (b"/\x80", b"/caf\xc3\xa9", b"/\xff")),
    *(
        (path, "not UTF-8")
        for path in (b"/%c0%ae%c0%ae/a", b"/%c0%af", b"/%e0%80%af", b"/%ff", b"/%ed%a0%80")
    ),
    *((path, "not UTF-8") for path in (b"/%c3", b"/%c3/%a9", b"/%f5%80%80%80")),
    *((b"/a" + bytes((byte,)), "percent-encoded") for byte in b' "<>^`{}?'),
]


@pytest.mark.parametrize(("path", "words"), REFUSED)
def test_what_two_servers_may_read_differently_is_refused(path: bytes, words: str) -> None:
    answer = split_path(path, STRICT)
    assert isinstance(answer, str)
    assert words in answer


@pytest.mark.parametrize(
    ("path", "words"), [row for row in REFUSED if row[1] not in ("two slashes", "semicolon")]
)
def test_no_permission_takes_back_the_other_rules(path: bytes, words: str) -> None:
    for policy in (DOUBLE_SLASH, SEMICOLON) if words == "encoded slash" else POLICIES:
        answer = split_path(path, policy)
        assert isinstance(answer, str)
        assert words in answer


@pytest.mark.parametrize(
    ("policy", "path", "raw", "decoded"),
    [
        (DOUBLE_SLASH, b"/a//b", [b"a", b"", b"b"], [b"a", b"", b"b"]),
        (DOUBLE_SLASH, b"//", [b"", b""], [b"", b""]),
        (SEMICOLON, b"/a;b=1/c", [b"a;b=1", b"c"], [b"a;b=1", b"c"]),
        (SEMICOLON, b"/a%3bb", [b"a%3bb"], [b"a;b"]),
        (SEMICOLON, b"/...;x", [b"...;x"], [b"...;x"]),
        (ENCODED_SLASH, b"/group%2Fproject/x", [b"group%2Fproject", b"x"], [b"group/project", b"x"]),
        (ENCODED_SLASH, b"/o/folder%2f", [b"o", b"folder%2f"], [b"o", b"folder/"]),
        (EVERYTHING, b"/a%2f%2fb//c;d", [b"a%2f%2fb", b"", b"c;d"], [b"a//b", b"", b"c;d"]),
    ],
)
def test_a_permission_takes_back_its_own_rule(
    policy: PathPolicy, path: bytes, raw: list[bytes], decoded: list[bytes]
) -> None:
    assert split_path(path, policy) == (raw, decoded)


@pytest.mark.parametrize(
    ("policy", "path", "words"),
    [
        (DOUBLE_SLASH, b"/a;b", "semicolon"),
        (DOUBLE_SLASH, b"/a%2fb", "encoded slash"),
        (DOUBLE_SLASH, b"/a//../b", "dot segment"),
        (SEMICOLON, b"/a//b", "two slashes"),
        (SEMICOLON, b"/a%2fb", "encoded slash"),
        (SEMICOLON, b"/..;/a", "dot segment"),
        (SEMICOLON, b"/.;x=1", "dot segment"),
        (SEMICOLON, b"/%2e%2e;a/b", "dot segment"),
        (SEMICOLON, b"/..%3b/b", "dot segment"),
        (SEMICOLON, b"/%253b", "hides"),
        (ENCODED_SLASH, b"/a//b", "two slashes"),
        (ENCODED_SLASH, b"/a;b", "semicolon"),
        (ENCODED_SLASH, b"/%2e%2e%2fa", "dot segment"),
        (ENCODED_SLASH, b"/..%2fa", "dot segment"),
        (ENCODED_SLASH, b"/a%2f..", "dot segment"),
        (ENCODED_SLASH, b"/a%2F.%2Fb", "dot segment"),
        (ENCODED_SLASH, b"/a%2f%2fb", "next to a slash"),
        (ENCODED_SLASH, b"/%2fa", "next to a slash"),
        (ENCODED_SLASH, b"/a%2f/b", "next to a slash"),
        (ENCODED_SLASH, b"/a%5cb", "backslash"),
        (ENCODED_SLASH, b"/a%252fb", "hides"),
        (EVERYTHING, b"/a%2f..;x/b", "dot segment"),
    ],
)
def test_a_permission_does_not_open_the_door_behind_it(policy: PathPolicy, path: bytes, words: str) -> None:
    answer = split_path(path, policy)
    assert isinstance(answer, str)
    assert words in answer


def test_only_known_permissions_can_be_given() -> None:
    with pytest.raises(
        ValueError, match="cannot allow dot_segments; it can allow double_slash, encoded_slash, semi"
    ):
        PathPolicy(frozenset({"dot_segments", "semicolon"}))
    assert PathPolicy() == STRICT == PathPolicy(frozenset())
    assert {name for name in ALLOWABLE if getattr(EVERYTHING, name)} == ALLOWABLE
    assert not any(getattr(STRICT, name) for name in ALLOWABLE)


@many
@given(paths, policies)
@example(b"/", STRICT)
@example(b"/a/.", STRICT)
@example(b"/a/", STRICT)
@example(b"/a//", DOUBLE_SLASH)
def test_the_shortcut_answers_what_the_policy_answers(path: bytes, policy: PathPolicy) -> None:
    assert split_path(path, policy) == split_path_fully(path, policy)


@pytest.mark.parametrize("byte", range(256))
def test_the_shortcut_knows_every_byte_as_the_policy_does(byte: int) -> None:
    for path in (b"/%c", b"/a%c", b"/%ca", b"/a/%c/b"):
        for policy in POLICIES:
            assert split_path(path % byte, policy) == split_path_fully(path % byte, policy)


@many
@given(paths, policies)
def test_what_is_taken_looks_harmless_however_often_it_is_decoded(path: bytes, policy: PathPolicy) -> None:
    answer = split_path(path, policy)
    if isinstance(answer, str):
        return
    raw, decoded = answer
    assert b"/" + b"/".join(raw) == path
    assert decoded == [unquote_to_bytes(segment) for segment in raw]
    first = layer = unquote_to_bytes(path)
    while True:
        layer.decode("utf-8")
        assert re.search(rb"[\x00-\x1f\x7f\\]", layer) is None
        assert policy.encoded_slash or layer.count(b"/") == path.count(b"/")
        assert policy.double_slash or b"//" not in layer
        assert policy.semicolon or b";" not in layer
        for segment in layer.split(b"/"):
            assert segment.split(b";")[0] not in (b".", b"..")
        # Below the first layer nothing that means something to a path comes to light any more.
        assert [layer.count(mark) for mark in (b"/", b".", b";")] == [
            first.count(m) for m in (b"/", b".", b";")
        ]
        deeper = unquote_to_bytes(layer)
        if deeper == layer:
            break
        layer = deeper


_public_parts = st.sampled_from(["a", "b", "{x}", "{y}", "café", "%7E", "{r*}", ""])
_target_parts = st.sampled_from(["v1", "{x}", "{y}", "d%C3%A9jà", "a+b", "[1]", "{r*}", ""])


def _path_text(parts: list[str]) -> str:
    return "/" + "/".join(parts)


@many
@given(
    st.lists(_public_parts, min_size=1, max_size=4).map(_path_text),
    st.lists(_target_parts, min_size=1, max_size=4).map(_path_text),
    mild_paths,
    st.sampled_from([b"", b"/base/v2"]),
)
@example("/{x}/{r*}", "/v1/{x}/{r*}", b"/a/b%61/", b"")
@example("/{r*}", "/{r*}", b"/a.b/%25", b"/base/v2")
def test_what_is_forwarded_would_be_taken_again(public: str, target: str, path: bytes, base: bytes) -> None:
    try:
        template = parse_public(public)
        pieces = target_pieces(template, parse_target(target))
    except TemplateError:
        return
    answer = split_path(path, STRICT)
    if isinstance(answer, str):
        return
    raw, _ = answer
    has_rest = isinstance(template.segments[-1], Rest)
    fixed = template.segments[:-1] if has_rest else template.segments
    # The segments a match would give: as many as the template has, none of them empty but for a last one.
    if len(raw) < len(fixed) or b"" in raw[: len(fixed)]:
        return
    forwarded = forward_path(base, pieces, raw)
    assert forwarded.startswith(b"/")
    assert not isinstance(split_path(forwarded, STRICT), str)


@pytest.mark.parametrize("query", [b"", b"a=1&b=2", b"?", b"%2e%2e/", b"q=%zz", b"{}|\\^`\"<>'"])
def test_a_query_of_visible_ascii_passes_untouched(query: bytes) -> None:
    assert query_is_clean(query)


@pytest.mark.parametrize("byte", [*range(0x21), ord("#"), *range(0x7F, 0x100)])
def test_a_query_holds_nothing_else(byte: int) -> None:
    for query in (b"%c", b"a%c", b"%ca"):
        assert not query_is_clean(query % byte)


def test_a_percent_sign_is_not_followed_through_any_number_of_layers() -> None:
    # Each layer costs one more pass over the path, so 4000 of them in one target must not be followed.
    deep = b"/%" + b"25" * 4000
    assert split_path(deep, STRICT) == "too many layers of percent-encoding"
