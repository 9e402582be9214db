"""Every ceiling and timeout, with its default, its unit and why it has that value.

Names end in their unit: ``_bytes``, ``_s`` (seconds), or a plain count. A node sets one with
``--limit NAME=VALUE``; the limits in ``NARROWABLE`` may be narrowed by a service or route document
of the same field name, never widened. ``None`` means no limit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one node. All of them are positive numbers, ``max_body_bytes`` may be None."""

    max_head_bytes: int = 32_768
    """First line and fields together; what nginx (4 x 8 KiB) takes. 431 (502 for a response) beyond."""
    max_fields: int = 100
    """Fields of one request or response head; Apache's value. 431 (502 for a response) beyond."""
    max_target_bytes: int = 8_192
    """The request target (RFC 9112 section 3 asks for at least 8000). 414 beyond."""
    max_body_bytes: int | None = None
    """A request body, decoded; bodies stream, so memory does not need a limit. 413 beyond."""
    head_timeout_s: float = 10.0
    """From a head's first byte (or the connect) to its end; stops slow heads. 408."""
    tls_handshake_timeout_s: float = 10.0
    """From a client's first byte over TLS to the end of its handshake, which takes two round trips at most."""
    idle_timeout_s: float = 75.0
    """A kept-alive client connection between two requests; nginx's value."""
    body_timeout_s: float = 30.0
    """A request body without a byte of progress. 408."""
    min_body_rate_bytes_s: float = 240.0
    """What a body must bring per second, averaged since its start, while the backend takes it; Kestrel's value. 408."""
    rate_grace_s: float = 10.0
    """For how long a body may be slower than that at first; twice Kestrel's."""
    send_timeout_s: float = 60.0
    """A client that reads nothing of a response that waits for it; nginx's value."""
    min_send_rate_bytes_s: float = 240.0
    """What a client must take per second of what waits for it, averaged over ``send_timeout_s``; Kestrel's value."""
    connect_timeout_s: float = 5.0
    """Name look-up, connect and TLS handshake with a backend together. 504."""
    connect_retry_s: float = 2.0
    """How long after its first refused connect a backend may still be restarting: requests wait for it. Then 502."""
    dns_refresh_s: float = 30.0
    """How often the name of a target is resolved anew; few names change more often, and resolvers keep answers."""
    first_byte_timeout_s: float = 60.0
    """From a request's last byte to the backend's first, and from there to the end of its head. 504."""
    between_bytes_timeout_s: float = 60.0
    """A backend that stops in the middle of a response, or stops reading a request."""
    tunnel_idle_timeout_s: float = 600.0
    """A tunnel (WebSocket) silent in both directions; ten minutes, since many clients never ping."""
    tunnel_half_closed_timeout_s: float = 30.0
    """A tunnel silent after one side has ended its stream: few have more to say then."""
    tunnel_goodbye_timeout_s: float = 5.0
    """From a tunnel's goodbye (a Close frame) to its cut; clients answer within a round trip."""
    pool_idle_timeout_s: float = 50.0
    """An unused backend connection; below the 60 s after which most balancers drop one in silence."""
    max_idle_upstream: int = 256
    """Unused connections kept per backend target and worker."""
    max_upstream_connections: int = 1_024
    """Connections per backend target and worker; 503 ``overloaded`` beyond."""
    max_connections: int = 16_384
    """Client connections per worker; for a further one the oldest idle one is closed, else it is closed itself."""
    max_connections_per_address: int = 8_192
    """As above for one client address (IPv6: one /64). High, for a balancer is one address; else lower it."""
    max_requests_per_connection: int = 100_000
    """Requests on one client connection, the last answered with `Connection: close`; spreads clients anew."""
    max_tunnels: int = 8_192
    """Tunnels per worker, half of ``max_connections``, so that requests have room too; 503 ``overloaded`` beyond."""
    max_buffered_bytes: int = 268_435_456
    """Held per worker for all clients together; over it, who holds the most for the longest is cut (or gets 503)."""
    max_replay_bytes: int = 65_536
    """How much of a sent request is kept for one retry on a fresh connection."""
    max_interim_responses: int = 16
    """1xx responses before a final one; more is a backend that will not answer. 502."""
    max_lookups: int = 1_024
    """Requests that wait for a credential to be looked up, per worker, half of it per gateway; 503 beyond."""
    max_failures_per_address: int = 30
    """Failed credential checks of one client address (IPv6: one /64) within the window; 429 beyond."""
    max_failures_per_account: int = 60
    """Failed password checks of one username within the window, from all addresses together; 429 beyond."""
    failure_window_s: float = 60.0
    """The window of the two limits above; each worker counts for itself."""
    lookup_timeout_s: float = 30.0
    """A credential look-up; 512 first passwords at once take 13 s of an idle core. 503 ``auth_unavailable``."""
    linger_timeout_s: float = 2.0
    """How long a refused upload is read and thrown away so that its sender sees the answer."""
    worker_hang_timeout_s: float = 10.0
    """A worker whose loop gives no sign of life for so long is killed and replaced."""
    worker_start_timeout_s: float = 300.0
    """From a worker's start to its readiness; a file of 300,000 consumers takes minutes."""


DEFAULTS = Limits()

NARROWABLE = frozenset(
    {
        "max_body_bytes",
        "body_timeout_s",
        "connect_timeout_s",
        "first_byte_timeout_s",
        "between_bytes_timeout_s",
        "tunnel_idle_timeout_s",
    }
)


def with_settings(base: Limits, settings: list[str]) -> Limits:
    """Apply ``NAME=VALUE`` settings to `base`; raise ValueError with a sentence for a user."""
    names = {f.name for f in fields(Limits)}
    changes: dict[str, int | float | None] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--limit {setting}: write it as NAME=VALUE, for instance max_fields=200")
        if name not in names:
            raise ValueError(f"--limit {name}: no such limit; there are {', '.join(sorted(names))}")
        changes[name] = _number(name, text)
    return replace(base, **changes)  # type: ignore[arg-type]  # the names were checked above


def _number(name: str, text: str) -> int | float | None:
    if name == "max_body_bytes" and text == "none":
        return None
    try:
        value = float(text) if name.endswith("_s") else int(text)
    except ValueError:
        kind = "a whole number"
        if name.endswith("_s"):
            kind = "a number of bytes per second" if name.endswith("_bytes_s") else "a number of seconds"
        raise ValueError(f"--limit {name}={text}: the value must be {kind}") from None
    if not 0 < value < 1e15:
        raise ValueError(f"--limit {name}={text}: the value must be above zero and below 10^15")
    return value
