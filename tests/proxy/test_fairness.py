"""A client that pipelines deep gets its answers, but not all of the worker's time at once."""

from __future__ import annotations

import asyncio

from authgate_fast.proxy.context import Context
from authgate_fast.proxy.downstream import MAX_SERVED_AT_ONCE, Downstream
from authgate_fast.proxy.pool import Pools
from tests.proxy.harness import BOUND_S, make_snapshot


class _Transport:
    """Counts what is written; never full."""

    def __init__(self) -> None:
        self.written = 0

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is ever buffered."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is read from here."""

    def resume_reading(self) -> None:
        """Nothing is read from here."""

    def write(self, data: bytes) -> None:
        self.written += 1


async def test_pipelined_refusals_are_answered_in_turns_and_all_of_them() -> None:
    context = Context(asyncio.get_running_loop())
    context.pools = Pools(context)
    context.snapshot = make_snapshot(9)
    transport = _Transport()
    client = Downstream(context)
    client.connection_made(transport)  # type: ignore[arg-type]
    wanted = 5 * MAX_SERVED_AT_ONCE + 3
    client.data_received(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * wanted)
    assert transport.written == MAX_SERVED_AT_ONCE
    async with asyncio.timeout(BOUND_S):
        while transport.written < wanted:
            before = transport.written
            await asyncio.sleep(0)
            assert transport.written - before <= MAX_SERVED_AT_ONCE
    assert transport.written == wanted
    assert not client.read_paused
