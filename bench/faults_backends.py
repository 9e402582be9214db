"""Faults of backends: one of three dies and comes back, and the only one is gone for a moment."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack

from bench.faults_stage import Outcome, Stage, until_time, wait_for
from bench.numbered import READY, hold_port
from bench.processes import Child, accepts

BACKENDS = 3
PAUSE_MS = 5.0
"""A backend takes so long for an answer, so that there is always something to lose when it dies."""
FIRST_POST = 1_000_000_000
"""Where the numbers of requests that are not idempotent begin."""
POST_SHARE = 0.1
GONE_S = 0.4
GONE_AVAILABILITY = 0.98


class MortalBackend:
    """A backend that is killed and started again on its port, which nobody else can get meanwhile."""

    def __init__(self, stage: Stage, name: str, held: socket.socket) -> None:
        self.port: int = held.getsockname()[1]
        self._stage = stage
        self._name = name
        self._log = stage.directory / f"{name}.seen"
        self._starts = 0
        self._serving: Child | None = None
        self._next: Child | None = None

    async def prepare(self) -> None:
        """Start the next process; it waits to be told to listen."""
        self._starts += 1
        child = self._next = self._stage.start(
            f"{self._name}-{self._starts}",
            sys.executable, "-m", "bench.numbered", str(self.port), self._log, str(PAUSE_MS),
        )  # fmt: skip
        await wait_for(child, lambda: READY in child.log.read_text(), "start")

    async def listen(self) -> None:
        """Let the next process serve."""
        assert self._next is not None
        os.kill(self._next.pid, signal.SIGUSR1)
        await wait_for(self._next, lambda: accepts(self.port), "listen")
        self._serving, self._next = self._next, None

    def kill(self) -> None:
        """Kill the one that serves."""
        assert self._serving is not None
        self._serving.popen.kill()
        self._serving.popen.wait()

    def seen(self) -> Counter[int]:
        """Return how often each request was seen."""
        return Counter(int(line) for line in self._log.read_bytes().splitlines())


def _post(number: int) -> bytes:
    return b"POST /open/n/%d HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n" % number


def _targets(ports: list[int]) -> str:
    urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    return f"""\
gateways:
  shop:
    hosts: ["*"]
    auth: {{type: API_KEY}}
    services:
      backend: {{target_urls: [{urls}]}}
    routes:
      open: {{method: ANY, public_path: "/open/{{any*}}", target_path: "/{{any*}}", service: backend, security: PUBLIC}}
"""


async def _mortal(stage: Stage, count: int, away_s: float) -> Outcome:
    """Kill one backend of `count` after the other for `away_s`, under a load of GET and, a tenth of it, POST."""
    with ExitStack() as stack:
        backends = [
            MortalBackend(stage, f"backend{at}", stack.enter_context(hold_port())) for at in range(count)
        ]
        for backend in backends:
            await backend.prepare()
            await backend.listen()
        await stage.start_node("--config", stage.config(_targets([backend.port for backend in backends])))
        async with AsyncExitStack() as loads:
            gets = await loads.enter_async_context(stage.load(1 - POST_SHARE))
            posts = await loads.enter_async_context(
                stage.load(POST_SHARE, request=_post, first_number=FIRST_POST)
            )
            outcome = Outcome(stage.kind, gets, [("POST", posts)], recovery="each was away for")
            async for number in stage.beats(0.3):
                backend = backends[number % count]
                await backend.prepare()
                begun_s = time.monotonic()
                backend.kill()
                await until_time(begun_s + away_s)
                await backend.listen()
                outcome.recoveries_s.append(time.monotonic() - begun_s)
        shares = [backend.seen() for backend in backends]
        seen = sum(shares, Counter[int]())
        twice = sum(times > 1 for number, times in seen.items() if number >= FIRST_POST)
        again = sum(times > 1 for number, times in seen.items() if number < FIRST_POST)
        outcome.require(not twice, f"{twice} POSTs were seen twice")
        lost = (gets.answered_numbers | posts.answered_numbers) - set(seen)
        outcome.require(not lost, f"{len(lost)} answers to requests that no backend has seen")
        outcome.notes.append(
            f"{len(outcome.recoveries_s)} kills; POSTs seen twice: {twice}; GETs sent again after a backend had "
            f"seen them: {again}; seen by each backend: {', '.join(f'{share.total():,}' for share in shares)}"
        )
        return outcome


async def backend(stage: Stage) -> Outcome:
    """Of three backends, one after the other is killed and comes back: nothing that may be repeated fails."""
    outcome = await _mortal(stage, BACKENDS, 0.4 * stage.seconds / stage.events)
    ((_, posts),) = outcome.more
    outcome.judge(refusals=True)
    # What a backend may have acted upon is not repeated: it fails when that backend dies, and nothing else does.
    held = stage.events * posts.connections
    outcome.require(posts.failed <= held, f"{posts.failed} POSTs failed; the killed ones held {held} at most")
    return outcome


async def gone(stage: Stage) -> Outcome:
    """The only backend is gone for a moment: who waits is answered when it is back."""
    outcome = await _mortal(stage, 1, GONE_S)
    outcome.judge(refusals=True, failures=True)
    answered, asked = (
        sum(count(load) for load in (outcome.load, outcome.more[0][1]))
        for count in (lambda load: len(load.took_s), lambda load: load.outcomes.total())
    )
    outcome.notes.append(f"GET and POST together: {answered / asked:.4%} answered")
    outcome.require(answered >= GONE_AVAILABILITY * asked, f"less than {GONE_AVAILABILITY:.0%} answered")
    return outcome
