"""`authgate apply` and `authgate export`: whole configurations between a file and Redis.

What `export` writes, `apply` reads back to the same documents. Hashes of API keys are exported: a key has
256 random bits, so nobody finds it from its hash, and without them a restore would lock every consumer out.
Hashes of passwords are not, because a password can be guessed; `apply` keeps the one that Redis holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from authgate_fast.config.keys import DocumentKey, Unreadable, label, redis_key
from authgate_fast.management.options import (
    OK,
    WRONG_INPUT,
    InputError,
    Subparsers,
    add_flag,
    add_redis,
    say,
    with_store,
)

if TYPE_CHECKING:
    from authgate_fast.config.file import LoadedFile
    from authgate_fast.config.problems import Problem
    from authgate_fast.config.redis_store import RedisStore, Stored

_PASSWORDS = ("password_hash", "passwords")
"""The fields that hold password hashes, which never leave Redis."""
_MAX_SHOWN = 200
"""Lines of a difference; the rest is counted."""


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    apply = commands.add_parser(
        "apply",
        help="write a file's documents to Redis",
        description="Check FILE, show how it differs from what Redis holds, and write the difference in one "
        "MULTI. Without --prune nothing is deleted. A consumer keeps the password_hash that Redis holds "
        "for it if FILE has none.",
    )
    apply.add_argument("file", metavar="FILE")
    add_redis(apply)
    add_flag(apply, "dry-run", "show the difference and write nothing")
    add_flag(apply, "prune", "delete the documents that are in Redis and not in FILE")
    apply.set_defaults(handler=with_store(_apply))

    export = commands.add_parser(
        "export",
        help="the documents of Redis as YAML",
        description="Print the documents of Redis as a file that `authgate check` and `authgate apply` take. "
        "It holds the hashes of API keys (a key cannot be found from them), but no password_hash and no "
        "signing key. Exit code 1: something in Redis is not valid; it is named on stderr.",
    )
    add_redis(export)
    export.set_defaults(handler=with_store(_export))


class _Difference(NamedTuple):
    changes: dict[DocumentKey, bytes | None]
    lines: list[str]
    summary: str


def _apply(options: argparse.Namespace, store: RedisStore) -> int:
    from authgate_fast.config.file import load_file

    loaded = load_file(options.file)
    if loaded.problems:
        raise InputError(_listed(loaded.problems, f"{options.file} was not applied:"))
    stored = store.read_all()
    for name in stored.malformed:
        say(f"note: the key {name!r} in Redis names no document; it is left alone")
    difference = _difference(loaded.documents, stored, prune=options.prune)
    _check_result(loaded, stored, difference.changes)
    for line in difference.lines[:_MAX_SHOWN]:
        print(line)
    if len(difference.lines) > _MAX_SHOWN:
        print(f"... and {len(difference.lines) - _MAX_SHOWN} more")
    if not difference.changes:
        print("no change")
    elif options.dry_run:
        print(f"{difference.summary}; dry run, nothing was written")
    else:
        store.write(difference.changes, {key: stored.values.get(key) for key in difference.changes})
        print(f"{difference.summary}; written to {store.shown}")
    return OK


def _difference(documents: Mapping[DocumentKey, bytes], stored: Stored, *, prune: bool) -> _Difference:
    changes: dict[DocumentKey, bytes | None] = {}
    lines = []
    counts = {"added": 0, "changed": 0, "removed": 0}
    for key in sorted(documents, key=_order):
        old = stored.values.get(key)
        new = documents[key]
        if old is None:
            counts["added"] += 1
            changes[key] = new
            lines.append(f"+ {label(key)}")
            continue
        new = _with_password(key, new, old)
        what = _changed_fields(key, old, new)
        if what:
            counts["changed"] += 1
            changes[key] = new
            lines.append(f"~ {label(key)}: {what}")
    if prune:
        for key in sorted(stored.values.keys() - documents.keys(), key=_order):
            counts["removed"] += 1
            changes[key] = None
            lines.append(f"- {label(key)}")
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return _Difference(changes, lines, summary)


def _order(key: DocumentKey) -> tuple[str, int, str]:
    return (key.gateway, ("gateway", "service", "route", "consumer").index(key.kind), key.name)


def _with_password(key: DocumentKey, new: bytes, old: bytes | Unreadable) -> bytes:
    """Return `new` with the password hashes that Redis holds, if the file says nothing of any.

    A file that names one names all: a password that it leaves out must not go on opening.
    """
    if key.kind != "consumer" or isinstance(old, Unreadable):
        return new
    fields, before = orjson.loads(new), _fields(old)
    kept = {name: before[name] for name in _PASSWORDS if name in before}
    if not kept or any(name in fields for name in _PASSWORDS):
        return new
    return orjson.dumps({**fields, **kept}, option=orjson.OPT_SORT_KEYS)


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _changed_fields(key: DocumentKey, old: bytes | Unreadable, new: bytes) -> str:
    """Name the fields that mean something else in the two texts; values are nobody's business."""
    from authgate_fast.config.documents import read_document

    if old == new:
        return ""
    before = [] if isinstance(old, Unreadable) else read_document(key, old)
    after = read_document(key, new)
    if isinstance(before, list) or isinstance(after, list):
        return "what Redis holds is not valid"
    names = type(after).model_fields
    return ", ".join(name for name in names if getattr(before, name) != getattr(after, name))


def _check_result(loaded: LoadedFile, stored: Stored, changes: Mapping[DocumentKey, bytes | None]) -> None:
    """Refuse a file whose documents, together with those in Redis, would be at odds."""
    from authgate_fast.config.check import check_documents

    result: dict[DocumentKey, bytes] = stored.documents
    before = {str(problem) for problem in check_documents(result)}
    for key, text in changes.items():
        if text is None:
            result.pop(key, None)
        else:
            result[key] = text
    place_of = {redis_key(key): loaded.place(key, ())[0] for key in loaded.documents}
    problems = []
    for problem in check_documents(result):
        if problem.where in place_of:
            problems.append(f"{place_of[problem.where]}: {problem}")
        elif str(problem) not in before:
            problems.append(str(problem))
        else:
            say(f"note: already in Redis: {problem}")
    if problems:
        raise InputError("\n".join(["nothing was written:", *problems]))


def _listed(problems: list[Problem], heading: str) -> str:
    return "\n".join([heading, *(str(problem) for problem in problems)])


def _export(_options: argparse.Namespace, store: RedisStore) -> int:
    from authgate_fast.config.check import check_documents
    from authgate_fast.config.documents import read_document

    stored = store.read_all()
    wrong = [f"the key {name!r} names no document; it is left out" for name in stored.malformed]
    good: dict[DocumentKey, bytes] = {}
    for key in sorted(stored.values, key=_order):
        value = stored.values[key]
        if isinstance(value, Unreadable):
            wrong.append(f"{redis_key(key)}: {value.message}; it is left out")
        elif isinstance(problems := read_document(key, value), list):
            wrong += [f"{problem}; the document is left out" for problem in problems]
        elif key.kind != "gateway" and DocumentKey("gateway", key.gateway, key.gateway) not in good:
            wrong.append(f"{redis_key(key)}: there is no gateway {key.gateway}; it is left out")
        else:
            good[key] = value
    wrong += [str(problem) for problem in check_documents(good)]
    sys.stdout.write(_yaml(good))
    for line in wrong:
        say(f"authgate: {line}")
    return WRONG_INPUT if wrong else OK


def _yaml(documents: Mapping[DocumentKey, bytes]) -> str:
    import yaml

    from authgate_fast.model import MODELS

    gateways: dict[str, dict[str, Any]] = {}
    for key, text in documents.items():
        fields = orjson.loads(text)
        ordered = {name: fields[name] for name in MODELS[key.kind].model_fields if name in fields}
        for name in _PASSWORDS:
            ordered.pop(name, None)
        if key.kind == "gateway":
            gateways[key.gateway] = ordered
        else:
            gateways[key.gateway].setdefault(f"{key.kind}s", {})[key.name] = ordered
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text_out: str = yaml.dump(
        {"gateways": gateways},
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1_000_000,
        default_flow_style=None,
    )
    return text_out
