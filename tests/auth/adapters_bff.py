"""Session cookies in the conformance kit, with a store in memory."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from authgate_fast.auth.bff import SessionLookup
from authgate_fast.auth.interface import Authenticator, Denial
from authgate_fast.decision import Pending
from authgate_fast.snapshot import Identity
from tests.auth.bff_world import BffWorld, record
from tests.auth.kit import NOW, Adapter
from tests.plan_world import Fields


def cookie(value: bytes) -> Fields:
    return [(b"Cookie", b"AUTHGATE_BFF_SESSION=" + value)]


class BffAdapter(Adapter):
    name = "BFF"
    field = b"cookie"
    prefix = b"AUTHGATE_BFF_SESSION="
    counts_failures: ClassVar[bool] = False  # the same worthless cookie counts once; test_bff has the rule

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        self._world = BffWorld(gateway)
        self._good = self._world.begin()
        self._brief = self._world.begin(record(ends_at=NOW + 100))
        self._old = self._world.begin(record(ends_at=NOW - 1))

    def authenticator(self) -> Authenticator:
        return self._world.authenticator

    def good(self) -> Fields:
        return cookie(self._good)

    def identity_lines(self) -> bytes:
        return b"X-User-Id: u-1\r\nX-User-Roles: buyer\r\nX-Client-Id: shop\r\n"

    def token_line(self) -> bytes:
        return b"Authorization: Bearer access-1\r\n"

    def brief(self) -> tuple[Fields, float]:
        return cookie(self._brief), NOW + 100

    def missing(self) -> list[Fields]:
        values = (
            b"",
            b"a=b",
            b"AUTHGATE_BFF_SESSION",
            b"x" + self._good,
            b"XAUTHGATE_BFF_SESSION=" + self._good,
        )
        authorization: Fields = [(b"Authorization", b"Bearer access-1")]
        return [authorization, *([(b"Cookie", value)] for value in values)]

    def malformed(self) -> list[Fields]:
        good = self._good
        return [
            cookie(value)
            for value in (b"", good[:-1], good + b"A", b'"%b"' % good, good[:-1] + b".", b"A=" * 21 + b"A")
        ]

    def duplicated(self) -> list[Fields]:
        pair, other = self.prefix + self._good, self.prefix + b"A" * 43
        lines = (
            pair + b"; " + pair,
            pair + b"; " + other,
            other + b";" + pair,
            pair + b"; AUTHGATE_BFF_SESSION=",
        )
        good, wrong = self.good(), cookie(b"A" * 43)
        return [good + good, good + wrong, wrong + good, *([(b"Cookie", line)] for line in lines)]

    def bad(self) -> dict[str, Fields]:
        return {
            "wrong": cookie(self._good[::-1]),
            "unknown": cookie(b"A" * 43),
            "expired": cookie(self._old),
        }

    def end_access(self) -> bool:
        asyncio.run(self._world.sessions.end(self._world.authenticator, self._good))
        return True

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        assert isinstance(pending.lookup, SessionLookup)
        self._world.now = now
        return asyncio.run(self._world.sessions.find(self._world.authenticator, pending.lookup))

    def costly_operations(self) -> int:
        return self._world.store.gets


ADAPTERS: list[type[Adapter]] = [BffAdapter]
