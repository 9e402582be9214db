"""HAProxy as a contestant: the check is a look-up in a map file."""

from __future__ import annotations

from bench.ground import START_S, Check, Contestant, Ground, find_tool
from bench.processes import accepts, free_ports, wait_until
from bench.workload import PUBLIC_PREFIX

_CONF = """\
global
  maxconn 8192
  nbthread %(workers)d

defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  timeout tunnel 600s
  http-reuse always

frontend public
  bind 127.0.0.1:%(port)d backlog 4096%(tls)s
%(check)s
  http-request set-path %%[path,bytes(%(prefix_length)d)]
  default_backend backend

backend backend
  server backend 127.0.0.1:%(backend_port)d%(tls_out)s
"""

_CHECK = """\
  http-request set-var(txn.consumer) "%(value)s,map_str(%(map)s)"
  http-request deny deny_status 401 unless { var(txn.consumer) -m found }
  http-request set-header X-Consumer-Id %%[var(txn.consumer)]
  http-request del-header %(field)s"""

_NO_CHECK = "  http-request del-header X-Consumer-Id\n  http-request del-header X-Api-Key"


def _map_line(check: Check, value: str, name: str) -> str:
    """Write a line as the converters ask for it: digests as `hex` writes them, of `Basic x` and `Bearer x` the x."""
    return f"{value.upper() if check.is_digest else value.rpartition(' ')[2]} {name}\n"


def start_haproxy(ground: Ground) -> Contestant:
    """Start HAProxy with the keys' digests, or the credentials, in a map file."""
    (port,) = free_ports(1)
    directory = ground.directory / "haproxy"
    directory.mkdir()
    case, check, certificate = ground.case, ground.check, ground.certificate
    rules = _NO_CHECK
    if check is not None:
        keys = directory / "consumers.map"
        keys.write_text("".join(_map_line(check, value, name) for value, name in check.names.items()))
        shown = f"req.hdr({check.field})"
        if check.is_digest:
            shown += ",sha2(256),hex"
        elif check.field == "Authorization":
            shown += ",word(2,' ')"
        rules = _CHECK % {"value": shown, "map": keys, "field": check.field}
    conf = directory / "haproxy.cfg"
    values = {
        "port": port,
        "check": rules,
        "workers": case.workers,
        "prefix_length": len(PUBLIC_PREFIX),
        "backend_port": ground.backend_port,
        "tls": f" ssl crt {certificate.both} alpn http/1.1" if certificate and case.tls_in else "",
        "tls_out": " ssl verify none" if case.tls_out else "",
    }
    conf.write_text(_CONF % values)
    child = ground.children.start("haproxy", [find_tool("haproxy"), "-db", "-f", conf], ground.proxy_cpus)
    wait_until(child, lambda: accepts(port), "listen", START_S)
    return Contestant("haproxy", child, port)
