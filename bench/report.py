"""From samples to what a reader sees. Pure: no IO.

A ratio is taken within a round, where both sides met the same machine, and then the median over the rounds.
Of CPU and rates, above 1.0 the gateway is the better one; of latencies, below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from bench.cases import CPU, IDLE, KIB, P99, PACED, RATE, WRK, Case, Target
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


@dataclass(slots=True)
class Outcome:
    """What came of a case. The gateway is the first of `samples`; `builds` says how gateways were built.

    `figures` has what is measured of gateways alone, in a case without samples. `failure` says why there is nothing.
    """

    case: Case
    samples: dict[str, list[Sample]]
    notes: list[str]
    builds: dict[str, str]
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    failure: str = ""


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Divide round by round; where there is nothing to divide by, the ratio is 0."""
    ratios = [a / b if b else 0.0 for a, b in zip(above, below, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def cpu_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """CPU for each unit, theirs over ours: 1.0 and above means that the gateway costs no more."""
    return ratio_of([s.cpu_us_each for s in other], [s.cpu_us_each for s in ours])


def rate_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """Units per second, ours over theirs."""
    return ratio_of([s.per_s for s in ours], [s.per_s for s in other])


def p99_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """The 99th percentile of the latencies, ours over theirs: below 1.0 the gateway is quicker."""
    return ratio_of([s.p99_ms for s in ours], [s.p99_ms for s in other])


def kib_ratio(ours: Sequence[Sample], other: Sequence[Sample]) -> Ratio:
    """Memory for each connection, theirs over ours."""
    return ratio_of([s.kib_each for s in other], [s.kib_each for s in ours])


Ratios = Callable[[Sequence[Sample], Sequence[Sample]], Ratio]

RATIOS: dict[str, Ratios] = {CPU: cpu_ratio, RATE: rate_ratio, P99: p99_ratio, KIB: kib_ratio}
_TITLES = {
    CPU: "CPU/{}, theirs over ours",
    RATE: "{}/s, ours over theirs",
    P99: "p99, ours over theirs",
    KIB: "memory/{}, theirs over ours",
}

Column = tuple[str, Callable[[Sequence[Sample]], str]]
_PEER_CONTESTANTS = {"nginx": "nginx+lua", "haproxy": "haproxy", "envoy": "envoy"}


def measures_of(case: Case) -> tuple[str, ...]:
    """Return what contestants are compared by."""
    if case.driver == IDLE:
        return (KIB,)
    return (CPU, P99) if case.driver == PACED else (CPU, RATE)


def _title(measure: str, case: Case) -> str:
    return _TITLES[measure].format(case.units if measure == RATE else case.unit)


def columns_of(case: Case) -> list[Column]:
    """Return the columns of a case's table."""
    unit = case.unit
    columns: list[Column] = [
        (f"CPU us/{unit}", lambda s: f"{median(x.cpu_us_each for x in s):.1f}"),
        (
            f"{case.units}/CPU s",
            lambda s: f"{median(1e6 / x.cpu_us_each if x.cpu_us_each else 0 for x in s):,.0f}",
        ),
    ]
    if case.driver == IDLE:
        columns.append(("KiB/connection", lambda s: f"{median(x.kib_each for x in s):.1f}"))
    else:
        columns.append((f"{case.units}/s", lambda s: f"{median(x.per_s for x in s):,.0f}"))
    if case.driver in (WRK, PACED):
        columns.append(("p50 ms", lambda s: f"{median(x.p50_ms for x in s):.2f}"))
        columns.append(("p99 ms", lambda s: f"{median(x.p99_ms for x in s):.2f}"))
    if case.driver != IDLE:
        columns.append(("core used", lambda s: f"{median(x.busy for x in s):.0%}"))
    return [
        *columns,
        ("memory MB", lambda s: f"{median(x.memory_mb for x in s):.1f}"),
        ("status >= 400", lambda s: str(sum(x.refused for x in s))),
        ("socket errors", lambda s: str(sum(x.socket_errors for x in s))),
    ]


def tables(outcome: Outcome) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the two tables: medians of every contestant, and ratios. Each begins with its titles."""
    case, samples = outcome.case, outcome.samples
    if outcome.figures:
        titles = next(iter(outcome.figures.values()))
        lines = [[name, *(f"{one:,.1f}" for one in own.values())] for name, own in outcome.figures.items()]
        return [["", *titles], *lines], []
    columns = columns_of(case)
    rows = [["", *(title for title, _ in columns)]]
    rows += [[name, *(show(rounds) for _, show in columns)] for name, rounds in samples.items()]
    ours, *others = samples or [""]
    measures = measures_of(case)
    ratios = [[f"{ours} against", *(_title(measure, case) for measure in measures)]]
    for name in others:
        ratios.append([name, *(str(RATIOS[measure](samples[ours], samples[name])) for measure in measures)])
    return rows, ratios


def render(outcome: Outcome) -> str:
    """Return the tables of a case as text."""
    rows, ratios = tables(outcome)
    parts = [f"\n{outcome.case.name}: {outcome.case.about}", _table(rows)]
    if len(ratios) > 1:
        parts += [_table(ratios)]
    return "\n\n".join([*parts, *outcome.notes]) + "\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was seen. Without a `figure` it was not measured."""

    target: Target
    figure: str
    is_met: bool | None


def verdicts(outcome: Outcome) -> list[Verdict]:
    """Judge the targets of a case by the medians."""
    found = []
    own = next(iter(outcome.samples.values()), [])
    figures = next(iter(outcome.figures.values()), {})
    for target in outcome.case.targets:
        if outcome.failure:
            found.append(Verdict(target, "", None))
            continue
        if not target.peer:
            figure = figures[target.measure] if figures else median(s.kib_each for s in own)
            found.append(Verdict(target, f"{figure:.2f}", target.is_met(figure)))
            continue
        theirs = outcome.samples.get(_PEER_CONTESTANTS[target.peer])
        if theirs is None:
            found.append(Verdict(target, "", None))
            continue
        ratio = RATIOS[target.measure](own, theirs)
        found.append(Verdict(target, str(ratio), target.is_met(ratio.median)))
    return found


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a second worker brought. `rate` is of requests/s, with the load on the same cores.

    `cores` is how many times one worker's work two whole cores would do, from the CPU per request of both cases: twice
    the work less what the workers cost each other. What the load takes of the cores is not in it.
    """

    name: str
    rate: float
    cores: float


def scaling(one: Outcome, two: Outcome) -> list[Scaling]:
    """Compare two cases that differ in nothing but their workers."""
    found = []
    for name in one.samples.keys() & two.samples.keys():
        rates = [median(s.per_s for s in case.samples[name]) for case in (one, two)]
        costs = [median(s.cpu_us_each for s in case.samples[name]) for case in (one, two)]
        factor = two.case.workers / one.case.workers
        found.append(Scaling(name, rates[1] / rates[0], factor * costs[0] / costs[1]))
    return sorted(found, key=lambda scaling: list(one.samples).index(scaling.name))


def faults(outcome: Outcome) -> list[str]:
    """Say what makes the numbers worthless: answers or requests that were not the work asked for."""
    found = [f"{outcome.case.name}: {outcome.failure}"] if outcome.failure else []
    for name, rounds in outcome.samples.items():
        for count, what in (
            (sum(s.refused for s in rounds), "answers with a status of 400 or more"),
            (sum(s.socket_errors for s in rounds), "socket errors"),
            (sum(s.not_forwarded for s in rounds), "good answers that the backend never gave"),
        ):
            if count:
                found.append(f"{outcome.case.name}: {name}: {count} {what}")
    return found


def doubts(outcome: Outcome) -> list[str]:
    """Say which numbers the machine may have spoilt."""
    found = []
    for name, rounds in outcome.samples.items():
        worst = max(s.foreign for s in rounds)
        if worst > FOREIGN_LIMIT:
            found.append(
                f"{outcome.case.name}: {name}: others used up to {worst:.0%} of its core during a round"
            )
    return found


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return every sample and ratio, for a file."""
    samples = outcome.samples
    ours, *others = samples or [""]
    return {
        "case": outcome.case.name,
        "builds": outcome.builds,
        "notes": outcome.notes,
        "figures": outcome.figures,
        "failure": outcome.failure,
        "samples": {name: [asdict(s) for s in rounds] for name, rounds in samples.items()},
        "ratios": {
            name: {
                measure: asdict(RATIOS[measure](samples[ours], samples[name]))
                for measure in measures_of(outcome.case)
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
