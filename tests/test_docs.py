from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from authgate_fast import cli
from authgate_fast.config.check import check_file
from authgate_fast.errors import Reason, markdown_table
from authgate_fast.limits import Limits
from dev.render_docs import limits_table, render

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"^#+ ", README.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_error_table_is_the_one_of_the_code() -> None:
    assert markdown_table() in section("Errors")
    assert all(f"`{reason.value}`" in section("Errors") for reason in Reason)


def test_the_limits_table_is_the_one_of_the_code() -> None:
    assert limits_table() in section("Limits")
    assert all(f"`{field.name}`" in section("Limits") for field in fields(Limits))


def test_rendering_the_readme_again_changes_nothing() -> None:
    assert render(README) == README


def test_a_readme_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the table errors"):
        render(README.replace("<!-- table: errors -->", ""))


@pytest.mark.parametrize(
    "command", re.findall(r"^\| `authgate ([a-z]+)", section("Running"), flags=re.MULTILINE)
)
def test_every_command_of_the_readme_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"authgate {command}" in capsys.readouterr().out


def test_every_option_of_run_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options
    assert [option for option in sorted(options) if f"`{option}" not in section("Running")
            and f"or `{option}" not in section("Running")] == []  # fmt: skip


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:config|bench|tests)/[\w./-]+\.\w+)`", README))))
def test_every_file_that_the_readme_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)`?", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_httptools_and_h11_are_not_older_than_their_fixes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"h11>=0.16", "httptools>=0.8"} <= set(project["project"]["dependencies"])


DOCS = sorted((ROOT / "docs").glob("*.md"))


def test_every_page_that_the_readme_links_exists_and_every_page_is_linked() -> None:
    linked = set(re.findall(r"\]\((docs/[a-z0-9-]+\.md)\)", README))
    assert linked == {f"docs/{page.name}" for page in DOCS}
    assert {f"docs/auth-{kind}.md" for kind in ("basic", "jwt", "oauth2", "bff")} <= linked


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_configuration_of_the_docs_is_good(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```yaml\n(gateways:.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert blocks or not page.name.startswith("auth-")
    for block in blocks:
        file = tmp_path / "config.yaml"
        file.write_text(block, encoding="utf-8")
        assert check_file(file) == []
