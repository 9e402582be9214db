"""The cases: what is asked of every contestant, how it is driven, and what must be reached. Pure: no IO.

A case names one scene. All contestants of a case get the same requests, with the same credentials, in front of the same
backend, and are started for it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

PEER_NAMES = ("nginx", "haproxy", "envoy")
MIB = 1 << 20

WRK, PACED, DOWNLOAD, UPLOAD, ECHO, IDLE, SYNC = "wrk", "paced", "download", "upload", "echo", "idle", "sync"
"""How a case is driven; `bench.drivers` has one function for each but the last, which is `bench.sync`."""

PUBLIC, KEY, BASIC, JWT, BFF = "PUBLIC", "API_KEY", "BASIC", "JWT", "BFF"
"""What is checked, named like the gateway's types of authentication."""

CPU, RATE, P99 = "CPU", "rate", "p99"
"""What a target is about: ratios to a peer."""

KIB, LOAD_S, WORKER_MB, CHANGE_MS = "KiB each", "load s", "MB a worker", "change live, p99 ms"
"""And figures of the gateway's own."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure: a ratio to `peer`, or without a peer the gateway's own figure."""

    measure: str
    bound: float
    peer: str = ""

    @property
    def is_ceiling(self) -> bool:
        """Tell whether the figure must stay below the bound; ratios of CPU and rates must be above theirs."""
        return self.measure not in (CPU, RATE)

    def is_met(self, figure: float) -> bool:
        """Judge a figure as a reader sees it, with two places."""
        shown = round(figure, 2)
        return shown <= self.bound if self.is_ceiling else shown >= self.bound


@dataclass(frozen=True, slots=True)
class Case:
    """One scene of the bench. `body_bytes` is what a request or an answer carries beside its head."""

    name: str
    about: str
    driver: str = WRK
    auth: str = KEY
    connections: int = 64
    method: str = "GET"
    fields: tuple[str, ...] = ()
    body_bytes: int = 0
    tls_in: bool = False
    tls_out: bool = False
    resources: int = 250
    consumers: int = 10_000
    """Those of a case of `SYNC`; all others have the ones of `workload`."""
    workers: int = 1
    shares_cores: bool = False
    with_peers: bool = True
    targets: tuple[Target, ...] = ()

    @property
    def unit(self) -> str:
        """Return what is counted: its cost in CPU time is what the case is about."""
        units = {DOWNLOAD: "MiB", UPLOAD: "MiB", ECHO: "message", IDLE: "connection"}
        return units.get(self.driver, "request")

    @property
    def units(self) -> str:
        """Return the plural of the unit."""
        return self.unit if self.unit == "MiB" else f"{self.unit}s"


def _floors(nginx: float, haproxy: float, envoy: float, *measures: str) -> tuple[Target, ...]:
    bounds = zip(PEER_NAMES, (nginx, haproxy, envoy), strict=True)
    return tuple(Target(measure, bound, peer) for peer, bound in bounds for measure in measures)


_KEY = _floors(1.1, 1.1, 3.0, CPU, RATE)
_CACHED = _floors(1.0, 1.0, 3.0, CPU, RATE)
_BULK = _floors(0.8, 0.6, 1.0, CPU)
_TLS = _floors(0.8, 0.7, 2.0, CPU, RATE)

_BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://bench.localhost/catalogue?category=lighting&sort=price",
    "Cookie: theme=dark; consent=necessary%2Canalytics; _visitor=2f61c9d07a8b4e5fa3c1; cart=b7c1e2d394",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-User: ?1",
    "Priority: u=0, i",
)
"""With Host and the key 14 fields, as a browser sends them."""

_TABLE = (
    Case("key", "an API key", targets=_KEY),
    Case("public", "no check", auth=PUBLIC, targets=_KEY),
    Case("browser", "an API key among 14 fields, as a browser sends them", fields=_BROWSER, targets=_CACHED),
    Case("jwt", "a JWT that memory knows", auth=JWT, targets=_CACHED),
    Case("basic", "a Basic password that memory knows", auth=BASIC, targets=_CACHED),
    Case("bff", "a live browser session", auth=BFF),
    Case(
        "post",
        "POST of 10 KiB",
        method="POST",
        body_bytes=10_240,
        targets=_floors(1.0, 0.9, 2.5, CPU, RATE),
    ),
    Case("download-1m", "answers of 1 MiB", driver=DOWNLOAD, connections=8, body_bytes=MIB),
    Case(
        "download", "answers of 100 MiB", driver=DOWNLOAD, connections=4, body_bytes=100 * MIB, targets=_BULK
    ),
    Case(
        "upload",
        "requests of 100 MiB",
        driver=UPLOAD,
        method="POST",
        connections=4,
        body_bytes=100 * MIB,
        targets=_BULK,
    ),
    Case("tls", "TLS from the client, kept alive", tls_in=True, targets=_TLS),
    Case("tls-both", "TLS from the client and to the backend, kept alive", tls_in=True, tls_out=True),
    Case(
        "half-rate",
        "each at half of its own top rate, paced",
        driver=PACED,
        targets=tuple(
            Target(P99, bound, peer) for peer, bound in zip(PEER_NAMES, (1.5, 1.5, 1.0), strict=True)
        ),
    ),
    Case("idle", "5,000 idle connections", driver=IDLE, connections=5_000, targets=(Target(KIB, 8.0),)),
    Case("echo", "WebSocket messages of 64 bytes, echoed", driver=ECHO),
    Case("connections-1", "one connection", connections=1),
    Case("connections-1000", "1,000 connections", connections=1_000),
    Case("workers-1", "one worker, load and backend on the same two cores", shares_cores=True),
    Case("workers-2", "two workers, load and backend on the same two cores", workers=2, shares_cores=True),
    Case("routes-10", "about 10 routes", resources=3, with_peers=False),
    Case("routes-10000", "10,000 routes", resources=2_500, with_peers=False),
    Case("consumers-100", "100 consumers in Redis", driver=SYNC, consumers=100, with_peers=False),
    Case(
        "consumers-1m",
        "1,000,000 consumers in Redis",
        driver=SYNC,
        consumers=1_000_000,
        with_peers=False,
        targets=(Target(WORKER_MB, 400.0), Target(LOAD_S, 20.0), Target(CHANGE_MS, 50.0)),
    ),
)

CASES = {case.name: case for case in _TABLE}
"""All cases, in the order of a complete run."""
