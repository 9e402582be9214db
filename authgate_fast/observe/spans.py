"""Spans for an OpenTelemetry collector: gathered on the loop, made and sent by a thread.

What waits is bounded; past the bound spans are dropped and counted, as are those of a batch that the collector does not
take. A collector that is slow or away never holds up a request. The OpenTelemetry packages are an extra (``otel``)
and are imported here only, when a worker that exports starts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from authgate_fast import __version__
from authgate_fast.http.request import METHODS, normalise_host
from authgate_fast.observe.exposition import counter, gauge
from authgate_fast.proxy.line_parts import MAX_TEXT_BYTES
from authgate_fast.proxy.record import CLIENT_CLOSED_STATUS, COMPLETE, REFUSED

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from authgate_fast.http.trace_context import Trace
    from authgate_fast.observe.exposition import Family
    from authgate_fast.proxy.access_line import Entry

_log = logging.getLogger("authgate.spans")

SPANS_PER_BATCH: Final = 128
"""Small, for encoding a batch keeps the interpreter from the loop: some milliseconds."""
FLUSH_S: Final = 1.0
"""The longest that a span waits for others."""
MAX_WAITING_SPANS = 8_192
"""Spans that wait for the collector: some ten megabytes. Beyond it they are dropped."""
CLOSE_TIMEOUT_S = 2.0
"""How long what is left may take at the end; as long again, at most a second, to break off what is being sent."""
COMPLAIN_EVERY_S: Final = 60.0
_NS: Final = 1_000_000_000


class _LastWords(logging.Handler):
    """Keeps what the OpenTelemetry packages say last, for a line of our own once a minute."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class Spans:
    """Sends a span for each entry to `endpoint`. `instance` tells this process from others."""

    def __init__(self, endpoint: str, instance: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._endpoint = endpoint
        self._waiting: deque[Entry] = deque()
        self._sending = 0
        self._wake = threading.Event()
        self._stop = False
        self._refused = 0  # counted on the loop
        self._failed = 0  # counted in the thread
        self._complained_s = -COMPLAIN_EVERY_S
        self.exported = 0
        self._words = _LastWords()
        theirs = logging.getLogger("opentelemetry")
        theirs.handlers = [self._words]
        theirs.propagate = False
        self._maker = SpanMaker(instance)
        self._exporter: SpanExporter = OTLPSpanExporter(endpoint=endpoint)
        self._thread = threading.Thread(target=self._send_all, name="spans", daemon=True)
        self._thread.start()

    # --- on the loop --------------------------------------------------------------------------------

    def __call__(self, entry: Entry) -> None:
        """Take an entry whose trace has a span of the gateway's."""
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING_SPANS:
            self._refused += 1
            return
        waiting.append(entry)
        if len(waiting) == SPANS_PER_BATCH:
            self._wake.set()

    @property
    def dropped(self) -> int:
        """Spans that the collector never got."""
        return self._refused + self._failed

    @property
    def waiting(self) -> int:
        """Spans that the collector has not taken yet."""
        return len(self._waiting) + self._sending

    def close(self) -> None:
        """Send what is there, within a bound, and end."""
        self._stop = True
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._refused += len(self._waiting)
            self._waiting.clear()
        self._exporter.shutdown()
        self._thread.join(min(CLOSE_TIMEOUT_S, 1.0))  # what it was sending is counted
        if self._thread.is_alive():
            self._refused += self._sending

    # --- in the thread ------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while not self._stop or self._waiting:
            if len(self._waiting) < SPANS_PER_BATCH and not self._stop:
                self._wake.wait(FLUSH_S)
                self._wake.clear()
            if self._waiting:
                self._send_some()

    def _send_some(self) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans: list[ReadableSpan] = []
        while len(spans) < SPANS_PER_BATCH:
            try:
                entry = self._waiting.popleft()
            except IndexError:  # the loop may have emptied it
                break
            self._sending += 1
            if entry.trace is not None:
                spans.append(self._maker.span(entry, entry.trace))
            time.sleep(0)  # lets the loop have the interpreter
        try:
            is_taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # whatever a library of theirs raises, the next batch has its chance
            is_taken = False
            self._words.text = f"{type(error).__name__}: {error}"
        if is_taken:
            self.exported += len(spans)
        else:
            self._failed += len(spans)
            self._complain()
        self._sending = 0

    def _complain(self) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            _log.warning("spans are dropped: %s does not take them: %s", self._endpoint, self._words.text)


class SpanMaker:
    """Makes server spans by the semantic conventions for HTTP of OpenTelemetry."""

    def __init__(self, instance: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        resource = Resource({"service.version": __version__})
        resource = resource.merge(
            Resource.create()
        )  # what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say
        resource = resource.merge(Resource({"service.instance.id": instance}))  # each worker is one
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "authgate"}))
        self._resource = resource
        self._scope = InstrumentationScope("authgate", __version__)

    def span(self, entry: Entry, trace: Trace) -> ReadableSpan:
        """Return the span of an entry."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace_id = int(trace.trace_id, 16)  # lower-case hex, checked or made by `http.trace_context`
        parent = None
        if trace.parent_id:
            parent = SpanContext(trace_id, int(trace.parent_id, 16), True, TraceFlags(trace.flags))
        is_known = entry.method in METHODS
        method = _text(entry.method) if is_known else "HTTP"
        error = error_type(entry)
        end_ns = int(entry.wall_s * _NS)  # a float, not protocol text
        return ReadableSpan(
            name=f"{method} {entry.route_path}" if entry.route_path else method,
            context=SpanContext(trace_id, int(trace.span_id, 16), False, TraceFlags(trace.flags)),
            parent=parent,
            resource=self._resource,
            attributes=attributes_of(entry, error, is_known=is_known),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR) if error else Status(StatusCode.UNSET),
            start_time=end_ns - int(entry.duration_s * _NS),
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )


def error_type(entry: Entry) -> str:
    """Return what went wrong on the server's side, "" if nothing did: a client's mistake is none (nor its leaving)."""
    if entry.outcome not in (COMPLETE, REFUSED):
        return "" if entry.status == CLIENT_CLOSED_STATUS else _text(entry.outcome)
    if entry.status < 500:
        return ""
    return _text(entry.code) or str(entry.status)


def attributes_of(entry: Entry, error: str, *, is_known: bool) -> dict[str, str | int]:
    """Return a span's attributes; what is not known is left out."""
    address = normalise_host(entry.host)
    attributes: dict[str, str | int] = {
        "http.request.method": _text(entry.method) if is_known else "_OTHER",
        "http.request.method_original": "" if is_known else _text(entry.method),
        "http.route": entry.route_path,
        "url.scheme": _text(entry.scheme),
        "url.path": _text(entry.path),
        "server.address": "" if address is None else _text(address),
        "client.address": entry.client,
        "network.protocol.version": _text(entry.protocol.removeprefix(b"HTTP/")),
        "user_agent.original": _text(entry.agent),
        "error.type": error,
        "authgate.gateway": entry.gateway,
        "authgate.route": entry.route,
        "authgate.service": entry.service,
        "authgate.consumer": entry.consumer,
        "authgate.request_id": _text(entry.request_id),
        "authgate.outcome": _text(entry.outcome),
        "authgate.code": _text(entry.code),
    }
    if entry.status != CLIENT_CLOSED_STATUS:  # no answer began
        attributes["http.response.status_code"] = entry.status
    if entry.retries:
        attributes["authgate.retries"] = entry.retries
    return {name: value for name, value in attributes.items() if value != ""}


def _text(text: bytes) -> str:
    return text[:MAX_TEXT_BYTES].decode("utf-8", "replace")


def span_metrics(spans: Spans) -> list[Family]:
    """Return what the collector has taken and what it has not."""
    return [
        counter("authgate_spans_exported_total", "Spans that the collector has taken.", spans.exported),
        counter(
            "authgate_spans_dropped_total",
            "Spans that it never got: it was away, or slower than the requests.",
            spans.dropped,
        ),
        gauge("authgate_spans_waiting", "Spans that wait for the collector.", spans.waiting),
    ]
