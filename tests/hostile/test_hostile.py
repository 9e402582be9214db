"""Hostile clients of each kind, in the hundred, against a real gateway: its limits bite, and a good client is served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.hostile import KINDS, LIMITS, Gateway, Kind, Outcome, attack, scene
from bench.hostile_clients import silent

MIB = 1_048_576
CLIENTS = 100
SECONDS = 2.5
READ = 262_144
"""What the event loop may read from one connection at a time."""
MEMORY = 12 * MIB + CLIENTS * 3 * READ
"""What they may make the gateway take: the budget of 4 MiB and what connections add, and a few reads of each, for one
turn of the loop may bring so much before anybody can be ended, and the allocator gives back what it took at leisure.
Without a budget a hundred answers of 8 MB would stand in it."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with scene(dict(LIMITS)) as running:
        yield running


def check(outcome: Outcome, kind: Kind) -> None:
    if kind.limits:
        assert set(kind.limits) & set(outcome.hits), outcome.hits
    assert outcome.wrong == []
    assert outcome.requests > 0
    assert outcome.connections > 0
    assert outcome.most_rss - outcome.rss_before < MEMORY
    assert outcome.files_after <= outcome.files_before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_hostile_clients_run_into_a_limit_and_a_good_one_is_served(
    gateway: Gateway, kind: Kind
) -> None:
    outcome = await attack(gateway, kind, CLIENTS, SECONDS)
    check(outcome, kind)


async def test_a_flood_of_connections_has_a_cap_and_a_good_client_still_gets_in() -> None:
    """Three times as many silent connections as there is room for; who has said nothing for a second leaves first."""
    with scene({**LIMITS, "max_connections": 40, "head_timeout_s": 30}) as flooded:
        kind = Kind(silent, ("max_connections",))
        outcome = await attack(flooded, kind, CLIENTS + 20, 4.0)
        check(outcome, kind)
        assert outcome.requests > 5


async def test_one_address_has_a_cap_of_its_own() -> None:
    with scene({**LIMITS, "max_connections_per_address": 40, "head_timeout_s": 30}) as flooded:
        kind = Kind(silent, ("max_connections_per_address",))
        outcome = await attack(flooded, kind, CLIENTS + 20, 3.0)
        check(outcome, kind)
