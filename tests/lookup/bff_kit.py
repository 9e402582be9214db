"""A BFF gateway on loopback with its provider, and a browser of few words: cookies, redirects, fetch metadata."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import h11
import orjson

from authgate_fast.auth.bff import BffAuthenticator
from authgate_fast.config.authenticators import make_authenticator
from authgate_fast.config.compile import build_snapshot, compile_gateway
from authgate_fast.limits import DEFAULTS
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.resolver import Resolver
from authgate_fast.lookup.store import StateStore
from authgate_fast.model import GatewayDocument, RouteDocument, ServiceDocument
from authgate_fast.snapshot import Consumers, Snapshot
from tests.oidc_provider import Provider
from tests.proxy.harness import Handler, Stack, backend, echo, gateway

BOUND_S = 10.0
SESSION = "AUTHGATE_BFF_SESSION"
Lines = list[tuple[str, str]]


@dataclass
class Answer:
    """A response. `lines` in order, names in lower case."""

    status: int
    lines: Lines
    body: bytes

    def get(self, name: str) -> str:
        return next((value for key, value in self.lines if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


async def fetch(port: int, method: str, target: str, lines: Lines, body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        link = h11.Connection(h11.CLIENT)
        length = [("Content-Length", str(len(body)))] if body or method == "POST" else []
        request = h11.Request(
            method=method, target=target, headers=[*lines, *length, ("Connection", "close")]
        )
        writer.write(link.send(request) or b"")
        writer.write((link.send(h11.Data(data=body)) or b"") + (link.send(h11.EndOfMessage()) or b""))
        head: h11.Response | None = None
        content = b""
        async with asyncio.timeout(BOUND_S):
            while True:
                event = link.next_event()
                if event is h11.NEED_DATA:
                    link.receive_data(await reader.read(65_536))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    content += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert head is not None
                    named = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
                    return Answer(head.status_code, named, content)
    finally:
        writer.close()


@dataclass
class Browser:
    """One browser: its cookies for one site. ``cookies`` maps a name to (value, path)."""

    port: int
    host: str = ""
    cookies: dict[str, tuple[str, str]] = field(default_factory=dict)
    set_lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = self.host or f"shop.localhost:{self.port}"

    @property
    def session(self) -> str:
        return self.cookies[SESSION][0]

    async def go(
        self, target: str, method: str = "GET", *lines: tuple[str, str], body: bytes = b""
    ) -> Answer:
        """Send a request to the site with the cookies that belong there, and keep those that it sets."""
        path = target.partition("?")[0]
        sent = [f"{name}={value}" for name, (value, at) in self.cookies.items() if path.startswith(at)]
        own: Lines = [("Host", self.host), *([("Cookie", "; ".join(sent))] if sent else []), *lines]
        answer = await fetch(self.port, method, target, own, body)
        for line in answer.all("set-cookie"):
            self._keep(line)
        return answer

    def _keep(self, line: str) -> None:
        self.set_lines.append(line)
        pair, *attributes = [part.strip() for part in line.split(";")]
        name, _, value = pair.partition("=")
        path = next((a[5:] for a in attributes if a.startswith("Path=")), "/")
        if "Max-Age=0" in attributes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = (value, path)

    async def visit(self, target: str) -> Answer:
        """Go to a page, as typing its address does."""
        return await self.go(target, "GET", ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "none"))

    async def post(self, target: str, *lines: tuple[str, str], site: str = "same-origin") -> Answer:
        """Send what a page of some site sends with fetch."""
        return await self.go(target, "POST", ("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "cors"), *lines)

    async def begin(self, return_to: str | None = None) -> str:
        """Begin a login; return where the provider is to be visited."""
        query = "" if return_to is None else "?" + urlencode({"return_to": return_to})
        answer = await self.visit(f"/bff/login{query}")
        assert answer.status == 302, answer
        return answer.get("location")

    async def log_in(self, return_to: str | None = None, *, user: str = "ann") -> Answer:
        """Log in from the first click to the last redirect."""
        return await self.visit(await sign_in(await self.begin(return_to), user))

    async def me(self) -> Answer:
        return await self.go("/bff/me", "GET", ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Site", "same-origin"))


async def sign_in(url: str, user: str = "ann", *, action: str = "sign-in") -> str:
    """Be the user at the provider; return the callback that the browser is sent to, as path and query."""
    form = urlencode({"username": user, "password": f"{user}-password", "action": action}).encode()
    parts = urlsplit(url)
    assert parts.port is not None
    lines = [("Host", parts.netloc), ("Content-Type", "application/x-www-form-urlencoded")]
    answer = await fetch(parts.port, "POST", f"{parts.path}?{parts.query}", lines, form)
    assert answer.status == 302, answer
    back = urlsplit(answer.get("location"))
    return f"{back.path}?{back.query}"


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = BOUND_S) -> float:
    """Ask again and again until the condition holds; return the seconds it took."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < within_s, "this did not come true in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def with_parameter(target: str, **changes: str | None) -> str:
    """Return a callback with other parameters; None takes one out."""
    path, _, query = target.partition("?")
    values = {name: items[0] for name, items in parse_qs(query).items()} | changes
    return path + "?" + urlencode({name: value for name, value in values.items() if value is not None})


@dataclass
class Site:
    """A gateway under test. ``backend_port`` is that of every service and of the frontend."""

    stack: Stack
    resolver: Resolver
    provider: Provider
    snapshot: Snapshot

    @property
    def port(self) -> int:
        return self.stack.port

    @property
    def authenticator(self) -> BffAuthenticator:
        found = self.snapshot.gateways["shop"].authenticator
        assert isinstance(found, BffAuthenticator)
        return found

    def why(self, code: str) -> str:
        """Return what the operator was told last of refusals with this code."""
        return [what for reason, what in self.stack.reports if reason == code][-1]

    def browser(self, host: str = "") -> Browser:
        made = Browser(self.port, host)
        callback = f"http://{made.host}/bff/callback"
        if callback not in self.provider.clients["shop"].redirect_uris:
            self.provider.clients["shop"].redirect_uris.append(callback)
        return made


def make_snapshot(
    provider: Provider,
    backend_port: int,
    *,
    name: str = "shop",
    trusted: list[str] | None = None,
    hosts: tuple[str, ...] = ("*",),
    **auth: Any,
) -> Snapshot:
    """PUBLIC /open, SECURE /api/{rest*} (any method), /admin for a role, /read for a scope; the frontend for the rest."""
    url = f"http://127.0.0.1:{backend_port}"
    document = GatewayDocument.model_validate(
        {
            "hosts": list(hosts),
            "trusted_proxies": trusted or [],
            "auth": {
                "type": "BFF", "issuer": provider.issuer, "client_id": "shop", "client_secret": provider.clients["shop"].secret,
                "frontend_url": f"{url}/front",
            } | auth,
        }, strict=False,
    )  # fmt: skip
    services = {
        "api": ServiceDocument.model_validate({"target_url": url}),
        "plain": ServiceDocument.model_validate({"target_url": url, "forward_token": False}),
    }
    routes = {
        name: RouteDocument.model_validate({"service": "api", "method": "ANY", **fields}, strict=False)
        for name, fields in {
            "open": {"public_path": "/open", "target_path": "/open", "security": "PUBLIC"},
            "api": {"public_path": "/api/{rest*}", "target_path": "/{rest*}", "security": "SECURE"},
            "plain": {
                "public_path": "/plain",
                "target_path": "/plain",
                "security": "SECURE",
                "service": "plain",
            },
            "admin": {
                "public_path": "/admin",
                "target_path": "/admin",
                "security": "SECURE",
                "roles": ["admin"],
            },
            "other": {
                "public_path": "/other",
                "target_path": "/other",
                "security": "SECURE",
                "roles": ["other"],
            },
            "read": {
                "public_path": "/read",
                "target_path": "/read",
                "security": "SECURE",
                "scopes": ["email"],
            },
            "write": {
                "public_path": "/write",
                "target_path": "/write",
                "security": "SECURE",
                "scopes": ["write"],
            },
        }.items()
    }
    consumers = Consumers()
    authenticator = make_authenticator(name, document, consumers)
    compiled = compile_gateway(name, document, services, routes, authenticator, consumers, DEFAULTS)
    return build_snapshot(1, [compiled])


@asynccontextmanager
async def serving(
    provider: Provider,
    store: StateStore | None = None,
    *,
    handler: Handler = echo,
    run: bool = True,
    **settings: Any,
) -> AsyncIterator[Site]:
    """Run a gateway, its backend and its look-ups. `run` False: nobody listens to the store."""
    async with backend(handler) as backend_port:
        snapshot = make_snapshot(provider, backend_port, **settings)
        async with gateway(snapshot) as stack:
            resolver = Resolver(MemoryStore() if store is None else store)
            stack.context.resolver = resolver
            task = asyncio.create_task(resolver.run()) if run else None
            try:
                yield Site(stack, resolver, provider, snapshot)
            finally:
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                await resolver.close()
