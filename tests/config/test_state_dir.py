"""The state directory: the last good documents survive, damaged ones are never served, and one node owns it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.state_dir import FILE_NAME, StateDir, StateDirError
from authgate_fast.config.texts import Texts
from tests.config.redis_kit import eventually

SHOP = DocumentKey("gateway", "shop", "shop")
APP = DocumentKey("consumer", "shop", "app")
DOCUMENTS = {
    SHOP: b'{ "hosts":["shop.test"],\n\t"auth": {"type": "API_KEY"} }',
    APP: '{"description": "caf\u00e9 \\u00e9 \\"quoted\\" \U0001f511"}'.encode(),
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    state = StateDir(tmp_path / "a" / "state", debounce_s=0.01)
    yield state
    state.close()


def texts_of(documents: dict[DocumentKey, bytes]) -> Texts:
    texts = Texts()
    texts.update(documents)
    return texts


@contextlib.asynccontextmanager
async def saving(state: StateDir, documents: Texts) -> AsyncIterator[None]:
    task = asyncio.create_task(state.run(documents))
    await asyncio.sleep(0)  # a task that is cancelled before its first step never runs at all
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def save(state: StateDir, documents: dict[DocumentKey, bytes]) -> None:
    async with saving(state, texts_of(documents)):
        state.note_change()


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1_700])
async def test_documents_come_back_byte_for_byte(state: StateDir, count: int) -> None:
    documents = {DocumentKey("consumer", "shop", f"c{n}"): b'{"description": "%d"}' % n for n in range(count)}
    documents |= DOCUMENTS
    await save(state, documents)
    assert state.load() == documents
    json.loads((state.path / FILE_NAME).read_text("utf-8"))


def test_a_first_start_has_no_documents(state: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    assert state.load() == {}
    assert not caplog.records


async def test_only_its_owner_may_read_it(state: StateDir) -> None:
    await save(state, DOCUMENTS)
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((state.path / FILE_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"format": 2, "documents": {}}',
        b'{"format": 1}',
        b'{"format": 1, "documents": []}',
        b'{"format": 1, "documents": {"authgate:gateway:shop": {}}}',
        b'{"format": 1, "documents": {"authgate:state:x": "{}"}}',
    ],
)
def test_a_damaged_file_is_reported_and_ignored(
    state: StateDir, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (state.path / FILE_NAME).write_bytes(content)
    assert state.load() == {}
    assert "ignored" in caplog.text


async def test_a_file_cut_short_anywhere_is_ignored(
    state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    await save(state, DOCUMENTS)
    whole = (state.path / FILE_NAME).read_bytes().rstrip()
    for size in range(len(whole)):
        (state.path / FILE_NAME).write_bytes(whole[:size])
        assert state.load() == {}


def test_a_second_node_is_kept_out(state: StateDir) -> None:
    with pytest.raises(StateDirError, match="in use by another"):
        StateDir(state.path)
    state.close()
    StateDir(state.path).close()


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirError, match="cannot be used"):
        StateDir(tmp_path / "file" / "state")


async def test_changes_are_written_while_it_runs_and_the_last_one_when_it_ends(state: StateDir) -> None:
    documents = texts_of(DOCUMENTS)
    async with saving(state, documents):
        state.note_change()
        await eventually(lambda: state.load() == DOCUMENTS)
        del documents[APP]
        state.note_change()
    assert state.load() == {SHOP: DOCUMENTS[SHOP]}


async def test_many_changes_become_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateDir(tmp_path, debounce_s=0.05)
    real, writes = state._write, []
    monkeypatch.setattr(state, "_write", lambda *write: writes.append(1) or real(*write))
    async with saving(state, texts_of(DOCUMENTS)):
        for _ in range(50):
            state.note_change()
            await asyncio.sleep(0.001)
        await eventually(lambda: state.load() == DOCUMENTS)
    assert len(writes) <= 3
    state.close()


async def test_a_run_that_ends_in_a_change_leaves_nothing_for_the_next_one_to_write(state: StateDir) -> None:
    async with saving(state, texts_of(DOCUMENTS)):
        await asyncio.sleep(0)
        state.note_change()
    async with saving(state, texts_of({})):  # it has not read them yet
        await asyncio.sleep(0.1)
    assert state.load() == DOCUMENTS


def test_a_thread_that_comes_late_does_not_bring_older_documents_back(state: StateDir) -> None:
    newer, older = (
        b'{"format":1,"documents":{"authgate:gateway:%b":"{}"}}' % name for name in (b"newer", b"older")
    )
    assert state._write([newer], 2)
    assert state._write([older], 1)
    assert [key.name for key in state.load()] == ["newer"]


async def test_nothing_is_written_without_a_change(state: StateDir) -> None:
    async with saving(state, texts_of(DOCUMENTS)):
        await asyncio.sleep(0)
    assert not (state.path / FILE_NAME).exists()


async def test_a_write_that_fails_is_said_once_and_tried_again(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("authgate_fast.config.state_dir.RETRY_S", 0.01)
    attempts = []
    real = state._write
    monkeypatch.setattr(state, "_write", lambda *write: attempts.append(1) or real(*write))
    (state.path / FILE_NAME).mkdir()  # as a full or broken disk does: the rename fails
    async with saving(state, texts_of(DOCUMENTS)):
        state.note_change()
        await eventually(lambda: len(attempts) > 2)
        assert len([record for record in caplog.records if "cannot be saved" in record.getMessage()]) == 1
        (state.path / FILE_NAME).rmdir()
        await eventually(lambda: state.load() == DOCUMENTS)


async def test_a_write_that_breaks_off_leaves_the_old_file(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(state, DOCUMENTS)

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    await save(state, {})
    assert state.load() == DOCUMENTS
