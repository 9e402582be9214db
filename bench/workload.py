"""The work every contestant gets: the same requests, keys and backend answers.

250 resources with four routes each make 1,000 routes; 10,000 consumers have one key each. The load reads one
item of each resource in turn, each time with another of 1,000 keys, all of them good.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from authgate_fast.auth.api_key import key_digest, new_key

HOST = "bench.localhost"
PUBLIC_PREFIX = "/api/v1"
RESOURCES = 250
CONSUMERS = 10_000
DISTINCT_REQUESTS = 1_000
SEEN_ITEM = "seen"
SEEN_PATH = f"/resource-007/items/{SEEN_ITEM}"
"""A path, as the backend sees it, that answers what arrived there; only the check before the load uses it."""

_KEY_STRIDE = 7_919  # a prime, so that the keys in use lie apart in every table

BACKEND_BODY = json.dumps(
    {
        "id": 4711,
        "title": "Desk lamp, brass",
        "category": "lighting",
        "price_cents": 5900,
        "stock": 12,
        "tags": ["desk", "warm white", "dimmable"],
        "updated_at": "2026-03-14T09:26:53Z",
        "links": {"self": "/items/4711"},
    },
    separators=(",", ":"),
)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer of every contestant; ``digest`` is the SHA-256 of the key in lower-case hex."""

    name: str
    key: str
    digest: str


def make_consumers() -> list[Consumer]:
    """Make the consumers, with keys that are new in every run."""
    consumers = []
    for number in range(CONSUMERS):
        key = new_key()
        consumers.append(Consumer(f"consumer-{number:05}", key, key_digest(key)))
    return consumers


def gateway_documents(
    consumers: list[Consumer],
    backend_port: int,
    auth: dict[str, object] | None = None,
    consumer_fields: Callable[[Consumer], dict[str, object]] | None = None,
) -> dict[str, object]:
    """Build the gateway's configuration file: nested documents. Without `auth` it is one of API keys."""
    routes: dict[str, object] = {}
    for number in range(RESOURCES):
        resource = f"resource-{number:03}"
        for verb, method, tail in (
            ("list", "GET", "items"),
            ("create", "POST", "items"),
            ("read", "GET", "items/{id}"),
            ("read-part", "GET", "items/{id}/parts/{part}"),
        ):
            routes[f"{verb}-{resource}"] = {
                "method": method,
                "public_path": f"{PUBLIC_PREFIX}/{resource}/{tail}",
                "target_path": f"/{resource}/{tail}",
                "service": "backend",
                "security": "SECURE",
            }
    return {
        "gateways": {
            "bench": {
                "hosts": [HOST],
                "auth": auth or {"type": "API_KEY", "header": "X-Api-Key"},
                "services": {"backend": {"target_url": f"http://127.0.0.1:{backend_port}"}},
                "routes": routes,
                "consumers": {
                    consumer.name: {
                        "roles": ["reader"],
                        **(
                            consumer_fields(consumer)
                            if consumer_fields
                            else {"api_key_sha256": consumer.digest}
                        ),
                    }
                    for consumer in consumers
                },
            }
        }
    }


def callers(consumers: list[Consumer]) -> list[Consumer]:
    """Return who sends each of the different requests."""
    return [consumers[number * _KEY_STRIDE % len(consumers)] for number in range(DISTINCT_REQUESTS)]


def request_heads(consumers: list[Consumer], credentials: Sequence[str] | None = None) -> list[str]:
    """Build the different requests of the load, as they go to the wire.

    `credentials` are the field lines that show who sends each of them; without it, the API keys.
    """
    if credentials is None:
        credentials = [f"X-Api-Key: {caller.key}" for caller in callers(consumers)]
    heads = []
    for number in range(DISTINCT_REQUESTS):
        path = f"{PUBLIC_PREFIX}/resource-{number % RESOURCES:03}/items/{100_000 + number}"
        heads.append(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: mobile-app/4.2 (bench)\r\n"
            f"Accept: application/json\r\nAccept-Encoding: gzip\r\n{credentials[number]}\r\n\r\n"
        )
    return heads


_WRK_SCRIPT = """\
local requests = {
%s
}
local turn = 0

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '%s{"requests":%%d,"duration_us":%%d,"p50_us":%%.1f,"p99_us":%%.1f,"refused":%%d,' ..
    '"connect":%%d,"read":%%d,"write":%%d,"timeout":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect, errors.read, errors.write, errors.timeout))
end
"""

WRK_MARK = "measured: "
"""What the line of a wrk run begins with that ``load.parse_wrk`` reads."""


def wrk_script(consumers: list[Consumer], credentials: Sequence[str] | None = None) -> str:
    """Build the script for wrk: it sends the requests in turn and prints its totals as one JSON line."""
    # Lua reads a JSON string of printable ASCII, \r and \n as Python means it.
    lines = ",\n".join(json.dumps(head) for head in request_heads(consumers, credentials))
    return _WRK_SCRIPT % (lines, WRK_MARK)
