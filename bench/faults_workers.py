"""Faults of the node itself: workers that are killed or hang, reloads, the end of the node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.faults_stage import Outcome, Stage, count_seen, ready_pids, wait_for
from bench.numbered import CUT, Backend, gateway_file
from bench.processes import Child

STRENGTH_S = 2.0
AVAILABILITY = 0.998


@asynccontextmanager
async def _hurt(stage: Stage) -> AsyncIterator[tuple[Outcome, Child]]:
    """Run a node with a file of documents under load; judge what the backend saw."""
    async with Backend() as backend:
        node = await stage.start_node("--config", stage.config(gateway_file(backend.port)))
        async with stage.load() as load:
            outcome = Outcome(stage.kind, load)
            yield outcome, node
        count_seen(outcome, backend)


async def kills(stage: Stage) -> Outcome:
    """Kill a worker at each event."""
    async with _hurt(stage) as (outcome, _node):
        async for number in stage.beats():
            pids = ready_pids(await stage.status())
            victim = pids[number % len(pids)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            begun_s = time.monotonic()
            await stage.until_whole(victim)
            outcome.recoveries_s.append(time.monotonic() - begun_s)
    _judge_losses(outcome, stage)
    longest_s = max(outcome.recoveries_s, default=0.0)
    outcome.require(longest_s <= STRENGTH_S, f"not back to full strength within {STRENGTH_S:g} s")
    return outcome


async def hang(stage: Stage) -> Outcome:
    """Stop a worker, once."""
    async with _hurt(stage) as (outcome, _node):
        await asyncio.sleep(stage.seconds / 4)
        victim = ready_pids(await stage.status())[0]
        os.kill(victim, signal.SIGSTOP)
        begun_s = time.monotonic()
        await stage.until_whole(victim)
        outcome.recoveries_s.append(time.monotonic() - begun_s)
        await asyncio.sleep(max(0.0, stage.seconds / 4))
    _judge_losses(outcome, stage)
    return outcome


def _judge_losses(outcome: Outcome, stage: Stage) -> None:
    outcome.judge(failures=True, least=AVAILABILITY)
    held = stage.options.connections * len(outcome.recoveries_s)
    outcome.require(
        outcome.load.outcomes[CUT] <= held, "more answers were cut than the workers can have held"
    )


async def reloads(stage: Stage) -> Outcome:
    """Reload the node at each event."""
    async with _hurt(stage) as (outcome, node):
        async for number in stage.beats():
            await reloaded(node, number)
            os.kill(node.pid, signal.SIGHUP)
        await reloaded(node, stage.events)
    outcome.judge()
    return outcome


async def reloaded(node: Child, count: int) -> None:
    """Wait until the node has been reloaded so often."""
    await wait_for(node, lambda: node.log.read_text().count(" workers replaced in ") >= count, "reload")


async def term(stage: Stage) -> Outcome:
    """Tell the node to end, half-way: what was read is answered, and nothing else is."""
    async with _hurt(stage) as (outcome, node):
        await asyncio.sleep(stage.seconds / 2)
        os.kill(node.pid, signal.SIGTERM)
        # There is nowhere else to go: the clients stop as soon as the node takes no more.
        stopping = asyncio.create_task(outcome.load.stop())
        code = await asyncio.to_thread(node.popen.wait, 60)
        await stopping
        outcome.require(code == 0, f"exit code {code}")
    outcome.judge()
    return outcome
