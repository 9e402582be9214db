"""Requests at a steady rate, whatever the answers do: ``python -m bench.paced FILE``.

The moments are drawn beforehand (Poisson). Each request goes out at its moment on the connection that has been idle
longest, or, when all are busy, on the next one that gets free; its latency counts from its moment on, so a proxy that
stands still is charged for every request that it kept from starting.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque

from bench.client import Tally, Task, print_result, read_task

_GRACE_S = 5.0


def moments(per_s: float, seconds: float, random_: random.Random) -> list[float]:
    """Return when requests are due, in seconds from the start."""
    due, at = [], random_.expovariate(per_s)
    while at < seconds:
        due.append(at)
        at += random_.expovariate(per_s)
    return due


class _Connection:
    __slots__ = ("due", "received", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.received = b""


def _is_whole(received: bytes) -> bool:
    head, mark, body = received.partition(b"\r\n\r\n")
    if not mark:
        return False
    length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(length or b"0")


def run(task: Task) -> tuple[Tally, float, list[float]]:
    """Send what is due until the time is over and all is answered, or for some seconds more."""
    due = deque(moments(task.per_s, task.seconds, random.Random(1)))
    heads = [head.encode() for head in task.heads]
    tally, latencies = Tally(), []
    idle = deque(_Connection(task.port) for _ in range(task.connections))
    by_number = {connection.socket.fileno(): connection for connection in idle}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    sent = 0
    clock = time.perf_counter
    begun = clock()
    deadline = begun + task.seconds + _GRACE_S
    while (due or len(idle) < len(by_number)) and by_number and clock() < deadline:
        while due and idle and begun + due[0] <= clock():
            connection = idle.popleft()
            connection.due = begun + due.popleft()
            connection.received = b""
            connection.socket.send(heads[sent % len(heads)])
            sent += 1
        wait = max(0.0, begun + due[0] - clock()) if due and idle else 0.1
        if wait and not select.select([poll], (), (), wait)[0]:  # epoll itself knows only whole milliseconds
            continue
        for number, _ in poll.poll(0):
            connection = by_number[number]
            data = connection.socket.recv(65_536)
            if not data:
                tally.errors += 1
                poll.unregister(number)
                del by_number[number]
                if connection in idle:
                    idle.remove(connection)
                continue
            connection.received += data
            if _is_whole(connection.received):
                latencies.append(clock() - connection.due)
                tally.requests += 1
                tally.refused += not connection.received.startswith(b"HTTP/1.1 200 ")
                idle.append(connection)
    tally.errors += len(due) + len(by_number) - len(idle)
    return tally, clock() - begun, latencies


if __name__ == "__main__":
    print_result(*run(read_task()))
