"""The cases of `bench.micro`, and the process that runs them: it reads ``name loops``, writes nanoseconds.

The first line it writes says which cases it has. A case that cannot be prepared (an older revision has other names) is
left out, and the reason is told.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from authgate_fast import is_compiled
from authgate_fast.decision import Client
from authgate_fast.plan import _forward, plan
from authgate_fast.proxy.access_line import Clock, Lines, combined_line, json_line
from authgate_fast.proxy.exchange import Exchange
from authgate_fast.proxy.record import COMPLETE, exchange_ended
from authgate_fast.routing.path_policy import split_path
from bench.micro_world import AUTHS, FRESH_ID, RESPONSE, RESPONSE_HEAD, World
from bench.workload import BACKEND_BODY

Action = Callable[[], object]
READ_BYTES = 262_144
"""What uvloop reads at once."""
_LOG_BATCH_BYTES = 262_144
"""As `observe.access_log` has them."""


class Case(NamedTuple):
    """One thing to time; `reset` is called before each sample."""

    action: Action
    reset: Action | None = None


Maker = Callable[[World], Case]
CASES: dict[str, tuple[str, Maker]] = {}


def case(name: str, text: str) -> Callable[[Maker], Maker]:
    """Enter a case into `CASES`."""

    def enter(make: Maker) -> Maker:
        CASES[name] = (text, make)
        return make

    return enter


@case("nothing", "an empty call: what the measuring itself costs, part of every figure")
def _nothing(_: World) -> Case:
    return Case(partial(bool, None))


@case("head", "read a request head with an API key, all of its lines known")
def _head(world: World) -> Case:
    return Case(partial(world.context.request_reader.read, world.head_bytes("key"), 100, world.snapshot))


@case("head-browser", "the same with 14 fields of a browser, cookies among them")
def _head_browser(world: World) -> Case:
    data = world.head_bytes("key", browser=True)
    return Case(partial(world.context.request_reader.read, data, 100, world.snapshot))


@case("head-parser", "read the first head with the parser instead")
def _head_parser(world: World) -> Case:
    data, snapshot, reader = world.head_bytes("key"), world.snapshot, world.context.request_reader

    def read() -> object:
        head: Any = reader.read(data, 100)
        return head.read(snapshot.field_memo, snapshot.credential_fields)

    return Case(read)


@case("match", "check and split a path that is not remembered, and find its route among 1,000")
def _match(world: World) -> Case:
    gateway = world.snapshot.gateways["key"]

    def match() -> object:
        segments: Any = split_path(b"/api/v1/resource-007/items/100123", gateway.path_policy)
        return gateway.trie.match(segments[1])

    return Case(match)


def _plan_of(kind: str, world: World) -> Case:
    client = Client("127.0.0.1")
    world.planned(kind, client)
    head = world.read(world.head_bytes(kind))
    return Case(partial(plan, head, world.snapshot, client, world.now, FRESH_ID))


def _auth_of(auth: str, world: World) -> Case:
    gateway, head, presented, client = world.ask(auth)
    return Case(partial(gateway.authenticator.identify, head, presented, client, world.now))


for kind in ("public", *AUTHS):
    asked = "no credential" if kind == "public" else f"a known {kind.upper()} credential"
    CASES[f"plan-{kind}"] = (
        f"decide about a request with {asked} and write its head",
        partial(_plan_of, kind),
    )
for auth in AUTHS:
    CASES[f"auth-{auth}"] = (f"the check of a known {auth.upper()} credential alone", partial(_auth_of, auth))


@case("head-out", "write a head for the backend")
def _head_out(world: World) -> Case:
    client = Client("127.0.0.1")
    forward = world.planned("key", client)
    head = world.read(world.head_bytes("key"))
    path = b"/resource-007/items/100123"
    arguments = (
        head,
        forward.gateway,
        forward.route,
        path,
        b"",
        client,
        FRESH_ID,
        head.presented,
        forward.identity,
    )
    return Case(partial(_forward, *arguments))


@case("response-head", "read a response head, all of its lines known")
def _response_head(world: World) -> Case:
    head = RESPONSE.partition(b"\r\n\r\n")[0]
    return Case(partial(world.context.response_reader.read_plain, head, 100))


def _exchange(world: World) -> Exchange:
    """Return an exchange whose response has just begun."""
    connection, _ = world.connection()
    connection.head_bytes = 300
    connection.begun_s = time.perf_counter()
    forward = world.planned("key", Client("127.0.0.1"))
    exchange = Exchange(connection, world.read(world.head_bytes("key")), forward)
    exchange.response_head(_response(world), b"")
    return exchange


def _response(world: World) -> Any:
    return world.context.response_reader.read_plain(RESPONSE.partition(b"\r\n\r\n")[0], 100)


@case("response-out", "write a response head and a body of 200 bytes for the client")
def _response_out(world: World) -> Case:
    response = _response(world)
    return Case(partial(_exchange(world).response_head, response, b"", BACKEND_BODY.encode("ascii")))


@case("record", "count a request that has ended: /metrics")
def _record(world: World) -> Case:
    return Case(partial(exchange_ended, _exchange(world), COMPLETE))


def _log_on(world: World) -> Action:
    """Return what turns an access log on whose lines are gathered and then forgotten."""
    lines = Lines(json_line, _LOG_BATCH_BYTES, _no_timer, lambda: _forget(lines))
    return partial(world.context.recorder.log_to, lines)


def _no_timer() -> None:
    pass


def _forget(lines: Lines) -> None:
    b"".join(lines.take())


@case("record-logged", "the same, and write a line of the access log")
def _record_logged(world: World) -> Case:
    exchange, on = _exchange(world), _log_on(world)

    def reset() -> None:
        exchange.downstream.begun_s = time.perf_counter()  # a duration of days has more digits
        exchange.response_s = exchange.downstream.begun_s
        on()

    return Case(partial(exchange_ended, exchange, COMPLETE), reset)


def _line(write: Callable[[Any, Clock], bytes], world: World) -> Case:
    entries: list[Any] = []
    world.context.recorder.log = entries.append
    exchange_ended(_exchange(world), COMPLETE)
    return Case(partial(write, entries[0], Clock()))


CASES["line-json"] = ("a line of the access log as JSON", partial(_line, json_line))
CASES["line-combined"] = ("a line of the access log in the combined format", partial(_line, combined_line))


@case("poll", "ask the kernel about a kept backend connection: a system call")
def _poll(world: World) -> Case:
    return Case(world.upstream()[0].is_silent)


def _request(
    kind: str, world: World, *, browser: bool = False, body: int = 0, is_logged: bool = False
) -> Case:
    """A request from the read to the write of its answer, on kept connections."""
    more = f"Content-Length: {body}\r\n" if body else ""
    data = world.head_bytes(kind, browser=browser, method="POST" if body else "GET", more=more) + b"x" * body
    if body:
        data = data.replace(b"/items/100123", b"/items")
    (connection, transport), (upstream, _) = world.connection(), world.upstream()
    log_on = _log_on(world) if is_logged else None

    def reset() -> None:
        connection.sequence = 0
        upstream.pool.idle[:] = [upstream]
        if log_on is not None:
            log_on()

    def serve() -> None:
        connection.data_received(data)
        upstream.data_received(RESPONSE)

    serve()
    if not transport.out.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{kind}: answered with {transport.out!r}")
    return Case(serve, reset)


for kind in ("public", *AUTHS):
    asked = "on a PUBLIC route" if kind == "public" else f"with a known {kind.upper()} credential"
    CASES[f"request-{kind}"] = (f"a whole request {asked}, from read to write", partial(_request, kind))
CASES["request-browser"] = (
    "the same with a key and 14 fields of a browser",
    partial(_request, "key", browser=True),
)
CASES["request-post"] = ("the same with a key and a body of 10 KiB", partial(_request, "key", body=10_240))
CASES["request-logged"] = (
    "the same with a key and a line of the access log",
    partial(_request, "key", is_logged=True),
)


@case("download", "pass on 256 KiB of a large response")
def _download(world: World) -> Case:
    connection, _ = world.connection()
    upstream, _ = world.upstream()
    connection.data_received(world.head_bytes("key"))
    upstream.data_received(RESPONSE_HEAD % 10**17)
    return Case(partial(upstream.data_received, b"x" * READ_BYTES))


@case("download-chunked", "pass on 256 KiB of a chunked response, 32 chunks")
def _download_chunked(world: World) -> Case:
    connection, _ = world.connection()
    upstream, _ = world.upstream()
    connection.data_received(world.head_bytes("key"))
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    return Case(partial(upstream.data_received, chunk * 32))


@case("upload", "pass on 256 KiB of a large request")
def _upload(world: World) -> Case:
    connection, _ = world.connection()
    world.upstream()
    head = world.head_bytes("key", method="POST", more=f"Content-Length: {10**17}\r\n")
    connection.data_received(head.replace(b"/items/100123", b"/items"))
    piece = b"x" * READ_BYTES
    connection.data_received(piece * 2)  # more than is kept for a retry
    return Case(partial(connection.data_received, piece))


def make_cases(world: World, names: Sequence[str]) -> tuple[dict[str, Case], dict[str, str]]:
    """Prepare cases; return those that work, and what is wrong with the others."""
    cases: dict[str, Case] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            cases[name] = CASES[name][1](world)
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {error}"
        _log_off(world)
    return cases, missing


def _log_off(world: World) -> None:
    recorder = world.context.recorder
    if hasattr(recorder, "log_to"):  # else it is an older revision, whose cases have no log
        recorder.log_to(None)


def sample(action: Action, loops: int) -> float:
    """Return the nanoseconds of CPU time that one call takes."""
    turns = repeat(None, loops)
    begun = time.thread_time_ns()
    for _ in turns:
        action()
    return (time.thread_time_ns() - begun) / loops


def main(names: Sequence[str]) -> int:
    """Serve samples until the input ends."""
    with tempfile.TemporaryDirectory(prefix="authgate-micro-") as directory:
        world = World(Path(directory))
    cases, missing = make_cases(world, names)
    gc.collect()
    gc.freeze()  # as a worker does after it has loaded its configuration
    print(json.dumps({"cases": list(cases), "missing": missing, "compiled": is_compiled()}), flush=True)
    for line in sys.stdin:
        name, loops = line.split()
        _log_off(world)
        made = cases[name]
        if made.reset is not None:
            made.reset()
        print(sample(made.action, int(loops)), flush=True)
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
