"""BFF sessions on two nodes with one real Redis: shared, renewed once, ended everywhere; streams end with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from authgate_fast.auth import bff
from authgate_fast.auth.session import session_name
from authgate_fast.lookup import bff_login
from authgate_fast.lookup.redis_store import RedisStateStore
from tests.lookup.bff_kit import SESSION, Browser, Site, eventually, query_of, serving, sign_in
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider
from tests.proxy.harness import echo
from tests.redis_server import RedisServer

HOST = "shop.localhost"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        made.clients["shop"].redirect_uris.append(f"http://{HOST}/bff/callback")
        yield made


async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo, or an endless stream of events for a path that holds ``stream``."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"stream" not in head.split(b"\r\n")[0]:
        again = asyncio.StreamReader()
        again.feed_data(head)
        again.feed_eof()
        await echo(again, writer)
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"9\r\ndata: x\n\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def two_nodes(
    provider: Provider, server: RedisServer, **settings: Any
) -> AsyncIterator[tuple[Site, Site]]:
    stores = RedisStateStore(server.url), RedisStateStore(server.url)
    async with (
        serving(provider, stores[0], handler=backend, **settings) as one,
        serving(provider, stores[1], handler=backend, **settings) as two,
    ):

        async def is_listening() -> bool:
            return all(store.connected for store in stores)

        await eventually(is_listening)
        yield one, two


def at(site: Site, browser: Browser) -> Browser:
    """The same browser, at another node (as behind a balancer)."""
    return Browser(site.port, HOST, dict(browser.cookies))


async def logged_in(site: Site) -> Browser:
    browser = Browser(site.port, HOST)
    assert (await browser.log_in()).status == 302
    return browser


def refreshes(provider: Provider) -> int:
    return len([1 for _, _, form in provider.requests if form.get("grant_type") == "refresh_token"])


async def test_a_session_is_known_on_every_node(provider: Provider, redis_server: RedisServer) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        assert (await at(two, browser).go("/api/x")).status == 200
        assert (await at(two, browser).me()).json["user"]["sub"] == "u-1"


async def test_a_login_may_begin_on_one_node_and_end_on_another(
    provider: Provider, redis_server: RedisServer
) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser = Browser(one.port, HOST)
        back = await sign_in(await browser.begin("/cart"))
        other = at(two, browser)
        assert (await other.visit(back)).get("location") == "/cart"
        again = at(one, browser)
        assert (await again.visit(back)).code == "login_failed"


async def test_a_logout_on_one_node_ends_the_session_on_the_other_at_once(
    provider: Provider, redis_server: RedisServer
) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        there = at(two, browser)
        assert (await there.go("/api/x")).status == 200
        assert (await browser.post("/bff/logout")).status == 204

        async def is_over() -> bool:
            return (await there.go("/api/x")).status == 401

        assert await eventually(is_over) < 1


async def test_a_token_is_renewed_once_for_all_nodes(provider: Provider, redis_server: RedisServer) -> None:
    provider.access_ttl_s = 1
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        both = [browser, at(two, browser)]
        for each in both:
            assert (await each.go("/api/x")).status == 200
        provider.access_ttl_s = 300
        provider.fail("token", delay_s=0.2)
        await asyncio.sleep(1)  # the token's own life
        answers = await asyncio.gather(*(each.go("/api/x") for each in both for _ in range(15)))
        assert {answer.status for answer in answers} == {200}
        assert all(provider.tokens[-1].access_token in answer.body.decode() for answer in answers)
        assert refreshes(provider) == 1
        assert provider.tokens[-1].refresh_token != provider.tokens[0].refresh_token


async def test_a_dump_of_redis_is_of_no_use(provider: Provider, redis_server: RedisServer) -> None:
    async with two_nodes(provider, redis_server) as (one, _):
        browser = await logged_in(one)
        pending = Browser(one.port, HOST)
        url = await pending.begin()
        await at(one, browser).me()
        with redis_server.client() as client:
            dump = {key: client.get(key) for key in client.scan_iter(match="*")}
        assert len(dump) == 3  # a login under way, a session, and the list of its user's
        everything = b"".join(key + value for key, value in dump.items())
        tokens = provider.tokens[-1]
        secrets = [
            browser.session,
            tokens.access_token,
            tokens.refresh_token,
            query_of(url)["state"],
            query_of(url)["nonce"],
        ]
        secrets += [value for value, _ in pending.cookies.values()] + ["ann@example.com"]
        for secret in secrets:
            assert secret.encode() not in everything, secret
        for part in tokens.access_token.split("."):
            assert part.encode() not in everything
        # Whatever stands there, used as a cookie:
        for text in [key.decode() for key in dump] + [key.decode().rsplit(":", 1)[1] for key in dump]:
            for guess in (text, text[:43], bytes.fromhex(text[-64:]).hex()):
                thief = Browser(one.port, HOST, {SESSION: (guess.replace(":", "-"), "/")})
                assert (await thief.me()).status == 401
                assert (await thief.go("/api/x")).status == 401


async def test_what_somebody_copies_within_redis_opens_nothing(
    provider: Provider, redis_server: RedisServer
) -> None:
    """Who can write to Redis cannot give one cookie another's session either."""
    async with two_nodes(provider, redis_server) as (one, two):
        ann = await logged_in(one)
        mallory = "M" * 43
        with redis_server.client() as client:
            value = client.get(session_name("shop", ann.session.encode()))
            client.set(session_name("shop", mallory.encode()), value, ex=600)
        thief = Browser(two.port, HOST, {SESSION: (mallory, "/")})
        assert (await thief.go("/api/x")).status == 401


async def test_without_redis_known_sessions_go_on_and_nobody_else_gets_in(
    provider: Provider, redis_server: RedisServer
) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        assert (await browser.go("/api/x")).status == 200

        async def is_quiet() -> bool:  # what a login and a first request change has been told
            session = next(iter(one.authenticator.sessions.values()))
            return not session.told and (await browser.go("/api/x")).status == 200

        await eventually(is_quiet)
        redis_server.kill()
        assert (await browser.go("/api/x")).status == 200
        unknown = await at(two, browser).go("/api/x")
        assert (unknown.status, unknown.code) == (503, "auth_unavailable")
        assert (await browser.visit("/bff/login")).status == 503
        out = await browser.post("/bff/logout")
        assert (out.status, out.all("set-cookie")) == (503, [])
        redis_server.start()

        async def is_over() -> bool:  # Redis came back without its data
            return (await browser.go("/api/x")).status == 401

        await eventually(is_over)


# --- streams ------------------------------------------------------------------------------------------------------


class Stream:
    """An open stream of events."""

    def __init__(self, reader: asyncio.StreamReader, begun: float) -> None:
        self.reader = reader
        self.begun = begun
        self.got = b""

    async def until_cut(self) -> float:
        """Read to the end, which must not be a clean one; return the seconds since the stream began."""
        self.got += await asyncio.wait_for(self.reader.read(-1), 20)
        assert not self.got.endswith(b"0\r\n\r\n")
        return time.monotonic() - self.begun


async def stream(site: Site, browser: Browser) -> Stream:
    reader, writer = await site.stack.connect()
    writer.write(
        f"GET /api/stream HTTP/1.1\r\nHost: {HOST}\r\nCookie: {SESSION}={browser.session}\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200"), head
    await asyncio.wait_for(reader.readexactly(20), 10)
    return Stream(reader, time.monotonic())


@pytest.mark.parametrize("how", ["logout", "revoke"])
async def test_a_stream_is_cut_when_its_session_is_ended_on_another_node(
    provider: Provider, redis_server: RedisServer, how: str
) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser, other = await logged_in(one), await logged_in(one)
        open_stream, untouched = await stream(two, browser), await stream(two, other)
        if how == "logout":
            assert (await browser.post("/bff/logout")).status == 204
        else:
            with redis_server.client() as client:  # as `authgate session revoke` does
                client.delete(session_name("shop", browser.session.encode()))
        assert await open_stream.until_cut() < 5
        assert any("session ended" in what for _, what in two.stack.reports)
        await asyncio.wait_for(untouched.reader.readexactly(40), 10)


async def test_a_stream_is_cut_at_the_absolute_end(
    provider: Provider, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bff_login.Record
    monkeypatch.setattr(
        bff_login, "Record", lambda **fields: real(**fields | {"ends_at": fields["created_at"] + 2})
    )
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        assert await (await stream(two, browser)).until_cut() < 5
        assert (await at(two, browser).go("/api/x")).status == 401


async def test_a_stream_does_not_outlive_the_idle_end(provider: Provider, redis_server: RedisServer) -> None:
    async with two_nodes(provider, redis_server) as (one, two):
        browser = await logged_in(one)
        open_stream = await stream(two, browser)
        with redis_server.client() as client:
            client.pexpire(session_name("shop", browser.session.encode()), 300)
        assert await open_stream.until_cut() < 5


async def test_a_stream_is_cut_although_nobody_tells_of_the_end(
    provider: Provider, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bff, "RECHECK_S", 1.0)
    store = RedisStateStore(redis_server.url)
    async with serving(provider, store, handler=backend, run=False) as site:
        browser = await logged_in(site)
        open_stream = await stream(site, browser)
        with redis_server.client() as client:
            client.delete(session_name("shop", browser.session.encode()))
        assert await open_stream.until_cut() < 5


async def test_a_stream_of_a_live_session_goes_on(provider: Provider, redis_server: RedisServer) -> None:
    async with two_nodes(provider, redis_server) as (_, two):
        browser = await logged_in(two)
        open_stream = await stream(two, browser)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            await asyncio.wait_for(open_stream.reader.readexactly(14), 10)
            assert (await browser.go("/api/x")).status == 200
        with redis_server.client() as client:
            assert 0 < client.ttl(session_name("shop", browser.session.encode())) <= 1_800
