from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from authgate_fast.auth.api_key import key_digest, new_key
from authgate_fast.config.check import check_file
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.demo import DEMO_FILE, banner, demo_documents
from tests.plain_client import ask

CONFIG = Path(__file__).parents[2] / "config"


def test_the_demo_file_to_copy_is_the_one_that_the_demo_serves() -> None:
    assert (CONFIG / "demo.yaml").read_bytes() == DEMO_FILE.read_bytes()


@pytest.mark.parametrize("name", ["demo.yaml", "production.example.yaml"])
def test_every_example_passes_the_check(name: str) -> None:
    assert [str(problem) for problem in check_file(CONFIG / name)] == []


def test_the_documents_point_to_this_backend_and_know_this_key() -> None:
    key = new_key()
    documents = demo_documents(4711, key)
    service = json.loads(documents[DocumentKey("service", "shop-api", "catalog-api")])
    consumer = json.loads(documents[DocumentKey("consumer", "shop-api", "mobile-app")])
    assert service["target_url"] == "http://127.0.0.1:4711"
    assert consumer["api_key_sha256"] == key_digest(key)
    assert key not in b"".join(documents.values()).decode()


def test_the_documents_compile_without_a_refusal() -> None:
    configuration = Configuration()
    configuration.replace_all(demo_documents(4711, new_key()))
    assert configuration.refused == {}
    gateway = configuration.snapshot.gateways["shop-api"]
    assert configuration.snapshot.default is gateway
    assert configuration.snapshot.exact[b"shop-api.localhost"] is gateway
    assert len(gateway.consumers.keys.holders) == 1


def test_the_key_of_the_file_to_copy_opens_nothing() -> None:
    document = DEMO_FILE.read_text(encoding="utf-8")
    assert re.findall(r'api_key_sha256: "(\w+)"', document) == ["0" * 64]


def test_the_banner_has_the_three_lines_to_paste() -> None:
    lines = [line.strip() for line in banner("127.0.0.1:8080", "agk_x").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("curl")]
    assert commands[:3] == [
        ["curl", "-i", "http://127.0.0.1:8080/api/products/1"],
        ["curl", "-i", "http://127.0.0.1:8080/api/private-data"],
        ["curl", "-i", "-H", "X-Api-Key: agk_x", "http://127.0.0.1:8080/api/private-data"],
    ]


async def test_the_catalog_runs_on_its_own_until_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authgate_fast.demo", "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        match = re.search(rb"127\.0\.0\.1:([0-9]+)\.", line)
        assert match is not None, line
        assert (await ask(int(match[1]), "/products/1")).status == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
