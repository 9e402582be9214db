"""The `authgate` command as a user meets it: arguments in, exit code and both outputs out."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from authgate_fast.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Runs commands against one Redis; the address is given by AUTHGATE_REDIS."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self._capsys.readouterr()
        try:
            code = main([*arguments])
        except SystemExit as end:  # how argparse refuses
            code = int(end.code or 0)
        out, err = self._capsys.readouterr()
        return Outcome(code, out, err)
