"""Spans: what a collector gets is what happened, and a collector that is away costs spans and nothing else."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from authgate_fast.http.trace_context import Trace
from authgate_fast.observe import spans as spans_module
from authgate_fast.observe.spans import SPANS_PER_BATCH, Spans
from authgate_fast.proxy.access_line import Entry
from tests.collector import Collector, attributes, collecting

BOUND_S = 10.0
TRACE_ID, PARENT, OWN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331", b"00f067aa0ba902b7"


def entry(status: int = 200, outcome: bytes = b"complete", code: bytes = b"", **changes: object) -> Entry:
    made = Entry(b"1-1", "192.0.2.1", status, outcome)
    made.code = code
    made.trace = trace = Trace()
    trace.trace_id, trace.parent_id, trace.span_id, trace.flags = TRACE_ID, PARENT, OWN, 1
    made.method, made.scheme, made.protocol = b"GET", b"https", b"HTTP/1.1"
    made.host, made.path, made.agent = b"Shop.example.com:8443", b"/p/1", b"curl/8"
    made.gateway, made.route, made.route_path, made.service = "shop", "product", "/p/{id}", "catalog"
    made.wall_s, made.duration_s = 1_700_000_000.5, 0.25
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + BOUND_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@contextmanager
def exporting(url: str) -> Iterator[Spans]:
    spans = Spans(url + "/v1/traces", "w-1")
    try:
        yield spans
    finally:
        spans.close()


def exported(*entries: Entry) -> tuple[Collector, list[Span]]:
    with collecting() as collector:
        with exporting(collector.url) as spans:
            for one in entries:
                spans(one)
        assert (spans.exported, spans.dropped, spans.waiting) == (len(entries), 0, 0)
    return collector, collector.spans


def test_a_span_says_what_the_conventions_ask_for() -> None:
    collector, (span,) = exported(entry())
    assert (span.name, span.kind) == ("GET /p/{id}", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        TRACE_ID.decode(), OWN.decode(), PARENT.decode(),
    )  # fmt: skip
    assert span.end_time_unix_nano == 1_700_000_000_500_000_000
    assert span.start_time_unix_nano == 1_700_000_000_250_000_000
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.route": "/p/{id}",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/p/1",
        "server.address": "shop.example.com",
        "client.address": "192.0.2.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "authgate.gateway": "shop",
        "authgate.route": "product",
        "authgate.service": "catalog",
        "authgate.request_id": "1-1",
        "authgate.outcome": "complete",
    }
    assert collector.paths == ["/v1/traces"]
    assert (
        collector.resources[0].items() >= {"service.name": "authgate", "service.instance.id": "w-1"}.items()
    )


def test_the_names_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    collector, _ = exported(entry())
    assert (
        collector.resources[0].items() >= {"service.name": "edge", "deployment.environment": "test"}.items()
    )


@pytest.mark.parametrize(
    ("made", "status", "error"),
    [
        (entry(404), Status.STATUS_CODE_UNSET, None),
        (entry(401, b"refused", b"credentials_missing"), Status.STATUS_CODE_UNSET, None),
        (entry(500), Status.STATUS_CODE_ERROR, "500"),
        (entry(504, b"refused", b"upstream_timeout"), Status.STATUS_CODE_ERROR, "upstream_timeout"),
        (entry(200, b"upstream_broken"), Status.STATUS_CODE_ERROR, "upstream_broken"),
        (entry(499, b"client_closed"), Status.STATUS_CODE_UNSET, None),
    ],
)
def test_an_error_is_one_of_the_servers(made: Entry, status: int, error: str | None) -> None:
    _, (span,) = exported(made)
    assert span.status.code == status
    assert attributes(span).get("error.type") == error
    assert attributes(span).get("http.response.status_code") == (None if made.status == 499 else made.status)


def test_a_method_that_nobody_knows_is_no_name_of_a_span() -> None:
    _, (span,) = exported(entry(501, b"refused", b"method_not_implemented", method=b"BREW", route_path=""))
    assert span.name == "HTTP"
    assert attributes(span)["http.request.method"] == "_OTHER"
    assert attributes(span)["http.request.method_original"] == "BREW"


def test_what_a_client_sent_is_made_text_and_cut() -> None:
    _, (span,) = exported(entry(agent=b"\xff\x00" + b"a" * 5_000, host=b"no host"))
    assert len(str(attributes(span)["user_agent.original"])) == 1_024
    assert "server.address" not in attributes(span)


def test_each_span_arrives_once() -> None:
    made = [entry(path=b"/p/%d" % number) for number in range(3 * SPANS_PER_BATCH + 5)]
    collector, found = exported(*made)
    assert [attributes(span)["url.path"] for span in found] == [f"/p/{number}" for number in range(len(made))]
    assert len(collector.paths) >= 4


def test_a_collector_that_refuses_costs_its_batch_and_the_next_one_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with collecting() as collector, exporting(collector.url) as spans:
        collector.status = 400
        for _ in range(SPANS_PER_BATCH):
            spans(entry())
        until(lambda: spans.dropped == SPANS_PER_BATCH)
        collector.status = 200
        spans(entry())
        until(lambda: spans.exported == 1)
    assert spans.dropped == SPANS_PER_BATCH
    lines = [record for record in caplog.records if record.name == "authgate.spans"]
    assert len(lines) == 1
    assert "400" in lines[0].getMessage()


def test_past_the_bound_spans_are_dropped_and_counted_and_taking_one_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = 1_000
    monkeypatch.setattr(spans_module, "MAX_WAITING_SPANS", bound)
    with collecting() as collector, exporting(collector.url) as spans:
        collector.gate.clear()
        for _ in range(SPANS_PER_BATCH):
            spans(entry())
        until(
            lambda: spans.waiting == SPANS_PER_BATCH and not spans._waiting
        )  # the thread is stuck with them
        begun_s = time.monotonic()
        made = entry()
        for _ in range(bound + 100):
            spans(made)
        assert time.monotonic() - begun_s < 2
        assert (spans.dropped, spans.waiting) == (100, bound + SPANS_PER_BATCH)
        collector.gate.set()
        until(lambda: spans.waiting == 0)
        assert spans.exported == bound + SPANS_PER_BATCH
    assert len(collector.spans) == spans.exported


@pytest.mark.parametrize("is_slow", [False, True], ids=["away", "slow"])
def test_the_end_does_not_wait_for_a_collector(monkeypatch: pytest.MonkeyPatch, is_slow: bool) -> None:
    monkeypatch.setattr(spans_module, "CLOSE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts by its queue, and answers nothing
        port = listener.getsockname()[1]
        if not is_slow:
            listener.close()
        spans = Spans(f"http://127.0.0.1:{port}/v1/traces", "w-1")
        for _ in range(SPANS_PER_BATCH + 7):
            spans(entry())
        until(lambda: spans.waiting < SPANS_PER_BATCH + 7 or spans._sending > 0)
        begun_s = time.monotonic()
        spans.close()
        assert time.monotonic() - begun_s < 2
        assert spans.exported == 0
        assert spans.dropped == SPANS_PER_BATCH + 7
        assert logging.getLogger("opentelemetry").propagate is False
