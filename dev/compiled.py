"""Keeps a compiled build of the package in build/compiled, for the tests and the bench: ``python -m dev.compiled``.

The checkout itself stays pure, so that an edit always counts. A digest of all that goes into the build
tells whether it must be made anew. It prints the directory to put on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "compiled"
_STAMP = "made-from"
_LOG_TAIL_LINES = 30


class CompileError(Exception):
    """There is no compiled build; the text says why."""


def is_compilable(source: Path) -> bool:
    """Tell whether a source tree knows how to be compiled; older revisions do not."""
    return (source / "setup.py").exists()


def compile_in_place(source: Path) -> None:
    """Compile the package of a source tree that nobody edits, beside its sources. Raises CompileError."""
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=source,
        env={**os.environ, "AUTHGATE_COMPILE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_TAIL_LINES:])
        raise CompileError(
            "the request path was not compiled; it needs a C compiler, Python's headers and "
            f"`pip install -e '.[compile]'`. What the build said:\n{tail}"
        )


def refresh(root: Path = ROOT, target: Path = BUILD) -> Path:
    """Return the directory of a compiled build of `root`, made anew if anything changed."""
    wanted = _digest(root)
    stamp = target / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return target
    print("Compiling the request path (half a minute)", file=sys.stderr, flush=True)
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file in _ingredients(root):
        copy = fresh / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    compile_in_place(fresh)
    (fresh / _STAMP).write_text(wanted)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def _ingredients(root: Path) -> list[Path]:
    package = [
        file
        for file in (root / "authgate_fast").rglob("*")
        if file.is_file() and file.suffix not in {".so", ".pyc"}
    ]
    return sorted(
        [*package, root / "setup.py", root / "pyproject.toml", root / "README.md", root / "dev/backend.py"]
    )


def _digest(root: Path) -> str:
    digest = hashlib.sha256(f"{sys.version} {_version('mypy')} {_version('setuptools')}".encode())
    for file in _ingredients(root):
        digest.update(b"\0%b\0" % str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main() -> int:
    """Make the build if need be, and print where it is."""
    try:
        print(refresh())
    except CompileError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
