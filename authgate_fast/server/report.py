"""What an operator reads about failed exchanges: one line each, and never a flood."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from authgate_fast.errors import TABLE, Blame, Reason

if TYPE_CHECKING:
    from authgate_fast.decision import Forward
    from authgate_fast.proxy.context import Context

_log = logging.getLogger("authgate.proxy")

_LEVELS = {Blame.CLIENT: logging.INFO, Blame.GATEWAY: logging.ERROR, Blame.UPSTREAM: logging.WARNING}
# What a client is told of these is the same whatever was wrong; the operator can read more.
_WORTH_A_LINE = frozenset(
    {
        Reason.CREDENTIALS_INVALID,
        Reason.FORBIDDEN,
        Reason.CSRF_REJECTED,
        Reason.LOGIN_FAILED,
        Reason.TOO_MANY_FAILURES,
    }
)

QUIET_S = 1.0
"""Lines of the same reason and service closer together than this are counted, not written."""


class FailureLog:
    """Writes failures of backends and of the gateway itself, and why a credential was not good.

    A client's other mistakes are only counted.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: dict[tuple[Reason, str], float] = {}
        self._held_back: dict[tuple[Reason, str], int] = {}

    def __call__(self, reason: Reason, forward: Forward | None, request_id: bytes, what: str) -> None:
        row = TABLE[reason]
        if row.blame is Blame.CLIENT and reason not in _WORTH_A_LINE:
            return
        service = forward.service.name if forward is not None else "-"
        key = (reason, service)
        now_s = self._context.now_s
        if now_s - self._last.get(key, -QUIET_S) < QUIET_S:
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return
        self._last[key] = now_s
        more = self._held_back.pop(key, 0)
        level = _LEVELS[row.blame]
        where = (
            f"gateway={forward.gateway.name} route={forward.route.name} service={service}" if forward else "-"
        )
        again = f" (and {more} more like it)" if more else ""
        _log.log(
            level, "%s %s request_id=%s: %s%s", reason.value, where, request_id.decode("ascii"), what, again
        )
