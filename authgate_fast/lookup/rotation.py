"""A new signing key for a gateway whose workers are at work.

Without `revoke` no live token is cut: the new key stands in the store `PUBLISH_S` before it signs, so that every worker
can verify with it by then; the old one signs until that moment, loses its private half, and verifies until the last
token that it signed has ended. With `revoke` the old keys are gone at once, whatever state they are in.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from authgate_fast.auth.signing import (
    MAX_KEYS,
    PUBLISH_S,
    Keyring,
    KeyringError,
    StoredKey,
    new_key,
    open_key,
    parse_keyring,
)
from authgate_fast.lookup.store import SECRET_PREFIX

if TYPE_CHECKING:
    from authgate_fast.lookup.store import StateStore

_ATTEMPTS = 5


class RotationError(Exception):
    """There can be no new key; the text is a sentence for an operator."""


async def rotate(
    store: StateStore,
    gateway: str,
    algorithm: str,
    sealing_key: bytes | None = None,
    *,
    revoke: bool = False,
) -> StoredKey:
    """Make a new key and see the change through; return the key. Raises RotationError, StateUnavailableError."""
    name = SECRET_PREFIX + gateway
    for _ in range(_ATTEMPTS):
        text, now = await store.get(name), time.time()
        is_alone = revoke or text is None
        key = new_key(
            algorithm,
            name=name,
            now=now,
            active_at=now if is_alone else now + PUBLISH_S,
            sealing_key=sealing_key,
        )
        if text is None:
            if await store.add(name, Keyring((key,)).dump(), None):
                return key
            continue
        changed = Keyring((key,)) if revoke else _with_new(text, name, key, sealing_key)
        if await store.swap(name, text, changed.dump(), None):
            break
    else:
        raise RotationError(f"{name} is changed by somebody else all the time; try again")
    if not revoke:
        await asyncio.sleep(max(key.active_at - time.time(), 0.0))
        await _tidy(store, name)
    return key


def _with_new(text: bytes, name: str, key: StoredKey, sealing_key: bytes | None) -> Keyring:
    try:
        old = parse_keyring(text, name).tidied(key.created_at)
        current = old.current(key.created_at)
        if current is not None:
            # Who cannot open the old key does not know how the workers need the new one to be stored.
            open_key(current, name=name, sealing_key=sealing_key)
    except KeyringError as error:
        raise RotationError(str(error)) from None
    if len(old.keys) >= MAX_KEYS:
        raise RotationError(
            f"{MAX_KEYS} keys in {name} still count; rotate again when the oldest have ended (a day after they were "
            "retired), or drop them all with --revoke"
        )
    return old.with_new(key)


async def _tidy(store: StateStore, name: str) -> None:
    """Take the private half of the retired key out of the store. Workers do it too, at their next login."""
    for _ in range(_ATTEMPTS):
        text = await store.get(name)
        if text is None:
            return
        try:
            keyring = parse_keyring(text, name)
        except KeyringError as error:
            raise RotationError(str(error)) from None
        tidied = keyring.tidied(time.time())
        if tidied == keyring or await store.swap(name, text, tidied.dump(), None):
            return
