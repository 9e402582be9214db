"""A real headless Chromium for tests, driven by its DevTools protocol over a pipe: no driver, no port, no library.

The binary is AUTHGATE_TEST_CHROMIUM, or the one on PATH. Every message that it sends is kept in ``heard``: requests and
responses with all their fields, as the browser has seen them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

BOUND_S = 20.0
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-crash-reporter", "--disable-breakpad", "--no-proxy-server", "--mute-audio",
    "--disable-features=Translate,OptimizationHints,MediaRouter", "--remote-debugging-pipe",
)  # fmt: skip

# The browser reads from descriptor 3 and writes to 4.
_START = """
import os, sys
os.dup2(os.dup(int(sys.argv[1])), 13), os.dup2(os.dup(int(sys.argv[2])), 14)
os.dup2(13, 3), os.dup2(14, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_binary() -> str:
    """Return the path of a Chromium."""
    chosen = os.environ.get("AUTHGATE_TEST_CHROMIUM")
    found = chosen or next((path for name in _NAMES if (path := shutil.which(name))), None)
    assert found, "no Chromium: install Debian's chromium, or set AUTHGATE_TEST_CHROMIUM to the path of one"
    return found


class PageError(Exception):
    """The protocol or the page's script answered with an error."""


class Chromium:
    """One browser with one page."""

    def __init__(self, reader: asyncio.StreamReader, to_browser: int) -> None:
        self.heard: list[str] = []
        self._reader = reader
        self._to_browser = to_browser
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._last_id = 0
        self._session = ""

    async def listen(self) -> None:
        while True:
            text = (await self._reader.readuntil(b"\0"))[:-1].decode()
            self.heard.append(text)
            message = json.loads(text)
            future = self._waiting.pop(message.get("id", 0), None)
            if future is not None and not future.done():
                future.set_result(message)
            if message.get("method") == "Page.loadEventFired":
                self._loaded.set()

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = future
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        answer = await asyncio.wait_for(future, BOUND_S)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return answer["result"]

    async def open_page(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            await self.call(f"{domain}.enable")

    async def go(self, url: str) -> None:
        """Go to a page, as typing its address does, and wait until it is there with all its parts."""
        self._loaded.clear()
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        await asyncio.wait_for(self._loaded.wait(), BOUND_S)

    async def run(self, script: str) -> Any:
        """Run a script in the page and return what it comes to; a promise is waited for."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Run a script again and again until what it comes to is true; pages may change meanwhile."""
        async with asyncio.timeout(BOUND_S):
            while True:
                with contextlib.suppress(PageError):
                    if found := await self.run(script):
                        return found
                await asyncio.sleep(0.02)

    async def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies of the browser, those that no script can see too."""
        found: list[dict[str, Any]] = (await self.call("Network.getAllCookies"))["cookies"]
        return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    """Run a browser with an empty profile for the length of a block."""
    to_it, from_it = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="authgate-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-ISc", _START, str(to_it[0]), str(from_it[1]), find_binary(), *_FLAGS, f"--user-data-dir={profile}",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(to_it[0], from_it[1]), start_new_session=True, env=os.environ | {"HOME": profile},
        )  # fmt: skip
        os.close(to_it[0])
        os.close(from_it[1])
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_it[0], "rb", 0)
        )
        browser = Chromium(reader, to_it[1])
        listening = asyncio.create_task(browser.listen())
        try:
            await browser.open_page()
            yield browser
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            os.killpg(process.pid, signal.SIGKILL)  # with all its children
            await asyncio.wait_for(process.wait(), BOUND_S)
            transport.close()
            os.close(to_it[1])
