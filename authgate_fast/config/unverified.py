"""Services whose backends could be anybody: worth a note of `authgate check`, and no mistake in a test set-up. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.snapshot import Snapshot


def unverified(snapshot: Snapshot) -> Iterator[str]:
    """Return a sentence for each service with ``tls: {verify: false}``."""
    for gateway in snapshot.gateways.values():
        for service in gateway.services:
            if any(target.tls is not None and not target.tls.verify for target in service.targets):
                yield (
                    f"gateway {gateway.name}: the service {service.name} takes any certificate (tls.verify: false), so "
                    "whoever gets between can read and change its requests"
                )
