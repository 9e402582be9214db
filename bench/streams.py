"""Large bodies: ``python -m bench.streams FILE`` asks for them or sends them, ``... sink PORT`` takes them.

Clients and sink copy nothing: what is received is dropped in the kernel, what is sent comes from a file in memory.
So they take little of their core, and the proxy is what bounds the bytes per second.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from bench.client import Tally, Task, discard, length_of, print_result, read_head, read_task

_SCRATCH_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def _ask(task: Task, turn: int, until: float, tally: Tally) -> None:
    """Make requests one after the other until the time has come; the last one is finished."""
    scratch = bytearray(_SCRATCH_BYTES)
    body = os.memfd_create("body")
    os.truncate(body, task.body_bytes)
    is_upload = task.heads[0].startswith("POST")
    try:
        with socket.create_connection(("127.0.0.1", task.port), _TIMEOUT_S) as connection:
            while time.perf_counter() < until:
                connection.sendall(task.heads[turn % len(task.heads)].encode())
                turn += task.connections
                if is_upload:
                    with os.fdopen(os.dup(body), "rb") as content:
                        connection.sendfile(content, 0)
                head, rest = read_head(connection)
                length = length_of(head)
                discard(connection, length - len(rest), scratch)
                tally.requests += 1
                tally.refused += not head.startswith(b"HTTP/1.1 200 ")
                tally.bytes += task.body_bytes if is_upload else length
    except OSError as error:
        print(f"a connection failed: {error!r}", flush=True)
        tally.errors += 1
    finally:
        os.close(body)


def _load(task: Task) -> None:
    tallies = [Tally() for _ in range(task.connections)]
    begun = time.perf_counter()
    threads = [
        threading.Thread(target=_ask, args=(task, turn, begun + task.seconds, tally))
        for turn, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally()
    for tally in tallies:
        total.add(tally)
    print_result(total, time.perf_counter() - begun)


def _serve(connection: socket.socket) -> None:
    scratch = bytearray(_SCRATCH_BYTES)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                head, rest = read_head(connection)
                if head.startswith(b"POST "):
                    discard(connection, length_of(head) - len(rest), scratch)
                connection.sendall(_ANSWER)
        except OSError:
            return


def _sink(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=1_024) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        _sink(int(sys.argv[2]))
    else:
        _load(read_task())
