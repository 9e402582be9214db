"""The proxy runs on uvloop in production, so its tests do too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from authgate_fast.proxy import timeouts


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep for timeouts every 40 ms instead of every second."""
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)
