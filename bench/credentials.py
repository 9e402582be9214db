"""The same work with the other kinds of credential: a cached Basic password, a cached JWT, a live browser session.

The first round of the load, which is not counted, is where passwords and tokens are checked; what is measured is
memory's answer. A session's tokens would come from an identity provider; here they are put into Redis as the gateway
itself would. The peers look the whole credential up in a table, which is what a memory of checked credentials does.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import redis
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from authgate_fast.auth.login import new_secret
from authgate_fast.auth.session import Record, seal_record, session_key, session_name
from bench.cases import BASIC, BFF, JWT
from bench.gateway import documents_of, start_gateway
from bench.ground import Check, Contestant, Ground
from bench.processes import BenchError, MissingToolError, accepts, free_ports, wait_until
from bench.workload import HOST, PUBLIC_PREFIX, SEEN_PATH, Consumer, callers

_ISSUER = "http://127.0.0.1:9"
_CLIENT = "bench"
_SALT = b"bench-salt-bench"
_GATEWAY = "bench"


def _cheap_hash(consumer: Consumer) -> dict[str, object]:
    """Return a password hash with the least work that Argon2id allows: that work is not what is measured."""
    made = Argon2id(salt=_SALT, length=16, iterations=1, lanes=1, memory_cost=8).derive(consumer.key.encode())
    salt, digest = (base64.b64encode(part).decode().rstrip("=") for part in (_SALT, made))
    return {"password_hash": f"$argon2id$v=19$m=8,t=1,p=1${salt}${digest}"}


def start_basic(ground: Ground, name: str, source: Path) -> Contestant:
    """Start a gateway with Basic passwords."""
    documents = documents_of(ground, {"type": BASIC}, _cheap_hash)
    contestant = start_gateway(ground, name, source, documents)
    lines = []
    for caller in callers(ground.consumers):
        token = base64.b64encode(f"{caller.name}:{caller.key}".encode()).decode()
        lines.append(f"Authorization: Basic {token}")
    contestant.lines = lines
    return contestant


def start_jwt(ground: Ground, name: str, source: Path) -> Contestant:
    """Start a gateway with its own tokens, and log in."""
    documents = documents_of(ground, {"type": JWT, "access_ttl_s": 7_200}, _cheap_hash)
    contestant = start_gateway(ground, name, source, documents)
    connection = HTTPConnection("127.0.0.1", contestant.port, timeout=10)
    lines = []
    for caller in callers(ground.consumers):
        body = json.dumps({"username": caller.name, "password": caller.key})
        fields = {"Host": HOST, "Content-Type": "application/json"}
        connection.request("POST", "/auth/login", body, fields)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise BenchError(f"{contestant.name}: a login was answered with {answer.status}: {text!r}")
        lines.append(f"Authorization: Bearer {json.loads(text)['access_token']}")
    connection.close()
    contestant.lines = lines
    return contestant


def start_bff(ground: Ground, name: str, source: Path) -> Contestant:
    """Start a gateway with browser sessions, on a Redis that has them."""
    server = shutil.which("redis-server")
    if server is None:
        raise MissingToolError("redis-server is not installed; on Debian: apt-get install redis-server")
    directory = ground.directory / f"redis of {name}".replace("/", "_")
    directory.mkdir()
    (port,) = free_ports(1)
    child = ground.children.start(
        f"redis of {name}",
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
        ground.load_cpus,
    )
    wait_until(child, lambda: accepts(port), "listen", 20.0)
    auth: dict[str, object] = {"type": BFF, "issuer": _ISSUER, "client_id": _CLIENT}
    documents = documents_of(ground, auth, lambda _: {})
    store = redis.Redis(port=port, socket_timeout=30)
    store.mset(_flat(documents))
    lines = []
    for caller in callers(ground.consumers):
        cookie = new_secret()
        place = session_name(_GATEWAY, cookie.encode())
        store.set(place, seal_record(session_key(cookie.encode()), place, _record(caller)), ex=7_200)
        lines.append(f"Cookie: AUTHGATE_BFF_SESSION={cookie}")
    store.close()
    arguments = ["--redis", f"redis://127.0.0.1:{port}/0"]
    contestant = start_gateway(ground, name, source, None, arguments)
    contestant.lines = lines
    _show_once(contestant, lines)
    return contestant


def _show_once(contestant: Contestant, lines: Sequence[str]) -> None:
    """Have each session looked up. Unsealing one takes a millisecond: one second of load does not see all."""
    connection = HTTPConnection("127.0.0.1", contestant.port, timeout=10)
    for line in lines:
        field, _, value = line.partition(": ")
        connection.request("GET", f"{PUBLIC_PREFIX}{SEEN_PATH}", headers={"Host": HOST, field: value})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise BenchError(f"{contestant.name}: a session was answered with {answer.status}")
    connection.close()


def _record(caller: Consumer) -> Record:
    now = time.time()
    return Record(
        issuer=_ISSUER,
        client_id=_CLIENT,
        created_at=now,
        ends_at=now + 7_200,
        claims={"sub": caller.name, "roles": ["reader"]},
        access_token=caller.key * 4,
        access_ttl_s=7_200,
        access_ends_at=now + 7_200,
        refresh_token="",
        id_token="",
        scope="openid",
    )


def _flat(documents: dict[str, Any]) -> dict[str, str]:
    """Return nested documents as Redis holds them."""
    flat = {}
    for gateway, fields in documents["gateways"].items():
        own = {
            name: value for name, value in fields.items() if name not in ("services", "routes", "consumers")
        }
        flat[f"authgate:gateway:{gateway}"] = json.dumps(own)
        for kind in ("service", "route", "consumer"):
            for name, document in fields[f"{kind}s"].items():
                flat[f"authgate:{kind}:{gateway}:{name}"] = json.dumps(document)
    return flat


def check_of(lines: Sequence[str], consumers: list[Consumer]) -> Check:
    """Return what a peer looks up when the load shows these credentials."""
    field = lines[0].partition(": ")[0]
    names = zip(lines, callers(consumers), strict=True)
    return Check(field, {line.partition(": ")[2]: caller.name for line, caller in names}, is_digest=False)


CREDENTIALS: dict[str, Callable[[Ground, str, Path], Contestant]] = {
    BASIC: start_basic,
    JWT: start_jwt,
    BFF: start_bff,
}
"""The starters of a gateway by its type of authentication; the others are API keys or nothing."""
