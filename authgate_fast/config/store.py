"""(skeleton: signatures only, being written) The documents in force and the snapshot made of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from authgate_fast.config.keys import DocumentKey, Unreadable
from authgate_fast.config.problems import Problem
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.snapshot import Snapshot


class Configuration:
    snapshot: Snapshot
    revision: int
    """Grows with every accepted change, consumers too; a swap gives its value to the snapshot."""
    refused: dict[str, Problem]
    documents: dict[DocumentKey, bytes]
    on_swap: list[Callable[[Snapshot], None]]

    def __init__(self, limits: Limits = DEFAULTS) -> None: ...
    # values: raw JSON bytes; None = deleted; Unreadable(message) = there, but not readable (wrong Redis type,
    # over the size bound): refused with the message, the last good version stays
    def apply(self, changes: Mapping[DocumentKey, bytes | Unreadable | None]) -> None: ...
    def apply_steps(self, changes: Mapping[DocumentKey, bytes | Unreadable | None]) -> Generator[None, None, None]: ...
    def replace_all(self, documents: Mapping[DocumentKey, bytes | Unreadable]) -> None: ...
    def replace_all_steps(self, documents: Mapping[DocumentKey, bytes | Unreadable]) -> Generator[None, None, None]: ...
    def report_malformed(self, key_text: str, message: str) -> None: ...  # logged once per key and message
    def forget_malformed(self, key_text: str) -> None: ...  # the key is gone


def check_documents(documents: Mapping[DocumentKey, bytes]) -> list[Problem]: ...
