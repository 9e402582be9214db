"""The `authgate` command. Exit codes: 0, 1 (the input is wrong), 2 (usage), 3 (the environment is)."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from authgate_fast import __version__, is_compiled, management
from authgate_fast.auth.api_key import new_key
from authgate_fast.config.check import check_file
from authgate_fast.config.file import load_file
from authgate_fast.config.shadows import shadows
from authgate_fast.config.store import Configuration
from authgate_fast.explain import ExplainError, explain
from authgate_fast.limits import DEFAULTS, Limits, with_settings
from authgate_fast.server.file_source import FileSource
from authgate_fast.server.worker import Address, ListenError, Source, Worker, WorkerOptions

if TYPE_CHECKING:
    from authgate_fast.lookup.store import StateStore

OK, WRONG_INPUT, USAGE, ENVIRONMENT = 0, 1, 2, 3


class UsageError(Exception):
    """An option's value is wrong; the text says how to write it."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        code: int = options.handler(options)
    except UsageError as error:
        print(f"authgate: {error}", file=sys.stderr)
        return USAGE
    except ListenError as error:
        print(f"authgate: {error}", file=sys.stderr)
        return ENVIRONMENT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130
    return code


def _environment(name: str) -> str | None:
    return os.environ.get(f"AUTHGATE_{name}") or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="authgate", description="An API gateway: host -> route -> security check -> backend."
    )
    build = "compiled" if is_compiled() else "pure Python"
    parser.add_argument("--version", action="version", version=f"authgate {__version__} ({build})")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="serve the documents of a file or of Redis")
    _add_source(run)
    _add_serving(run)
    run.add_argument("--state-dir", type=Path, default=_environment("STATE_DIR"), metavar="DIR",
                     help="keep the last good documents of Redis here, to start while Redis is away")  # fmt: skip
    _add_secret_key(run)
    run.set_defaults(handler=_run)

    demo = commands.add_parser("demo", help="a gateway, a backend and a consumer, to try")
    _add_serving(demo)
    demo.set_defaults(handler=_demo)

    check = commands.add_parser("check", help="validate a file of documents")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(handler=_check)

    ask = commands.add_parser("explain", help="which route, which check, which backend, and why")
    ask.add_argument("method", metavar="METHOD")
    ask.add_argument("url", metavar="URL")
    ask.add_argument("-H", dest="fields", action="append", default=[], metavar="'Name: value'")
    _add_source(ask)
    _add_secret_key(ask)
    ask.set_defaults(handler=_explain)

    management.register(commands)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="documents from this YAML or JSON file")
    where.add_argument(
        "--redis", metavar="URL", help="documents from Redis, for instance redis://127.0.0.1:6379/0"
    )


def _add_secret_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret-key-file", type=Path, default=_environment("SECRET_KEY_FILE"), metavar="FILE",
                        help="32 bytes in hex or base64 that encrypt the signing keys in Redis")  # fmt: skip


def _sealing_key(options: argparse.Namespace) -> bytes | None:
    if options.secret_key_file is None:
        return None
    from authgate_fast.lookup.sealing import SealingKeyError, read_sealing_key

    try:
        return read_sealing_key(options.secret_key_file)
    except SealingKeyError as error:
        raise UsageError(f"--secret-key-file: {error}") from None


def _add_serving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default=_environment("LISTEN") or "127.0.0.1:8080", metavar="HOST:PORT",
                        help="where clients come in (default %(default)s)")  # fmt: skip
    parser.add_argument("--ops", default=_environment("OPS") or "127.0.0.1:9321", metavar="HOST:PORT",
                        help="health and status, or 'off' (default %(default)s)")  # fmt: skip
    parser.add_argument("--workers", default=_environment("WORKERS") or "1", metavar="N",
                        help="this version runs one worker")  # fmt: skip
    parser.add_argument("--drain-timeout", default=_environment("DRAIN_TIMEOUT") or "30", metavar="S",
                        help="seconds that requests in flight get after SIGTERM (default %(default)s)")  # fmt: skip
    parser.add_argument("--limit", action="append", default=None, metavar="NAME=VALUE",
                        help="set one limit of the node; repeatable")  # fmt: skip


def _source_of(options: argparse.Namespace) -> tuple[Path | None, str | None]:
    """Return (file, Redis URL): the options first, then the environment."""
    config, redis = options.config, options.redis
    if config is None and redis is None:
        from_environment = _environment("CONFIG")
        config = Path(from_environment) if from_environment else None
        redis = _environment("REDIS")
    if (config is None) == (redis is None):
        raise UsageError(
            "say where the documents are: --config FILE or --redis URL "
            "(or AUTHGATE_CONFIG or AUTHGATE_REDIS), one of the two. `authgate demo` needs neither."
        )
    return config, redis


def _address(text: str, option: str) -> Address:
    host, colon, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    port = int(port_text) if port_text.isascii() and port_text.isdecimal() else -1
    if not colon or not host or not 0 <= port <= 65_535:
        raise UsageError(f"{option} {text}: write it as HOST:PORT, for instance 127.0.0.1:8080")
    return Address(host, port)


def _seconds(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise UsageError(f"{option} {text}: the value must be a number of seconds")
    return value


def _worker_options(options: argparse.Namespace) -> WorkerOptions:
    settings = options.limit
    if settings is None:
        settings = (_environment("LIMIT") or "").replace(",", " ").split()
    try:
        limits = with_settings(DEFAULTS, settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if options.workers != "1":
        raise UsageError(f"--workers {options.workers}: this version runs one worker; leave it out or say 1")
    return WorkerOptions(
        listen=_address(options.listen, "--listen"),
        ops=None if options.ops == "off" else _address(options.ops, "--ops"),
        limits=limits,
        drain_timeout_s=_seconds(options.drain_timeout, "--drain-timeout"),
    )


def _start_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _run(options: argparse.Namespace) -> int:
    worker_options = _worker_options(options)
    config, redis = _source_of(options)
    if options.state_dir is not None and redis is None:
        raise UsageError("--state-dir goes with --redis: a file needs no second copy")
    sealing_key = _sealing_key(options)
    _start_logging()
    configuration = Configuration(worker_options.limits)
    if config is not None:
        file_source = FileSource(config, configuration)
        problems = file_source.load()
        if problems:
            return _show(problems, config)
        return uvloop.run(_serve(configuration, file_source, worker_options))
    return _run_from_redis(str(redis), options.state_dir, configuration, worker_options, sealing_key)


def _run_from_redis(
    url: str,
    state_dir: Path | None,
    configuration: Configuration,
    options: WorkerOptions,
    sealing_key: bytes | None,
) -> int:
    from authgate_fast.config.redis_source import RedisSource, RedisUrlError  # redis loads slowly
    from authgate_fast.config.state_dir import StateDir, StateDirError
    from authgate_fast.lookup.redis_store import RedisStateStore

    try:
        state = StateDir(Path(state_dir)) if state_dir is not None else None
        source = RedisSource(url, configuration, state)
        store = RedisStateStore(url)
    except RedisUrlError as error:
        raise UsageError(f"--redis: {error}") from None
    except StateDirError as error:
        print(f"authgate: {error}", file=sys.stderr)
        return ENVIRONMENT
    return uvloop.run(_serve(configuration, source, options, store, sealing_key))


async def _serve(
    configuration: Configuration,
    source: Source | None,
    options: WorkerOptions,
    store: StateStore | None = None,
    sealing_key: bytes | None = None,
) -> int:
    worker = Worker(configuration, source, options, store, sealing_key)
    await worker.start()
    log = logging.getLogger("authgate")
    ops = f", ops on {Address(options.ops.host, worker.ops_port)}" if options.ops is not None else ""
    log.info("authgate %s listens on %s%s", __version__, Address(options.listen.host, worker.port), ops)
    await worker.serve_until_signal()
    log.info("stopped")
    return OK


def _demo(options: argparse.Namespace) -> int:
    worker_options = _worker_options(options)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    return uvloop.run(_serve_demo(worker_options))


async def _serve_demo(options: WorkerOptions) -> int:
    from authgate_fast.demo import banner, demo_documents  # only the demo needs them
    from authgate_fast.demo.backend import start_backend

    backend = await start_backend()
    try:
        key = new_key()
        configuration = Configuration(options.limits)
        configuration.replace_all(demo_documents(backend.port, key))
        worker = Worker(configuration, None, options)
        await worker.start()
        print(banner(str(Address(options.listen.host, worker.port)), key), flush=True)
        await worker.serve_until_signal()
    finally:
        await backend.close()
    print("stopped", flush=True)
    return OK


def _show(problems: list[management.Problem], file: Path) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    mistakes = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    print(f"{file}: {mistakes}", file=sys.stderr)
    return WRONG_INPUT


def _check(options: argparse.Namespace) -> int:
    problems = check_file(options.file)
    if problems:
        return _show(problems, options.file)
    documents = load_file(options.file).documents
    configuration = Configuration(Limits())
    configuration.replace_all(documents)
    for sentence in shadows(configuration.snapshot):
        print(f"note: {sentence}", file=sys.stderr)
    kinds = [key.kind for key in documents]
    counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("gateway", "service", "route", "consumer"))
    print(f"{options.file}: good ({counts})")
    return OK


def _explain(options: argparse.Namespace) -> int:
    config, redis = _source_of(options)
    from authgate_fast.lookup.memory_store import MemoryStore  # what is looked up is not on every path
    from authgate_fast.lookup.resolver import Resolver

    configuration = Configuration(Limits())
    store: StateStore = MemoryStore()
    if config is not None:
        problems = check_file(config)
        if problems:
            return _show(problems, config)
        configuration.replace_all(load_file(config).documents)
    else:
        documents = management.read_documents(str(redis))
        if documents is None:
            return ENVIRONMENT
        configuration.replace_all(documents)
        from authgate_fast.lookup.redis_store import RedisStateStore

        store = RedisStateStore(str(redis))
    try:
        forwarded, text = explain(
            configuration.snapshot,
            options.method,
            options.url,
            options.fields,
            Resolver(store, _sealing_key(options)),
        )
    except ExplainError as error:
        raise UsageError(str(error)) from None
    print(text)
    return OK if forwarded else WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
