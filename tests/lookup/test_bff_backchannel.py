"""A logout at the provider ends the sessions here (OpenID Connect Back-Channel Logout 1.0)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.lookup.bff_kit import Answer, Browser, Site, fetch, query_of, serving, sign_in
from tests.lookup.test_rfc9700 import answer_with, id_claims
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider

EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


async def logged_in(site: Site, sid: str | None = None, sub: str = "u-1") -> Browser:
    """Log in; the provider names its own session `sid`."""
    browser = site.browser()
    url = await browser.begin()
    back = await sign_in(url, "ann" if sub == "u-1" else "bob")
    claims = id_claims(site.provider, query_of(url)["nonce"]) | {"sub": sub} | ({"sid": sid} if sid else {})
    answer_with(site.provider, site.provider.sign(claims, typ="JWT"))
    site.provider.fail("userinfo", status=401)
    assert (await browser.visit(back)).status == 302
    site.provider.heal()
    return browser


def logout_claims(provider: Provider, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": provider.issuer, "aud": "shop", "iat": now, "exp": now + 120, "jti": f"{time.monotonic_ns()}", "events": EVENTS, "sub": "u-1",
    } | changes  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


async def tell(site: Site, token: str | None = None, **changes: Any) -> Answer:
    """Be the provider that tells."""
    signed = (
        token
        if token is not None
        else site.provider.sign(logout_claims(site.provider, **changes), typ="logout+jwt")
    )
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    body = urlencode({"logout_token": signed}).encode()
    return await fetch(site.port, "POST", "/bff/backchannel-logout", [("Host", "shop.localhost"), kind], body)


async def statuses(*browsers: Browser) -> list[int]:
    return [(await browser.me()).status for browser in browsers]


async def test_the_session_that_is_named_ends_and_no_other(provider: Provider) -> None:
    async with serving(provider) as site:
        named, other = await logged_in(site, "sid-1"), await logged_in(site, "sid-2")
        assert await statuses(named, other) == [200, 200]
        told = await tell(site, sid="sid-1")
        assert (told.status, told.body, told.get("cache-control")) == (200, b"", "no-store")
        site.resolver.sessions._missed()  # what the store tells a moment later
        assert await statuses(named, other) == [401, 200]


async def test_every_session_of_the_sign_in_that_is_named_ends(provider: Provider) -> None:
    async with serving(provider) as site:
        browsers = [await logged_in(site, "sid-1") for _ in range(3)]
        other = await logged_in(site, "sid-2")
        assert await statuses(*browsers, other) == [200] * 4
        assert (await tell(site, sid="sid-1")).status == 200
        site.resolver.sessions._missed()
        assert await statuses(*browsers, other) == [401, 401, 401, 200]


async def test_a_users_sessions_are_found_without_a_search(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(provider) as site:
        browser = await logged_in(site)
        monkeypatch.setattr(site.resolver.store, "names", None)  # it takes long, and has a limit
        assert (await tell(site)).status == 200
        site.resolver.sessions._missed()
        assert await statuses(browser) == [401]


async def test_all_sessions_of_a_user_end_and_nobody_elses(provider: Provider) -> None:
    async with serving(provider) as site:
        first, second, other = (
            await logged_in(site),
            await logged_in(site, "sid-1"),
            await logged_in(site, sub="u-2"),
        )
        assert (await tell(site)).status == 200
        site.resolver.sessions._missed()
        assert await statuses(first, second, other) == [401, 401, 200]


async def test_a_session_that_is_not_known_is_no_mistake(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = await logged_in(site, "sid-1")
        assert (await tell(site, sid="sid-9")).status == 200
        assert (await tell(site, sub="u-9")).status == 200
        assert await statuses(browser) == [200]


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.test"}, {"aud": "other"}, {"exp": 1}, {"exp": None}, {"iat": None}, {"jti": None}, {"jti": 7}, {"events": None},
        {"events": {}}, {"events": {"x": {}}}, {"events": {next(iter(EVENTS)): None}}, {"nonce": "x"}, {"sub": None}, {"sub": 7}, {"sid": 7},
    ],
)  # fmt: skip
async def test_a_token_that_is_no_logout_token_for_us_ends_nothing(
    provider: Provider, change: dict[str, Any]
) -> None:
    async with serving(provider) as site:
        browser = await logged_in(site)
        told = await tell(site, **change)
        assert (told.status, told.json, told.get("cache-control")) == (
            400,
            {"error": "invalid_request"},
            "no-store",
        )
        site.resolver.sessions._missed()
        assert await statuses(browser) == [200]


async def test_an_id_token_is_no_logout_token(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = await logged_in(site)
        for token in (provider.sign(id_claims(provider, "n"), typ="JWT"), "", "x", "a.b.c"):
            assert (await tell(site, token)).status == 400
        assert (await tell(site, provider.sign(logout_claims(provider), typ="at+jwt"))).status == 400
        site.resolver.sessions._missed()
        assert await statuses(browser) == [200]


async def test_a_logout_token_is_used_once(provider: Provider) -> None:
    async with serving(provider) as site:
        token = provider.sign(logout_claims(provider), typ="logout+jwt")
        assert (await tell(site, token)).status == 200
        browser = await logged_in(site)
        assert (await tell(site, token)).status == 400
        site.resolver.sessions._missed()
        assert await statuses(browser) == [200]


async def test_guessing_is_stopped(provider: Provider) -> None:
    async with serving(provider) as site:
        site.stack.context.guard.__init__(3, 100, 60.0)  # type: ignore[misc]  # a fresh one, which connections share
        assert [(await tell(site, "x")).status for _ in range(5)] == [400, 400, 400, 429, 429]


async def test_what_pages_of_other_sites_send_does_not_count_against_their_visitors(
    provider: Provider,
) -> None:
    async with serving(provider) as site:
        site.stack.context.guard.__init__(1, 100, 60.0)  # type: ignore[misc]  # a fresh one, which connections share
        browser = site.browser()
        good = urlencode({"logout_token": provider.sign(logout_claims(provider), typ="logout+jwt")}).encode()
        for sender in (("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test"), ("Origin", "null")):
            for body in (b"", b"x=1", b"logout_token=x", good):
                told = await browser.go("/bff/backchannel-logout", "POST", sender, body=body)
                assert (told.status, told.json) == (400, {"error": "invalid_request"})
        for body in (b"x=1", b"logout_token=x&logout_token=y"):
            assert (await browser.go("/bff/backchannel-logout", "POST", body=body)).status == 400
        assert (await tell(site)).status == 200


async def test_it_is_a_post_and_needs_neither_cookie_nor_origin(provider: Provider) -> None:
    async with serving(provider) as site:
        assert (await site.browser().go("/bff/backchannel-logout")).status == 405
        assert (await tell(site)).status == 200
