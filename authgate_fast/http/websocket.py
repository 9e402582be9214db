"""Where one WebSocket frame ends and the next begins (RFC 6455 section 5.2), so that a goodbye never lands inside one.

A `FrameTracker` counts over the frames of one direction; it looks at their heads only, never changes a byte, and where
something is not the framing of RFC 6455 it gives up for good (``broken``) and harms nothing. Sans-IO.
"""

from __future__ import annotations

import secrets
from typing import Final

GOING_AWAY: Final = 1_001
POLICY_VIOLATION: Final = 1_008
_CLOSE: Final = 0x8
_OPCODES: Final = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))
_MAX_CONTROL_BYTES: Final = 125


def close_frame(code: int, *, masked: bool) -> bytes:
    """Write a Close frame with a status code (RFC 6455 section 5.5.1); what a client sends is masked."""
    payload = code.to_bytes(2, "big")
    if not masked:
        return b"\x88\x02" + payload
    key = secrets.token_bytes(4)  # unpredictable, section 5.3
    return b"\x88\x82" + key + bytes((payload[0] ^ key[0], payload[1] ^ key[1]))


class FrameTracker:
    """Follows the frames of one direction, a client's if ``masked``. ``closed``: a whole Close frame has gone by."""

    __slots__ = ("_closing", "_head", "_left", "broken", "closed", "masked")

    def __init__(self, *, masked: bool) -> None:
        self.masked = masked
        self.broken = False
        self.closed = False
        self._closing = False
        self._head = b""
        self._left = 0

    @property
    def at_boundary(self) -> bool:
        """Tell whether a frame may begin here; never once the framing is lost."""
        return not self._left and not self._head and not self.broken

    def feed(self, data: bytes, *, stop: bool = False) -> int:
        """Go over `data`; with `stop` only up to the first place where a frame ends. Return how far it went."""
        size = len(data)
        at = 0
        while at < size and not self.broken:
            left = self._left
            if left:
                if size - at < left:
                    self._left = left - (size - at)
                    return size
                at += left
                self._left = 0
                self._frame_ended()
                if stop:
                    return at
                continue
            at = self._read_head(data, at)
            if not self._head and not self._left and not self.broken:
                self._frame_ended()
                if stop:
                    return at
        return size

    def _frame_ended(self) -> None:
        if self._closing:
            self.closed = True

    def _read_head(self, data: bytes, at: int) -> int:
        """Read a frame's head, or as much of it as there is; return where its payload begins."""
        had = len(self._head)
        head = self._head + data[at : at + 14 - had]
        size = 2
        length = 0
        if len(head) >= 2:
            first, second = head[0], head[1]
            length = second & 0x7F
            if length == 126:
                size = 4
            elif length == 127:
                size = 10
            opcode = first & 0x0F
            control = opcode & 0x08
            if (
                opcode not in _OPCODES
                or (second >= 0x80) != self.masked
                or (control and (length > _MAX_CONTROL_BYTES or first < 0x80))
            ):
                self.broken = True
                return at
            if len(head) >= size > 2:
                length = int.from_bytes(head[2:size], "big")
                if length >> 63:
                    self.broken = True
                    return at
            if self.masked:
                size += 4
        if len(head) < size:
            self._head = head
            return at + len(head) - had
        self._head = b""
        self._left = length
        self._closing = head[0] & 0x0F == _CLOSE
        return at + size - had
