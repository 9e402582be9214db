"""How many refresh families one consumer may have: a client that logs in for each request must not fill the store.

Beside the families of a consumer stands the list of their names, in the order of the logins. When it is longer than
`MAX_FAMILIES`, names of families that have ended are taken out; if it is still full, those that were used the
longest ago are ended, some at once, so that this does not happen at each login. Logins at the same time may miss
the list; such a family is not counted, and ends by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from authgate_fast.auth.json_object import JsonError, read_object
from authgate_fast.lookup.store import STATE_PREFIX

if TYPE_CHECKING:
    from authgate_fast.lookup.store import StateStore

LIST_PREFIX = f"{STATE_PREFIX}families:"
MAX_FAMILIES = 200
DROPPED_AT_ONCE = 20
_ATTEMPTS = 5


async def count_family(
    store: StateStore, *, prefix: str, gateway: str, consumer: str, sid: str, ttl_s: float
) -> None:
    """Note a new family of a consumer. A family's record stands under `prefix` and its `sid`."""
    name = f"{LIST_PREFIX}{gateway}:{consumer}"
    for _ in range(_ATTEMPTS):
        text = await store.get(name)
        if text is None:
            if await store.add(name, orjson.dumps({"families": [sid]}), ttl_s):
                return
            continue
        sids = _read(text)
        dropped: list[str] = []
        if len(sids) >= MAX_FAMILIES:
            sids, dropped = await _shortened(store, prefix, sids)
        if await store.swap(name, text, orjson.dumps({"families": [*sids, sid]}), ttl_s):
            for old in dropped:
                await store.delete(prefix + old)
            return


async def _shortened(store: StateStore, prefix: str, sids: list[str]) -> tuple[list[str], list[str]]:
    """Return which families stay in the list, and which are to be ended."""
    used_at: dict[str, float] = {}
    for sid in sids:
        text = await store.get(prefix + sid)
        if text is not None:
            used_at[sid] = _used_at(text)
    excess = len(used_at) - MAX_FAMILIES + DROPPED_AT_ONCE
    dropped = sorted(used_at, key=lambda sid: used_at[sid])[:excess] if len(used_at) >= MAX_FAMILIES else []
    return [sid for sid in used_at if sid not in dropped], dropped


def _read(text: bytes) -> list[str]:
    try:
        sids: Any = read_object(text).get("families")
    except JsonError:
        return []
    return [sid for sid in sids if isinstance(sid, str)] if isinstance(sids, list) else []


def _used_at(text: bytes) -> float:
    try:
        moment: Any = read_object(text).get("issued_at")
    except JsonError:
        return 0.0
    return float(moment) if isinstance(moment, int | float) else 0.0
