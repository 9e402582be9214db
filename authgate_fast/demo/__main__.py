"""The demo's catalog on its own, for a gateway that runs elsewhere: ``python -m authgate_fast.demo``."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys

from authgate_fast.demo.backend import start_backend

_LISTEN = re.compile(r"(.+):([0-9]{1,5})")


async def _serve(host: str, port: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    backend = await start_backend(host, port)
    print(f"The demo catalog listens on {host}:{backend.port}. Ctrl-C ends it.", flush=True)
    await ended.wait()
    await backend.close()


def main() -> int:
    """Run until a signal; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m authgate_fast.demo", description=__doc__)
    parser.add_argument(
        "--listen", default="127.0.0.1:9000", metavar="HOST:PORT", help="default: %(default)s"
    )
    listen = parser.parse_args().listen
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match[2]) > 65_535:
        parser.error(f"--listen {listen}: write it as HOST:PORT, for instance 127.0.0.1:9000")
    try:
        asyncio.run(_serve(match[1], int(match[2])))
    except OSError as error:
        print(f"Cannot listen on {listen}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
