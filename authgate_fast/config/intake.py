"""Takes documents in, one by one: reads them, reports those that are refused, and has consumers' credentials in force.

A bad document is refused alone and its last good version stays. What a document means for routing is not known here.
No IO, no clock; `Configuration` says when. This is what a start works through for each of a million consumers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from authgate_fast.config.credentials import Credentials
from authgate_fast.config.documents import read_document, summarise
from authgate_fast.config.keys import DocumentKey, Unreadable, label, redis_key
from authgate_fast.config.problems import Problem
from authgate_fast.config.texts import Texts
from authgate_fast.model import AnyDocument, ConsumerDocument

if TYPE_CHECKING:
    from authgate_fast.config.pages import Page

Raw = bytes | Unreadable | None
"""A document's JSON, or why it cannot be read, or None: it is not there (any more)."""

log = logging.getLogger("authgate.config")


class Intake:
    """What is known of documents.

    ``documents``: the last good text of each; ``bad``: the text of each that is refused, so that reading it again says
    nothing new; ``refused``: what is not in force, and why, by its name for people; ``credentials``: by gateway;
    ``changes``: how many changes of consumers have come in force.
    """

    __slots__ = ("bad", "changes", "credentials", "documents", "refused")

    def __init__(self) -> None:
        self.documents = Texts()
        self.bad: dict[DocumentKey, bytes | Unreadable] = {}
        self.refused: dict[str, Problem] = {}
        self.credentials: dict[str, Credentials] = {}
        self.changes = 0

    def is_news(self, key: DocumentKey, raw: Raw) -> bool:
        """Tell whether `raw` differs from what was read last."""
        bad = self.bad.get(key)
        if raw is None:
            return bad is not None or key in self.documents
        if bad is not None:
            return raw != bad
        known = self.documents.get(key)
        return known is None or raw != known

    def differing(self, page: Page) -> Page:
        """Return those of some documents whose text is not the one in force, or that are refused."""
        documents, bad = self.documents, self.bad
        return [one for one in page if one[1] != documents.get(one[0]) or (bad and one[0] in bad)]

    def read(self, key: DocumentKey, raw: Raw) -> AnyDocument | Literal[False] | None:
        """Return the document, None if it is gone, False if it is refused (and reported)."""
        if raw is None:
            self._accept(key)
            return None
        if isinstance(raw, Unreadable):
            problem = Problem(redis_key(key), "", "", raw.message)
        else:
            document = read_document(key, raw)
            if not isinstance(document, list):
                self._accept(key)
                return document
            problem = summarise(document)
        self.bad[key] = raw
        self.report(label(key), problem)
        return False

    def keep(self, key: DocumentKey, raw: Raw) -> None:
        """Note the text of a document that has come in force, or that it is gone."""
        if isinstance(raw, bytes):
            self.documents[key] = raw
        else:
            self.documents.pop(key, None)

    def take_consumers(self, news: list[tuple[DocumentKey, Raw]], *, by_name: bool) -> None:
        """Read consumers and have their credentials in force; `settle` when all are.

        `by_name`: of those who claim the same, the first by name is to have it, whoever came first.
        """
        documents, bad = self.documents, self.bad
        for key, raw in news:
            if bad and key in bad:
                if raw == bad[key]:
                    continue
            elif isinstance(raw, bytes):
                digest = documents.add_alike(key, raw)
                if digest is not None:
                    self.credentials_of(key[1]).take_key(key[2], digest, by_name=by_name)
                    self.changes += 1
                    continue
            old_raw = documents.get(key)
            if raw == old_raw and key not in bad:
                continue
            new = self.read(key, raw)
            if new is False or raw == old_raw:
                continue
            after = new if isinstance(new, ConsumerDocument) else None
            self.credentials_of(key[1]).change(key[2], old_raw, after, by_name=by_name)
            self.keep(key, raw)
            if after is not None and documents.can_teach(key):
                self._learn(key, after)
            self.changes += 1

    def credentials_of(self, gateway: str) -> Credentials:
        """Return the credentials of a gateway, new ones if nothing is known of it yet."""
        credentials = self.credentials.get(gateway)
        if credentials is None:
            credentials = self.credentials[gateway] = Credentials(gateway, self.documents)
        return credentials

    def settle(self, gateway: str) -> None:
        """Report how clashes of the gateway's consumers have changed."""
        credentials = self.credentials.get(gateway)
        if credentials is None:
            return
        over, now = credentials.settle()
        for name in over:
            self.withdraw(name)
        for name, problem in now.items():
            self.report(name, problem)

    def report(self, name: str, problem: Problem) -> None:
        """Say that something is not in force; once in the log."""
        if self.refused.get(name) != problem:
            self.refused[name] = problem
            log.error("not in force: %s: %s", name, problem)

    def withdraw(self, name: str) -> None:
        """Take back what was reported."""
        self.refused.pop(name, None)

    def _learn(self, key: DocumentKey, document: ConsumerDocument) -> None:
        """Have others like this consumer taken in without being read, if a key is all that it has."""
        if document.enabled and document.password_hash is None and not document.passwords:
            digests = document.key_digests()
            if len(digests) == 1:
                self.documents.learn(key, digests[0])

    def _accept(self, key: DocumentKey) -> None:
        if self.bad and self.bad.pop(key, None) is not None:
            self.withdraw(label(key))
