"""The bench of first logins: its documents are valid, and its sums are right."""

from __future__ import annotations

import json
import os
from pathlib import Path

from authgate_fast.config.check import check_file
from authgate_fast.config.file import load_file
from bench.logins import Cores, _documents, p99


def test_its_documents_are_valid_and_hold_as_many_users_as_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "documents.json"
    file.write_text(json.dumps(_documents("agk_test", 1, 20)))
    assert check_file(file) == []
    names = [key.gateway for key in load_file(file).documents if key.kind == "consumer"]
    assert (names.count("keys"), names.count("users")) == (1, 20)


def test_the_99th_percentile_is_a_measured_value() -> None:
    assert p99([3.0]) == 3.0
    assert p99([float(n) for n in range(1_000)]) == 990.0
    assert p99([1.0] * 99 + [50.0]) == 50.0


def test_what_others_had_of_a_core_is_a_share() -> None:
    cores = Cores(os.getpid(), {min(os.sched_getaffinity(0))})
    assert 0 <= cores.foreign() <= 1
