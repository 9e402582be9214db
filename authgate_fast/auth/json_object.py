"""JSON objects from strangers, read in one way only (RFC 8259; RFC 7515 section 4, RFC 7519 section 4). Pure.

Refused besides what is no JSON: a name that stands twice in one object, at any depth, which two readers would read
differently; NaN and infinities; text that is not UTF-8; nesting beyond what the parsers take.
"""

from __future__ import annotations

import json
from typing import Any

import orjson


class JsonError(ValueError):
    """A text is not a JSON object, or can be read in two ways; the text of the error quotes nothing of it."""


def read_object(text: bytes) -> dict[str, Any]:
    """Return the object that `text` is. Raises JsonError."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise JsonError("it is not JSON") from None
    if not isinstance(value, dict):
        raise JsonError("it is not a JSON object")
    try:
        # orjson takes the last of two; only the other parser shows both.
        json.loads(text.decode("utf-8"), object_pairs_hook=_check_names)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, JsonError) else "it is nested too deep"
        raise JsonError(reason) from None
    return value


def _check_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise JsonError("a name stands twice in it")
