"""The access log's thread: whole lines, in order, none lost without being counted."""

from __future__ import annotations

import asyncio
import json
import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from authgate_fast.observe import access_log
from authgate_fast.observe.access_log import BATCH_BYTES, FLUSH_S, AccessLog, AccessLogError
from authgate_fast.proxy.access_line import Entry

BOUND_S = 10.0


def entry(number: int, agent: bytes = b"") -> Entry:
    made = Entry(b"%d" % number, "192.0.2.1", 200, b"complete")
    made.agent = agent
    return made


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not done():  # noqa: ASYNC110  # a file tells nobody that it has grown
            await asyncio.sleep(0.01)


def numbers(text: str) -> list[int]:
    return [int(json.loads(line)["request_id"]) for line in text.splitlines()]


async def test_lines_come_out_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), "json", asyncio.get_running_loop())
    for number in range(1_000):
        log.take(entry(number))
    log.close()
    assert numbers(path.read_text()) == list(range(1_000))
    assert (log.lines, log.dropped_lines, log.waiting_bytes) == (1_000, 0, 0)


async def test_a_single_line_does_not_wait_for_others(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), "json", asyncio.get_running_loop())
    log.take(entry(1))
    async with asyncio.timeout(FLUSH_S + BOUND_S):
        await until(lambda: path.read_text() != "")
    log.close()


async def test_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLog(str(path), "combined", asyncio.get_running_loop())
    log.take(entry(1))
    log.close()
    assert path.read_text().startswith("before\n192.0.2.1 - - ")


async def test_after_a_rotation_the_old_file_has_what_came_before_and_the_new_one_the_rest(
    tmp_path: Path,
) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path), "json", asyncio.get_running_loop())
    log.take(entry(1))
    path.rename(old)
    log.reopen()
    log.take(entry(2))
    log.close()
    assert (numbers(old.read_text()), numbers(path.read_text())) == ([1], [2])


async def test_a_file_that_cannot_be_opened_anew_leaves_the_old_one_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AccessLog(str(folder / "access.log"), "json", asyncio.get_running_loop())
    moved = tmp_path / "moved"
    folder.rename(moved)
    log.reopen()
    log.take(entry(7))
    log.close()
    assert numbers((moved / "access.log").read_text()) == [7]
    assert "Still writing to the old file" in caplog.text


async def test_a_slow_reader_costs_lines_not_memory_and_each_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "MAX_WAITING_BYTES", 300_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path), "json", asyncio.get_running_loop())
    for number in range(6_400):
        log.take(entry(number))
        assert log.waiting_bytes < 300_000 + 2 * BATCH_BYTES
    assert log.dropped_lines > 1_000
    assert caplog.text.count("lines are dropped") == 1
    text = bytearray()

    def all_there() -> bool:
        try:
            text.extend(os.read(reader, 65_536))
        except BlockingIOError:
            pass
        return text.count(b"\n") + log.dropped_lines == 6_400 and log.waiting_bytes == 0

    await until(all_there)
    found = numbers(text.decode())
    assert found == sorted(found)
    log.close()
    os.close(reader)


async def test_a_full_disk_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full", "json", asyncio.get_running_loop())
    for number in range(200):
        log.take(entry(number))
    log.close()
    assert (log.lines, log.dropped_lines) == (0, 200)
    assert caplog.text.count("No space left on device") == 1


async def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AccessLogError, match=r"missing/access\.log cannot be written: No such file"):
        AccessLog(str(tmp_path / "missing" / "access.log"), "json", asyncio.get_running_loop())


async def test_after_a_rotation_a_pipe_is_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), "json", asyncio.get_running_loop())
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sizes: list[int] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    log.reopen()
    for number in range(100):
        log.take(entry(number))
    log.close()
    os.close(reader)
    assert sum(sizes) > select.PIPE_BUF >= max(sizes)


async def test_writes_to_a_pipe_are_whole_lines_of_an_atomic_size() -> None:
    data = b"".join(b"x" * size + b"\n" for size in (10, 4_000, 200, 5_000, 4_095, 1, 1))
    pieces = list(access_log._pieces(data, 4_096))
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= 4_096 or piece.count(b"\n") == 1 for piece in pieces)
    assert max(piece.count(b"\n") for piece in pieces) > 1
