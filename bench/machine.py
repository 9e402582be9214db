"""What was measured, on what: the lines above every table."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.ground import find_envoy, find_tool


def describe(
    root: Path, options: argparse.Namespace, arguments: list[str], proxy_cpus: set[int], load_cpus: set[int]
) -> dict[str, str]:
    """Say what is measured, with what, and how to do it again."""
    commit = _says(["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"], r"\S+")
    versions = [f"authgate {commit}", f"Python {platform.python_version()}"]
    versions += [f"{package} {version(package)}" for package in ("uvloop", "httptools")]
    tools = {"nginx": r"nginx/(\S+)", "haproxy": r"version (\S+)", "wrk": r"wrk \D*(\S+)"}
    for tool, pattern in tools.items():
        if tool in ("nginx", "wrk", *options.peers):
            versions.append(f"{tool} {_says([find_tool(tool), '-v'], pattern)}")
    if "envoy" in options.peers:
        versions.append(f"envoy {_says([find_envoy(), '--version'], r'/([0-9.]+)/')}")
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "command": shlex.join(["python", "-m", "bench", *arguments]),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores,"
        f" Linux {platform.release()}, load average {os.getloadavg()[0]:.2f} at the start",
        "versions": ", ".join(versions),
        "load": f"{options.rounds} rounds x {options.seconds} s each, proxy on core {_cores(proxy_cpus)},"
        f" load and backend on {_cores(load_cpus)}",
        "the same": "one worker or thread each, 10,000 consumers, small JSON answers, where a case says nothing else",
        "not the same": "the peers have one path prefix instead of 1,000 routes, and add no"
        " forwarding fields, request id or Via (Envoy adds a request id); access logs are off",
    }


def _says(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[found.re.groups] if found and not (done.returncode and command[0] == "git") else "?"


def _cores(cpus: set[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))
