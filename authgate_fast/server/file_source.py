"""Documents from a file that is watched: a bad edit keeps the last good state and says why.

An edit is read and checked in a thread and taken in by steps, so that a large file holds up no traffic.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from authgate_fast.config.check import check_loaded
from authgate_fast.config.file import LoadedFile, file_signature, load_file, watch_file
from authgate_fast.config.problems import Problem

if TYPE_CHECKING:
    from authgate_fast.config.keys import DocumentKey
    from authgate_fast.config.store import Configuration

_log = logging.getLogger("authgate.config")

_KEPT_IN_MEMORY = {"JWT": "its signing keys and refresh tokens", "BFF": "its browser sessions"}


def why_one_worker(documents: Mapping[DocumentKey, bytes]) -> str | None:
    """Return why several workers cannot serve these documents from a file; None: they can.

    Without Redis the runtime state is in the memory of one process: a token or a session that one worker made
    would be unknown to the next.
    """
    for key, text in documents.items():
        if key.kind != "gateway":
            continue
        gateway = orjson.loads(text)
        kept = _KEPT_IN_MEMORY.get(gateway.get("auth", {}).get("type"))
        if kept is not None and gateway.get("enabled", True):
            return (
                f"gateway {key.name} ({gateway['auth']['type']}) with documents from a file keeps {kept} in the "
                "memory of one process"
            )
    return None


class FileSource:
    """Feeds a `Configuration` from one YAML or JSON file. `alone`: no other worker serves it."""

    def __init__(self, path: Path, configuration: Configuration, *, alone: bool = True) -> None:
        self._path = path
        self._configuration = configuration
        self._problems: list[Problem] = []
        self._loaded_at = 0.0
        self._seen = file_signature(path)
        self._alone = alone

    def load(self) -> list[Problem]:
        """Read the file and put it in force if it has no mistake; return the mistakes."""
        self._seen = file_signature(self._path)
        loaded, self._problems = self._read()
        if not self._problems:
            self._configuration.replace_all(loaded.documents)
            self._loaded_at = time.time()
        return self._problems

    def _read(self) -> tuple[LoadedFile, list[Problem]]:
        loaded = load_file(self._path)
        return loaded, check_loaded(loaded)

    async def run(self) -> None:
        """Watch until cancelled."""
        await watch_file(self._path, self._changed, since=self._seen)

    async def _changed(self) -> None:
        before = self._configuration.revision
        loaded, self._problems = await asyncio.to_thread(self._read)
        reason = None if self._alone or self._problems else why_one_worker(loaded.documents)
        if reason is not None:
            message = (
                "an edit that several workers can serve; or restart with --workers 1, or with --redis URL"
            )
            self._problems = [Problem(str(self._path), "", reason, message)]
        for problem in self._problems:
            _log.error("%s", problem)
        if self._problems:
            _log.error("%s: %d mistakes; the last good state stays in force", self._path, len(self._problems))
            return
        for _ in self._configuration.replace_all_steps(loaded.documents):
            await asyncio.sleep(0)
        self._loaded_at = time.time()
        if self._configuration.revision != before:
            _log.info("%s: loaded, revision %d", self._path, self._configuration.revision)

    def status(self) -> dict[str, object]:
        """What /status shows of the source."""
        return {
            "type": "file",
            "path": str(self._path),
            "loaded_at": round(self._loaded_at, 3),
            "problems": [str(problem) for problem in self._problems],
        }
