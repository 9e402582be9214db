"""`authgate consumer ...`: who may call a gateway, and with which keys or passwords.

What a consumer gets depends on its gateway: a key (API_KEY) or a password (BASIC, JWT). Words for people go to
stderr and a new secret to stdout, so that `KEY=$(authgate consumer create ...)` works.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from authgate_fast.config.keys import DocumentKey, label
from authgate_fast.management import credentials, stored
from authgate_fast.management.credentials import KEY, PASSWORD, Kind, time_text
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
from authgate_fast.management.stored import Fields
from authgate_fast.model_auth import ApiKeyAuth, BffAuth, OAuth2Auth
from authgate_fast.model_fields import DEFAULT_KEY_ID

if TYPE_CHECKING:
    from authgate_fast.config.redis_store import RedisStore
    from authgate_fast.model import ConsumerDocument

_SPAN = re.compile(r"([0-9]{1,6})([smhd])|0")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WITH_JSON = ("list", "show", "create", "rotate", "set-password")


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    consumer = commands.add_parser(
        "consumer", help="make, show, change and delete consumers", description="Consumers in Redis."
    )
    actions = consumer.add_subparsers(metavar="ACTION", required=True)
    _add_create(actions)
    _add_action(actions, "list", "all consumers of a gateway", _list, has_name=False)
    _add_action(actions, "show", "one consumer, without its hashes", _show)
    _add_action(actions, "disable", "end a consumer's access, until it is enabled again", _disable)
    _add_action(actions, "enable", "give a disabled consumer its access back", _enable)
    rotate = _add_action(
        actions, "rotate", "make a further key or password; the old ones end after a while", _rotate
    )
    add_value(
        rotate,
        "overlap",
        "24h",
        type=_span,
        metavar="TIME",
        help="how long the old ones still work: 90s, 30m, 24h, 7d or 0 (default %(default)s)",
    )
    _add_secret_output(rotate)
    set_password = _add_action(
        actions, "set-password", "give a consumer a new password; all others end now", _set_password
    )
    _add_secret_output(set_password)
    _add_action(actions, "delete", "delete a consumer and with it all of its keys and passwords", _delete)


def _add_create(actions: Subparsers[argparse.ArgumentParser]) -> None:
    text = "make a consumer with a new key or password (as its gateway asks for), which is shown once"
    create = _add_action(actions, "create", text, _create)
    roles = environment("role")
    create.add_argument(
        "--role",
        action="append",
        metavar="ROLE",
        help="a role of the consumer; repeatable (AUTHGATE_ROLE: a,b)",
    )
    create.set_defaults(role_default=[role for role in (roles or "").split(",") if role])
    # Not from AUTHGATE_USERNAME: a name for one consumer is no setting.
    create.add_argument(
        "--username", metavar="TEXT", help="BASIC and JWT: what it logs in with (default: its name)"
    )
    add_value(create, "expires-at", metavar="TIME", help="when its access ends, such as 2030-01-31T00:00:00Z")
    add_value(create, "description", metavar="TEXT", help="a note for people")
    _add_secret_output(create)


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
    if name in _WITH_JSON:
        add_flag(parser, "json", "print JSON")
    parser.set_defaults(handler=with_store(action))
    return parser


def _add_secret_output(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "quiet", "print the new key or password and nothing else")
    credentials.add_password_input(parser)


def _span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number and s, m, h or d, such as 24h, or 0")
    return timedelta(seconds=int(match[1]) * _UNIT_S[match[2]] if match[1] else 0)


def _kind(store: RedisStore, gateway: str) -> Kind:
    """Return what the consumers of a gateway have: keys or passwords."""
    auth = stored.gateway_auth(store, gateway)
    if isinstance(auth, OAuth2Auth | BffAuth):
        raise InputError(
            f"the gateway {gateway} is of type {auth.type}: its callers are known to the identity provider at "
            f"{auth.issuer}, so make users, clients and passwords there; "
            "routes say with `roles` and `scopes` what they may do"
        )
    return KEY if isinstance(auth, ApiKeyAuth) else PASSWORD


def _create(options: argparse.Namespace, store: RedisStore) -> int:
    from authgate_fast.config.redis_store import ChangedError

    key = stored.consumer_key(options.gateway, options.name)
    kind = _kind(store, options.gateway)
    if kind is KEY and options.username is not None:
        raise InputError("--username: the consumers of this gateway have API keys, not usernames")
    exists = f"the {label(key)} exists already; `authgate consumer rotate` gives it another {kind.noun}"
    if store.read([key])[key] is not None:
        raise InputError(exists)
    made = credentials.make(kind, options)
    fields: Fields = {kind.single: made.digest}
    roles = options.role if options.role is not None else options.role_default
    if roles:
        fields["roles"] = roles
    if options.username is not None and options.username != options.name:
        fields["username"] = options.username
    for name in ("expires_at", "description"):
        if getattr(options, name):
            fields[name] = getattr(options, name)
    text, document = stored.encode(key, fields)
    if document.expires_at is not None and document.expires_at <= datetime.now(UTC):
        raise InputError(f"--expires-at {options.expires_at}: this moment is over already")
    if kind is PASSWORD:
        stored.check_username_is_free(store, key, document)
    try:
        store.write({key: text}, {key: None})
    except ChangedError:
        raise InputError(exists) from None
    said = f"created {label(key)}"
    if kind is PASSWORD:
        said += f" with the username {document.login_name(key.name).decode('utf-8')}"
    return credentials.show_new(options, kind, made, DEFAULT_KEY_ID, said)


def _rotate(options: argparse.Namespace, store: RedisStore) -> int:
    key = stored.consumer_key(options.gateway, options.name)
    kind = _kind(store, options.gateway)
    made = credentials.make(kind, options)
    now = datetime.now(UTC)
    new_id = ""

    def rotate(fields: Fields, document: ConsumerDocument) -> None:
        nonlocal new_id
        new_id = credentials.rotate(kind, fields, document, made.digest, options.overlap, now)

    stored.update(store, key, rotate)
    old = f"the old {kind.noun}s"
    said = f"{old} work until {time_text(now + options.overlap)}" if options.overlap else f"{old} ended now"
    return credentials.show_new(options, kind, made, new_id, f"rotated {label(key)}: {said}")


def _set_password(options: argparse.Namespace, store: RedisStore) -> int:
    key = stored.consumer_key(options.gateway, options.name)
    if _kind(store, options.gateway) is KEY:
        raise InputError(
            f"the consumers of {options.gateway} have API keys, not passwords; "
            "`authgate consumer rotate` makes a new key"
        )
    made = credentials.make(PASSWORD, options)

    def replace(fields: Fields, document: ConsumerDocument) -> None:
        credentials.replace(PASSWORD, fields, made.digest)

    stored.update(store, key, replace)
    said = f"set the password of {label(key)}: the old ones ended now"
    return credentials.show_new(options, PASSWORD, made, DEFAULT_KEY_ID, said)


def _disable(options: argparse.Namespace, store: RedisStore) -> int:
    return _switch(options, store, enabled=False)


def _enable(options: argparse.Namespace, store: RedisStore) -> int:
    return _switch(options, store, enabled=True)


def _switch(options: argparse.Namespace, store: RedisStore, *, enabled: bool) -> int:
    key = stored.consumer_key(options.gateway, options.name)

    def switch(fields: Fields, document: ConsumerDocument) -> None:
        if document.enabled != enabled:
            fields["enabled"] = enabled

    changed = stored.update(store, key, switch)
    state = "enabled" if enabled else "disabled"
    say(f"{state} {label(key)}" if changed else f"{label(key)} was {state} already")
    return OK


def _delete(options: argparse.Namespace, store: RedisStore) -> int:
    key = stored.consumer_key(options.gateway, options.name)
    stored.delete(store, key)
    say(f"deleted {label(key)}; its keys and passwords work no more")
    return OK


def _show(options: argparse.Namespace, store: RedisStore) -> int:
    key = stored.consumer_key(options.gateway, options.name)
    _fields, document = stored.decode(store, key, store.read([key])[key])
    facts = _facts(key, document)
    if options.json:
        print(json.dumps(facts))
        return OK
    rows = {
        "consumer": f"{key.gateway}/{key.name}",
        "enabled": "yes" if facts["enabled"] else "no",
        "username": facts["username"] or "none",
        "roles": ", ".join(facts["roles"]) or "none",
        "keys": _ids(facts["keys"]),
        "passwords": _ids(facts["passwords"]),
        "access": _ends(facts["expires_at"]),
        "description": facts["description"] or "none",
    }
    for name, value in rows.items():
        print(f"{name:<12} {value}")
    return OK


def _ids(found: list[Fields]) -> str:
    return ", ".join(f"{item['id']} ({_ends(item['expires_at'])})" for item in found) or "none"


def _list(options: argparse.Namespace, store: RedisStore) -> int:
    stored.check_gateway(store, options.gateway)
    facts = []
    for key, value in store.consumers(options.gateway).items():
        try:
            facts.append(_facts(key, stored.decode(store, key, value)[1]))
        except InputError as error:
            say(f"authgate: {error}")
    if options.json:
        print(json.dumps(facts))
        return OK
    rows = [("NAME", "ENABLED", "KEYS", "PASSWORDS", "ACCESS", "ROLES")]
    for fact in facts:
        enabled = "yes" if fact["enabled"] else "no"
        roles = ",".join(fact["roles"]) or "-"
        counts = str(len(fact["keys"])), str(len(fact["passwords"]))
        rows.append((fact["consumer"], enabled, *counts, _ends(fact["expires_at"]), roles))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


def _facts(key: DocumentKey, document: ConsumerDocument) -> Fields:
    """Return what may be shown of a consumer: no hash of anything."""
    passwords = credentials.facts(PASSWORD, document)
    return {
        "gateway": key.gateway,
        "consumer": key.name,
        "enabled": document.enabled,
        "username": document.login_name(key.name).decode("utf-8") if passwords else None,
        "roles": list(document.roles),
        "keys": credentials.facts(KEY, document),
        "passwords": passwords,
        "expires_at": time_text(document.expires_at) if document.expires_at is not None else None,
        "description": document.description,
    }


def _ends(moment: str | None) -> str:
    return "without end" if moment is None else f"until {moment}"
