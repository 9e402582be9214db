"""What `bench.micro` measures with: a gateway of each auth type whose caller is known, one worker's state, no sockets.

The transports are fakes that keep what is written last. A backend connection has a real, silent socket, because
the kernel is asked before it is used again: that is the one system call in these figures.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvloop

from authgate_fast.auth.api_key import key_digest, new_key
from authgate_fast.auth.basic import PasswordLookup
from authgate_fast.auth.login import new_secret
from authgate_fast.auth.oauth2 import IntrospectionLookup
from authgate_fast.auth.session import Record, Session, session_key, session_name
from authgate_fast.auth.signing import Keyring, open_key
from authgate_fast.auth.signing import new_key as new_signing_key
from authgate_fast.config.file import load_file
from authgate_fast.config.store import Configuration
from authgate_fast.decision import Client, Forward
from authgate_fast.limits import Limits
from authgate_fast.plan import plan
from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import Downstream
from authgate_fast.proxy.pool import Pools
from authgate_fast.proxy.upstream import Upstream
from bench.workload import BACKEND_BODY, HOST, PUBLIC_PREFIX, Consumer, gateway_documents

AUTHS = ("key", "basic", "jwt", "oauth2", "bff")
FRESH_ID = b"0123456789ab-1-1"
BACKEND_PORT = 9_009
_PATH = f"{PUBLIC_PREFIX}/resource-007/items/100123"
_PASSWORD = "correct horse battery staple"
# Of the least work that Argon2id allows; it is never computed here.
_PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2gtc2FsdC1iZW5jaA$AAAAAAAAAAAAAAAAAAAAAA"
_ISSUER = "http://127.0.0.1:9"
_USUAL = "User-Agent: mobile-app/4.2 (bench)\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"
_BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) "
    "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: de-DE,de;q=0.9,en;q=0.8\r\n"
    "Cache-Control: max-age=0\r\n"
    'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\n"
    "Upgrade-Insecure-Requests: 1\r\nCookie: theme=dark; consent=yes; _ga=GA1.2.1234567.1234567\r\n"
)
RESPONSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n"
    b"Date: Wed, 25 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\nCache-Control: private, max-age=0\r\n"
    b'ETag: "5f2b-1c9d"\r\nVary: Accept-Encoding\r\n\r\n'
)
RESPONSE = RESPONSE_HEAD % len(BACKEND_BODY) + BACKEND_BODY.encode("ascii")


class FakeTransport:
    """A transport that takes everything at once."""

    def __init__(self, **extra: object) -> None:
        self._extra = extra
        self.out = b""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._extra.get(name, default)

    def write(self, data: bytes) -> None:
        self.out = data

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write_eof(self) -> None:
        raise RuntimeError("a connection was given up; the figures would mean nothing")

    close = abort = write_eof


class World:
    """One worker: `snapshot` with a gateway for each of `AUTHS`, and for each of them the `lines` of a known caller."""

    def __init__(self, directory: Path) -> None:
        self.now = time.time()
        self.loop = uvloop.new_event_loop()
        self._sockets = socket.socketpair()
        context = self.context = Context(self.loop, Limits(max_requests_per_connection=10**9))
        context.pools = Pools(context)
        context.wall_s = self.now
        context.now_s = self.loop.time()
        context.date_line = b"Date: Wed, 25 Nov 2026 09:00:00 GMT\r\n"
        callers = [Consumer(f"consumer-{number:05}", *_key_and_digest()) for number in range(100)]
        configuration = Configuration(context.limits)
        config = directory / "config.json"
        config.write_text(json.dumps({"gateways": _gateways(callers)}))
        configuration.replace_all(load_file(config).documents)
        self.snapshot = context.snapshot = configuration.snapshot
        known = {
            "key": _know_key,
            "basic": _know_basic,
            "jwt": _know_jwt,
            "oauth2": _know_oauth2,
            "bff": _know_bff,
        }
        self.lines: dict[str, str] = {"public": ""}
        for auth in AUTHS:
            self.lines[auth] = known[auth](self, callers[7])

    def close(self) -> None:
        """Let go of the sockets and the loop."""
        for end in self._sockets:
            end.close()
        self.loop.close()

    def head_bytes(self, kind: str, *, browser: bool = False, method: str = "GET", more: str = "") -> bytes:
        """Write a request head, whose gateway and credential are those of `kind` ("public": no check)."""
        path = "/open/100123" if kind == "public" else _PATH
        host = HOST if kind == "public" else _host(kind)
        fields = _BROWSER if browser else _USUAL
        return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}{self.lines[kind]}{more}\r\n".encode(
            "ascii"
        )

    def read(self, data: bytes) -> Any:
        """Read a request head as a connection does."""
        context = self.context
        return context.request_reader.read(data, context.limits.max_fields, self.snapshot)

    def planned(self, kind: str, client: Client) -> Forward:
        """Return what is decided about a request of `kind`."""
        found = plan(self.read(self.head_bytes(kind)), self.snapshot, client, self.now, FRESH_ID)
        if not isinstance(found, Forward):
            raise RuntimeError(
                f"{kind}: a {type(found).__name__} where the caller should be known: {vars_of(found)}"
            )
        return found

    def ask(self, kind: str) -> tuple[Any, Any, Any, Client]:
        """Return the gateway of `kind`, a head, what the head presents, and the client."""
        client = Client("127.0.0.1")
        head = self.read(self.head_bytes(kind))
        gateway = self.snapshot.gateways[kind]
        return gateway, head, head.presented, client

    def connection(self) -> tuple[Downstream, FakeTransport]:
        """Return a client's connection."""
        connection = Downstream(self.context)
        transport = FakeTransport(peername=("127.0.0.1", 40_000), socket=self._sockets[0])
        connection.connection_made(transport)  # type: ignore[arg-type]  # a transport by its methods
        return connection, transport

    def upstream(self) -> tuple[Upstream, FakeTransport]:
        """Return a kept backend connection that waits in its pool."""
        (target,) = self.snapshot.gateways["key"].services[0].targets
        pool = self.context.pools.get(target)
        upstream = Upstream(self.context, pool)
        transport = FakeTransport(peername=("127.0.0.1", BACKEND_PORT), socket=self._sockets[0])
        upstream.connection_made(transport)  # type: ignore[arg-type]  # as above
        upstream.counted = True
        pool.open += 1
        upstream.idle_until_s = float("inf")
        pool.idle.append(upstream)
        return upstream, transport


def vars_of(thing: object) -> str:
    """Say why a plan is another one than it should be."""
    return str(getattr(thing, "why", None) or getattr(thing, "reason", None) or thing)


def _host(auth: str) -> str:
    return HOST if auth == "key" else f"{auth}.{HOST}"


def _key_and_digest() -> tuple[str, str]:
    key = new_key()
    return key, key_digest(key)


def _gateways(callers: list[Consumer]) -> dict[str, object]:
    """Build the documents: 1,000 routes where callers have keys, a few at the others."""
    made: Any = gateway_documents(callers, BACKEND_PORT)
    with_keys = made["gateways"].pop("bench")
    with_keys["routes"]["open"] = {
        "method": "ANY",
        "public_path": "/open/{id}",
        "target_path": "/items/{id}",
        "service": "backend",
        "security": "PUBLIC",
    }
    gateways: dict[str, object] = {"key": with_keys}
    provider = {"issuer": _ISSUER, "client_id": "bench"}
    for auth, fields in (
        ("basic", {}),
        ("jwt", {"algorithm": "EdDSA"}),
        ("oauth2", {**provider, "client_secret": "bench", "introspect": True}),
        ("bff", provider),
    ):
        gateways[auth] = {
            "hosts": [_host(auth)],
            "auth": {"type": auth.upper(), **fields},
            "services": with_keys["services"],
            "routes": {name: route for name, route in with_keys["routes"].items() if "resource-007" in name},
            "consumers": {
                caller.name: {"roles": ["reader"], "password_hash": _PASSWORD_HASH}
                for caller in callers
                if auth in ("basic", "jwt")
            },
        }
    return gateways


def _presented(world: World, auth: str, line: str) -> Any:
    """Show a credential and return what the gateway says."""
    world.lines[auth] = line
    gateway, head, presented, client = world.ask(auth)
    return gateway.authenticator.identify(head, presented, client, world.now)


def _know_key(_world: World, caller: Consumer) -> str:
    return f"X-Api-Key: {caller.key}\r\n"


def _know_basic(world: World, caller: Consumer) -> str:
    token = base64.b64encode(f"{caller.name}:{_PASSWORD}".encode()).decode("ascii")
    line = f"Authorization: Basic {token}\r\n"
    lookup = _presented(world, "basic", line)
    if not isinstance(lookup, PasswordLookup) or lookup.user is None:
        raise RuntimeError(f"BASIC: {vars_of(lookup)}")
    lookup.authenticator.remember(lookup.digest, lookup.user, lookup.user.passwords[0][1])
    return line


def _know_jwt(world: World, caller: Consumer) -> str:
    authenticator: Any = world.snapshot.gateways["jwt"].authenticator
    stored = new_signing_key("EdDSA", name="bench", now=world.now, active_at=world.now)
    authenticator.set_keys(Keyring((stored,)).verifying(world.now))
    user = authenticator.consumers.users[caller.name.encode("ascii")]
    signing_key = open_key(stored, name="bench", sealing_key=None)
    token, _ = authenticator.issue(user, signing_key, world.now, "0" * 22, "1" * 22)
    line = f"Authorization: Bearer {token.decode('ascii')}\r\n"
    _presented(world, "jwt", line)  # its signature is checked here
    return line


def _know_oauth2(world: World, caller: Consumer) -> str:
    line = f"Authorization: Bearer {caller.key * 4}\r\n"
    lookup = _presented(world, "oauth2", line)
    if not isinstance(lookup, IntrospectionLookup):
        raise RuntimeError(f"OAUTH2: {vars_of(lookup)}")
    answer = {"active": True, "sub": caller.name, "client_id": "bench", "scope": "read"}
    authenticator: Any = world.snapshot.gateways["oauth2"].authenticator
    authenticator.introspected(lookup, answer, world.now)
    return line


def _know_bff(world: World, caller: Consumer) -> str:
    authenticator: Any = world.snapshot.gateways["bff"].authenticator
    cookie = new_secret().encode("ascii")
    record = Record(
        issuer=_ISSUER,
        client_id="bench",
        created_at=world.now,
        ends_at=world.now + 7_200,
        claims={"sub": caller.name, "roles": ["reader"]},
        access_token=caller.key * 4,
        access_ttl_s=7_200,
        access_ends_at=world.now + 7_200,
        refresh_token="",
        id_token="",
        scope="openid",
    )
    session = Session(session_name("bff", cookie), session_key(cookie))
    authenticator.fill(session, record)
    authenticator.rely_on(session, world.now)
    authenticator.remember(sha256(cookie).digest(), session)
    return f"Cookie: AUTHGATE_BFF_SESSION={cookie.decode('ascii')}\r\n"
