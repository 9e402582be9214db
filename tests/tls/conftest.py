"""The proxy runs on uvloop in production, so these tests do too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import trustme
import uvloop

from authgate_fast.proxy import timeouts
from authgate_fast.server import tls


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep for timeouts every 40 ms instead of every second."""
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)


@pytest.fixture
def fast_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at certificate files every 20 ms instead of every two seconds."""
    monkeypatch.setattr(tls, "LOOK_S", 0.02)
