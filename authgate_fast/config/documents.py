"""From JSON bytes to a validated document, or to every problem it has. Pure, no IO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from authgate_fast.config.keys import DocumentKey, redis_key
from authgate_fast.config.problems import Problem, explain
from authgate_fast.model import MODELS, AnyDocument

MAX_DOCUMENT_BYTES = 1_048_576
"""One document; a large route is a few kilobytes, so more than this is something else by mistake."""

_VALIDATE = {kind: model.__pydantic_validator__.validate_json for kind, model in MODELS.items()}
NESTED_IN_GATEWAY = ("services", "routes", "consumers")
"""What a file writes inside a gateway document and Redis holds under keys of its own."""


class _DoubledFieldError(ValueError):
    """A JSON object names a field twice."""


def read_document(key: DocumentKey, raw: bytes) -> AnyDocument | list[Problem]:
    """Validate the JSON of the document `key`; the problems name its Redis key."""
    return read_document_at(key, raw, "", "")


def read_document_at(key: DocumentKey, raw: bytes, where: str, path: str) -> AnyDocument | list[Problem]:
    """Do the same for a document that stands at `path` in the file `where`."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        message = f"a document has at most {MAX_DOCUMENT_BYTES} bytes"
        return [Problem(where or redis_key(key), path, f"{len(raw)} bytes", message)]
    try:
        document: AnyDocument = _VALIDATE[key.kind](raw)
        # Parsers differ in which of two fields of one name they take; ours would not even say so.
        if not _has_all_strings(raw):
            _doubled_fields(raw.decode("utf-8"))
    except ValidationError as error:
        also = NESTED_IN_GATEWAY if path and key.kind == "gateway" else ()
        return explain(error, MODELS[key.kind], where or redis_key(key), path, also)
    except _DoubledFieldError as error:
        return [Problem(where or redis_key(key), path, f"the field {error} twice", "write each field once")]
    return document


def summarise(problems: Sequence[Problem]) -> Problem:
    """Return the first problem of a document, with the number of the others."""
    first = problems[0]
    others = len(problems) - 1
    if not others:
        return first
    places = ", ".join(problem.path or "the document" for problem in problems[1:4])
    more = f"{others} more: {places}{', ...' if others > 3 else ''}"
    hint = f"{first.hint}; {more}" if first.hint else more
    return Problem(first.where, first.path, first.found, first.message, hint)


def _has_all_strings(raw: bytes) -> bool:
    """Tell, in a third of the time, whether no field of this JSON was dropped for another of its name.

    Each name and each text stands between two quotes; a field that was dropped leaves quotes that belong to nothing.
    False also where an escape makes the count worthless.
    """
    if b"\\" in raw:
        return False
    try:
        value = orjson.loads(raw)
    except ValueError:  # it is stricter than the parser of the documents
        return False
    return raw.count(b'"') == 2 * _count_strings(value)


def _count_strings(value: Any) -> int:
    """Count the names and texts in an object or array."""
    count, items = (len(value), value.values()) if type(value) is dict else (0, value)
    for item in items:
        if type(item) is str:
            count += 1
        elif type(item) is dict or type(item) is list:
            count += _count_strings(item)
    return count


def _check_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DoubledFieldError(name)
            seen.add(name)
    return fields


_doubled_fields = json.JSONDecoder(object_pairs_hook=_check_pairs).decode
