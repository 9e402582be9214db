"""An OAUTH2 gateway over real sockets, with real tokens of the independent provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.resolver import Resolver
from tests.auth.signer import Signer, claims_at
from tests.lookup.idp import idp
from tests.lookup.jwt_kit import Answer
from tests.oidc_provider import Provider
from tests.proxy.harness import Stack, answer, backend, gateway

__all__ = ["idp"]

INVALID = (
    'Bearer realm="api", error="invalid_token", error_description="The token is not valid or has expired"'
)


class Api:
    """A running gateway and what its backend has received."""

    def __init__(self, stack: Stack, received: list[bytes]) -> None:
        self.stack = stack
        self.received = received

    async def get(self, path: str, *lines: str) -> Answer:
        head = [f"GET {path} HTTP/1.1", "Host: api.test", "Connection: close", *lines]
        raw = await self.stack.talk("\r\n".join([*head, "", ""]).encode())
        answer_head, _, body = raw.partition(b"\r\n\r\n")
        return Answer(int(raw[9:12]), answer_head, body)

    async def use(self, token: str, path: str = "/s") -> Answer:
        return await self.get(path, f"Authorization: Bearer {token}")


@asynccontextmanager
async def api(idp: Provider, *, limits: Limits = DEFAULTS, **auth: Any) -> AsyncIterator[Api]:
    """Run an OAUTH2 gateway that is bound to the client "shop"."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer())

    async with backend(serve) as port:
        settings = {"type": "OAUTH2", "issuer": idp.issuer, "client_id": "shop"} | auth
        documents: dict[DocumentKey, dict[str, Any]] = {
            DocumentKey("gateway", "api", "api"): {"hosts": ["api.test"], "auth": settings},
            DocumentKey("service", "api", "svc"): {"target_url": f"http://127.0.0.1:{port}"},
        }
        for name, security, more in (
            ("s", "SECURE", {}),
            ("p", "PUBLIC", {}),
            ("admins", "SECURE", {"roles": ["admin"]}),
            ("writers", "SECURE", {"scopes": ["write", "read"]}),
        ):
            documents[DocumentKey("route", "api", name)] = {
                "method": "GET", "public_path": f"/{name}", "service": "svc", "security": security, **more
            }  # fmt: skip
        configuration = Configuration(limits)
        configuration.replace_all({key: orjson.dumps(fields) for key, fields in documents.items()})
        assert not configuration.refused, configuration.refused
        resolver = Resolver(MemoryStore())
        try:
            async with gateway(configuration.snapshot, limits) as stack:
                stack.context.resolver = resolver
                yield Api(stack, received)
        finally:
            await resolver.close()


async def test_the_backend_learns_who_is_calling_and_gets_the_token(idp: Provider) -> None:
    token = idp.login("shop")["access_token"]
    async with api(idp) as running:
        for _ in range(3):
            assert (await running.use(token)).status == 200
    for head in running.received:
        assert b"X-User-Id: u-1\r\nX-User-Roles: buyer,admin\r\nX-Client-Id: shop\r\n" in head
        assert f"\r\nAuthorization: Bearer {token}\r\n".encode() in head
    assert idp.calls["jwks"] == 1


async def test_a_gateway_can_keep_the_token(idp: Provider) -> None:
    async with api(idp, forward_token=False) as running:
        assert (await running.use(idp.login("shop")["access_token"])).status == 200
    assert b"uthorization" not in running.received[0]
    assert b"X-User-Id: u-1" in running.received[0]


async def test_a_public_route_takes_nobodys_word(idp: Provider) -> None:
    async with api(idp) as running:
        got = await running.get("/p", "Authorization: Bearer x", "X-User-Id: root", "x_user_roles: admin")
        assert got.status == 200
    assert b"uthorization" not in running.received[0]
    assert b"root" not in running.received[0]
    assert idp.calls == {}


async def test_without_a_token_the_challenge_has_no_error(idp: Provider) -> None:
    async with api(idp) as running:
        got = await running.get("/s")
    assert (got.status, got.code) == (401, "credentials_missing")
    assert got.field("WWW-Authenticate") == 'Bearer realm="api"'


async def test_whatever_is_wrong_the_answer_is_the_same(idp: Provider) -> None:
    good = idp.login("shop", nonce="n")
    expired = idp.sign(claims_at(1_000_000_000, iss=idp.issuer, client_id="shop"))
    tokens = [
        "opaque",
        good["id_token"],
        idp.login("other")["access_token"],
        expired,
        good["access_token"][:-8],
    ]
    async with api(idp) as running:
        answers = [await running.use(token) for token in tokens]
    assert {(got.status, got.code, got.field("WWW-Authenticate")) for got in answers} == {
        (401, "credentials_invalid", INVALID)
    }
    assert len({got.json["detail"] for got in answers}) == 1
    assert running.received == []


async def test_a_route_may_ask_for_roles_and_scopes(idp: Provider) -> None:
    ann, bob = idp.login("shop")["access_token"], idp.login("shop", user="bob")["access_token"]
    writer = idp.login("shop", scope="read write")["access_token"]
    async with api(idp) as running:
        assert (await running.use(ann, "/admins")).status == 200
        refused = await running.use(bob, "/admins")
        assert (refused.status, refused.code) == (403, "forbidden")
        assert (await running.use(writer, "/writers")).status == 200
        refused = await running.use(ann, "/writers")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert "write" in refused.json["detail"]
    challenge = 'Bearer realm="api", error="insufficient_scope", scope="read write"'
    assert refused.field("WWW-Authenticate") == challenge


async def test_a_provider_that_is_away_at_the_start_is_503_until_it_comes(idp: Provider) -> None:
    token = idp.login("shop")["access_token"]
    idp.down()
    async with api(idp) as running:
        got = await running.use(token)
        assert (got.status, got.code) == (503, "auth_unavailable")
        assert got.field("Retry-After") == "1"
        assert idp.issuer.removeprefix("http://") not in got.body.decode()
        idp.up()
        for _ in range(100):
            got = await running.use(token)
            if got.status == 200:
                break
            await asyncio.sleep(0.1)
        assert got.status == 200
        idp.down()
        assert (await running.use(token)).status == 200


async def test_keys_change_while_clients_call(idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authgate_fast.auth.oauth2.NEWS_PAUSE_S", 0.0)
    monkeypatch.setattr("authgate_fast.lookup.issuer.NEWS_PAUSE_S", 0.0)
    async with api(idp) as running:
        old = idp.login("shop")["access_token"]
        assert (await running.use(old)).status == 200
        idp.rotate_keys()
        new = idp.login("shop", user="bob")["access_token"]
        got = await asyncio.gather(*(running.use(token) for token in [old, new] * 10))
        assert {answer.status for answer in got} == {200}
    assert idp.calls["jwks"] == 2


async def test_a_guesser_is_told_to_wait_and_costs_the_provider_nothing(idp: Provider) -> None:
    few = replace(DEFAULTS, max_failures_per_address=5)
    good = idp.login("shop")["access_token"]
    stranger = Signer("k", name="attacker")
    async with api(idp, limits=few) as running:
        assert (await running.use(good)).status == 200
        statuses = []
        for number in range(12):
            token = stranger.token(claims_at(1_900_000_000, iss=idp.issuer, jti=str(number))).decode()
            statuses.append((await running.use(token)).status)
        assert statuses == [401] * 5 + [429] * 7
        assert (await running.use(good)).status == 200, "what memory knows goes on"
        fresh = idp.login("shop", user="bob")["access_token"]
        assert (await running.use(fresh)).status == 429
    assert idp.calls["jwks"] == 1


async def test_introspected_tokens_end_with_their_revocation(idp: Provider) -> None:
    idp.opaque = True
    secret = idp.clients["shop"].secret
    token = idp.login("shop")["access_token"]
    async with api(idp, introspect=True, client_secret=secret, introspection_cache_s=0) as running:
        got = await asyncio.gather(*(running.use(token) for _ in range(10)))
        assert {answer.status for answer in got} == {200}
        idp.revoke_all()
        refused = await running.use(token)
        assert (refused.status, refused.field("WWW-Authenticate")) == (401, INVALID)
        idp.fail("introspect", status=500)
        assert (await running.use("another")).code == "auth_unavailable"
    assert b"X-User-Id: u-1\r\nX-User-Roles: buyer,admin\r\n" in running.received[0]


async def test_a_provider_that_is_slow_delays_nobody_else(idp: Provider) -> None:
    idp.fail("discovery", delay_s=2)
    token = idp.login("shop")["access_token"]
    async with api(idp) as running:
        waiting = asyncio.create_task(running.use(token))
        await asyncio.sleep(0)
        async with asyncio.timeout(1.5):
            for _ in range(20):
                assert (await running.get("/p")).status == 200
        assert not waiting.done()
        idp.heal()
        waiting.cancel()
