"""What is right as it stands and yet may not be meant: said by `authgate check`, refused by nobody.

A trailing slash is significant here (DESIGN section 4), but many backends take ``/admin`` and ``/admin/`` for the
same. Where the one is SECURE and a PUBLIC pattern such as ``/{rest*}`` takes the other, the check can be walked around.
"""

from __future__ import annotations

from collections.abc import Iterator

from authgate_fast.routing.template import Literal, Rest, parse_public
from authgate_fast.routing.trie import Node, select
from authgate_fast.snapshot import Gateway, Leaf, Route, Snapshot

_ANY_METHOD = b"GET"
_SAMPLE = b"\x00"  # no literal is called like that, so it stands for what a parameter takes


def shadows(snapshot: Snapshot) -> list[str]:
    """Return a sentence for each SECURE route whose path with (or without) a slash at the end is PUBLIC."""
    found = []
    for gateway in snapshot.gateways.values():
        for leaf in _leaves(gateway.trie.root):
            for route in {
                id(r): r for r in (*leaf.by_method.values(), leaf.any_route) if r is not None
            }.values():
                other = _public_twin(gateway, route) if route.secure else None
                if other is not None:
                    found.append(_sentence(gateway, route, *other))
    return sorted(found)


def _leaves(root: Node) -> Iterator[Leaf]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield from (leaf for leaf in (node.leaf, node.rest) if leaf is not None)
        waiting.extend(node.literals.values())
        if node.param is not None:
            waiting.append(node.param)


def _public_twin(gateway: Gateway, route: Route) -> tuple[str, Route] | None:
    """Return the path with the other ending, and the PUBLIC route that takes it."""
    path = route.public_path
    template = parse_public(path)
    if isinstance(template.segments[-1], Rest) or path == "/":
        return None  # {name*} takes both
    segments = [part.value if isinstance(part, Literal) else _SAMPLE for part in template.segments]
    if segments[-1]:
        twin, segments = path + "/", [*segments, b""]
    else:
        twin, segments = path[:-1], segments[:-1]
    leaf = gateway.trie.match(segments)
    other = (
        select(leaf, route.method if route.method != b"ANY" else _ANY_METHOD) if leaf is not None else None
    )
    return None if other is None or other.secure else (twin, other)


def _sentence(gateway: Gateway, route: Route, twin: str, other: Route) -> str:
    return (
        f"gateway {gateway.name}: the route {route.name} is SECURE on {route.public_path}, but {twin} is another path "
        f"and goes to the PUBLIC route {other.name} ({other.public_path}). A backend that takes both for one can be "
        f"reached without a credential: make {twin} SECURE too. (So it is with /Admin beside /admin.)"
    )
