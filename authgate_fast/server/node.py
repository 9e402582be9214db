"""`authgate run`: opens what the node needs, then supervises until the end."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field

from authgate_fast.config.state_lock import StateDirError, lock_state_dir
from authgate_fast.server.listening import Address, address_of, open_slots, take_passed
from authgate_fast.server.options import ENVIRONMENT, RunOptions, say
from authgate_fast.server.sd_notify import Notifier


@dataclass(slots=True)
class Opened:
    """The listening sockets of each slot, and how the node is known to its manager."""

    slots: list[list[socket.socket]]
    address: Address
    is_passed: bool
    notifier: Notifier
    ops: list[socket.socket] = field(default_factory=list)


def run_node(options: RunOptions, arguments: list[str]) -> int:
    """Run a node with the words `arguments`, already read as `options`. Raises ListenError."""
    from authgate_fast.server.supervisor import Supervisor

    notifier = Notifier(os.environ)
    if options.state_dir is not None:
        try:
            lock_state_dir(options.state_dir)
        except StateDirError as error:
            say(f"authgate: {error}")
            return ENVIRONMENT
    opened = _open(options, notifier)

    async def run() -> int:
        return await Supervisor(options, arguments, opened).run()

    return asyncio.run(run())


def _open(options: RunOptions, notifier: Notifier) -> Opened:
    passed = take_passed(os.environ)
    ops = passed.ops if passed is not None else []
    if passed is not None and passed.traffic:
        slots = [list(passed.traffic) for _ in range(options.workers)]
        return Opened(slots, address_of(passed.traffic[0]), True, notifier, ops)
    slots = open_slots(options.worker.listen, options.workers)
    return Opened(
        slots, Address(options.worker.listen.host, address_of(slots[0][0]).port), False, notifier, ops
    )
