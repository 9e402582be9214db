"""Documents from a file that is watched: a bad edit keeps the last good state and says why."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from authgate_fast.config.check import check_loaded
from authgate_fast.config.file import file_signature, load_file, watch_file

if TYPE_CHECKING:
    from authgate_fast.config.problems import Problem
    from authgate_fast.config.store import Configuration

_log = logging.getLogger("authgate.config")


class FileSource:
    """Feeds a `Configuration` from one YAML or JSON file."""

    def __init__(self, path: Path, configuration: Configuration) -> None:
        self._path = path
        self._configuration = configuration
        self._problems: list[Problem] = []
        self._loaded_at = 0.0
        self._seen = file_signature(path)

    def load(self) -> list[Problem]:
        """Read the file and put it in force if it has no mistake; return the mistakes."""
        self._seen = file_signature(self._path)
        loaded = load_file(self._path)
        self._problems = problems = check_loaded(loaded)
        if not problems:
            self._configuration.replace_all(loaded.documents)
            self._loaded_at = time.time()
        return problems

    async def run(self) -> None:
        """Watch until cancelled."""
        await watch_file(self._path, self._changed, since=self._seen)

    def _changed(self) -> None:
        before = self._configuration.revision
        problems = self.load()
        for problem in problems:
            _log.error("%s", problem)
        if problems:
            _log.error("%s: %d mistakes; the last good state stays in force", self._path, len(problems))
        elif self._configuration.revision != before:
            _log.info("%s: loaded, revision %d", self._path, self._configuration.revision)

    def status(self) -> dict[str, object]:
        """What /status shows of the source."""
        return {
            "type": "file",
            "path": str(self._path),
            "loaded_at": round(self._loaded_at, 3),
            "problems": [str(problem) for problem in self._problems],
        }
