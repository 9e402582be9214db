"""The addresses behind the names of targets: looked up off the loop, and again on their own.

A look-up that fails leaves the last good addresses in force. Addresses are given out in turn within the family that
the system prefers; the other family's stand between them, for connects that race (RFC 8305). What is link-local or a
cloud's metadata service is judged here, at the address that a connect would go to, whatever the name says.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeVar

from authgate_fast.addresses import is_guarded

if TYPE_CHECKING:
    from authgate_fast.proxy.context import Context

FAILURE_KEPT_S: Final = 1.0
"""How long a name that was not found is not asked about again: its requests come faster than resolvers like."""
FORGET_AFTER_S: Final = 60.0
"""A name that nothing connected to for this long is no longer refreshed."""
NEXT_ADDRESS_AFTER_S: Final = 0.25
"""RFC 8305 section 5 ("Connection Attempt Delay")."""

_T = TypeVar("_T")


class Name:
    """What is known of one name. ``serial`` changes with its addresses."""

    __slots__ = ("addresses", "asked_s", "error", "flight", "serial", "turn", "used_s")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.error = ""
        self.asked_s = 0.0
        self.used_s = 0.0
        self.flight: asyncio.Task[None] | None = None
        self.turn = 0
        self.serial = 0


class Names:
    """All names of a worker. `changed` is told a name whose addresses are no longer the same.

    ``resolve`` finds a name's addresses: the system does, unless somebody knows better.
    """

    __slots__ = ("_by_host", "_changed", "_context", "resolve")

    def __init__(self, context: Context, changed: Callable[[str, tuple[str, ...]], None]) -> None:
        self._context = context
        self._changed = changed
        self._by_host: dict[str, Name] = {}
        self.resolve: Callable[[str], Awaitable[list[str]]] = self._ask_system

    async def _ask_system(self, host: str) -> list[str]:
        found = await self._context.loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return [str(item[4][0]) for item in found]

    async def addresses(self, host: str, *, allow_link_local: bool) -> list[str]:
        """Return where to connect to, the best first. Raises OSError."""
        if _is_address(host):
            found = [host]
        else:
            name = self._by_host.get(host)
            if name is None:
                name = self._by_host[host] = Name()
            now_s = self._context.loop.time()
            name.used_s = now_s
            if not name.addresses and (name.flight is not None or now_s - name.asked_s >= FAILURE_KEPT_S):
                flight = name.flight or self._ask(host, name)
                await asyncio.shield(flight)  # others may wait for it too
            if not name.addresses:
                raise OSError(f"the name cannot be resolved ({name.error})")
            found = _in_turn(name)
        if not allow_link_local:
            allowed = [address for address in found if not is_guarded(address)]
            if not allowed:
                raise OSError(
                    f"{found[0]} is a link-local or metadata address, and allow_link_local is not set"
                )
            found = allowed
        return found

    def check_time(self, now_s: float) -> None:
        """Ask again about names in use whose time has come."""
        refresh_s = self._context.limits.dns_refresh_s
        for host, name in list(self._by_host.items()):
            if name.flight is not None:
                continue
            if now_s - name.used_s > max(FORGET_AFTER_S, refresh_s):
                del self._by_host[host]
            elif now_s - name.asked_s >= refresh_s:
                self._ask(host, name)

    def keep(self, host: str, now_s: float) -> None:
        """A pool still has connections to `host`."""
        name = self._by_host.get(host)
        if name is not None:
            name.used_s = now_s

    def status(self) -> dict[str, list[str]]:
        """Return the addresses in force by name, for /status."""
        return {host: list(name.addresses) for host, name in self._by_host.items()}

    def _ask(self, host: str, name: Name) -> asyncio.Task[None]:
        name.asked_s = self._context.loop.time()
        name.flight = task = self._context.loop.create_task(self._look_up(host, name), name="name-look-up")
        return task

    async def _look_up(self, host: str, name: Name) -> None:
        try:
            addresses = tuple(dict.fromkeys(await self.resolve(host)))
        except (OSError, UnicodeError) as error:
            name.error = str(error)
        else:
            if addresses and set(addresses) != set(name.addresses):
                name.serial += 1
                name.addresses = addresses
                self._changed(host, addresses)
        finally:
            name.asked_s = self._context.loop.time()
            name.flight = None

    async def close(self) -> None:
        """End the look-ups under way."""
        flights = [name.flight for name in self._by_host.values() if name.flight is not None]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


async def race(
    addresses: list[str], connect: Callable[[str], Awaitable[_T]], give_up: Callable[[_T], None]
) -> _T:
    """Connect to the first address that answers, the next one at each failure and after each short delay.

    Raises the error of the last one. What comes too late is handed to `give_up`.
    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    waiting = list(reversed(addresses))
    running: set[asyncio.Future[_T]] = set()
    failure: BaseException = OSError("no address")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(connect(waiting.pop())))
            done, running = await asyncio.wait(
                running,
                timeout=NEXT_ADDRESS_AFTER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won: list[_T] = []
            for task in done:
                error = task.exception()
                if error is None:
                    won.append(task.result())
                elif isinstance(error, OSError):
                    failure = error
                else:
                    raise error
            for late in won[1:]:
                give_up(late)
            if won:
                return won[0]
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True) if running else ():
            if not isinstance(outcome, BaseException):
                give_up(outcome)
    raise failure


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _in_turn(name: Name) -> list[str]:
    """Return the addresses for one connect: each time another one first, the families interleaved."""
    first_is_v6 = ":" in name.addresses[0]
    preferred = [address for address in name.addresses if (":" in address) == first_is_v6]
    others = [address for address in name.addresses if (":" in address) != first_is_v6]
    name.turn += 1
    preferred = _rotated(preferred, name.turn)
    others = _rotated(others, name.turn)
    order = []
    for at in range(max(len(preferred), len(others))):
        order += preferred[at : at + 1]
        order += others[at : at + 1]
    return order


def _rotated(addresses: list[str], turn: int) -> list[str]:
    if not addresses:
        return []
    at = turn % len(addresses)
    return addresses[at:] + addresses[:at]
