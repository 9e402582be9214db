"""Open files: every connection is one, and the system's usual soft limit is far below what a gateway needs."""

from __future__ import annotations

import logging
import resource
from dataclasses import replace

from authgate_fast.limits import Limits

_log = logging.getLogger("authgate")

RESERVE = 256
"""For listeners, logs, Redis, identity providers and the interpreter itself."""


def needed(limits: Limits) -> int:
    """Return how many files a worker opens at most: its clients, one full pool of a backend, and the reserve."""
    return limits.max_connections + min(limits.max_connections, limits.max_upstream_connections) + RESERVE


def fit_open_files(limits: Limits) -> Limits:
    """Raise this process' limit to what it may be; return `limits` with as many connections as it can then have.

    Beyond the system's limit nobody could be answered properly: neither a client nor a backend gets a socket. So it is
    better to take fewer clients, and to say so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            _log.warning("the limit of open files stays at %d: %s", soft, error)
    if soft == resource.RLIM_INFINITY or soft >= needed(limits):
        return limits
    lowered = _connections_for(soft, limits.max_upstream_connections)
    _log.warning(
        "this process may open only %d files: max_connections is lowered from %d to %d. Raise the limit to %d "
        "(ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of a container), or set max_connections",
        soft,
        limits.max_connections,
        lowered,
        needed(limits),
    )
    return replace(limits, max_connections=lowered)


def _connections_for(files: int, max_upstream: int) -> int:
    room = files - min(RESERVE, files // 2)
    return max(room - max_upstream if room >= 2 * max_upstream else room // 2, 1)
