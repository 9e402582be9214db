"""Path templates: the ``public_path`` of a route, and the ``target_path`` built from it.

A segment is a literal, ``{name}`` (one non-empty segment) or, last only, ``{name*}`` (zero or more
segments). Literals obey the strict request-path policy, so that each of them can be matched and each
target that is built would pass the gateway's own check again. They may be written as they read
(UTF-8) or percent-encoded; matching compares decoded bytes, a backend gets them as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes

from authgate_fast.routing.path_policy import STRICT, split_path

# What quote_from_bytes leaves alone besides letters, digits and "_.-~": the rest of RFC 3986 pchar
# (';' never gets that far), and '%', because a literal's escapes stay as they were written.
_WIRE_SAFE: Final = "!$&'()*+,=:@%"
_is_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*").fullmatch
_is_colon_parameter = re.compile(r":[A-Za-z_][A-Za-z0-9_]*").fullmatch

Pieces = tuple[bytes | int, ...]


class TemplateError(ValueError):
    """A template that cannot be used; the text tells its author what to change."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A fixed segment: ``value`` as a request's decoded segment reads, ``wire`` as it is sent."""

    value: bytes
    wire: bytes


@dataclass(frozen=True, slots=True)
class Param:
    """``{name}``: exactly one non-empty segment."""

    name: str


@dataclass(frozen=True, slots=True)
class Rest:
    """``{name*}``: all segments that remain, maybe none."""

    name: str


Segment = Literal | Param | Rest


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. Two templates of equal ``shape`` match exactly the same paths."""

    text: str
    segments: tuple[Segment, ...]
    shape: Hashable
    is_literal: bool


def parse_public(text: str) -> Template:
    """Parse a ``public_path``; each parameter name may stand in it once."""
    template = _parse(text)
    seen: set[str] = set()
    for segment in template.segments:
        if isinstance(segment, Literal):
            continue
        if segment.name in seen:
            raise TemplateError(f"the parameter name {segment.name!r} is used twice; give each its own name")
        seen.add(segment.name)
    return template


def parse_target(text: str) -> Template:
    """Parse a ``target_path``; it may use a parameter as often as it likes."""
    return _parse(text)


def target_pieces(public: Template, target: Template) -> Pieces:
    """Return how to build the backend's path, as ``snapshot.Route.pieces`` documents it.

    The slash before a literal or ``{name}`` is part of the literal bytes; the one before each of the
    segments of ``{name*}`` belongs to the segments, so that none of them means no slash.
    """
    places: dict[str, tuple[int, Segment]] = {}
    for index, segment in enumerate(public.segments):
        if not isinstance(segment, Literal):
            places[segment.name] = (index, segment)
    pieces: list[bytes | int] = []
    literal = b""
    for segment in target.segments:
        if isinstance(segment, Literal):
            literal += b"/" + segment.wire
            continue
        index = _place(places, segment, public.text)
        if isinstance(segment, Param):
            literal += b"/"
        else:
            index = -1 - index
        if literal:
            pieces.append(literal)
        pieces.append(index)
        literal = b""
    if literal:
        pieces.append(literal)
    return tuple(pieces)


def build_path(pieces: Pieces, raw_segments: list[bytes]) -> bytes:
    """Fill `pieces` with a request's raw segments. The result is empty or starts with a slash."""
    path = b""
    for piece in pieces:
        if isinstance(piece, bytes):
            path += piece
        elif piece >= 0:
            path += raw_segments[piece]
        else:
            rest = raw_segments[-1 - piece :]
            if rest:
                path += b"/" + b"/".join(
                    rest
                )  # adding them one by one would cost time in the square of the path
    return path


def forward_path(base_path: bytes, pieces: Pieces, raw_segments: list[bytes]) -> bytes:
    """Return the path a backend gets: `base_path` and what `build_path` makes, ``/`` if both are empty."""
    return base_path + build_path(pieces, raw_segments) or b"/"


def _place(places: dict[str, tuple[int, Segment]], wanted: Param | Rest, public_text: str) -> int:
    """Return the index of `wanted` among the public segments; it must be of the same kind there."""
    name = wanted.name
    found = places.get(name)
    if found is None:
        known = ", ".join(sorted(places)) or "no parameters"
        raise TemplateError(f"{{{name}}} is not in the public path {public_text}, which has {known}")
    index, segment = found
    if type(segment) is not type(wanted):
        right = f"{{{name}*}}" if isinstance(segment, Rest) else f"{{{name}}}"
        raise TemplateError(f"{name!r} is {right} in the public path; write {right} here too")
    return index


def _parse(text: str) -> Template:
    if not text.startswith("/"):
        raise TemplateError("a path starts with '/', for instance /api/products/{id}")
    if "?" in text or "#" in text:
        raise TemplateError("a path has no query (?) and no fragment (#); a query is passed on by itself")
    parts = text[1:].split("/")
    segments: list[Segment] = []
    for position, part in enumerate(parts):
        is_last = position == len(parts) - 1
        if not part and not is_last:
            raise TemplateError("a path has no empty segments (//)")
        segment = _parse_segment(part)
        if isinstance(segment, Rest) and not is_last:
            raise TemplateError(f"{part} takes the rest of the path, so it must be the last segment")
        segments.append(segment)
    shape = tuple(segment.value if isinstance(segment, Literal) else type(segment) for segment in segments)
    is_literal = all(isinstance(segment, Literal) for segment in segments)
    return Template(text, tuple(segments), shape, is_literal)


def _parse_segment(part: str) -> Segment:
    if "{" not in part and "}" not in part:
        return _parse_literal(part)
    if part.count("{") != part.count("}") or part.find("}") < part.find("{"):
        raise TemplateError(f"the braces in {part!r} are unbalanced; a parameter is {{name}} or {{name*}}")
    if part[0] != "{" or part.find("}") != len(part) - 1:
        raise TemplateError(f"a parameter must be a whole segment between two slashes, which {part!r} is not")
    inner = part[1:-1]
    name = inner.removesuffix("*")
    if not name:
        raise TemplateError(f"the parameter {part} has no name; write {{name}} or {{name*}}")
    if _is_name(name) is None:
        raise TemplateError(
            f"{part!r} is not a parameter: it is {{name}} or {{name*}}, "
            "and a name has ASCII letters, digits, '_' and '-', no patterns or types"
        )
    return Param(name) if name == inner else Rest(name)


def _parse_literal(part: str) -> Literal:
    # The two usual ways to write a parameter elsewhere; taken as literals they would never match.
    if _is_colon_parameter(part) is not None:
        raise TemplateError(f"write {{{part[1:]}}} for a parameter, or %3A{part[1:]} for the text {part!r}")
    if part in ("*", "**"):
        text = part.replace("*", "%2A")
        raise TemplateError(f"write {{rest*}} for the rest of the path, or {text} for the text {part!r}")
    try:
        written = part.encode("utf-8")
    except UnicodeEncodeError:
        raise TemplateError(f"{part!r} is not valid Unicode text") from None
    # Only what is not ASCII is encoded for the author; the policy judges all the rest as it stands.
    judged = b"".join(b"%%%02X" % byte if byte >= 0x80 else bytes((byte,)) for byte in written)
    answer = split_path(b"/" + judged, STRICT)
    if isinstance(answer, str):
        raise TemplateError(f"{part!r} cannot be part of a path: it has {answer}")
    _, decoded = answer
    return Literal(decoded[0], quote_from_bytes(written, safe=_WIRE_SAFE).encode("ascii"))
