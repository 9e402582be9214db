"""A configuration file: the same documents as in Redis, nested for people (YAML, or JSON as ``.json``).

Loading never raises for what a file holds or for a file that is not there: every mistake becomes a
problem with its line. What is not a problem becomes canonical JSON, one document at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from authgate_fast.config.documents import NESTED_IN_GATEWAY, read_document_at
from authgate_fast.config.keys import DocumentKey, is_name
from authgate_fast.config.problems import Problem, did_you_mean, join_path, printable, show
from authgate_fast.config.yaml_text import Fields, Items, YamlError, read_yaml
from authgate_fast.model_fields import NAME_RULE

MAX_FILE_BYTES = 67_108_864
"""Some 300,000 consumers; beyond that, documents belong into Redis."""

log = logging.getLogger("authgate.config")

Parts = tuple[str | int, ...]
Signature = tuple[int, int, int, int]
_KIND_OF = {name: name.removesuffix("s") for name in NESTED_IN_GATEWAY}
_SETTLE_S = 0.05


@dataclass(slots=True)
class LoadedFile:
    """``documents`` are the good ones; ``names`` are all documents of the file, broken ones too."""

    documents: dict[DocumentKey, bytes]
    problems: list[Problem]
    names: set[DocumentKey] = field(default_factory=set)
    file: str = ""
    root: object = None

    def place(self, key: DocumentKey, loc: Sequence[str | int]) -> tuple[str, str]:
        """Return where in the file a field of a document stands: ``file:line`` and the path to it."""
        parts = _parts_of(key)
        return _where(self.file, self.root, (*parts, *loc)), join_path("", (*parts, *loc))


class _FileError(Exception):
    """The file as a whole cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def load_file(path: str | os.PathLike[str]) -> LoadedFile:
    """Read a file; all of its mistakes are in the result's ``problems``."""
    name = os.fspath(path)
    try:
        text = _read_text(name)
        root = _read_json(name, text) if name.endswith(".json") else _read_yaml(name, text)
    except _FileError as error:
        return LoadedFile({}, [error.problem], file=name)
    loaded = LoadedFile({}, [], file=name, root=root)
    for key, value in _split(loaded):
        loaded.names.add(key)
        _load_document(loaded, key, value)
    return loaded


def file_signature(path: str | os.PathLike[str]) -> Signature | None:
    """Return what changes whenever a file does, symbolic links followed; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


async def watch_file(
    path: str | os.PathLike[str],
    on_change: Callable[[], Awaitable[None] | None],
    interval_s: float = 0.5,
    since: Signature | None = None,
) -> None:
    """Call `on_change` after each change of the file, for ever; cancel the task to end it.

    Polls, so that editors that rename and Kubernetes' link swaps look like any other change. `since` is
    the `file_signature` of what was loaded (taken before it was read; by default: now). A file that
    vanishes is no change: it is said once, and the file is looked for until it is back.
    """
    known = since or file_signature(path)
    is_gone = False
    while True:
        await asyncio.sleep(interval_s)
        seen = file_signature(path)
        if seen is None:
            if not is_gone:
                log.warning("%s is gone; the configuration stays as it was", printable(os.fspath(path)))
            is_gone = True
            continue
        is_gone = False
        if seen == known:
            continue
        # A writer may be half-way; wait until the file has held still for a moment.
        await asyncio.sleep(min(_SETTLE_S, interval_s))
        if file_signature(path) != seen:
            continue
        known = seen
        answer = on_change()
        if answer is not None:
            await answer


def _read_text(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        said = (error.strerror or "it cannot be read").lower()
        raise _FileError(Problem(name, "", said, "a file that can be read")) from None
    except ValueError:
        raise _FileError(
            Problem(printable(name), "", "a name that no file can have", "a file's path")
        ) from None
    if len(data) > MAX_FILE_BYTES:
        message = f"a file of at most {MAX_FILE_BYTES} bytes; more documents belong into Redis"
        raise _FileError(Problem(name, "", "a larger file", message))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _FileError(
            Problem(f"{name}:{line}", "", "bytes that are not UTF-8", "a text in UTF-8")
        ) from None


def _read_yaml(name: str, text: str) -> object:
    try:
        return read_yaml(text)
    except YamlError as error:
        where = f"{name}:{error.line}" if error.line else name
        raise _FileError(Problem(where, "", error.found, error.message)) from None


def _read_json(name: str, text: str) -> object:
    doubled: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [key for key, _ in pairs]
            doubled.extend(key for key in fields if names.count(key) > 1)
        return fields

    try:
        value: object = json.loads(text, object_pairs_hook=note, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _FileError(
            Problem(f"{name}:{error.lineno}", "", "a text that is not JSON", error.msg)
        ) from None
    except (ValueError, RecursionError):
        message = "JSON with numbers of at most 64 bits and a few levels"
        raise _FileError(Problem(name, "", "a text that is not JSON", message)) from None
    if doubled:
        found = f"the key {printable(doubled[0])} twice"
        raise _FileError(Problem(name, "", found, "write each key of a mapping once"))
    return value


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _split(loaded: LoadedFile) -> Iterator[tuple[DocumentKey, object]]:
    """Take the nested file apart into documents."""
    gateways = _mapping(loaded, loaded.root, (), "a file starts with `gateways:` and what is nested in it")
    for name in gateways:
        if name != "gateways":
            _complain(
                loaded,
                (name,),
                "a field that does not exist",
                "the only field here is gateways",
                did_you_mean(name, ["gateways"]),
            )
    if gateways is loaded.root and "gateways" not in gateways:
        _complain(loaded, (), "no `gateways`", "a file has the field gateways, with at least its name and {}")
    message = "a mapping from names to gateways"
    for gateway, value in _mapping(loaded, gateways.get("gateways"), ("gateways",), message).items():
        parts = ("gateways", gateway)
        if not _check_name(loaded, parts, gateway):
            continue
        fields = _mapping(loaded, value, parts, "a gateway is a mapping with hosts, auth and so on")
        own = {name: field for name, field in fields.items() if name not in NESTED_IN_GATEWAY}
        if value is None or fields is value:
            yield DocumentKey("gateway", gateway, gateway), own
        for nested in NESTED_IN_GATEWAY:
            message = f"a mapping from names to {nested}"
            for name, document in _mapping(loaded, fields.get(nested), (*parts, nested), message).items():
                if _check_name(loaded, (*parts, nested, name), name):
                    yield DocumentKey(_KIND_OF[nested], gateway, name), {} if document is None else document


def _load_document(loaded: LoadedFile, key: DocumentKey, value: object) -> None:
    try:
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        _complain(loaded, _parts_of(key), "", "texts in Unicode, and numbers of at most 64 bits")
        return
    parts = _parts_of(key)
    document = read_document_at(key, raw, loaded.file, join_path("", parts))
    if isinstance(document, list):
        loaded.problems += [
            replace(problem, where=_where(loaded.file, loaded.root, parts + problem.loc))
            for problem in document
        ]
    else:
        loaded.documents[key] = raw


def _mapping(loaded: LoadedFile, value: object, parts: Parts, message: str) -> dict[str, Any]:
    """Return `value` if it is a mapping; nothing counts as an empty one, anything else is a problem."""
    if isinstance(value, dict):
        return value
    if value is not None or not parts:
        found = "an empty file" if value is None else show(value)
        _complain(loaded, parts, found, message)
    return {}


def _check_name(loaded: LoadedFile, parts: Parts, name: str) -> bool:
    if is_name(name):
        return True
    meant = name.casefold().replace(" ", "-")
    hint = f"did you mean `{meant}`?" if is_name(meant) else ""
    _complain(loaded, parts, show(name), f"a name has {NAME_RULE}", hint)
    return False


def _complain(loaded: LoadedFile, parts: Parts, found: str, message: str, hint: str = "") -> None:
    where = _where(loaded.file, loaded.root, parts)
    loaded.problems.append(Problem(where, join_path("", parts), found, message, hint))


def _parts_of(key: DocumentKey) -> Parts:
    if key.kind == "gateway":
        return ("gateways", key.gateway)
    return ("gateways", key.gateway, f"{key.kind}s", key.name)


def _where(file: str, root: object, parts: Parts) -> str:
    """Return ``file:line`` of the value at `parts`, or of the nearest thing around it."""
    line = 0
    value = root
    for part in parts:
        is_there = part in value if isinstance(value, Fields) else isinstance(part, int)
        if not isinstance(value, Fields | Items) or not is_there:
            break
        line = value.lines[part]  # type: ignore[index]  # names lead into Fields, numbers into Items
        value = value[part]  # type: ignore[index]  # as above
    return f"{file}:{line}" if line else file
