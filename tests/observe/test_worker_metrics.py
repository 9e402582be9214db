"""What a running worker counts, read by Prometheus' own parser."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from authgate_fast import __version__, server
from authgate_fast.errors import Reason
from authgate_fast.limits import Limits
from authgate_fast.observe import answer_metrics
from authgate_fast.observe.exposition import render
from authgate_fast.observe.worker_metrics import worker_metrics
from authgate_fast.proxy.context import COUNTED_LIMITS
from authgate_fast.proxy.timeouts import TICK_S, Ticker
from tests.proxy.balanced import balanced
from tests.proxy.harness import Stack
from tests.proxy.scripted import exchange, request, running, until

FIXED = {
    "max_chunk_line_bytes",
    "max_chunk_overhead_bytes",
    "max_trailer_bytes",
    "max_trailer_fields",
    "open_files",
}
"""Bounds that nobody can set."""


def families(stack: Stack) -> dict[str, Metric]:
    ticker = Ticker(stack.context)
    text = render(worker_metrics(stack.context, ticker, ready=True, refused_documents=2)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(metric: Metric, label: str) -> dict[str, float]:
    return {sample.labels[label]: sample.value for sample in metric.samples}


async def test_requests_refusals_and_limits_are_counted_exactly() -> None:
    async with running(limits=Limits(max_fields=5)) as (stack, _):
        reader, writer = await stack.connect()
        for _ in range(3):
            await exchange(reader, writer, request(b"GET", b"/p/a"))
        for _ in range(2):
            await exchange(reader, writer, request(b"GET", b"/nowhere"))
        await exchange(reader, writer, request(b"GET", b"/p/a", *[b"A: b"] * 9))
        metrics = families(stack)
        assert metrics["authgate_requests"].samples[0].value == 6
        refused = values(metrics["authgate_refused_requests"], "code")
        assert {code: count for code, count in refused.items() if count} == {
            "route_not_found": 2,
            "head_too_large": 1,
        }
        hits = values(metrics["authgate_limit_hits"], "limit")
        assert {limit: count for limit, count in hits.items() if count} == {"max_fields": 1}
        assert metrics["authgate_client_connections"].samples[0].value == 1
        assert metrics["authgate_client_connections_open"].samples[0].value == 1
        assert metrics["authgate_refused_documents"].samples[0].value == 2
        open_, idle = (metrics[f"authgate_upstream_connections_{kind}"].samples for kind in ("open", "idle"))
        assert (open_[0].value, idle[0].value) == (1, 1)
        assert open_[0].labels["upstream"].startswith("http://127.0.0.1:")


async def test_a_count_that_never_rose_is_there_as_zero() -> None:
    """Else the first rise of a series is one that no rate() sees."""
    async with running() as (stack, _):
        metrics = families(stack)
        assert set(values(metrics["authgate_refused_requests"], "code")) == {
            reason.value for reason in Reason
        }
        assert set(values(metrics["authgate_limit_hits"], "limit")) == set(COUNTED_LIMITS)


async def test_the_build_is_named() -> None:
    async with running() as (stack, _):
        (sample,) = families(stack)["authgate_build_info"].samples
        assert sample.value == 1
        assert sample.labels["version"] == __version__
        assert sample.labels["build"] in {"pure", "compiled"}


async def test_the_clock_counts_by_how_much_it_is_late() -> None:
    async with running() as (stack, _):
        ticker = Ticker(stack.context)
        ticker.start()
        time.sleep(TICK_S + 0.2)  # noqa: ASYNC251  # the loop is busy
        await until(lambda: ticker.ticks == 2)
        ticker.stop()
        assert 0.19 < ticker.late_s < 2


async def test_every_name_follows_the_rules_of_prometheus() -> None:
    """One prefix, base units, help and type for each."""
    async with running() as (stack, _):
        for family in families(stack).values():
            assert family.name.startswith("authgate_")
            assert family.type in {"counter", "gauge", "summary"}
            assert family.documentation.endswith(".")
            assert not family.name.endswith(("_s", "_ms", "_milliseconds", "_kb"))


def test_what_is_counted_is_a_limit_or_a_fixed_bound() -> None:
    names = {field.name for field in dataclasses.fields(Limits)}
    assert set(COUNTED_LIMITS) <= names | FIXED
    assert list(COUNTED_LIMITS) == sorted(COUNTED_LIMITS)


async def test_targets_and_queues_of_a_balanced_service_are_counted() -> None:
    async with balanced(2, max_connections=9, max_failures=2) as world:
        await world.backends[0].stop()
        for _ in range(3):
            assert (await world.ask()).status == 200
        metrics = families(world.stack)
        urls = [f"http://127.0.0.1:{b.port}/b{at}" for at, b in enumerate(world.backends)]
        by_target = {name: values(metrics[f"authgate_target_{name}"], "target") for name in
                     ("requests", "failures", "ejections", "requests_in_flight")}  # fmt: skip
        assert by_target == {
            "requests": {urls[0]: 1, urls[1]: 3},
            "failures": {urls[0]: 1, urls[1]: 0},
            "ejections": {urls[0]: 1, urls[1]: 0},
            "requests_in_flight": {urls[0]: 0, urls[1]: 0},
        }
        states = {
            (s.labels["target"], s.labels["state"])
            for s in metrics["authgate_target_state"].samples
            if s.value
        }
        assert states == {(urls[0], "ejected"), (urls[1], "up")}
        (moved,) = metrics["authgate_service_moved_requests"].samples
        assert (moved.value, moved.labels) == (1, {"gateway": "gw", "service": "svc"})


async def test_the_page_about_metrics_names_all_of_them_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    async with running() as (stack, _):
        wanted = {name + ("_total" if m.type == "counter" else "") for name, m in families(stack).items()}
    named = set(re.findall(r"^\| `(authgate_[a-z_]+)`", page, re.MULTILINE))
    assert wanted <= named
    folder = Path(answer_metrics.__file__).parent
    files = ("answer_metrics.py", "auth_metrics.py", "source_metrics.py", "spans.py")
    answers = "".join((folder / name).read_text() for name in files)
    assert set(re.findall(r'"(authgate_[a-z_]+)"', answers)) <= named
    others = answers + "".join(path.read_text() for path in Path(server.__file__).parent.glob("*.py"))
    assert all(f'"{name}"' in others for name in named - wanted)
