"""The builds of the gateway that a run measures: this checkout or a git revision, as it is or compiled."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from bench.processes import BenchError, MissingToolError
from dev.compiled import CompileError, compile_in_place, is_compilable, refresh

ROOT = Path(__file__).resolve().parent.parent


def build_here(*, compiled: bool) -> Path:
    """Return the directory of the checkout's build."""
    if not compiled:
        return ROOT
    try:
        return refresh(ROOT)
    except CompileError as error:
        raise MissingToolError(f"{error}\nWithout a compiled build, the sources can be measured.") from None


def build_revision(revision: str, target: Path, *, compiled: bool) -> Path:
    """Write the files of a revision to `target`, and compile them there if they can be."""
    _export(revision, target)
    if compiled and is_compilable(target):
        try:
            compile_in_place(target)
        except CompileError as error:
            raise BenchError(str(error)) from None
    return target


def _export(revision: str, target: Path) -> None:
    """Write the files of a revision, without touching the checkout or its git directory."""
    git = ["git", "-C", str(ROOT), "archive", "--format=tar", "--end-of-options", revision]
    done = subprocess.run(git, capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"--against {revision}: {done.stderr.decode(errors='replace')}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")
