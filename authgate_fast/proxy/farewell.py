"""How a draining worker ends its tunnels: in any order over some time, so that clients do not all come back at once."""

from __future__ import annotations

from random import random, shuffle
from typing import TYPE_CHECKING, Final

from authgate_fast.http.websocket import GOING_AWAY

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context

GOODBYES_PER_SECOND: Final = 100
"""How many tunnels at most a drain ends in a second, if it has the time: their clients come back elsewhere."""


class Farewell:
    """`go_on` has to be called until nothing is ``left``."""

    __slots__ = ("left",)

    def __init__(self, context: Context, now_s: float, within_s: float) -> None:
        tunnels = list(context.tunnels)
        spread_s = min(len(tunnels) / GOODBYES_PER_SECOND, within_s)
        moments = sorted((now_s + random() * spread_s for _ in tunnels), reverse=True)
        shuffle(tunnels)
        self.left = list(zip(moments, tunnels, strict=True))

    def go_on(self, now_s: float) -> None:
        """Say goodbye to those whose turn it is."""
        left = self.left
        while left and left[-1][0] <= now_s:
            left.pop()[1].say_goodbye(GOING_AWAY)
