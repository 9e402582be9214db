"""Reads a secret of the configuration from where it stands: each time it is needed, so that it can be changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.auth.secret import SecretRef

MAX_SECRET_BYTES = 4_096


class SecretError(Exception):
    """A secret cannot be read. The text names the place and never a part of the secret."""


def read_secret(ref: SecretRef) -> str:
    """Return the secret. One line end at the end of a file is not part of it. Raises `SecretError`."""
    if ref.text is not None:
        return ref.text
    if ref.env is not None:
        place = f"the environment variable {ref.env}"
        text = os.environ.get(ref.env)
        if text is None:
            raise SecretError(f"{place} is not set")
    else:
        place = f"the file {ref.file}"
        text = _read_file(ref.file or "", place)
    if not text:
        raise SecretError(f"{place} is empty")
    if len(text) > MAX_SECRET_BYTES:
        raise SecretError(f"{place} holds more than {MAX_SECRET_BYTES} characters")
    if not text.isprintable():
        raise SecretError(f"{place} holds line ends or control characters")
    return text


def _read_file(path: str, place: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SECRET_BYTES + 3)
    except OSError as error:
        raise SecretError(f"{place} cannot be read ({error.strerror})") from None
    try:
        return data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError(f"{place} is not text in UTF-8") from None
