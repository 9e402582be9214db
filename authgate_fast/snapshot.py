"""The compiled form of all documents that a worker serves from.

Built whole by ``config.compile`` and swapped in one assignment; never edited after that, with one
exception: ``Gateway.credentials``, so that a consumer change is one dict update and never a
recompilation. All text is bytes as it goes to the wire. Pure data: no IO, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Authenticator
    from authgate_fast.routing.path_policy import PathPolicy
    from authgate_fast.routing.trie import Trie


@dataclass(slots=True, frozen=True)
class TimeoutSettings:
    """Timeouts and limits in force for one route: the node's, narrowed by service and route."""

    max_body_bytes: int | None
    body_timeout_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    between_bytes_timeout_s: float


@dataclass(slots=True, frozen=True)
class Target:
    """One address of a service.

    ``base_path`` has no trailing slash ("" for the root). ``host_line`` is the complete Host field
    line for this target, CRLF included. Two equal ``endpoint`` values share one connection pool.
    """

    scheme: str
    host: str
    port: int
    base_path: bytes
    host_line: bytes
    endpoint: tuple[str, str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", (self.scheme, self.host, self.port))


@dataclass(slots=True)
class Service:
    """A backend API. ``turn`` is the round-robin cursor over ``targets``."""

    name: str
    targets: tuple[Target, ...]
    preserve_host: bool = False
    turn: int = 0


@dataclass(slots=True, frozen=True)
class Route:
    """One method of one public path.

    ``service`` is None while the service is missing or disabled (503). ``pieces`` builds the
    path for the backend behind the target's base path: bytes are literal, an int is the index of a raw
    path segment, and a negative int -1-i stands for all raw segments from i on, each with its slash.
    ``roles`` (any), ``scopes`` (all) and ``consumers`` (one of) narrow who may call a SECURE route;
    empty means no condition.
    """

    name: str
    method: bytes
    public_path: str
    secure: bool
    service_name: str
    service: Service | None
    pieces: tuple[bytes | int, ...]
    settings: TimeoutSettings
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    consumers: frozenset[str] = frozenset()

    @property
    def restricted(self) -> bool:
        return bool(self.roles or self.scopes or self.consumers)


class Leaf:
    """What a path offers: its routes by method, and the ready-made ``Allow`` value.

    ``by_method`` already holds HEAD for a GET route; ``any_route`` is the route with method ANY.
    """

    __slots__ = ("allow", "any_route", "by_method")

    def __init__(self, by_method: dict[bytes, Route], any_route: Route | None, allow: bytes) -> None:
        self.by_method = by_method
        self.any_route = any_route
        self.allow = allow


class Credential:
    """One accepted key of one consumer: the identity it gives.

    ``identity_lines`` are the complete field lines for the backend (X-Consumer-Id and so on).
    ``expires_at`` is in seconds since the epoch, infinity for never: the earlier of the key's and
    the consumer's.
    """

    __slots__ = ("consumer", "credential_id", "expires_at", "identity_lines", "roles")

    def __init__(
        self,
        consumer: str,
        credential_id: str,
        roles: frozenset[str],
        expires_at: float,
        identity_lines: bytes,
    ) -> None:
        self.consumer = consumer
        self.credential_id = credential_id
        self.roles = roles
        self.expires_at = expires_at
        self.identity_lines = identity_lines


@dataclass(slots=True)
class Gateway:
    """One public front door.

    ``credentials`` maps the SHA-256 digest (32 bytes) of a key to what it stands for; it is the one
    mutable part of a snapshot and lives on from one snapshot to the next.
    ``path_memo`` belongs to the plan: paths that matched, with their leaf and raw segments.
    ``fixed_lines`` are the field lines every request to a backend carries (Via, X-Gateway-Id).
    """

    name: str
    hosts: tuple[str, ...]
    authenticator: Authenticator
    credentials: dict[bytes, Credential]
    trie: Trie
    path_policy: PathPolicy
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    fixed_lines: bytes
    path_memo: dict[bytes, tuple[Leaf, list[bytes]]] = field(default_factory=dict)


@dataclass(slots=True)
class Snapshot:
    """Everything a worker serves. ``wildcards`` maps ``.shop.example.com`` for ``*.shop.example.com``.

    ``default`` is the gateway with host ``*``. ``credential_fields`` are the lower-case names of all
    fields in which some gateway of this snapshot expects a credential. ``ready`` is false for
    the empty snapshot before the first configuration. ``field_memo`` belongs to ``http.fields``.
    """

    revision: int = 0
    ready: bool = False
    exact: dict[bytes, Gateway] = field(default_factory=dict)
    wildcards: dict[bytes, Gateway] = field(default_factory=dict)
    default: Gateway | None = None
    gateways: dict[str, Gateway] = field(default_factory=dict)
    credential_fields: frozenset[bytes] = frozenset()
    field_memo: dict[bytes, int] = field(default_factory=dict)


def find_gateway(snapshot: Snapshot, host: bytes) -> Gateway | None:
    """Return the gateway of a normalised host: exact, then the longest wildcard, then ``*``."""
    gateway = snapshot.exact.get(host)
    if gateway is not None:
        return gateway
    wildcards = snapshot.wildcards
    if wildcards:
        dot = host.find(b".")
        while dot != -1:
            gateway = wildcards.get(host[dot:])
            if gateway is not None:
                return gateway
            dot = host.find(b".", dot + 1)
    return snapshot.default
