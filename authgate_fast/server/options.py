"""The options of `authgate run` and `authgate demo`, read by the supervisor and by each worker from the same words.

Nothing here imports the request path: a supervisor that only keeps workers alive stays small.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from authgate_fast.limits import DEFAULTS, Limits, with_settings
from authgate_fast.server import entry_options, trace_options
from authgate_fast.server.cpus import usable_cpus
from authgate_fast.server.entry_options import UsageError, environment
from authgate_fast.server.listening import Address
from authgate_fast.server.tls_options import TlsOptions
from authgate_fast.server.trace_options import NO_SPANS, TraceOptions
from authgate_fast.server.unix_listening import UnixAddress

__all__ = ["UsageError", "environment"]

OK, WRONG_INPUT, USAGE, ENVIRONMENT = 0, 1, 2, 3

ACCESS_LOG_FORMATS = ("json", "combined")
MAX_WORKERS = 512
"""More is a slip of the finger, not a machine."""


@dataclass(slots=True)
class WorkerOptions:
    """How one worker runs. ``ops`` None: no ops listener.

    ``proxy_sources``: whose connections begin with a PROXY header, as networks; `UNIX` among them stands for peers on
    Unix sockets. ``access_log``: a file, "-" for standard output, or None.
    """

    listen: tuple[Address | UnixAddress, ...] = (Address("127.0.0.1", 8080),)
    ops: Address | None = field(default_factory=lambda: Address("127.0.0.1", 9321))
    limits: Limits = DEFAULTS
    drain_timeout_s: float = 30.0
    tls: TlsOptions | None = None
    proxy_sources: tuple[str, ...] = ()
    access_log: str | None = None
    access_log_format: str = "json"
    traces: TraceOptions = NO_SPANS


@dataclass(slots=True)
class RunOptions:
    """What `authgate run` was told; one of ``config`` and ``redis`` is set."""

    worker: WorkerOptions
    config: Path | None
    redis: str | None
    state_dir: Path | None
    secret_key_file: Path | None
    workers: int
    is_count_asked: bool
    drain_delay_s: float
    keeps_spare: bool = True


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of `authgate run`."""
    add_source(parser)
    add_serving(parser)
    parser.add_argument("--workers", default=environment("WORKERS"), metavar="N",
                        help="processes that serve (default: one for each core that may be used)")  # fmt: skip
    parser.add_argument("--spare", default=environment("SPARE") or "on", metavar="on|off",
                        help="keep a process ready that replaces a worker at once (default %(default)s)")  # fmt: skip
    parser.add_argument("--drain-delay", default=environment("DRAIN_DELAY") or "0", metavar="S",
                        help="seconds between SIGTERM, when /readyz begins to fail, and the end of "
                        "listening (default %(default)s)")  # fmt: skip
    parser.add_argument("--state-dir", type=Path, default=environment("STATE_DIR"), metavar="DIR",
                        help="keep the last good documents of Redis here, to start while Redis is away")  # fmt: skip
    parser.add_argument("--access-log", default=environment("ACCESS_LOG") or "off", metavar="FILE|-|off",
                        help="write a line for each request to this file, or to standard output (default "
                        "%(default)s); SIGUSR1 opens it anew")  # fmt: skip
    parser.add_argument("--access-log-format", default=environment("ACCESS_LOG_FORMAT") or "json",
                        metavar="json|combined", help="how such a line is written (default %(default)s)")  # fmt: skip
    add_secret_key(parser)
    entry_options.add_entry(parser)
    trace_options.add_traces(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add where the documents are."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="documents from this YAML or JSON file")
    where.add_argument(
        "--redis",
        metavar="URL",
        help="documents from Redis, for instance redis://127.0.0.1:6379/0, "
        "or redis+sentinel://HOST:26379,HOST:26379/MASTER_NAME/0",
    )


def add_secret_key(parser: argparse.ArgumentParser) -> None:
    """Add what encrypts signing keys."""
    parser.add_argument("--secret-key-file", type=Path, default=environment("SECRET_KEY_FILE"), metavar="FILE",
                        help="32 bytes in hex or base64 that encrypt the signing keys in Redis")  # fmt: skip


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add what the demo has too."""
    parser.add_argument("--listen", action="append", default=None, metavar="HOST:PORT",
                        help="where clients come in; repeatable; unix:PATH for a Unix socket; with certificates "
                        "TLS is spoken, except at http://HOST:PORT (default 127.0.0.1:8080)")  # fmt: skip
    parser.add_argument("--ops", default=environment("OPS") or "127.0.0.1:9321", metavar="HOST:PORT",
                        help="health and status, or 'off' (default %(default)s)")  # fmt: skip
    parser.add_argument("--drain-timeout", default=environment("DRAIN_TIMEOUT") or "30", metavar="S",
                        help="seconds that requests in flight get after SIGTERM (default %(default)s)")  # fmt: skip
    parser.add_argument("--limit", action="append", default=None, metavar="NAME=VALUE",
                        help="set one limit of the node; repeatable")  # fmt: skip


def source_of(options: argparse.Namespace) -> tuple[Path | None, str | None]:
    """Return (file, Redis URL): the options first, then the environment."""
    config, redis = options.config, options.redis
    if config is None and redis is None:
        from_environment = environment("CONFIG")
        config = Path(from_environment) if from_environment else None
        redis = environment("REDIS")
    if (config is None) == (redis is None):
        raise UsageError(
            "say where the documents are: --config FILE or --redis URL "
            "(or AUTHGATE_CONFIG or AUTHGATE_REDIS), one of the two. `authgate demo` needs neither."
        )
    return config, redis


def parse_run(arguments: list[str]) -> RunOptions:
    """Read the words behind `authgate run`. Raises UsageError, and SystemExit as argparse does."""
    parser = argparse.ArgumentParser(prog="authgate run")
    add_run(parser)
    return run_options(parser.parse_args(arguments))


def run_options(options: argparse.Namespace) -> RunOptions:
    """Read what `add_run` added. Raises UsageError."""
    worker = worker_options(options)
    worker.tls = entry_options.read_tls(options)
    worker.proxy_sources = entry_options.read_proxy_sources(options)
    if options.access_log_format not in ACCESS_LOG_FORMATS:
        raise UsageError(f"--access-log-format {options.access_log_format}: write json or combined")
    worker.access_log = None if options.access_log == "off" else options.access_log
    worker.access_log_format = options.access_log_format
    worker.traces = trace_options.read_traces(options)
    workers, is_count_asked = _worker_count(options.workers)
    config, redis = source_of(options)
    if options.spare not in {"on", "off"}:
        raise UsageError(f"--spare {options.spare}: write on or off")
    if options.state_dir is not None and redis is None:
        raise UsageError("--state-dir goes with --redis: a file needs no second copy")
    return RunOptions(
        worker=worker,
        config=config,
        redis=redis,
        state_dir=Path(options.state_dir) if options.state_dir is not None else None,
        secret_key_file=options.secret_key_file,
        workers=workers,
        is_count_asked=is_count_asked,
        drain_delay_s=seconds(options.drain_delay, "--drain-delay"),
        keeps_spare=options.spare == "on",
    )


def _worker_count(text: str | None) -> tuple[int, bool]:
    """Return how many workers to run, and whether that was asked for."""
    if text is None:
        return usable_cpus(), False
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_WORKERS):
        raise UsageError(f"--workers {text}: write a whole number from 1 to {MAX_WORKERS}")
    return int(text), True


def worker_options(options: argparse.Namespace) -> WorkerOptions:
    """Read what a worker needs. Raises UsageError."""
    settings = options.limit
    if settings is None:
        settings = (environment("LIMIT") or "").replace(",", " ").split()
    try:
        limits = with_settings(DEFAULTS, settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return WorkerOptions(
        listen=entry_options.read_listen(options),
        ops=None if options.ops == "off" else entry_options.read_address(options.ops, "--ops"),
        limits=limits,
        drain_timeout_s=seconds(options.drain_timeout, "--drain-timeout"),
    )


def seconds(text: str, option: str) -> float:
    """Read a number of seconds. Raises UsageError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise UsageError(f"{option} {text}: the value must be a number of seconds")
    return value


def read_secret_key(file: Path | None) -> bytes | None:
    """Read --secret-key-file. Raises UsageError."""
    if file is None:
        return None
    from authgate_fast.lookup.sealing import SealingKeyError, read_sealing_key  # cryptography loads slowly

    try:
        return read_sealing_key(file)
    except SealingKeyError as error:
        raise UsageError(f"--secret-key-file: {error}") from None


def say(text: str) -> None:
    """Tell the operator something that is not a line of the log."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def start_logging(worker: int | None = None) -> None:
    """Write the log to stderr, a line at a time: all processes of a node share it, and none tears another's line."""
    who = "" if worker is None else f"worker {worker} "
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"
    )
