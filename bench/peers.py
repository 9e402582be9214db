"""The peers by name.

Every peer does what the gateway does for one credential: one look-up among all of them (of an API key's SHA-256;
Envoy's filter compares the keys themselves), X-Consumer-Id set (whatever the client sent under that name), the
credential removed, the path rewritten, connections to the backend kept alive. What the gateway does beyond that (1,000
routes, path policy, forwarding fields, request ids, problem bodies), the peers do not: a difference that favours them.
One worker or thread each, no access log.
"""

from __future__ import annotations

from bench.envoy import start_envoy
from bench.ground import Starter
from bench.haproxy import start_haproxy
from bench.nginx import start_nginx_lua

PEERS: dict[str, Starter] = {"nginx": start_nginx_lua, "haproxy": start_haproxy, "envoy": start_envoy}
"""Named as in `cases.PEER_NAMES`."""
