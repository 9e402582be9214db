"""The access tokens of an OAUTH2 gateway under attack, with one key of the provider and with several."""

from __future__ import annotations

from typing import Any

from authgate_fast.auth.oauth2 import IssuerKeysLookup, OAuth2Authenticator, OAuth2Settings
from authgate_fast.auth.signing import SigningKey
from authgate_fast.decision import Client
from authgate_fast.http.request import RequestHead
from authgate_fast.snapshot import Identity
from tests.auth.signer import CLIENT, ISSUER, Signer, claims_at
from tests.auth.token_attacks import NOW, Target

API = "https://api.example.com"


class OAuth2Target(Target):
    name = "OAUTH2"
    algorithm = "EdDSA"
    other_keys = False

    def __init__(self) -> None:
        signer = Signer(algorithm=self.algorithm)
        self.issuer = ISSUER
        self.signing = SigningKey(signer.kid, signer.algorithm, signer.private)
        self.header = {"alg": signer.algorithm, "kid": signer.kid, "typ": "at+jwt"}
        self._keys = signer.keys
        if self.other_keys:
            for algorithm in ("RS256", "ES256", "EdDSA"):
                self._keys |= Signer(f"other-{algorithm}", algorithm).keys
        self._checker = OAuth2Authenticator(
            "shop", OAuth2Settings(ISSUER, CLIENT, None, API, False, 30, "roles")
        )
        self._checker.set_keys(self._keys, NOW, NOW)

    def claims(self, **changes: Any) -> dict[str, Any]:
        return claims_at(NOW, **changes)

    def accepts(self, token: bytes, now: float = NOW) -> bool:
        presented = [(b"authorization", b"Bearer " + token)]
        found = self._checker.identify(RequestHead(b"GET", b"/", 1, []), presented, Client("192.0.2.1"), now)
        if isinstance(found, IssuerKeysLookup):
            self._checker.set_keys(self._keys, now, now)
            found = self._checker.identify_again(presented, now)
        return isinstance(found, Identity)

    def wrong_audiences(self) -> list[Any]:
        return [
            None, "", API + "/", API[:-1], API.upper(), "https://other.example.com", CLIENT, [CLIENT], [], [[API]], {API: 1},
            7, True, API + ",other", "*",
        ]  # fmt: skip

    def wrong_types(self) -> list[Any]:
        # RFC 9068 asks for at+jwt; many providers write JWT or nothing, and those are accepted.
        return [value for value in super().wrong_types() if value not in ("JWT", "")] + ["refresh+jwt"]

    def foreign(self) -> bytes:
        return self.make(client_id="another-client")


class OAuth2Rs256Target(OAuth2Target):
    name = "OAUTH2-RS256"
    algorithm = "RS256"


class OAuth2ManyKeysTarget(OAuth2Target):
    name = "OAUTH2-many-keys"
    algorithm = "ES256"
    other_keys = True


TARGETS: list[type[Target]] = [OAuth2Target, OAuth2Rs256Target, OAuth2ManyKeysTarget]
