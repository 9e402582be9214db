"""Envoy as a contestant: the check is its own filter for API keys, which looks the shown value up as it is."""

from __future__ import annotations

import json
from typing import Any

from bench.cases import ECHO
from bench.ground import START_S, Check, Contestant, Ground, find_envoy
from bench.processes import accepts, free_ports, wait_until
from bench.workload import PUBLIC_PREFIX

_TYPE = "type.googleapis.com/envoy."
_MANY = 1_000_000


def _typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": _TYPE + name, **fields}


def _filters(ground: Ground) -> list[dict[str, Any]]:
    filters = []
    if ground.check is not None:
        credentials = [{"key": value, "client": name} for value, name in _keys(ground.check, ground).items()]
        check = _typed(
            "extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
            credentials=credentials,
            key_sources=[{"header": ground.check.field}],
            forwarding={"header": "X-Consumer-Id", "hide_credentials": True},
        )
        filters.append({"name": "envoy.filters.http.api_key_auth", "typed_config": check})
    router = _typed("extensions.filters.http.router.v3.Router")
    return [*filters, {"name": "envoy.filters.http.router", "typed_config": router}]


def _keys(check: Check, ground: Ground) -> dict[str, str]:
    """Return the values as the filter compares them: the keys themselves, and a token without its scheme."""
    if check.is_digest:
        return {consumer.key: consumer.name for consumer in ground.consumers}
    return {value.removeprefix("Bearer "): name for value, name in check.names.items()}


def _listener(ground: Ground, port: int) -> dict[str, Any]:
    case, certificate = ground.case, ground.certificate
    route: dict[str, Any] = {"cluster": "backend", "prefix_rewrite": "/", "timeout": "0s"}
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="public",
        codec_type="HTTP1",
        http_filters=_filters(ground),
        stream_idle_timeout="600s",
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": f"{PUBLIC_PREFIX}/"}, "route": route}],
                    "request_headers_to_remove": ["X-Api-Key"]
                    if ground.check
                    else ["X-Api-Key", "X-Consumer-Id"],
                }
            ]
        },
    )
    if case.driver == ECHO:
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if certificate is not None and case.tls_in:
        pair = {
            "certificate_chain": {"filename": str(certificate.chain)},
            "private_key": {"filename": str(certificate.key)},
        }
        context = _typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={"tls_certificates": [pair], "alpn_protocols": ["http/1.1"]},
        )
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return {
        "name": "public",
        "address": _address(port),
        "tcp_backlog_size": 4_096,
        "filter_chains": [chain],
    }


def _cluster(ground: Ground) -> dict[str, Any]:
    many = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _MANY)
    endpoint = {"endpoint": {"address": _address(ground.backend_port)}}
    cluster: dict[str, Any] = {
        "name": "backend",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if ground.case.tls_out:
        context = _typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext")
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def start_envoy(ground: Ground) -> Contestant:
    """Start Envoy with as many worker threads as the case has workers."""
    (port,) = free_ports(1)
    directory = ground.directory / "envoy"
    directory.mkdir()
    conf = directory / "envoy.json"
    resources = {"listeners": [_listener(ground, port)], "clusters": [_cluster(ground)]}
    conf.write_text(json.dumps({"static_resources": resources}))
    command = [find_envoy(), "-c", str(conf), "--concurrency", str(ground.case.workers)]
    command += ["--disable-hot-restart", "--log-level", "warning"]
    child = ground.children.start("envoy", command, ground.proxy_cpus, directory=directory)
    wait_until(child, lambda: accepts(port), "listen", START_S)
    return Contestant("envoy", child, port)
