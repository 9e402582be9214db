"""Whether a request may be sent once more: a pure function of facts (RFC 9110 section 9.2.2).

Stance: what may already have been acted upon is sent again only if acting twice is the same as once. What certainly
never left may be sent anew whatever it is. A response that has begun, by one byte, is the end of all trying.
"""

from __future__ import annotations

from typing import Final

from authgate_fast.http.request import IDEMPOTENT

CONNECTING: Final = 0
"""No connection came about: nothing was sent."""
SENT: Final = 1
"""The connection was lost; some of the request, or all of it, may have arrived."""
ANSWERED: Final = 2
"""The connection was lost after a first byte of a response, be it an interim one."""

MAX_SENDS: Final = 2
"""Connections that one request may be sent on when there is one target: one that was stale, and a fresh one."""
MAX_SENDS_IN_ALL: Final = 3
"""And with several targets. No more: a request that brings backends down must not be taken to all of them."""


def may_retry(
    method: bytes,
    phase: int,
    *,
    reused: bool,
    replayable: bool,
    sends: int,
    other_targets: int = 0,
) -> bool:
    """Tell whether a request that failed in `phase` goes to another connection.

    There must be a chance that it fares better there: a kept connection (`reused`) may have been stale, and another
    target may be alive; the same target that has just refused or dropped a fresh connection will do so again.
    `other_targets` are those that this request has not failed at yet, so their number bounds the connects. `sends`
    counts the connections it was sent on so far; `replayable` says that each byte that was sent is still held.
    """
    if phase == ANSWERED or not replayable:
        return False
    if phase == CONNECTING:
        return other_targets > 0
    if method not in IDEMPOTENT:
        return False
    return (reused and sends < MAX_SENDS) or (other_targets > 0 and sends < MAX_SENDS_IN_ALL)
