"""The last good documents on disk, so that a node can start while Redis is away.

One file, ``documents.json``: every document's own text under its Redis key. It is replaced whole (written beside,
flushed to the disk, renamed), so that a reader finds the old or the new one and never a half. It is as secret as
Redis is: mode 0600, in a directory of mode 0700. A file that cannot be used is reported and ignored. A lock keeps
a second node out; of the workers of a node, only one writes. Encoding runs on the loop in short steps, writing
runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from authgate_fast.config.keys import DocumentKey, parse_redis_key, redis_key
from authgate_fast.config.state_lock import StateDirError, lock_state_dir
from authgate_fast.config.texts import Texts

__all__ = ["StateDir", "StateDirError"]

FILE_NAME = "documents.json"
FORMAT = 1
DEBOUNCE_S = 1.0
RETRY_S = 10.0
_STEP = 500

log = logging.getLogger("authgate.state")


class StateDir:
    """One node's directory: made if it is missing, and locked until `close` or the process's end.

    `is_locked`: the supervisor holds the lock. `writes`: this worker keeps the file up to date; all may read it.
    Raises StateDirError for a directory that cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        debounce_s: float = DEBOUNCE_S,
        *,
        is_locked: bool = False,
        writes: bool = True,
    ) -> None:
        self.path = Path(path)
        self._debounce_s = debounce_s
        self._lock_fd: int | None = None if is_locked else lock_state_dir(self.path)
        self._writes = writes
        self._changed = asyncio.Event()
        self._write_lock = threading.Lock()
        self._turn = self._written_turn = 0
        self._last_error = ""

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def load(self) -> dict[DocumentKey, bytes]:
        """Return the documents of the last run; none if there is no file, or if it is damaged."""
        file = self.path / FILE_NAME
        try:
            return _decode(file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.error("the saved documents in %s cannot be used and are ignored: %s", file, why)
            return {}

    def note_change(self) -> None:
        """Have the documents written soon."""
        if self._writes:
            self._changed.set()

    async def run(self, documents: Texts) -> None:
        """Write `documents` after each change, once in ``debounce_s``; the last ones also when cancelled."""
        pending = False
        try:
            while True:
                await self._changed.wait()
                pending = True
                await asyncio.sleep(self._debounce_s)
                self._changed.clear()
                pieces = []
                for piece in _encode(documents):
                    pieces.append(piece)
                    await asyncio.sleep(0)
                self._turn += 1
                if await asyncio.to_thread(self._write, pieces, self._turn):
                    pending = False
                else:
                    self._changed.set()
                    await asyncio.sleep(RETRY_S)
        finally:
            if pending or self._changed.is_set():
                self._changed.clear()
                self._turn += 1
                self._write(_encode(documents), self._turn)

    def _write(self, pieces: Iterable[bytes], turn: int) -> bool:
        """Replace the file; tell whether that went well. A failure is said once, until it changes.

        A thread that comes late, when a later `turn` has been written, leaves the file as it is.
        """
        # While workers are replaced two of them may write.
        file, temporary = self.path / FILE_NAME, self.path / f"{FILE_NAME}.{os.getpid()}.new"
        try:
            with self._write_lock:
                if turn < self._written_turn:
                    return True
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with open(fd, "wb") as stream:
                    stream.writelines(pieces)
                    stream.flush()
                    os.fsync(fd)
                temporary.replace(file)
                self._sync_directory()
                self._written_turn = turn
        except OSError as error:
            why = error.strerror or str(error)
            if why != self._last_error:
                log.error("the documents cannot be saved in %s: %s; trying again", self.path, why)
            self._last_error = why
            return False
        self._last_error = ""
        return True

    def _sync_directory(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _encode(documents: Texts) -> Iterator[bytes]:
    """Yield the file in pieces of a few hundred documents; each text stays exactly what it is in Redis.

    The documents may change between two pieces; whoever changes them has them written again.
    """
    yield b'{"format":%d,"documents":{' % FORMAT
    dumps, separator = orjson.dumps, b"\n"
    for page in documents.pages(_STEP):
        texts = [(key, documents.get(key)) for key in page]
        lines = [
            dumps(redis_key(key)) + b":" + dumps(text.decode("utf-8"))
            for key, text in texts
            if text is not None
        ]
        if lines:
            yield separator + b",\n".join(lines)
            separator = b",\n"
    yield b"\n}}\n"


def _decode(data: bytes) -> dict[DocumentKey, bytes]:
    content = orjson.loads(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("it is not a file of this version")
    texts = content.get("documents")
    if not isinstance(texts, dict):
        raise ValueError("it holds no documents")
    documents = {}
    for name, text in texts.items():
        key = parse_redis_key(name)
        if key is None or not isinstance(text, str):
            raise ValueError("it holds something that is no document")
        documents[key] = text.encode("utf-8")
    return documents
