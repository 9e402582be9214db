"""A worker as a process of its own: ``python -m authgate_fast.server.worker_process FD``, started by the supervisor.

FD is its end of the channel. It loads what it needs, then waits for the first message: to become the worker of a slot,
or, as the spare, to fork processes that will. Until then it has no loop and no threads, so that it can be forked. A
worker's listening sockets come when it may accept. It says ``started`` when it could accept,
``ready`` when it has a configuration, ``beat`` once a second from its loop, and hands over its numbers when asked,
now and then, and at its end. It drains when it is told to, at SIGTERM, and when the supervisor is gone. SIGUSR2
writes where each thread is to stderr.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

import orjson

from authgate_fast.server.channel import PROTOCOL, Channel, Message
from authgate_fast.server.options import (
    ENVIRONMENT,
    USAGE,
    WRONG_INPUT,
    RunOptions,
    UsageError,
    parse_run,
    read_secret_key,
    start_logging,
)
from authgate_fast.server.sums import to_plain

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from authgate_fast.config.store import Configuration
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.server.file_source import FileSource
    from authgate_fast.server.worker import Source, Worker
    from authgate_fast.snapshot import Snapshot

BEAT_S = 1.0
_READ_BYTES = 65_536
_RIGHTS_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)
REPORT_COST = 50
"""A report is sent unasked after this many times the time that making one takes, and not more often than a beat."""

_log = logging.getLogger("authgate")


class CannotStartError(Exception):
    """This worker cannot serve; `code` is the exit code that says whose fault it is."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class WorkerProcess:
    """Carries out the supervisor's messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._channel = Channel(loop, sock, self._message, self._orphaned)
        self._go = asyncio.Event()
        self._drain = asyncio.Event()
        self._drain_as: Message = {}
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_order = asyncio.Lock()
        self._next_report_s = 0.0

    def send(self, kind: str, **values: object) -> None:
        self._channel.send({"kind": kind, **values})

    def _message(self, message: Message, fds: list[int]) -> None:
        kind = message["kind"]
        worker = self._worker
        if kind == "go":
            self._go.set()
        elif kind == "drain":
            self._drain_as = message
            self._drain.set()
        elif worker is None:
            for fd in fds:
                os.close(fd)
        elif kind == "accept":
            self._do(worker.accept_from(message["slot"], [socket.socket(fileno=fd) for fd in fds]))
        elif kind == "leave":
            self._do(worker.leave(message["slot"]))
        elif kind == "ask":
            self._report(worker, "report", ask=message["ask"])
        elif kind == "reopen":
            worker.reopen_logs()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        """Run what messages ask for, one after the other."""

        async def run() -> None:
            async with self._in_order:
                await work

        task = self._loop.create_task(run(), name="message")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.critical("cannot do what the supervisor asks", exc_info=task.exception())
            os._exit(ENVIRONMENT)  # a worker that accepts nothing must not look well; it is replaced

    def _orphaned(self) -> None:
        self._go.set()
        if not self._drain.is_set():
            _log.error("the supervisor is gone; draining")
            self._drain_as = {"is_last": True}
            self._drain.set()

    def _report(self, worker: Worker, kind: str, **values: object) -> None:
        begun_s = time.monotonic()
        self.send(kind, status=worker.status(), metrics=to_plain(worker.metrics()), **values)
        end_s = time.monotonic()
        self._next_report_s = end_s + max(BEAT_S, REPORT_COST * (end_s - begun_s))

    def _beat(self, worker: Worker) -> None:
        self._loop.call_later(BEAT_S, self._beat, worker)
        if self._channel.unsent:
            return  # the supervisor does not read; its own trouble comes first
        self.send("beat")
        if time.monotonic() >= self._next_report_s:
            self._report(worker, "report", ask=None)

    async def run(self, told: Message, trouble: str) -> int:
        """Serve as `told` until the end; return the exit code. `trouble`: why not all code could be loaded."""
        _show_name(f"authgate-w{told['slot']}")
        start_logging(told["slot"])
        if told["slot"] != 0:
            # What documents and certificates deserve is the same in all workers; the first one says it.
            for name in ("authgate.config", "authgate.tls"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if told["protocol"] != PROTOCOL:
                raise CannotStartError(
                    ENVIRONMENT,
                    "the installed package is of another version than the running supervisor: restart the service",
                )
            if trouble:
                raise CannotStartError(ENVIRONMENT, trouble)
            await self._serve(told)
        except CannotStartError as error:
            self.send("failed", code=error.code, text=str(error))
            return error.code
        except Exception:
            self.send("failed", code=ENVIRONMENT, text=traceback.format_exc())
            return ENVIRONMENT
        finally:
            self._channel.close()
        return 0

    async def _serve(self, told: Message) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        from authgate_fast.observe.access_log import AccessLogError
        from authgate_fast.server.certificates import CertificateError
        from authgate_fast.server.worker import DRAIN_IDLE_S

        worker, configuration = await self._build(told)
        try:
            await worker.start()
        except (CertificateError, AccessLogError) as error:
            raise CannotStartError(ENVIRONMENT, f"authgate: {error}") from None
        self._worker = worker
        self.send("started")
        self._beat(worker)
        self._tell_when_ready(configuration)
        await self._drain.wait()
        async with self._in_order:
            drain = self._drain_as
            await worker.drain(is_last=drain["is_last"], idle_s=drain.get("idle_s", DRAIN_IDLE_S))
        self._report(worker, "ended")
        for _ in range(100):
            if not self._channel.unsent or self._channel.closed:
                break
            await asyncio.sleep(0.01)

    def _tell_when_ready(self, configuration: Configuration) -> None:
        is_told = False

        def look(snapshot: Snapshot) -> None:
            nonlocal is_told
            if snapshot.ready and not is_told:
                is_told = True
                self.send("ready")

        configuration.on_swap.append(look)
        look(configuration.snapshot)

    def _signalled(self, number: int) -> None:
        """SIGTERM is for this worker alone; SIGINT comes from a terminal, to all, and the supervisor sees to it."""
        if number == signal.SIGTERM and not self._drain.is_set():
            self.send("draining")
            self._drain_as = {"is_last": False}
            self._drain.set()

    async def _build(self, told: Message) -> tuple[Worker, Configuration]:
        from authgate_fast.config.store import Configuration
        from authgate_fast.server.worker import Worker

        try:
            run = parse_run(told["arguments"])
            sealing_key = read_secret_key(run.secret_key_file)
        except UsageError as error:
            raise CannotStartError(USAGE, f"authgate: {error}") from None
        run.worker.ops = None
        configuration = Configuration(run.worker.limits)
        if run.config is not None:
            source: Source = await self._from_file(run.config, configuration, told)
            return Worker(configuration, source, run.worker), configuration
        source, store = _from_redis(run, configuration, told)
        return Worker(configuration, source, run.worker, store, sealing_key), configuration

    async def _from_file(self, path: Path, configuration: Configuration, told: Message) -> FileSource:
        from authgate_fast.server.file_source import FileSource, why_one_worker

        source = FileSource(path, configuration, alone=told["workers"] == 1)
        problems = source.load()
        if problems:
            mistakes = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
            lines = [str(problem) for problem in problems]
            raise CannotStartError(WRONG_INPUT, "\n".join([*lines, f"{path}: {mistakes}"]))
        why = why_one_worker(configuration.documents)
        if why is not None and told["workers"] > 1:
            self.send("alone", why=why)
            await self._go.wait()
            source = FileSource(path, configuration)
            source.load()
        return source


def _show_name(name: str) -> None:
    """Let `top` and `ps -o comm` tell the processes of a node apart."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)


def _import_all() -> str:
    """Import what serves, before there is a hurry; return why that cannot be done."""
    try:
        for name in ("worker", "file_source"):
            importlib.import_module(f"authgate_fast.server.{name}")
        for name in ("redis_source", "store"):
            importlib.import_module(f"authgate_fast.config.{name}")
    except Exception:
        return traceback.format_exc()
    return ""


def _from_redis(run: RunOptions, configuration: Configuration, told: Message) -> tuple[Source, StateStore]:
    from authgate_fast.config.redis_source import RedisSource, RedisUrlError
    from authgate_fast.config.state_dir import StateDir
    from authgate_fast.lookup.redis_store import RedisStateStore

    state = None
    if run.state_dir is not None:
        state = StateDir(run.state_dir, is_locked=True, writes=told["slot"] == 0)
    try:
        return RedisSource(str(run.redis), configuration, state), RedisStateStore(str(run.redis))
    except RedisUrlError as error:
        raise CannotStartError(USAGE, f"authgate: --redis: {error}") from None


def _until_told(sock: socket.socket) -> tuple[socket.socket, Message]:
    """Wait for the word to become a worker; return it and the worker's end of the channel.

    Until then each ``fork`` makes a process that waits for the same, on the descriptor that came along. It is forked
    twice, so that the supervisor adopts it. Ends the process when the supervisor is gone.
    """
    _say_loaded(sock)
    received = b""
    fds: list[int] = []
    while True:
        line, found, rest = received.partition(b"\n")
        if not found:
            # Not `socket.recv_fds`: that of Python 3.11 forgets its flags.
            data, rights, _, _ = sock.recvmsg(_READ_BYTES, _RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
            if not data:
                os._exit(ENVIRONMENT)
            received += data
            for _, _, packed in rights:
                fds += array.array("i", packed)
            continue
        received = rest
        message: Message = orjson.loads(line)
        if message["kind"] == "run":
            return sock, message  # nothing follows before we answer
        if message["kind"] != "fork":
            continue
        fd = fds.pop(0)
        between = os.fork()
        if between:
            os.close(fd)
            os.waitpid(between, 0)
            continue
        if os.fork():
            os._exit(0)
        sock.close()
        sock, received = socket.socket(fileno=fd), b""
        _say_loaded(sock)


def _say_loaded(sock: socket.socket) -> None:
    sock.sendall(orjson.dumps({"kind": "loaded", "pid": os.getpid()}, option=orjson.OPT_APPEND_NEWLINE))


def main() -> NoReturn:
    """Run one worker to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    import uvloop

    trouble = _import_all()
    gc.collect()
    gc.freeze()  # what is loaded stays: a fork shares its memory as long as nobody writes there
    sock, told = _until_told(socket.socket(fileno=int(sys.argv[1])))

    async def run() -> int:
        return await WorkerProcess(sock).run(told, trouble)

    sys.exit(uvloop.run(run()))


if __name__ == "__main__":
    main()
