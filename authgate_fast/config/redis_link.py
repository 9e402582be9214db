"""One connection to Redis, its address, and what to tell a user when it fails.

Every wait of a `Link` is bounded. A reply's text is never longer than `MAX_VALUE_BYTES` in memory: a
longer one is read past and stands there as `TooLarge`. No password ever leaves this module: not in
`shown`, not in `repr`, not in what `explain` says.
"""

from __future__ import annotations

import asyncio
import builtins
import re
from asyncio import IncompleteReadError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from redis._parsers import _AsyncRESP3Parser
from redis.asyncio.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004  # the builtin of this name is an OSError and is not what redis-py raises
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  # see above
)

from authgate_fast.config.documents import MAX_DOCUMENT_BYTES
from authgate_fast.config.redis_texts import Text, TextsReader, TooLarge, pack_command

if TYPE_CHECKING:
    from authgate_fast.config.redis_sentinel import Sentinels

MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES
CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 5.0

FAILURES: tuple[type[Exception], ...] = (RedisError, OSError)
"""What a `Link` raises when Redis, or the way to it, fails."""

Command = Sequence[str | bytes | int]

_DATABASE = re.compile(r"/?|/[0-9]{1,9}")
_POOL_OPTIONS = ("max_connections", "timeout")
_SKIP_BYTES = 65_536


class RedisUrlError(ValueError):
    """A Redis URL that cannot be used; its text is a sentence for a user."""


class SentinelError(ConnectionError):
    """There is no master to speak to; the text says why."""


@dataclass(frozen=True, slots=True)
class Master:
    """Where Sentinel says that the master is."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A checked Redis URL. ``shown`` is the part of it that may be shown; ``sentinels`` say where it is, if any do."""

    url: str = field(repr=False)
    shown: str
    options: dict[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    sentinels: Sentinels | None = field(default=None, repr=False)

    def at(self, master: Master) -> RedisAddress:
        """Return the address of one server."""
        options = {**self.options, "host": master.host, "port": master.port}
        return replace(self, options=options, sentinels=None)

    def explain(self, error: BaseException) -> str:
        """Say in one line, for a user, what went wrong and what may help."""
        text = _explain(self.shown, error)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse_address(url: str) -> RedisAddress:
    """Check a `redis://`, `rediss://`, `unix://` or `redis+sentinel://` URL; raise RedisUrlError."""
    if url.startswith(("redis+sentinel:", "rediss+sentinel:")):
        from authgate_fast.config.redis_sentinel import parse_sentinel_address  # it imports this module

        return parse_sentinel_address(url)
    try:
        options: dict[str, Any] = dict(parse_url(url))
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        # What the libraries say may quote a piece of the password, so none of it is passed on.
        raise RedisUrlError(
            "the Redis URL cannot be read: write it as redis://HOST:PORT/0, redis://:PASSWORD@HOST:PORT/0, "
            "rediss://... (TLS) or unix:///PATH, and percent-encode special characters in the password"
        ) from None
    if parts.scheme == "unix":
        if not options.get("path"):
            raise RedisUrlError("the Redis URL names no socket: write it as unix:///run/redis/redis.sock")
        shown = f"unix://{options['path']}"
    else:
        if _DATABASE.fullmatch(parts.path) is None:
            raise RedisUrlError("the path of the Redis URL is the number of a database, for instance /0")
        shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        if options.get("db"):
            shown += f"/{options['db']}"
    if parts.scheme == "rediss" and str(options.get("ssl_cert_reqs", "required")) != "none":
        options.setdefault("ssl_check_hostname", True)  # older releases of redis-py leave it off
    for name in _POOL_OPTIONS:
        options.pop(name, None)
    known = {
        text for text in (options.get("password"), parts.password, unquote(parts.password or "")) if text
    }
    secrets = {spelling for text in known for spelling in (text, quote(text, safe=""), repr(text)[1:-1])}
    address = RedisAddress(url, shown, options, tuple(sorted(secrets, key=len, reverse=True)))
    try:
        _connection(address, "authgate")
    except (TypeError, ValueError, RedisError):
        raise RedisUrlError("the Redis URL has an option (behind the ?) that does not exist") from None
    return address


class _Parser(_AsyncRESP3Parser):
    """Hands pushes to the reader as they are, and never holds a text that is too large."""

    async def handle_push_response(self, response: Any, *_args: Any, **_kwargs: Any) -> Any:
        return response

    async def _read(self, length: int) -> Any:
        if length <= MAX_VALUE_BYTES:
            return await super()._read(length)
        tail = self._buffer[self._pos : self._pos + length + 2]
        self._pos += len(tail)
        left = length + 2 - len(tail)
        stream = self._stream
        while left and stream is not None:
            try:
                left -= len(await stream.readexactly(min(left, _SKIP_BYTES)))
            except IncompleteReadError as error:
                raise ConnectionError("the connection ended in the middle of a reply") from error
        return TooLarge(length)


def _connection(address: RedisAddress, name: str) -> Any:
    options = dict(address.options)
    options["socket_timeout"] = None  # see Link
    options.setdefault("socket_connect_timeout", CONNECT_TIMEOUT_S)
    make = options.pop("connection_class", None)
    if make is None:
        from redis.asyncio import Connection as make  # noqa: N813  # a class kept in a variable
    options.update(protocol=3, parser_class=_Parser, decode_responses=False, client_name=name)
    return make(**options)


class Link:
    """One RESP3 connection, used by one task at a time. After any failure it is only good for `close`.

    The time limits are set here and not in redis-py, which uses `asyncio.wait_for`: that of Python 3.11 loses a
    cancellation that comes in the moment in which it is done.
    """

    def __init__(self, address: RedisAddress, name: str) -> None:
        self.master: Master | None = None
        """Which server Sentinel named, once open."""
        self._address = address
        self._name = name
        self._connection = _connection(address, name)
        self._reply_timeout_s = address.options.get("socket_timeout", REPLY_TIMEOUT_S)
        self._question: tuple[bool, bool] | None = None  # whether a SCAN and an MGET wait for `answers`

    @property
    def is_open(self) -> bool:
        """Tell whether the connection stands, as far as is known without speaking."""
        reader = self._connection._reader
        return self._connection.is_connected and not reader.at_eof() and reader.exception() is None

    async def open(self) -> None:
        """Connect. Behind Sentinels: to the master that they name, if it says itself that it is one."""
        sentinels = self._address.sentinels
        async with asyncio.timeout(CONNECT_TIMEOUT_S + self._reply_timeout_s):
            if sentinels is not None:
                self.master = master = await sentinels.find()
                self._connection = _connection(self._address.at(master), self._name)
            await self._connection.connect()
        if sentinels is not None:
            check_role(await self.call("ROLE"))

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def call(self, *command: str | bytes | int) -> Any:
        """Send one command; return its reply or raise its error."""
        await self._drop_answers()
        async with asyncio.timeout(self._reply_timeout_s):
            await self._connection.send_command(*command, check_health=False)
            return await self._connection.read_response()

    async def texts(self, *command: str | bytes | int) -> list[Text]:
        """Send a command whose reply is an array of texts (MGET); return them."""
        await self.ask(None, command)
        return (await self.answers())[1]

    async def ask(self, scan: Command | None, mget: Command | None) -> None:
        """Send a SCAN, an MGET or both in one go. `answers` reads the replies; any other command drops them."""
        await self._drop_answers()
        packed = [pack_command(command) for command in (scan, mget) if command is not None]
        self._question = (scan is not None, mget is not None)
        async with asyncio.timeout(self._reply_timeout_s):
            await self._connection.send_packed_command(packed, check_health=False)

    async def answers(self) -> tuple[tuple[bytes, list[bytes]] | None, list[Text]]:
        """Return what was asked for last: SCAN's next cursor and page, None without a SCAN; and MGET's texts."""
        is_scan, is_mget = self._question or (False, False)
        self._question = None
        reader = TextsReader(self._connection._reader, MAX_VALUE_BYTES)
        async with asyncio.timeout(self._reply_timeout_s):
            page = await reader.page() if is_scan else None
            return page, await reader.texts() if is_mget else []

    async def _drop_answers(self) -> None:
        if self._question is not None:
            await self.answers()

    async def call_many(self, commands: Iterable[Command]) -> list[Any]:
        """Send several commands at once; an error of one of them stands in the place of its reply."""
        commands = list(commands)
        packed = self._connection.pack_commands(commands)
        replies: list[Any] = []
        await self._drop_answers()
        async with asyncio.timeout(self._reply_timeout_s):
            await self._connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                try:
                    replies.append(await self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        return replies

    async def send(self, *command: str) -> None:
        """Send a command whose reply `receive` will return."""
        await self._drop_answers()
        async with asyncio.timeout(self._reply_timeout_s):
            await self._connection.send_command(*command, check_health=False)

    async def receive(self, timeout_s: float) -> Any:
        """Return the next reply, or push (a list), or None after `timeout_s` without one."""
        return await self._connection.read_response(timeout=timeout_s, push_request=True)


def check_role(reply: Any) -> None:
    """Refuse a server whose ROLE is not master: it was one, and Sentinel's word is late. Raises SentinelError."""
    if not reply or reply[0] != b"master":
        raise SentinelError("what the Sentinels name as the master is none; a failover is under way")


async def until_one_ends(*tasks: asyncio.Task[None]) -> None:
    """Wait until one of the tasks ends, end the others, and raise its error, if it has one.

    No task group: that of Python 3.11 leaves its parent marked as cancelled when a member fails.
    """
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (
        AuthenticationError,
        "refused the user name or password; give them in the URL: redis://USER:PASSWORD@HOST:PORT/0",
    ),
    (BusyLoadingError, "is still loading its data; try again in a moment"),
    (MasterDownError, "is a replica that has lost its master; use the master's address"),
    (NoPermissionError, "does not let this user do that; the user needs other ACL rules"),
    (ReadOnlyError, "is a read-only replica; use the master's address"),
    (OutOfMemoryError, "has no memory left for another value; raise its maxmemory or free some"),
    (InvalidResponse, "does not answer like Redis; is the address that of another server?"),
    ((TimeoutError, builtins.TimeoutError), "did not answer in time; is it overloaded or unreachable?"),
)


def _explain(shown: str, error: BaseException) -> str:
    if isinstance(error, SentinelError):
        return f"Redis at {shown} has no master now: {_one_line(error)}"
    if isinstance(error.__cause__, RedisError):
        error = error.__cause__  # redis-py wraps what a unix socket's first exchange came to
    if isinstance(error, ConnectionError) and str(error).startswith("Timeout"):
        error = TimeoutError()  # as redis-py wraps it in the first exchange of a connection
    if isinstance(error, ResponseError) and str(error).startswith("MASTERDOWN"):
        error = MasterDownError(str(error))  # older releases of redis-py do not tell it apart
    for kinds, words in _KINDS:
        if isinstance(error, kinds):
            detail = _one_line(error) if isinstance(error, NoPermissionError) else ""
            return f"Redis at {shown} {words}" + (f" ({detail})" if detail else "")
    said = _one_line(error)
    if isinstance(error, ResponseError):
        if "unknown command" in said:
            # Redis quotes the arguments of a command that it does not know, HELLO's password too.
            return f"Redis at {shown} is too old, or lacks a command; AuthGate needs Redis 6.0 or later"
        return f"Redis at {shown} refused a command: {said}"
    if "closed by server" in said or "reset" in said:
        return f"Redis at {shown} closed the connection; if it does so again: is it Redis, is TLS right?"
    return f"cannot reach Redis at {shown}: {said}; is it running, and is the address right?"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200].rstrip(".") or type(error).__name__
