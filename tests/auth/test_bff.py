"""The check of a BFF gateway on what memory knows (`identify`); look-ups are in tests/lookup."""

from __future__ import annotations

import asyncio

import pytest

from authgate_fast.auth import bff
from authgate_fast.auth.bff import SessionLookup, digest_of_name
from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial
from authgate_fast.auth.secret import SecretRef
from authgate_fast.auth.session import Session, session_name
from authgate_fast.auth.user_lines import UnusableClaimError
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Identity
from tests.auth.adapters_bff import BffAdapter
from tests.auth.bff_world import NOW, SETTINGS, BffWorld, record
from tests.auth.kit import World

SAME_SITE = (b"Sec-Fetch-Site", b"same-origin")
OTHER_SITE = (b"Sec-Fetch-Site", b"cross-site")
PAGE = (b"Sec-Fetch-Mode", b"navigate")


@pytest.fixture
def world() -> BffWorld:
    return BffWorld()


def test_a_live_session_needs_neither_store_nor_provider(world: BffWorld) -> None:
    cookie = world.begin()
    assert isinstance(world.identify(cookie), SessionLookup)
    first = asyncio.run(world.ask(cookie))
    gets = world.store.gets
    world.now += world.authenticator.check_s - 0.1
    assert world.identify(cookie) is first
    assert world.store.gets == gets


def test_the_identity_is_the_user_and_ends_with_the_session(world: BffWorld) -> None:
    found = asyncio.run(world.ask(world.begin()))
    assert isinstance(found, Identity)
    assert (found.consumer, found.roles, found.scopes) == ("", {"buyer"}, {"openid", "email"})
    assert found.expires_at == NOW + 43_200
    assert found.session is not None
    assert found.session.identity is found


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"PROPFIND", b"LOCK"])
def test_what_may_change_something_must_come_from_this_site(world: BffWorld, method: bytes) -> None:
    cookie = world.begin()
    identity = asyncio.run(world.ask(cookie))
    for fields in ([], [OTHER_SITE], [(b"Sec-Fetch-Site", b"same-site")], [(b"Origin", b"http://evil.test")]):
        denial = world.identify(cookie, *fields, method=method)
        assert isinstance(denial, Denial)
        assert denial.reason is Reason.CSRF_REJECTED
        assert not denial.is_failure  # or another site could shut its victim out
    for fields in ([SAME_SITE], [(b"Origin", b"http://shop.test")]):
        assert world.identify(cookie, *fields, method=method) is identity


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_what_changes_nothing_may_come_from_anywhere(world: BffWorld, method: bytes) -> None:
    cookie = world.begin()
    identity = asyncio.run(world.ask(cookie))
    assert world.identify(cookie, OTHER_SITE, method=method) is identity


def test_the_csrf_check_comes_before_any_look_up(world: BffWorld) -> None:
    for cookie in (b"A" * 43, b"malformed", world.begin()):
        denial = world.identify(cookie, OTHER_SITE, method=b"POST")
        assert isinstance(denial, Denial)
        assert denial.reason is Reason.CSRF_REJECTED


def test_without_a_session_a_page_is_sent_to_the_login_and_a_script_is_told(world: BffWorld) -> None:
    page = world.identify(None, PAGE, target=b"/orders?id=1")
    assert page.location == b"/bff/login?return_to=/orders%3Fid%3D1"
    script = world.identify(None, (b"Sec-Fetch-Mode", b"cors"))
    assert (script.reason, script.location) == (Reason.CREDENTIALS_MISSING, b"")
    assert script.extra_lines == b'WWW-Authenticate: Session realm="kit"\r\n'
    assert not script.is_failure


def test_with_a_dead_session_a_page_is_sent_to_the_login_too(world: BffWorld) -> None:
    found = world.identify(b"A" * 43, PAGE)
    assert isinstance(found, SessionLookup)
    for _ in range(2):
        denial = asyncio.run(world.ask(b"A" * 43))
    assert isinstance(denial, Denial)
    assert world.identify(b"A" * 43, PAGE, target=b"/x").location == b"/bff/login?return_to=/x"
    assert world.identify(b"malformed", PAGE, target=b"/x").location == b"/bff/login?return_to=/x"


def test_two_session_cookies_are_no_reason_to_go_in_circles(world: BffWorld) -> None:
    presented = [(b"cookie", b"AUTHGATE_BFF_SESSION=a; AUTHGATE_BFF_SESSION=b")]
    head = RequestHead(b"GET", b"/", 1, [(b"Host", b"shop.test"), PAGE])
    assert head.read({}, frozenset()) is None
    denial = world.authenticator.identify(head, presented, world.client, NOW)
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.location) == (Reason.CREDENTIALS_INVALID, b"")


def test_a_worthless_cookie_counts_once_and_guessing_is_stopped() -> None:
    kit = World(BffAdapter(), FailureGuard(3, 100, 60.0))
    kit.admitted(kit.adapter.good())
    same = [(b"Cookie", b"AUTHGATE_BFF_SESSION=" + b"A" * 43)]
    for _ in range(10):
        assert kit.refused(same).reason is Reason.CREDENTIALS_INVALID
    assert kit.lookups == 2
    for letter in b"BC":
        kit.refused([(b"Cookie", b"AUTHGATE_BFF_SESSION=" + bytes((letter,)) * 43)])
    lookups = kit.lookups
    refusal = kit.refused([(b"Cookie", b"AUTHGATE_BFF_SESSION=" + b"D" * 43)])
    assert refusal.reason is Reason.TOO_MANY_FAILURES
    assert kit.lookups == lookups
    kit.admitted(kit.adapter.good())
    assert kit.refused(same).reason is Reason.CREDENTIALS_INVALID


def test_a_known_session_that_is_to_be_checked_again_is_no_guess(world: BffWorld) -> None:
    cookie = world.begin()
    assert world.identify(cookie).is_guess
    asyncio.run(world.ask(cookie))
    world.now += 100
    assert not world.identify(cookie).is_guess


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, world: BffWorld) -> None:
    monkeypatch.setattr(bff, "MAX_SESSIONS", 3)
    monkeypatch.setattr(bff, "MAX_DEAD", 3)
    cookies = [world.begin() for _ in range(5)]
    for cookie in cookies:
        asyncio.run(world.ask(cookie))
    assert len(world.authenticator.sessions) == 3
    assert isinstance(world.identify(cookies[-1]), Identity)
    for letter in b"ABCDE":
        asyncio.run(world.ask(bytes((letter,)) * 43))
    assert len(world.authenticator.dead) == 3
    assert isinstance(asyncio.run(world.ask(cookies[0])), Identity)


@pytest.mark.parametrize(
    ("token", "sub"), [("a b", "u"), ("a\r\nX: y", "u"), ("é", "u"), ("", "u"), ("ok", "")]
)
def test_tokens_and_subjects_that_cannot_go_into_a_field_are_no_session(
    world: BffWorld, token: str, sub: str
) -> None:
    with pytest.raises(UnusableClaimError):
        world.authenticator.fill(Session("n" * 64, b""), record(access_token=token, claims={"sub": sub}))


@pytest.mark.parametrize(
    ("changes", "refresh_at"),
    [
        ({}, NOW + 3_570),
        ({"access_ends_at": NOW + 60, "access_ttl_s": 60.0}, NOW + 45),
        ({"access_ends_at": float("inf"), "access_ttl_s": float("inf")}, float("inf")),
        ({"refresh_token": ""}, float("inf")),
    ],
)
def test_a_token_is_renewed_a_little_before_its_end(changes: dict[str, object], refresh_at: float) -> None:
    assert bff.refresh_at(record(**changes)) == refresh_at


def test_a_short_idle_time_is_checked_more_often() -> None:
    settings = bff.BffSettings("i", "c", None, ("openid",), 60, 120, "roles")
    short = BffWorld(settings=settings).authenticator
    assert (short.check_s, short.touch_s) == (15, 15)
    usual = BffWorld(settings=SETTINGS).authenticator
    assert (usual.check_s, usual.touch_s) == (30, 60)


def test_a_name_in_the_store_tells_its_gateway_and_digest() -> None:
    name = session_name("shop", b"x")
    found = digest_of_name(name)
    assert found is not None
    assert (found[0], session_name(found[0], b"x")) == ("shop", name)
    for other in (
        "",
        "authgate:state:login:shop:" + "0" * 64,
        name[:-1],
        name[:-1] + "x",
        "authgate:state:session:" + "0" * 64,
    ):
        assert digest_of_name(other) is None


def test_secrets_do_not_show_in_what_is_printed() -> None:
    settings = bff.BffSettings("i", "c", SecretRef(text="hidden"), ("openid",), 60, 60, "roles")
    assert "hidden" not in repr(settings)


def test_what_is_kept_per_session_and_request_has_no_dict() -> None:
    world = BffWorld()
    for one in (Session("n", b""), record(), world.authenticator, world.identify(b"A" * 43)):
        assert not hasattr(one, "__dict__"), type(one)
