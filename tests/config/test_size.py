"""The size that one worker must take: 100,000 consumers and 10,000 routes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MAX_CPU_S = 30.0
"""What loading costs is for `bench` to say; this only catches work that grows faster than the documents do."""
MAX_GROWTH_MIB = 250.0

# In a process of its own, so that nothing else counts as its memory.
PROGRAM = """
import hashlib, json, time
from authgate_fast.config.keys import parse_redis_key
from authgate_fast.config.store import Configuration

def resident_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20

before = resident_mib()
texts = {"authgate:gateway:g": {"hosts": ["*"], "auth": {"type": "API_KEY"}}}
for n in range(20):
    texts[f"authgate:service:g:s{n}"] = {"target_url": f"http://backend-{n}:8080/v1"}
for n in range(10_000):
    texts[f"authgate:route:g:r{n}"] = {
        "method": "GET", "public_path": f"/api/area{n % 100}/thing{n}/{{id}}", "target_path": f"/{n}/{{id}}",
        "service": f"s{n % 20}", "security": "SECURE", "roles": ["reader"],
    }
for n in range(100_000):
    digest = hashlib.sha256(b"%d" % n).hexdigest()
    texts[f"authgate:consumer:g:c{n}"] = {"api_key_sha256": digest, "roles": ["reader", f"team{n % 9}"]}
documents = {parse_redis_key(name): json.dumps(text).encode() for name, text in texts.items()}
del texts
configuration = Configuration()
start = time.process_time()
configuration.replace_all(documents)
seconds = time.process_time() - start
gateway = configuration.snapshot.gateways["g"]
assert not configuration.refused and len(gateway.consumers.keys.holders) == 100_000
assert gateway.trie.match([b"api", b"area7", b"thing9907", b"1"]) is not None
print(json.dumps({"seconds": seconds, "growth": resident_mib() - before}))
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_large_configuration_loads_in_seconds_and_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=110
    )
    measured = json.loads(done.stdout)
    assert measured["seconds"] < MAX_CPU_S
    assert measured["growth"] < MAX_GROWTH_MIB
