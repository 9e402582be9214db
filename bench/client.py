"""What the bench's own clients share: their line of results, and a head to begin with.

Each is a program of its own, ``python -m bench.NAME FILE``, pinned to the cores of the load; FILE has its task as JSON.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.workload import RESULT_MARK

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,15})\r\n", re.IGNORECASE)
MAX_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Task:
    """What a client is to do: these heads in turn, to this port of 127.0.0.1, on so many connections."""

    port: int
    heads: list[str]
    connections: int
    seconds: float
    body_bytes: int = 0
    per_s: float = 0.0


def read_task() -> Task:
    """Read the task that the command line names."""
    return Task(**json.loads(Path(sys.argv[1]).read_text()))


@dataclass(slots=True)
class Tally:
    """What a client counts. Latencies are in seconds; `errors` are requests without a whole answer."""

    requests: int = 0
    refused: int = 0
    errors: int = 0
    bytes: int = 0

    def add(self, other: Tally) -> None:
        """Take another one's counts in."""
        self.requests += other.requests
        self.refused += other.refused
        self.errors += other.errors
        self.bytes += other.bytes


def print_result(tally: Tally, duration_s: float, latencies_s: Sequence[float] = ()) -> None:
    """Print the line that `load.parse_result` reads."""
    ordered = sorted(latencies_s)
    numbers: dict[str, Any] = {
        "requests": tally.requests,
        "duration_us": duration_s * 1e6,
        "p50_us": quantile(ordered, 0.5) * 1e6,
        "p99_us": quantile(ordered, 0.99) * 1e6,
        "refused": tally.refused,
        "connect": 0,
        "read": tally.errors,
        "write": 0,
        "timeout": 0,
        "bytes": tally.bytes,
    }
    print(RESULT_MARK + json.dumps(numbers), flush=True)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read until the end of a head; return it, and what came behind it. Raises OSError at the end of the stream."""
    received = b""
    while True:
        head, mark, rest = received.partition(b"\r\n\r\n")
        if mark:
            return head + b"\r\n", rest
        more = connection.recv(65_536)
        if not more or len(received) > MAX_HEAD_BYTES:
            raise OSError("the stream ended, or went on, within a head")
        received += more


def length_of(head: bytes) -> int:
    """Return the Content-Length of a head that `read_head` gave; raise OSError without one."""
    found = _LENGTH.search(head)
    if found is None:
        raise OSError("a head without Content-Length")
    return int(found[1])


def discard(connection: socket.socket, count: int, scratch: bytearray) -> None:
    """Take `count` bytes off the stream. The kernel drops them uncopied (MSG_TRUNC, tcp(7)), which costs little."""
    while count > 0:
        got = connection.recv_into(scratch, min(count, len(scratch)), socket.MSG_TRUNC)
        if not got:
            raise OSError("the stream ended within a body")
        count -= got
