"""Does what was decided about a request, at once or when its look-up is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.decision import Allowed, Forward, Local, Pending, Plan, Redirect, Refusal, Reply
from authgate_fast.errors import Reason
from authgate_fast.http.problem import own_response
from authgate_fast.plan import finish, finish_local
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.own_answers import answer_plainly, refuse
from authgate_fast.proxy.phases import BUSY, IDLE
from authgate_fast.proxy.record import answered as recorded
from authgate_fast.proxy.tunnel import may_open
from authgate_fast.proxy.waiting import LocalExchange, Waiting

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Denial
    from authgate_fast.http.request import RequestHead
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.snapshot import Identity


def act(connection: Downstream, decision: Plan, head: RequestHead, rest: bytes) -> None:
    """Do what was decided. `rest` is what has arrived behind the head."""
    if isinstance(decision, Forward):
        if head.upgrade and not may_open(connection.context):
            connection.context.counters.hit("max_tunnels")
            refuse(connection, Refusal(Reason.OVERLOADED, decision.request_id), head, rest)
            return
        connection.phase = BUSY
        connection.exchange = exchange = Exchange(connection, head, decision)
        exchange.start(rest)
    elif isinstance(decision, Refusal):
        refuse(connection, decision, head, rest)
    elif isinstance(decision, Pending):
        if not connection.context.may_look_up(decision.gateway.name):
            connection.context.counters.hit("max_lookups")
            refuse(connection, Refusal(Reason.OVERLOADED, decision.request_id), head, rest)
            return
        connection.phase = BUSY
        connection.since_s = connection.context.now_s
        connection.exchange = waiting = Waiting(connection, decision)
        if rest:
            connection.hold(rest)
        waiting.start()
    elif isinstance(decision, Local):
        connection.phase = BUSY
        connection.since_s = connection.context.now_s
        connection.exchange = local = LocalExchange(connection, decision)
        local.start(rest)
    elif isinstance(decision, Allowed):
        answer_plainly(connection, decision.request_id, head, rest, 204, b"Allow: %b\r\n" % decision.allow)
    elif isinstance(decision, Redirect):
        lines = b"Location: %b\r\nCache-Control: no-store\r\n" % decision.location
        answer_plainly(connection, decision.request_id, head, rest, 302, lines)


def looked_up(connection: Downstream, waiting: Waiting, found: Identity | Denial) -> None:
    """A look-up is done: go on with the request that waited for it."""
    connection.exchange = None
    rest = connection.buffer
    connection.buffer = b""
    _go_on_with(connection, finish(waiting.pending, found, connection.context.wall_s), waiting.head, rest)


def answered(connection: Downstream, exchange: LocalExchange, answer: Reply | Denial) -> None:
    """One of the gateway's own endpoints has its answer."""
    if isinstance(answer, Reply):
        close = exchange.close_after or connection.context.draining
        connection.write(
            own_response(
                answer.status,
                answer.lines,
                answer.body,
                request_id=exchange.request_id,
                date_line=connection.context.date_line,
                close=close,
                with_body=exchange.method != b"HEAD",
            )
        )
        recorded(connection, exchange.head, exchange.local.gateway, None, exchange.request_id, answer.status)
        connection.exchange_done(close=close, request_done=True)
        return
    connection.exchange = None
    rest = connection.buffer
    connection.buffer = b""
    head = exchange.head
    head.content_length, head.chunked, head.expect_continue = -1, False, False  # the body has been read
    _go_on_with(connection, finish_local(exchange.local, answer, connection.context.wall_s), head, rest)


def _go_on_with(connection: Downstream, decision: Plan, head: RequestHead, rest: bytes) -> None:
    try:
        connection.phase = IDLE
        act(connection, decision, head, rest)
        if connection.phase == IDLE:
            connection.next_request()
        elif connection.eof and connection.exchange is not None and not connection.exchange.request_done:
            connection.give_up()  # the rest of this request will never come
    except Exception as error:  # as in `Downstream._begin`
        connection.drop_exchange()
        connection.context.report(Reason.INTERNAL_ERROR, None, b"-", f"{type(error).__name__}: {error}")
        connection.abort()
