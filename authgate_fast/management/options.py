"""What the management commands share: their options, and how a failure becomes a line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authgate_fast.config.redis_store import RedisStore

OK, WRONG_INPUT, USAGE, ENVIRONMENT = 0, 1, 2, 3

Subparsers = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns
Handler = Callable[[argparse.Namespace], int]

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class InputError(Exception):
    """What was asked for cannot be done as it was asked; the text, of one or more lines, says why."""


def say(text: str) -> None:
    """Tell the user something that is not the command's output."""
    print(text, file=sys.stderr)


def add_redis(parser: argparse.ArgumentParser) -> None:
    value = environment("redis")
    parser.add_argument(
        "--redis",
        metavar="URL",
        default=value,
        required=value is None,
        help="where the documents are: redis://[:PASSWORD@]HOST:PORT/0, rediss://..., unix:///PATH or "
        "redis+sentinel://HOST:26379,HOST:26379/MASTER_NAME/0 "
        "(or AUTHGATE_REDIS)",
    )


def add_value(parser: argparse.ArgumentParser, name: str, default: str | None = None, **how: Any) -> None:
    """Add an option with a value, which AUTHGATE_<NAME> gives too."""
    parser.add_argument(f"--{name}", default=environment(name) or default, **how)


def add_flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add a switch, which AUTHGATE_<NAME>=1 sets too."""
    value = (environment(name) or "").casefold()
    if value not in _TRUE + _FALSE:
        parser.set_defaults(wrong_environment=f"{_variable(name)}={value}: write 1 or 0")
    parser.add_argument(f"--{name}", action="store_true", default=value in _TRUE, help=text)


def environment(name: str) -> str | None:
    return os.environ.get(_variable(name)) or None


def _variable(name: str) -> str:
    return "AUTHGATE_" + name.upper().replace("-", "_")


def with_store(action: Callable[[argparse.Namespace, RedisStore], int]) -> Handler:
    """Make a handler of an action that works on the Redis named by the options."""

    def handler(options: argparse.Namespace) -> int:
        # Loading redis takes longer than most commands run.
        from authgate_fast.config.redis_link import RedisUrlError
        from authgate_fast.config.redis_store import ChangedError, RedisStore, StoreError

        wrong = getattr(options, "wrong_environment", None)
        if wrong:
            say(f"authgate: {wrong}")
            return USAGE
        try:
            with RedisStore(options.redis) as store:
                return action(options, store)
        except RedisUrlError as error:
            say(f"authgate: --redis: {error}")
            return USAGE
        except InputError as error:
            say(f"authgate: {error}")
            return WRONG_INPUT
        except ChangedError as error:
            say(f"authgate: {error} was changed by somebody else meanwhile; nothing was written, try again")
            return WRONG_INPUT
        except StoreError as error:
            say(f"authgate: {error}")
            return ENVIRONMENT

    return handler
