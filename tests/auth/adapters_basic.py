"""Basic credentials in the conformance kit, with a real pool and cheap hashes."""

from __future__ import annotations

import asyncio
from base64 import b64encode

from authgate_fast.auth.basic import MAX_TOKEN_BYTES, BasicAuthenticator, PasswordLookup
from authgate_fast.auth.interface import Authenticator, Denial
from authgate_fast.decision import Pending
from authgate_fast.lookup import passwords
from authgate_fast.lookup.passwords import PasswordPool
from authgate_fast.snapshot import Identity
from tests.auth.kit import NOW, Adapter
from tests.auth.users import cheap_hash, user
from tests.plan_world import Fields


def basic(username: str, password: str) -> Fields:
    return [(b"Authorization", b"Basic " + b64encode(f"{username}:{password}".encode()))]


class CountingPool(PasswordPool):
    """A pool that counts the hashes it was given to compare with; `passwords._find_match` tries each."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.compared = 0

    def _start(self, check: passwords._Check) -> None:
        self.compared += len(check.hashes)
        super()._start(check)


class BasicAdapter(Adapter):
    name = "BASIC"
    field = b"authorization"
    prefix = b"Basic "

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        self._password = f"correct horses of {gateway}"
        self._authenticator = BasicAuthenticator(gateway, gateway, self.consumers)
        self._pool = CountingPool()
        for one in (
            user("ann", cheap_hash(self._password), roles=("reader",)),
            user("brief", cheap_hash("brief"), expires_at=NOW + 100),
            user("old", cheap_hash("old"), expires_at=NOW),
        ):
            self.consumers.users[one.username] = one

    def authenticator(self) -> Authenticator:
        return self._authenticator

    def good(self) -> Fields:
        return basic("ann", self._password)

    def identity_lines(self) -> bytes:
        return b"X-Consumer-Id: ann\r\nX-Consumer-Roles: reader\r\nX-Credential-Id: default\r\n"

    def brief(self) -> tuple[Fields, float]:
        return basic("brief", "brief"), NOW + 100

    def missing(self) -> list[Fields]:
        values = (b"", b"Bearer abc", b"Basicx YTpi", b"Digest username=ann", b"X-Basic YTpi")
        return [[(b"Authorization", value)] for value in values]

    def malformed(self) -> list[Fields]:
        token = self.good()[0][1].removeprefix(b"Basic ")
        values = [
            b"Basic",
            b"Basic !!!!",
            b"Basic YW5u",  # no colon
            b"Basic " + token.rstrip(b"="),
            b"Basic " + token + b"=",
            b"Basic " + token + b" " + token,
            b"Basic " + token[:8] + b" " + token[8:],
            b"Basic " + b64encode(b"ann:\x00"),
            b"Basic " + b64encode(b"ann:\xff"),
            b"Basic " + b64encode(b":no name"),
        ]
        return [[(b"Authorization", value)] for value in values]

    def oversized(self) -> Fields:
        return [(b"Authorization", b"Basic " + b64encode(b"ann:" + b"x" * MAX_TOKEN_BYTES))]

    def bad(self) -> dict[str, Fields]:
        return {
            "wrong": basic("ann", "wrong"),
            "unknown": basic("nobody", self._password),
            "expired": basic("old", "old"),
            "disabled": basic("somebody-disabled", "right"),
        }

    def secrets(self) -> list[bytes]:
        return [self._password.encode(), self.good()[0][1].removeprefix(b"Basic ")]

    def end_access(self) -> bool:
        del self.consumers.users[b"ann"]
        return True

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        assert isinstance(pending.lookup, PasswordLookup)
        return asyncio.run(self._pool.check(pending.lookup, lambda: now))

    def costly_operations(self) -> int:
        return self._pool.compared


ADAPTERS: list[type[Adapter]] = [BasicAdapter]
