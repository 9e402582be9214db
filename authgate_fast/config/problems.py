"""Mistakes in documents, said so that a beginner can mend them.

A `Problem` names the place, what stands there and what is allowed. It never holds a secret: values
are shown short, and not at all where a key, a hash or a password could stand. Pure, no IO.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from authgate_fast.limits import NARROWABLE, Limits
from authgate_fast.model_auth import AUTH_MODELS
from authgate_fast.model_balance import UNION_TAGS

MAX_SHOWN = 60
_SECRET_FIELDS = frozenset(
    {
        "api_key_sha256",
        "sha256",
        "api_keys",
        "password_hash",
        "hash",
        "passwords",
        "client_secret",
        "password",
        "secret",
        "api_key",
    }
)
_DOCUMENT = "a mapping of fields"
_ABSENT = object()
_NODE_LIMITS = frozenset(field.name for field in fields(Limits)) - NARROWABLE
# What may be a credential or made from one: our keys, long hex or base64 runs, PHC strings, user info.
_looks_secret = re.compile(r"agk_|\$argon2|[A-Za-z0-9+]{32}|://[^/]*@").search


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``where`` is a file (with its line) or a Redis key, ``path`` the field in it.

    ``message`` says what is allowed, ``hint`` what was probably meant; ``found`` and ``hint`` may be empty.
    """

    where: str
    path: str
    found: str
    message: str
    hint: str = ""
    loc: tuple[str | int, ...] = field(default=(), repr=False, compare=False)
    """``path`` in parts, from the document on; a file finds the line by it."""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        found = f"found {self.found}; " if self.found else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {found}{self.message}{hint}"


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """Return ``did you mean `x`?`` for the one of `allowed` that is closest to `wrong`, or nothing."""
    names = list(allowed)
    by_fold = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(wrong.casefold()[:MAX_SHOWN], by_fold, n=1, cutoff=0.6)
    return f"did you mean `{by_fold[near[0]]}`?" if near else ""


def show(value: object) -> str:
    """Describe a value in a few words that give no secret away."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        text = repr(value)
        return text if len(text) <= MAX_SHOWN else "a very long number"
    if isinstance(value, str):
        if not value:
            return "an empty text"
        if _looks_secret(value):
            return f"a text of {len(value)} characters"
        return f'"{printable(value)}"'
    if isinstance(value, Mapping):
        return _DOCUMENT
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"


def explain(
    error: ValidationError, model: type[BaseModel], where: str = "", path: str = "", also: Iterable[str] = ()
) -> list[Problem]:
    """Turn what pydantic says of a document into problems, one for each mistake.

    `path` leads to the document inside a file; `also` names the fields that the file nests into it.
    """
    also = tuple(also)
    return [_explain_one(details, model, where, path, also) for details in error.errors(include_url=False)]


def join_path(path: str, parts: Iterable[str | int]) -> str:
    """Return ``path.to.field[2]``."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            text = "agk_..." if part.startswith("agk_") else printable(part)
            path = f"{path}.{text}" if path else text
    return path


def _explain_one(
    details: ErrorDetails, model: type[BaseModel], where: str, path: str, also: tuple[str, ...]
) -> Problem:
    kind = details["type"]
    context = details.get("ctx", {})
    if kind == "json_invalid":
        size = details["input"]
        length = len(size) if isinstance(size, str | bytes | bytearray) else 0
        return Problem(where, path, f"{length} bytes that are not JSON", _json_message(context))
    within: tuple[str | int, ...] = tuple(context.get("at", ()))
    loc = _without_tags(details["loc"]) + within
    place = join_path(path, loc)
    if kind == "authgate":
        found = _found(loc, _dig(details["input"], within))
        return Problem(where, place, found, details["msg"], str(context.get("hint", "")), loc)
    if kind == "extra_forbidden":
        owner, _ = _field_at(model, details["loc"][:-1])
        return _unknown_field(owner, where, place, loc, also)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_type(where, place, loc, context)
    _, info = _field_at(model, details["loc"])
    allowed = _allowed(info, kind, details, loc)
    found = "nothing" if kind == "missing" else _found(loc, details["input"])
    if isinstance(details["input"], str) and _stands_for_more(model, loc, details["input"]):
        found = f"a text of {len(details['input'])} characters"
    return Problem(where, place, found, allowed, _hint(info, details), loc)


def _unknown_type(where: str, place: str, loc: tuple[str | int, ...], context: Mapping[str, Any]) -> Problem:
    """Say what is wrong with the type of a gateway's ``auth``."""
    types = ", ".join(AUTH_MODELS)
    tag = context.get("tag")
    if not isinstance(tag, str):
        return Problem(where, f"{place}.type", "nothing", f"this field is required: one of {types}", loc=loc)
    hint = did_you_mean(tag, AUTH_MODELS)
    return Problem(
        where, f"{place}.type", f'"{printable(tag)}"', f"allowed: one of {types}", hint, (*loc, "type")
    )


def _unknown_field(
    owner: type[BaseModel] | None, where: str, place: str, loc: tuple[str | int, ...], also: tuple[str, ...]
) -> Problem:
    name = str(loc[-1])
    found = "a field that does not exist"
    if name in _NODE_LIMITS:
        message = f"this limit is for a whole node: authgate run --limit {name}=..."
        return Problem(where, place, found, message, loc=loc)
    names = (
        [name for name, info in owner.model_fields.items() if info.description] if owner is not None else []
    )
    if len(loc) == 1:
        names += also
    return Problem(
        where, place, found, f"the fields here are {', '.join(names)}", did_you_mean(name, names), loc
    )


def _without_tags(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Take out what pydantic says of the member of a union that it looked at: it is no place in the document."""
    return tuple(part for part in loc if part not in AUTH_MODELS and part not in UNION_TAGS)


def _dig(value: object, within: tuple[str | int, ...]) -> object:
    """Return what stands at `within` inside a value that was judged as a whole."""
    for part in within:
        try:
            value = value[part]  # type: ignore[index]  # any JSON value; the wrong ones end here
        except (LookupError, TypeError):
            return _ABSENT
    return value


def _found(loc: tuple[str | int, ...], value: object) -> str:
    """Describe the value at `loc`, without showing a secret."""
    if value is _ABSENT:
        return ""
    if any(part in _SECRET_FIELDS for part in loc):
        if isinstance(value, str):
            return f"a text of {len(value)} characters"
        return show(value) if isinstance(value, bool | Mapping | list | None) else "a number"
    return show(value)


def _stands_for_more(model: type[BaseModel], loc: tuple[str | int, ...], text: str) -> bool:
    """Tell whether a text stands where a mapping with a secret in it should: it may be that secret."""
    return (loc == ("auth",) and text not in AUTH_MODELS) or (
        not loc and model.__name__ == "ConsumerDocument"
    )


def _field_at(
    model: type[BaseModel], loc: Sequence[str | int]
) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """Follow `loc` into nested models: the model that holds its end, and the field it names."""
    owner: type[BaseModel] | None = model
    info: FieldInfo | None = None
    for part in loc:
        if isinstance(part, int) or part in UNION_TAGS:
            continue
        if part in AUTH_MODELS:
            owner = AUTH_MODELS[str(part)]
            continue
        info = owner.model_fields.get(part) if owner is not None else None
        owner = _model_in(info.annotation) if info is not None else None
    return owner, info


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _allowed(info: FieldInfo | None, kind: str, details: ErrorDetails, loc: tuple[str | int, ...]) -> str:
    if info is None or not info.description:
        if kind in ("model_type", "model_attributes_type") or not loc:
            return f"a document is {_DOCUMENT} in braces"
        return details["msg"]
    if kind == "missing":
        return f"this field is required: {info.description}"
    return f"allowed: {info.description}"


def _hint(info: FieldInfo | None, details: ErrorDetails) -> str:
    value = details["input"]
    if details["type"] == "bool_type" and isinstance(value, str):
        return {"no": "write false", "off": "write false", "yes": "write true", "on": "write true"}.get(
            value.casefold(), "write true or false without quotes"
        )
    if details["type"] in ("tuple_type", "list_type") and isinstance(value, str):
        return "put it in a list: [...]"
    if isinstance(value, str) and details["loc"] == ("auth",):
        return f"write {{type: {value}}}" if value in AUTH_MODELS else "write {type: API_KEY}"
    if details["type"] in ("int_type", "float_type") and isinstance(value, str):
        return "write the number without quotes or unit"
    if isinstance(value, str) and info is not None and not _looks_secret(value):
        return did_you_mean(value, _literals(info.annotation))
    return ""


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for inner in get_args(annotation) for choice in _literals(inner)]


def _json_message(context: Mapping[str, Any]) -> str:
    reason = str(context.get("error", "it cannot be read"))
    return f"a document is one JSON object in UTF-8 ({reason})"


def printable(text: str) -> str:
    """Return `text` in one short line, without anything that a terminal or log would act on."""
    shown = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in shown)
