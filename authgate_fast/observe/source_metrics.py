"""How fresh what a worker serves from is: documents, link to Redis, certificates. Read from what /status shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.observe.exposition import Family, Sample, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def source_metrics(
    source: Mapping[str, object], state: Mapping[str, object], *, changed_at: float, uptime_s: float
) -> list[Family]:
    """Return what is known of the documents' source and of the store of runtime state.

    `changed_at`: when the configuration last changed, in seconds since the epoch, 0 if there is none yet.
    """
    families = [
        gauge(
            "authgate_configuration_changed_timestamp_seconds",
            "When what requests are served from last changed; 0: there is nothing yet.",
            changed_at,
        )
    ]
    if "sync_lag_s" in source:
        lag_s = _number(source["sync_lag_s"])
        families += [
            gauge(
                "authgate_sync_lag_seconds",
                "Since the documents were last known to be those of Redis; if they never were, since the start.",
                uptime_s if lag_s is None else lag_s,
            ),
            gauge(
                "authgate_sync_timestamp_seconds",
                "When documents were last read from Redis: a change, or a comparison of all.",
                _number(source["last_sync_at"]) or 0.0,
            ),
            gauge(
                "authgate_sync_suspect_empty",
                "Workers that keep their documents because Redis has lost all of them.",
                int(source["suspect_empty"] is True),
            ),
        ]
    if "connected" in state:
        families.append(
            gauge(
                "authgate_state_connected",
                "Workers that are connected to the Redis that holds sessions, refresh tokens and signing keys.",
                int(state["connected"] is True),
            )
        )
    return families


def certificate_metrics(expiries: Iterable[tuple[str, float]]) -> Family:
    """Return when each certificate in use ends."""
    samples = tuple(Sample(ends_at, (("file", file),)) for file, ends_at in sorted(dict(expiries).items()))
    return Family(
        "authgate_certificate_expiry_timestamp_seconds", "gauge", "When a certificate in use ends.", samples
    )


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
