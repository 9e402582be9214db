"""Documents judged together: what no document can know by itself. Used before anything is written.

A running gateway lives with these mistakes (a route whose service is missing answers 503, the older
of two claims stays); a person who writes a configuration should hear of them first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from os import PathLike

from authgate_fast.config.documents import read_document_at
from authgate_fast.config.file import LoadedFile, load_file
from authgate_fast.config.keys import DocumentKey, label, redis_key
from authgate_fast.config.problems import Problem, did_you_mean, join_path
from authgate_fast.model import (
    AnyDocument,
    ConsumerDocument,
    GatewayDocument,
    RouteDocument,
    ServiceDocument,
)
from authgate_fast.routing.template import Literal

Loc = tuple[str | int, ...]
Place = Callable[[DocumentKey, Loc], tuple[str, str]]
"""From a document and a field in it to what `Problem` calls ``where`` and ``path``."""


def check_file(path: str | PathLike[str]) -> list[Problem]:
    """Return every problem of a configuration file: of its documents, and between them."""
    return check_loaded(load_file(path))


def check_loaded(loaded: LoadedFile) -> list[Problem]:
    """Return every problem of a file that has been read; its documents are good if there is none."""
    return loaded.problems + check_documents(loaded.documents, loaded.place, loaded.names)


def check_documents(
    documents: Mapping[DocumentKey, bytes],
    place: Place | None = None,
    names: Collection[DocumentKey] = (),
) -> list[Problem]:
    """Return every problem of `documents`: of each by itself, and between them.

    Where two claim the same, the first by kind and name is taken as the older. A disabled document
    claims nothing, but it is there: others may name it. `names` are documents
    that are there too, but so broken that they are not among `documents`.
    """
    parsed: dict[DocumentKey, AnyDocument] = {}
    problems: list[Problem] = []
    place = place or _redis_place
    for key in sorted(documents):
        where, path = place(key, ())
        document = read_document_at(key, documents[key], where, path)
        if isinstance(document, list):
            problems += document
        else:
            parsed[key] = document
    # Those that are there but broken are named rightly all the same.
    return problems + list(_Check(parsed, {*documents, *names}, place).problems())


def _redis_place(key: DocumentKey, loc: Loc) -> tuple[str, str]:
    return redis_key(key), join_path("", loc)


class _Check:
    """One pass over documents that are each good by themselves; remembers who claimed what."""

    def __init__(
        self, parsed: Mapping[DocumentKey, AnyDocument], present: set[DocumentKey], place: Place
    ) -> None:
        self.parsed = parsed
        self.place = place
        self.names: dict[tuple[str, str], set[str]] = {}
        for key in present:
            self.names.setdefault((key.kind, "" if key.kind == "gateway" else key.gateway), set()).add(
                key.name
            )
        self.holders: dict[tuple[object, ...], DocumentKey] = {}

    def problems(self) -> Iterator[Problem]:
        for key, document in self.parsed.items():
            if key.kind != "gateway":
                yield from self.name_exists(key, (), "gateway", key.gateway)
            if isinstance(document, RouteDocument):
                yield from self.route_names(key, document)
                yield from self.route_fits(key, document)
            if not document.enabled:
                continue
            if isinstance(document, GatewayDocument):
                yield from self.hosts(key, document)
            elif isinstance(document, RouteDocument):
                yield from self.route_claim(key, document)
            elif isinstance(document, ConsumerDocument):
                yield from self.consumer_keys(key, document)
            else:
                assert isinstance(document, ServiceDocument)

    def route_names(self, key: DocumentKey, route: RouteDocument) -> Iterator[Problem]:
        yield from self.name_exists(key, ("service",), "service", route.service)
        for index, consumer in enumerate(route.consumers):
            yield from self.name_exists(key, ("consumers", index), "consumer", consumer)

    def route_fits(self, key: DocumentKey, route: RouteDocument) -> Iterator[Problem]:
        """Find what no caller of this gateway's auth type could ever reach or fulfil."""
        gateway = self.parsed.get(DocumentKey("gateway", key.gateway, key.gateway))
        if not isinstance(gateway, GatewayDocument):
            return
        kind = gateway.auth.type
        segments = route.template.segments
        reserved = {"JWT": b"auth", "BFF": b"bff"}.get(kind)
        if len(segments) > 1 and isinstance(segments[0], Literal) and segments[0].value == reserved:
            message = (
                f"a {kind} gateway answers /{reserved.decode('ascii')}/* itself, so no request gets here"
            )
            yield self.problem(key, ("public_path",), f'"{route.public_path}"', message)
        if route.scopes and kind in ("API_KEY", "BASIC", "JWT"):
            message = f"a credential of a {kind} gateway carries no scopes, so nobody could call this route"
            yield self.problem(key, ("scopes",), "scopes", message, "use roles")
        if route.consumers and kind in ("OAUTH2", "BFF"):
            message = f"the callers of a {kind} gateway are users of its identity provider, not consumers"
            yield self.problem(key, ("consumers",), "consumers", message, "use roles or scopes")

    def name_exists(self, key: DocumentKey, loc: Loc, kind: str, name: str) -> Iterator[Problem]:
        known = self.names.get((kind, "" if kind == "gateway" else key.gateway), set())
        if name not in known:
            of_gateway = "" if kind == "gateway" else f" in the gateway `{key.gateway}`"
            hint = did_you_mean(name, sorted(known))
            yield self.problem(key, loc, f'"{name}"', f"there is no such {kind}{of_gateway}", hint)

    def hosts(self, key: DocumentKey, gateway: GatewayDocument) -> Iterator[Problem]:
        for index, host in enumerate(gateway.hosts):
            holder = self.holders.setdefault(("host", host), key)
            if holder != key:
                message = f"the {label(holder)} has this host already; a host belongs to one gateway"
                yield self.problem(key, ("hosts", index), f'"{host}"', message)

    def route_claim(self, key: DocumentKey, route: RouteDocument) -> Iterator[Problem]:
        holder = self.holders.setdefault(("route", key.gateway, route.template.shape, route.method), key)
        if holder != key:
            message = (
                f"the {label(holder)} answers this method on the same paths; change or remove one of the two"
            )
            yield self.problem(key, ("public_path",), f"{route.method} {route.public_path}", message)

    def consumer_keys(self, key: DocumentKey, consumer: ConsumerDocument) -> Iterator[Problem]:
        for key_id, digest, _ in consumer.all_keys():
            holder = self.holders.setdefault(("key", key.gateway, digest), key)
            if holder != key:
                message = f"the {label(holder)} has the same key; each consumer needs its own"
                yield self.problem(key, (), f"the key {key_id}", message)

    def problem(self, key: DocumentKey, loc: Loc, found: str, message: str, hint: str = "") -> Problem:
        where, path = self.place(key, loc)
        return Problem(where, path, found, message, hint)
