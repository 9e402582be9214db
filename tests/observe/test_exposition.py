"""The text format, read by Prometheus' own parser."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authgate_fast.observe.exposition import Family, Sample, counter, gauge, labelled, render, summary


def read(*families: Family) -> dict[str, float]:
    """Return every sample as the parser understands it, by its name and labels."""
    text = render(list(families)).decode()
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_kind_is_what_the_parser_says_it_is() -> None:
    families = [
        counter("a_total", "A.", 3),
        gauge("b_bytes", "B.", 2.5),
        labelled("c_total", "counter", "C.", "code", {"x": 1, "y": 2}),
        summary("d_seconds", "D.", 0.25, 4),
    ]
    parsed = list(text_string_to_metric_families(render(families).decode()))
    assert [(family.name, family.type) for family in parsed] == [
        ("a", "counter"),
        ("b_bytes", "gauge"),
        ("c", "counter"),
        ("d_seconds", "summary"),
    ]
    assert read(*families) == {
        "a_total": 3,
        "b_bytes": 2.5,
        "c_total code=x": 1,
        "c_total code=y": 2,
        "d_seconds_sum": 0.25,
        "d_seconds_count": 4,
    }


@pytest.mark.parametrize("value", ["plain", 'a"b', "a\\b", "a\nb", "a\\nb", "ü", "", "{x=}", "a,b"])
def test_any_label_value_comes_back_as_it_was(value: str) -> None:
    assert read(labelled("a", "gauge", "A.", "l", {value: 1})) == {f"a l={value}": 1}


@pytest.mark.parametrize("text", ["Plain.", "Two\nlines.", "A back\\slash."])
def test_any_help_text_comes_back_as_it_was(text: str) -> None:
    (family,) = text_string_to_metric_families(render([gauge("a", text, 1)]).decode())
    assert family.documentation == text


@pytest.mark.parametrize("number", [0, 1, -1, 10**15, 0.1, 1e-9, 1e300, math.inf, -math.inf])
def test_any_number_comes_back_as_it_was(number: float) -> None:
    assert read(gauge("a", "A.", number)) == {"a": number}


def test_what_is_no_number_comes_back_as_none() -> None:
    assert math.isnan(read(gauge("a", "A.", math.nan))["a"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a", "counter"),
        ("a_total", "gauge"),
        ("A", "gauge"),
        ("1a", "gauge"),
        ("a b", "gauge"),
        ("a", "thing"),
    ],
)
def test_a_name_that_breaks_the_naming_rules_is_a_mistake_of_ours(name: str, kind: str) -> None:
    with pytest.raises(ValueError):
        Family(name, kind, "A.", (Sample(1),))
