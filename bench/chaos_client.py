"""Clients that number their requests, read the answers with h11, and judge each of them.

An answer is right, an error of the gateway's own, or visibly cut. Anything else is a fault: another's body (crossed),
no answer at all (lost), more answers than requests (doubled).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11

from bench.chaos_backend import BY_CLOSE, BY_LENGTH, answer, framing

ANSWER_BOUND_S = 20.0
REFUSED_PAUSE_S = 0.1
"""A refusal is quick: without a pause, most requests of a run would meet a backend that is down."""
_OWN_STATUSES = (502, 503, 504)
_METHODS = (b"GET", b"GET", b"GET", b"HEAD", b"PUT", b"DELETE", b"POST", b"POST", b"PATCH")
IDEMPOTENT = (b"GET", b"HEAD", b"PUT", b"DELETE")


@dataclass(frozen=True)
class Asked:
    """One request. `body` is what it carries, decoded; `wire` its bytes."""

    number: int
    method: bytes
    body: bytes
    wire: bytes


@dataclass
class Tally:
    """What came of all requests. `faults` is empty where the gateway did everything right."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    methods: dict[int, bytes] = field(default_factory=dict)
    shortened: set[int] = field(default_factory=set)
    """Requests that were answered by less than their body, cleanly ended: their backend must have said so."""

    @property
    def judged(self) -> int:
        return sum(self.counts[name] for name in ("right", "shortened", "refused", "cut"))


def ask(number: int, services: int, random_: random.Random) -> Asked:
    """Write request `number`."""
    method = random_.choice(_METHODS)
    lines = [b"%b /s%d/n/%d HTTP/1.1" % (method, random_.randrange(services), number), b"Host: chaos"]
    body = framed = b""
    if method in (b"PUT", b"POST", b"PATCH"):
        body = framed = b"request %d " % number * random_.choice((1, 10, 1_000))
        if random_.random() < 0.5:
            at = random_.randrange(1, len(body))
            framed = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:at], body[at:])) + b"0\r\n\r\n"
            lines.append(b"Transfer-Encoding: chunked")
        else:
            lines.append(b"Content-Length: %d" % len(body))
    return Asked(number, method, body, b"\r\n".join([*lines, b"", b""]) + framed)


class Received:
    """One answer as far as it came. `whole` says that its framing ended it; `close` that the connection ends."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.interim: list[bytes] = []
        self.whole = False

    @property
    def close(self) -> bool:
        return self.fields.get(b"connection") == b"close"


def judge(asked: Asked, got: Received, tally: Tally) -> None:
    """Count an answer that has at least begun."""
    right = answer(asked.number, asked.body)
    if any(number != b"%d" % asked.number for number in got.interim):
        tally.faults.append(f"{asked.number}: crossed in an interim answer: {got.interim}")
        return
    if got.status in _OWN_STATUSES and b"x-number" not in got.fields:
        is_own = got.fields.get(b"content-type") == b"application/problem+json"
        if got.whole and is_own and (b'"code":"' in got.body or asked.method == b"HEAD"):
            tally.counts["refused"] += 1
        else:
            tally.faults.append(
                f"{asked.number}: a {got.status} that is not the gateway's own: {got.body[:80]!r}"
            )
    elif got.status != 200 or got.fields.get(b"x-number") != b"%d" % asked.number:
        tally.faults.append(f"{asked.number}: crossed: {got.status} {got.fields} {got.body[:80]!r}")
    elif asked.method == b"HEAD":
        length = got.fields.get(b"content-length")
        if (
            not got.whole
            or got.body
            or (framing(asked.number) == BY_LENGTH) != (length == b"%d" % len(right))
        ):
            tally.faults.append(
                f"{asked.number}: an answer to HEAD that is not right: {got.fields} {got.body[:80]!r}"
            )
        else:
            tally.counts["right"] += 1
    elif not right.startswith(got.body):
        tally.faults.append(f"{asked.number}: crossed or corrupt: {got.body[:80]!r}")
    elif not got.whole:
        tally.counts["cut"] += 1
    elif got.body != right:
        tally.counts["shortened"] += 1
        if framing(asked.number) != BY_CLOSE:
            tally.shortened.add(asked.number)
    else:
        tally.counts["right"] += 1


class Connection:
    """One client connection; `left` are bytes that came behind the last answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.left = b""

    async def receive(self, asked: Asked) -> Received | None:
        """Read the next answer, or as much of it as there is; None where not a byte of a final one came."""
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=65_536)
        client.send(h11.Request(method=asked.method, target=b"/", headers=[(b"Host", b"a")]))
        client.send(h11.EndOfMessage())
        if self.left:
            client.receive_data(self.left)
            self.left = b""
        got = Received()
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                return got if got.status else None
            if event is h11.NEED_DATA:
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    return got if got.status else None
                client.receive_data(data)
            elif isinstance(event, h11.Response):
                got.status = event.status_code
                got.fields = {bytes(name): bytes(value) for name, value in event.headers}
            elif isinstance(event, h11.Data):
                got.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                got.whole = True
                self.left = client.trailing_data[0]
                return got
            elif isinstance(event, h11.InformationalResponse):
                got.interim.append(dict(event.headers).get(b"x-number", b""))
            else:
                return got if got.status else None


async def talk(port: int, batches: Iterator[list[Asked]], tally: Tally) -> None:
    """Send batch after batch on one connection after the other until there are no more."""
    connection: Connection | None = None
    for batch in batches:
        if connection is None:
            connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        connection.writer.write(b"".join(asked.wire for asked in batch))
        over = False
        for place, asked in enumerate(batch):
            if over:
                tally.counts["unserved"] += 1  # the answer before it ended the connection, as the client saw
                continue
            try:
                async with asyncio.timeout(ANSWER_BOUND_S):
                    got = await connection.receive(asked)
            except TimeoutError:
                tally.faults.append(f"{asked.number}: no answer within {ANSWER_BOUND_S:g} s")
                over = True
                continue
            if got is None:
                tally.faults.append(
                    f"{asked.number}: lost: the connection ended without an answer (place {place})"
                )
                over = True
                continue
            judge(asked, got, tally)
            over = got.close or not got.whole
            if got.status in _OWN_STATUSES:
                await asyncio.sleep(REFUSED_PAUSE_S)
        if not over and connection.left:
            tally.faults.append(
                f"{batch[-1].number}: doubled: {connection.left[:80]!r} behind the last answer"
            )
            over = True
        if over:
            connection.writer.close()
            connection = None
    if connection is not None:
        connection.writer.close()


def batches(
    numbers: Iterator[int], tally: Tally, wanted: int, services: int, random_: random.Random
) -> Iterator[list[Asked]]:
    """Yield what to send next, in part pipelined, until `wanted` requests have come to an end."""
    while tally.judged + len(tally.faults) < wanted:
        count = 1 if random_.random() < 0.6 else random_.randrange(2, 6)
        batch = []
        for number in itertools.islice(numbers, count):
            asked = ask(number, services, random_)
            tally.methods[number] = asked.method
            batch.append(asked)
        yield batch
