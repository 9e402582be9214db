"""Answers that the gateway gives by itself: refusals, and what needs no backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authgate_fast.decision import Refusal
from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.problem import own_response, problem_response
from authgate_fast.proxy.record import answered

if TYPE_CHECKING:
    from authgate_fast.http.request import RequestHead
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.proxy.exchange import Exchange
    from authgate_fast.proxy.waiting import LocalExchange

_LIMIT_OF: Final = {Reason.BODY_TOO_LARGE: "max_body_bytes", Reason.TARGET_TOO_LONG: "max_target_bytes"}
"""The reasons that one limit alone can cause; who gives another one counts its limit."""


def _count(connection: Downstream, reason: Reason) -> None:
    counters = connection.context.counters
    counters.refused[reason.value] = counters.refused.get(reason.value, 0) + 1
    limit = _LIMIT_OF.get(reason)
    if limit is not None:
        counters.hit(limit)


def refuse_unread(connection: Downstream, reason: Reason, data: bytes, request_id: bytes = b"") -> None:
    """Refuse what begins with `data` and is no request; to HEAD no body is sent, in case it was one."""
    refuse(
        connection,
        Refusal(reason, request_id or connection.next_id()),
        None,
        b"",
        with_body=not data.startswith(b"HEAD "),
    )


def refuse(
    connection: Downstream,
    refusal: Refusal,
    head: RequestHead | None,
    rest: bytes,
    *,
    with_body: bool = True,
) -> None:
    """Answer an unserved request; keep the connection only if the next request's start is known."""
    reason = refusal.reason
    _count(connection, reason)
    if refusal.why:
        connection.context.report(reason, None, refusal.request_id, refusal.why)
    keep = _skip_body(connection, head, rest) if head is not None and not TABLE[reason].closes else False
    if head is None:
        connection.sent_before = connection.written
    connection.write(
        problem_response(
            reason,
            request_id=refusal.request_id,
            date_line=connection.context.date_line,
            detail=refusal.detail,
            extra_lines=refusal.extra_lines,
            retry_after_s=refusal.retry_after_s,
            close=not keep,
            with_body=with_body if head is None else head.method != b"HEAD",
        )
    )
    answered(
        connection, head, refusal.gateway, refusal.route, refusal.request_id, TABLE[reason].status, reason
    )
    connection.after_answer(keep=keep)


def answer_plainly(
    connection: Downstream, request_id: bytes, head: RequestHead, rest: bytes, status: int, lines: bytes
) -> None:
    """Answer an unserved request with a status and fields, without a body."""
    keep = _skip_body(connection, head, rest)
    connection.write(
        own_response(
            status,
            lines,
            request_id=request_id,
            date_line=connection.context.date_line,
            close=not keep,
        )
    )
    answered(connection, head, connection.client.gateway, None, request_id, status)
    connection.after_answer(keep=keep)


def _skip_body(connection: Downstream, head: RequestHead, rest: bytes) -> bool:
    """Step over a body that nobody reads, if it has arrived whole; else the connection must close."""
    length = max(head.content_length, 0)
    if (
        head.close
        or head.chunked
        or head.expect_continue
        or length > len(rest)
        or connection.context.draining
    ):
        return False
    connection.buffer = rest[length:]
    return True


def exchange_refused(connection: Downstream, exchange: Exchange | LocalExchange, reason: Reason) -> None:
    """An exchange ends without a response from the backend."""
    connection.exchange = None
    _count(connection, reason)
    close = (
        exchange.close_after
        or not exchange.request_done
        or TABLE[reason].closes
        or connection.context.draining
    )
    connection.write(
        problem_response(
            reason,
            request_id=exchange.request_id,
            date_line=connection.context.date_line,
            close=close,
            with_body=exchange.method != b"HEAD",
        )
    )
    exchange.record_refusal(reason)
    if close:
        connection.close_after_answer(linger=not exchange.request_done or TABLE[reason].closes)
    else:
        connection.next_request()
