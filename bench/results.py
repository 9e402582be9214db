"""The results of a run as a page in Markdown. Pure: no IO."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import Outcome, doubts, faults, scaling, tables, verdicts

_HEAD = """\
# Results of the bench

Written by the command below; [README.md](README.md) says what is measured and how to read it. Ratios are taken within
each round; what stands here is their median (lowest .. highest). Of CPU and rates, above 1.00 the gateway is ahead; of
p99, below.
"""


def render_results(about: dict[str, str], outcomes: Sequence[Outcome]) -> str:
    """Return the whole page: what was measured on what, the targets, and the tables of each case."""
    parts = [
        _HEAD,
        _table(
            [
                ["", ""],
                *([title, f"`{text}`" if title == "command" else text] for title, text in about.items()),
            ]
        ),
    ]
    builds = {f"{name} {build}" for outcome in outcomes for name, build in outcome.builds.items()}
    if builds:
        parts.append("Builds: " + ", ".join(sorted(builds)) + ".")
    rows = _targets(outcomes)
    if len(rows) > 1:
        parts += ["## Targets", _table(rows)]
    by_name = {outcome.case.name: outcome for outcome in outcomes}
    if "workers-1" in by_name and "workers-2" in by_name:
        rows = [
            ["two workers over one", "requests/s", "work that two cores do, by CPU/request (target >= 1.8)"]
        ]
        rows += [
            [one.name, f"{one.rate:.2f}", f"{one.cores:.2f}"]
            for one in scaling(by_name["workers-1"], by_name["workers-2"])
        ]
        parts += ["## Scaling", "Load and backend share the two cores with the workers.", _table(rows)]
    for outcome in outcomes:
        medians, ratios = tables(outcome)
        parts += [
            f"## {outcome.case.name}",
            f"{outcome.case.about[0].upper()}{outcome.case.about[1:]}.",
            _table(medians),
        ]
        if len(ratios) > 1:
            parts.append(_table(ratios))
        remarks = [*outcome.notes, *(f"In doubt: {doubt}" for doubt in doubts(outcome))]
        remarks += [f"**Wrong:** {fault}" for fault in faults(outcome)]
        parts += [f"{remark}." for remark in remarks]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _targets(outcomes: Sequence[Outcome]) -> list[list[str]]:
    rows = [["case", "figure", "against", "target", "measured", ""]]
    for outcome in outcomes:
        for verdict in verdicts(outcome):
            target = verdict.target
            bound = f"{'<=' if target.is_ceiling else '>='} {target.bound:g}"
            met = {True: "met", False: "**not met**", None: "not measured"}[verdict.is_met]
            rows.append(
                [outcome.case.name, target.measure, target.peer or "-", bound, verdict.figure or "-", met]
            )
    return rows


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
