"""The world that is fuzzed: its routes, written as configuration for the gateway and as plain facts for the oracle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from authgate_fast.limits import Limits

KEY = b"agk_right"
PARTNER_KEY = b"partner-right"
CONSUMER = b"app"
PARTNER = b"friend"

LIMITS = Limits(
    max_head_bytes=4_096,
    max_fields=32,
    max_target_bytes=1_024,
    max_failures_per_address=1_000_000_000,
    max_failures_per_account=1_000_000_000,
)
"""Small ones, so that the fuzzer meets them; and no counting of failures, for each of its keys is a guess."""
SMALL_BODY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Way:
    """A route: `public` and `target` are segments; b"*" is one that may be anything, b"**" the rest."""

    name: str
    method: bytes
    public: tuple[bytes, ...]
    target: tuple[bytes, ...]
    service: str
    secure: bool = False
    max_body: int | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """A gateway."""

    name: bytes
    hosts: tuple[bytes, ...]
    credential: bytes
    key: bytes
    consumer: bytes
    ways: tuple[Way, ...]
    auth: str = "API_KEY"


ANY = b"ANY"
SHOP = Door(
    b"shop",
    (b"shop.test", b"*.shop.test"),
    b"x-api-key",
    KEY,
    CONSUMER,
    (
        Way("open", ANY, (b"p", b"**"), (b"**",), "one"),
        Way("closed", ANY, (b"s", b"**"), (b"s", b"**"), "one", secure=True),
        Way("item", b"GET", (b"items", b"*"), (b"i", b"*", b"v"), "two"),
        Way("special", b"GET", (b"items", b"special"), (b"special",), "one", secure=True),
        Way("same-get", b"GET", (b"same",), (b"got",), "one"),
        Way("same-post", b"POST", (b"same",), (b"posted",), "two", secure=True),
        Way("small", ANY, (b"small",), (b"small",), "two", max_body=SMALL_BODY_BYTES),
        Way("rest", ANY, (b"**",), (b"all", b"**"), "two"),
    ),
)
FRIENDS = Door(
    b"friends",
    (b"partner.test",),
    b"x-partner-key",
    PARTNER_KEY,
    PARTNER,
    (
        Way("open", ANY, (b"p", b"**"), (b"**",), "kept"),
        Way("closed", ANY, (b"s", b"**"), (b"s", b"**"), "kept", secure=True),
    ),
)
MEMBERS = Door(
    b"members",
    (b"members.test",),
    b"authorization",
    b"",
    b"",
    (
        Way("open", ANY, (b"p", b"**"), (b"**",), "one"),
        Way("closed", ANY, (b"s", b"**"), (b"s", b"**"), "one", secure=True),
    ),
    "JWT",
)
"""Nobody has a token of it; but it has endpoints of its own, which read bodies: /auth/login and so on."""
OTHERS = Door(
    b"others",
    (b"*",),
    b"x-api-key",
    b"",
    b"",
    (Way("open", b"GET", (b"p", b"**"), (b"**",), "one"),),
)
DOORS = (SHOP, FRIENDS, MEMBERS, OTHERS)
BASES = {"one": b"", "two": b"/base", "kept": b""}
KEEPS_HOST = frozenset({"kept"})


def config_text(ports: dict[str, int]) -> str:
    """Write the world as a configuration file, its services on `ports` of 127.0.0.1."""
    lines = ["gateways:"]
    for door in DOORS:
        hosts = ", ".join(f'"{host.decode()}"' for host in door.hosts)
        lines += [f"  {door.name.decode()}:", f"    hosts: [{hosts}]"]
        header = "-".join(part.capitalize() for part in door.credential.decode().split("-"))
        auth = "{type: JWT}" if door.auth == "JWT" else f"{{type: API_KEY, header: {header}}}"
        lines += [f"    auth: {auth}", "    services:"]
        for service in sorted({way.service for way in door.ways}):
            base = BASES[service].decode()
            more = ", preserve_host: true" if service in KEEPS_HOST else ""
            lines.append(f'      {service}: {{target_url: "http://127.0.0.1:{ports[service]}{base}"{more}}}')
        lines.append("    routes:")
        for way in door.ways:
            lines += [
                f"      {way.name}:",
                f"        method: {way.method.decode()}",
                f'        public_path: "{_template(way.public)}"',
                f'        target_path: "{_template(way.target)}"',
                f"        service: {way.service}",
                f"        security: {'SECURE' if way.secure else 'PUBLIC'}",
            ]
            if way.max_body is not None:
                lines.append(f"        max_body_bytes: {way.max_body}")
        if door.key:
            digest = hashlib.sha256(door.key).hexdigest()
            lines += [
                "    consumers:",
                f'      {door.consumer.decode()}: {{api_key_sha256: "{digest}", roles: [reader]}}',
            ]
    return "\n".join(lines) + "\n"


def limit_options() -> list[str]:
    """Return `LIMITS` as options of ``authgate run``."""
    default = Limits()
    changed = [name for name in Limits.__slots__ if getattr(LIMITS, name) != getattr(default, name)]
    return [word for name in changed for word in ("--limit", f"{name}={getattr(LIMITS, name)}")]


def _template(segments: tuple[bytes, ...]) -> str:
    names = {b"*": "{id}", b"**": "{rest*}"}
    return "/" + "/".join(names.get(segment, segment.decode()) for segment in segments)
