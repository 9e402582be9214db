"""What every auth type must keep to: a small world around one gateway, and the adapter that a type brings.

The rules are in `test_conformance`; they run for each class in ``ADAPTERS`` of each module
``tests/auth/adapters_<type>.py``. To add a type: write such a module with a subclass of `Adapter`; nothing else
has to change. Whatever does not apply to a type is None or empty in its adapter, and the rule has nothing to judge.

An adapter is one gateway with its callers. Its credentials are `Fields`: the field lines of a request (an X-Api-Key, an
Authorization, a Cookie...). Where a decision needs a look-up, `resolve` finds the answer as the room ``lookup`` would,
with `asyncio.run` if need be: the rules themselves are plain functions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Authenticator, Denial
from authgate_fast.config.compile import build_snapshot
from authgate_fast.decision import Client, Forward, Pending, Plan, Redirect, Refusal
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import finish, plan
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import Consumers, Gateway, Identity, Service, Snapshot
from tests.plan_world import BACKEND, FRESH, Fields, route

NOW = 1_900_000_000.0
HOST = b"kit.localhost"
PEER = "192.0.2.7"
PUBLIC, SECURE, TOKENS = b"/public", b"/secure", b"/tokens"
"""TOKENS is a SECURE route whose backend takes the caller's token (`Route.forward_token`)."""


class Adapter:
    """One auth type: a gateway called `gateway`, its authenticator, and credentials of every kind.

    ``name`` is the type. ``field`` and ``prefix`` are where a credential stands in a request and what goes before it
    (``authorization``, ``Basic ``), for made-up ones. ``invalid`` is the reason of a refused credential,
    ``counts_failures`` whether a refused one counts against the caller. ``remembers``: a good credential needs no
    look-up the second time.
    """

    name: ClassVar[str]
    field: ClassVar[bytes]
    prefix: ClassVar[bytes] = b""
    invalid: ClassVar[Reason] = Reason.CREDENTIALS_INVALID
    counts_failures: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    def __init__(self, gateway: str = "kit") -> None:
        self.gateway = gateway
        self.consumers = Consumers()

    def authenticator(self) -> Authenticator:
        """Return the gateway's authenticator: the same one each time, since it remembers."""
        raise NotImplementedError

    def good(self) -> Fields:
        """Return a right credential without end (or with one that is far away)."""
        raise NotImplementedError

    def identity_lines(self) -> bytes:
        """Return the identity fields that a backend gets with `good`."""
        raise NotImplementedError

    def token_line(self) -> bytes:
        """Return the Authorization line that a route with `forward_token` passes on with `good`, or b""."""
        return b""

    def brief(self) -> tuple[Fields, float] | None:
        """Return a credential that is good at NOW, and the moment at which it is not any more."""
        return None

    def missing(self) -> list[Fields]:
        """Return what counts as showing nothing, besides no field at all: empty, or another scheme."""
        return []

    def malformed(self) -> list[Fields]:
        """Return credentials whose form is wrong."""
        raise NotImplementedError

    def duplicated(self) -> list[Fields]:
        """Return requests that show more than one credential, right ones too."""
        good = self.good()
        return [good + good, [*good, (good[0][0], b"other")], [(good[0][0], b"other"), *good]]

    def oversized(self) -> Fields:
        """Return a credential longer than what is read."""
        return [(self.field, self.prefix + b"A" * 20_000)]

    def bad(self) -> dict[str, Fields]:
        """Return well-formed credentials that are refused, by why: wrong, unknown, expired, disabled...

        A client must not be able to tell one from another.
        """
        raise NotImplementedError

    def secrets(self) -> list[bytes]:
        """Return texts that neither a backend nor any message may ever hold."""
        return [value[len(self.prefix) :] for _, value in self.good()]

    def end_access(self) -> bool:
        """End the access of the caller with `good` (disabled, revoked...); False if this type cannot."""
        return False

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        """Answer a look-up."""
        raise AssertionError(f"{self.name} has no look-ups")

    def costly_operations(self) -> int:
        """Return how many expensive operations (password hashes, signatures...) there were so far.

        It must not depend on why a credential is bad.
        """
        return 0


class World:
    """A gateway of one type on a host of its own, as `plan` sees it, and what it was asked so far."""

    def __init__(self, adapter: Adapter, guard: FailureGuard | None = None) -> None:
        self.adapter = adapter
        self.authenticator = adapter.authenticator()
        self.snapshot = make_snapshot(adapter, self.authenticator)
        self.client = Client(PEER, b"http", guard)
        self.lookups = 0

    def ask(
        self, fields: Fields, target: bytes = SECURE, *, now: float = NOW, method: bytes = b"GET"
    ) -> Plan:
        """Decide one request to its end, look-ups included."""
        head = RequestHead(method, target, 1, [(b"Host", HOST), *fields])
        decision = plan(head, self.snapshot, self.client, now, FRESH)
        for _ in range(3):
            if not isinstance(decision, Pending):
                break
            self.lookups += 1
            decision = finish(decision, self.adapter.resolve(decision, now), now)
        return decision

    def admitted(self, fields: Fields, target: bytes = SECURE, *, now: float = NOW) -> Forward:
        decision = self.ask(fields, target, now=now)
        assert isinstance(decision, Forward), getattr(decision, "reason", decision)
        return decision

    def refused(self, fields: Fields, target: bytes = SECURE, *, now: float = NOW) -> Refusal:
        decision = self.ask(fields, target, now=now)
        assert isinstance(decision, Refusal), decision
        return decision


def make_snapshot(adapter: Adapter, authenticator: Authenticator) -> Snapshot:
    service = Service("catalog", (BACKEND,))
    template, tokens = route("GET", TOKENS.decode(), "/tokens", service, secure=True)
    gateway = Gateway(
        adapter.gateway,
        (HOST.decode(),),
        authenticator,
        adapter.consumers,
        build_trie(
            [
                route("GET", PUBLIC.decode(), "/public", service),
                route("GET", SECURE.decode(), "/secure", service, secure=True),
                (template, replace(tokens, forward_token=True)),
            ]
        ),
        PathPolicy(),
        (),
        f"Via: 1.1 authgate\r\nX-Gateway-Id: {adapter.gateway}\r\n".encode(),
    )
    return build_snapshot(1, [gateway])


def shown(refusal: Refusal | Redirect) -> tuple[object, ...]:
    """Return all of a refusal that a client sees."""
    if isinstance(refusal, Redirect):
        return (refusal.location,)
    return refusal.reason, refusal.detail, refusal.extra_lines, refusal.retry_after_s
