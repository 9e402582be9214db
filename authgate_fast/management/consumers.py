"""`authgate consumer ...` and `authgate key`: consumers and their keys.

A key is shown once, when it is made, on stdout and nowhere else; Redis gets its hash. Words for people go to
stderr, so that `KEY=$(authgate consumer create ...)` works. Every change is read, changed, and
written only if nobody else has written meanwhile; else it is tried again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from authgate_fast.auth.api_key import key_digest, new_key
from authgate_fast.config.keys import DocumentKey, Unreadable, is_name, label
from authgate_fast.config.problems import Problem, did_you_mean
from authgate_fast.management.options import (
    OK,
    InputError,
    Subparsers,
    add_flag,
    add_redis,
    add_value,
    environment,
    say,
    with_store,
)
from authgate_fast.model import ConsumerDocument
from authgate_fast.model_fields import DEFAULT_KEY_ID, NAME_RULE

if TYPE_CHECKING:
    from authgate_fast.config.redis_store import RedisStore, Value

Fields = dict[str, Any]

_ATTEMPTS = 5
_SPAN = re.compile(r"([0-9]{1,6})([smhd])|0")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    consumer = commands.add_parser(
        "consumer", help="make, show, change and delete consumers", description="Consumers in Redis."
    )
    actions = consumer.add_subparsers(metavar="ACTION", required=True)

    create = _add_action(
        actions, "create", "make a consumer with a new API key, which is shown once", _create
    )
    roles = environment("role")
    create.add_argument(
        "--role",
        action="append",
        metavar="ROLE",
        help="a role of the consumer; repeatable (AUTHGATE_ROLE: a,b)",
    )
    create.set_defaults(role_default=[role for role in (roles or "").split(",") if role])
    add_value(create, "expires-at", metavar="TIME", help="when its access ends, such as 2030-01-31T00:00:00Z")
    add_value(create, "description", metavar="TEXT", help="a note for people")
    _add_key_output(create)

    _add_action(actions, "list", "all consumers of a gateway", _list, has_name=False)
    _add_action(actions, "show", "one consumer, without its hashes", _show)
    _add_action(actions, "disable", "end a consumer's access, until it is enabled again", _disable)
    _add_action(actions, "enable", "give a disabled consumer its access back", _enable)
    rotate = _add_action(actions, "rotate", "make a further key; the old ones end after a while", _rotate)
    add_value(
        rotate,
        "overlap",
        "24h",
        type=_span,
        metavar="TIME",
        help="how long the old keys still work: 90s, 30m, 24h, 7d or 0 (default %(default)s)",
    )
    _add_key_output(rotate)
    _add_action(actions, "delete", "delete a consumer and with it all of its keys", _delete)

    key = commands.add_parser(
        "key",
        help="a new API key and its hash, for a file",
        description="Print a new API key and its hash. The hash goes into a file, the key to its user.",
    )
    add_flag(key, "json", "print a JSON object")
    key.set_defaults(handler=_key)


def _add_action(
    actions: Subparsers[argparse.ArgumentParser],
    name: str,
    text: str,
    action: Callable[[argparse.Namespace, RedisStore], int],
    *,
    has_name: bool = True,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("gateway", metavar="GATEWAY")
    if has_name:
        parser.add_argument("name", metavar="NAME")
    add_redis(parser)
    if name in ("list", "show", "create", "rotate"):
        add_flag(parser, "json", "print JSON")
    parser.set_defaults(handler=with_store(action))
    return parser


def _add_key_output(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "quiet", "print the key and nothing else")


def _span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number and s, m, h or d, such as 24h, or 0")
    return timedelta(seconds=int(match[1]) * _UNIT_S[match[2]] if match[1] else 0)


def _key(options: argparse.Namespace) -> int:
    key = new_key()
    if options.json:
        print(json.dumps({"api_key": key, "api_key_sha256": key_digest(key)}))
    else:
        print(f"api_key: {key}\napi_key_sha256: {key_digest(key)}")
    return OK


def _create(options: argparse.Namespace, store: RedisStore) -> int:
    _check_gateway(store, options.gateway)
    key = _consumer_key(options)
    api_key = new_key()
    fields: Fields = {"api_key_sha256": key_digest(api_key)}
    roles = options.role if options.role is not None else options.role_default
    if roles:
        fields["roles"] = roles
    for name in ("expires_at", "description"):
        if getattr(options, name):
            fields[name] = getattr(options, name)
    text, document = _encode(key, fields)
    if document.expires_at is not None and document.expires_at <= datetime.now(UTC):
        raise InputError(f"--expires-at {options.expires_at}: this moment is over already")
    from authgate_fast.config.redis_store import ChangedError

    exists = f"the {label(key)} exists already; `authgate consumer rotate` gives it another key"
    if store.read([key])[key] is not None:
        raise InputError(exists)
    try:
        store.write({key: text}, {key: None})
    except ChangedError:
        raise InputError(exists) from None
    _show_key(options, key, DEFAULT_KEY_ID, api_key, f"created {label(key)}")
    return OK


def _rotate(options: argparse.Namespace, store: RedisStore) -> int:
    key = _consumer_key(options)
    api_key = new_key()
    now = datetime.now(UTC)
    until = now + options.overlap
    ids: list[str] = []

    def rotate(fields: Fields, document: ConsumerDocument) -> None:
        kept: list[Fields] = []
        if options.overlap:
            for old in _keys(fields, document):
                end = old.pop("end")
                if end is None or end > until:
                    old["expires_at"] = _time(until)
                if end is None or end > now:
                    kept.append(old)
        key_id = now.strftime("k%Y%m%d-%H%M%S")
        taken = {old["id"] for old in kept}
        ids[:] = [
            next(name for name in (key_id, *(f"{key_id}-{n}" for n in range(2, 99))) if name not in taken)
        ]
        fields.pop("api_key_sha256", None)
        fields["api_keys"] = [*kept, {"id": ids[0], "sha256": key_digest(api_key)}]

    _update(store, key, rotate)
    said = f"the old keys work until {_time(until)}" if options.overlap else "the old keys ended now"
    _show_key(options, key, ids[0], api_key, f"rotated {label(key)}: {said}")
    return OK


def _keys(fields: Fields, document: ConsumerDocument) -> list[Fields]:
    """Return all keys as `api_keys` holds them, each with its `end`, a moment or None."""
    keys = [
        {**raw, "end": parsed.expires_at}
        for raw, parsed in zip(fields.get("api_keys", ()), document.api_keys, strict=True)
    ]
    if document.api_key_sha256 is not None:
        keys.insert(0, {"id": DEFAULT_KEY_ID, "sha256": document.api_key_sha256, "end": None})
    return keys


def _disable(options: argparse.Namespace, store: RedisStore) -> int:
    return _switch(options, store, enabled=False)


def _enable(options: argparse.Namespace, store: RedisStore) -> int:
    return _switch(options, store, enabled=True)


def _switch(options: argparse.Namespace, store: RedisStore, *, enabled: bool) -> int:
    key = _consumer_key(options)

    def switch(fields: Fields, document: ConsumerDocument) -> None:
        if document.enabled != enabled:
            fields["enabled"] = enabled

    changed = _update(store, key, switch)
    state = "enabled" if enabled else "disabled"
    say(f"{state} {label(key)}" if changed else f"{label(key)} was {state} already")
    return OK


def _delete(options: argparse.Namespace, store: RedisStore) -> int:
    from authgate_fast.config.redis_store import ChangedError

    key = _consumer_key(options)
    for _ in range(_ATTEMPTS):
        value = store.read([key])[key]
        if value is None:
            raise _absent(store, key)
        try:
            store.write({key: None}, {key: value})
        except ChangedError:
            continue
        say(f"deleted {label(key)}; its keys work no more")
        return OK
    raise _busy(key)


def _show(options: argparse.Namespace, store: RedisStore) -> int:
    key = _consumer_key(options)
    fields, document = _decode(store, key, store.read([key])[key])
    facts = _facts(key, fields, document)
    if options.json:
        print(json.dumps(facts))
        return OK
    keys = [f"{item['id']} ({_ends(item['expires_at'])})" for item in facts["keys"]]
    rows = {
        "consumer": f"{key.gateway}/{key.name}",
        "enabled": "yes" if facts["enabled"] else "no",
        "roles": ", ".join(facts["roles"]) or "none",
        "keys": ", ".join(keys) or "none",
        "access": _ends(facts["expires_at"]),
        "password": "yes" if facts["has_password"] else "none",
        "description": facts["description"] or "none",
    }
    for name, value in rows.items():
        print(f"{name:<12} {value}")
    return OK


def _list(options: argparse.Namespace, store: RedisStore) -> int:
    _check_gateway(store, options.gateway)
    facts, bad = [], 0
    for key, value in store.consumers(options.gateway).items():
        try:
            facts.append(_facts(key, *_decode(store, key, value)))
        except InputError as error:
            bad += 1
            say(f"authgate: {error}")
    if options.json:
        print(json.dumps(facts))
        return OK
    rows = [("NAME", "ENABLED", "KEYS", "ACCESS", "ROLES")]
    for fact in facts:
        enabled = "yes" if fact["enabled"] else "no"
        keys = str(len(fact["keys"]))
        rows.append(
            (fact["consumer"], enabled, keys, _ends(fact["expires_at"]), ",".join(fact["roles"]) or "-")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


def _facts(key: DocumentKey, fields: Fields, document: ConsumerDocument) -> Fields:
    """Return what may be shown of a consumer: no hash of anything."""
    keys = [
        {"id": item["id"], "expires_at": _time(item["end"]) if item["end"] is not None else None}
        for item in _keys(fields, document)
    ]
    return {
        "gateway": key.gateway,
        "consumer": key.name,
        "enabled": document.enabled,
        "roles": list(document.roles),
        "keys": keys,
        "expires_at": _time(document.expires_at) if document.expires_at is not None else None,
        "has_password": document.password_hash is not None,
        "description": document.description,
    }


def _ends(moment: str | None) -> str:
    return "without end" if moment is None else f"until {moment}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show_key(options: argparse.Namespace, key: DocumentKey, key_id: str, api_key: str, said: str) -> None:
    if not options.quiet:
        say(f"{said}. Its new key ({key_id}) is shown this once:")
    if options.json:
        names = {"gateway": key.gateway, "consumer": key.name, "key_id": key_id}
        print(json.dumps({**names, "api_key": api_key}))
    else:
        print(api_key)


def _consumer_key(options: argparse.Namespace) -> DocumentKey:
    for name in (options.gateway, options.name):
        if not is_name(name):
            raise InputError(f"{name!r} cannot be a name: a name has {NAME_RULE}")
    return DocumentKey("consumer", options.gateway, options.name)


def _check_gateway(store: RedisStore, gateway: str) -> None:
    gateways = store.gateways()
    if gateway in gateways:
        return
    near = did_you_mean(gateway, gateways)
    known = (
        f"there are: {', '.join(gateways[:20])}"
        if gateways
        else "there is none yet; `authgate apply` writes one"
    )
    raise InputError(f"there is no gateway {gateway!r} in {store.shown} ({near or known})")


def _absent(store: RedisStore, key: DocumentKey) -> InputError:
    _check_gateway(store, key.gateway)
    near = did_you_mean(key.name, [other.name for other in store.consumers(key.gateway)])
    return InputError(f"there is no {label(key)}" + (f" ({near})" if near else ""))


def _busy(key: DocumentKey) -> InputError:
    return InputError(f"the {label(key)} is being changed by others all the time; nothing was written")


def _decode(store: RedisStore, key: DocumentKey, value: Value) -> tuple[Fields, ConsumerDocument]:
    from authgate_fast.config.documents import read_document

    if value is None:
        raise _absent(store, key)
    if isinstance(value, Unreadable):
        raise InputError(f"the {label(key)} cannot be used: {value.message}")
    document = read_document(key, value)
    if not isinstance(document, ConsumerDocument):
        problems = document if isinstance(document, list) else []
        raise InputError(_listed(f"the {label(key)} in Redis is not valid:", problems))
    fields: Fields = orjson.loads(value)
    return fields, document


def _encode(key: DocumentKey, fields: Fields) -> tuple[bytes, ConsumerDocument]:
    from authgate_fast.config.documents import read_document_at

    text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    document = read_document_at(key, text, label(key), "")
    if not isinstance(document, ConsumerDocument):
        problems = document if isinstance(document, list) else []
        raise InputError(_listed("nothing was written:", problems))
    return text, document


def _listed(heading: str, problems: list[Problem]) -> str:
    return "\n".join([heading, *(str(problem) for problem in problems)])


def _update(store: RedisStore, key: DocumentKey, change: Callable[[Fields, ConsumerDocument], None]) -> bool:
    """Change a stored consumer; tell whether that made a difference."""
    from authgate_fast.config.redis_store import ChangedError

    for _ in range(_ATTEMPTS):
        value = store.read([key])[key]
        fields, document = _decode(store, key, value)
        before = dict(fields)
        change(fields, document)
        if fields == before:
            return False
        text, _document = _encode(key, fields)
        try:
            store.write({key: text}, {key: value})
        except ChangedError:
            continue
        return True
    raise _busy(key)
