"""The state directory and its lock, which keeps a second node out.

The supervisor takes the lock for all workers of its node, so this imports nothing that it would not want.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_NAME = "lock"


class StateDirError(Exception):
    """The directory cannot be used; the text is a sentence for a user."""


def lock_state_dir(path: Path) -> int:
    """Make the directory if it is missing and lock it until the returned descriptor is closed. Raises
    StateDirError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirError(
            f"the state directory {path} cannot be used: {error.strerror}; "
            "give --state-dir a directory that this user may write"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise StateDirError(
            f"the state directory {path} is in use by another running node; give each node its own --state-dir"
        ) from None
    for half_written in path.glob("*.new"):
        half_written.unlink(missing_ok=True)  # of a process that was killed; nobody writes now
    return fd
