"""From samples to what a reader sees. Pure: no IO.

A ratio is taken within a round, where both sides met the same machine, and then the median over the rounds.
Above 1.0 the gateway is the better one, for both kinds of ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from bench.load import Sample

FOREIGN_LIMIT = 0.05
"""Above this share of the proxy's cores used by others, the numbers of a round are in doubt."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, and their range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} .. {self.high:.2f})"


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Divide round by round."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def cpu_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """CPU per request, theirs over ours: 1.0 and above means that the gateway costs no more."""
    return ratio_of([s.cpu_us_per_request for s in other], [s.cpu_us_per_request for s in ours])


def rate_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """Requests per second, ours over theirs."""
    return ratio_of([s.requests_per_s for s in ours], [s.requests_per_s for s in other])


_COLUMNS: tuple[tuple[str, Callable[[Sequence[Sample]], str]], ...] = (
    ("requests/s", lambda s: f"{median(x.requests_per_s for x in s):,.0f}"),
    ("p50 ms", lambda s: f"{median(x.p50_ms for x in s):.2f}"),
    ("p99 ms", lambda s: f"{median(x.p99_ms for x in s):.2f}"),
    ("CPU us/request", lambda s: f"{median(x.cpu_us_per_request for x in s):.1f}"),
    ("core used", lambda s: f"{median(x.busy for x in s):.0%}"),
    ("memory MB", lambda s: f"{median(x.memory_mb for x in s):.1f}"),
    ("status >= 400", lambda s: str(sum(x.refused for x in s))),
    ("socket errors", lambda s: str(sum(x.socket_errors for x in s))),
)


def render(samples: dict[str, list[Sample]]) -> str:
    """Return the tables: medians of every contestant, then ratios. The gateway is the first of `samples`."""
    rows = [["", *(title for title, _ in _COLUMNS)]]
    rows += [[name, *(show(rounds) for _, show in _COLUMNS)] for name, rounds in samples.items()]
    ours, *others = samples
    parts = [_table(rows)]
    if others:
        rows = [[f"{ours} against", "CPU/request, theirs over ours", "requests/s, ours over theirs"]]
        for name in others:
            pair = samples[ours], samples[name]
            rows.append([name, str(cpu_ratio(*pair)), str(rate_ratio(*pair))])
        parts += [
            "Ratios: median of the rounds (lowest .. highest); above 1.00 the gateway is ahead.",
            _table(rows),
        ]
    return "\n\n".join(parts) + "\n"


def faults(samples: dict[str, list[Sample]]) -> list[str]:
    """Say what makes the numbers worthless: answers or requests that were not the work asked for."""
    found = []
    for name, rounds in samples.items():
        for count, what in (
            (sum(s.refused for s in rounds), "answers with a status of 400 or more"),
            (sum(s.socket_errors for s in rounds), "socket errors"),
            (sum(s.not_forwarded for s in rounds), "good answers that the backend never gave"),
        ):
            if count:
                found.append(f"{name}: {count} {what}")
    return found


def doubts(samples: dict[str, list[Sample]]) -> list[str]:
    """Say which numbers the machine may have spoilt."""
    found = []
    for name, rounds in samples.items():
        worst = max(s.foreign for s in rounds)
        if worst > FOREIGN_LIMIT:
            found.append(f"{name}: others used up to {worst:.0%} of its core during a round")
    return found


def as_json(samples: dict[str, list[Sample]]) -> dict[str, object]:
    """Return every sample and ratio, for a file."""
    ours, *others = samples
    return {
        "samples": {name: [asdict(s) for s in rounds] for name, rounds in samples.items()},
        "ratios": {
            name: {
                "cpu_per_request": asdict(cpu_ratio(samples[ours], samples[name])),
                "requests_per_s": asdict(rate_ratio(samples[ours], samples[name])),
            }
            for name in others
        },
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
