"""Some seconds of the fuzzer, and every named case of its corpus, in each run of the tests. ``make fuzz`` goes on for longer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from random import Random

import pytest
import uvloop

from tests.fuzz import mutate
from tests.fuzz.arena import here
from tests.fuzz.campaign import BATCH, REPLIES, REQUESTS, Campaign, Case, Stream, as_named_case, run_batch
from tests.fuzz.corpus import replies, requests

FIXED_S = 5.0
FRESH_S = 3.0
FIXED_SEED = 4
FRESH_SEED = int.from_bytes(os.urandom(4), "big")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.mark.slow
@pytest.mark.parametrize("direction", [REQUESTS, REPLIES])
async def test_no_input_is_read_differently_here_and_there(direction: str) -> None:
    """A fixed seed and a fresh one; a finding is printed as a named case, with the seed that brings it back."""
    async with here() as arena:
        for seed, seconds in ((FIXED_SEED, FIXED_S), (FRESH_SEED, FRESH_S)):
            campaign = Campaign(arena, direction, seed)
            deadline_s = time.monotonic() + seconds
            while time.monotonic() < deadline_s and not campaign.found:
                await campaign.run(range(campaign.batches * BATCH, (campaign.batches + 1) * BATCH))
            for found in campaign.found:
                small = await campaign.shrink(found)
                pytest.fail(f"seed {seed}, iteration {found.iteration}: {found.what}\n{as_named_case(small)}")
            assert campaign.cases >= BATCH


async def _run_named(cases: dict[str, Case]) -> list[str]:
    async with here() as arena:
        return [
            f"{name}: {what}" for name, case in cases.items() for _, what in await run_batch(arena, [case])
        ]


async def test_named_streams_are_read_alike_whole_cut_in_two_and_byte_by_byte() -> None:
    rng = Random(1)
    cases: dict[str, Case] = {}
    for name, data in requests.CASES.items():
        cases[name] = Stream(data, mutate.cuts(rng, len(data)))
        if len(data) < 1_000:
            cases[f"{name}, byte by byte"] = Stream(data, list(range(1, len(data))))
        else:
            cases[f"{name}, its beginning byte by byte"] = Stream(data, list(range(1, 100)))
    assert await _run_named(cases) == []


async def test_named_answers_of_backends_reach_the_client_whole_or_not_at_all() -> None:
    assert await _run_named(dict(replies.CASES)) == []
