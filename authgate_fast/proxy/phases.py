"""What a client's connection is doing. In this order: comparisons tell "still serving" from "on its way out"."""

from __future__ import annotations

from typing import Final

IDLE: Final = 0
HEAD: Final = 1
"""Part of a head has come."""
BUSY: Final = 2
"""A request is being served."""
LINGER: Final = 3
"""The last answer is on its way; what comes is thrown away."""
CLOSED: Final = 4
TUNNEL: Final = 5
"""It has left HTTP: `tunnel.Tunnel` has the transport."""
