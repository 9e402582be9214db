"""PLACEHOLDER"""

from __future__ import annotations

from authgate_fast.auth.interface import NO_ENDPOINTS, Denial, Lookup, Presented
from authgate_fast.errors import Reason


class PasswordLookup(Lookup):
    pass


class BasicAuthenticator:
    def __init__(self, gateway: str, realm: str, consumers) -> None:
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
