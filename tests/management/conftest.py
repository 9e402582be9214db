from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.management.kit import Command
from tests.redis_server import RedisServer, redis_server

__all__ = ["redis_server"]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def authgate(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("AUTHGATE_REDIS", redis_server.url)
    return Command(capsys)
