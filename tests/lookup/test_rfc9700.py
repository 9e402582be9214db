"""The attacks of RFC 9700 (and of OAuth for browser apps) by name, against a BFF gateway and an independent provider."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from tests.auth.test_browser import OPEN_REDIRECTS
from tests.lookup.bff_kit import SESSION, Browser, Site, fetch, query_of, serving, sign_in, with_parameter
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider
from tests.proxy.harness import answer as respond


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


async def refused(browser: Browser, callback: str) -> None:
    """The callback makes no session."""
    before = browser.cookies.get(SESSION)
    answer = await browser.visit(callback)
    assert (answer.status, answer.code) == (400, "login_failed"), answer
    assert answer.get("cache-control") == "no-store"
    assert browser.cookies.get(SESSION) == before


def exchanges(provider: Provider) -> int:
    return len([1 for _, _, form in provider.requests if form.get("grant_type") == "authorization_code"])


# --- 4.2 to 4.5: codes and states that leak, are replayed or injected -----------------------------------------------


async def test_code_replay(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        assert (await browser.visit(back)).status == 302
        await refused(browser, back)
        assert exchanges(provider) == 1


async def test_code_replay_at_the_same_moment(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        answers = await asyncio.gather(*(browser.visit(back) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [302, 400, 400, 400, 400]
        assert exchanges(provider) == 1


async def test_state_replay_with_another_code(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        cookies = dict(browser.cookies)
        first, second = await sign_in(url), await sign_in(url.replace(query_of(url)["nonce"], "B" * 43))
        assert (await browser.visit(first)).status == 302
        browser.cookies = cookies
        await refused(browser, second)


async def test_a_failed_callback_uses_its_state_up(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        cookies = dict(browser.cookies)
        await refused(browser, with_parameter(back, code="wrong"))
        browser.cookies = cookies
        await refused(browser, back)


async def test_login_csrf_with_the_state_of_another_browser(provider: Provider) -> None:
    """The attacker logs in as himself and has the victim's browser finish it, to see what the victim then enters."""
    async with serving(provider) as site:
        attacker, victim = site.browser(), site.browser()
        back = await sign_in(await attacker.begin(), "bob")
        await refused(victim, back)
        assert SESSION not in victim.cookies
        victim.cookies[next(iter(attacker.cookies))] = ("A" * 43, "/bff/callback")
        await refused(victim, back)
        await refused(attacker, back)  # used up


async def test_login_csrf_against_a_browser_that_has_a_login_of_its_own_under_way(provider: Provider) -> None:
    async with serving(provider) as site:
        attacker, victim = site.browser(), site.browser()
        back = await sign_in(await attacker.begin(), "bob")
        own = await victim.begin()
        (value, path) = next(iter(victim.cookies.values()))
        victim.cookies[next(iter(attacker.cookies))] = (value, path)
        await refused(victim, back)
        assert (await victim.visit(await sign_in(own))).status == 302


async def test_a_tossed_login_cookie(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        ((name, (value, path)),) = browser.cookies.items()
        browser.cookies = {name: (f"{'A' * 43}; {name}={value}", path)}
        await refused(browser, back)


async def test_code_injection(provider: Provider) -> None:
    """A stolen code is of no use in the attacker's own login: the verifier belongs to the victim's (RFC 9700 section 4.5)."""
    async with serving(provider) as site:
        attacker, victim = site.browser(), site.browser()
        stolen = query_of(await sign_in(await victim.begin(), "ann"))["code"]
        own = await sign_in(await attacker.begin(), "bob")
        await refused(attacker, with_parameter(own, code=stolen))
        assert "invalid_grant" in site.why("login_failed")


@pytest.mark.parametrize(
    "change",
    [
        {"state": None}, {"state": ""}, {"state": "x"}, {"state": "A" * 43}, {"code": None}, {"code": ""}, {"code": "a b"}, {"code": "é"},
        {"code": "x" * 5_000},
    ],
)  # fmt: skip
async def test_a_callback_that_is_not_whole(provider: Provider, change: dict[str, str | None]) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        await refused(browser, with_parameter(back, **change))
        assert exchanges(provider) == 0


@pytest.mark.parametrize("name", ["code", "state", "iss", "error"])
async def test_a_parameter_that_stands_twice(provider: Provider, name: str) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        value = query_of(back).get(name, "access_denied")
        await refused(browser, back + "&" + urlencode([(name, value), (name, value)]))
        assert exchanges(provider) == 0


# --- 4.4: mix-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", ["https://evil.test", "", None])
async def test_mix_up_by_the_issuer_of_the_answer(provider: Provider, issuer: str | None) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        assert query_of(back)["iss"] == provider.issuer
        await refused(browser, with_parameter(back, iss=issuer))
        assert exchanges(provider) == 0


async def test_an_issuer_that_is_almost_right(provider: Provider) -> None:
    async with serving(provider) as site:
        for almost in (provider.issuer + "/", provider.issuer.upper(), provider.issuer[:-1]):
            browser = site.browser()
            await refused(browser, with_parameter(await sign_in(await browser.begin()), iss=almost))


async def test_a_provider_that_does_not_promise_its_issuer_may_leave_it_out_but_not_name_another(
    provider: Provider,
) -> None:
    provider.metadata["authorization_response_iss_parameter_supported"] = False
    async with serving(provider) as site:
        browser = site.browser()
        await refused(browser, with_parameter(await sign_in(await browser.begin()), iss="https://evil.test"))
        assert (
            await browser.visit(with_parameter(await sign_in(await browser.begin()), iss=None))
        ).status == 302


# --- 2.1.1 and 4.8: PKCE ------------------------------------------------------------------------------------------------


async def test_pkce_downgrade_by_the_metadata(provider: Provider) -> None:
    provider.metadata["code_challenge_methods_supported"] = ["plain"]
    async with serving(provider) as site:
        answer = await site.browser().visit("/bff/login")
        assert (answer.status, answer.code) == (503, "auth_unavailable")
        assert "S256" in site.why("auth_unavailable")


async def test_pkce_is_used_although_the_provider_does_not_speak_of_it(provider: Provider) -> None:
    provider.metadata["code_challenge_methods_supported"] = None
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        assert query_of(url)["code_challenge_method"] == "S256"
        assert (await browser.visit(await sign_in(url))).status == 302
        (form,) = [form for _, _, form in provider.requests if form.get("grant_type") == "authorization_code"]
        assert len(form["code_verifier"]) == 43


async def test_pkce_downgrade_by_another_challenge(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        forged = url.replace(query_of(url)["code_challenge"], "A" * 43)
        await refused(browser, await sign_in(forged))


async def test_the_verifier_stays_here(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        (name,) = await site.resolver.store.names("authgate:state:login:", 10)
        stored = await site.resolver.store.get(name) or b""
        await browser.visit(await sign_in(url))
        (form,) = [form for _, _, form in provider.requests if form.get("grant_type") == "authorization_code"]
        for place in (url.encode(), stored, "".join(browser.set_lines).encode()):
            assert form["code_verifier"].encode() not in place
        for secret in (query_of(url)["nonce"], query_of(url)["state"]):
            assert secret.encode() not in stored


# --- ID tokens that are not for this login (OpenID Connect Core section 3.1.3.7) --------------------------------------------


def id_claims(provider: Provider, nonce: str) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": provider.issuer, "aud": "shop", "sub": "u-1", "iat": now, "exp": now + 300, "nonce": nonce}


def answer_with(provider: Provider, id_token: str | None) -> None:
    tokens = {
        "access_token": "t",
        "token_type": "Bearer",
        "expires_in": 300,
        "refresh_token": "to-be-revoked",
    }
    provider.fail(
        "token", body=orjson.dumps(tokens | ({"id_token": id_token} if id_token is not None else {}))
    )


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "A" * 43}, {"nonce": None}, {"iss": "https://evil.test"}, {"aud": "other"}, {"aud": ["shop", "other"]}, {"azp": "other"},
        {"exp": 1}, {"exp": None}, {"iat": None}, {"sub": None}, {"sub": ""}, {"typ": "Refresh"},
    ],
)  # fmt: skip
async def test_an_id_token_of_another_login_client_or_provider(
    provider: Provider, change: dict[str, Any]
) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        claims = id_claims(provider, query_of(url)["nonce"]) | change
        back = await sign_in(url)
        answer_with(
            provider,
            provider.sign({name: value for name, value in claims.items() if value is not None}, typ="JWT"),
        )
        await refused(browser, back)
        assert [form["token"] for endpoint, _, form in provider.requests if endpoint == "revoke"] == [
            "to-be-revoked"
        ]


async def test_the_forged_id_tokens_above_would_be_good_if_they_were_not_forged(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        url = await browser.begin()
        back = await sign_in(url)
        answer_with(provider, provider.sign(id_claims(provider, query_of(url)["nonce"]), typ="JWT"))
        assert (await browser.visit(back)).status == 302


@pytest.mark.parametrize("token", [None, "", "x", "a.b.c"])
async def test_no_id_token(provider: Provider, token: str | None) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        answer_with(provider, token)
        answer = await browser.visit(back)
        assert answer.status in (400, 503)
        assert SESSION not in browser.cookies


async def test_token_substitution_at_the_userinfo_endpoint(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        provider.fail("userinfo", body=b'{"sub": "u-2", "roles": ["admin"]}')
        await refused(browser, back)


@pytest.mark.parametrize(
    ("change", "goes_on"),
    [
        (None, True), ({}, True), ({"nonce": None}, True), ({"sub": "u-2"}, False), ({"iss": "https://evil.test"}, False),
        ({"aud": "other"}, False), ({"exp": 1}, False), ("x.y.z", False),
    ],
)  # fmt: skip
async def test_a_renewal_that_tells_of_another_user_ends_the_session(
    provider: Provider, change: dict[str, Any] | str | None, goes_on: bool
) -> None:
    """OpenID Connect Core section 12.2."""
    provider.access_ttl_s = 1
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        id_token = change
        if isinstance(change, dict):
            claims = id_claims(provider, "n") | change
            id_token = provider.sign(
                {name: value for name, value in claims.items() if value is not None}, typ="JWT"
            )
        answer_with(provider, id_token)
        await asyncio.sleep(1.05)  # the token's life, which is in whole seconds
        answer = await browser.go("/api/x")
        if goes_on:
            assert (answer.status, b"Authorization: Bearer t\r\n" in answer.body) == (200, True)
            assert provider.calls["revoke"] == 0
        else:
            assert (answer.status, answer.code) == (401, "credentials_invalid")
            assert await site.resolver.store.names("authgate:state:session:", 10) == []
            revoked = [form["token"] for endpoint, _, form in provider.requests if endpoint == "revoke"]
            assert revoked == ["to-be-revoked"]


# --- 4.11: open redirection -----------------------------------------------------------------------------------------------


async def test_open_redirect(provider: Provider) -> None:
    async with serving(provider) as site:
        for text in OPEN_REDIRECTS:
            browser = site.browser()
            query = urlencode({"return_to": text})
            answer = await browser.visit(f"/bff/login?{query}")
            assert answer.status in (302, 400, 414), text
            if answer.status == 302:
                assert answer.get("location").startswith(f"{provider.issuer}/authorize?")
                site.resolver.bff._logins._begun.__init__(1_000, 1_000, 60.0)  # type: ignore[misc]  # not what this is about
                landed = await browser.visit(await sign_in(answer.get("location")))
                assert (landed.status, landed.get("location")) == (302, "/"), text


async def test_open_redirect_by_two_return_tos(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        login = await browser.visit("/bff/login?return_to=/a&return_to=//evil.test")
        assert (await browser.visit(await sign_in(login.get("location")))).get("location") == "/"


async def test_open_redirect_behind_the_logout(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        out = await browser.post(
            "/bff/logout?post_logout_redirect_uri=https://evil.test", ("Accept", "application/json")
        )
        assert query_of(out.json["logoutUrl"])["post_logout_redirect_uri"] == f"http://{browser.host}/"


async def test_a_foreign_host_gets_no_code(provider: Provider) -> None:
    """Redirect URIs are compared whole, at the provider (section 2.1); here it only matters that ours is the one we are at."""
    async with serving(provider) as site:
        evil = Browser(site.port, "evil.test")
        url = await evil.begin()
        assert query_of(url)["redirect_uri"] == "http://evil.test/bff/callback"
        form = urlencode({"username": "ann", "password": "ann-password", "action": "sign-in"}).encode()
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        answer = await fetch(
            provider.port, "POST", url.removeprefix(provider.issuer), [("Host", "iam.test"), kind], form
        )
        assert answer.status == 400


# --- sessions: fixation, tossing, CSRF ------------------------------------------------------------------------------------


async def test_session_fixation_by_an_invented_cookie(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        browser.cookies[SESSION] = ("F" * 43, "/")
        await browser.log_in()
        assert browser.session != "F" * 43
        assert len(browser.session) == 43


async def test_session_fixation_by_the_attackers_own_session(provider: Provider) -> None:
    async with serving(provider) as site:
        attacker, victim = site.browser(), site.browser()
        await attacker.log_in(user="bob")
        victim.cookies[SESSION] = (attacker.session, "/")
        await victim.log_in(user="ann")
        assert victim.session != attacker.session
        assert (await attacker.me()).status == 401
        assert (await victim.me()).json["user"]["sub"] == "u-1"


async def test_every_login_makes_a_new_session_and_ends_the_old_one(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        old = Browser(site.port, browser.host, dict(browser.cookies))
        await browser.log_in()
        assert browser.session != old.session
        assert (await old.go("/api/x")).status == 401
        assert (await browser.go("/api/x")).status == 200
        assert len(await site.resolver.store.names("authgate:state:session:", 10)) == 1


async def test_cookie_tossing(provider: Provider) -> None:
    async with serving(provider) as site:
        victim, attacker = site.browser(), site.browser()
        await victim.log_in(user="ann")
        await attacker.log_in(user="bob")
        both = f"{attacker.session}; {SESSION}={victim.session}"
        tossed = Browser(site.port, victim.host, {SESSION: (both, "/")})
        assert (await tossed.go("/api/x")).code == "credentials_invalid"
        assert (await tossed.me()).json == {"authenticated": False}
        assert (await tossed.visit("/api/x")).status == 401
        out = await tossed.post("/bff/logout")
        assert out.status == 204
        assert {(await one.me()).status for one in (victim, attacker)} == {401}


async def test_tossed_junk_hides_no_session_from_logout_and_login(provider: Provider) -> None:
    async with serving(provider) as site:
        for path in ("logout", "login"):
            victim = site.browser()
            await victim.log_in()
            junk = "".join(f"{SESSION}=x{number}; " for number in range(9))
            doubled = f"x; {junk}{SESSION}={victim.session}; {SESSION}={victim.session}"
            tossed = Browser(site.port, victim.host, {SESSION: (doubled, "/")})
            if path == "logout":
                assert (await tossed.post("/bff/logout")).status == 204
            else:
                assert (await tossed.log_in()).status == 302
            assert (await victim.me()).status == 401


async def test_more_tossed_sessions_than_are_looked_at_are_refused(provider: Provider) -> None:
    async with serving(provider) as site:
        victim = site.browser()
        await victim.log_in()
        junk = "".join(f"{number:A>43}; {SESSION}=" for number in range(4))
        tossed = Browser(site.port, victim.host, {SESSION: (junk + victim.session, "/")})
        out = await tossed.post("/bff/logout")
        assert (out.status, out.code, out.all("set-cookie")) == (401, "credentials_invalid", [])
        back = await sign_in(await tossed.begin())
        assert (await tossed.visit(back)).code == "credentials_invalid"
        assert exchanges(provider) == 1
        assert (await victim.me()).status == 200


async def test_a_session_id_in_any_other_place_is_nothing(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        thief = site.browser()
        sid = browser.session
        for target, lines in (
            (f"/api/x?{SESSION}={sid}", []),
            (f"/api/x;{SESSION}={sid}", []),
            ("/api/x", [(SESSION, sid)]),
            ("/api/x", [("Authorization", f"Bearer {sid}")]),
            ("/api/x", [("Cookie2", f"{SESSION}={sid}")]),
            ("/api/x", [("Set-Cookie", f"{SESSION}={sid}")]),
            ("/api/x", [("Cookie", f"x={SESSION}={sid}")]),
            ("/api/x", [("Cookie", f"{SESSION.lower()}={sid}")]),
        ):
            assert (await thief.go(target, "GET", *lines)).status in (400, 401), (target, lines)


async def test_a_session_of_one_gateway_is_nothing_at_another(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        store = site.resolver.store
        async with serving(provider, store, name="other") as other:
            thief = Browser(other.port, browser.host, dict(browser.cookies))
            assert (await thief.me()).status == 401
            assert (await thief.go("/api/x")).status == 401
        assert (await browser.me()).status == 200


class Counting:
    """A backend that counts what reaches it."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            writer.write(respond())
            await writer.drain()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_cross_site_request_forgery(provider: Provider, method: str) -> None:
    backend = Counting()
    async with serving(provider, handler=backend) as site:
        browser = site.browser()
        await browser.log_in()
        forged: list[list[tuple[str, str]]] = [
            [("Sec-Fetch-Site", "cross-site")],
            [("Sec-Fetch-Site", "same-site")],
            [("Sec-Fetch-Site", "cross-site"), ("Origin", f"http://{browser.host}")],
            [("Origin", "https://evil.test")],
            [("Origin", "null")],
            [],
        ]
        for lines in forged:
            answer = await browser.go("/api/x", method, *lines)
            assert (answer.status, answer.code) == (403, "csrf_rejected"), lines
        assert backend.requests == 0
        for lines in ([("Sec-Fetch-Site", "same-origin")], [("Origin", f"http://{browser.host}")]):
            assert (await browser.go("/api/x", method, *lines)).status == 200
        assert backend.requests == 2


async def test_cross_site_logout(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        for site_value in ("cross-site", "same-site", "none"):
            answer = await browser.post("/bff/logout", site=site_value)
            assert (answer.status, answer.code) == (403, "csrf_rejected")
            assert not answer.all("set-cookie")
        without_cookie = site.browser()
        answer = await without_cookie.post("/bff/logout", site="cross-site")
        assert not answer.all(
            "set-cookie"
        )  # it would end the session of a browser that did not send its cookie
        assert (await browser.me()).status == 200


# --- tokens stay on the server --------------------------------------------------------------------------------------------


async def test_no_token_ever_reaches_the_browser(provider: Provider) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(respond(b"{}"))
            await writer.drain()

    async with serving(provider, handler=handler) as site:
        browser = site.browser()
        seen = [await browser.visit("/api/x"), await browser.visit("/bff/login")]
        url = seen[1].get("location")
        seen += [await browser.visit(await sign_in(url))]
        seen += [
            await browser.me(),
            await browser.go("/api/x"),
            await browser.go("/"),
            await browser.post("/bff/logout"),
        ]
        issued = provider.tokens[-1]
        shown = b"".join(repr(answer.lines).encode() + answer.body for answer in seen)
        for secret in (issued.access_token, issued.refresh_token):
            assert secret.encode() not in shown
        assert re.search(rb"eyJ[\w-]+\.eyJ", shown) is None  # a signed token of any kind


async def test_failures_tell_the_page_nothing_about_the_inside(provider: Provider) -> None:
    async with serving(provider) as site:
        bodies = await all_failures(site)
        for body in bodies:
            for inside in (
                b"127.0.0.1",
                b"verifier",
                b"nonce",
                b"redis",
                b"authgate:state",
                b"Error",
                b"invalid_grant",
                b"secret",
            ):
                assert inside not in body, body


async def all_failures(site: Site) -> list[bytes]:
    browser = site.browser()
    back = await sign_in(await browser.begin())
    answers = [await browser.visit(with_parameter(back, code="wrong")), await browser.visit(back)]
    answers += [
        await browser.visit(f"/bff/callback{query}")
        for query in ("", "?state=x", "?code=x&state=" + "A" * 43)
    ]
    back = await sign_in(await browser.begin())
    site.provider.fail("token", status=500)
    answers.append(await browser.visit(back))
    site.provider.heal()
    assert all(answer.status in (400, 503) for answer in answers)
    return [answer.body for answer in answers]
