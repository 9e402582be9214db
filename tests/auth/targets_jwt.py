"""The tokens of a JWT gateway under attack, for each algorithm that it may sign with."""

from __future__ import annotations

from functools import cache
from typing import Any

from authgate_fast.auth.jwt import TOKEN_TYPE
from authgate_fast.snapshot import Identity
from tests.auth.jwt_world import JwtGateway
from tests.auth.token_attacks import NOW, Target


@cache
def gateway(name: str, algorithm: str) -> JwtGateway:
    return JwtGateway(name, algorithm)


class JwtTarget(Target):
    name = "JWT"
    algorithm = "EdDSA"

    def __init__(self) -> None:
        self._gateway = gateway("shop", self.algorithm)
        self.issuer = self._gateway.issuer
        self.signing = self._gateway.signing
        self.header = {"alg": self.algorithm, "kid": self.signing.kid, "typ": TOKEN_TYPE}

    def claims(self, **changes: Any) -> dict[str, Any]:
        return self._gateway.claims(**changes)

    def accepts(self, token: bytes, now: float = NOW) -> bool:
        return isinstance(self._gateway.ask(token, now=now), Identity)

    def wrong_audiences(self) -> list[Any]:
        return [
            None, "", "sho", "shopp", "Shop", "shop ", "other", ["other"], [], [["shop"]], {"shop": 1},
            {"aud": "shop"}, 7, True, "shop,other", "https://shop.example",
        ]  # fmt: skip

    def wrong_types(self) -> list[Any]:
        return [*super().wrong_types(), None]

    def foreign(self) -> bytes:
        other = gateway("other", self.algorithm)
        token = other.token()
        assert isinstance(other.ask(token), Identity)
        return token


class JwtEs256Target(JwtTarget):
    name = "JWT-ES256"
    algorithm = "ES256"


class JwtRs256Target(JwtTarget):
    name = "JWT-RS256"
    algorithm = "RS256"


TARGETS: list[type[Target]] = [JwtTarget, JwtEs256Target, JwtRs256Target]
