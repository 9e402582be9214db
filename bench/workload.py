"""The work every contestant gets: the same requests, keys and backend answers.

250 resources with four routes each make 1,000 routes; 10,000 consumers have one key each. The load reads one
item of each resource in turn, each time with another of 1,000 keys, all of them good. A case may want another number of
resources, another method, other fields, or a body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from authgate_fast.auth.api_key import key_digest, new_key
from bench.cases import CASES, DOWNLOAD, PUBLIC, Case

HOST = "bench.localhost"
PUBLIC_PREFIX = "/api/v1"
CONSUMERS = 10_000
DISTINCT_REQUESTS = 1_000
SEEN_ITEM = "seen"
SEEN_PATH = f"/resource-001/items/{SEEN_ITEM}"
"""A path, as the backend sees it, that answers what arrived there; only the check before the load uses it."""

_FIELDS = ("User-Agent: mobile-app/4.2 (bench)", "Accept: application/json", "Accept-Encoding: gzip")
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
    case: Case = CASES["key"],
    authority: str = "",
) -> dict[str, object]:
    """Build the gateway's configuration file: nested documents. Without `auth` it is one of API keys.

    `authority` is the file of certificates that the backend is verified by, where it speaks TLS.
    """
    service: dict[str, object] = {"target_url": f"http://127.0.0.1:{backend_port}"}
    if case.tls_out:
        service = {"target_url": f"https://127.0.0.1:{backend_port}", "tls": {"ca_file": authority}}
    routes: dict[str, object] = {}
    for number in range(case.resources):
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
                "security": "PUBLIC" if case.auth == PUBLIC else "SECURE",
            }
    return {
        "gateways": {
            "bench": {
                "hosts": [HOST],
                "auth": auth or {"type": "API_KEY", "header": "X-Api-Key"},
                "services": {"backend": service},
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


def request_heads(
    consumers: list[Consumer], credentials: Sequence[str] | None = None, case: Case = CASES["key"]
) -> list[str]:
    """Build the heads of the different requests of the load, as they go to the wire.

    `credentials` are the field lines that show who sends each of them; without it, the API keys.
    """
    if case.auth == PUBLIC:
        credentials = None
    elif credentials is None:
        credentials = [f"X-Api-Key: {caller.key}" for caller in callers(consumers)]
    heads = []
    for number in range(DISTINCT_REQUESTS):
        fields = [f"Host: {HOST}", *(case.fields or _FIELDS)]
        if credentials is not None:
            fields.append(credentials[number])
        if case.method == "POST":
            fields += ["Content-Type: application/octet-stream", f"Content-Length: {case.body_bytes}"]
        lines = [f"{case.method} {_path(number, case)} HTTP/1.1", *fields]
        heads.append("\r\n".join(lines) + "\r\n\r\n")
    return heads


def _path(number: int, case: Case) -> str:
    items = f"{PUBLIC_PREFIX}/resource-{number % case.resources:03}/items"
    if case.driver == DOWNLOAD:
        return f"{items}/download-{number}"
    return items if case.method == "POST" else f"{items}/{100_000 + number}"


_WRK_SCRIPT = """\
local requests = {
%s
}
local body = string.rep("x", %d)
local turn = 0

for at, head in ipairs(requests) do
  requests[at] = head .. body
end

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

RESULT_MARK = "measured: "
"""What the line of wrk, and of the bench's own clients, begins with that ``load.parse_result`` reads."""


def wrk_script(
    consumers: list[Consumer], credentials: Sequence[str] | None = None, case: Case = CASES["key"]
) -> str:
    """Build the script for wrk: it sends the requests in turn and prints its totals as one JSON line."""
    # Lua reads a JSON string of printable ASCII, \r and \n as Python means it.
    lines = ",\n".join(json.dumps(head) for head in request_heads(consumers, credentials, case))
    return _WRK_SCRIPT % (lines, case.body_bytes if case.method == "POST" else 0, RESULT_MARK)
