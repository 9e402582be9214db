"""The compiled trie against the rules of matching, and against a matcher that a reader can check by eye."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authgate_fast.routing.template import Literal, Param, Template, parse_public
from authgate_fast.routing.trie import Node, RouteConflict, Trie, build_trie, select
from authgate_fast.snapshot import Leaf, Route, TimeoutSettings

SETTINGS = TimeoutSettings(None, 30, 5, 60, 60)


def make_route(public_path: str, method: str = "GET", name: str = "") -> tuple[Template, Route]:
    name = name or f"{method} {public_path}"
    route = Route(name, method.encode(), public_path, False, "s", None, (b"/",), SETTINGS)
    return parse_public(public_path), route


def make_trie(*public_paths: str) -> Trie:
    return build_trie(make_route(path) for path in public_paths)


def cut(path: str) -> list[bytes]:
    return path.encode().split(b"/")[1:]


def winner(trie: Trie, path: str) -> str | None:
    leaf = trie.match(cut(path))
    return None if leaf is None else leaf.by_method[b"GET"].public_path


# The second opinion. --------------------------------------------------------------------------


def fits(template: Template, segments: list[bytes]) -> bool:
    for index, wanted in enumerate(template.segments):
        if isinstance(wanted, Literal):
            if index >= len(segments) or segments[index] != wanted.value:
                return False
        elif isinstance(wanted, Param):
            if index >= len(segments) or segments[index] == b"":
                return False
        else:
            return True
    return len(template.segments) == len(segments)


def rank(template: Template) -> list[int]:
    """Smaller is more specific; a template that ends comes before one that goes on with {name*}."""
    return [0 if isinstance(s, Literal) else 1 if isinstance(s, Param) else 2 for s in template.segments]


def naive_match(templates: list[Template], segments: list[bytes]) -> Template | None:
    return min((t for t in templates if fits(t, segments)), key=rank, default=None)


def numbered(parts: list[str]) -> list[str]:
    """Give each parameter of a template a name of its own."""
    return [f"{{p{index}}}" if part == "{}" else part for index, part in enumerate(parts)]


_template_parts = st.lists(st.sampled_from(["a", "b", "{}"]), max_size=4).map(numbered)
_ends = st.sampled_from([[], [], [""], ["{r*}"]])
template_texts = st.builds(lambda parts, end: "/" + "/".join(parts + end), _template_parts, _ends)
request_segments = st.lists(st.sampled_from([b"a", b"b", b"c", b""]), min_size=1, max_size=5)


def distinct(texts: list[str]) -> list[Template]:
    """Return one template per shape; ``/`` is what the generators make of no parts at all."""
    return list({template.shape: template for template in map(parse_public, texts)}.values())


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(template_texts, max_size=12), st.lists(request_segments, min_size=1, max_size=6), st.randoms()
)
@example(["/a/{p}/b", "/{p}/a/{r*}"], [[b"a", b"a", b"a"]], random.Random(1))
@example(["/a/b/a", "/{p}/b/b", "/a/{r*}"], [[b"a", b"b", b"b"], [b"a"], [b"a", b""]], random.Random(1))
def test_the_trie_and_a_naive_matcher_agree_whatever_the_order(
    texts: list[str], requests: list[list[bytes]], shuffler: random.Random
) -> None:
    templates = distinct(texts)
    shuffled = list(templates)
    shuffler.shuffle(shuffled)
    for order in (templates, shuffled):
        trie = build_trie(make_route(template.text) for template in order)
        for segments in requests:
            leaf = trie.match(segments)
            expected = naive_match(templates, segments)
            found = None if leaf is None else leaf.by_method[b"GET"].public_path
            assert found == (None if expected is None else expected.text)


# The rules, one by one. -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("templates", "path", "expected"),
    [
        (["/"], "/", "/"),
        (["/"], "/a", None),
        ([], "/", None),
        (["/a"], "/a", "/a"),
        (["/a"], "/a/", None),
        (["/a/"], "/a", None),
        (["/a/"], "/a/", "/a/"),
        (["/a"], "/A", None),
        (["/a/b"], "/a", None),
        (["/a"], "/a/b", None),
        (["/{x}"], "/a", "/{x}"),
        (["/{x}"], "/", None),
        (["/{x}"], "/a/", None),
        (["/{x}"], "/a/b", None),
        (["/{x}/"], "/a/", "/{x}/"),
        (["/a/{x}"], "/a/", None),
        (["/files/{r*}"], "/files", "/files/{r*}"),
        (["/files/{r*}"], "/files/", "/files/{r*}"),
        (["/files/{r*}"], "/files/a/b", "/files/{r*}"),
        (["/files/{r*}"], "/files/a/b/", "/files/{r*}"),
        (["/files/{r*}"], "/filesystem", None),
        (["/{r*}"], "/", "/{r*}"),
        (["/{r*}"], "/a/b", "/{r*}"),
        (["/files/{r*}", "/files"], "/files", "/files"),
        (["/files/{r*}", "/files/"], "/files/", "/files/"),
        (["/files/{r*}", "/files"], "/files/", "/files/{r*}"),
        (["/{r*}", "/"], "/", "/"),
        (["/a/{x}", "/a/b"], "/a/b", "/a/b"),
        (["/a/{x}", "/a/b"], "/a/c", "/a/{x}"),
        (["/a/{r*}", "/a/{x}"], "/a/b", "/a/{x}"),
        (["/a/{r*}", "/a/{x}"], "/a", "/a/{r*}"),
        (["/a/{x}/{r*}", "/a/{r*}"], "/a/b", "/a/{x}/{r*}"),
        (["/a/{x}/{r*}", "/a/{x}"], "/a/b", "/a/{x}"),
        (["/{x}/b", "/a/{y}"], "/a/b", "/a/{y}"),
        (["/{r*}", "/{x}/{y}"], "/a/b", "/{x}/{y}"),
    ],
)
def test_the_most_specific_template_wins(templates: list[str], path: str, expected: str | None) -> None:
    assert winner(make_trie(*templates), path) == expected


@pytest.mark.parametrize(
    ("templates", "path", "expected"),
    [
        (["/a/b/c", "/a/{x}/d"], "/a/b/d", "/a/{x}/d"),
        (["/a/b/c", "/{x}/b/d"], "/a/b/d", "/{x}/b/d"),
        (["/a/b/c", "/a/{r*}"], "/a/b/d", "/a/{r*}"),
        (["/a/b/c", "/{r*}"], "/a/b/d", "/{r*}"),
        (["/a/b/c", "/{r*}"], "/a/b", "/{r*}"),
        (["/a/b/c", "/{x}/b", "/{r*}"], "/a/b", "/{x}/b"),
        (["/a/b/c", "/a/{x}/d/{r*}", "/{r*}"], "/a/b/d", "/a/{x}/d/{r*}"),
        (["/a/b/c", "/a/{x}/e", "/{x}/{y}/d", "/{r*}"], "/a/b/d", "/{x}/{y}/d"),
        (["/a/", "/a/{x}/", "/{r*}"], "/a//", "/{r*}"),
        (["/a/b/c", "/a/{x}/d"], "/a/b/e", None),
    ],
)
def test_a_way_that_leads_nowhere_does_not_hide_another(
    templates: list[str], path: str, expected: str | None
) -> None:
    for order in itertools.permutations(templates):
        assert winner(make_trie(*order), path) == expected


def test_the_path_decides_before_the_method() -> None:
    trie = build_trie([make_route("/a/b", "POST"), make_route("/a/{x}", "GET")])
    leaf = trie.match([b"a", b"b"])
    assert leaf is not None
    assert select(leaf, b"GET") is None
    assert leaf.allow == b"OPTIONS, POST"


def the_leaf(*methods: str) -> Leaf:
    leaf = build_trie(make_route("/a/{x}", method) for method in methods).match([b"a", b"1"])
    assert leaf is not None
    return leaf


@pytest.mark.parametrize(
    ("methods", "allow"),
    [
        (["POST"], b"OPTIONS, POST"),
        (["GET"], b"GET, HEAD, OPTIONS"),
        (["HEAD"], b"HEAD, OPTIONS"),
        (["PUT", "GET", "DELETE", "OPTIONS"], b"DELETE, GET, HEAD, OPTIONS, PUT"),
        (["ANY"], b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (["PURGE", "ANY"], b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PURGE, PUT"),
    ],
)
def test_allow_lists_what_the_path_answers(methods: list[str], allow: bytes) -> None:
    assert the_leaf(*methods).allow == allow
    assert the_leaf(*reversed(methods)).allow == allow


@pytest.mark.parametrize(
    ("methods", "method", "expected"),
    [
        (["GET"], "GET", "GET"),
        (["GET"], "HEAD", "GET"),
        (["GET", "HEAD"], "HEAD", "HEAD"),
        (["GET"], "POST", None),
        (["GET"], "OPTIONS", None),
        (["GET"], "get", None),
        (["ANY"], "GET", "ANY"),
        (["ANY"], "OPTIONS", "ANY"),
        (["ANY"], "PROPFIND", "ANY"),
        (["ANY", "GET"], "GET", "GET"),
        (["ANY", "GET"], "HEAD", "GET"),
        (["ANY", "GET"], "POST", "ANY"),
        (["POST"], "HEAD", None),
    ],
)
def test_a_method_takes_its_own_route_then_any(methods: list[str], method: str, expected: str | None) -> None:
    for order in itertools.permutations(methods):
        route = select(the_leaf(*order), method.encode())
        assert (None if route is None else route.method.decode()) == expected


def test_any_is_not_a_method_a_client_can_name() -> None:
    assert select(the_leaf("GET"), b"ANY") is None
    assert b"ANY" not in the_leaf("GET", "ANY").by_method


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/a/{x}", "GET"), ("/a/{y}", "GET")),
        (("/a/{x*}", "ANY"), ("/a/{y*}", "ANY")),
        (("/café", "POST"), ("/caf%C3%A9", "POST")),
    ],
)
def test_two_routes_of_one_shape_and_method_are_a_conflict(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    items = [make_route(*one, name="old"), make_route("/else"), make_route(*other, name="new")]
    with pytest.raises(RouteConflict) as caught:
        build_trie(items)
    assert (caught.value.first, caught.value.second) == ("old", "new")
    for words in ("'old'", "'new'", one[0], other[0], one[1]):
        assert words in str(caught.value)


def test_one_shape_may_have_a_route_for_each_method() -> None:
    items = [make_route("/a/{x}", "GET"), make_route("/a/{y}", "POST"), make_route("/a/{z}", "ANY")]
    leaf = build_trie(items).match([b"a", b"1"])
    assert leaf is not None
    assert select(leaf, b"POST") is items[1][1]
    assert select(leaf, b"PUT") is items[2][1]


# The cost, counted and not timed. --------------------------------------------------------------


class CountingDict(dict[bytes, Node]):
    """The literals of one node; tells `visits` each time a match looks at the node."""

    def __init__(self, items: dict[bytes, Node], node: Node, visits: Counter[Node]) -> None:
        super().__init__(items)
        self.node = node
        self.visits = visits

    def get(self, key: bytes, default: object = None) -> Node | None:  # type: ignore[override]
        self.visits[self.node] += 1
        return super().get(key)


def all_nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in [*node.literals.values(), *([node.param] if node.param else [])]:
        yield from all_nodes(child)


def count_visits(trie: Trie) -> Counter[Node]:
    visits: Counter[Node] = Counter()
    for node in list(all_nodes(trie.root)):
        node.literals = CountingDict(node.literals, node, visits)
    return visits


def many_routes(count: int) -> Trie:
    paths = [
        [f"/api/v1/things-{i}", f"/api/v1/things-{i}/{{id}}", f"/api/v{i}/{{id}}/x", f"/t{i}/{{r*}}"]
        for i in range(count // 4 + 1)
    ]
    return make_trie(*[path for group in paths for path in group][:count])


@pytest.mark.replaces_insides
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/things-1",
        "/api/v1/things-1/17",
        "/api/v1/17/x",
        "/t1/a/b/c",
        "/nowhere/a",
        "/api/v1/17/y",
        "/",
    ],
)
def test_a_match_among_10000_routes_visits_what_it_visits_among_10(path: str) -> None:
    seen = []
    for count in (10, 10_000):
        trie = many_routes(count)
        visits = count_visits(trie)
        trie.match(cut(path))
        seen.append(visits.total())
    assert seen[0] == seen[1] > 0


@pytest.mark.replaces_insides
def test_a_search_visits_each_node_at_most_once() -> None:
    # Every mix of a literal and a parameter, eight deep, and no template that the path completes.
    mixes = itertools.product(["a", "{}"], repeat=8)
    trie = make_trie(*["/" + "/".join(numbered([*mix, "end"])) for mix in mixes])
    nodes = len(list(all_nodes(trie.root)))
    visits = count_visits(trie)
    assert trie.match([b"a"] * 8 + [b"none"]) is None
    # The quick way down comes before the search and sees one node per segment.
    assert visits.total() <= nodes + 9
    assert max(visits.values()) <= 2


@pytest.mark.replaces_insides
def test_a_path_longer_than_every_template_costs_no_more_than_the_depth_of_the_trie() -> None:
    trie = make_trie("/a/a/a", "/a/{r*}")
    visits = count_visits(trie)
    assert winner(trie, "/a" * 4000) == "/a/{r*}"
    assert visits.total() <= 8
