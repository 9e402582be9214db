"""The options of traces. Part of `options`, and as light."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from importlib.util import find_spec

from authgate_fast.server.entry_options import UsageError, environment

OFF, PASS, BEGIN = "off", "pass", "begin"
_TRACES_PATH = "/v1/traces"
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


@dataclass(slots=True, frozen=True)
class TraceOptions:
    """``endpoint``: where spans are sent to, "" for nowhere. ``ratio``: the sampled part of the traces begun here."""

    mode: str = PASS
    ratio: float = 0.0
    endpoint: str = ""


NO_SPANS = TraceOptions()


def add_traces(parser: argparse.ArgumentParser) -> None:
    """Add the options of `authgate run`."""
    parser.add_argument("--traces", default=environment("TRACES"), metavar="off|pass|begin",
                        help="traceparent of clients: taken out, passed on, or passed on and begun where there "
                        "is none (default pass; begin with --otlp)")  # fmt: skip
    parser.add_argument("--trace-sample", default=environment("TRACE_SAMPLE"), metavar="RATIO",
                        help="sampled part of the traces begun here, 0 to 1 (default 0; 1 with --otlp)")  # fmt: skip
    parser.add_argument("--otlp", default=environment("OTLP"), metavar="URL|off",
                        help="send spans of sampled requests to this OpenTelemetry collector by OTLP/HTTP, for "
                        "instance http://127.0.0.1:4318")  # fmt: skip


def read_traces(options: argparse.Namespace) -> TraceOptions:
    """Read what `add_traces` added. Raises UsageError."""
    endpoint = _endpoint(options.otlp)
    mode = options.traces or (BEGIN if endpoint else PASS)
    if mode not in (OFF, PASS, BEGIN):
        raise UsageError(f"--traces {mode}: write off, pass or begin")
    if endpoint and mode == OFF:
        raise UsageError(f"--traces off sends no spans: leave it out, or write --otlp off (not {endpoint})")
    ratio = 1.0 if endpoint else 0.0
    if options.trace_sample is not None:
        try:
            ratio = float(options.trace_sample)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise UsageError(f"--trace-sample {options.trace_sample}: write a number from 0 to 1")
        if mode != BEGIN:
            raise UsageError(
                "--trace-sample goes with --traces begin: other traces are sampled by who began them"
            )
    return TraceOptions(mode, ratio, endpoint)


def _endpoint(text: str | None) -> str:
    """Return the full URL for spans, "" for none."""
    if text == "off":
        return ""
    option = "--otlp"
    if text is None:
        # The names of the OpenTelemetry specification: the first one is a full URL, the second a base.
        for option in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            text = os.environ.get(option) or None
            if text is not None:
                break
        else:
            return ""
    if not text.startswith(("http://", "https://")) or not text.isascii() or " " in text:
        raise UsageError(f"{option} {text}: write a URL such as http://127.0.0.1:4318")
    if not all(map(_is_installed, _NEEDED)):
        raise UsageError(
            f"{option} needs the OpenTelemetry packages: pip install 'authgate-fast[otel]'. "
            "Without them, --otlp off."
        )
    if option == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" or text.endswith(_TRACES_PATH):
        return text
    return text.rstrip("/") + _TRACES_PATH


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name.rpartition(".")[0]) is not None
    except ModuleNotFoundError:
        return False
