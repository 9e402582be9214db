"""The two builds: what says which one runs, and when the compiled one is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from authgate_fast import __version__, is_compiled
from dev import compiled
from tests.running import authgate


def test_the_version_names_the_build() -> None:
    build = "compiled" if is_compiled() else "pure Python"
    assert authgate("--version").stdout == f"authgate {__version__} ({build})\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in ("authgate_fast/plan.py", "setup.py", "pyproject.toml", "README.md", "dev/backend.py"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def test_the_compiled_build_is_made_once_and_again_after_an_edit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        compiled,
        "compile_in_place",
        lambda source: made.append((source / "authgate_fast" / "plan.py").read_text()),
    )
    target = checkout / "build" / "compiled"
    source = checkout / "authgate_fast" / "plan.py"
    for text in ("one", "one", "two"):
        source.write_text(text)
        assert compiled.refresh(checkout, target) == target
    (checkout / "authgate_fast" / "new.py").write_text("")
    compiled.refresh(checkout, target)
    assert made == ["one", "two", "two"]
    assert (target / "authgate_fast" / "new.py").exists()


def test_a_build_that_fails_leaves_the_one_before_and_is_tried_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = checkout / "build" / "compiled"
    monkeypatch.setattr(compiled, "compile_in_place", lambda source: None)
    compiled.refresh(checkout, target)
    monkeypatch.undo()
    (checkout / "setup.py").write_text("raise SystemExit('no compiler here')")
    for _ in range(2):
        with pytest.raises(compiled.CompileError, match="no compiler here"):
            compiled.refresh(checkout, target)
    assert (target / "setup.py").read_text() == "setup.py"


def test_compiled_files_of_a_checkout_are_not_taken_over(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "compile_in_place", lambda source: None)
    (checkout / "authgate_fast" / "plan.cpython-311.so").write_text("old")
    target = compiled.refresh(checkout, checkout / "build" / "compiled")
    assert [file.name for file in (target / "authgate_fast").iterdir()] == ["plan.py"]
