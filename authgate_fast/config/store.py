"""The documents in force, and the snapshot made of them.

Promises: a bad document is refused alone and its last good version stays live. A consumer change is
a few dict updates in the credentials that the snapshot shares; everything else becomes a new
snapshot, published in one assignment at the end. What was there first wins: a host, a route's
method and paths, a key; the later claim is reported, never swapped in silence, and takes over when the
first one goes. First is what this process saw first and, within one batch, what comes first by name.

Work comes in steps, so that a loop that also serves traffic can run in between. Between two steps,
and when the steps are abandoned, every document is either wholly in force or not at all; one run of
steps must end before the next begins. No IO, no threads, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING

from authgate_fast.config.authenticators import auth_key, make_authenticator
from authgate_fast.config.check import check_documents
from authgate_fast.config.claims import HostClaims
from authgate_fast.config.compile import (
    STEP,
    Compiled,
    RouteClash,
    Steps,
    build_snapshot,
    compile_gateway_steps,
)
from authgate_fast.config.credentials import Credentials
from authgate_fast.config.intake import Intake, Raw
from authgate_fast.config.keys import DocumentKey, Unreadable, label
from authgate_fast.config.problems import Problem, printable
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.model import (
    AnyDocument,
    GatewayDocument,
    RouteDocument,
    ServiceDocument,
)
from authgate_fast.snapshot import Gateway, Snapshot

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Authenticator
    from authgate_fast.config.pages import Page
    from authgate_fast.model_auth import Auth

__all__ = ["Configuration", "Raw", "check_documents"]

_CONSUMERS_STEP = 250
"""How many consumers are worked on between two steps; at most some 3 ms of work, and mostly below 1."""
_IS_WORKING = "the steps of one change must end before the next begins"


class _House:
    """All that belongs to one gateway name, whether its gateway document is there or not.

    ``routes`` is in the order of the claims: a route that changes what it claims moves to the end.
    """

    __slots__ = (
        "_auth",
        "compiled",
        "credentials",
        "document",
        "route_clashes",
        "routes",
        "services",
    )

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.document: GatewayDocument | None = None
        self.services: dict[str, ServiceDocument] = {}
        self.routes: dict[str, RouteDocument] = {}
        self._auth: tuple[tuple[Auth, str], Authenticator] | None = None
        self.compiled: Gateway | None = None
        self.route_clashes: list[RouteClash] = []

    @property
    def is_empty(self) -> bool:
        return self.document is None and not (self.services or self.routes) and self.credentials.is_empty

    def authenticator(self, name: str, document: GatewayDocument) -> Authenticator:
        """Return the authenticator for `document`: the one in force, with all it remembers, if it still fits."""
        key = auth_key(document)
        if self._auth is None or self._auth[0] != key:
            self._auth = (key, make_authenticator(name, document, self.credentials.consumers))
        return self._auth[1]


class _Draft:
    """What a house will be when the steps are through; nothing of it is visible before."""

    __slots__ = ("compiled", "document", "route_clashes", "routes", "services")

    def __init__(self, house: _House | None) -> None:
        self.document = house.document if house is not None else None
        self.services = dict(house.services) if house is not None else {}
        self.routes = dict(house.routes) if house is not None else {}
        self.compiled: Gateway | None = None
        self.route_clashes: list[RouteClash] = []

    def put(self, name: str, document: AnyDocument) -> None:
        if isinstance(document, GatewayDocument):
            self.document = document
        elif isinstance(document, ServiceDocument):
            self.services[name] = document
        elif isinstance(document, RouteDocument):
            before = self.routes.get(name)
            if before is not None and _route_claim(before) != _route_claim(document):
                del self.routes[name]
            self.routes[name] = document

    def drop(self, key: DocumentKey) -> None:
        if key.kind == "gateway":
            self.document = None
        elif key.kind == "service":
            self.services.pop(key.name, None)
        else:
            self.routes.pop(key.name, None)


class Configuration:
    """Takes documents in, keeps the good ones, and holds the ``snapshot`` that workers serve.

    ``revision`` grows with every accepted change, those of consumers too. ``refused`` maps what is not in force (a
    document's label, a clash, a malformed key) to why. ``documents`` holds the last good JSON of every document,
    ``bad`` the text of each that is refused, so that reading it again says nothing new. ``on_swap`` is called with
    each new snapshot after it is in place.
    """

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        self.limits = limits
        self.snapshot = Snapshot()
        self.revision = 0
        self._intake = Intake()
        self.refused = self._intake.refused
        self.documents = self._intake.documents
        self.bad = self._intake.bad
        self.on_swap: list[Callable[[Snapshot], None]] = []
        self._houses: dict[str, _House] = {}
        self._hosts = HostClaims()
        self._is_working = False
        self._unsettled: set[str] = set()
        """Gateways whose consumers have changed, while what that means for clashes has not been told."""

    def apply(self, changes: Mapping[DocumentKey, Raw], *, becomes_ready: bool = False) -> None:
        """Take `changes` in; None deletes. `becomes_ready`: with them the configuration is whole.

        Until it is, whatever comes is part of one batch.
        """
        for _ in self.apply_steps(changes, becomes_ready=becomes_ready):
            pass

    def apply_steps(self, changes: Mapping[DocumentKey, Raw], *, becomes_ready: bool = False) -> Steps:
        """Do what `apply` does, in steps."""
        return self._work(changes, is_all=False, becomes_ready=becomes_ready)

    def take_consumers_steps(self, news: list[tuple[DocumentKey, Raw]]) -> Steps:
        """Do what `apply_steps` does, for consumers alone, each there once."""
        if self._is_working:
            raise RuntimeError(_IS_WORKING)
        self._is_working = True
        try:
            yield from self._take_consumers(news)
        finally:
            self._is_working = False

    def replace_all(self, documents: Mapping[DocumentKey, bytes | Unreadable]) -> None:
        """Make `documents` the whole configuration; only what differs is worked on."""
        for _ in self.replace_all_steps(documents):
            pass

    def replace_all_steps(self, documents: Mapping[DocumentKey, bytes | Unreadable]) -> Steps:
        """Do what `replace_all` does, in steps."""
        return self._work(documents, is_all=True, becomes_ready=True)

    def differing(self, page: Page) -> Page:
        """Return those of some documents that are not in force as they are given, or are refused."""
        return self._intake.differing(page)

    def report_malformed(self, key_text: str, message: str) -> None:
        """Report a Redis key under our prefixes that names no document; said once in the log."""
        place = printable(key_text)
        self._intake.report(place, Problem(place, "", "a key that names no document", message))

    def forget_malformed(self, key_text: str) -> None:
        """Take back what `report_malformed` said: the key is gone."""
        self._intake.withdraw(printable(key_text))

    def _work(self, given: Mapping[DocumentKey, Raw], *, is_all: bool, becomes_ready: bool) -> Steps:
        if self._is_working:
            raise RuntimeError(_IS_WORKING)
        self._is_working = True
        try:
            consumers: list[tuple[DocumentKey, Raw]] = []
            others: list[tuple[DocumentKey, Raw]] = []
            for key, raw in self._gone(given) if is_all else ():
                (consumers if key.kind == "consumer" else others).append((key, raw))
            is_news = self._intake.is_news
            for count, (key, raw) in enumerate(given.items(), 1):
                if key[0] == "consumer":
                    # `take_consumers` leaves out what is no news; only of a whole configuration are there many.
                    if not is_all or is_news(key, raw):
                        consumers.append((key, raw))
                elif is_news(key, raw):
                    others.append((key, raw))
                if count % (STEP * 8) == 0:
                    yield
            yield from self._take_consumers(consumers)
            yield from self._take_others(others, becomes_ready=becomes_ready and not self.snapshot.ready)
            self._settle()
        finally:
            self._is_working = False

    def _gone(self, given: Mapping[DocumentKey, Raw]) -> list[tuple[DocumentKey, Raw]]:
        known = chain(self.documents, (key for key in self.bad if key not in self.documents))
        return [(key, None) for key in known if key not in given]

    def _take_consumers(self, news: list[tuple[DocumentKey, Raw]]) -> Steps:
        """Change credentials in place, document by document; a snapshot has no part in it."""
        if not news:
            return
        intake = self._intake
        pending: Iterable[tuple[DocumentKey, Raw]] = news
        if self.snapshot.ready:
            # Departures first: a key that moves from one consumer to another is then no clash. By names within a
            # gateway, so that all workers agree on who was first; a million names sort in a second, keys in many.
            news.sort(key=_consumer_name)
            gone = [one for one in news if one[1] is None]
            if gone:
                pending = chain(gone, (one for one in news if one[1] is not None))
        pending = iter(pending)
        before = intake.changes
        try:
            while chunk := list(islice(pending, _CONSUMERS_STEP)):
                # All that is there at the start is one batch, however it comes.
                intake.take_consumers(chunk, by_name=not self.snapshot.ready)
                yield
        finally:
            gateways = dict.fromkeys([one[0][1] for one in news])
            self._unsettled.update(gateways)
            self._settle()
            for gateway in gateways:
                self._forget_if_empty(gateway)
            self.revision += intake.changes != before

    def _settle(self) -> None:
        """Report how clashes of consumers have changed; those of a start when all of it is there."""
        if self.snapshot.ready:
            for gateway in self._unsettled:
                self._intake.settle(gateway)
            self._unsettled.clear()

    def _house(self, gateway: str) -> _House:
        house = self._houses.get(gateway)
        if house is None:
            house = self._houses[gateway] = _House(self._intake.credentials_of(gateway))
        return house

    def _take_others(self, news: list[tuple[DocumentKey, Raw]], *, becomes_ready: bool) -> Steps:
        """Draft what gateways, services and routes become, then publish all of it at once."""
        news.sort(key=_departures_first)
        accepted: list[tuple[DocumentKey, Raw]] = []
        drafts: dict[str, _Draft] = {}
        pending = iter(news)
        while chunk := list(islice(pending, STEP)):
            for key, raw in chunk:
                document = self._intake.read(key, raw)
                if document is False or raw == self.documents.get(key):
                    continue
                draft = drafts.get(key.gateway)
                if draft is None:
                    draft = drafts[key.gateway] = _Draft(self._houses.get(key.gateway))
                if document is None:
                    draft.drop(key)
                else:
                    draft.put(key.name, document)
                accepted.append((key, raw))
            yield
        for gateway in sorted(drafts):
            draft = drafts[gateway]
            if draft.document is not None and draft.document.enabled:
                house = self._house(gateway)
                compiled: Compiled = yield from compile_gateway_steps(
                    gateway,
                    draft.document,
                    draft.services,
                    draft.routes,
                    house.authenticator(gateway, draft.document),
                    house.credentials.consumers,
                    self.limits,
                )
                draft.compiled, draft.route_clashes = compiled
        if drafts or becomes_ready:
            self._publish(drafts, accepted, becomes_ready=becomes_ready)

    def _publish(
        self, drafts: dict[str, _Draft], accepted: list[tuple[DocumentKey, Raw]], *, becomes_ready: bool
    ) -> None:
        for key, raw in accepted:
            self._intake.keep(key, raw)
        wanted: dict[str, tuple[str, ...]] = {}
        for name in sorted(drafts):
            draft = drafts[name]
            house = self._house(name)
            self._settle_routes(name, house.route_clashes, draft.route_clashes)
            house.document, house.services, house.routes = draft.document, draft.services, draft.routes
            house.compiled, house.route_clashes = draft.compiled, draft.route_clashes
            wanted[name] = draft.compiled.hosts if draft.compiled is not None else ()
            self._forget_if_empty(name)
        self._hosts.change(wanted)
        self._settle_hosts()
        self.revision += 1
        snapshot = build_snapshot(self.revision, self._served())
        snapshot.ready = self.snapshot.ready or becomes_ready
        self.snapshot = snapshot
        for notify in self.on_swap:
            notify(snapshot)

    def _served(self) -> Iterable[Gateway]:
        for name, house in self._houses.items():
            gateway = house.compiled
            if gateway is None or house.document is None:
                continue
            hosts = tuple(host for host in house.document.hosts if self._hosts.holder(host) == name)
            if hosts != gateway.hosts:
                gateway = house.compiled = gateway.with_hosts(hosts)
            yield gateway

    def _settle_routes(self, gateway: str, before: list[RouteClash], now: list[RouteClash]) -> None:
        names = {_route_clash_name(gateway, clash) for clash in now}
        for clash in before:
            name = _route_clash_name(gateway, clash)
            if name not in names:
                self._intake.withdraw(name)
        for clash in now:
            self._intake.report(_route_clash_name(gateway, clash), clash.problem)

    def _settle_hosts(self) -> None:
        over, new = self._hosts.settle()
        for name in over:
            self._intake.withdraw(name)
        for name, problem in new.items():
            self._intake.report(name, problem)

    def _forget_if_empty(self, gateway: str) -> None:
        house = self._houses.get(gateway)
        if house is None:
            credentials = self._intake.credentials.get(gateway)
            if credentials is not None and credentials.is_empty:
                del self._intake.credentials[gateway]
        elif house.is_empty:
            del self._houses[gateway], self._intake.credentials[gateway]


def _consumer_name(item: tuple[DocumentKey, Raw]) -> str:
    return item[0].name


def _departures_first(item: tuple[DocumentKey, Raw]) -> tuple[bool, DocumentKey]:
    return (item[1] is not None, item[0])


def _route_claim(document: RouteDocument) -> tuple[bool, object, str]:
    return (document.enabled, document.template.shape, document.method)


def _route_clash_name(gateway: str, clash: RouteClash) -> str:
    return f"{label(DocumentKey('route', gateway, clash.route))} conflict"
