"""Path templates: what they accept, what they tell their author, and the pieces they become."""

from __future__ import annotations

import timeit

import pytest

from authgate_fast.routing.template import (
    Literal,
    Param,
    Rest,
    TemplateError,
    build_path,
    forward_path,
    parse_public,
    parse_target,
    target_pieces,
)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("/", (Literal(b"", b""),)),
        ("/a", (Literal(b"a", b"a"),)),
        ("/a/", (Literal(b"a", b"a"), Literal(b"", b""))),
        ("/a/{id}", (Literal(b"a", b"a"), Param("id"))),
        ("/a/{id}/", (Literal(b"a", b"a"), Param("id"), Literal(b"", b""))),
        ("/{a}/{b-2}/{c_3*}", (Param("a"), Param("b-2"), Rest("c_3"))),
        ("/{rest*}", (Rest("rest"),)),
        ("/.well-known/...", (Literal(b".well-known", b".well-known"), Literal(b"...", b"..."))),
        ("/v1:batch/a*b", (Literal(b"v1:batch", b"v1:batch"), Literal(b"a*b", b"a*b"))),
        ("/%7Bid%7D", (Literal(b"{id}", b"%7Bid%7D"),)),
        ("/%3Aid/%2A", (Literal(b":id", b"%3Aid"), Literal(b"*", b"%2A"))),
    ],
)
def test_a_template_is_literals_parameters_and_a_rest(text: str, segments: object) -> None:
    template = parse_public(text)
    assert template.segments == segments
    assert template.text == text


def test_a_literal_reads_the_same_raw_or_percent_encoded_and_is_sent_in_ascii() -> None:
    raw, encoded = parse_public("/café"), parse_public("/caf%c3%A9")
    assert raw.shape == encoded.shape
    assert raw.segments == (Literal("café".encode(), b"caf%C3%A9"),)
    assert encoded.segments == (Literal("café".encode(), b"caf%c3%A9"),)


def test_a_literal_is_sent_with_the_escapes_its_author_wrote() -> None:
    # RFC 3986 section 2.2: "+" and "%2B" are not equivalent.
    pieces = target_pieces(parse_public("/x"), parse_target("/a%2Bb+c/d[1]|2"))
    assert pieces == (b"/a%2Bb+c/d%5B1%5D%7C2",)


def test_shapes_differ_by_anything_but_parameter_names() -> None:
    shapes = [
        parse_public(text).shape
        for text in ("/a/{x}", "/a/{x*}", "/a/x", "/a/", "/a", "/{x}/a", "/a/{x}/", "/A", "/a/Param")
    ]
    assert len(set(shapes)) == len(shapes)
    assert parse_public("/a/{x}/{y*}").shape == parse_public("/a/{id}/{rest*}").shape


def test_only_a_template_without_parameters_is_literal() -> None:
    assert [parse_public(text).is_literal for text in ("/", "/a/b", "/a/{x}", "/{x*}")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "starts with '/'"),
        ("a/b", "starts with '/'"),
        ("{a}", "starts with '/'"),
        ("https://example.com/a", "starts with '/'"),
        ("//", "empty segments"),
        ("/a//b", "empty segments"),
        ("/a?b=1", "no query"),
        ("/a#b", "no fragment"),
        ("/{id", "unbalanced"),
        ("/id}", "unbalanced"),
        ("/}id{", "unbalanced"),
        ("/{a/b}", "unbalanced"),
        ("/a{id}", "whole segment"),
        ("/{id}b", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/{a}-{b}", "whole segment"),
        ("/{{id}}", "whole segment"),
        ("/{}", "no name"),
        ("/{*}", "no name"),
        ("/{id:int}", "no patterns or types"),
        ("/{*rest}", "no patterns or types"),
        ("/{rest**}", "no patterns or types"),
        ("/{i d}", "no patterns or types"),
        ("/{é}", "no patterns or types"),
        ("/{id\n}", "no patterns or types"),
        ("/{-id}", "no patterns or types"),
        ("/{rest*}/a", "must be the last"),
        ("/{rest*}/", "must be the last"),
        ("/.", "dot segment"),
        ("/a/../b", "dot segment"),
        ("/%2e%2E", "dot segment"),
        ("/.%2e", "dot segment"),
        ("/a\\b", "backslash"),
        ("/a%5Cb", r"encoded backslash"),
        ("/a;b", "semicolon"),
        ("/a%3bb", "encoded semicolon"),
        ("/a%2Fb", "encoded slash"),
        ("/a b", "must be percent-encoded"),
        ('/"a"', "must be percent-encoded"),
        ("/a^b", "must be percent-encoded"),
        ("/a\tb", "control byte"),
        ("/a\n", "control byte"),
        ("/\x7f", "control byte"),
        ("/%00", "encoded control byte"),
        ("/%7F", "encoded control byte"),
        ("/%", "two hex digits"),
        ("/%4", "two hex digits"),
        ("/%zz", "two hex digits"),
        ("/%c0%ae", "not UTF-8"),
        ("/%ff", "not UTF-8"),
        ("/%252e", "hides"),
        ("/\ud800", "not valid Unicode"),
        ("/users/:id", "write {id}"),
        ("/files/*", "write {rest*}"),
        ("/files/**", "write {rest*}"),
    ],
)
def test_what_cannot_be_a_template_is_refused_with_a_sentence(text: str, words: str) -> None:
    for parse in (parse_public, parse_target):
        with pytest.raises(TemplateError) as caught:
            parse(text)
        assert words in str(caught.value)


def test_a_public_path_names_each_parameter_once() -> None:
    for text in ("/{id}/{id}", "/{id}/{id*}"):
        with pytest.raises(TemplateError, match="'id' is used twice"):
            parse_public(text)


@pytest.mark.parametrize(
    ("public", "target", "pieces"),
    [
        ("/", "/", (b"/",)),
        ("/a", "/x/y/", (b"/x/y/",)),
        ("/api/products/{id}", "/products/{id}", (b"/products/", 2)),
        ("/{a}/{b}", "/{b}/{a}", (b"/", 1, b"/", 0)),
        ("/{a}/{b}", "/{b}", (b"/", 1)),
        ("/{a}", "/{a}/x/{a}/", (b"/", 0, b"/x/", 0, b"/")),
        ("/{rest*}", "/{rest*}", (-1,)),
        ("/files/{rest*}", "/data/v1/{rest*}", (b"/data/v1", -2)),
        ("/{a}/b/{rest*}", "/{a}/{rest*}", (b"/", 0, -3)),
        ("/{a}/b/{rest*}", "/x", (b"/x",)),
    ],
)
def test_pieces_are_merged_literals_and_places_of_segments(public: str, target: str, pieces: object) -> None:
    assert target_pieces(parse_public(public), parse_target(target)) == pieces


@pytest.mark.parametrize(
    ("public", "target", "words"),
    [
        ("/{id}", "/{key}", "{key} is not in the public path /{id}, which has id"),
        ("/a", "/{id}", "which has no parameters"),
        ("/{rest*}", "/{rest}", "write {rest*} here too"),
        ("/{id}", "/{id*}", "write {id} here too"),
    ],
)
def test_a_target_uses_the_parameters_of_its_public_path_as_they_are(
    public: str, target: str, words: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        target_pieces(parse_public(public), parse_target(target))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("pieces", "raw", "path"),
    [
        ((b"/x",), [b"a"], b"/x"),
        ((b"/products/", 2), [b"api", b"products", b"caf%c3%a9"], b"/products/caf%c3%a9"),
        ((b"/", 1, b"/", 0), [b"a", b"b"], b"/b/a"),
        ((b"/data", -2), [b"files"], b"/data"),
        ((b"/data", -2), [b"files", b""], b"/data/"),
        ((b"/data", -2), [b"files", b"a", b"b", b""], b"/data/a/b/"),
        ((-2,), [b"files"], b""),
        ((-1,), [b""], b"/"),
    ],
)
def test_a_path_is_built_from_the_raw_segments(
    pieces: tuple[bytes | int, ...], raw: list[bytes], path: bytes
) -> None:
    assert build_path(pieces, raw) == path
    assert forward_path(b"/base", pieces, raw) == b"/base" + path


def test_a_rest_of_many_segments_costs_time_in_proportion_to_their_number() -> None:
    def seconds(count: int) -> float:
        segments = [b"files"] + [b"a"] * count
        return min(timeit.repeat(lambda: build_path((-2,), segments), number=1, repeat=5))

    assert seconds(64_000) < 80 * seconds(4_000)  # 16 times is proportionate, 256 times would be the square


def test_a_backend_never_gets_an_empty_path() -> None:
    assert forward_path(b"", (-2,), [b"files"]) == b"/"
    assert forward_path(b"", (-2,), [b"files", b"a"]) == b"/a"
    assert forward_path(b"/v1", (-2,), [b"files"]) == b"/v1"
