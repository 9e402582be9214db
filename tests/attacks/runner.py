"""Runs a case over real sockets: in one write, byte by byte, and what is behind it in a write of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from authgate_fast.config.file import load_file
from authgate_fast.config.store import Configuration
from authgate_fast.limits import Limits
from authgate_fast.snapshot import Snapshot
from tests.attacks.backend import Seen, StrictBackend
from tests.attacks.cases import KEY, SMUGGLED, Answered, Expect, Forwarded, Refused, Swallowed
from tests.proxy.harness import Stack, backend, gateway
from tests.proxy.scripted import Answer, answers, until

BOUND_S = 5.0
MAX_PIECES = 400
_USUAL = b"GET /p/a HTTP/1.1\r\nHost: a\r\n"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOKEN = re.compile(rb"[A-Z-]+")
LIMITS = Limits(max_failures_per_address=1_000_000)
# Names by which a backend learns who is calling: only the gateway writes them.
IDENTITY = (
    b"x-consumer-id",
    b"x-consumer-roles",
    b"x-credential-id",
    b"x-user-id",
    b"x-user-roles",
    b"x-client-id",
)

DOCUMENTS = """
gateways:
  main:
    hosts: ["*"]
    auth: {{type: API_KEY}}
    services: {{echo: {{target_url: "http://127.0.0.1:{port}"}}}}
    routes:
      public: {{method: ANY, public_path: "/p/{{rest*}}", target_path: "/{{rest*}}", service: echo, security: PUBLIC}}
      secure: {{method: ANY, public_path: "/s/{{rest*}}", target_path: "/s/{{rest*}}", service: echo, security: SECURE}}
      small: {{method: ANY, public_path: "/small", target_path: "/small", service: echo, security: PUBLIC, max_body_bytes: 10}}
    consumers: {{app: {{api_key_sha256: "{digest}", roles: [reader]}}}}
  open:
    hosts: [open.test]
    auth: {{type: API_KEY}}
    services: {{echo: {{target_url: "http://127.0.0.1:{port}"}}}}
    routes:
      rest: {{method: ANY, public_path: "/{{rest*}}", target_path: "/{{rest*}}", service: echo, security: PUBLIC}}
      admin: {{method: ANY, public_path: "/admin", target_path: "/admin", service: echo, security: SECURE}}
      below: {{method: ANY, public_path: "/admin/{{rest*}}", target_path: "/admin/{{rest*}}", service: echo, security: SECURE}}
      user: {{method: ANY, public_path: "/api/users/{{id}}", target_path: "/api/users/{{id}}", service: echo, security: SECURE}}
    consumers: {{app: {{api_key_sha256: "{digest}"}}}}
  other:
    hosts: [other.test]
    auth: {{type: API_KEY, header: X-Other-Key}}
    services: {{echo: {{target_url: "http://127.0.0.1:{port}"}}}}
    routes:
      secure: {{method: ANY, public_path: "/s/{{rest*}}", target_path: "/s/{{rest*}}", service: echo, security: SECURE}}
"""


@dataclass
class World:
    stack: Stack
    backend: StrictBackend


@asynccontextmanager
async def world(path: Path, limits: Limits = LIMITS) -> AsyncIterator[World]:
    """Run a gateway compiled from `DOCUMENTS`, written to `path`, in front of a `StrictBackend`."""
    strict = StrictBackend()
    async with backend(strict.handle) as port, gateway(_compile(path, port, limits), limits) as stack:
        yield World(stack, strict)


def _compile(path: Path, port: int, limits: Limits) -> Snapshot:
    key = KEY.partition(b": ")[2]
    path.write_text(DOCUMENTS.format(port=port, digest=sha256(key).hexdigest()))
    loaded = load_file(path)
    assert not loaded.problems
    configuration = Configuration(limits)
    configuration.replace_all(loaded.documents)
    return configuration.snapshot


def cuts(data: bytes, expect: Expect) -> dict[str, list[bytes]]:
    """Return the ways in which a case is sent; very long ones are cut less often."""
    step = len(data) // MAX_PIECES + 1
    usual = len(_USUAL) if data.startswith(_USUAL) else 0  # where it is cut is another test's topic
    pieces = [data[at : at + step] for at in range(usual, len(data), step)]
    ways = {
        "in one write": [data + SMUGGLED],
        "byte by byte": [data[:usual], *pieces, SMUGGLED],
        "in two writes": [data, SMUGGLED],
    }
    if isinstance(expect, Refused) and (expect.at_once or not expect.in_body):
        ways["alone, byte by byte"] = [data[:usual], *pieces]
    return ways


async def send(stack: Stack, parts: list[bytes], *, eof: bool) -> bytes:
    """Send `parts`, each as a read of its own as far as that goes, and return all that comes until the close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port, limit=1 << 20)
    try:
        for part in filter(None, parts):
            writer.write(part)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if eof:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(-1), BOUND_S)
    finally:
        writer.close()


async def run(made: World, data: bytes, expect: Expect) -> None:
    """Send a case in every way and look at what came of it."""
    for way, parts in cuts(data, expect).items():
        made.backend.clear()
        made.stack.reports.clear()
        # A refusal must end the connection by itself; for all else the client says that this was all.
        try:
            raw = await send(made.stack, parts, eof=not isinstance(expect, Refused))
        except TimeoutError:
            raise AssertionError(f"{way}: neither an answer nor a close") from None
        await until(lambda: not made.backend.unfinished)
        assert made.backend.faults == [], way
        assert "internal_error" not in {reason for reason, _ in made.stack.reports}, (way, made.stack.reports)
        method = data.lstrip(b"\r\n").partition(b" ")[0]
        method = method if _TOKEN.fullmatch(method) else b"GET"
        _judge(made.backend, answers(raw, method, *[b"GET"] * 3), expect, way)


def _judge(seen_by: StrictBackend, got: list[Answer], expect: Expect, way: str) -> None:
    statuses = [answer.status for answer in got]
    starts = [seen.start for seen in seen_by.seen]
    if isinstance(expect, Refused):
        assert len(got) == 1, (way, statuses, starts)
        assert got[0].status in expect.statuses, (way, statuses, got[0].body)
        assert got[0].get(b"connection") == b"close", way
        assert got[0].whole
        assert starts == [], way
        if not expect.in_body:
            assert not any(seen_by.raw), (way, seen_by.raw)
    elif isinstance(expect, Swallowed):
        assert (statuses, starts) == ([], []), way
    elif isinstance(expect, Answered):
        closes = expect.closes if expect.closes is not None else got[0].get(b"connection") == b"close"
        next_one = [] if closes else [b"GET /smuggled HTTP/1.1"]
        assert starts == next_one, (way, statuses)
        assert statuses == [expect.status, *[200] * len(next_one)], way
    else:
        next_one = [] if expect.closes else [b"GET /smuggled HTTP/1.1"]
        assert starts == [expect.start, *next_one], (way, statuses, [answer.body for answer in got])
        assert statuses == [200] * len(starts), way
        _judge_forwarded(seen_by.seen[0], expect, way)


def _judge_forwarded(seen: Seen, expect: Forwarded, way: str) -> None:
    assert seen.body == expect.body, way
    lines = [b"%b: %b" % pair for pair in seen.fields]
    for line in expect.has:
        assert lines.count(line) == 1, (way, line, lines)
    for name in expect.lacks:
        assert seen.values(name) == [], (way, name)
    identity = {name: seen.values(name) for name in IDENTITY if seen.values(name)}
    if expect.consumer:
        assert identity.pop(b"x-consumer-id") == [b"app"], way
        assert identity.pop(b"x-credential-id") == [b"default"], way
        identity.pop(b"x-consumer-roles", None)
    assert identity == {}, way
    assert seen.values(b"x-api-key") == [], way
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"], way
    (request_id,) = seen.values(b"x-request-id")
    assert _REQUEST_ID.fullmatch(request_id), (way, request_id)
    for name in (b"x-gateway-id", b"x-request-id", b"x-forwarded-host", b"x-forwarded-proto"):
        assert len(seen.values(name)) == 1, (way, name)
