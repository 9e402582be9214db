"""The `authgate` command. Exit codes: 0, 1 (the input is wrong), 2 (usage), 3 (the environment is)."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from authgate_fast import __version__, is_compiled
from authgate_fast.limits import Limits
from authgate_fast.server.listening import Address, ListenError
from authgate_fast.server.options import (
    ENVIRONMENT,
    OK,
    USAGE,
    WRONG_INPUT,
    UsageError,
    add_run,
    add_secret_key,
    add_serving,
    add_source,
    read_secret_key,
    run_options,
    source_of,
    start_logging,
    worker_options,
)

if TYPE_CHECKING:
    from authgate_fast.config.problems import Problem
    from authgate_fast.lookup.store import StateStore
    from authgate_fast.server.worker import WorkerOptions


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    # What serves does not manage: `run` starts without the libraries that the other commands need.
    parser = _parser(with_management=words[:1] != ["run"])
    options = parser.parse_args(words)
    options.arguments = words[1:]
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


def _parser(*, with_management: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="authgate", description="An API gateway: host -> route -> security check -> backend."
    )
    build = "compiled" if is_compiled() else "pure Python"
    parser.add_argument("--version", action="version", version=f"authgate {__version__} ({build})")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="serve the documents of a file or of Redis")
    add_run(run)
    run.set_defaults(handler=_run)

    demo = commands.add_parser("demo", help="a gateway, a backend and a consumer, to try")
    add_serving(demo)
    demo.set_defaults(handler=_demo)

    check = commands.add_parser("check", help="validate a file of documents")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(handler=_check)

    ask = commands.add_parser("explain", help="which route, which check, which backend, and why")
    ask.add_argument("method", metavar="METHOD")
    ask.add_argument("url", metavar="URL")
    ask.add_argument("-H", dest="fields", action="append", default=[], metavar="'Name: value'")
    add_source(ask)
    add_secret_key(ask)
    ask.set_defaults(handler=_explain)

    if with_management:
        from authgate_fast import management

        management.register(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    from authgate_fast.server.node import run_node

    run = run_options(options)
    start_logging()
    return run_node(run, options.arguments)


def _demo(options: argparse.Namespace) -> int:
    import uvloop

    served = worker_options(options)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    return uvloop.run(_serve_demo(served))


async def _serve_demo(options: WorkerOptions) -> int:
    from authgate_fast.auth.api_key import new_key
    from authgate_fast.config.store import Configuration
    from authgate_fast.demo import banner, demo_documents
    from authgate_fast.demo.backend import start_backend
    from authgate_fast.server.worker import Worker

    backend = await start_backend()
    try:
        key = new_key()
        configuration = Configuration(options.limits)
        configuration.replace_all(demo_documents(backend.port, key))
        worker = Worker(configuration, None, options)
        await worker.start()
        await worker.listen()
        host = next((one.host for one in options.listen if isinstance(one, Address)), "127.0.0.1")
        print(banner(str(Address(host, worker.port)), key), flush=True)
        await worker.serve_until_signal()
    finally:
        await backend.close()
    print("stopped", flush=True)
    return OK


def _show(problems: list[Problem], file: Path) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    mistakes = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    print(f"{file}: {mistakes}", file=sys.stderr)
    return WRONG_INPUT


def _check(options: argparse.Namespace) -> int:
    from authgate_fast.config.check import check_file
    from authgate_fast.config.file import load_file
    from authgate_fast.config.shadows import shadows
    from authgate_fast.config.store import Configuration
    from authgate_fast.config.unverified import unverified

    problems = check_file(options.file)
    if problems:
        return _show(problems, options.file)
    documents = load_file(options.file).documents
    configuration = Configuration(Limits())
    configuration.replace_all(documents)
    for sentence in (*shadows(configuration.snapshot), *unverified(configuration.snapshot)):
        print(f"note: {sentence}", file=sys.stderr)
    kinds = [key.kind for key in documents]
    counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("gateway", "service", "route", "consumer"))
    print(f"{options.file}: good ({counts})")
    return OK


def _explain(options: argparse.Namespace) -> int:
    config, redis = source_of(options)
    from authgate_fast import management
    from authgate_fast.config.check import check_file
    from authgate_fast.config.file import load_file
    from authgate_fast.config.store import Configuration
    from authgate_fast.explain import ExplainError, explain
    from authgate_fast.lookup.memory_store import MemoryStore
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
            Resolver(store, read_secret_key(options.secret_key_file)),
        )
    except ExplainError as error:
        raise UsageError(str(error)) from None
    print(text)
    return OK if forwarded else WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
