"""How fresh a worker's documents, connections and certificates are, as numbers."""

from __future__ import annotations

import pytest

from authgate_fast.observe.exposition import Family
from authgate_fast.observe.source_metrics import certificate_metrics, source_metrics

SYNC = {"sync_lag_s": 1.5, "last_sync_at": 1_700_000_000.0, "suspect_empty": False}


def numbers(families: list[Family]) -> dict[str, float]:
    return {family.name.removeprefix("authgate_"): family.samples[0].value for family in families}


def shown(source: dict[str, object], state: dict[str, object]) -> dict[str, float]:
    return numbers(source_metrics(source, state, changed_at=5.0, uptime_s=60.0))


def test_a_worker_on_redis_tells_how_far_behind_it_may_be() -> None:
    assert shown({**SYNC}, {"connected": True}) == {
        "configuration_changed_timestamp_seconds": 5.0,
        "sync_lag_seconds": 1.5,
        "sync_timestamp_seconds": 1_700_000_000.0,
        "sync_suspect_empty": 0,
        "state_connected": 1,
    }


def test_a_worker_that_never_reached_redis_is_behind_since_its_start() -> None:
    got = shown({"sync_lag_s": None, "last_sync_at": None, "suspect_empty": True}, {"connected": False})
    assert (got["sync_lag_seconds"], got["sync_timestamp_seconds"]) == (60.0, 0.0)
    assert (got["sync_suspect_empty"], got["state_connected"]) == (1, 0)


@pytest.mark.parametrize("source", [{}, {"type": "file"}])
def test_a_worker_on_a_file_has_no_lag(source: dict[str, object]) -> None:
    assert shown(source, {"type": "memory"}) == {"configuration_changed_timestamp_seconds": 5.0}


def test_each_certificate_has_its_end() -> None:
    family = certificate_metrics([("b.pem", 2.0), ("a.pem", 1.0)])
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ((("file", "a.pem"),), 1.0),
        ((("file", "b.pem"),), 2.0),
    ]
