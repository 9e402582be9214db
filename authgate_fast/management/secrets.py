"""`authgate secret rotate GATEWAY`: a new signing key for a JWT gateway, without cutting a live token.

The new key is published first and signs a moment later, when every worker knows it; then the old one loses its private
half and verifies until the last token that it signed has ended. With ``--revoke`` the old keys are gone at
once, and with them every access token; clients get new ones with their refresh tokens.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from authgate_fast.config.keys import DocumentKey
from authgate_fast.management.options import (
    OK,
    InputError,
    Subparsers,
    add_flag,
    add_redis,
    add_value,
    with_store,
)

if TYPE_CHECKING:
    from authgate_fast.auth.signing import StoredKey
    from authgate_fast.config.redis_store import RedisStore


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    secret = commands.add_parser(
        "secret", help="the signing keys of JWT gateways", description="Signing keys in Redis."
    )
    actions = secret.add_subparsers(metavar="ACTION", required=True)
    rotate = actions.add_parser(
        "rotate",
        help="a new signing key",
        description="Make a new signing key for a JWT gateway. Tokens that the old one signed stay valid until "
        "they end, unless --revoke is given.",
    )
    rotate.add_argument("gateway", metavar="GATEWAY")
    add_redis(rotate)
    add_value(
        rotate,
        "secret-key-file",
        metavar="FILE",
        help="the key-encryption key: 32 bytes in hex or base64 (AUTHGATE_SECRET_KEY_FILE)",
    )
    add_flag(rotate, "revoke", "drop the old keys at once: every access token of the gateway ends")
    rotate.set_defaults(handler=with_store(_rotate))


def _rotate(options: argparse.Namespace, documents: RedisStore) -> int:
    from authgate_fast.config.redis_store import StoreError
    from authgate_fast.lookup.redis_store import RedisStateStore
    from authgate_fast.lookup.rotation import RotationError, rotate
    from authgate_fast.lookup.sealing import SealingKeyError, read_sealing_key
    from authgate_fast.lookup.store import StateUnavailableError

    try:
        sealing_key = read_sealing_key(options.secret_key_file) if options.secret_key_file else None
    except SealingKeyError as error:
        raise InputError(str(error)) from None
    algorithm = _algorithm(documents, options.gateway)

    async def work() -> StoredKey:
        store = RedisStateStore(options.redis)
        try:
            return await rotate(store, options.gateway, algorithm, sealing_key, revoke=options.revoke)
        finally:
            await store.close()

    try:
        key = asyncio.run(work())
    except RotationError as error:
        raise InputError(str(error)) from None
    except StateUnavailableError as error:
        raise StoreError(str(error)) from None
    how = "sealed" if key.sealed is not None else "not sealed; see --secret-key-file"
    print(f"gateway {options.gateway} signs with the new key {key.kid} ({key.algorithm}, {how})")
    if options.revoke:
        print("the old keys are gone, and with them every access token")
    else:
        print("what the old key has signed stays valid until it ends")
    return OK


def _algorithm(documents: RedisStore, gateway: str) -> str:
    from authgate_fast.config.documents import read_document
    from authgate_fast.model import GatewayDocument
    from authgate_fast.model_auth import JwtAuth

    key = DocumentKey("gateway", gateway, gateway)
    text = documents.read([key])[key]
    if text is None:
        names = ", ".join(documents.gateways()) or "none at all"
        raise InputError(f"there is no gateway {gateway}; there are: {names}")
    document = read_document(key, text) if isinstance(text, bytes) else None
    if not isinstance(document, GatewayDocument):
        raise InputError(f"the document of gateway {gateway} is not valid; see `authgate export`")
    if not isinstance(document.auth, JwtAuth):
        raise InputError(f"gateway {gateway} has the auth type {document.auth.type}: it signs no tokens")
    return document.auth.algorithm
