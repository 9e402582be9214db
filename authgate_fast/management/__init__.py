"""The management side: it writes the documents that the runtime reads. Never imported by the data plane."""

from __future__ import annotations

import argparse

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.problems import Problem
from authgate_fast.management import consumers, credentials, secrets, sessions, transfer
from authgate_fast.management.options import Subparsers, say

__all__ = ["Problem", "read_documents", "register"]


def register(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the management subcommands; each sets ``handler``, which returns the exit code."""
    transfer.add_parser(commands)
    consumers.add_parser(commands)
    credentials.add_parser(commands)
    secrets.add_parser(commands)
    sessions.add_parser(commands)


def read_documents(url: str) -> dict[DocumentKey, bytes] | None:
    """Read all documents from Redis; None (and a line on stderr) if that cannot be done."""
    from authgate_fast.config.redis_link import RedisUrlError
    from authgate_fast.config.redis_store import RedisStore, StoreError

    try:
        with RedisStore(url) as store:
            return store.read_all().documents
    except RedisUrlError as error:
        say(f"authgate: --redis: {error}")
    except StoreError as error:
        say(f"authgate: {error}")
    return None
