"""Whether a request may be sent once more: a pure function of facts (RFC 9110 section 9.2.2)."""

from __future__ import annotations

from authgate_fast.http.request import IDEMPOTENT


def may_retry(method: bytes, *, reused: bool, response_begun: bool, replayable: bool, attempts: int) -> bool:
    """Tell whether a request that lost its backend connection goes to a fresh one.

    Only a kept-alive connection can have been stale (`reused`); only once (`attempts` counts the sends
    so far); only if sending twice does no harm and every byte sent can be sent again (`replayable`).
    """
    return reused and not response_begun and replayable and attempts == 1 and method in IDEMPOTENT
