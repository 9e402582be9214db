"""Which build is tested: `make test` the pure one, `make test-compiled` the compiled one, with the same tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from authgate_fast import is_compiled

# How long one example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_report_header() -> str:
    return f"authgate_fast: {'compiled' if is_compiled() else 'pure Python'}"


def pytest_configure() -> None:
    wanted = os.environ.get("AUTHGATE_TEST_BUILD")
    if wanted and wanted != ("compiled" if is_compiled() else "pure"):
        raise pytest.UsageError(f"the {wanted} build should be tested, but the other one was imported")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_compiled():
        skip = pytest.mark.skip(reason="replaces a method or name that compiled code calls directly")
        for item in items:
            if item.get_closest_marker("replaces_insides"):
                item.add_marker(skip)
