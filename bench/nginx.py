"""nginx, twice: as the backend of all contestants, and with a check in Lua as one of them."""

from __future__ import annotations

import getpass
from http.client import HTTPConnection
from pathlib import Path

from bench.cases import ECHO, Case
from bench.ground import START_S, Certificate, Contestant, Ground, find_tool, lua_modules
from bench.processes import Child, Children, accepts, free_ports, wait_until
from bench.workload import BACKEND_BODY, PUBLIC_PREFIX, SEEN_PATH


def _conf(directory: Path, http: str, modules: list[Path], workers: int) -> str:
    """Build a whole nginx.conf around an http block; nothing is written outside `directory`."""
    loads = "".join(f"load_module {module};\n" for module in modules)
    temporary = "".join(
        f"  {kind}_temp_path {directory}/{kind}_tmp;\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{loads}user {getpass.getuser()};\nworker_processes {workers};\ndaemon off;\npcre_jit on;\n"
        f"pid {directory}/nginx.pid;\nerror_log stderr warn;\n"
        f"events {{ worker_connections 8192; }}\n"
        f"http {{\n{temporary}  access_log off;\n  server_tokens off;\n  tcp_nodelay on;\n  sendfile on;\n"
        f"  keepalive_timeout 600s;\n  keepalive_requests 1000000000;\n{http}}}\n"
    )


def _start(
    children: Children,
    name: str,
    directory: Path,
    http: str,
    *,
    modules: list[Path],
    workers: int,
    cpus: set[int],
) -> Child:
    conf = directory / "nginx.conf"
    conf.write_text(_conf(directory, http, modules, workers))
    return children.start(name, [find_tool("nginx"), "-p", directory, "-c", conf, "-e", "stderr"], cpus)


def _ssl(certificate: Certificate | None) -> str:
    if certificate is None:
        return ""
    return (
        f"    ssl_certificate {certificate.chain};\n    ssl_certificate_key {certificate.key};\n"
        "    ssl_protocols TLSv1.2 TLSv1.3;\n"
    )


_BACKEND = """\
  server {
    listen 127.0.0.1:%(port)d %(tls)sbacklog=4096;
%(ssl)s    default_type application/json;
    client_max_body_size 0;
    add_header Cache-Control "private, max-age=0";
    add_header ETag '"5f2b-1c9d"';
    add_header Vary Accept-Encoding;
    location / { return 200 '%(body)s'; }
    location ~ /items/download-[0-9]+$ { alias %(directory)s/content; }
    location = %(seen)s {
      return 200 '{"consumer":"$http_x_consumer_id","key":"$http_x_api_key","path":"$request_uri"}';
    }
  }
  server {
    listen 127.0.0.1:%(count_port)d;
    location = /count { stub_status; }
  }
"""


def start_backend(
    children: Children,
    directory: Path,
    cpus: set[int],
    case: Case | None = None,
    certificate: Certificate | None = None,
) -> tuple[int, int]:
    """Start the backend, an nginx that answers from its configuration; return its port and the one of its counter.

    With a `case` of downloads it also has the file that they ask for.
    """
    port, count_port = free_ports(2)
    directory.mkdir()
    if case is not None:
        with (directory / "content").open("wb") as content:
            content.truncate(case.body_bytes)
    values = {
        "port": port,
        "count_port": count_port,
        "tls": "ssl " if certificate else "",
        "ssl": _ssl(certificate),
        "body": BACKEND_BODY,
        "directory": directory,
        "seen": SEEN_PATH,
    }
    child = _start(children, "backend", directory, _BACKEND % values, modules=[], workers=1, cpus=cpus)
    wait_until(child, lambda: accepts(count_port), "listen", START_S)
    return port, count_port


def backend_count(count_port: int) -> int:
    """Return how many requests the backend has answered, this one included."""
    connection = HTTPConnection("127.0.0.1", count_port, timeout=10)
    try:
        connection.request("GET", "/count")
        lines = connection.getresponse().read().decode("ascii").splitlines()
    finally:
        connection.close()
    return int(lines[2].split()[2])


_PEER = """\
  %(init)s
  upstream backend {
    server 127.0.0.1:%(backend_port)d;
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }
  server {
    listen 127.0.0.1:%(port)d %(tls)sbacklog=4096;
%(ssl)s    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    location %(prefix)s/ {
      set $consumer "";
      %(access)s
      proxy_http_version 1.1;
      proxy_set_header Connection "%(connection)s";
      %(upgrade)s
      %(remove)s
      proxy_set_header X-Consumer-Id $consumer;
      proxy_pass %(scheme)s://backend/;
    }
  }
"""

# The digest comes from the OpenSSL that nginx itself is linked with, called as lua-resty-string calls it
# (which Debian does not package), in one step instead of three.
_CHECK = """\
local ffi = require "ffi"
ffi.cdef "unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);"
local digest_of = ffi.C.SHA256
local to_string = ffi.string
local digest = ffi.new("unsigned char[32]")
local var = ngx.var
local consumers = {}

local function from_hex(hex)
  return hex:gsub("%%x%%x", function(pair) return string.char(tonumber(pair, 16)) end)
end

for line in io.lines("%(directory)s/consumers.txt") do
  local value, name = line:match("^(.+)\\t(.+)$")
  consumers[%(shown)s] = name
end

function check_key()
  local key = var.%(variable)s
  if not key then return ngx.exit(401) end
  %(digest)s
  local consumer = consumers[%(looked_up)s]
  if not consumer then return ngx.exit(401) end
  var.consumer = consumer
end
"""


def start_nginx_lua(ground: Ground) -> Contestant:
    """Start nginx with the check as a Lua access handler."""
    (port,) = free_ports(1)
    directory = ground.directory / "nginx-lua"
    directory.mkdir()
    case, check = ground.case, ground.check
    in_certificate = ground.certificate if case.tls_in else None
    values: dict[str, object] = {
        "directory": directory,
        "port": port,
        "backend_port": ground.backend_port,
        "prefix": PUBLIC_PREFIX,
        "tls": "ssl " if in_certificate else "",
        "ssl": _ssl(in_certificate),
        "scheme": "https" if case.tls_out else "http",
        "connection": "upgrade" if case.driver == ECHO else "",
        "upgrade": "proxy_set_header Upgrade $http_upgrade;" if case.driver == ECHO else "",
        "init": "",
        "access": "",
        "remove": 'proxy_set_header X-Api-Key "";',
    }
    if check is not None:
        names = "".join(f"{value}\t{name}\n" for value, name in check.names.items())
        (directory / "consumers.txt").write_text(names)
        script = _CHECK % {
            "directory": directory,
            "variable": f"http_{check.field.lower().replace('-', '_')}",
            "shown": "from_hex(value)" if check.is_digest else "value",
            "digest": "digest_of(key, #key, digest)" if check.is_digest else "",
            "looked_up": "to_string(digest, 32)" if check.is_digest else "key",
        }
        (directory / "check.lua").write_text(script)
        values["init"] = f"init_by_lua_file {directory}/check.lua;"
        values["access"] = "access_by_lua_block { check_key() }"
        values["remove"] = f'proxy_set_header {check.field} "";'
    child = _start(
        ground.children,
        "nginx+lua",
        directory,
        _PEER % values,
        modules=lua_modules(),
        workers=case.workers,
        cpus=ground.proxy_cpus,
    )
    wait_until(child, lambda: accepts(port), "listen", START_S)
    return Contestant("nginx+lua", child, port)
