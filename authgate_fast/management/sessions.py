"""`authgate session list|revoke GATEWAY`: the browser sessions of a BFF gateway.

It works by what stands in clear in the store: whose a session is, when it began and when it ends at the latest. What
is sealed stays sealed; nothing here could open it. A session's id is the beginning of the digest that it is
stored under, which nobody can log in with. Every node notices a revoked session at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from authgate_fast.auth.session import SESSION_PREFIX, read_clear
from authgate_fast.management import stored
from authgate_fast.management.options import (
    OK,
    InputError,
    Subparsers,
    add_flag,
    add_redis,
    add_value,
    say,
    with_store,
)
from authgate_fast.model_auth import BffAuth

if TYPE_CHECKING:
    from authgate_fast.config.redis_store import RedisStore
    from authgate_fast.lookup.redis_store import RedisStateStore

MAX_SESSIONS = 1_000_000
ID_LENGTH = 16
_AT_ONCE = 8
_YEAR_9999 = 253_370_764_800.0
_ID = re.compile(r"[0-9a-f]{8,64}")
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as it stands in the store. Moments are seconds since the epoch, None if unreadable."""

    name: str
    user: str
    created_at: float | None
    ends_at: float | None

    @property
    def id(self) -> str:
        return self.name.rpartition(":")[2][:ID_LENGTH]


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    session = commands.add_parser(
        "session", help="the browser sessions of BFF gateways", description="Browser sessions in Redis."
    )
    actions = session.add_subparsers(metavar="ACTION", required=True)

    show = actions.add_parser("list", help="who is logged in", description="List who is logged in.")
    show.add_argument("gateway", metavar="GATEWAY")
    add_redis(show)
    add_value(show, "user", metavar="SUB", help="only this user's: `sub` as the identity provider says it")
    add_flag(show, "json", "print JSON")
    show.set_defaults(handler=with_store(_list))

    revoke = actions.add_parser(
        "revoke",
        help="end sessions",
        description="End one session, all of a user, or all: on every node, at once.",
    )
    revoke.add_argument("gateway", metavar="GATEWAY")
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID", help="a session's id, as `session list` shows it")
    which.add_argument("--user", metavar="SUB", help="all sessions of this user")
    which.add_argument("--all", action="store_true", help="all sessions of the gateway")
    add_redis(revoke)
    revoke.set_defaults(handler=with_store(_revoke))


def _list(options: argparse.Namespace, documents: RedisStore) -> int:
    _check_gateway(documents, options.gateway)
    found = _with_state(options, lambda store: _read(store, options.gateway))
    sessions = sorted(
        (one for one in found if options.user is None or one.user == options.user),
        key=lambda one: (one.created_at or 0.0, one.id),
    )
    if options.json:
        print(json.dumps([_facts(options.gateway, one) for one in sessions]))
        return OK
    rows = [("ID", "USER", "BEGAN", "ENDS")]
    rows += [(one.id, _shown(one.user), _time(one.created_at), _time(one.ends_at)) for one in sessions]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


def _revoke(options: argparse.Namespace, documents: RedisStore) -> int:
    _check_gateway(documents, options.gateway)
    if options.id is not None and _ID.fullmatch(options.id) is None:
        raise InputError(
            f"{options.id!r} is no session's id: 8 or more hex digits, as `authgate session list` shows them"
        )
    count = _with_state(options, lambda store: _end(store, options))
    say(f"ended {count} session{'' if count == 1 else 's'} of gateway {options.gateway}")
    return OK


async def _end(store: RedisStateStore, options: argparse.Namespace) -> int:
    prefix = _prefix(options.gateway)
    if options.user is not None:
        names = [one.name for one in await _read(store, options.gateway) if one.user == options.user]
    else:
        names = await store.names(prefix + (options.id or ""), MAX_SESSIONS)
    if options.id is not None and len(names) != 1:
        what = "there is no session" if not names else f"there are {len(names)} sessions"
        raise InputError(f"{what} of gateway {options.gateway} whose id begins with {options.id}")
    return sum(await _each(names, store.delete))


async def _read(store: RedisStateStore, gateway: str) -> list[StoredSession]:
    names = await store.names(_prefix(gateway), MAX_SESSIONS)
    values = await _each(names, store.get)
    return [_session(name, value) for name, value in zip(names, values, strict=True) if value is not None]


def _session(name: str, value: bytes) -> StoredSession:
    clear = read_clear(value) or {}
    user, created_at, ends_at = (clear.get(field) for field in ("sub", "created_at", "ends_at"))
    return StoredSession(
        name,
        user if isinstance(user, str) else "",
        created_at if isinstance(created_at, float) else None,
        ends_at if isinstance(ends_at, float) else None,
    )


async def _each(names: list[str], ask: Callable[[str], Awaitable[_Outcome]]) -> list[_Outcome]:
    """Ask about every name, a few at a time."""
    found: list[_Outcome] = []
    for start in range(0, len(names), _AT_ONCE):
        found += await asyncio.gather(*(ask(name) for name in names[start : start + _AT_ONCE]))
    return found


def _with_state(
    options: argparse.Namespace, work: Callable[[RedisStateStore], Awaitable[_Outcome]]
) -> _Outcome:
    from authgate_fast.config.redis_store import StoreError
    from authgate_fast.lookup.redis_store import RedisStateStore
    from authgate_fast.lookup.store import StateUnavailableError

    async def run() -> _Outcome:
        store = RedisStateStore(options.redis)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StateUnavailableError as error:
        raise StoreError(str(error)) from None


def _check_gateway(documents: RedisStore, gateway: str) -> None:
    auth = stored.gateway_auth(documents, gateway)
    if not isinstance(auth, BffAuth):
        raise InputError(
            f"gateway {gateway} has the auth type {auth.type}: browsers have no sessions with it"
        )


def _prefix(gateway: str) -> str:
    return f"{SESSION_PREFIX}{gateway}:"


def _facts(gateway: str, session: StoredSession) -> dict[str, str]:
    return {
        "gateway": gateway,
        "id": session.id,
        "user": session.user,
        "created_at": _time(session.created_at),
        "ends_at": _time(session.ends_at),
    }


def _shown(user: str) -> str:
    """Return a subject for a terminal: what somebody else chose must not move a cursor."""
    return user if user.isprintable() and user else ascii(user)


def _time(moment: float | None) -> str:
    if moment is None or not 0 <= moment < _YEAR_9999:
        return "-"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
