"""The access log: lines are gathered on the loop and written by a thread, so that a slow disk never holds up a request.

What waits to be written is bounded; past the bound lines are dropped and counted, for traffic is worth more than its
log. `reopen` is for log rotation (SIGUSR1). Several workers may write to one file: each write is made of whole lines
and appended in one call.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import threading
import time
from typing import TYPE_CHECKING, Final

from authgate_fast.proxy.access_line import Clock, Entry, Lines, combined_line, json_line

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

_log = logging.getLogger("authgate.access")

BATCH_BYTES: Final = 262_144
"""Some 500 lines. A write costs the kernel some 20 us, however short it is."""
FLUSH_S = 0.25
"""The longest that a line waits for others before it goes to the thread."""
MAX_WAITING_BYTES = 8_388_608
"""Lines that wait for the disk: some 20,000. Beyond it they are dropped."""
CLOSE_TIMEOUT_S = 2.0
COMPLAIN_EVERY_S: Final = 60.0
_FORMATS: Final[dict[str, Callable[[Entry, Clock], bytes]]] = {"json": json_line, "combined": combined_line}
FORMATS: Final = tuple(_FORMATS)


class AccessLogError(Exception):
    """The access log cannot be opened; the text says where, why and what to do."""


def open_access_log(path: str) -> int:
    """Open a file for appending ("-": standard output) and return its descriptor. Raises AccessLogError."""
    if path == "-":
        return os.dup(1)
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise AccessLogError(
            f"the access log {path} cannot be written: {error.strerror}. "
            "Choose another place with --access-log FILE, or - for standard output."
        ) from error


class AccessLog:
    """Writes entries to `path` ("-": standard output) in one of `FORMATS`. Raises AccessLogError.

    ``take`` is called with each entry; ``lines`` and ``dropped_lines`` count since the start.
    """

    def __init__(self, path: str, line_format: str, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self.take = Lines(_FORMATS[line_format], BATCH_BYTES, self._begun, self.flush)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._work: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._reopen = False
        self._stop = False
        self._complained_s = -COMPLAIN_EVERY_S
        self.lines = 0
        self.dropped_lines = 0
        self._fd = open_access_log(path)
        self._is_pipe = _is_pipe(self._fd)
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    # --- on the loop --------------------------------------------------------------------------------

    def _begun(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Hand what was gathered to the thread, or drop it if too much waits there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self.take.take()
        if not batch:
            return
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._dropped(len(batch), "they are written more slowly than requests come")
            return
        data = b"".join(batch)
        with self._lock:
            self._waiting_bytes += len(data)
        self._work.put((data, len(batch)))

    def reopen(self) -> None:
        """Open the file anew, after what was logged before: somebody has moved it away."""
        self.flush()
        self._reopen = True
        self._work.put((b"", 0))

    def close(self) -> None:
        """Write what is there, within a bound, and end."""
        self.flush()
        self._work.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the thread has not written yet."""
        return self._waiting_bytes

    # --- in the thread ------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                break
            data, lines = work
            if self._reopen and not data:
                self._reopen = False
                self._open_anew()
            elif data:
                self._write(data, lines)
                with self._lock:
                    self._waiting_bytes -= len(data)
        os.close(self._fd)

    def _open_anew(self) -> None:
        try:
            fd = open_access_log(self._path)
        except AccessLogError as error:
            _log.error("%s Still writing to the old file.", error)
            return
        os.close(self._fd)
        self._fd = fd
        self._is_pipe = _is_pipe(fd)

    def _write(self, data: bytes, lines: int) -> None:
        """Append so many whole lines; a pipe takes each call whole only up to PIPE_BUF bytes."""
        try:
            if self._is_pipe:
                for piece in _pieces(data, select.PIPE_BUF):
                    self._write_whole(piece)
            else:
                self._write_whole(data)
        except OSError as error:
            self._dropped(lines, error.strerror or str(error))
            return
        with self._lock:
            self.lines += lines

    def _write_whole(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        while written < len(data):
            written += os.write(self._fd, data[written:])

    def _dropped(self, lines: int, why: str) -> None:
        with self._lock:
            self.dropped_lines += lines
            now_s = time.monotonic()
            if now_s - self._complained_s < COMPLAIN_EVERY_S:
                return
            self._complained_s = now_s
        _log.warning("access log %s: lines are dropped: %s", self._path, why)


def _is_pipe(fd: int) -> bool:
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def _pieces(data: bytes, most: int) -> Iterator[bytes]:
    """Cut whole lines into pieces of at most `most` bytes, or of one line that is longer."""
    start = end = 0
    while end < len(data):
        line_end = data.index(b"\n", end) + 1
        if line_end - start > most and end > start:
            yield data[start:end]
            start = end
        end = line_end
    yield data[start:]
