"""OAuth2 access tokens in the conformance kit: JWTs checked with the provider's keys, and opaque ones introspected."""

from __future__ import annotations

from typing import Any

from authgate_fast.auth.interface import Authenticator, Denial
from authgate_fast.auth.oauth2 import (
    IntrospectionLookup,
    IssuerKeysLookup,
    OAuth2Authenticator,
    OAuth2Settings,
)
from authgate_fast.auth.secret import SecretRef
from authgate_fast.auth.tokens import LEEWAY_S
from authgate_fast.decision import Pending
from authgate_fast.snapshot import Identity
from tests.auth.adapters_jwt import counting
from tests.auth.kit import NOW, Adapter
from tests.auth.signer import CLIENT, ISSUER, Signer, bearer, claims_at
from tests.plan_world import Fields

_MALFORMED = [
    b"Bearer",
    b"Bearer ",
    b"Bearer two words",
    b"Bearer a,b",
    b"Bearer \xff\xfe",
    b'Bearer "quoted"',
]
_MISSING = [b"", b"Basic YTpi", b"Bearerx abc", b"DPoP abc"]


class OAuth2Adapter(Adapter):
    name = "OAUTH2"
    field = b"authorization"
    prefix = b"Bearer "

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        self._client = CLIENT if gateway == "kit" else f"client-of-{gateway}"
        self._signer = Signer()
        self._counter = counting(self._signer.algorithm)
        self._authenticator = OAuth2Authenticator(
            gateway, OAuth2Settings(ISSUER, self._client, None, None, False, 30, "roles")
        )
        self._authenticator.set_keys(self._signer.keys, NOW, NOW)

    def authenticator(self) -> Authenticator:
        return self._authenticator

    def _fields(self, **claims: Any) -> Fields:
        return bearer(self._signer.token(claims_at(NOW, **({"client_id": self._client} | claims))))

    def good(self) -> Fields:
        return self._fields()

    def identity_lines(self) -> bytes:
        client = self._client.encode()
        return b"X-User-Id: user-1\r\nX-User-Roles: buyer\r\nX-Client-Id: " + client + b"\r\n"

    def token_line(self) -> bytes:
        return b"Authorization: " + self.good()[0][1] + b"\r\n"

    def brief(self) -> tuple[Fields, float]:
        return self._fields(exp=int(NOW) + 70), NOW + 70 + LEEWAY_S

    def missing(self) -> list[Fields]:
        return [[(b"Authorization", value)] for value in _MISSING]

    def malformed(self) -> list[Fields]:
        token = self.good()[0][1].removeprefix(b"Bearer ")
        head, body, signature = token.split(b".")
        values = [
            *_MALFORMED,
            b"Bearer opaque",
            b"Bearer " + head + b"." + body,
            b"Bearer " + token + b".",
            b"Bearer " + token + b"=",
            b"Bearer " + token[:20] + b" " + token[20:],
            b"Bearer " + body + b"." + head + b"." + signature,
        ]
        return [[(b"Authorization", value)] for value in values]

    def bad(self) -> dict[str, Fields]:
        stranger = Signer(name="somebody else's key under our kid")
        return {
            "wrong": bearer(stranger.token(claims_at(NOW, client_id=self._client))),
            "expired": self._fields(exp=int(NOW) - 100),
            "another client's": self._fields(client_id="another"),
            "another issuer's": self._fields(iss=ISSUER + "/"),
            "an ID token": self._fields(at_hash="abc"),
        }

    def end_access(self) -> bool:
        self._authenticator.set_keys(Signer("k2").keys, NOW, NOW)  # the provider has withdrawn its key
        return True

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        assert isinstance(pending.lookup, IssuerKeysLookup)
        self._authenticator.set_keys(self._signer.keys, now, now)
        return self._authenticator.identify_again(pending.presented, now)

    def costly_operations(self) -> int:
        return self._counter.checked


class IntrospectedAdapter(Adapter):
    name = "OAUTH2 introspected"
    field = b"authorization"
    prefix = b"Bearer "

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        client = CLIENT if gateway == "kit" else f"client-of-{gateway}"
        settings = OAuth2Settings(ISSUER, client, SecretRef(text="s"), None, True, 30, "roles")
        self._authenticator = OAuth2Authenticator(gateway, settings)
        self._client = client
        self._good = f"opaque-of-{gateway}"
        active = {"active": True, "sub": "user-1", "client_id": client, "scope": "read", "roles": ["buyer"]}
        self._answers: dict[bytes, dict[str, Any]] = {
            self._good.encode(): active | {"exp": NOW + 300},
            b"brief": active | {"exp": NOW + 20},
            b"old": active | {"exp": NOW},
            b"other-client": active | {"client_id": "another"},
            b"other-issuer": active | {"iss": ISSUER + "/"},
        }
        self.asked = 0

    def authenticator(self) -> Authenticator:
        return self._authenticator

    def good(self) -> Fields:
        return bearer(self._good.encode())

    def identity_lines(self) -> bytes:
        client = self._client.encode()
        return b"X-User-Id: user-1\r\nX-User-Roles: buyer\r\nX-Client-Id: " + client + b"\r\n"

    def token_line(self) -> bytes:
        return b"Authorization: Bearer " + self._good.encode() + b"\r\n"

    def brief(self) -> tuple[Fields, float]:
        return bearer(b"brief"), NOW + 20

    def missing(self) -> list[Fields]:
        return [[(b"Authorization", value)] for value in _MISSING]

    def malformed(self) -> list[Fields]:
        return [[(b"Authorization", value)] for value in _MALFORMED]

    def bad(self) -> dict[str, Fields]:
        return {
            "wrong": bearer(b"wrong"),
            "expired": bearer(b"old"),
            "another client's": bearer(b"other-client"),
            "another issuer's": bearer(b"other-issuer"),
        }

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        assert isinstance(pending.lookup, IntrospectionLookup)
        self.asked += 1
        answer = self._answers.get(pending.lookup.token, {"active": False})
        return self._authenticator.introspected(pending.lookup, answer, now)

    def costly_operations(self) -> int:
        return self.asked


ADAPTERS: list[type[Adapter]] = [OAuth2Adapter, IntrospectedAdapter]
