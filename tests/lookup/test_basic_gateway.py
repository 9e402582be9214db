"""A BASIC gateway over real sockets: documents in, what a client and a backend see out."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.limits import DEFAULTS
from authgate_fast.lookup import passwords
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.resolver import Resolver
from tests.auth.users import cheap_hash
from tests.proxy.harness import BOUND_S, Stack, answer, backend, gateway, read_head

LIMITS = replace(DEFAULTS, max_failures_per_address=4, max_failures_per_account=6)


class Shop:
    """A BASIC gateway with consumers, its backend, and what that received."""

    def __init__(self, configuration: Configuration, stack: Stack, received: list[bytes]) -> None:
        self.configuration = configuration
        self.stack = stack
        self.received = received

    def put(self, name: str, fields: dict[str, Any] | None) -> None:
        raw = None if fields is None else orjson.dumps(fields)
        self.configuration.apply({DocumentKey("consumer", "shop", name): raw})
        self.stack.context.snapshot = self.configuration.snapshot

    async def get(self, credential: str | None, *more: str, path: str = "/s") -> tuple[int, bytes]:
        """Send one request on a connection of its own; return the status and all of the answer."""
        lines = [f"GET {path} HTTP/1.1", "Host: shop.test", "Connection: close", *more]
        if credential is not None:
            lines.append(f"Authorization: Basic {b64encode(credential.encode()).decode()}")
        raw = await self.stack.talk("\r\n".join([*lines, "", ""]).encode())
        return int(raw[9:12]), raw

    async def status(self, credential: str | None, *more: str, path: str = "/s") -> int:
        return (await self.get(credential, *more, path=path))[0]


@asynccontextmanager
async def shop(trusted: list[str] | None = None, **consumers: dict[str, Any]) -> AsyncIterator[Shop]:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer())

    async with backend(serve) as port:
        documents: dict[DocumentKey, dict[str, Any]] = {
            DocumentKey("gateway", "shop", "shop"): {
                "hosts": ["shop.test"],
                "auth": {"type": "BASIC"},
                "trusted_proxies": trusted or [],
            },
            DocumentKey("service", "shop", "api"): {"target_url": f"http://127.0.0.1:{port}"},
        }
        for name, security in (("s", "SECURE"), ("p", "PUBLIC")):
            documents[DocumentKey("route", "shop", name)] = {
                "method": "GET", "public_path": f"/{name}", "service": "api", "security": security,
            }  # fmt: skip
        for name, fields in consumers.items():
            documents[DocumentKey("consumer", "shop", name)] = fields
        configuration = Configuration(LIMITS)
        configuration.replace_all({key: orjson.dumps(fields) for key, fields in documents.items()})
        resolver = Resolver(MemoryStore())
        async with gateway(configuration.snapshot, LIMITS) as stack:
            stack.context.resolver = resolver
            yield Shop(configuration, stack, received)
        resolver.passwords.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the passwords that were compared with hashes so far."""
    found: list[bytes] = []
    real = passwords._find_match

    def find_match(hashes: tuple[str, ...], password: bytes) -> str | None:
        found.append(password)
        return real(hashes, password)

    monkeypatch.setattr(passwords, "_find_match", find_match)
    return found


async def test_a_right_password_is_checked_once_and_the_backend_learns_who_it_is(
    compared: list[bytes],
) -> None:
    async with shop(ann={"password_hash": cheap_hash("pass"), "roles": ["reader"]}) as one:
        for _ in range(3):
            assert await one.status("ann:pass", "X-Consumer-Id: forged") == 200
        assert compared == [b"pass"]
        for head in one.received:
            assert b"X-Consumer-Id: ann\r\nX-Consumer-Roles: reader\r\nX-Credential-Id: default\r\n" in head
            assert b"uthorization" not in head
            assert b"forged" not in head


async def test_refusals_are_byte_for_byte_the_same_and_name_nothing(compared: list[bytes]) -> None:
    past = "2001-01-01T00:00:00Z"
    async with shop(
        ann={"password_hash": cheap_hash("pass")},
        old={"password_hash": cheap_hash("pass"), "expires_at": past},
        off={"password_hash": cheap_hash("pass"), "enabled": False},
    ) as one:
        one.stack.context.guard = FailureGuard(1_000, 1_000, 60)
        answers = set()
        for credential in ("ann:wrong", "nobody:pass", "old:pass", "off:pass", "bro\x01ken:pass"):
            status, raw = await one.get(credential, "X-Request-ID: same")
            assert status == 401
            assert b'WWW-Authenticate: Basic realm="shop", charset="UTF-8"\r\n' in raw
            head, _, body = raw.partition(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]
            answers.add((*lines, body))
            for text in ("ann", "wrong", "nobody", "expired", "disabled"):
                assert text.encode() not in body
        assert len(answers) == 1
        assert len(compared) == 4, "each but the malformed one"
        assert one.received == []
        told = " ".join(what for _, what in one.stack.reports)
        assert "pass" not in told.replace("password", "")


async def test_past_the_limit_an_address_gets_429_before_any_hashing_and_known_credentials_still_pass(
    compared: list[bytes],
) -> None:
    async with shop(
        ann={"password_hash": cheap_hash("pass")}, bob={"password_hash": cheap_hash("word")}
    ) as one:
        assert await one.status("ann:pass") == 200
        assert [await one.status(f"eve{n}:x") for n in range(4)] == [401] * 4
        hashed = len(compared)
        status, raw = await one.get("bob:word")
        assert status == 429
        head = raw.partition(b"\r\n\r\n")[0]
        (retry,) = [line for line in head.split(b"\r\n") if line.startswith(b"Retry-After: ")]
        assert 1 <= int(retry.removeprefix(b"Retry-After: ")) <= LIMITS.failure_window_s
        assert b"WWW-Authenticate" not in head
        assert await one.status("ann:x") == 429
        assert len(compared) == hashed
        assert await one.status("ann:pass") == 200, "memory knows it"
        assert await one.status(None) == 401, "showing nothing is no failure"
        assert await one.status("eve:x", path="/p") == 200, "a PUBLIC route does not ask"


async def test_an_account_is_guarded_across_addresses_and_addresses_behind_a_proxy_are_apart(
    compared: list[bytes],
) -> None:
    async with shop(["127.0.0.0/8"], ann={"password_hash": cheap_hash("pass")}, bob={
        "password_hash": cheap_hash("word")
    }) as one:  # fmt: skip

        def via(number: int) -> str:
            return f"X-Forwarded-For: 8.8.8.8, 203.0.113.{number}"

        assert [await one.status("ann:x", via(number)) for number in range(6)] == [401] * 6
        hashed = len(compared)
        assert await one.status("ann:pass", via(77)) == 429
        assert len(compared) == hashed
        assert await one.status("bob:word", via(77)) == 200
        for number in range(4):
            await one.status(f"eve{number}:x", via(5))
        assert await one.status("bob:other", via(5)) == 429
        assert await one.status("bob:other", via(6)) == 401


async def test_many_guesses_at_once_get_no_more_than_the_limit(compared: list[bytes]) -> None:
    async with shop(ann={"password_hash": cheap_hash("pass")}) as one:
        found = await asyncio.gather(*(one.status(f"ann:guess{n}") for n in range(60)))
        assert set(found) <= {401, 429}
        assert 4 <= found.count(401) <= 4 + passwords.THREADS
        assert len(compared) <= 4 + 2 * passwords.THREADS


async def test_a_change_of_the_consumer_counts_at_once(compared: list[bytes]) -> None:
    async with shop(ann={"password_hash": cheap_hash("pass")}) as one:
        assert await one.status("ann:pass") == 200
        one.put("ann", {"password_hash": cheap_hash("pass"), "roles": ["new"]})
        assert await one.status("ann:pass") == 200
        assert b"X-Consumer-Roles: new\r\n" in one.received[-1]
        one.put("ann", {"password_hash": cheap_hash("other")})
        assert await one.status("ann:pass") == 401
        assert await one.status("ann:other") == 200
        one.put("ann", {"password_hash": cheap_hash("other"), "enabled": False})
        assert await one.status("ann:other") == 401
        one.put("ann", {"password_hash": cheap_hash("other")})
        assert await one.status("ann:other") == 200
        one.put("ann", None)
        assert await one.status("ann:other") == 401


async def test_requests_behind_a_first_login_are_answered_in_order() -> None:
    async with shop(ann={"password_hash": cheap_hash("pass")}) as one:
        reader, writer = await one.stack.connect()
        credential = b64encode(b"ann:pass").decode()
        for path, line in (("/s", f"Authorization: Basic {credential}\r\n"), ("/p", ""), ("/s", "")):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n{line}\r\n".encode())
        for status in (b"200", b"200", b"401"):
            head = await read_head(reader)
            assert head[9:12] == status
            length = next(
                int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")
            )
            await asyncio.wait_for(reader.readexactly(length), BOUND_S)
        assert [b"X-Consumer-Id: ann" in head for head in one.received] == [True, False]
