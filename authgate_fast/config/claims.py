"""Who was first: hosts among gateways, keys among the consumers of one gateway.

The first claim holds; later ones wait in their order, are reported, and take over when it goes.
Changing claims and reporting them are two calls, so that one batch can move a claim without a false
report in between. Pure, no IO.
"""

from __future__ import annotations

from collections.abc import Mapping

from authgate_fast.config.keys import DocumentKey, label, redis_key
from authgate_fast.config.problems import Problem
from authgate_fast.snapshot import Credential

Settlement = tuple[list[str], dict[str, Problem]]
"""Names of clashes that are over, and the clashes there are now."""


class HostClaims:
    """The hosts that gateways want. ``settle`` names each clash ``gateway shop host example.com``."""

    __slots__ = ("_claims", "_reported", "_wanted")

    def __init__(self) -> None:
        self._claims: dict[str, list[str]] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._reported: set[str] = set()

    def change(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        """Set the hosts that each of some gateways wants; all departures count before any arrival."""
        for gateway, hosts in wanted.items():
            for host in self._wanted.get(gateway, ()):
                if host not in hosts:
                    self._claims[host].remove(gateway)
                    if not self._claims[host]:
                        del self._claims[host]
        for gateway, hosts in wanted.items():
            before = self._wanted.pop(gateway, ())
            for host in hosts:
                if host not in before:
                    self._claims.setdefault(host, []).append(gateway)
            if hosts:
                self._wanted[gateway] = hosts

    def holder(self, host: str) -> str:
        """Return the gateway that a host belongs to."""
        return self._claims[host][0]

    def settle(self) -> Settlement:
        """Return how clashes have changed since the last call."""
        now: dict[str, Problem] = {}
        for host, gateways in self._claims.items():
            for gateway in gateways[1:]:
                now[f"gateway {gateway} host {host}"] = Problem(
                    redis_key(DocumentKey("gateway", gateway, gateway)),
                    "hosts",
                    host,
                    f"the older gateway `{gateways[0]}` has this host already and keeps it; "
                    "the other hosts of this gateway work",
                )
        over = [name for name in self._reported if name not in now]
        self._reported = set(now)
        return over, now


class KeyClaims:
    """The keys of one gateway's consumers. ``credentials`` is what the snapshot shares and serves from."""

    __slots__ = ("_reported", "_unsettled", "_waiting", "credentials")

    def __init__(self) -> None:
        self.credentials: dict[bytes, Credential] = {}
        self._waiting: dict[bytes, list[Credential]] = {}
        self._unsettled: set[bytes] = set()
        self._reported: dict[bytes, list[str]] = {}

    def claim(self, digest: bytes, credential: Credential) -> None:
        """Let a consumer have a key, or wait for it."""
        holder = self.credentials.get(digest)
        if holder is None or holder.consumer == credential.consumer:
            self.credentials[digest] = credential
            return
        self._unsettled.add(digest)
        waiting = self._waiting.setdefault(digest, [])
        for index, other in enumerate(waiting):
            if other.consumer == credential.consumer:
                waiting[index] = credential
                return
        waiting.append(credential)

    def release(self, digest: bytes, consumer: str) -> None:
        """End a consumer's claim on a key, at once; the next in line has it from now on."""
        waiting = self._waiting.get(digest)
        if waiting is None:
            del self.credentials[digest]
            return
        self._unsettled.add(digest)
        if self.credentials[digest].consumer == consumer:
            self.credentials[digest] = waiting.pop(0)
        else:
            waiting[:] = [other for other in waiting if other.consumer != consumer]
        if not waiting:
            del self._waiting[digest]

    def settle(self, gateway: str) -> Settlement:
        """Return how clashes have changed since the last call; no message holds a key or its hash."""
        over: list[str] = []
        now: dict[str, Problem] = {}
        for digest in self._unsettled:
            over += self._reported.pop(digest, ())
            for credential in self._waiting.get(digest, ()):
                key = DocumentKey("consumer", gateway, credential.consumer)
                name = f"{label(key)} key {credential.credential_id}"
                now[name] = Problem(
                    redis_key(key),
                    "api_keys",
                    f"a key ({credential.credential_id}) that another consumer has",
                    f"the older consumer `{self.credentials[digest].consumer}` keeps it; "
                    "each consumer needs its own key",
                )
                self._reported.setdefault(digest, []).append(name)
        self._unsettled.clear()
        return [name for name in over if name not in now], now
