"""How many cores this process may use: by its affinity, and by the quota of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def usable_cpus(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of cores, at least 1. A quota of 1.5 cores counts as 2: half a core is there to be used."""
    count = len(os.sched_getaffinity(0))
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(root, membership))]))


def _quotas(root: Path, membership: Path) -> list[float]:
    """Return every limit, in cores, between this process's control groups and the root."""
    quotas = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        # In a container the path may be the host's, and only the mounted root is ours to see.
        inner = Path(path.lstrip("/"))
        for directory in {base, *(base / part for part in (inner, *inner.parents))}:
            quota = _quota_v1(directory) if controllers else _quota_v2(directory)
            if quota is not None:
                quotas.append(quota)
    return quotas


def _quota_v2(directory: Path) -> float | None:
    return _share(*(_read(directory / "cpu.max").split() or ["max"]))


def _quota_v1(directory: Path) -> float | None:
    return _share(
        _read(directory / "cpu.cfs_quota_us").strip(), _read(directory / "cpu.cfs_period_us").strip()
    )


def _share(quota: str, period: str = "", *_: str) -> float | None:
    """Return quota/period; None for ``max``, for -1 and for anything that is no pair of numbers."""
    if not (
        quota.isascii() and quota.isdecimal() and period.isascii() and period.isdecimal() and int(period)
    ):
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
