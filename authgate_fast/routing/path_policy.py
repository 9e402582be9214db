"""The request-path policy: which paths are served at all, and how they are cut into segments.

Promise: a path that two servers may read differently is refused, never repaired. What is accepted
gives the same segments to every reader, whether it decodes before it cuts, after it, or twice, and
decoding never makes a dot segment, a slash or a control byte appear. The gateway's `allow` list
takes back three of the rules by name and nothing else.

`split_path_fully` is the policy. `split_path` gives the same answer, faster for plain paths; a test
holds the two together. Paths are the raw bytes of the request target up to its ``?``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

ALLOWABLE: Final = frozenset({"double_slash", "semicolon", "encoded_slash"})

# An encoded percent sign inside an encoded percent sign, and so on. Nobody writes the third layer in
# earnest; the bound keeps a target full of %2525... from costing time quadratic in its length.
_MAX_LAYERS: Final = 4

# RFC 3986 pchar without ';' and '%', and the three characters that browsers send raw besides.
_PLAIN: Final = rb"A-Za-z0-9_~!$&'()*+,=:@|\[\]\-"
_plain_path: Final = re.compile(
    rb"/(?:[" + _PLAIN + rb"][" + _PLAIN + rb".]*+(?:/[" + _PLAIN + rb"][" + _PLAIN + rb".]*+)*+/?)?"
).fullmatch

_find_stranger: Final = re.compile(rb"[^" + _PLAIN + rb".;%/]").search
_find_bad_escape: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_find_control: Final = re.compile(rb"[\x00-\x1f\x7f]").search
# A segment that is one or two dots, also when a path parameter follows.
_find_dot_segment: Final = re.compile(rb"/\.\.?(?=[/;]|\Z)").search
# . / \ ; and control bytes: harmless nowhere below the first layer of encoding. And what never needs encoding (RFC 3986
# section 2.3: letters, digits, - _ ~): nobody encodes it twice but to be another name here than for a backend.
_find_hidden: Final = re.compile(
    rb"%(?:[01][0-9A-Fa-f]|2[D-Fd-f]|3[0-9Bb]|[46][1-9A-Fa-f]|5[0-9AaCcFf]|7[0-9AaEeFf])"
).search
_clean_query: Final = re.compile(rb"[!\"$-~]*+").fullmatch

Segments = tuple[list[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """What one gateway takes beyond the default: any of ``ALLOWABLE``."""

    allow: frozenset[str] = frozenset()
    double_slash: bool = field(init=False)
    semicolon: bool = field(init=False)
    encoded_slash: bool = field(init=False)

    def __post_init__(self) -> None:
        unknown = sorted(self.allow - ALLOWABLE)
        if unknown:
            known = ", ".join(sorted(ALLOWABLE))
            raise ValueError(f"a path policy cannot allow {', '.join(unknown)}; it can allow {known}")
        for name in ALLOWABLE:
            object.__setattr__(self, name, name in self.allow)


STRICT: Final = PathPolicy()


def split_path(path: bytes, policy: PathPolicy) -> Segments | str:
    """Return (raw segments, decoded segments), or in a few words why `path` is refused.

    Segments come without the leading slash: ``/`` is ``[b""]``, ``/a/`` is ``[b"a", b""]``. The two
    lists are one object where decoding changes nothing: treat them as immutable.
    """
    if _plain_path(path) is not None:
        segments = path.split(b"/")
        del segments[0]
        return segments, segments
    return split_path_fully(path, policy)


def split_path_fully(path: bytes, policy: PathPolicy) -> Segments | str:
    """Do what `split_path` does, without its shortcut."""
    if not path.startswith(b"/"):
        return "no slash at the start"
    stranger = _find_stranger(path)
    if stranger is not None:
        return _describe_stranger(stranger[0])
    if not policy.semicolon and b";" in path:
        return "a semicolon (;)"
    if not policy.double_slash and b"//" in path:
        return "two slashes in a row (//)"
    decoded = path
    if b"%" in path:
        if _find_bad_escape(path) is not None:
            return "a percent sign without two hex digits"
        decoded = unquote_to_bytes(path)
        fault = _decoding_fault(path, decoded, policy)
        if fault is not None:
            return fault
    if _find_dot_segment(decoded) is not None:
        return "a dot segment (. or ..)"
    raw_segments = path.split(b"/")
    del raw_segments[0]
    if decoded is path:
        return raw_segments, raw_segments
    # Cut first, then decode: an encoded slash, where it is allowed, stays inside its segment.
    return raw_segments, [unquote_to_bytes(s) if b"%" in s else s for s in raw_segments]


def query_is_clean(query: bytes) -> bool:
    """Tell whether a query (without its ``?``) is visible ASCII without ``#``."""
    return _clean_query(query) is not None


def _describe_stranger(byte: bytes) -> str:
    if byte == b"\\":
        return "a backslash"
    if byte == b"#":
        return "a fragment (#)"
    if byte >= b"\x80":
        return "a byte that is not ASCII"
    if _find_control(byte) is not None:
        return "a control byte"
    return f"the character {byte.decode('ascii')!r}, which must be percent-encoded"


def _decoding_fault(path: bytes, decoded: bytes, policy: PathPolicy) -> str | None:
    """Judge what decoding `path` once brought to light, and what decoding it again would bring."""
    if _find_control(decoded) is not None:
        return "an encoded control byte"
    if b"\\" in decoded:
        return "an encoded backslash (%5c)"
    if not policy.encoded_slash and decoded.count(b"/") != path.count(b"/"):
        return "an encoded slash (%2f)"
    if not policy.double_slash and b"//" in decoded:
        return "an encoded slash next to a slash"
    if not policy.semicolon and b";" in decoded:
        return "an encoded semicolon (%3b)"
    if not _is_utf8(decoded):
        return "percent-encoded bytes that are not UTF-8"
    layer = decoded
    for _ in range(_MAX_LAYERS):
        if b"%" not in layer:
            return None
        if _find_hidden(layer) is not None:
            return "an encoded percent sign (%25) that hides another encoding"
        deeper = unquote_to_bytes(layer)
        if deeper == layer:
            return None
        if not _is_utf8(deeper):
            return "an encoded percent sign (%25) that hides bytes that are not UTF-8"
        layer = deeper
    return "too many layers of percent-encoding"


def _is_utf8(text: bytes) -> bool:
    # Python's decoder refuses overlong forms and surrogates (RFC 3629).
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
