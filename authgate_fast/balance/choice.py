"""The three ways to choose one of several members. Pure; the loops are in proportion to the members, who are few.

Each takes members whose ``share`` is above zero, at least one of them, and returns one of them.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.balance.member import Member

SLOTS: Final = 8_192
"""A hash key falls into one of these, and each has an order of members of its own: fine enough for 256 members."""
_SCALE: Final = 1.0 / (1 << 53)


def round_robin(members: list[Member]) -> Member:
    """Choose in turn, by share, and smoothly: a heavy one's turns are spread among the others' (as nginx does)."""
    best = members[0]
    total = 0.0
    most = 0.0
    first = True
    for member in members:
        share = member.share
        total += share
        member.current = current = member.current + share
        if first or current > most:
            first = False
            most = current
            best = member
    best.current -= total
    return best


def least_connections(members: list[Member]) -> Member:
    """Choose who has the fewest requests for its share; among equals in turn, by share."""
    best = members[0]
    active = float(best.active)
    share = best.share
    equals = 1
    for member in members:
        if member is best:
            continue
        mine = member.active * share
        theirs = active * member.share
        if mine < theirs:
            best = member
            active = float(member.active)
            share = member.share
            equals = 1
        elif mine == theirs:
            equals += 1
    if equals == 1:
        return best
    if equals == len(members):
        return round_robin(members)
    return round_robin([member for member in members if member.active * share == active * member.share])


def slot_of(key: bytes) -> int:
    """Return the slot of a hash key; the same in every worker and on every node."""
    return int.from_bytes(blake2b(key, digest_size=4).digest(), "big") % SLOTS


def highest_ranked(slot: int, members: list[Member]) -> Member:
    """Choose the first in the slot's own order (weighted rendezvous hashing).

    The order of any two does not depend on the others. So one that comes takes over its share of the slots and no
    more, one that goes leaves its slots to the next in each slot's order, and all others stay where they are. Weights
    count and not shares: keys that wander in a slow start would come to nobody's good.
    """
    best = members[0]
    least = 0.0
    first = True
    for member in members:
        digest = blake2b(b"%d %b" % (slot, member.key.encode("ascii")), digest_size=8).digest()
        # In the open interval from 0 to 1. Exponential times at a rate of the weight: who is first, wins.
        place = ((int.from_bytes(digest, "big") >> 11) + 0.5) * _SCALE
        time = -log(place) / member.weight
        if first or time < least:
            first = False
            least = time
            best = member
    return best
