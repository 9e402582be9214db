"""Unix sockets to listen on: made with their permissions, taken over when nobody listens any more, removed at the end.

A socket file outlives a process that was killed. It is removed only if it is a socket and a connect is refused:
somebody who listens is never pushed aside, and nothing else is ever deleted.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from dataclasses import dataclass

DEFAULT_MODE = 0o660
"""The owner and the group may connect."""
MAX_PATH_BYTES = 107
_CONNECT_S = 1.0

_split = re.compile(r"unix:(/[^:\x00-\x1f\x7f]*[^:/\x00-\x1f\x7f])(?::([0-7]{3,4}))?").fullmatch


@dataclass(slots=True, frozen=True)
class UnixAddress:
    """The path of a socket, and the permissions of its file."""

    path: str
    mode: int = DEFAULT_MODE

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_unix(text: str) -> UnixAddress:
    """Read ``unix:/path`` or ``unix:/path:660``. Raises ValueError with a sentence for a user."""
    match = _split(text)
    if match is None:
        raise ValueError(
            f"{text}: write it as unix:/run/authgate.sock or, with permissions, unix:/run/authgate.sock:660"
        )
    path, mode = match.groups()
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ValueError(f"{text}: the path of a Unix socket has at most {MAX_PATH_BYTES} bytes")
    return UnixAddress(path, DEFAULT_MODE if mode is None else int(mode, 8))


def open_unix(address: UnixAddress) -> socket.socket:
    """Return a socket that is bound, with a file of the right permissions from the start. Raises OSError."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _bind(one, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_behind(address.path):
                raise
            os.unlink(address.path)
            _bind(one, address)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _bind(one: socket.socket, address: UnixAddress) -> None:
    before = os.umask(0o777 & ~address.mode)
    try:
        one.bind(address.path)
    finally:
        os.umask(before)


def _is_left_behind(path: str) -> bool:
    """Tell whether a file is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


FileId = tuple[int, int]


def file_id(address: UnixAddress) -> FileId | None:
    """Return what tells this socket's file from one that another process puts in its place."""
    try:
        status = os.lstat(address.path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def remove_unix(address: UnixAddress, ours: FileId | None) -> None:
    """Remove the socket's file, if it is still the one that `file_id` named."""
    if ours is not None and file_id(address) == ours:
        try:
            os.unlink(address.path)
        except OSError:
            pass  # it is gone, or the directory is no longer ours: there is nothing to be done
