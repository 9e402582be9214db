"""Active health checks: each worker asks each target of a service that wants it, the way that requests connect.

One request, one connection, one status; nothing of an answer is kept but that. Every check differs a little in time
from the others, so that workers and services do not ask in step. Checks begin and end with the configuration.
"""

from __future__ import annotations

import asyncio
import re
from random import random
from typing import TYPE_CHECKING, Final

from authgate_fast import __version__

if TYPE_CHECKING:
    from authgate_fast.balance.group import Group
    from authgate_fast.balance.member import Member
    from authgate_fast.proxy.context import Context
    from authgate_fast.snapshot import HealthCheck, Snapshot

MAX_HEAD_BYTES: Final = 16_384
JITTER: Final = 0.1
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_AGENT: Final = f"User-Agent: authgate-health-check/{__version__}\r\n".encode("ascii")


class _Check:
    """A protocol that sends its request once it is connected; ``status`` is what came back, or why nothing did."""

    __slots__ = ("_data", "_request", "_transport", "status")

    def __init__(self, request: bytes, status: asyncio.Future[int | str]) -> None:
        self._request = request
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.status = status

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport
        transport.write(self._request)  # type: ignore[attr-defined]  # as above

    def data_received(self, data: bytes) -> None:
        self._data += data
        while not self.status.done():
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                if len(self._data) > MAX_HEAD_BYTES:
                    self._end("a head without an end")
                return
            match = _STATUS.match(head + b"\r\n")
            if match is None:
                self._end("no HTTP status line")
            elif match[1] >= b"200":
                self._end(int(match[1]))  # three ASCII digits, checked above
            else:
                self._data = rest  # an interim response

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was closed without an answer{f' ({exc})' if exc else ''}")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """A request of a few hundred bytes: nothing waits."""

    def resume_writing(self) -> None:
        """As above."""

    def _end(self, status: int | str) -> None:
        if not self.status.done():
            self.status.set_result(status)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class HealthChecks:
    """One task for each target that is checked."""

    __slots__ = ("_context", "_tasks")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: dict[tuple[str, str, str, HealthCheck], asyncio.Task[None]] = {}

    def sync(self, snapshot: Snapshot) -> None:
        """Check what `snapshot` wants checked, and no more. What has not changed goes on undisturbed."""
        wanted = set()
        for gateway in snapshot.gateways.values():
            for service in gateway.services:
                check = service.health_check
                if check is None:
                    continue
                group = self._context.groups.get(gateway.name, service)
                for member in group.members:
                    key = (gateway.name, service.name, member.key, check)
                    wanted.add(key)
                    if key not in self._tasks:
                        task = self._context.loop.create_task(
                            self._run(group, member, check), name="health-check"
                        )
                        self._tasks[key] = task
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()

    async def _run(self, group: Group, member: Member, check: HealthCheck) -> None:
        await asyncio.sleep(check.interval_s * random() * JITTER)
        while True:
            outcome = await self._ask(member, check)
            good = isinstance(outcome, int) and (
                200 <= outcome <= 399 if check.statuses is None else outcome in check.statuses
            )
            text = f"{outcome}"
            member.last_check = text if not good else f"good ({text})"
            if group.checked(
                member,
                good=good,
                healthy=check.healthy,
                unhealthy=check.unhealthy,
                now_s=self._context.loop.time(),
            ):
                what = "is healthy again" if good else "is unhealthy, so it gets no requests"
                self._context.groups.tell(group, member, f"{what}: its check came to {text}", not good)
            await asyncio.sleep(check.interval_s * (1.0 - JITTER + 2.0 * JITTER * random()))

    async def _ask(self, member: Member, check: HealthCheck) -> int | str:
        """Return the status, or what went wrong."""
        target = member.target
        request = b"GET %b HTTP/1.1\r\n%b%bAccept: */*\r\nConnection: close\r\n\r\n" % (
            check.path,
            check.host_line or target.host_line,
            _AGENT,
        )
        try:
            async with asyncio.timeout(check.timeout_s):
                pool = self._context.pools.get(target)
                asked = await pool.dial(
                    lambda: _Check(request, self._context.loop.create_future()), _Check.abort
                )
                try:
                    return await asked.status
                finally:
                    asked.abort()
        except TimeoutError:
            return f"no answer within {check.timeout_s:g} s"
        except (OSError, UnicodeError) as error:
            return str(error) or type(error).__name__
        except Exception as bug:  # a check that dies would leave its target as it is for ever
            return f"{type(bug).__name__}: {bug}"

    async def close(self) -> None:
        """Stop all checks."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
