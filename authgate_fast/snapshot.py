"""The compiled form of all documents that a worker serves from.

Built whole by ``config.compile`` and swapped in one assignment; never edited after that, with one
exception: `Consumers`, so that a consumer change is one dict update and never a recompilation. All text is
bytes as it goes to the wire. Pure data: no IO, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import TYPE_CHECKING, Final

from authgate_fast.tally import LogPart, Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from authgate_fast.auth.interface import Authenticator
    from authgate_fast.auth.session import Session
    from authgate_fast.balance.group import Group
    from authgate_fast.routing.path_policy import PathPolicy
    from authgate_fast.routing.trie import Trie


NO_SCOPES: frozenset[str] = frozenset()


@dataclass(slots=True, frozen=True)
class TimeoutSettings:
    """Timeouts and limits in force for one route: the node's, narrowed by service and route."""

    max_body_bytes: int | None
    body_timeout_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    between_bytes_timeout_s: float
    tunnel_idle_timeout_s: float = 600.0


@dataclass(slots=True, frozen=True)
class UpstreamTls:
    """How an https target is spoken to. Paths are "" for the system's authorities and for no certificate of our own.

    ``server_name`` is "" for the target's host. Two services with different settings never share a connection.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True


DEFAULT_TLS: Final = UpstreamTls()
MAX_KNOWN_KEYS: Final = 65_536
_KNOWN_KEYS_STEP: Final = 256


def place_of(host: str, port: int) -> str:
    """Return how a target's host and port are written for people; a host that is a path is a Unix socket."""
    if host.startswith("/"):
        return f"unix:{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True, frozen=True)
class Target:
    """One address of a service.

    A ``host`` that begins with ``/`` is a Unix socket. ``base_path`` has no trailing slash ("" for the root).
    ``host_line`` is the complete Host field line for this target, CRLF included. Two equal ``endpoint`` values share
    one connection pool. ``weight`` is its share of the service's requests, 0 for none. ``url`` names it to people, and
    through changes of configuration.
    """

    scheme: str
    host: str
    port: int
    base_path: bytes
    host_line: bytes
    weight: int = 1
    allow_link_local: bool = False
    tls: UpstreamTls | None = None
    log_part: LogPart = field(init=False, default_factory=LogPart, compare=False, repr=False)
    endpoint: tuple[str, str, int, bool, UpstreamTls | None] = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        endpoint = (self.scheme, self.host, self.port, self.allow_link_local, self.tls)
        object.__setattr__(self, "endpoint", endpoint)
        base_path = self.base_path.decode("ascii")
        if self.host.startswith("/"):
            base_path = f":{base_path}" if base_path else ""
        url = f"{self.scheme}://{place_of(self.host, self.port)}{base_path}"
        object.__setattr__(self, "url", url)


@dataclass(slots=True, frozen=True)
class Balancing:
    """How a service's requests are spread over its targets, and how many it takes at once.

    ``method`` is ``least_connections``, ``round_robin`` or ``hash``. What is hashed is the field or the cookie of a
    name (``hash_field`` in lower case), or without either the client's address. ``max_connections`` None: no limit.
    """

    method: str = "least_connections"
    hash_field: bytes = b""
    hash_cookie: bytes = b""
    max_failures: int = 5
    eject_s: float = 10.0
    failure_statuses: frozenset[int] = frozenset()
    slow_start_s: float = 10.0
    max_connections: int | None = None
    max_queue: int = 100
    queue_timeout_s: float = 5.0


@dataclass(slots=True, frozen=True)
class HealthCheck:
    """What asks each target of a service regularly how it does. ``statuses`` None: 200 to 399 are good.

    ``host_line`` is the complete Host field line, or b"" for the target's own; ``path`` is sent as it stands.
    """

    path: bytes
    interval_s: float
    timeout_s: float
    healthy: int
    unhealthy: int
    statuses: frozenset[int] | None
    host_line: bytes


class Service:
    """A backend API.

    ``is_balanced``: its requests ask its ``group`` for a target or a place; else there is the one target. The group
    holds what is known of the targets and outlives snapshots; the room ``proxy`` puts it here.
    """

    __slots__ = ("balancing", "group", "health_check", "is_balanced", "name", "preserve_host", "targets")

    def __init__(
        self,
        name: str,
        targets: tuple[Target, ...],
        preserve_host: bool = False,
        balancing: Balancing | None = None,
        health_check: HealthCheck | None = None,
    ) -> None:
        self.name = name
        self.targets = targets
        self.preserve_host = preserve_host
        self.balancing = Balancing() if balancing is None else balancing
        self.health_check = health_check
        self.is_balanced = (
            len(targets) > 1 or health_check is not None or self.balancing.max_connections is not None
        )
        self.group: Group | None = None


@dataclass(slots=True, frozen=True)
class Route:
    """One method of one public path.

    ``service`` is None while the service is missing or disabled (503). ``pieces`` builds the
    path for the backend behind the target's base path: bytes are literal, an int is the index of a raw
    path segment, and a negative int -1-i stands for all raw segments from i on, each with its slash.
    ``roles`` (any), ``scopes`` (all) and ``consumers`` (one of) narrow who may call a SECURE route;
    empty means no condition. ``forward_token``: the backend gets the caller's bearer token, if there is one.
    ``upgrades`` are the protocols that a request may switch to, in lower case. ``meter`` leads to its counts.
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
    forward_token: bool = False
    upgrades: frozenset[bytes] = frozenset()
    meter: Meter = field(default_factory=Meter, compare=False, repr=False)

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


class KnownPath:
    """A path that matched: its leaf and raw segments, and for the route last chosen the path at the backend."""

    __slots__ = ("leaf", "raw", "route", "target_path")

    def __init__(self, leaf: Leaf, raw: list[bytes]) -> None:
        self.leaf = leaf
        self.raw = raw
        self.route: Route | None = None
        self.target_path = b""


class Identity:
    """Who is calling, as one accepted credential shows.

    ``consumer`` is empty for a user of an identity provider. ``identity_lines`` are the complete field lines
    for the backend (X-Consumer-Id and so on), ``token_line`` the Authorization line that goes on where the
    route's service takes tokens, or b"". ``expires_at`` is in seconds since the epoch, infinity for never.
    ``session`` is the browser session that this identity lives and ends with, if there is one. ``name`` is where
    `Consumers` holds what it came from, a key's digest or a username; ``secret`` is the PHC string of its password.
    ``log_part`` is what every line of the access log has of it, made for the first one.
    """

    __slots__ = (
        "consumer",
        "credential_id",
        "expires_at",
        "identity_lines",
        "log_part",
        "name",
        "roles",
        "scopes",
        "secret",
        "session",
        "token_line",
    )

    def __init__(
        self,
        consumer: str,
        credential_id: str,
        roles: frozenset[str],
        expires_at: float,
        identity_lines: bytes,
        *,
        scopes: frozenset[str] = NO_SCOPES,
        token_line: bytes = b"",
        session: Session | None = None,
        name: bytes = b"",
        secret: str = "",
    ) -> None:
        self.consumer = consumer
        self.credential_id = credential_id
        self.roles = roles
        self.scopes = scopes
        self.expires_at = expires_at
        self.identity_lines = identity_lines
        self.token_line = token_line
        self.session = session
        self.name = name
        self.secret = secret
        self.log_part = b""


class User:
    """A consumer that logs in with a name and a password (BASIC and JWT gateways).

    ``passwords`` are (Argon2id PHC string, the identity that this password gives); ``lines`` the field lines
    of the consumer without X-Credential-Id. A change of the consumer makes a new object, so that what is remembered
    of an old one can be told by ``is``.
    """

    __slots__ = ("consumer", "expires_at", "lines", "passwords", "roles", "username")

    def __init__(
        self,
        consumer: str,
        username: bytes,
        passwords: tuple[tuple[str, Identity], ...],
        roles: frozenset[str],
        expires_at: float,
        lines: bytes,
    ) -> None:
        self.consumer = consumer
        self.username = username
        self.passwords = passwords
        self.roles = roles
        self.expires_at = expires_at
        self.lines = lines


class Keys:
    """What each API key stands for, by the SHA-256 digest (32 bytes) of the key.

    ``holders`` say whose key it is, for all of them. What a request needs is made by `make` (consumer, digest) when
    the key is first used, and ``known`` from then on: a million consumers are held, and some thousands are heard of.
    Whoever changes a holder, or what `make` would return, calls `forget`.
    """

    __slots__ = ("_make", "holders", "known")

    def __init__(self, holders: dict[bytes, str], make: Callable[[str, bytes], Identity | None]) -> None:
        self.holders = holders
        self.known: dict[bytes, Identity] = {}
        self._make = make

    def get(self, digest: bytes) -> Identity | None:
        """Return who holds the key, None for nobody."""
        identity = self.known.get(digest)
        if identity is not None:
            return identity
        consumer = self.holders.get(digest)
        if consumer is None:
            return None
        identity = self._make(consumer, digest)
        if identity is None:
            return None
        if len(self.known) >= MAX_KNOWN_KEYS:
            # Some at a time: to free them all would hold the loop for as long as a few hundred requests take.
            for old in list(islice(self.known, _KNOWN_KEYS_STEP)):
                del self.known[old]
        self.known[digest] = identity
        return identity

    def forget(self, digest: bytes) -> None:
        """Have what the key stands for made anew."""
        self.known.pop(digest, None)


class Consumers:
    """Who may call a gateway with a credential of its own: the one mutable part of a snapshot.

    ``keys`` tell what an API key stands for, ``users`` maps a username in UTF-8 to who logs in with it. Both live on
    from one snapshot to the next.
    """

    __slots__ = ("keys", "users")

    def __init__(self, keys: Keys | None = None, users: dict[bytes, User] | None = None) -> None:
        self.keys = Keys({}, _nobody) if keys is None else keys
        self.users: dict[bytes, User] = {} if users is None else users


def _nobody(consumer: str, digest: bytes) -> Identity | None:
    return None


class Gateway:
    """One public front door.

    ``authenticator`` remembers what it has checked, so it lives on from one snapshot to the next while the
    gateway's ``auth`` stays the same. ``frontend`` (BFF) serves what no route matches. ``services`` are all that routes
    can name. ``trusts_unix``: who comes in by a Unix socket is a trusted proxy, as those in ``trusted_proxies`` are.
    ``path_memo`` belongs to the plan: paths that matched.
    ``fixed_lines`` are the field lines every request to a backend carries (Via, X-Gateway-Id).
    """

    __slots__ = (
        "authenticator",
        "consumers",
        "fixed_lines",
        "frontend",
        "hosts",
        "name",
        "path_memo",
        "path_policy",
        "services",
        "trie",
        "trusted_proxies",
        "trusts_unix",
    )

    def __init__(
        self,
        name: str,
        hosts: tuple[str, ...],
        authenticator: Authenticator,
        consumers: Consumers,
        trie: Trie,
        path_policy: PathPolicy,
        trusted_proxies: tuple[IPv4Network | IPv6Network, ...],
        fixed_lines: bytes,
        frontend: Route | None = None,
        services: tuple[Service, ...] = (),
        *,
        trusts_unix: bool = False,
    ) -> None:
        self.name = name
        self.hosts = hosts
        self.authenticator = authenticator
        self.consumers = consumers
        self.trie = trie
        self.path_policy = path_policy
        self.trusted_proxies = trusted_proxies
        self.trusts_unix = trusts_unix
        self.fixed_lines = fixed_lines
        self.frontend = frontend
        self.services = services
        self.path_memo: dict[bytes, KnownPath] = {}

    def with_hosts(self, hosts: tuple[str, ...]) -> Gateway:
        """Return the same gateway on other hosts."""
        return Gateway(
            self.name,
            hosts,
            self.authenticator,
            self.consumers,
            self.trie,
            self.path_policy,
            self.trusted_proxies,
            self.fixed_lines,
            self.frontend,
            self.services,
            trusts_unix=self.trusts_unix,
        )


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
