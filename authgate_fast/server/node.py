"""`authgate run`: opens what the node needs, then supervises until the end."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field

from authgate_fast.config.state_lock import StateDirError, lock_state_dir
from authgate_fast.server.listening import address_of, open_all, take_passed
from authgate_fast.server.options import ENVIRONMENT, RunOptions, say
from authgate_fast.server.sd_notify import Notifier
from authgate_fast.server.unix_listening import FileId, UnixAddress, file_id, remove_unix


@dataclass(slots=True)
class Opened:
    """The listening sockets of each slot, and how the node is known to its manager."""

    slots: list[list[socket.socket]]
    address: str
    is_passed: bool
    notifier: Notifier
    ops: list[socket.socket] = field(default_factory=list)
    files: list[tuple[UnixAddress, FileId | None]] = field(default_factory=list)


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
    tls = options.worker.tls
    if tls is not None:
        from authgate_fast.server.certificates import CertificateError
        from authgate_fast.server.tls import ServerTls

        try:
            ServerTls(tls).load()
        except CertificateError as error:
            say(f"authgate: {error}")
            return ENVIRONMENT
    if options.worker.access_log is not None:
        from authgate_fast.observe.access_log import AccessLogError, open_access_log

        try:
            os.close(open_access_log(options.worker.access_log))
        except AccessLogError as error:
            say(f"authgate: {error}")
            return ENVIRONMENT
    opened = _open(options, notifier)

    async def run() -> int:
        return await Supervisor(options, arguments, opened).run()

    try:
        return asyncio.run(run())
    finally:
        for address, ours in opened.files:
            remove_unix(address, ours)


def _open(options: RunOptions, notifier: Notifier) -> Opened:
    passed = take_passed(os.environ)
    ops = passed.ops if passed is not None else []
    if passed is not None and passed.traffic:
        slots = [list(passed.traffic) for _ in range(options.workers)]
        said = " and ".join(str(address_of(one)) for one in passed.traffic)
        return Opened(slots, said, True, notifier, ops)
    slots, said = open_all(options.worker.listen, options.workers)
    files = [(one, file_id(one)) for one in options.worker.listen if isinstance(one, UnixAddress)]
    return Opened(slots, said, False, notifier, ops, files)
