"""What the authenticators of a worker remember, and how often that was enough: read when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.auth.basic import BasicAuthenticator
from authgate_fast.auth.bff import BffAuthenticator
from authgate_fast.auth.jwt import JwtAuthenticator
from authgate_fast.auth.oauth2 import OAuth2Authenticator
from authgate_fast.observe.exposition import Family, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authgate_fast.snapshot import Gateway


def auth_metrics(gateways: Mapping[str, Gateway]) -> list[Family]:
    """Return the families; a gateway of API keys has nothing to remember, for its keys are all in memory."""
    entries = []
    hits = []
    misses = []
    for name, gateway in sorted(gateways.items()):
        authenticator = gateway.authenticator
        of_gateway = ("gateway", name)
        if not isinstance(
            authenticator, BasicAuthenticator | JwtAuthenticator | OAuth2Authenticator | BffAuthenticator
        ):
            continue
        entries.append(Sample(authenticator.remembered, (of_gateway, ("kind", "good"))))
        if isinstance(authenticator, OAuth2Authenticator | BffAuthenticator):
            entries.append(Sample(authenticator.remembered_refusals, (of_gateway, ("kind", "refused"))))
        hits.append(Sample(authenticator.hits, (of_gateway,)))
        misses.append(Sample(authenticator.misses, (of_gateway,)))
    return [
        Family("authgate_auth_cache_entries", "gauge", "Credentials that are remembered.", tuple(entries)),
        Family(
            "authgate_auth_cache_hits_total", "counter", "Requests whose credential memory knew.", tuple(hits)
        ),
        Family(
            "authgate_auth_cache_misses_total",
            "counter",
            "Requests whose credential had to be checked or looked up.",
            tuple(misses),
        ),
    ]
