"""Who was first: hosts among gateways, keys and usernames among the consumers of one gateway.

The first claim holds; later ones wait in their order, are reported, and take over when it goes.
Changing claims and reporting them are two calls, so that one batch can move a claim without a false
report in between. Pure, no IO.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Generic, TypeVar

from authgate_fast.config.keys import DocumentKey, label, redis_key
from authgate_fast.config.problems import Problem
from authgate_fast.snapshot import User

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


_T = TypeVar("_T")


class ConsumerClaims(Generic[_T]):
    """What the consumers of one gateway claim: their keys, or their usernames.

    ``holders`` is what the snapshot shares and serves from. `consumer_of` tells whose a claim is. `words` say what is
    claimed, for people: the field of the document, one of them, and what to do.
    """

    __slots__ = ("_consumer_of", "_reported", "_unsettled", "_waiting", "_words", "holders")

    def __init__(self, consumer_of: Callable[[_T], str], words: tuple[str, str, str]) -> None:
        self.holders: dict[bytes, _T] = {}
        self._consumer_of = consumer_of
        self._words = words
        self._waiting: dict[bytes, list[_T]] = {}
        self._unsettled: set[bytes] = set()
        self._reported: dict[bytes, list[str]] = {}

    def claim(self, name: bytes, claimed: _T, *, by_name: bool = False) -> None:
        """Let a consumer have a key or username, or wait for it.

        `by_name`: all that claim it are taken as one batch, in which the names of the consumers say who is first.
        """
        holder = self.holders.setdefault(name, claimed)
        if holder is claimed:
            return
        consumer_of = self._consumer_of
        if consumer_of(holder) == consumer_of(claimed):
            self.holders[name] = claimed
            return
        self._unsettled.add(name)
        waiting = self._waiting.setdefault(name, [])
        for index, other in enumerate(waiting):
            if consumer_of(other) == consumer_of(claimed):
                waiting[index] = claimed
                return
        if not by_name:
            waiting.append(claimed)
            return
        if consumer_of(claimed) < consumer_of(holder):
            self.holders[name], claimed = claimed, holder
        insort(waiting, claimed, key=consumer_of)

    def release(self, name: bytes, consumer: str) -> None:
        """End a consumer's claim, at once; the next in line has it from now on."""
        waiting = self._waiting.get(name)
        if waiting is None:
            del self.holders[name]
            return
        self._unsettled.add(name)
        consumer_of = self._consumer_of
        if consumer_of(self.holders[name]) == consumer:
            self.holders[name] = waiting.pop(0)
        else:
            waiting[:] = [other for other in waiting if consumer_of(other) != consumer]
        if not waiting:
            del self._waiting[name]

    def settle(self, gateway: str, credential_of: Callable[[str, bytes], str]) -> Settlement:
        """Return how clashes have changed since the last call; no message holds a key or its hash.

        `credential_of` (consumer, what is claimed) names the credential in the consumer's document.
        """
        field, one, advice = self._words
        over: list[str] = []
        now: dict[str, Problem] = {}
        for name in self._unsettled:
            over += self._reported.pop(name, ())
            for claimed in self._waiting.get(name, ()):
                key = DocumentKey("consumer", gateway, self._consumer_of(claimed))
                credential = credential_of(key.name, name)
                clash = f"{label(key)} {one} {credential}"
                now[clash] = Problem(
                    redis_key(key),
                    field,
                    f"a {one} ({credential}) that another consumer has",
                    f"the older consumer `{self._consumer_of(self.holders[name])}` keeps it; {advice}",
                )
                self._reported.setdefault(name, []).append(clash)
        self._unsettled.clear()
        return [clash for clash in over if clash not in now], now


def key_claims() -> ConsumerClaims[str]:
    """Return the claims on keys, by their SHA-256 digest; a claim is the consumer's name."""
    return ConsumerClaims(str, ("api_keys", "key", "each consumer needs its own key"))


def user_claims() -> ConsumerClaims[User]:
    """Return the claims on usernames, in UTF-8."""
    return ConsumerClaims(
        attrgetter("consumer"), ("username", "name", "each consumer needs its own username")
    )
