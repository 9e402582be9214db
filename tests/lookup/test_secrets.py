"""A secret is read where it stands, and no message holds a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from authgate_fast.auth.secret import SecretRef
from authgate_fast.lookup.secrets import SecretError, read_secret


def test_a_text_is_the_secret() -> None:
    assert read_secret(SecretRef(text=" s \n")) == " s \n"


def test_an_environment_variable_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "one")
    assert read_secret(SecretRef(env="SHOP_SECRET")) == "one"
    monkeypatch.setenv("SHOP_SECRET", "two")
    assert read_secret(SecretRef(env="SHOP_SECRET")) == "two"


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_the_line_end_of_a_file_is_not_part_of_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text.encode())
    assert read_secret(SecretRef(file=str(path))) == "s3cret"


@pytest.mark.parametrize("text", [b"", b"\n", b"two\nlines", b"s\x00", b"\xff\xfe", b"x" * 5_000, b"tab\t"])
def test_what_can_be_no_secret_is_told_without_quoting_it(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text)
    with pytest.raises(SecretError) as caught:
        read_secret(SecretRef(file=str(path)))
    assert str(path) in str(caught.value)
    assert "lines" not in str(caught.value).replace("line ends", "")


def test_a_missing_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(SecretError, match="NO_SUCH is not set"):
        read_secret(SecretRef(env="NO_SUCH"))
    with pytest.raises(SecretError, match="No such file"):
        read_secret(SecretRef(file=str(tmp_path / "none")))
    monkeypatch.setenv("NO_SUCH", "")
    with pytest.raises(SecretError, match="is empty"):
        read_secret(SecretRef(env="NO_SUCH"))
