"""Consumers as Redis holds them: read, changed, and written only if nobody else has written meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from authgate_fast.config.keys import DocumentKey, Unreadable, is_name, label
from authgate_fast.config.problems import Problem, did_you_mean
from authgate_fast.management.options import InputError
from authgate_fast.model import AnyDocument, ConsumerDocument, GatewayDocument
from authgate_fast.model_fields import NAME_RULE

if TYPE_CHECKING:
    from authgate_fast.config.redis_store import RedisStore, Value
    from authgate_fast.model_auth import Auth

Fields = dict[str, Any]

_ATTEMPTS = 5


def consumer_key(gateway: str, name: str) -> DocumentKey:
    for text in (gateway, name):
        if not is_name(text):
            raise InputError(f"{text!r} cannot be a name: a name has {NAME_RULE}")
    return DocumentKey("consumer", gateway, name)


def check_gateway(store: RedisStore, gateway: str) -> None:
    """Refuse a gateway that is not there, with those that are."""
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


def gateway_auth(store: RedisStore, gateway: str) -> Auth:
    """Return how a gateway's callers show who they are."""
    key = DocumentKey("gateway", gateway, gateway)
    value = store.read([key])[key]
    if value is None:
        check_gateway(store, gateway)
    document = _read(key, value)
    assert isinstance(document, GatewayDocument)
    return document.auth


def check_username_is_free(store: RedisStore, key: DocumentKey, document: ConsumerDocument) -> None:
    """Refuse a username that another consumer of the gateway logs in with: only the older one would count."""
    from authgate_fast.config.documents import read_document

    wanted = document.login_name(key.name)
    for other, value in store.consumers(key.gateway).items():
        if other == key or value is None or isinstance(value, Unreadable):
            continue
        found = read_document(other, value)
        if (
            isinstance(found, ConsumerDocument)
            and found.all_passwords()
            and found.login_name(other.name) == wanted
        ):
            raise InputError(
                f"the {label(other)} has the username {wanted.decode('utf-8')!r} already; "
                "give another one with --username"
            )


def absent(store: RedisStore, key: DocumentKey) -> InputError:
    """Make the error for a consumer that is not there; it names one that may be meant."""
    check_gateway(store, key.gateway)
    near = did_you_mean(key.name, [other.name for other in store.consumers(key.gateway)])
    return InputError(f"there is no {label(key)}" + (f" ({near})" if near else ""))


def decode(store: RedisStore, key: DocumentKey, value: Value) -> tuple[Fields, ConsumerDocument]:
    """Return a stored consumer as fields and as a document."""
    if value is None:
        raise absent(store, key)
    document = _read(key, value)
    assert isinstance(document, ConsumerDocument)
    assert not isinstance(value, Unreadable)
    fields: Fields = orjson.loads(value)
    return fields, document


def encode(key: DocumentKey, fields: Fields) -> tuple[bytes, ConsumerDocument]:
    """Return what to store for a consumer; refuse what the gateway would not take."""
    from authgate_fast.config.documents import read_document_at

    text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    document = read_document_at(key, text, label(key), "")
    if not isinstance(document, ConsumerDocument):
        problems = document if isinstance(document, list) else []
        raise InputError(_listed("nothing was written:", problems))
    return text, document


def update(store: RedisStore, key: DocumentKey, change: Callable[[Fields, ConsumerDocument], None]) -> bool:
    """Change a stored consumer; tell whether that made a difference. `change` may be called again."""
    from authgate_fast.config.redis_store import ChangedError

    for _ in range(_ATTEMPTS):
        value = store.read([key])[key]
        fields, document = decode(store, key, value)
        before = dict(fields)
        change(fields, document)
        if fields == before:
            return False
        text, _document = encode(key, fields)
        try:
            store.write({key: text}, {key: value})
        except ChangedError:
            continue
        return True
    raise _busy(key)


def delete(store: RedisStore, key: DocumentKey) -> None:
    from authgate_fast.config.redis_store import ChangedError

    for _ in range(_ATTEMPTS):
        value = store.read([key])[key]
        if value is None:
            raise absent(store, key)
        try:
            store.write({key: None}, {key: value})
        except ChangedError:
            continue
        return
    raise _busy(key)


def _busy(key: DocumentKey) -> InputError:
    return InputError(f"the {label(key)} is being changed by others all the time; nothing was written")


def _read(key: DocumentKey, value: Value) -> AnyDocument:
    from authgate_fast.config.documents import read_document

    if isinstance(value, Unreadable):
        raise InputError(f"the {label(key)} cannot be used: {value.message}")
    document = read_document(key, value or b"")
    if isinstance(document, list):
        raise InputError(_listed(f"the {label(key)} in Redis is not valid:", document))
    return document


def _listed(heading: str, problems: list[Problem]) -> str:
    return "\n".join([heading, *(str(problem) for problem in problems)])
