"""From YAML text to plain values that remember their lines. Pure, no IO.

A narrow reader on purpose: the scalars of YAML 1.2 (``no`` and ``12:30`` are texts), each key once, no
merge keys, no tags but ``!!str``. Safe with any input: no objects are made, depth is bounded
before the stack could be, and aliases may not unfold into more than a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_DEPTH = 24
"""Our documents have seven levels; libyaml's composer would follow a hundred thousand into a crash."""
MAX_UNFOLDED = 4_000_000
"""Characters and nodes that all aliases together may stand for."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# More digits than 18 may not fit into 64 bits; such a text is more likely a hash than a number.
_is_int = re.compile(r"[-+]?[0-9]{1,18}").fullmatch
_is_float = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?").fullmatch
_MAX_NUMBER_CHARACTERS = 40


class Fields(dict[str, Any]):
    """A mapping; ``lines`` holds the line of each key."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class Items(list[Any]):
    """A list; ``lines`` holds the line of each item."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


class YamlError(ValueError):
    """The text cannot be read: where (0: nowhere in particular), what is there, what is allowed."""

    def __init__(self, line: int, found: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.found = found
        self.message = message


def read_yaml(text: str) -> object:
    """Return the one value that `text` holds; raise `YamlError`."""
    loader = _LOADER(text)
    try:
        return _Builder(_events(loader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "nesting depth" in (error.problem or ""):  # newer releases of libyaml have a limit of their own
            raise _depth_error(mark.line + 1 if mark is not None else 0) from None
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark is not None else 0, "a text that is not YAML", said) from None
    except yaml.YAMLError:
        raise YamlError(
            0, "a character that YAML does not allow", "a text without control characters"
        ) from None
    finally:
        loader.dispose()


def _events(loader: Any) -> Iterator[Any]:
    while loader.check_event():
        yield loader.get_event()


class _Builder:
    """Turns the parser's events into values; recursion is as deep as `MAX_DEPTH` and no deeper."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._weight = 0
        self._unfolded = 0

    def document(self) -> object:
        value: object = None
        count = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                count += 1
                if count > 1:
                    raise YamlError(
                        _line(event), "a second document (---)", "one file holds one YAML document"
                    )
                value = self._value(next(self._events), 0)
        return value

    def _value(self, event: Any, depth: int) -> object:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._weight
        self._weight += 1
        value: object
        if isinstance(event, yaml.ScalarEvent):
            self._weight += len(event.value)
            value = _scalar(event)
        else:
            if event.tag is not None and event.tag != "!":
                raise _tag_error(event)
            if depth >= MAX_DEPTH:
                raise _depth_error(_line(event))
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            value = self._fields(depth + 1) if is_mapping else self._items(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._weight - before)
        return value

    def _fields(self, depth: int) -> Fields:
        fields = Fields()
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError(line, "a key that is not a name", "a key is a plain text")
            key = event.value
            if key == "<<":
                raise YamlError(
                    line, "a merge key (<<)", "write the fields out; an alias stands for a whole value"
                )
            if key in fields:
                shown = key if len(key) <= 60 else "one key"
                raise YamlError(
                    line,
                    f"{shown} twice, first in line {fields.lines[key]}",
                    "write each key of a mapping once",
                )
            self._weight += len(key)
            fields[key] = self._value(next(self._events), depth)
            fields.lines[key] = line
        return fields

    def _items(self, depth: int) -> Items:
        items = Items()
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, depth))
            items.lines.append(_line(event))
        return items

    def _alias(self, event: Any) -> object:
        if event.anchor not in self._anchors:
            raise YamlError(
                _line(event), f"*{event.anchor}", "an alias names an anchor that is complete before it"
            )
        value, weight = self._anchors[event.anchor]
        self._weight += weight
        self._unfolded += weight
        if self._unfolded > MAX_UNFOLDED:
            raise YamlError(
                _line(event), "aliases that unfold into a huge document", "fewer aliases, or the text itself"
            )
        return value


def _scalar(event: Any) -> object:
    text: str = event.value
    if event.tag is not None:
        if event.tag in ("!", "tag:yaml.org,2002:str"):
            return text
        raise _tag_error(event)
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    truth = _TRUTHS.get(text)
    if truth is not None:
        return truth
    if len(text) > _MAX_NUMBER_CHARACTERS:
        return text
    if _is_int(text) is not None:
        return int(text)
    if _is_float(text) is not None and not text.lstrip("+-").isdecimal():
        return float(text)
    return text


def _depth_error(line: int) -> YamlError:
    return YamlError(line, "more levels than a document has", f"at most {MAX_DEPTH} levels")


def _tag_error(event: Any) -> YamlError:
    return YamlError(
        _line(event), "a tag (!...)", "values are plain: texts, numbers, true, false, lists, mappings"
    )


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1
