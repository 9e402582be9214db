"""PLACEHOLDER"""

from __future__ import annotations

from dataclasses import dataclass

from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.auth.secret import SecretRef
from authgate_fast.errors import Reason


class IssuerKeysLookup(Lookup):
    pass


class IntrospectionLookup(Lookup):
    pass


@dataclass(frozen=True, slots=True)
class OAuth2Settings:
    issuer: str
    client_id: str
    client_secret: SecretRef | None
    audience: str | None
    introspect: bool
    introspection_cache_s: int
    roles_claim: str


class OAuth2Authenticator:
    def __init__(self, gateway: str, settings: OAuth2Settings) -> None:
        self.credential_fields = frozenset({b"authorization"})
        self.keeps_lines = False
        self.reserved = b""
        self.endpoints = NO_ENDPOINTS

    def identify(self, head, presented: Presented, client, now: float):  # type: ignore[no-untyped-def]
        return Denial(Reason.CREDENTIALS_MISSING)

    def kept_lines(self, presented: Presented) -> bytes:
        return b""

    def forbidden_lines(self, route) -> bytes:  # type: ignore[no-untyped-def]
        return b""
