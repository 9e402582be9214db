"""The keys and passwords of one gateway's consumers: who claims them, and what they stand for. Pure, no IO.

Of a million consumers only names, texts and the digests of keys are held. What a key stands for is read again from
its consumer's document when somebody uses the key (`snapshot.Keys`).
"""

from __future__ import annotations

from typing import Final

from authgate_fast.config.claims import Settlement, key_claims, user_claims
from authgate_fast.config.compile import RoleSets, compile_key, compile_user
from authgate_fast.config.documents import read_document
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.texts import Texts
from authgate_fast.model import ConsumerDocument
from authgate_fast.snapshot import Consumers, Identity, Keys

_MAX_ROLE_SETS: Final = 10_000


class Credentials:
    """What the snapshot shares is ``consumers``. `texts` are the documents in force, those of `gateway` among them."""

    __slots__ = ("_gateway", "_keys", "_role_sets", "_texts", "_users", "consumers")

    def __init__(self, gateway: str, texts: Texts) -> None:
        self._gateway = gateway
        self._texts = texts
        self._keys = key_claims()
        self._users = user_claims()
        self._role_sets: RoleSets = {}
        self.consumers = Consumers(Keys(self._keys.holders, self._identity), self._users.holders)

    @property
    def is_empty(self) -> bool:
        return not (self._keys.holders or self._users.holders)

    def change(
        self, name: str, before: bytes | None, after: ConsumerDocument | None, *, by_name: bool
    ) -> None:
        """Let a consumer claim what its document says and release what it said before. The caller changes the texts.

        `by_name`: the claims are part of one batch (`ConsumerClaims.claim`).
        """
        known = self.consumers.keys
        digests: list[bytes] = []
        user = None
        if after is not None and after.enabled:
            digests = after.key_digests()
            user = compile_user(name, after, self._shared_roles())
        if before is not None:
            # Keeping the digests of every consumer would cost more memory than reading one again costs time.
            old = read_document(DocumentKey("consumer", self._gateway, name), before)
            if isinstance(old, ConsumerDocument) and old.enabled:
                for digest in old.key_digests():
                    known.forget(digest)
                    if digest not in digests:
                        self._keys.release(digest, name)
                username = old.login_name(name)
                if old.all_passwords() and (user is None or user.username != username):
                    self._users.release(username, name)
        for digest in digests:
            self._keys.claim(digest, name, by_name=by_name)
            known.forget(digest)
        if user is not None:
            self._users.claim(user.username, user, by_name=by_name)

    def take_key(self, name: str, digest: bytes, *, by_name: bool) -> None:
        """Let a consumer that claimed nothing before claim a key and nothing else."""
        if self.consumers.keys.known:
            self.consumers.keys.forget(digest)
        self._keys.claim(digest, name, by_name=by_name)

    def settle(self) -> Settlement:
        """Return how clashes have changed since the last call."""
        over, now = self._keys.settle(self._gateway, self._key_id)
        users_over, users_now = self._users.settle(self._gateway, _username)
        return over + users_over, now | users_now

    def _identity(self, consumer: str, digest: bytes) -> Identity | None:
        document = self._document(consumer)
        return None if document is None else compile_key(consumer, document, digest, self._shared_roles())

    def _key_id(self, consumer: str, digest: bytes) -> str:
        document = self._document(consumer)
        for key_id, known, _ in document.all_keys() if document is not None else ():
            if known == digest:
                return key_id
        return ""

    def _document(self, consumer: str) -> ConsumerDocument | None:
        """Return the document of a consumer that is in force."""
        key = DocumentKey("consumer", self._gateway, consumer)
        text = self._texts.get(key)
        document = None if text is None else read_document(key, text)
        return document if isinstance(document, ConsumerDocument) and document.enabled else None

    def _shared_roles(self) -> RoleSets:
        if len(self._role_sets) > _MAX_ROLE_SETS:
            self._role_sets.clear()
        return self._role_sets


def _username(consumer: str, name: bytes) -> str:
    return "username"
