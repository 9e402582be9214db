"""One picture of several workers: pure functions that add up what each of them reports.

In a status, what ends in ``_total`` only grows and is added up, with what ended workers had; ``tasks``,
``connections``, ``tunnels``, ``upstreams`` and ``balanced_services`` are added up over the living. In the metrics,
counters and summaries are added up with those of ended workers, so that no total ever falls because a worker was
replaced; gauges are added up over the living, except those that no sum describes (`_LARGEST`): of them the largest
is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from authgate_fast.observe.exposition import Family, Labels, Sample

Status = dict[str, Any]

_SUMMED = ("tasks", "connections", "tunnels", "upstreams", "balanced_services")
_ALIKE = frozenset({"weight", "ejected_for_s"})
"""Numbers of a target that are the same in each worker, or mean nothing together: the first one's is shown."""
_LARGEST = ("_info", "_seconds", "_timestamp", "_revision", "_ready", "_ratio", "_documents", "_limit")
"""Ends of gauges' names for which the largest value of a worker stands for all: ages, times, versions, yes or no."""
_GROWING = frozenset({"counter", "histogram", "summary"})


def add(one: object, other: object) -> object:
    """Add numbers, and mappings of numbers by their keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        merged = dict(one)
        for key, value in other.items():
            if key not in merged:
                merged[key] = value
            elif key not in _ALIKE:
                merged[key] = add(merged[key], value)
        return merged
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one + other
    return one


def totals_of(status: Status) -> Status:
    """Return what of a worker's status outlives it."""
    return {name: value for name, value in status.items() if name.endswith("_total")}


def sum_status(living: Iterable[Status], ended: Status) -> Status:
    """Return the status of all: the first worker's, with sums in the place of its own numbers."""
    summed: Status = {}
    totals: Status = dict(ended)
    for status in living:
        for name, value in status.items():
            if name.endswith("_total"):
                totals[name] = add(totals[name], value) if name in totals else value
                summed.setdefault(name, value)  # its place among the others
            elif name in _SUMMED and name in summed:
                summed[name] = add(summed[name], value)
            else:
                summed.setdefault(name, value)
    return summed | totals


Plain = list[Any]
"""A family as a message carries it: name, kind, help, and for each sample its value, labels and suffix."""


def to_plain(families: Iterable[Family]) -> list[Plain]:
    """Make what a message can carry."""
    return [
        [
            family.name,
            family.kind,
            family.help,
            [[sample.value, sample.labels, sample.suffix] for sample in family.samples],
        ]
        for family in families
    ]


class Sums:
    """Families added up, sample by sample; in the order in which they first came."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[tuple[str, Labels], float]]] = {}

    def add(self, plain: Iterable[Plain], *, only_growing: bool = False) -> None:
        """Add what one worker reports; with `only_growing`, what of it outlives the worker."""
        for name, kind, help_text, samples in plain:
            grows = kind in _GROWING
            if only_growing and not grows:
                continue
            largest = not grows and name.endswith(_LARGEST)
            sums = self._families.setdefault(name, (kind, help_text, {}))[2]
            for value, labels, suffix in samples:
                key = suffix, tuple((label, text) for label, text in labels)
                before = sums.get(key)
                sums[key] = value if before is None else max(before, value) if largest else before + value

    def plain(self) -> list[Plain]:
        """Return the sums in the form in which they were added."""
        return to_plain(self.families())

    def families(self) -> list[Family]:
        """Return the sums."""
        return [
            Family(
                name,
                kind,
                help_text,
                tuple(Sample(value, labels, suffix) for (suffix, labels), value in sums.items()),
            )
            for name, (kind, help_text, sums) in self._families.items()
        ]
