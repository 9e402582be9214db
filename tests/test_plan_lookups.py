"""What the plan does when memory cannot tell who is calling, and with the gateway's own endpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial, Lookup, Presented
from authgate_fast.decision import Allowed, Client, Forward, Local, Pending, Redirect, Refusal
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import finish, finish_local
from authgate_fast.snapshot import Identity, Route, Snapshot
from tests.plan_world import FRESH, NOW, PEER, ask, changed, make_snapshot

ANN = Identity("ann", "default", frozenset({"reader"}), float("inf"), b"X-Consumer-Id: ann\r\n",
               scopes=frozenset({"read"}), token_line=b"Authorization: Bearer t\r\n")  # fmt: skip


class Scripted:
    """An authenticator that answers what the test wants."""

    def __init__(self, answer: Identity | Denial | Lookup) -> None:
        self.answer = answer
        self.credential_fields = frozenset({b"authorization", b"cookie"})
        self.keeps_lines = True
        self.reserved = b"own"
        self.endpoints = {b"login": (b"POST",), b"me": (b"GET",)}
        self.asked: list[Presented] = []

    def identify(
        self, head: RequestHead, presented: Presented, client: Client, now: float
    ) -> Identity | Denial | Lookup:
        self.asked.append(presented)
        return self.answer

    def current(self, identity: Identity, now: float) -> Identity | None:
        return identity

    def kept_lines(self, presented: Presented) -> bytes:
        return b"".join(b"Cookie: kept\r\n" for name, _ in presented if name == b"cookie")

    def forbidden_lines(self, route: Route) -> bytes:
        return b"WWW-Authenticate: Scripted\r\n"


def world(answer: Identity | Denial | Lookup, **changes: object) -> tuple[Snapshot, Scripted]:
    snapshot = make_snapshot()
    authenticator = Scripted(answer)
    shop = changed(snapshot.gateways["shop"], authenticator=authenticator, **changes)
    snapshot.exact[b"shop.localhost"] = snapshot.gateways["shop"] = shop
    snapshot.credential_fields = frozenset(authenticator.credential_fields)
    return snapshot, authenticator


def pending(target: bytes = b"/private", **more: object) -> Pending:
    snapshot, _ = world(Lookup())
    found = ask(target=target, snapshot=snapshot, **more)  # type: ignore[arg-type]
    assert isinstance(found, Pending)
    return found


# --- look-ups ---------------------------------------------------------------------------------------


def test_a_lookup_makes_the_request_wait_and_its_outcome_decides() -> None:
    waiting = pending(b"/private?q=1", fields=[(b"Accept", b"x")])
    found = finish(waiting, ANN, NOW)
    assert isinstance(found, Forward)
    assert found.identity is ANN
    assert found.request_id == FRESH
    assert found.head.startswith(b"GET /private?q=1 HTTP/1.1\r\nHost: backend.internal:8080\r\nAccept: x\r\n")
    assert b"X-Consumer-Id: ann\r\n" in found.head

    refused = finish(waiting, Denial(Reason.CREDENTIALS_INVALID, extra_lines=b"WWW-Authenticate: X\r\n"), NOW)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.extra_lines) == (Reason.CREDENTIALS_INVALID, b"WWW-Authenticate: X\r\n")


def test_a_looked_up_caller_is_held_to_what_the_route_asks_for() -> None:
    stranger = Identity("bob", "default", frozenset(), float("inf"), b"")
    for target, wanted in ((b"/readers", "reader, writer"), (b"/scoped", "read"), (b"/only-two", "consumer")):
        found = finish(pending(target), stranger, NOW)
        assert isinstance(found, Refusal)
        assert found.reason is Reason.FORBIDDEN
        assert wanted in (found.detail or "")
        assert found.extra_lines == b"WWW-Authenticate: Scripted\r\n"
    for target in (b"/readers", b"/scoped"):
        assert isinstance(finish(pending(target), ANN, NOW), Forward)


def test_a_public_route_never_asks() -> None:
    snapshot, authenticator = world(Lookup())
    found = ask(target=b"/products/1", snapshot=snapshot, fields=[(b"Authorization", b"Basic x")])
    assert isinstance(found, Forward)
    assert authenticator.asked == []
    assert b"Authorization" not in found.head


def test_what_the_authenticator_keeps_of_a_credential_field_goes_on_also_on_public_routes() -> None:
    fields = [(b"Cookie", b"a=b"), (b"Authorization", b"x")]
    for answer, target in ((ANN, b"/private"), (ANN, b"/products/1")):
        found = ask(target=target, snapshot=world(answer)[0], fields=fields)
        assert isinstance(found, Forward)
        assert found.head.count(b"Cookie: kept\r\n") == 1
        assert b"a=b" not in found.head


def test_a_token_goes_on_only_where_the_route_takes_it() -> None:
    snapshot, _ = world(ANN)
    plain = ask(target=b"/private", snapshot=snapshot)
    assert isinstance(plain, Forward)
    assert b"Authorization" not in plain.head
    leaf = snapshot.gateways["shop"].trie.match([b"private"])
    assert leaf is not None
    leaf.by_method[b"GET"] = replace(leaf.by_method[b"GET"], forward_token=True)
    taking = ask(target=b"/private", snapshot=snapshot)
    assert isinstance(taking, Forward)
    assert taking.head.count(b"Authorization: Bearer t\r\n") == 1


def test_a_denial_with_a_place_to_go_is_a_redirect() -> None:
    snapshot, _ = world(Denial(Reason.CREDENTIALS_MISSING, location=b"/own/login"))
    found = ask(target=b"/private", snapshot=snapshot)
    assert isinstance(found, Redirect)
    assert found.location == b"/own/login"


# --- too many failures --------------------------------------------------------------------------------


def guarded(per_address: int = 2, per_account: int = 3, address: str = PEER) -> Client:
    return Client(address, guard=FailureGuard(per_address, per_account, 60.0))


WRONG = Denial(Reason.CREDENTIALS_INVALID, is_failure=True, account=b"ann", why="wrong")


def test_past_the_limit_a_failure_is_told_to_wait() -> None:
    client = guarded()
    reasons = []
    for _ in range(4):
        found = ask(target=b"/private", snapshot=world(WRONG)[0], client=client)
        assert isinstance(found, Refusal)
        reasons.append(found.reason)
    assert reasons == [Reason.CREDENTIALS_INVALID] * 2 + [Reason.TOO_MANY_FAILURES] * 2
    assert 1 <= found.retry_after_s <= 60


def test_a_missing_credential_is_no_failure() -> None:
    client = guarded()
    for _ in range(5):
        found = ask(target=b"/private", snapshot=world(Denial(Reason.CREDENTIALS_MISSING))[0], client=client)
        assert isinstance(found, Refusal)
        assert found.reason is Reason.CREDENTIALS_MISSING


def test_a_known_good_credential_passes_from_an_address_past_its_limit() -> None:
    client = guarded()
    for _ in range(5):
        ask(target=b"/private", snapshot=world(WRONG)[0], client=client)
    assert isinstance(ask(target=b"/private", snapshot=world(ANN)[0], client=client), Forward)


def test_past_the_limit_a_guess_is_not_looked_up_but_other_lookups_are() -> None:
    client = guarded()
    for _ in range(3):
        ask(target=b"/private", snapshot=world(WRONG)[0], client=client)
    guess = ask(target=b"/private", snapshot=world(Lookup(b"bob", is_guess=True))[0], client=client)
    assert isinstance(guess, Refusal)
    assert guess.reason is Reason.TOO_MANY_FAILURES
    assert isinstance(ask(target=b"/private", snapshot=world(Lookup())[0], client=client), Pending)


def test_an_account_has_a_limit_over_all_addresses() -> None:
    guard = FailureGuard(100, 3, 60.0)
    clients = [Client(f"192.0.2.{number}", guard=guard) for number in range(5)]
    reasons = []
    for client in clients:
        found = finish(replace_client(pending(), client), WRONG, NOW)
        assert isinstance(found, Refusal)
        reasons.append(found.reason)
    assert reasons == [Reason.CREDENTIALS_INVALID] * 3 + [Reason.TOO_MANY_FAILURES] * 2


def replace_client(found: Pending, client: Client) -> Pending:
    found.client = client
    return found


@pytest.mark.parametrize(
    ("forwarded", "counted"),
    [
        (b"198.51.100.1", "198.51.100.1"),
        (b"203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (b"198.51.100.1, 10.0.0.3", "198.51.100.1"),
        (b"198.51.100.1, 10.0.0.3, 10.0.0.4", "198.51.100.1"),
        (b"10.0.0.3", "10.0.0.3"),
        (b"rubbish", "10.0.0.9"),
        (b"198.51.100.1, rubbish", "10.0.0.9"),
        (b"", "10.0.0.9"),
        (b"2001:db8::1", "2001:db8::1"),
    ],
)
def test_behind_a_trusted_proxy_the_address_it_names_is_counted(forwarded: bytes, counted: str) -> None:
    snapshot, _ = world(WRONG)
    trusting = make_snapshot(trusted="10.0.0.0/8").gateways["shop"].trusted_proxies
    shop = changed(snapshot.gateways["shop"], trusted_proxies=trusting)
    snapshot.exact[b"shop.localhost"] = shop
    client = guarded(1, 100, "10.0.0.9")
    guard = client.guard
    assert guard is not None
    ask(target=b"/private", snapshot=snapshot, client=client, fields=[(b"X-Forwarded-For", forwarded)])
    assert guard.retry_after_s(counted, b"", NOW) > 0
    if counted != "10.0.0.9":
        assert guard.retry_after_s("10.0.0.9", b"", NOW) == 0


def test_an_untrusted_peer_cannot_name_another_address() -> None:
    client = guarded(1)
    fields = [(b"X-Forwarded-For", b"198.51.100.1")]
    ask(target=b"/private", snapshot=world(WRONG)[0], client=client, fields=fields)
    assert client.guard is not None
    assert client.guard.retry_after_s(PEER, b"", NOW) > 0
    assert client.guard.retry_after_s("198.51.100.1", b"", NOW) == 0


# --- the gateway's own endpoints ------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/own/login", b"/%6fwn/login", b"/own/%6cogin"])
def test_an_endpoint_of_the_gateway_comes_before_all_routes(target: bytes) -> None:
    found = ask(b"POST", target + b"?a=b", snapshot=world(ANN)[0])
    assert isinstance(found, Local)
    assert (found.endpoint, found.query) == (b"login", b"a=b")


@pytest.mark.parametrize("target", [b"/own/other", b"/own/", b"/own/login/", b"/own/login/x"])
def test_nothing_else_is_under_the_reserved_segment(target: bytes) -> None:
    found = ask(b"POST", target, snapshot=world(ANN)[0])
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ROUTE_NOT_FOUND


@pytest.mark.parametrize("target", [b"/own", b"/OWN/login", b"/x/own/login", b"/any/own/login"])
def test_other_paths_are_ordinary_ones(target: bytes) -> None:
    assert not isinstance(ask(b"POST", target, snapshot=world(ANN)[0]), Local)


def test_an_endpoint_has_its_methods() -> None:
    snapshot, _ = world(ANN)
    refused = ask(b"GET", b"/own/login", snapshot=snapshot)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.extra_lines) == (Reason.METHOD_NOT_ALLOWED, b"Allow: POST, OPTIONS\r\n")
    allowed = ask(b"OPTIONS", b"/own/me", snapshot=snapshot)
    assert isinstance(allowed, Allowed)
    assert allowed.allow == b"GET, HEAD, OPTIONS"
    assert isinstance(ask(b"HEAD", b"/own/me", snapshot=snapshot), Local)


def test_a_failed_login_at_an_endpoint_counts() -> None:
    client = guarded(1)
    found = ask(b"POST", b"/own/login", snapshot=world(ANN)[0], client=client)
    assert isinstance(found, Local)
    first, second = finish_local(found, WRONG, NOW), finish_local(found, WRONG, NOW)
    assert isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    assert (first.reason, second.reason) == (Reason.CREDENTIALS_INVALID, Reason.TOO_MANY_FAILURES)


# --- the frontend ------------------------------------------------------------------------------------


def frontend() -> Snapshot:
    shop = make_snapshot().gateways["shop"]
    leaf = shop.trie.match([b"based", b"x"])
    assert leaf is not None
    route = replace(leaf.by_method[b"GET"], name="frontend_url", pieces=())
    return world(Lookup(), frontend=route)[0]


def test_the_frontend_serves_what_no_route_matches() -> None:
    found = ask(target=b"/assets/a%20b.js?v=1", snapshot=frontend(), fields=[(b"Cookie", b"a")])
    assert isinstance(found, Forward)
    assert found.head.startswith(b"GET /v2/assets/a%20b.js?v=1 HTTP/1.1\r\nHost: other.internal\r\n")
    assert found.identity is None
    assert b"Cookie: kept\r\n" in found.head


def test_the_frontend_takes_nothing_that_changes_something_and_nothing_that_a_route_has() -> None:
    for method, target, reason in (
        (b"POST", b"/assets/x", Reason.ROUTE_NOT_FOUND),
        (b"DELETE", b"/products/1", Reason.METHOD_NOT_ALLOWED),
        (b"GET", b"/own/x", Reason.ROUTE_NOT_FOUND),
        (b"GET", b"/a/%2e%2e/b", Reason.INVALID_PATH),
    ):
        found = ask(method, target, snapshot=frontend())
        assert isinstance(found, Refusal)
        assert found.reason is reason
    assert isinstance(ask(target=b"/private", snapshot=frontend()), Pending)
