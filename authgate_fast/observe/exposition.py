"""The text format of Prometheus, version 0.0.4. Pure: families of numbers in, bytes out.

A family is named once, with its help and its type; its samples follow it without a gap, as the format asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf, isinf, isnan
from typing import Final

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]

_is_name = re.compile(r"[a-z][a-z0-9_]*").fullmatch  # stricter than the format: no capitals, no colons
_KINDS: Final = frozenset({"counter", "gauge", "summary", "histogram"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. ``suffix`` is what its name has beyond the family's (``_sum``, ``_count``, ``_bucket``)."""

    value: float
    labels: Labels = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers of one name, type and meaning."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if not _is_name(self.name) or self.kind not in _KINDS:
            raise ValueError(f"{self.name} {self.kind}: not a metric")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: a counter ends in _total, and nothing else does")


def counter(name: str, help_text: str, value: float) -> Family:
    """Return a count since the start."""
    return Family(name, "counter", help_text, (Sample(value),))


def gauge(name: str, help_text: str, value: float) -> Family:
    """Return a number of this moment."""
    return Family(name, "gauge", help_text, (Sample(value),))


def labelled(name: str, kind: str, help_text: str, label: str, values: dict[str, int]) -> Family:
    """Return one number for each value of one label."""
    samples = tuple(Sample(number, ((label, value),)) for value, number in sorted(values.items()))
    return Family(name, kind, help_text, samples)


def summary(name: str, help_text: str, total: float, count: int) -> Family:
    """Return a sum and of how many it is: their quotient is a mean."""
    return Family(name, "summary", help_text, (Sample(total, (), "_sum"), Sample(count, (), "_count")))


def histogram(bounds: tuple[float, ...], counts: list[int], total: float, labels: Labels) -> list[Sample]:
    """Return the samples of one histogram: `counts` by bucket, one more than there are upper `bounds`."""
    samples = []
    so_far = 0
    for bound, count in zip((*bounds, inf), counts, strict=True):
        so_far += count
        samples.append(Sample(so_far, (*labels, ("le", _number(bound))), "_bucket"))
    return [*samples, Sample(total, labels, "_sum"), Sample(so_far, labels, "_count")]


def render(families: list[Family]) -> bytes:
    """Write the families one after the other."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [
            f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}"
            for sample in family.samples
        ]
    return ("\n".join(lines) + "\n").encode()


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_label_value(value)}"' for name, value in labels) + "}"


def _label_value(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(value) if isinstance(value, int) else repr(value)
