"""The gateway as a contestant: from the checkout, or as it was at a revision."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path

from bench.ground import Contestant, Ground
from bench.processes import free_ports, wait_until
from bench.workload import Consumer, gateway_documents

_START_S = 60.0  # a slow machine reading 11,000 documents


def documents_of(
    ground: Ground,
    auth: dict[str, object] | None = None,
    consumer_fields: Callable[[Consumer], dict[str, object]] | None = None,
) -> dict[str, object]:
    """Build the documents of the case. Without `auth` they are of API keys."""
    authority = str(ground.certificate.chain) if ground.certificate else ""
    return gateway_documents(
        ground.consumers, ground.backend_port, auth, consumer_fields, ground.case, authority
    )


def start_gateway(
    ground: Ground,
    name: str,
    source: Path,
    documents: dict[str, object] | None,
    arguments: Sequence[str] = (),
) -> Contestant:
    """Start the gateway from the checkout `source`: the installed dependencies, that checkout's code.

    Without `documents`, the `arguments` say where they are.
    """
    port, ops_port = free_ports(2)
    directory = ground.directory / name.replace("/", "_")
    directory.mkdir()
    command = [sys.executable, "-m", "authgate_fast.cli", "run", *arguments]
    command += ["--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}"]
    if ground.case.shares_cores:
        command += ["--workers", str(ground.case.workers)]
    if ground.certificate is not None and ground.case.tls_in:
        command += ["--tls-cert", str(ground.certificate.chain), "--tls-key", str(ground.certificate.key)]
    if documents is not None:
        config = directory / "config.json"
        config.write_text(json.dumps(documents))
        command += ["--config", str(config)]
    child = ground.children.start(
        name, command, ground.proxy_cpus, directory=source, environment={"PYTHONPATH": str(source)}
    )
    wait_until(child, lambda: _is_ready(ops_port), "become ready", _START_S)
    return Contestant(name, child, port, build=_build_of(ops_port))


def _build_of(ops_port: int) -> str:
    """Ask a gateway whether its request path is compiled; an older one does not know the question."""
    connection = HTTPConnection("127.0.0.1", ops_port, timeout=10)
    try:
        connection.request("GET", "/status")
        status = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return "compiled" if status.get("compiled") else "pure Python"


def _is_ready(ops_port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", ops_port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
