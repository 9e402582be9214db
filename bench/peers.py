"""The contestants and the backend: their configurations, and how they are started.

Every peer does what the gateway does for one key: SHA-256 of X-Api-Key, one look-up among 10,000,
X-Consumer-Id set (whatever the client sent under that name), X-Api-Key removed, the path rewritten,
connections to the backend kept alive. What the gateway does beyond that (1,000 routes, path policy,
forwarding fields, request ids, problem bodies), the peers do not: a difference that favours them. One worker
or thread each, no access log.
"""

from __future__ import annotations

import getpass
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from bench.processes import Child, Children, MissingToolError, accepts, free_ports, wait_until
from bench.workload import BACKEND_BODY, PUBLIC_PREFIX, SEEN_PATH, Consumer, gateway_documents

_PACKAGES = "apt-get install nginx libnginx-mod-http-lua haproxy wrk"
_START_S = 20.0
_GATEWAY_START_S = 60.0  # a slow machine reading 11,000 documents


@dataclass(slots=True)
class Contestant:
    """One proxy under test, listening on 127.0.0.1.

    ``script`` is what wrk sends to it. ``build`` says how a gateway was built; peers leave it empty.
    """

    name: str
    child: Child
    port: int
    script: Path | None = None
    build: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all contestants of a run share: where, on which cores, for whom, in front of what."""

    directory: Path
    children: Children
    proxy_cpus: set[int]
    load_cpus: set[int]
    consumers: list[Consumer]
    backend_port: int


Starter = Callable[[Ground], Contestant]


def find_tool(name: str) -> str:
    """Return the path of a program, also from the directories of the administrator."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise MissingToolError(f"{name} is not installed; on Debian: {_PACKAGES}")
    return found


def lua_modules() -> list[Path]:
    """Return the two modules that give nginx Lua, where this nginx keeps its modules."""
    answer = subprocess.run([find_tool("nginx"), "-V"], capture_output=True, text=True, check=True).stderr
    path = re.search(r"--modules-path=(\S+)", answer)
    directory = Path(path[1]) if path else Path("/usr/lib/nginx/modules")
    modules = [directory / "ndk_http_module.so", directory / "ngx_http_lua_module.so"]
    if not all(module.exists() for module in modules):
        raise MissingToolError(f"nginx has no Lua module in {directory}; on Debian: {_PACKAGES}")
    return modules


def _nginx_conf(directory: Path, http: str, modules: list[Path]) -> str:
    """Build a whole nginx.conf around an http block; nothing is written outside `directory`."""
    loads = "".join(f"load_module {module};\n" for module in modules)
    temporary = "".join(
        f"  {kind}_temp_path {directory}/{kind}_tmp;\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{loads}user {getpass.getuser()};\nworker_processes 1;\ndaemon off;\npcre_jit on;\n"
        f"pid {directory}/nginx.pid;\nerror_log stderr warn;\n"
        f"events {{ worker_connections 8192; }}\n"
        f"http {{\n{temporary}  access_log off;\n  server_tokens off;\n  tcp_nodelay on;\n"
        f"  keepalive_timeout 600s;\n  keepalive_requests 1000000000;\n{http}}}\n"
    )


def _start_nginx(
    children: Children, name: str, directory: Path, http: str, *, modules: list[Path], cpus: set[int]
) -> Child:
    conf = directory / "nginx.conf"
    conf.write_text(_nginx_conf(directory, http, modules))
    return children.start(name, [find_tool("nginx"), "-p", directory, "-c", conf, "-e", "stderr"], cpus)


_BACKEND = """\
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    default_type application/json;
    add_header Cache-Control "private, max-age=0";
    add_header ETag '"5f2b-1c9d"';
    add_header Vary Accept-Encoding;
    location / { return 200 '%(body)s'; }
    location = %(seen)s {
      return 200 '{"consumer":"$http_x_consumer_id","key":"$http_x_api_key","path":"$request_uri"}';
    }
    location = /count { stub_status; }
  }
"""


def start_backend(children: Children, directory: Path, cpus: set[int]) -> int:
    """Start the backend, an nginx that answers from its configuration; return its port."""
    (port,) = free_ports(1)
    directory.mkdir()
    http = _BACKEND % {"port": port, "body": BACKEND_BODY, "seen": SEEN_PATH}
    child = _start_nginx(children, "backend", directory, http, modules=[], cpus=cpus)
    wait_until(child, lambda: accepts(port), "listen", _START_S)
    return port


def backend_count(port: int) -> int:
    """Return how many requests the backend has answered, this one included."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/count")
        lines = connection.getresponse().read().decode("ascii").splitlines()
    finally:
        connection.close()
    return int(lines[2].split()[2])


def start_gateway(ground: Ground, name: str, source: Path) -> Contestant:
    """Start the gateway from the checkout `source`: the installed dependencies, that checkout's code."""
    port, ops_port = free_ports(2)
    documents = gateway_documents(ground.consumers, ground.backend_port)
    child = gateway_child(ground, name, source, documents, port, ops_port)
    return Contestant(name, child, port, build=_build_of(ops_port))


def gateway_child(
    ground: Ground,
    name: str,
    source: Path,
    documents: dict[str, object] | None,
    port: int,
    ops_port: int,
    arguments: Sequence[str] = (),
) -> Child:
    """Start a gateway and wait until it is ready. Without `documents`, the `arguments` say where they are."""
    directory = ground.directory / name.replace("/", "_").replace(" ", "-")
    directory.mkdir()
    command = [sys.executable, "-m", "authgate_fast.cli", "run", *arguments]
    command += ["--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}"]
    if documents is not None:
        config = directory / "config.json"
        config.write_text(json.dumps(documents))
        command += ["--config", str(config)]
    child = ground.children.start(
        name, command, ground.proxy_cpus, directory=source, environment={"PYTHONPATH": str(source)}
    )
    wait_until(child, lambda: _is_ready(ops_port), "become ready", _GATEWAY_START_S)
    return child


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


_NGINX = """\
  init_by_lua_file %(directory)s/check.lua;
  upstream backend {
    server 127.0.0.1:%(backend_port)d;
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    location %(prefix)s/ {
      set $consumer "";
      access_by_lua_block { check_key() }
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Api-Key "";
      proxy_set_header X-Consumer-Id $consumer;
      proxy_pass http://backend/;
    }
  }
"""

# The digest comes from the OpenSSL that nginx itself is linked with, called as lua-resty-string calls it
# (which Debian does not package), in one step instead of three.
_NGINX_CHECK = """\
local ffi = require "ffi"
ffi.cdef "unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);"
local digest_of = ffi.C.SHA256
local to_string = ffi.string
local digest = ffi.new("unsigned char[32]")
local var = ngx.var
local consumers = {}

for line in io.lines("%(directory)s/consumers.txt") do
  local hex, name = line:match("^(%%x+) (.+)$")
  consumers[hex:gsub("%%x%%x", function(pair) return string.char(tonumber(pair, 16)) end)] = name
end

function check_key()
  local key = var.http_x_api_key
  if not key then return ngx.exit(401) end
  digest_of(key, #key, digest)
  local consumer = consumers[to_string(digest, 32)]
  if not consumer then return ngx.exit(401) end
  var.consumer = consumer
end
"""


def start_nginx_lua(ground: Ground) -> Contestant:
    """Start nginx with the key check as a Lua access handler."""
    modules = lua_modules()
    (port,) = free_ports(1)
    directory = ground.directory / "nginx-lua"
    directory.mkdir()
    values = {
        "directory": directory,
        "port": port,
        "backend_port": ground.backend_port,
        "prefix": PUBLIC_PREFIX,
    }
    (directory / "consumers.txt").write_text("".join(f"{c.digest} {c.name}\n" for c in ground.consumers))
    (directory / "check.lua").write_text(_NGINX_CHECK % values)
    http = _NGINX % values
    child = _start_nginx(
        ground.children, "nginx+lua", directory, http, modules=modules, cpus=ground.proxy_cpus
    )
    wait_until(child, lambda: accepts(port), "listen", _START_S)
    return Contestant("nginx+lua", child, port)


_HAPROXY = """\
global
  maxconn 8192
  nbthread 1

defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always

frontend public
  bind 127.0.0.1:%(port)d backlog 4096
  http-request set-var(txn.consumer) req.hdr(X-Api-Key),sha2(256),hex,map_str(%(map)s)
  http-request deny deny_status 401 unless { var(txn.consumer) -m found }
  http-request set-header X-Consumer-Id %%[var(txn.consumer)]
  http-request del-header X-Api-Key
  http-request set-path %%[path,bytes(%(prefix_length)d)]
  default_backend backend

backend backend
  server backend 127.0.0.1:%(backend_port)d
"""


def start_haproxy(ground: Ground) -> Contestant:
    """Start HAProxy with the keys' digests in a map file."""
    (port,) = free_ports(1)
    directory = ground.directory / "haproxy"
    directory.mkdir()
    keys = directory / "consumers.map"
    keys.write_text("".join(f"{c.digest.upper()} {c.name}\n" for c in ground.consumers))  # as `hex` writes it
    conf = directory / "haproxy.cfg"
    values = {
        "port": port,
        "map": keys,
        "prefix_length": len(PUBLIC_PREFIX),
        "backend_port": ground.backend_port,
    }
    conf.write_text(_HAPROXY % values)
    child = ground.children.start("haproxy", [find_tool("haproxy"), "-db", "-f", conf], ground.proxy_cpus)
    wait_until(child, lambda: accepts(port), "listen", _START_S)
    return Contestant("haproxy", child, port)


def gateway_of(name: str, source: Path) -> Starter:
    """Return the starter of a gateway with another name or from another checkout."""
    return partial(start_gateway, name=name, source=source)


PEERS: dict[str, Starter] = {"nginx": start_nginx_lua, "haproxy": start_haproxy}
