"""API keys in the conformance kit."""

from __future__ import annotations

from authgate_fast.auth.api_key import MAX_KEY_BYTES, ApiKeyAuthenticator
from authgate_fast.auth.interface import Authenticator
from tests.auth.kit import NOW, Adapter
from tests.known_keys import keys_of, remove
from tests.plan_world import Fields, credential, key


class ApiKeyAdapter(Adapter):
    name = "API_KEY"
    field = b"x-api-key"

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        identities = {
            key(f"good-key-of-{gateway}"): credential("app", "reader"),
            key("brief-key"): credential("brief", expires_at=NOW + 100),
            key("old-key"): credential("old", expires_at=NOW),
            key("x" * (MAX_KEY_BYTES + 1)): credential("long"),
        }
        for digest, identity in identities.items():
            identity.name = digest
        self.consumers.keys = keys_of(identities)
        self._authenticator = ApiKeyAuthenticator(gateway, "X-Api-Key", self.consumers)

    def authenticator(self) -> Authenticator:
        return self._authenticator

    def good(self) -> Fields:
        return [(b"X-Api-Key", f"good-key-of-{self.gateway}".encode())]

    def identity_lines(self) -> bytes:
        return b"X-Consumer-Id: app\r\nX-Consumer-Roles: reader\r\nX-Credential-Id: default\r\n"

    def brief(self) -> tuple[Fields, float]:
        return [(b"X-Api-Key", b"brief-key")], NOW + 100

    def missing(self) -> list[Fields]:
        return [[(b"X-Api-Key", b"")], [(b"Authorization", b"Bearer abc")]]

    def malformed(self) -> list[Fields]:
        return [[(b"X-Api-Key", value)] for value in (b"good-key\xff", b"Bearer good-key-of-kit")]

    def oversized(self) -> Fields:
        return [(b"X-Api-Key", b"x" * (MAX_KEY_BYTES + 1))]

    def bad(self) -> dict[str, Fields]:
        return {
            "wrong": [(b"X-Api-Key", b"good-key-of-nobody")],
            "expired": [(b"X-Api-Key", b"old-key")],
            "disabled": [(b"X-Api-Key", b"key-of-a-disabled-consumer")],
        }

    def end_access(self) -> bool:
        remove(self.consumers.keys, key(f"good-key-of-{self.gateway}"))
        return True


ADAPTERS: list[type[Adapter]] = [ApiKeyAdapter]
