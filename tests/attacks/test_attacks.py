"""Every case of this package: refused and closed, with nothing behind it read; or forwarded as one well-formed request.

A test is a topic with all of its cases, for a test each would cost more than the cases do; what fails is told by its
name. ``ATTACK='part of a name'`` in the environment runs some cases alone.
"""

from __future__ import annotations

import os

import pytest

from tests.attacks.cases import Cases
from tests.attacks.chunks import CHUNKS
from tests.attacks.fields import CONNECTION, CREDENTIALS, EXPECT, IDENTITY
from tests.attacks.framing import CODINGS, LENGTHS
from tests.attacks.hosts import HOSTS, TARGETS
from tests.attacks.lines import FIELDS, METHODS, START_LINES
from tests.attacks.paths import PATHS
from tests.attacks.protocols import PIPELINES, PROTOCOLS
from tests.attacks.runner import World, run

ENOUGH_FAILURES = 12
TOPICS: dict[str, Cases] = {
    "length": LENGTHS,
    "coding": CODINGS,
    "chunks": CHUNKS,
    "fields": FIELDS,
    "start line": START_LINES,
    "method": METHODS,
    "host": HOSTS,
    "target": TARGETS,
    "identity": IDENTITY,
    "credential": CREDENTIALS,
    "connection": CONNECTION,
    "expect": EXPECT,
    "path": PATHS,
    "protocol": PROTOCOLS,
    "pipeline": PIPELINES,
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("topic", TOPICS)
async def test_attacks_get_nothing_and_good_requests_go_through(attacked: World, topic: str) -> None:
    failures = {}
    for name, (data, expect) in TOPICS[topic].items():
        if os.environ.get("ATTACK", "") not in name:
            continue
        try:
            await run(attacked, data, expect)
        except AssertionError as error:
            failures[name] = str(error)[:300]
            if len(failures) == ENOUGH_FAILURES:
                break
    assert failures == {}


def test_there_are_cases_enough() -> None:
    """A slip of the pen in a table of cases must not leave it empty."""
    assert sum(map(len, TOPICS.values())) > 2_500
    assert min(map(len, TOPICS.values())) > 10
