"""Keys whose identities are given, and all identities that some keys stand for."""

from __future__ import annotations

from collections.abc import Mapping

from authgate_fast.snapshot import Identity, Keys


def keys_of(identities: Mapping[bytes, Identity]) -> Keys:
    """Return keys that stand for `identities`, by their digests."""
    holders = {digest: identity.consumer for digest, identity in identities.items()}
    return Keys(holders, lambda consumer, digest: identities.get(digest))


def remove(keys: Keys, digest: bytes) -> None:
    """Do what a change of the documents does: the key is nobody's any more."""
    del keys.holders[digest]
    keys.forget(digest)


def identity_of(keys: Keys, digest: bytes) -> Identity:
    """Return what a known key stands for."""
    identity = keys.get(digest)
    assert identity is not None
    return identity


def all_identities(keys: Keys) -> dict[bytes, Identity]:
    """Return what every key stands for."""
    return {digest: identity_of(keys, digest) for digest in keys.holders}
