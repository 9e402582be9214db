"""What a document is called: its kind, its gateway, its own name, and the Redis key made of them.

Pure text, no IO. A key is well-formed or it is no key; nothing is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from sys import intern
from typing import Final, Literal, NamedTuple

from authgate_fast.model_fields import NAME_PATTERN

Kind = Literal["gateway", "service", "route", "consumer"]

KINDS: tuple[str, ...] = ("gateway", "service", "route", "consumer")
KEY_PREFIXES: tuple[str, ...] = tuple(f"authgate:{kind}:" for kind in KINDS)

_NAME = re.compile(NAME_PATTERN)
_GATEWAY_KEY = re.compile(rf"authgate:gateway:({NAME_PATTERN})")
_OTHER_KEY = re.compile(rf"authgate:(service|route|consumer):({NAME_PATTERN}):({NAME_PATTERN})")
_CONSUMER: Final = b"authgate:consumer:"
_NAME_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789._-"
_NOT_FIRST: Final = (0x2D, 0x2E, 0x5F)
_MAX_NAME_BYTES: Final = 63
_MAX_GATEWAYS: Final = 1_024


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


class ConsumerKeys:
    """Reads the Redis keys of consumers, which may be a million: of each gateway's only the names are looked at."""

    __slots__ = ("_gateways",)

    def __init__(self) -> None:
        self._gateways: dict[bytes, str] = {}
        """The gateway by all that stands in a key before the consumer's name."""

    def split(self, raw_keys: Iterable[bytes]) -> tuple[list[tuple[DocumentKey, bytes]], list[bytes]]:
        """Return the well-formed keys of consumers with what they name, and all other keys."""
        found: list[tuple[DocumentKey, bytes]] = []
        others: list[bytes] = []
        make = tuple.__new__  # what a NamedTuple does itself, in a third of the time
        prefix, gateway = b"", ""  # of the last one: mostly the next has them too
        for raw in raw_keys:
            if not gateway or not raw.startswith(prefix):
                prefix = raw[: raw.rfind(b":") + 1]
                gateway = self._gateway(raw, prefix)
            name = raw[len(prefix) :]
            if gateway and _is_consumer_name(name):
                found.append((make(DocumentKey, ("consumer", gateway, name.decode("ascii"))), raw))
            else:
                others.append(raw)
        return found, others

    def _gateway(self, raw: bytes, prefix: bytes) -> str:
        """Return the gateway of a consumer's key; "" if it is none, or not well-formed."""
        gateway = self._gateways.get(prefix)
        if gateway is None:
            key = parse_redis_key(raw.decode("ascii", "replace")) if raw.startswith(_CONSUMER) else None
            if key is None:
                return ""
            if len(self._gateways) >= _MAX_GATEWAYS:
                self._gateways.clear()
            gateway = self._gateways[prefix] = key.gateway
        return gateway


def _is_consumer_name(name: bytes) -> bool:
    if not name or len(name) > _MAX_NAME_BYTES or name.translate(None, _NAME_BYTES):
        return False
    return name[0] not in _NOT_FIRST


def label(key: DocumentKey) -> str:
    """Return the document's name for people: ``route shop-api/get-product``."""
    if key.kind == "gateway":
        return f"gateway {key.gateway}"
    return f"{key.kind} {key.gateway}/{key.name}"
