"""The management side: it writes the documents that the runtime reads. Never imported by the data plane."""

from __future__ import annotations

import argparse

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.problems import Problem as Problem


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the management subcommands."""


def read_documents(url: str) -> dict[DocumentKey, bytes] | None:
    """Read all documents from Redis; None (and a line on stderr) if it cannot be reached."""
    return None
