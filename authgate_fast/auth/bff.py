"""PLACEHOLDER"""

from __future__ import annotations

from dataclasses import dataclass

from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.auth.secret import SecretRef
from authgate_fast.errors import Reason


class SessionLookup(Lookup):
    pass


@dataclass(frozen=True, slots=True)
class BffSettings:
    issuer: str
    client_id: str
    client_secret: SecretRef | None
    scopes: tuple[str, ...]
    idle_ttl_s: int
    absolute_ttl_s: int
    roles_claim: str


class BffAuthenticator:
    def __init__(self, gateway: str, settings: BffSettings) -> None:
        self.credential_fields = frozenset({b"cookie", b"authorization"})
        self.keeps_lines = False
        self.reserved = b"bff"
        self.endpoints = NO_ENDPOINTS

    def identify(self, head, presented: Presented, client, now: float):  # type: ignore[no-untyped-def]
        return Denial(Reason.CREDENTIALS_MISSING)

    def kept_lines(self, presented: Presented) -> bytes:
        return b""

    def forbidden_lines(self, route) -> bytes:  # type: ignore[no-untyped-def]
        return b""
