"""The dashboard and the alerts name metrics that exist, with labels and values that exist, and leave none out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from authgate_fast.errors import Reason
from authgate_fast.proxy.context import COUNTED_LIMITS
from authgate_fast.proxy.groups import STATES
from authgate_fast.tally import AUTH_RESULTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "config" / "grafana-dashboard.json").read_text(encoding="utf-8")
)
RULES: dict[str, Any] = yaml.safe_load(
    (ROOT / "config" / "prometheus-rules.yaml").read_text(encoding="utf-8")
)

SUFFIXES = {
    "counter": ("",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
}
SCRAPED = {"instance", "job"}
VALUES = {
    "limit": set(COUNTED_LIMITS),
    "code": {reason.value for reason in Reason},
    "state": set(STATES),
    "auth": set(AUTH_RESULTS),
    "status": {f"{digit}xx" for digit in range(1, 6)},
    "result": {"done", "failed"},
    "job": {"authgate"},
}
_ROW = re.compile(r"^\| `(authgate_[a-z_]+)` \| ([a-z]+) \|([^|]*)\|", re.MULTILINE)
_USE = re.compile(r"\b(authgate_[a-z_]+|up)(?:\{([^}]*)\})?")
_SELECTOR = re.compile(r'([a-z_]+)(=~|=)"([^"]*)"')


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return each metric's name as it is queried, with its type and labels."""
    known = {"up": ("gauge", set(SCRAPED))}
    for name, kind, labels in _ROW.findall(PAGE):
        names = set(re.findall(r"`([a-z_]+)`", labels)) | SCRAPED | ({"le"} if kind == "histogram" else set())
        known |= {name + suffix: (kind, names) for suffix in SUFFIXES[kind]}
    return known


KNOWN = documented()


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in panels():
        yield from ((f"panel {panel['title']}", target["expr"]) for target in panel["targets"])
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


ALL = list(expressions())


@pytest.mark.parametrize(
    ("where", "expression"), ALL, ids=[f"{where} {n}" for n, (where, _) in enumerate(ALL)]
)
def test_an_expression_names_metrics_labels_and_values_that_exist(where: str, expression: str) -> None:
    uses = _USE.findall(expression)
    assert uses, expression
    usable: set[str] = set()
    for name, selectors in uses:
        assert name in KNOWN, f"{where}: no metric {name}"
        labels = KNOWN[name][1]
        usable |= labels
        found = _SELECTOR.findall(selectors)
        assert ",".join(f'{label}{how}"{value}"' for label, how, value in found) == selectors, selectors
        for label, how, value in found:
            assert label in labels, f"{where}: {name} has no label {label}"
            if not value.startswith("$"):
                wanted = value.split("|") if how == "=~" else [value]
                assert set(wanted) <= VALUES[label], f"{where}: {label} is never {value}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r", ?", grouped)) <= usable, f"{where}: {grouped}"
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


@pytest.mark.parametrize(
    ("where", "expression"), ALL, ids=[f"{where} {n}" for n, (where, _) in enumerate(ALL)]
)
def test_what_only_grows_is_asked_for_its_rise_and_nothing_else_is(where: str, expression: str) -> None:
    if where.startswith("variable"):
        return
    risen = set(re.findall(r"\b(?:rate|increase)\((authgate_[a-z_]+)", expression))
    growing = {name for name, _ in _USE.findall(expression) if KNOWN[name][0] != "gauge"}
    assert risen == growing, where


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name for where, expression in ALL if where.startswith("panel") for name, _ in _USE.findall(expression)
    }
    for name, kind, _ in _ROW.findall(PAGE):
        assert {name + suffix for suffix in SUFFIXES[kind]} & shown, name


def test_the_dashboard_is_one_that_grafana_10_takes() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "instance",
        "gateway",
        "service",
    ]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }  # fmt: skip
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        labels = set(re.findall(r"\{\{([a-z_]+)\}\}", str([t["legendFormat"] for t in panel["targets"]])))
        assert labels <= {label for t in panel["targets"] for name, _ in _USE.findall(t["expr"]) for label in KNOWN[name][1]}  # fmt: skip


def test_every_alert_says_what_it_is_and_the_page_about_operations_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert names == re.findall(r"^\| `(AuthGate[A-Za-z]+)`", OPERATIONS, re.MULTILINE)
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
        used = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
        grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
        left = set(grouped[1].split(", ")) if grouped else KNOWN[_USE.findall(rule["expr"])[0][0]][1]
        assert used <= left, rule["alert"]
