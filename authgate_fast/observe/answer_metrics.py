"""The answered requests of a worker as families of metrics: by route, and how long those of each service took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.observe.exposition import Family, Labels, Sample, histogram
from authgate_fast.tally import AUTH_CODES, AUTH_RESULTS, BOUNDS_S, Histogram

if TYPE_CHECKING:
    from authgate_fast.proxy.record import Recorder


def answer_metrics(recorder: Recorder) -> list[Family]:
    """Return the families; their labels are names in the configuration, classes of status and results of the check."""
    answers = []
    for tally in recorder.tallies.values():
        names = (("gateway", tally.gateway), ("route", tally.route), ("service", tally.service))
        for key, count in sorted(tally.counts.items()):
            result = (("status", f"{key // AUTH_CODES}xx"), ("auth", AUTH_RESULTS[key % AUTH_CODES]))
            answers.append(Sample(count, names + result))
    total: list[Sample] = []
    upstream: list[Sample] = []
    for times in recorder.services.values():
        labels = (("gateway", times.gateway), ("service", times.service))
        total += _samples(times.total, labels)
        upstream += _samples(times.upstream, labels)
    return [
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


def _samples(times: Histogram, labels: Labels) -> list[Sample]:
    return histogram(BOUNDS_S, times.counts, times.sum_s, labels)
