"""One request and its response, from the first byte to the last.

Joins a client connection (`Downstream`) with a backend connection (`Upstream`): sends the request's
bytes on as they arrive, decides about retries and timeouts, and ends exactly once, by the end of the
response, `refuse`, `break_off` or `cancel`. After that nobody holds a reference that could cross two requests.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from authgate_fast.errors import Reason
from authgate_fast.http.chunked import LAST_CHUNK, ChunkedDecoder, FramingError, encode_pieces
from authgate_fast.http.problem import CONTINUE, STATUS_STARTS
from authgate_fast.http.request import IDEMPOTENT
from authgate_fast.http.response import without_own_cookies
from authgate_fast.http.upgrade import switch_problem
from authgate_fast.proxy.access import lost_access
from authgate_fast.proxy.own_answers import exchange_refused
from authgate_fast.proxy.pace import body_is_too_slow
from authgate_fast.proxy.placement import Placement
from authgate_fast.proxy.record import ACCESS_ENDED, CLIENT_CLOSED, COMPLETE, UPSTREAM_BROKEN, exchange_ended
from authgate_fast.proxy.record import exchange_refused as refusal_recorded
from authgate_fast.proxy.retry import ANSWERED, CONNECTING, SENT, may_retry
from authgate_fast.proxy.tunnel import may_open, open_tunnel

if TYPE_CHECKING:
    from authgate_fast.decision import Forward
    from authgate_fast.http.request import RequestHead
    from authgate_fast.http.response import ResponseHead
    from authgate_fast.proxy.context import Context
    from authgate_fast.proxy.downstream import Downstream
    from authgate_fast.proxy.pool import Pool
    from authgate_fast.proxy.upstream import Upstream
    from authgate_fast.snapshot import Target

_MAX_REPLAY_PIECES: Final = 256
"""Pieces of a body kept for a retry: a body that drips would cost many times its bytes."""


class Exchange:
    """`sent` keeps what a retry would send again; None once that is impossible or needless."""

    __slots__ = (
        "body_bytes",
        "close_after",
        "context",
        "continue_due",
        "decoder",
        "downstream",
        "ends_with_connection",
        "finished",
        "forward",
        "head",
        "left",
        "method",
        "placement",
        "request_done",
        "response_begun",
        "response_s",
        "reused",
        "sends",
        "sent",
        "sent_bytes",
        "since_s",
        "status",
        "upstream",
    )

    def __init__(self, downstream: Downstream, head: RequestHead, forward: Forward) -> None:
        self.context: Context = downstream.context
        self.downstream = downstream
        self.head = head
        self.forward = forward
        self.method = head.method
        self.upstream: Upstream | None = None
        self.decoder: ChunkedDecoder | None = None
        self.left = 0
        self.body_bytes = 0
        self.request_done = True
        self.response_begun = False
        self.response_s = 0.0
        self.status = 0
        self.reused = False
        self.sends = 0
        self.placement: Placement | None = None  # a balanced service's requests have one
        self.finished = False
        self.ends_with_connection = False
        self.close_after = head.close
        self.continue_due = False
        self.sent: list[bytes] | None = [forward.head]
        self.sent_bytes = 0
        self.since_s = self.context.now_s

    def body_received(self) -> int:
        """Bytes of the request's body that have come so far, without the framing of chunks."""
        return self.body_bytes if self.head.chunked else max(self.head.content_length, 0) - self.left

    @property
    def request_id(self) -> bytes:
        return self.forward.request_id

    # --- the request's way to the backend -------------------------------------------------------

    def start(self, rest: bytes) -> None:
        """Begin. `rest` is what followed the head in the same read."""
        head = self.head
        if head.chunked or head.content_length > 0:
            self._start_body(head, rest)
            if self.finished:
                return
        elif rest:
            self.downstream.hold(rest)
        forward = self.forward
        if forward.parts is not None:
            service = forward.service
            group = service.group or self.context.groups.get(forward.gateway.name, service)
            self.placement = Placement(self, group)
            self.placement.start()
        else:
            self._go()

    def go_to(self, target: Target) -> None:
        """Take the request to a target that has just been chosen."""
        forward = self.forward
        forward.aim_at(target)
        if self.sent is not None:
            self.sent[0] = forward.head
        self._go()

    def _go(self) -> None:
        pool = self.context.pools.get(self.forward.target)
        upstream = pool.take()
        if upstream is not None:
            self.attach(upstream, reused=True)
        else:
            if not self.request_done:
                self.downstream.pause()
            pool.connect(self)

    def _start_body(self, head: RequestHead, rest: bytes) -> None:
        self.request_done = False
        if head.chunked:
            self.decoder = ChunkedDecoder()
        else:
            self.left = head.content_length
        if rest:
            self.request_data(rest)
        else:
            self.continue_due = head.expect_continue

    def attach(self, upstream: Upstream, *, reused: bool) -> None:
        """Take `upstream` for this exchange and send what has come in so far."""
        self.upstream = upstream
        self.reused = reused
        self.sends += 1
        upstream.exchange = self
        upstream.since_s = self.since_s = self.context.now_s
        sent = self.sent or []
        upstream.transport.write(sent[0] if len(sent) == 1 else b"".join(sent))
        if (
            # There is no other target: nothing would be gained by a second time.
            (not reused and self.placement is None)
            or self.method not in IDEMPOTENT
            or self.sent_bytes > self.context.limits.max_replay_bytes
        ):
            self.sent = None
        if not self.request_done:
            if self.continue_due:
                self.continue_due = False
                self.downstream.write(CONTINUE)
            if not upstream.write_paused:
                self.downstream.resume()

    def request_data(self, data: bytes) -> None:
        """Send on body bytes; what follows the body is held back by the downstream."""
        if self.decoder is not None:
            data = self._decode(self.decoder, data)
        else:
            left = self.left
            size = len(data)
            if size > left:
                self.downstream.hold(data[left:])
                data = data[:left]
                size = left
            self.left = left - size
            if size == left:
                self._request_complete()
        if data and not self.finished:
            self._send(data)

    def _decode(self, decoder: ChunkedDecoder, data: bytes) -> bytes:
        pieces: list[bytes] = []
        try:
            used = decoder.feed(data, pieces)
        except FramingError as error:
            if decoder.limit:
                self.context.counters.hit(decoder.limit)
            self.refuse(Reason.BAD_REQUEST, str(error))
            return b""
        for piece in pieces:
            self.body_bytes += len(piece)
        limit = self.forward.route.settings.max_body_bytes
        if limit is not None and self.body_bytes > limit:
            self.refuse(Reason.BODY_TOO_LARGE, "a chunked body over the limit")
            return b""
        out = encode_pieces(pieces)
        if decoder.done:
            out += LAST_CHUNK
            if used < len(data):
                self.downstream.hold(data[used:])
            self._request_complete()
        return out

    def _request_complete(self) -> None:
        self.request_done = True
        self.since_s = self.context.now_s

    def _send(self, data: bytes) -> None:
        sent = self.sent
        upstream = self.upstream
        self.context.took(len(data))
        if sent is not None:
            sent.append(data)
            self.sent_bytes += len(data)
            if upstream is not None and (
                self.sent_bytes > self.context.limits.max_replay_bytes or len(sent) > _MAX_REPLAY_PIECES
            ):
                self.sent = None
        if upstream is not None:
            upstream.write(data)

    # --- the response's way to the client -------------------------------------------------------

    def send_interim(self, response: ResponseHead) -> None:
        """Pass on a 1xx other than 100 and 101, for instance 103 Early Hints (RFC 9110 section 15.2)."""
        if self.head.minor == 1:
            block = response.block
            if response.own_cookies:
                block = without_own_cookies(block)
            self.downstream.write(b"%b%b\r\n" % (STATUS_STARTS[response.status], block))

    def response_head(self, response: ResponseHead, framing: bytes, body: bytes = b"") -> bytes:
        """Write the response head anew for the client, `framing` being its framing line or b""; `body` follows."""
        self.response_begun = True
        self.response_s = perf_counter()
        self.status = response.status
        self.sent = None
        if self.placement is not None:
            self.placement.answered(response.status)
        if not self.request_done or self.context.draining:
            self.close_after = True
        block = response.block
        if response.own_cookies:
            block = without_own_cookies(block)
        identity = self.forward.identity
        if identity is not None and identity.session is not None and not response.says_who_may_cache():
            # The client's request had a cookie where the backend's has Authorization, which keeps shared caches from
            # storing the response (RFC 9111 section 3.5).
            block += b"Cache-Control: private\r\n"
        return b"%b%b%b%bVia: 1.1 authgate\r\nX-Request-ID: %b\r\n%b%b" % (
            STATUS_STARTS[response.status],
            block,
            framing,
            b"" if response.has_date else self.context.date_line,
            self.forward.request_id,
            b"Connection: close\r\n\r\n" if self.close_after else b"\r\n",
            body,
        )

    def switch(self, response: ResponseHead, data: bytes) -> None:
        """Leave HTTP, if that is what the client asked for and the backend agrees to; `data` came behind its 101."""
        problem = switch_problem(self.head.upgrade, response)
        if problem:
            self.refuse(Reason.UPSTREAM_PROTOCOL_ERROR, problem)
        elif not may_open(self.context):
            self.context.counters.hit("max_tunnels")
            self.refuse(Reason.OVERLOADED, "max_tunnels reached, or draining")
        elif self.upstream is not None:
            open_tunnel(self, self.upstream, response, data)

    # --- the ends ---------------------------------------------------------------------------------

    def complete(self) -> None:
        """The response has ended as it should."""
        self.finished = True
        self.upstream = None
        if self.placement is not None:
            self.placement.complete()
        exchange_ended(self, COMPLETE)

    def connect_failed(self, reason: Reason, what: str, pool: Pool | None) -> None:
        """No connection came about. `pool`: where one might in a moment."""
        placement = self.placement
        if placement is not None:
            placement.connect_failed(reason, what)
        if not self._tried_again(CONNECTING) and not (pool is not None and pool.park(self)):
            self.refuse(reason, what, judged=True)

    def upstream_lost(self, what: str, *, begun: bool) -> None:
        """The backend connection ended early. `begun`: some byte of a response had arrived."""
        self.upstream = None
        if self.response_begun:
            self.break_off(what)
            return
        placement = self.placement
        if placement is not None and (begun or not self.reused):  # a kept connection may have been stale
            placement.gone_wrong(Reason.UPSTREAM_UNREACHABLE, what)
        if not self._tried_again(ANSWERED if begun else SENT):
            reason = Reason.UPSTREAM_PROTOCOL_ERROR if begun else Reason.UPSTREAM_UNREACHABLE
            self.refuse(reason, what, judged=True)

    def _tried_again(self, phase: int) -> bool:
        """Take the request to another connection, if that is allowed after a failure in `phase`."""
        placement = self.placement
        if not may_retry(
            self.method,
            phase,
            reused=self.reused,
            replayable=self.sent is not None,
            sends=self.sends,
            other_targets=0 if placement is None else placement.other_targets(),
        ):
            return False
        if placement is not None and (phase == CONNECTING or not self.reused):
            if not placement.move(phase):
                return False
            self.context.counters.retries += 1
            return True
        self.context.counters.retries += 1
        if not self.request_done:
            self.downstream.pause()
        self.reused = False
        self.context.pools.get(self.forward.target).connect(self)
        return True

    def refuse(self, reason: Reason, what: str, *, judged: bool = False) -> None:
        """Answer with an error of the gateway's own; `what` is for the operator.

        `judged`: the target has been told that it failed.
        """
        if self.response_begun:
            self.break_off(what, reason)
            return
        if self.placement is not None and not judged:
            self.placement.gone_wrong(reason, what)
        self.finished = True
        self._drop_upstream()
        self.context.report(reason, self.forward, self.forward.request_id, what)
        exchange_refused(self.downstream, self, reason)

    def record_refusal(self, reason: Reason) -> None:
        """Count and log that the gateway refused it."""
        refusal_recorded(self, reason)

    def break_off(self, what: str, reason: Reason = Reason.UPSTREAM_PROTOCOL_ERROR) -> None:
        """Cut the client's connection in the middle of a response, so that it can tell (DESIGN section 5).

        A length or a missing last chunk tells; what has arrived is still delivered. Where only the end of the
        connection ends the body (HTTP/1.0), a reset must say it.
        """
        self.finished = True
        if self.placement is not None:
            self.placement.gone_wrong(reason, what)
        self._drop_upstream()
        self.context.counters.upstream_failures += 1
        exchange_ended(self, UPSTREAM_BROKEN)
        self.context.report(Reason.UPSTREAM_PROTOCOL_ERROR, self.forward, self.forward.request_id, what)
        if self.ends_with_connection:
            self.downstream.abort()
        else:
            self.downstream.cut()

    def _access_ended(self, what: str) -> None:
        """Stop a response that has outlived the access it was given to; the backend is not to blame."""
        if not self.response_begun:
            self.refuse(Reason.CREDENTIALS_INVALID, what)
            return
        self.finished = True
        self._drop_upstream()
        exchange_ended(self, ACCESS_ENDED)
        self.context.report(Reason.CREDENTIALS_INVALID, self.forward, self.forward.request_id, what)
        if self.ends_with_connection:
            self.downstream.abort()
        else:
            self.downstream.cut()

    def cancel(self) -> None:
        """The client is gone: so is the reason to keep the backend busy."""
        if not self.finished:
            self.finished = True
            exchange_ended(self, CLIENT_CLOSED)
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        upstream = self.upstream
        if upstream is not None:
            self.upstream = None
            upstream.abort()
        if self.placement is not None:
            self.placement.end()

    def received_bytes(self) -> int:
        """Return how much of the request body has come."""
        return self.body_bytes if self.decoder is not None else self.head.content_length - self.left

    def held_bytes(self) -> int:
        """Return what waits for the backend, and what is kept for a retry or of a response's head."""
        held = self.sent_bytes if self.sent is not None else 0
        upstream = self.upstream
        if upstream is not None:
            held += len(upstream.buffer) + upstream.transport.get_write_buffer_size()
        return held

    # --- time -------------------------------------------------------------------------------------

    def check_time(self, now_s: float) -> None:
        """Called about once a second while this exchange is under way."""
        lost = lost_access(self.context, self.forward)
        if lost:
            self._access_ended(f"{lost} before the response did")
            return
        upstream = self.upstream
        if upstream is None:
            return  # connecting has its own bound
        settings = self.forward.route.settings
        if not self.request_done:
            if upstream.write_paused:
                if now_s - upstream.since_s > settings.between_bytes_timeout_s:
                    self.context.counters.hit("between_bytes_timeout_s")
                    self.refuse(Reason.UPSTREAM_TIMEOUT, "the backend stopped reading the request")
            elif now_s - max(self.since_s, self.downstream.since_s) > settings.body_timeout_s:
                self.context.counters.hit("body_timeout_s")
                self.refuse(Reason.REQUEST_TIMEOUT, "the request body stopped arriving")
            elif body_is_too_slow(self.downstream, self.received_bytes(), now_s):
                self.context.counters.hit("min_body_rate_bytes_s")
                self.refuse(Reason.REQUEST_TIMEOUT, "the request body came too slowly")
        elif not self.response_begun:
            if now_s - max(self.since_s, upstream.since_s) > settings.first_byte_timeout_s:
                self.context.counters.hit("first_byte_timeout_s")
                self.refuse(Reason.UPSTREAM_TIMEOUT, "no response in time")
        elif not upstream.read_paused and now_s - upstream.since_s > settings.between_bytes_timeout_s:
            self.context.counters.hit("between_bytes_timeout_s")
            self.break_off("the backend stopped in the middle of a response")
