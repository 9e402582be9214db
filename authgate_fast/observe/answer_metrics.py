"""The answered requests of a worker as families of metrics: by route, and how long those of each service took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.observe.exposition import Family, Labels, Sample, counter, gauge, histogram
from authgate_fast.tally import AUTH_CODES, AUTH_RESULTS, BOUNDS_S, Histogram

if TYPE_CHECKING:
    from authgate_fast.observe.access_log import AccessLog
    from authgate_fast.proxy.record import Recorder


def answer_metrics(recorder: Recorder) -> list[Family]:
    """Return the families; their labels are names in the configuration, classes of status and results of the check."""
    answers = []
    for tally in recorder.tallies.values():
        names = (("gateway", tally.gateway), ("route", tally.route), ("service", tally.service))
        for key, count in sorted(tally.counts().items()):
            result = (("status", f"{key // AUTH_CODES}xx"), ("auth", AUTH_RESULTS[key % AUTH_CODES]))
            answers.append(Sample(count, names + result))
    total: list[Sample] = []
    upstream: list[Sample] = []
    for times in recorder.services.values():
        labels = (("gateway", times.gateway), ("service", times.service))
        total += _samples(times.total, labels)
        upstream += _samples(times.upstream, labels)
    return [
        counter(
            "authgate_request_bytes_total",
            "Bytes of requests: heads, and bodies without the framing of chunks.",
            recorder.request_bytes,
        ),
        counter(
            "authgate_response_bytes_total", "Bytes of answers as they were sent.", recorder.response_bytes
        ),
        Family(
            "authgate_answers_total",
            "counter",
            "Answered requests by route, status class and result of the security check.",
            tuple(answers),
        ),
        Family(
            "authgate_request_duration_seconds",
            "histogram",
            "From the end of a request's head to the end of its answer.",
            tuple(total),
        ),
        Family(
            "authgate_upstream_duration_seconds",
            "histogram",
            "From the end of a request's head to the backend's response head, connecting included.",
            tuple(upstream),
        ),
    ]


def access_log_metrics(log: AccessLog) -> list[Family]:
    """Return what the access log has written and what it could not."""
    return [
        counter("authgate_access_log_lines_total", "Lines of the access log that were written.", log.lines),
        counter(
            "authgate_access_log_dropped_lines_total",
            "Lines that were not written: the disk was full, or slower than the requests.",
            log.dropped_lines,
        ),
        gauge(
            "authgate_access_log_waiting_bytes", "Lines that wait to be written, in bytes.", log.waiting_bytes
        ),
    ]


def _samples(times: Histogram, labels: Labels) -> list[Sample]:
    return histogram(BOUNDS_S, times.counts(), times.sum_s, labels)
