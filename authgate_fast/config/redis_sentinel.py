"""Where the master is, as Redis Sentinel tells it: `redis+sentinel://HOST:PORT,HOST:PORT/NAME/DATABASE`.

All Sentinels are asked at once. As soon as more than half have answered (or `ASK_S` is over, and one has), the answer
of the newest configuration (`config-epoch`) counts: one that was cut off from the others cannot lead back to a master
that was replaced. It is no promise, so `Link` asks the server itself (ROLE) and uses none that is not a master.

Nothing is remembered longer than `FRESH_S`: every new connection asks again, but all that are opened at the same time
share one answer, a failure too, so that a crowd of callers does not flood the Sentinels while there is no master.

`watch` ends when Sentinel tells of another master, which an old master that is cut off, and alive, would never say.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn
from urllib.parse import parse_qsl, quote, urlencode

from redis.exceptions import AuthenticationError
from redis.exceptions import TimeoutError as RedisTimeoutError

from authgate_fast.config.redis_link import (
    FAILURES,
    Link,
    Master,
    RedisAddress,
    RedisUrlError,
    SentinelError,
    parse_address,
    until_one_ends,
)

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
DEFAULT_PORT = 26_379
ASK_S = 0.7
"""A call for runtime state may take 1.5 s, this included."""
FRESH_S = 0.1
QUIET_S = 2.0
SILENCE_S = 4.0
RETRY_S = 1.0
MAX_SENTINELS = 32

_URL = re.compile(r"(rediss?\+sentinel)://(?:([^/?#]*)@)?([^/?#@]+)/([^/?#]*)(?:/([^/?#]*))?(?:\?([^#]*))?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel allows
_DATABASE = re.compile(r"[0-9]{0,9}")
_FORM = "redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER_NAME/0"


@dataclass(frozen=True, slots=True)
class _Answer:
    epoch: int
    master: Master


class Sentinels:
    """The Sentinels of one master. Used by one event loop at a time."""

    def __init__(self, name: str, addresses: Sequence[RedisAddress], direct: tuple[str, str, str]) -> None:
        self.name = name
        self._addresses = tuple(addresses)
        self._direct = direct  # a URL's scheme and user, database, query
        self._lock = asyncio.Lock()
        self._answer: _Answer | SentinelError | None = None
        self._asked_s = 0.0

    def url_of(self, master: Master) -> str:
        """Return the `redis://` URL of one server, password included."""
        start, database, query = self._direct
        return _direct_url(start, master.host, master.port, database, query)

    async def find(self, since_s: float | None = None) -> Master:
        """Return where the master is; asked at `since_s` (monotonic) or later, by default a moment ago.

        Raises SentinelError.
        """
        if since_s is None:
            since_s = time.monotonic() - FRESH_S
        async with self._lock:
            if self._answer is None or self._asked_s < since_s:
                self._asked_s = time.monotonic()
                try:
                    self._answer = await self._ask_all()
                except SentinelError as error:
                    self._answer = error
            if isinstance(self._answer, SentinelError):
                raise SentinelError(*self._answer.args)
            return self._answer.master

    async def watch(self, master: Master) -> NoReturn:
        """Raise SentinelError once another one than `master` is in its place."""
        watches = [self._watch(address, master) for address in self._addresses]
        await until_one_ends(*(asyncio.create_task(one, name="redis-sentinel") for one in watches))
        self._answer = None
        raise SentinelError(f"the master {self.name} is another server now")

    async def _ask_all(self) -> _Answer:
        tasks = [asyncio.create_task(self._ask(address)) for address in self._addresses]
        try:
            answers, failures = await self._most(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if answers:
            return max(answers, key=lambda answer: answer.epoch)
        raise SentinelError(f"no Sentinel names the master {self.name}: {'; '.join(failures) or 'no answer'}")

    async def _most(self, tasks: list[asyncio.Task[_Answer]]) -> tuple[list[_Answer], list[str]]:
        answers: list[_Answer] = []
        failures: list[str] = []
        try:
            async with asyncio.timeout(ASK_S):
                for task in asyncio.as_completed(tasks):
                    try:
                        answers.append(await task)
                    except FAILURES as error:
                        failures.append(_say(error))
                    if len(answers) > len(tasks) // 2:
                        break
        except TimeoutError:
            failures.append(f"no answer within {ASK_S:g} seconds")
        return answers, sorted(set(failures))

    async def _ask(self, address: RedisAddress) -> _Answer:
        link = Link(address, "authgate-sentinel")
        try:
            await link.open()
            return await self._ask_over(link)
        finally:
            await link.close()

    async def _ask_over(self, link: Link) -> _Answer:
        where, about = await link.call_many(
            [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name), ("SENTINEL", "MASTER", self.name)]
        )
        if isinstance(where, Exception):
            raise where
        if where is None:
            raise SentinelError(f"it knows no master {self.name}")
        host, port = where
        if not port.isdigit():
            raise SentinelError("its answer is not an address")
        # A user that may not ask for the rest still gets an address.
        epoch = about.get(b"config-epoch", b"0") if isinstance(about, dict) else b"0"
        return _Answer(
            int(epoch) if epoch.isdigit() else 0, Master(host.decode("ascii", "replace"), int(port))
        )

    async def _watch(self, address: RedisAddress, master: Master) -> None:
        """Return when this Sentinel tells of another master; outlives its absence."""
        while True:
            link = Link(address, "authgate-sentinel")
            try:
                await link.open()
                await link.send("SUBSCRIBE", "+switch-master")
                # Asked after that, so that nothing falls between; of all, as this one may be the last to know.
                if await self.find(time.monotonic()) != master:
                    return
                await self._listen(link)
                return
            except FAILURES:
                pass
            finally:
                await link.close()
            await asyncio.sleep(RETRY_S)

    async def _listen(self, link: Link) -> None:
        """Return when the master was switched."""
        is_pinged = False
        while True:
            reply = await link.receive(SILENCE_S if is_pinged else QUIET_S)
            if reply is None:
                if is_pinged:
                    raise RedisTimeoutError("a Sentinel does not answer")
                await link.send("PING")
            is_pinged = reply is None
            if (
                isinstance(reply, list)
                and reply[0] == b"message"
                and reply[2].split(b" ")[0] == self.name.encode()
            ):
                return


def parse_sentinel_address(url: str) -> RedisAddress:
    """Check a `redis+sentinel://` or `rediss+sentinel://` URL; raise RedisUrlError."""
    match = _URL.fullmatch(url)
    if match is None:
        raise RedisUrlError(f"the Redis URL cannot be read: write it as {_FORM}")
    scheme, user, hosts, name, database, query = match.groups(default="")
    places = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not all(places) or len(places) > MAX_SENTINELS or any(int(p[2] or 1) > 65_535 for p in places if p):
        raise RedisUrlError(f"the Redis URL names no Sentinels that can be asked: write it as {_FORM}")
    if _NAME.fullmatch(name) is None:
        raise RedisUrlError(f"the path of the Redis URL names the master, as Sentinel knows it: {_FORM}")
    if _DATABASE.fullmatch(database) is None:
        raise RedisUrlError(f"the Redis URL's database is a number: {_FORM}")
    ports = [(place[1], int(place[2] or DEFAULT_PORT)) for place in places if place]
    pairs = parse_qsl(query, keep_blank_values=True)
    own = dict(pair for pair in pairs if pair[0].startswith("sentinel_"))
    others = urlencode([pair for pair in pairs if pair[0] not in own])
    sentinel_user, sentinel_password = own.pop("sentinel_username", ""), own.pop("sentinel_password", "")
    if own or "db" in dict(pairs):
        raise RedisUrlError("the Redis URL has an option (behind the ?) that does not exist")
    start = f"{SCHEMES[scheme]}://" + (f"{user}@" if user else "")
    base = parse_address(_direct_url(start, *ports[0], database, others))
    start_of_sentinel = f"{SCHEMES[scheme]}://" + _user(sentinel_user, sentinel_password)
    addresses = [parse_address(_direct_url(start_of_sentinel, *port, "", others)) for port in ports]
    shown = f"{scheme}://{','.join(f'{host}:{port}' for host, port in ports)}/{name}"
    sentinels = Sentinels(name, [_hasty(address) for address in addresses], (start, database, others))
    return replace(
        base,
        url=url,
        shown=shown + (f"/{database}" if database.strip("0") else ""),
        secrets=(*base.secrets, *addresses[0].secrets),
        sentinels=sentinels,
    )


def _direct_url(start: str, host: str, port: int, database: str, query: str) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{start}{name}:{port}/{database}" + (f"?{query}" if query else "")


def _user(name: str, password: str) -> str:
    return f"{quote(name, safe='')}:{quote(password, safe='')}@" if name or password else ""


def _hasty(address: RedisAddress) -> RedisAddress:
    options = {**address.options, "socket_timeout": ASK_S, "socket_connect_timeout": ASK_S}
    return replace(address, options=options)


def _say(error: BaseException) -> str:
    said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    if isinstance(error, AuthenticationError):
        return f"{said} (give sentinel_username and sentinel_password behind the ? of the URL)"
    return said
