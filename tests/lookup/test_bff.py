"""The endpoints of a BFF gateway and what follows for its routes, over sockets, with an independent provider."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from authgate_fast.auth.login import login_cookie
from authgate_fast.lookup import bff_login
from authgate_fast.lookup.memory_store import MemoryStore
from tests.lookup.bff_kit import (
    SESSION,
    Answer,
    Browser,
    Site,
    eventually,
    fetch,
    query_of,
    serving,
    sign_in,
    with_parameter,
)
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider
from tests.proxy.harness import answer as respond


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


def lines_of(answer: Answer) -> list[str]:
    """Return the head that the backend of the kit saw."""
    return answer.body.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")


# --- from login to logout -----------------------------------------------------------------------------------------


async def test_a_login_makes_a_session_whose_token_the_backend_gets(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        landed = await browser.log_in("/cart?item=1")
        assert (landed.status, landed.get("location")) == (302, "/cart?item=1")
        answer = await browser.go("/api/orders?x=1", "GET", ("Authorization", "Bearer of-the-client"))
        assert answer.status == 200
        seen = lines_of(answer)
        assert seen[0] == "GET /orders?x=1 HTTP/1.1"
        assert [line for line in seen if line.startswith("Authorization")] == [
            f"Authorization: Bearer {provider.tokens[-1].access_token}"
        ]
        assert {"X-User-Id: u-1", "X-User-Roles: buyer,admin", "X-Client-Id: shop"} <= set(seen)
        assert not [line for line in seen if line.startswith("Cookie")]
        assert browser.session not in answer.body.decode()


async def test_the_login_asks_the_provider_as_the_rfcs_say(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        answer = await browser.visit("/bff/login?return_to=/cart&prompt=none&scope=admin&client_id=x")
        assert answer.status == 302
        assert answer.get("cache-control") == "no-store"
        assert answer.get("referrer-policy") == "no-referrer"
        url = answer.get("location")
        assert url.startswith(f"{provider.issuer}/authorize?")
        query = parse_qs(urlsplit(url).query)
        assert all(len(values) == 1 for values in query.values())
        asked = query_of(url)
        assert set(asked) == {
            "response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
        }  # fmt: skip
        assert asked["redirect_uri"] == f"http://{browser.host}/bff/callback"
        assert (asked["client_id"], asked["scope"], asked["code_challenge_method"]) == (
            "shop",
            "openid profile email",
            "S256",
        )
        (line,) = answer.all("set-cookie")
        assert line.endswith("; Path=/bff/callback; Max-Age=600; HttpOnly; SameSite=Lax")
        assert asked["state"] not in line


async def test_the_session_cookie_is_set_as_the_design_says_and_the_login_cookie_goes(
    provider: Provider,
) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        landed = await browser.log_in()
        session, cleared = landed.all("set-cookie")
        assert session == f"{SESSION}={browser.session}; Path=/; HttpOnly; SameSite=Lax"
        assert cleared.startswith("AUTHGATE_BFF_LOGIN_")
        assert "; Max-Age=0" in cleared
        assert set(browser.cookies) == {SESSION}
        assert (landed.get("cache-control"), landed.get("referrer-policy")) == ("no-store", "no-referrer")
        assert landed.body == b""


async def test_me_tells_the_page_who_is_there(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        me = await browser.me()
        assert (me.status, me.get("content-type"), me.get("cache-control")) == (
            200,
            "application/json",
            "no-store",
        )
        told = me.json
        user = told.pop("user")
        assert {
            "sub": "u-1",
            "name": "Ann",
            "email": "ann@example.com",
            "roles": ["buyer", "admin"],
        }.items() <= user.items()
        assert not {"iss", "aud", "exp", "iat", "nonce", "at_hash", "azp"} & set(user)
        assert told == {
            "authenticated": True, "gatewayName": "shop", "oauthClientId": "shop", "scope": "openid profile email", "expiresIn": 1_800,
        }  # fmt: skip


async def test_me_tells_nobody_that_nobody_is_there(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        for cookies in (
            {},
            {SESSION: ("A" * 43, "/")},
            {SESSION: ("x", "/")},
            {SESSION: (f"a; {SESSION}=b", "/")},
        ):
            browser.cookies = cookies
            me = await browser.me()
            assert (me.status, me.json) == (401, {"authenticated": False})
            assert me.get("cache-control") == "no-store"
            assert me.get("www-authenticate") == 'Session realm="shop"'


async def test_a_page_is_sent_to_the_login_and_comes_back_to_where_it_wanted(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        sent = await browser.visit("/api/orders/a%20b?x=1%262")
        assert (sent.status, sent.get("cache-control")) == (302, "no-store")
        login = await browser.visit(sent.get("location"))
        landed = await browser.visit(await sign_in(login.get("location")))
        assert landed.get("location") == "/api/orders/a%20b?x=1%262"


async def test_a_script_without_a_session_is_told(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        answer = await browser.go("/api/x", "GET", ("Sec-Fetch-Mode", "cors"))
        assert (answer.status, answer.code) == (401, "credentials_missing")
        assert answer.get("www-authenticate") == 'Session realm="shop"'
        browser.cookies[SESSION] = ("A" * 43, "/")
        answer = await browser.go("/api/x", "GET", ("Sec-Fetch-Mode", "cors"))
        assert (answer.status, answer.code) == (401, "credentials_invalid")


async def test_logout_ends_the_session_here_and_the_grant_at_the_provider(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        stolen = dict(browser.cookies)
        out = await browser.post("/bff/logout")
        assert (out.status, out.body, out.get("cache-control")) == (204, b"", "no-store")
        assert out.all("set-cookie") == [f"{SESSION}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]
        assert browser.cookies == {}
        assert provider.calls["revoke"] == 1
        assert provider.tokens[-1].refresh_ended
        browser.cookies = stolen
        assert (await browser.go("/api/x")).status == 401
        assert (await browser.me()).status == 401


async def test_logout_can_be_repeated(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        for cookies in ({}, {SESSION: ("A" * 43, "/")}, {SESSION: ("x", "/")}):
            browser.cookies = cookies
            out = await browser.post("/bff/logout")
            assert out.status == 204
            assert out.get("set-cookie").startswith(f"{SESSION}=; ")


async def test_logout_tells_the_providers_logout_url_when_asked(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        out = await browser.post("/bff/logout", ("Accept", "application/json"))
        assert (out.status, out.get("cache-control")) == (200, "no-store")
        url = out.json["logoutUrl"]
        assert url.startswith(f"{provider.issuer}/end_session?")
        asked = query_of(url)
        assert asked["post_logout_redirect_uri"] == f"http://{browser.host}/"
        assert asked["client_id"] == "shop"
        assert asked["id_token_hint"].count(".") == 2
        again = await browser.post("/bff/logout", ("Accept", "application/json"))
        assert "id_token_hint" not in query_of(again.json["logoutUrl"])
        provider.down()
        assert (await browser.post("/bff/logout", ("Accept", "application/json"))).status == 200


async def test_logout_works_while_the_provider_is_away(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        provider.down()
        stolen = dict(browser.cookies)
        assert (await browser.post("/bff/logout")).status == 204
        browser.cookies = stolen
        assert (await browser.go("/api/x")).status == 401


@pytest.mark.parametrize(
    ("endpoint", "allow"),
    [
        ("login", "GET, HEAD, OPTIONS"),
        ("callback", "GET, HEAD, OPTIONS"),
        ("me", "GET, HEAD, OPTIONS"),
        ("logout", "POST, OPTIONS"),
    ],
)
async def test_each_endpoint_has_its_methods(provider: Provider, endpoint: str, allow: str) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        wrong = await browser.go(
            f"/bff/{endpoint}", "GET" if endpoint == "logout" else "POST", ("Sec-Fetch-Site", "same-origin")
        )
        assert (wrong.status, wrong.get("allow"), wrong.get("cache-control")) == (405, allow, "no-store")
        assert (await browser.go("/bff/unknown")).status == 404


# --- routes, frontend and cookies ---------------------------------------------------------------------------------


async def test_roles_and_scopes_of_a_route_are_asked_of_the_user(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        expected = {"/admin": 200, "/other": 403, "/read": 200, "/write": 403}
        assert {path: (await browser.go(path)).status for path in expected} == expected


async def test_public_routes_and_the_frontend_never_see_session_or_token(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        browser.cookies |= {"theme": ("dark", "/"), "cart": ("1", "/")}
        for target, path in (("/open", "/open"), ("/", "/front/"), ("/app.js?v=1", "/front/app.js?v=1")):
            answer = await browser.go(target, "GET", ("Authorization", "Bearer x"))
            seen = lines_of(answer)
            assert seen[0] == f"GET {path} HTTP/1.1"
            assert [line for line in seen if line.startswith(("Cookie", "Authorization", "X-User"))] == [
                "Cookie: theme=dark; cart=1"
            ]
        seen = lines_of(await browser.go("/api/x"))
        assert "Cookie: theme=dark; cart=1" in seen


async def test_the_frontend_takes_get_and_head_only_and_hides_no_route(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        assert (await browser.go("/anything", "POST", ("Sec-Fetch-Site", "same-origin"))).status == 404
        assert (await browser.go("/anything", "HEAD")).status == 200
        assert (await browser.go("/api/x", "GET", ("Sec-Fetch-Mode", "cors"))).status == 401


async def test_a_backend_cannot_set_the_session_cookie(provider: Provider) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            lines = b"Set-Cookie: AUTHGATE_BFF_SESSION=evil; Path=/\r\nSet-Cookie: theme=dark\r\nset-cookie: =AUTHGATE_BFF_SESSION=evil\r\n"
            writer.write(
                b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: AUTHGATE_BFF_SESSION=evil\r\n\r\n"
                + respond(extra=lines)
            )
            await writer.drain()

    async with serving(provider, handler=handler) as site:
        browser = site.browser()
        await browser.log_in()
        session = browser.session
        for target in ("/api/x", "/open", "/front-page"):
            answer = await browser.go(target)
            assert answer.status == 200
            assert answer.all("set-cookie") == ["theme=dark"]
        assert browser.session == session
        reader, writer = await site.stack.connect()
        writer.write(b"GET /open HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
        hints = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert hints.startswith(b"HTTP/1.1 103")
        assert b"evil" not in hints


async def test_shared_caches_keep_no_answer_to_a_session_unless_the_backend_says_so(
    provider: Provider,
) -> None:
    """RFC 9111 section 3.5, which a response to a request with Authorization would be under."""
    said = [b""]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(respond(extra=said[0]))
            await writer.drain()

    async with serving(provider, handler=handler) as site:
        browser = site.browser()
        await browser.log_in()
        for line, told in (
            (b"", ["private"]),
            (b"Cache-Control: max-age=60\r\n", ["max-age=60", "private"]),
            (b"Cache-Control: public, max-age=60\r\n", ["public, max-age=60"]),
            (b"cache-control: no-store\r\n", ["no-store"]),
        ):
            said[0] = line
            answer = await browser.go("/api/x")
            assert (answer.all("cache-control"), answer.body) == (told, b"ok")
        said[0] = b"Cache-Control: max-age=60\r\n"
        for target in ("/open", "/app.js"):  # the same for everybody
            assert (await browser.go(target)).all("cache-control") == ["max-age=60"]


async def test_a_service_that_takes_no_tokens_gets_none(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        seen = lines_of(await browser.go("/plain"))
        assert not [line for line in seen if line.startswith("Authorization")]
        assert "X-User-Id: u-1" in seen


# --- where this site is -------------------------------------------------------------------------------------------

BEHIND_TLS = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example.com")]


async def test_behind_a_trusted_proxy_the_site_is_where_that_says(provider: Provider) -> None:
    async with serving(provider, trusted=["127.0.0.1"]) as site:
        browser = site.browser()
        provider.clients["shop"].redirect_uris.append("https://shop.example.com/bff/callback")
        login = await browser.go("/bff/login", "GET", *BEHIND_TLS)
        assert query_of(login.get("location"))["redirect_uri"] == "https://shop.example.com/bff/callback"
        assert login.get("set-cookie").endswith("; SameSite=Lax; Secure")
        landed = await browser.go(await sign_in(login.get("location")), "GET", *BEHIND_TLS)
        assert landed.status == 302
        assert all(line.endswith("; Secure") for line in landed.all("set-cookie"))
        good, bad = ("Origin", "https://shop.example.com"), ("Origin", f"http://{browser.host}")
        assert (await browser.go("/api/x", "POST", *BEHIND_TLS, good)).status == 200
        assert (await browser.go("/api/x", "POST", *BEHIND_TLS, bad)).code == "csrf_rejected"
        out = await browser.go("/bff/logout", "POST", *BEHIND_TLS, good)
        assert out.get("set-cookie").endswith("; Secure")


async def test_a_trusted_proxy_names_a_host_of_this_gateway(provider: Provider) -> None:
    hosts = ("inner.test", "shop.example.com", "*.shop.test")
    async with serving(provider, trusted=["127.0.0.1"], hosts=hosts) as site:
        browser = site.browser("inner.test")
        await browser.log_in()
        for host, is_ours in (
            ("shop.example.com", True), ("SHOP.example.com:443", True), ("a.shop.test", True), ("inner.test:8443", True),
            ("evil.example", False), ("shop.example.com.evil.example", False), ("shop.test", False), ("xshop.test", False),
        ):  # fmt: skip
            told = [("X-Forwarded-Host", host), ("X-Forwarded-Proto", "https")]
            login = await browser.go("/bff/login", "GET", *told)
            assert login.status == (302 if is_ours else 400), host
            origin = ("Origin", "https://" + host.lower().removesuffix(":443"))
            posted = await browser.go("/api/x", "POST", *told, origin)
            assert posted.status == (200 if is_ours else 403), host


async def test_nobody_else_can_say_where_the_site_is(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        login = await browser.go("/bff/login", "GET", *BEHIND_TLS)
        assert query_of(login.get("location"))["redirect_uri"] == f"http://{browser.host}/bff/callback"
        assert "Secure" not in login.get("set-cookie")


async def test_a_site_in_doubt_begins_no_login(provider: Provider) -> None:
    async with serving(provider, trusted=["127.0.0.1"]) as site:
        for lines in ([("X-Forwarded-Proto", "https, http")], [("X-Forwarded-Host", "a, b")]):
            answer = await site.browser().go("/bff/login", "GET", *lines)
            assert (answer.status, answer.code) == (400, "login_failed")
        old = await fetch(site.port, "GET", "/bff/login", [("Host", "")])
        assert old.status == 400


# --- several tabs, several users ----------------------------------------------------------------------------------


async def test_several_tabs_log_in_at_once(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        urls = [await browser.begin(f"/tab/{number}") for number in range(3)]
        backs = [await sign_in(url) for url in urls]
        for number in (1, 2, 0):
            landed = await browser.visit(backs[number])
            assert (landed.status, landed.get("location")) == (302, f"/tab/{number}")
        assert set(browser.cookies) == {SESSION}
        assert (await browser.me()).status == 200


async def test_sessions_of_two_browsers_are_apart(provider: Provider) -> None:
    async with serving(provider) as site:
        ann, bob = site.browser(), site.browser()
        await ann.log_in(user="ann")
        await bob.log_in(user="bob")
        assert ((await ann.me()).json["user"]["sub"], (await bob.me()).json["user"]["sub"]) == ("u-1", "u-2")
        assert (await bob.me()).json["user"]["name"] == "Bøb"
        await ann.post("/bff/logout")
        assert (await bob.go("/api/x")).status == 200


# --- the provider fails -------------------------------------------------------------------------------------------


async def test_without_the_provider_no_login_begins_and_sessions_go_on(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        provider.down()
        assert (await browser.go("/api/x")).status == 200
        assert (await browser.me()).status == 200
    async with serving(provider) as site:
        answer = await site.browser().visit("/bff/login")
        assert (answer.status, answer.code) == (503, "auth_unavailable")
        assert answer.get("retry-after")


@pytest.mark.parametrize("endpoint", ["token", "userinfo"])
async def test_a_provider_that_fails_in_the_middle_of_a_login_makes_no_session(
    provider: Provider, endpoint: str
) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        provider.fail(endpoint, status=500)
        answer = await browser.visit(back)
        assert (answer.status, answer.code) == (503, "auth_unavailable")
        assert SESSION not in browser.cookies
        assert [token.refresh_ended for token in provider.tokens] == [True] * (endpoint == "userinfo")
        provider.heal()
        assert (await browser.visit(back)).code == "login_failed"
        assert await site.resolver.store.names("authgate:state:session:", 10) == []


async def test_a_user_who_declines_is_told_so(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin(), action="deny")
        answer = await browser.visit(back)
        assert (answer.status, answer.code) == (400, "login_failed")
        assert (
            answer.json["detail"]
            == "The identity provider answered: access_denied. Start again at /bff/login."
        )
        assert answer.get("set-cookie").startswith("AUTHGATE_BFF_LOGIN_")
        assert SESSION not in browser.cookies


async def test_an_unknown_error_of_the_provider_is_not_repeated_to_the_page(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin(), action="deny")
        answer = await browser.visit(
            with_parameter(back, error="<script>", error_description="call 555-1234")
        )
        assert answer.code == "login_failed"
        assert b"script" not in answer.body
        assert b"555" not in answer.body


async def test_a_token_that_ends_is_renewed_behind_the_scenes(provider: Provider) -> None:
    provider.access_ttl_s = 2
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        first = provider.tokens[-1].access_token
        provider.access_ttl_s = 300

        async def is_renewed() -> bool:
            return first not in (await browser.go("/api/x")).body.decode()

        await eventually(is_renewed)
        seen = await asyncio.gather(*(browser.go("/api/x") for _ in range(10)))
        assert {answer.status for answer in seen} == {200}
        assert all(provider.tokens[-1].access_token in answer.body.decode() for answer in seen)
        assert (
            len(
                [form for endpoint, _, form in provider.requests if form.get("grant_type") == "refresh_token"]
            )
            == 1
        )


async def test_a_grant_that_the_provider_ended_ends_the_session(provider: Provider) -> None:
    provider.access_ttl_s = 1
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        provider.revoke_all()

        async def is_over() -> bool:
            return (await browser.go("/api/x")).status != 200

        await eventually(is_over)
        answer = await browser.go("/api/x")
        assert (answer.status, answer.code) == (401, "credentials_invalid")
        assert (await browser.me()).json == {"authenticated": False}


# --- clients that leave -------------------------------------------------------------------------------------------


class SlowStore(MemoryStore):
    """Lets a test hold up the end of a session."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def take(self, name: str) -> bytes | None:
        if name.startswith("authgate:state:session:"):
            self.asked.set()
            await self.gate.wait()
        return await super().take(name)


async def send_and_leave(
    site: Site, browser: Browser, start: str, until: Callable[[], Awaitable[object]]
) -> None:
    """Send a request, and reset the connection in the middle of the answer's work."""
    cookies = "; ".join(f"{name}={value}" for name, (value, _) in browser.cookies.items())
    _, writer = await site.stack.connect()
    head = f"{start} HTTP/1.1\r\nHost: {browser.host}\r\nCookie: {cookies}\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"
    writer.write(head.encode())
    await until()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

    async def is_noticed() -> bool:
        return site.stack.context.lookups == 0

    await eventually(is_noticed)


async def test_a_logout_whose_client_leaves_is_finished(provider: Provider) -> None:
    store = SlowStore()
    async with serving(provider, store) as site:
        browser = site.browser()
        await browser.log_in()
        await send_and_leave(site, browser, "POST /bff/logout", store.asked.wait)
        store.gate.set()

        async def is_over() -> bool:
            return provider.tokens[-1].refresh_ended

        await eventually(is_over)
        assert (await browser.me()).status == 401


async def test_a_login_whose_client_leaves_behind_its_code_leaves_no_grant_behind(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        back = await sign_in(await browser.begin())
        provider.fail("userinfo", delay_s=0.5)

        async def is_swapped() -> bool:
            return provider.calls["userinfo"] == 1

        await send_and_leave(site, browser, f"GET {back}", lambda: eventually(is_swapped))

        async def is_over() -> bool:
            return provider.tokens[-1].refresh_ended

        await eventually(is_over)
        assert await site.resolver.store.names("authgate:state:session:", 10) == []


# --- floods -------------------------------------------------------------------------------------------------------


async def test_a_flood_of_logins_is_bounded_per_address(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bff_login, "LOGINS_PER_ADDRESS", 3)
    async with serving(provider) as site:
        browser = site.browser()
        statuses = [(await browser.visit("/bff/login")).status for _ in range(6)]
        assert statuses == [302, 302, 302, 429, 429, 429]
        assert len(await site.resolver.store.names("authgate:state:login:", 100)) == 3
        answer = await browser.visit("/bff/login")
        assert answer.code == "too_many_failures"
        assert answer.get("retry-after")


async def test_the_logins_begun_at_one_gateway_say_nothing_about_another(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bff_login, "LOGINS_PER_ADDRESS", 1)
    async with serving(provider) as site, serving(provider, name="other") as other:
        other.stack.context.resolver = site.resolver  # as gateways of one worker
        assert [(await site.browser().visit("/bff/login")).status for _ in range(2)] == [302, 429]
        assert [(await other.browser().visit("/bff/login")).status for _ in range(2)] == [302, 429]


async def test_what_pages_of_other_sites_embed_shuts_no_visitor_out(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bff_login, "LOGINS_PER_ADDRESS", 1)
    image = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")]
    frame = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")]
    async with serving(provider) as site:
        site.stack.context.guard.__init__(1, 100, 60.0)  # type: ignore[misc]  # a fresh one, which connections share
        browser = site.browser()
        foreign = await sign_in(await Browser(site.port, browser.host).begin())
        site.resolver.bff._logins._begun.__init__(1, 100, 60.0)  # type: ignore[misc]
        with monkeypatch.context() as without_store:
            for method in ("get", "take", "put", "add"):
                without_store.setattr(site.resolver.store, method, None)
            for target in (
                "/bff/login",
                "/bff/callback",
                "/bff/callback?x",
                "/bff/callback?code=x&state=" + "A" * 43,
                foreign,
            ):
                for lines in (image, frame, []):
                    if lines or target != "/bff/login":
                        answer = await browser.go(target, "GET", *lines)
                        assert (answer.status, answer.code) == (400, "login_failed")
        assert (await browser.log_in()).status == 302
        assert (await browser.me()).status == 200


async def test_guessed_states_and_sessions_are_stopped(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        for endpoint, refused in (("callback?code=x&state=", 400), ("me", 401)):
            site.stack.context.guard.__init__(5, 100, 60.0)  # type: ignore[misc]  # a fresh one, which connections share
            statuses = []
            for number in range(8):
                guess = f"{number:A>43}"
                binding = login_cookie(guess.encode()).decode()  # as if one had been made here
                browser.cookies = {binding if "=" in endpoint else SESSION: (guess, "/")}
                statuses.append(
                    (await browser.go(f"/bff/{endpoint}" + (guess if "=" in endpoint else ""))).status
                )
            assert statuses == [refused] * 5 + [429] * 3
        for endpoint in (
            "callback?code=x&state=" + "B" * 43,
            "me",
        ):  # neither costs the store anything any more
            monkeypatch.setattr(site.resolver.store, "take", None)
            monkeypatch.setattr(site.resolver.store, "get", None)
            browser.cookies = dict.fromkeys((SESSION, login_cookie(b"B" * 43).decode()), ("B" * 43, "/"))
            assert (await browser.go(f"/bff/{endpoint}")).status == 429


async def test_a_logout_with_cookies_that_were_made_up_is_a_guess(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(provider) as site:
        owner, known = site.browser(), site.browser()
        await owner.log_in()
        await known.log_in()
        assert (await known.me()).status == 200  # this worker knows it
        site.stack.context.guard.__init__(5, 100, 60.0)  # type: ignore[misc]  # a fresh one, which connections share
        browser = site.browser()
        statuses = []
        for number in range(4):
            guesses = f"; {SESSION}=".join(f"{2 * number + i:A>43}" for i in range(2))
            browser.cookies = {SESSION: (guesses, "/")}
            statuses.append((await browser.post("/bff/logout")).status)
        assert statuses == [204, 204, 429, 429]
        assert site.authenticator.dead == {}
        assert (await known.post("/bff/logout")).status == 204
        monkeypatch.setattr(site.resolver.store, "take", None)
        browser.cookies = {SESSION: ("B" * 43, "/")}
        assert (await browser.post("/bff/logout")).status == 429
