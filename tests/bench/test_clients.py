"""The bench's own clients, each against the bench's own sink, without a proxy between."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cases import DOWNLOAD, ECHO, UPLOAD
from bench.client import quantile
from bench.drivers import start_sink
from bench.echoes import accept_of
from bench.load import Result, parse_result
from bench.paced import moments
from bench.processes import Children

_GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
_POST = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"


@pytest.fixture
def children(tmp_path) -> Iterator[Children]:
    with Children(tmp_path) as children:
        yield children


def _run(module: str, directory: Path, **task: object) -> Result:
    path = directory / "task.json"
    path.write_text(json.dumps({"connections": 2, "seconds": 0.2, **task}))
    done = subprocess.run(
        [sys.executable, "-m", module, path], capture_output=True, text=True, timeout=30, check=True
    )
    return parse_result(done.stdout)


def test_uploads_are_counted_in_bytes_that_the_sink_has_taken(children: Children, tmp_path) -> None:
    port = start_sink(children, UPLOAD, os.sched_getaffinity(0))
    result = _run("bench.streams", tmp_path, port=port, heads=[_POST], body_bytes=3_000_000)
    assert (result.refused, result.socket_errors) == (0, 0)
    assert result.mib == pytest.approx(result.requests * 3_000_000 / 2**20)
    assert result.requests >= 2


def test_an_upload_that_is_cut_is_an_error(children: Children, tmp_path) -> None:
    port = start_sink(children, UPLOAD, os.sched_getaffinity(0))
    result = _run("bench.streams", tmp_path, port=port, heads=["POST / HTTP/1.1\r\n\r\n"], body_bytes=30)
    assert result.socket_errors == 2


def test_messages_come_back_and_are_counted(children: Children, tmp_path) -> None:
    port = start_sink(children, ECHO, os.sched_getaffinity(0))
    result = _run("bench.echoes", tmp_path, port=port, heads=[_GET])
    assert (result.refused, result.socket_errors) == (0, 0)
    assert result.requests > 20


def test_a_paced_load_keeps_its_rate_and_counts_latencies(children: Children, tmp_path) -> None:
    port = start_sink(children, UPLOAD, os.sched_getaffinity(0))
    result = _run("bench.paced", tmp_path, port=port, heads=[_GET], per_s=500.0, seconds=0.4)
    assert (result.refused, result.socket_errors) == (0, 0)
    assert result.requests == len(moments(500.0, 0.4, random.Random(1)))
    assert 0 < result.p50_ms <= result.p99_ms


def test_downloads_need_no_sink(children: Children) -> None:
    assert start_sink(children, DOWNLOAD, set()) == 0


def test_moments_have_the_rate_that_was_asked_for() -> None:
    due = moments(1_000.0, 10.0, random.Random(4))
    assert 9_500 < len(due) < 10_500
    assert due == sorted(due)
    assert due[-1] < 10.0


def test_the_accept_of_a_key_is_the_one_of_rfc_6455() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile(list(range(100)), 0.99) == 99
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
