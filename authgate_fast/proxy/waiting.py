"""Requests that do not go straight to a backend: one waits for a look-up, one is answered by the gateway itself.

To the client's connection both look like an exchange. Each holds the one task it started; a client that leaves
cancels it. Whatever the room ``lookup`` does has a time limit here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from authgate_fast.auth.interface import Denial
from authgate_fast.decision import Reply
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.chunked import ChunkedDecoder, FramingError
from authgate_fast.http.problem import CONTINUE
from authgate_fast.proxy.own_answers import exchange_refused
from authgate_fast.proxy.pace import body_is_too_slow
from authgate_fast.proxy.record import answered, client_left

if TYPE_CHECKING:
    from authgate_fast.decision import Local, Pending
    from authgate_fast.http.request import RequestHead
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.snapshot import Identity

MAX_OWN_BODY_BYTES = 16_384
"""A body for one of the gateway's own endpoints: a username and a password, or a token."""


class Waiting:
    """A request whose caller is being looked up; what arrives meanwhile waits in the downstream, unread."""

    __slots__ = (
        "close_after", "downstream", "head", "method", "pending", "request_done", "request_id",
        "response_begun", "task", "upstream",
    )  # fmt: skip

    def __init__(self, downstream: Downstream, pending: Pending) -> None:
        self.downstream = downstream
        self.pending = pending
        self.head: RequestHead = pending.head
        self.method = pending.head.method
        self.request_id = pending.request_id
        self.request_done = True  # its body is not ours to read yet
        self.response_begun = False
        self.close_after = pending.head.close
        self.upstream = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the look-up."""
        context = self.downstream.context
        context.look_up_begun(self.pending.gateway.name)
        self.task = context.loop.create_task(self._run(), name="look-up")
        self.task.add_done_callback(self._done)

    def _done(self, _task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its own, but this."""
        self.downstream.context.look_up_done(self.pending.gateway.name)

    async def _run(self) -> None:
        context = self.downstream.context
        found: Identity | Denial
        try:
            async with asyncio.timeout(context.limits.lookup_timeout_s):
                found = await context.resolver.resolve(self.pending)
        except TimeoutError:
            context.counters.hit("lookup_timeout_s")
            found = Denial(Reason.AUTH_UNAVAILABLE, why="the look-up took longer than lookup_timeout_s")
        except Exception as error:  # a bug of ours must not leave a client without an answer
            found = Denial(Reason.INTERNAL_ERROR, why=f"{type(error).__name__}: {error}")
        self.task = None
        self.downstream.looked_up(self, found)

    def request_data(self, data: bytes) -> None:
        """Never called: `request_done` sends what arrives to the downstream's buffer."""

    def cancel(self) -> None:
        """The client is gone."""
        pending = self.pending
        client_left(self.downstream, self.head, pending.gateway, pending.route, self.request_id)
        if self.task is not None:
            self.task.cancel()

    def held_bytes(self) -> int:
        """What came behind the head is in the downstream's buffer."""
        return 0

    def check_time(self, now_s: float) -> None:
        """Nothing to do: the look-up has its own limit."""


class LocalExchange:
    """A request to one of the gateway's own endpoints: reads its small body, then answers."""

    __slots__ = (
        "body", "close_after", "decoder", "downstream", "head", "left", "local", "method", "request_done",
        "request_id", "response_begun", "since_s", "task", "upstream",
    )  # fmt: skip

    def __init__(self, downstream: Downstream, local: Local) -> None:
        self.downstream = downstream
        self.local = local
        self.head: RequestHead = local.head
        self.method = local.head.method
        self.request_id = local.request_id
        self.request_done = True
        self.response_begun = False
        self.close_after = local.head.close
        self.upstream = None
        self.body = b""
        self.left = max(local.head.content_length, 0)
        self.decoder: ChunkedDecoder | None = None
        self.since_s = downstream.context.now_s
        self.task: asyncio.Task[None] | None = None

    def start(self, rest: bytes) -> None:
        """Begin. `rest` is what followed the head in the same read."""
        head = self.head
        if self.left > MAX_OWN_BODY_BYTES:
            self.request_done = False
            self._refuse(Reason.BODY_TOO_LARGE)
            return
        if head.chunked or self.left:
            self.request_done = False
            self.decoder = ChunkedDecoder() if head.chunked else None
            if rest:
                self.request_data(rest)
            elif head.expect_continue:
                self.downstream.write(CONTINUE)
            return
        if rest:
            self.downstream.hold(rest)
        self._answer()

    def request_data(self, data: bytes) -> None:
        """Take body bytes; what follows the body is held back by the downstream."""
        self.downstream.context.took(len(data))
        if self.decoder is None:
            piece, rest = data[: self.left], data[self.left :]
            self.left -= len(piece)
            self.body += piece
            done = self.left == 0
        else:
            pieces: list[bytes] = []
            try:
                used = self.decoder.feed(data, pieces)
            except FramingError:
                if self.decoder.limit:
                    self.downstream.context.counters.hit(self.decoder.limit)
                self._refuse(Reason.BAD_REQUEST)
                return
            self.body += b"".join(pieces)
            rest = data[used:]
            done = self.decoder.done
        if len(self.body) > MAX_OWN_BODY_BYTES:
            self._refuse(Reason.BODY_TOO_LARGE)
            return
        if done:
            self.request_done = True
            if rest:
                self.downstream.hold(rest)
            self._answer()

    def _refuse(self, reason: Reason) -> None:
        exchange_refused(self.downstream, self, reason)

    def held_bytes(self) -> int:
        """Return what has come of the body."""
        return len(self.body)

    def record_refusal(self, reason: Reason) -> None:
        """Count and log that the gateway refused it."""
        status = TABLE[reason].status
        answered(self.downstream, self.head, self.local.gateway, None, self.request_id, status, reason)

    def _answer(self) -> None:
        context = self.downstream.context
        if not context.may_look_up(self.local.gateway.name):
            context.counters.hit("max_lookups")
            self._refuse(Reason.OVERLOADED)
            return
        context.look_up_begun(self.local.gateway.name)
        self.task = context.loop.create_task(self._run(), name="own-endpoint")
        self.task.add_done_callback(self._done)

    def _done(self, _task: asyncio.Task[None]) -> None:
        """As in `Waiting`."""
        self.downstream.context.look_up_done(self.local.gateway.name)

    async def _run(self) -> None:
        context = self.downstream.context
        answer: Reply | Denial
        try:
            async with asyncio.timeout(context.limits.lookup_timeout_s):
                answer = await context.resolver.answer(self.local, self.body)
        except TimeoutError:
            context.counters.hit("lookup_timeout_s")
            answer = Denial(Reason.AUTH_UNAVAILABLE, why="the answer took longer than lookup_timeout_s")
        except Exception as error:  # a bug of ours must not leave a client without an answer
            answer = Denial(Reason.INTERNAL_ERROR, why=f"{type(error).__name__}: {error}")
        self.task = None
        self.downstream.answered(self, answer)

    def cancel(self) -> None:
        """The client is gone."""
        client_left(self.downstream, self.head, self.local.gateway, None, self.request_id)
        if self.task is not None:
            self.task.cancel()

    def check_time(self, now_s: float) -> None:
        """Called about once a second: a body that stopped arriving, or is too slow, ends the exchange."""
        limit_s = self.downstream.context.limits.body_timeout_s
        if not self.request_done and now_s - max(self.since_s, self.downstream.since_s) > limit_s:
            self.downstream.context.counters.hit("body_timeout_s")
            self._refuse(Reason.REQUEST_TIMEOUT)
        elif not self.request_done and body_is_too_slow(self.downstream, len(self.body), now_s):
            self.downstream.context.counters.hit("min_body_rate_bytes_s")
            self._refuse(Reason.REQUEST_TIMEOUT)
