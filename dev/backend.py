"""The build backend: setuptools', and mypyc among its requirements when a compiled build is asked for.

An editable install never compiles: what was compiled once would go on running after an edit.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

COMPILER = "mypy>=2.3,<3"


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what a wheel needs to be built."""
    needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if os.environ.get("AUTHGATE_COMPILE", "0") not in {"", "0"}:
        needed.append(COMPILER)
    return needed


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build a pure editable wheel."""
    os.environ["AUTHGATE_COMPILE"] = "0"
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name
