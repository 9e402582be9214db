"""Renders the tables of README.md from the code: ``python -m dev.render_docs``, or ``make docs``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of NAME -->``; what is between them is
replaced whole. `render` changes text only, so that a test can compare.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from authgate_fast import errors, limits

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def limits_table() -> str:
    """Return every limit with its default and its reason, as ``limits.py`` documents it."""
    reasons = _field_docs(ROOT / "authgate_fast" / "limits.py", "Limits")
    lines = ["| limit | default | what and why |", "| --- | --- | --- |"]
    for field in fields(limits.Limits):
        default = "none" if field.default is None else f"{field.default:.12g}"
        name = f"`{field.name}`" + (" *" if field.name in limits.NARROWABLE else "")
        lines.append(f"| {name} | {default} | {reasons[field.name]} |")
    return "\n".join(lines) + "\n"


def _field_docs(source: Path, name: str) -> dict[str, str]:
    """Return the string that stands under each field of a class; from the source, for a compiled class has none."""
    (definition,) = (
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    docs: dict[str, str] = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            docs[ast.unparse(field.target)] = " ".join(
                str(ast.literal_eval(text.value)).replace("``", "`").split()
            )
    return docs


TABLES: dict[str, Callable[[], str]] = {"errors": errors.markdown_table, "limits": limits_table}


def render(text: str) -> str:
    """Return `text` with every table as the code has it. Raises ValueError if a table has no place."""
    for name, table in TABLES.items():
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        rows = table()
        text, count = place.subn(lambda m, rows=rows: f"{m[1]}\n{rows}\n{m[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"README.md has {count} places for the table {name}, not 1")
    return text


def main() -> int:
    """Write README.md anew; return the exit code."""
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
