"""What a document is called: its kind, its gateway, its own name, and the Redis key made of them.

Pure text, no IO. A key is well-formed or it is no key; nothing is repaired.
"""

from __future__ import annotations

import re
from sys import intern
from typing import Literal, NamedTuple

from authgate_fast.model_fields import NAME_PATTERN

Kind = Literal["gateway", "service", "route", "consumer"]

KINDS: tuple[str, ...] = ("gateway", "service", "route", "consumer")
KEY_PREFIXES: tuple[str, ...] = tuple(f"authgate:{kind}:" for kind in KINDS)

_NAME = re.compile(NAME_PATTERN)
_GATEWAY_KEY = re.compile(rf"authgate:gateway:({NAME_PATTERN})")
_OTHER_KEY = re.compile(rf"authgate:(service|route|consumer):({NAME_PATTERN}):({NAME_PATTERN})")


class DocumentKey(NamedTuple):
    """Names one document. For a gateway document ``name`` equals ``gateway``."""

    kind: str
    gateway: str
    name: str


class Unreadable(NamedTuple):
    """Stands in the place of a document that is there but could not be read (a Redis key of
    another type, a value over the size bound). It is refused with `message`; the last good version stays.
    """

    message: str


def is_name(text: str) -> bool:
    """Tell whether `text` may name a gateway, service, route or consumer."""
    return _NAME.fullmatch(text) is not None


def redis_key(key: DocumentKey) -> str:
    """Return the Redis key that holds the document."""
    if key.kind == "gateway":
        return f"authgate:gateway:{key.gateway}"
    return f"authgate:{key.kind}:{key.gateway}:{key.name}"


def parse_redis_key(text: str) -> DocumentKey | None:
    """Return the document that a Redis key names; None if it is not a well-formed configuration key."""
    match = _OTHER_KEY.fullmatch(text)
    if match is not None:
        kind, gateway, name = match.groups()
        return DocumentKey(intern(kind), intern(gateway), name)
    match = _GATEWAY_KEY.fullmatch(text)
    if match is not None:
        gateway = intern(match[1])
        return DocumentKey("gateway", gateway, gateway)
    return None


def label(key: DocumentKey) -> str:
    """Return the document's name for people: ``route shop-api/get-product``."""
    if key.kind == "gateway":
        return f"gateway {key.gateway}"
    return f"{key.kind} {key.gateway}/{key.name}"
