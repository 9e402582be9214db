"""The BFF in a real browser: login at the provider, calls with the token at the backend alone, logout, other sites refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.chromium import Chromium, chromium
from tests.lookup.bff_kit import SESSION, Site, serving
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider
from tests.proxy.harness import answer
from tests.proxy.harness import backend as running_backend

PAGE = b"<!doctype html><title>%b</title><link rel=icon href=data:,><h1>%b</h1>"
HTML = b"Content-Type: text/html\r\n"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


class Shop:
    """The shop's pages and its API: remembers each request head."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            if "content-length: " in head.lower():
                await reader.readexactly(
                    int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                )
            path = head.split(" ")[1].encode("latin-1")
            if path.startswith(b"/front/"):
                writer.write(answer(PAGE % (b"Shop", path), HTML))
            elif path.startswith(b"/page"):
                writer.write(answer(PAGE % (b"Account", path), HTML))
            else:
                writer.write(
                    answer(
                        b'{"orders": []}', b"Content-Type: application/json\r\nSet-Cookie: seen=1; Path=/\r\n"
                    )
                )
            await writer.drain()

    def of(self, method: str, path: str) -> list[str]:
        return [head for head in self.heads if head.startswith(f"{method} {path} ")]


async def other_site(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(PAGE % (b"Other", b"other"), HTML))
        await writer.drain()


@asynccontextmanager
async def world(provider: Provider) -> AsyncIterator[tuple[Site, Shop, Chromium, str]]:
    shop = Shop()
    async with serving(provider, handler=shop) as site, chromium() as browser:
        site.browser()  # registers the redirect URI
        yield site, shop, browser, f"http://shop.localhost:{site.port}"


async def sign_in(browser: Chromium, provider: Provider) -> None:
    """Fill in the provider's form, by hand as it were."""
    await browser.until(
        f"location.origin === '{provider.issuer}' && document.getElementById('sign-in') !== null"
    )
    await browser.run(
        "document.getElementById('username').value = 'ann'; document.getElementById('password').value = 'ann-password';"
        "document.getElementById('sign-in').click()"
    )


def fetch(path: str, how: str = "{}") -> str:
    return f"fetch('{path}', {how}).then(async r => [r.status, await r.text()])"


async def test_a_user_logs_in_works_and_logs_out(provider: Provider) -> None:
    async with world(provider) as (_, shop, browser, origin):
        await browser.go(f"{origin}/welcome")
        assert await browser.run("document.title") == "Shop"
        assert await browser.run("document.querySelector('h1').textContent") == "/front/welcome"
        assert await browser.run(fetch("/bff/me")) == [401, '{"authenticated":false}']
        assert (await browser.run(fetch("/api/orders")))[0] == 401

        await browser.go(f"{origin}/api/page?tab=2%263")
        await sign_in(browser, provider)
        await browser.until("document.title === 'Account'")
        assert await browser.run("location.href") == f"{origin}/api/page?tab=2%263"
        assert await browser.run("document.referrer.includes('code=')") is False

        status, text = await browser.run(fetch("/bff/me"))
        assert status == 200
        assert '"sub":"u-1"' in text
        assert (await browser.run(fetch("/api/orders")))[0] == 200
        assert (await browser.run(fetch("/api/orders", "{method: 'POST', body: '{}'}")))[0] == 200
        token = provider.tokens[-1].access_token
        for head in (*shop.of("GET", "/orders"), *shop.of("POST", "/orders")):
            assert f"\r\nAuthorization: Bearer {token}\r\n" in head
            assert "\r\nX-User-Id: u-1\r\n" in head
            assert SESSION not in head

        # What a script can get at, and what the browser itself has seen: no token, and no session for scripts.
        (cookie,) = [one for one in await browser.cookies() if one["name"] == SESSION]
        assert (cookie["domain"], cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == (
            "shop.localhost",
            "/",
            True,
            "Lax",
        )
        assert cookie["session"] is True
        assert not [one for one in await browser.cookies() if "LOGIN" in one["name"]]
        reach = await browser.run(
            "document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
        )
        assert reach == "seen=1{}{}"
        heard = "\n".join(browser.heard)
        assert cookie["value"] in heard
        for secret in (token, provider.tokens[-1].refresh_token):
            assert secret not in heard
        assert re.search(r"eyJ[\w-]+\.eyJ", heard) is None  # a signed token of any kind

        assert await browser.run(fetch("/bff/logout", "{method: 'POST'}")) == [204, ""]
        assert await browser.run(fetch("/bff/me")) == [401, '{"authenticated":false}']
        assert (await browser.run(fetch("/api/orders")))[0] == 401
        assert SESSION not in [one["name"] for one in await browser.cookies()]
        assert provider.tokens[-1].refresh_ended


async def test_other_sites_cannot_use_the_session(provider: Provider) -> None:
    async with world(provider) as (site, shop, browser, origin), running_backend(other_site) as port:
        await browser.go(f"{origin}/bff/login?return_to=/done")
        await sign_in(browser, provider)
        await browser.until("location.pathname === '/done'")
        assert (await browser.run(fetch("/api/orders", "{method: 'POST'}")))[0] == 200
        posts = len(shop.of("POST", "/orders"))
        refused = site.stack.context.counters.refused

        # Another port of the same host is another origin, but the same site: the cookie comes along.
        await browser.go(f"http://shop.localhost:{port}/")
        how = "{method: 'POST', mode: 'no-cors', credentials: 'include'}"
        await browser.run(f"fetch('{origin}/api/orders', {how}).then(() => true)")
        await browser.run(f"fetch('{origin}/bff/logout', {how}).then(() => true)")
        assert refused["csrf_rejected"] == 2

        # Another site altogether, with a form that sends itself: no cookie comes along.
        await browser.go(f"http://evil.localhost:{port}/")
        await browser.run(
            f"document.body.innerHTML = '<form method=post action={origin}/api/orders><input name=a></form>';"
            "document.forms[0].submit()"
        )
        await browser.until(f"location.origin === '{origin}'")
        assert await browser.run("document.body.textContent.includes('credentials_missing')")
        assert len(shop.of("POST", "/orders")) == posts

        # It cannot read anything either, nor log the user out.
        await browser.go(f"http://evil.localhost:{port}/")
        assert (
            await browser.run(
                f"fetch('{origin}/bff/me', {{credentials: 'include'}}).then(() => 'read', () => 'refused')"
            )
            == "refused"
        )
        await browser.run(f"fetch('{origin}/bff/logout', {how}).then(() => true)")
        await browser.go(f"{origin}/done")
        assert (await browser.run(fetch("/bff/me")))[0] == 200
