"""The proxy runs on uvloop in production, so its tests do too."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from authgate_fast.proxy import timeouts


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep for timeouts every 40 ms instead of every second."""
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)
