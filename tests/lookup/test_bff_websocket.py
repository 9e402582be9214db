"""WebSockets of a browser's session: from this site's own pages only, and no longer than the session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.chromium import chromium
from tests.lookup.bff_kit import SESSION, Browser, Site, serving
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider
from tests.proxy.harness import BOUND_S, answer, backend, echo, read_head
from tests.proxy.scripted import until
from tests.proxy.tunnels import ASK

PAGE = b"<!doctype html><title>%b</title><link rel=icon href=data:,>"
HTML = b"Content-Type: text/html\r\n"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


class Chat:
    """Pages, and a WebSocket that echoes; remembers the heads of upgrade requests and the codes of Close frames."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.codes: list[int] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"\r\nUpgrade: websocket\r\n" in head:
                self.heads.append(head)
                await self._chat(head, reader, writer)
                return
            writer.write(answer(PAGE % head.split(b" ")[1], HTML))

    async def _chat(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = ServerProtocol()
        server.receive_data(head)
        while True:
            for event in server.events_received():
                if isinstance(event, Request):
                    server.send_response(server.accept(event))
                elif isinstance(event, Frame) and event.opcode == Opcode.TEXT:
                    server.send_text(event.data)
                elif isinstance(event, Frame) and event.opcode == Opcode.CLOSE:
                    self.codes.append(int.from_bytes(event.data[:2], "big"))
            for data in server.data_to_send():
                if data:
                    writer.write(data)
                else:
                    return
            received = await reader.read(65_536)
            if not received:
                return
            server.receive_data(received)


def upgrade(browser: Browser, path: str = "/api/chat", *lines: str, cookie: bool = True) -> bytes:
    fields = [f"Host: {browser.host}", *(line.decode() for line in ASK), *lines]
    if cookie:
        fields.append(f"Cookie: theirs=1; {SESSION}={browser.session}")
    return "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""]).encode()


async def head_of(site: Site, data: bytes) -> bytes:
    reader, writer = await site.stack.connect()
    writer.write(data)
    return await read_head(reader)


async def test_only_this_site_s_own_pages_may_open_one(provider: Provider) -> None:
    chat = Chat()
    async with serving(provider, handler=chat) as site:
        browser = site.browser()
        await browser.log_in()
        own = f"Origin: http://{browser.host}"
        assert b" 101 " in await head_of(site, upgrade(browser, "/api/chat", own))
        assert b" 101 " in await head_of(site, upgrade(browser, "/api/chat", "Sec-Fetch-Site: same-origin"))
        assert b" 101 " in await head_of(site, upgrade(browser, "/admin", own))
        assert len(chat.heads) == 3
        for line in (
            "Origin: http://evil.localhost",
            "Origin: null",
            f"Origin: https://{browser.host}",
            "Origin: http://shop.localhost:1",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: none",
            "X-Nothing: said",
        ):
            refused = await head_of(site, upgrade(browser, "/api/chat", line))
            assert b" 403 " in refused, line
        assert site.stack.context.counters.refused == {"csrf_rejected": 8}
        assert b" 403 " in await head_of(site, upgrade(browser, "/other", own))  # a role that she has not
        assert len(chat.heads) == 3
    for head in chat.heads:
        assert SESSION.encode() not in head
        assert b"\r\nCookie: theirs=1\r\n" in head
        assert b"\r\nX-User-Id: u-1\r\n" in head
        assert b"\r\nAuthorization: Bearer " in head


async def test_a_plain_get_is_no_upgrade_and_needs_no_origin(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        await browser.log_in()
        assert (await browser.go("/api/chat")).status == 200


@pytest.mark.parametrize(
    "line", ["Sec-Fetch-Mode: navigate", "Accept: text/html", "Sec-Fetch-Mode: websocket"]
)
async def test_without_a_session_it_is_401_and_never_a_redirect(provider: Provider, line: str) -> None:
    chat = Chat()
    async with serving(provider, handler=chat) as site:
        browser = site.browser()
        head = await head_of(site, upgrade(browser, "/api/chat", line, cookie=False))
        assert b" 401 " in head
        assert b"Location" not in head
        assert chat.heads == []


async def test_a_public_route_uses_no_session_so_anybody_may(provider: Provider) -> None:
    chat = Chat()
    async with serving(provider, handler=chat) as site:
        browser = site.browser()
        await browser.log_in()
        assert b" 101 " in await head_of(site, upgrade(browser, "/open", "Origin: http://evil.localhost"))
    (head,) = chat.heads
    assert SESSION.encode() not in head
    assert b"X-User-Id" not in head
    assert b"\r\nOrigin: http://evil.localhost\r\n" in head


async def test_the_frontend_is_not_asked_to_switch(provider: Provider) -> None:
    async with serving(provider, handler=echo) as site:
        browser = site.browser()
        await browser.log_in()
        reader, writer = await site.stack.connect()
        writer.write(upgrade(browser, "/any/page"))
        assert b" 200 " in await read_head(reader)
        assert b"pgrade" not in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)


async def test_the_end_of_the_session_ends_it(provider: Provider, fast_ticks: None) -> None:
    chat = Chat()
    async with serving(provider, handler=chat) as site:
        browser, other = site.browser(), site.browser()
        await browser.log_in()
        await other.log_in(user="bob")
        ends = []
        for one in (browser, other):
            reader, writer = await site.stack.connect()
            writer.write(upgrade(one, "/api/chat", f"Origin: http://{one.host}"))
            assert b" 101 " in await read_head(reader)
            ends.append((reader, writer))
        assert (await browser.post("/bff/logout")).status == 204
        assert await asyncio.wait_for(ends[0][0].readexactly(4), BOUND_S) == b"\x88\x02\x03\xf0"
        await until(lambda: chat.codes == [1008])
        ends[0][1].close()
        await until(lambda: len(site.stack.context.tunnels) == 1)
        ends[1][1].write(b"\x81\x82\0\0\0\0hi")
        assert await asyncio.wait_for(ends[1][0].readexactly(4), BOUND_S) == b"\x81\x02hi"


SOCKET = """new Promise(done => {
    const socket = new WebSocket('%s');
    socket.onopen = () => socket.send('grüße');
    socket.onmessage = event => { window.last = socket; done(event.data) };
    socket.onerror = () => done('refused');
})"""


async def test_a_browser_s_page_opens_one_and_other_sites_cannot(
    provider: Provider, fast_ticks: None
) -> None:
    chat = Chat()

    async def other_site(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(PAGE % b"Other", HTML))

    async with serving(provider, handler=chat) as site, chromium() as browser, backend(other_site) as port:
        site.browser()  # registers the redirect URI
        origin = f"http://shop.localhost:{site.port}"
        url = f"ws://shop.localhost:{site.port}/api/chat"
        await browser.go(f"{origin}/welcome")
        assert await browser.run(SOCKET % url) == "refused"  # no session
        assert site.stack.context.counters.refused == {"credentials_missing": 1}

        await browser.go(f"{origin}/bff/login?return_to=/done")
        await browser.until("document.getElementById('sign-in') !== null")
        await browser.run(
            "document.getElementById('username').value = 'ann'; document.getElementById('password').value = 'ann-password';"
            "document.getElementById('sign-in').click()"
        )
        await browser.until("location.pathname === '/done'")
        assert await browser.run(SOCKET % url) == "grüße"
        (head,) = chat.heads
        assert b"\r\nX-User-Id: u-1\r\n" in head
        assert SESSION.encode() not in head
        assert b"permessage-deflate" in head

        # The end of the session reaches the page.
        await browser.run(
            "window.code = new Promise(done => window.last.onclose = event => done(event.code)); true"
        )
        assert await browser.run("fetch('/bff/logout', {method: 'POST'}).then(r => r.status)") == 204
        assert await browser.run("window.code") == 1008
        await until(lambda: chat.codes == [1008])

        await browser.go(f"{origin}/bff/login?return_to=/done")
        await browser.until("location.pathname === '/done' || document.getElementById('sign-in') !== null")
        await browser.run(
            "document.getElementById('username') && (document.getElementById('username').value = 'ann', "
            "document.getElementById('password').value = 'ann-password', document.getElementById('sign-in').click())"
        )
        await browser.until("location.pathname === '/done'")
        assert await browser.run(SOCKET % url) == "grüße"

        # Another port is another origin, but the same site: the cookie comes along, and Origin tells.
        await browser.go(f"http://shop.localhost:{port}/")
        assert await browser.run(SOCKET % url) == "refused"
        assert site.stack.context.counters.refused["csrf_rejected"] == 1
        # From another site altogether not even the cookie comes.
        await browser.go(f"http://evil.localhost:{port}/")
        assert await browser.run(SOCKET % url) == "refused"
        assert sum(site.stack.context.counters.refused.values()) == 3
        assert len(chat.heads) == 2
        heard = [json.loads(text) for text in browser.heard if "webSocket" in text]
        assert heard
