"""What a node loses when something happens to it under load: nothing, or what a killed worker held. Every answer is checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.numbered import ANSWERED, CUT, REFUSED, UNANSWERED, UNSENT, WRONG, Backend, Load, gateway_file
from tests.server.node_kit import BOUND_S, Node, children_of, is_alive, running_node, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # starting a worker takes long on a busy machine
CONNECTIONS = 50
THINK_S = 0.02


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend() as backend:
        yield backend


@pytest.fixture
async def node(backend: Backend, tmp_path: Path) -> AsyncIterator[Node]:
    config = tmp_path / "g.yaml"
    config.write_text(gateway_file(backend.port))
    async with running_node(config, "--workers", "2", "--drain-timeout", "10") as node:
        yield node


async def test_a_killed_worker_costs_only_what_it_held_and_is_replaced_in_two_seconds(
    node: Node, backend: Backend
) -> None:
    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        await node.until_spare()
        await asyncio.sleep(0.3)
        assert load.failed == 0, load.examples
        held = {status["pid"]: status["connections"] for status in (await node.status())["workers"]}
        victim = node.worker_pids()[0]
        assert held[victim] > 0
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not is_alive(victim), "the end of the worker")
        assert await node.until_serving(2) < 2
        await asyncio.sleep(0.5)
    assert load.outcomes[WRONG] == load.outcomes[REFUSED] == load.outcomes[UNSENT] == 0, load.examples
    assert load.failed <= held[victim], load.examples
    assert load.slowest_s < 3
    assert await node.metric("authgate_worker_restarts_total") == 1
    assert "was killed by SIGKILL" in node.log


async def test_five_reloads_lose_nothing(node: Node, backend: Backend) -> None:
    before = node.worker_pids()
    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        for count in range(1, 6):
            os.kill(node.pid, signal.SIGHUP)
            await until(lambda count=count: node.log.count("workers replaced") == count, "the reload")  # type: ignore[misc]
        await asyncio.sleep(0.3)
        assert load.outcomes[ANSWERED] > 500
    assert load.failed == 0, load.examples
    assert node.log.count("2 of 2 workers replaced") == 5
    assert set(before).isdisjoint(node.worker_pids())
    assert sum(backend.seen.values()) == load.outcomes[ANSWERED]


async def test_sigterm_answers_what_was_read_and_reads_nothing_that_it_does_not_answer(
    node: Node, backend: Backend
) -> None:
    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        await asyncio.sleep(0.7)
        assert load.failed == 0, load.examples
        node.process.send_signal(signal.SIGTERM)
        assert await node.until_ended() == 0
    assert load.outcomes[CUT] == load.outcomes[WRONG] == load.outcomes[REFUSED] == 0, load.examples
    assert set(backend.seen) == load.answered_numbers
    assert load.outcomes[UNANSWERED] == 0, load.examples
    assert "are cut" not in node.log


async def test_counts_never_fall_and_their_sum_is_what_was_sent(node: Node, backend: Backend) -> None:
    seen: list[float] = []

    async def watch() -> None:
        while True:
            seen.append(await node.metric("authgate_requests_total"))
            await asyncio.sleep(0.05)

    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        watching = asyncio.create_task(watch())
        for count in (1, 2):
            os.kill(node.pid, signal.SIGHUP)
            await until(lambda count=count: node.log.count("workers replaced") == count, "the reload")  # type: ignore[misc]
    watching.cancel()
    assert load.failed == 0, load.examples
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    await until(lambda: len(node.worker_pids()) == 2, "the old workers' end")
    assert await node.metric("authgate_requests_total") == load.outcomes[ANSWERED] == len(backend.seen)
    assert (await node.status())["requests_total"] == load.outcomes[ANSWERED]
    # A worker that is killed loses what it counted since it was last heard, and nothing else.
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    await until(lambda: "was killed" in node.log, "the supervisor's word")
    assert await node.metric("authgate_requests_total") == load.outcomes[ANSWERED]


async def test_a_hung_worker_is_found_shown_and_replaced_while_its_neighbour_helps(
    backend: Backend, tmp_path: Path
) -> None:
    config = tmp_path / "g.yaml"
    config.write_text(gateway_file(backend.port))
    arguments = ("--workers", "2", "--limit", "worker_hang_timeout_s=4")
    async with running_node(config, *arguments) as node:
        victim = node.worker_pids()[0]
        os.kill(victim, signal.SIGSTOP)
        await until(lambda: "hangs: no sign of life" in node.log, "the hang to be found")
        await node.until_serving(2)
        assert not is_alive(victim)
        assert await node.metric("authgate_worker_hangs_total") == 1
        # New connections were not kept waiting for that: the neighbour took them too.
        os.kill(stopped := node.worker_pids()[0], signal.SIGSTOP)
        await asyncio.sleep(3.8)
        assert is_alive(stopped)
        async with Load(node.port, 20) as load:
            await asyncio.sleep(0.1)
        assert load.failed == 0, load.examples
        assert load.slowest_s < 2


async def test_workers_drain_and_end_when_the_supervisor_is_killed(node: Node, backend: Backend) -> None:
    workers = node.worker_pids()
    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        await asyncio.sleep(0.3)
        node.process.kill()
        await until(lambda: not any(map(is_alive, workers)), "the workers' end")
    assert load.outcomes[CUT] == load.outcomes[WRONG] == load.outcomes[REFUSED] == 0, load.examples
    assert set(backend.seen) == load.answered_numbers
    await node.until_ended()
    assert "the supervisor is gone; draining" in node.log


async def test_a_worker_that_is_told_to_end_by_itself_is_replaced_and_loses_nothing(
    node: Node, backend: Backend
) -> None:
    victim = node.worker_pids()[0]
    async with Load(node.port, CONNECTIONS, THINK_S) as load:
        await asyncio.sleep(0.2)
        os.kill(victim, signal.SIGTERM)
        await until(lambda: not is_alive(victim), "the worker's end")
        await node.until_serving(2)
    assert load.failed == 0, load.examples
    assert await node.metric("authgate_worker_restarts_total") == 0


async def test_nothing_is_left_after_reloads_and_kills(node: Node, backend: Backend) -> None:
    def descriptors() -> list[str]:
        found = []
        for path in Path(f"/proc/{node.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                found.append(os.readlink(path))
        return sorted(found)

    def count() -> int:
        return len(descriptors())

    await node.until_serving(2)
    before = -1
    while before != count():  # workers serve before the supervisor has opened all that it holds
        before = count()
        await asyncio.sleep(1.0)
    for number in range(1, 4):
        os.kill(node.worker_pids()[0], signal.SIGKILL)
        await until(lambda number=number: node.log.count("was killed") == number, "the end of a worker")  # type: ignore[misc]
        await node.until_serving(2)
        os.kill(node.pid, signal.SIGHUP)
        await until(lambda number=number: node.log.count("workers replaced") == number, "the reload")  # type: ignore[misc]
        await until(lambda: len(node.worker_pids()) == 2, "the old workers' end")
    begun_s = time.monotonic()
    while count() > before:
        assert time.monotonic() - begun_s < BOUND_S, descriptors()
        await asyncio.sleep(0.05)
    workers = node.worker_pids()
    node.process.send_signal(signal.SIGTERM)
    assert await node.until_ended() == 0
    assert not any(map(is_alive, workers))
    assert children_of(os.getpid()) == []
