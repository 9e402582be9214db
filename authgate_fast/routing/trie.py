"""The compiled routes of one gateway: from the decoded segments of a path to what the path offers.

The path decides first, then the method: the most specific template that fits the whole path wins,
whatever its methods are. Templates are compared segment by segment, literal before ``{name}`` before
``{name*}``, so the winner never depends on the order of the routes. Built once, never edited after.

Cost: a look-up goes down one node per segment and does not see the other routes. Only where literals
and parameters overlap and the first way down leads nowhere is there a search; it visits a node at
most once, because a node of a tree can be reached in one way only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from authgate_fast.routing.template import Literal, Param, Template
from authgate_fast.snapshot import Leaf, Route

ANY: Final = b"ANY"

# What an ANY route is said to allow; it takes every other method too.
_COMMON_METHODS: Final = (b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT")


class RouteConflict(ValueError):  # noqa: N818  # it is what the documents call it: a conflict
    """Two routes answer the same method on the same paths. ``first`` was there before ``second``."""

    def __init__(self, first: Route, second: Route) -> None:
        super().__init__(
            f"routes {first.name!r} and {second.name!r} both answer {second.method.decode('ascii')} "
            f"on {first.public_path} ({second.public_path} matches the same paths)"
        )
        self.first = first.name
        self.second = second.name


class Node:
    """A prefix of some templates. ``leaf`` is for paths that end here, ``rest`` for ``{name*}``."""

    __slots__ = ("leaf", "literals", "param", "rest")

    def __init__(self) -> None:
        self.literals: dict[bytes, Node] = {}
        self.param: Node | None = None
        self.leaf: Leaf | None = None
        self.rest: Leaf | None = None


class Trie:
    """The routes of one gateway; see the module for the rules and `build_trie` to make one."""

    __slots__ = ("root",)

    def __init__(self, root: Node) -> None:
        self.root = root

    def match(self, segments: Sequence[bytes]) -> Leaf | None:
        """Return the leaf of the most specific template for decoded `segments`, or None.

        Going down by the first choice at each segment, without a way back in mind, is right whenever
        it arrives: no other way could have been more specific. When it does not, `_search` decides.
        """
        node = self.root
        for segment in segments:
            child = node.literals.get(segment)
            if child is None:
                child = node.param
                if child is None or not segment:
                    return self._search(segments)
            node = child
        return node.leaf or node.rest or self._search(segments)

    def _search(self, segments: Sequence[bytes]) -> Leaf | None:
        """Walk depth first, the more specific choice first, until a template is complete."""
        count = len(segments)
        # Alternatives not tried yet, the best one last: a node with the number of segments used up,
        # or None with the leaf of a {name*} that would take everything from there on.
        waiting: list[tuple[Node, int, Leaf | None]] = [(self.root, 0, None)]
        while waiting:
            node, depth, leaf = waiting.pop()
            if leaf is not None:
                return leaf
            rest = node.rest
            if depth == count:
                leaf = node.leaf or rest
                if leaf is not None:
                    return leaf
                continue
            if rest is not None:
                waiting.append((node, depth, rest))
            segment = segments[depth]
            depth += 1
            if segment and node.param is not None:
                waiting.append((node.param, depth, None))
            child = node.literals.get(segment)
            if child is not None:
                waiting.append((child, depth, None))
        return None


def build_trie(items: Iterable[tuple[Template, Route]]) -> Trie:
    """Compile routes with their public paths; raise `RouteConflict` for two of one shape and method."""
    shapes: dict[object, tuple[Template, dict[bytes, Route]]] = {}
    for template, route in items:
        _, methods = shapes.setdefault(template.shape, (template, {}))
        first = methods.setdefault(route.method, route)
        if first is not route:
            raise RouteConflict(first, route)
    root = Node()
    for template, methods in shapes.values():
        _plant(root, template, _make_leaf(methods))
    return Trie(root)


def select(leaf: Leaf, method: bytes) -> Route | None:
    """Return the route of `leaf` for `method`: its own, else the ANY route, else None (405)."""
    return leaf.by_method.get(method, leaf.any_route)


def _plant(root: Node, template: Template, leaf: Leaf) -> None:
    node = root
    for segment in template.segments:
        if isinstance(segment, Literal):
            node = node.literals.setdefault(segment.value, Node())
        elif isinstance(segment, Param):
            if node.param is None:
                node.param = Node()
            node = node.param
        else:
            node.rest = leaf
            return
    node.leaf = leaf


def _make_leaf(methods: dict[bytes, Route]) -> Leaf:
    by_method = dict(methods)
    any_route = by_method.pop(ANY, None)
    if b"GET" in by_method:
        by_method.setdefault(b"HEAD", by_method[b"GET"])
    allowed = {*by_method, b"OPTIONS"}
    if any_route is not None:
        allowed.update(_COMMON_METHODS)
    return Leaf(by_method, any_route, b", ".join(sorted(allowed)))
