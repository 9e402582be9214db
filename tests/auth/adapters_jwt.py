"""The tokens of a JWT gateway in the conformance kit, once for each algorithm."""

from __future__ import annotations

from functools import cache

from authgate_fast.auth import tokens
from authgate_fast.auth.interface import Authenticator, Denial
from authgate_fast.auth.tokens import MAX_TOKEN_BYTES, encode_base64url
from authgate_fast.decision import Pending
from authgate_fast.snapshot import Identity
from tests.auth.jwt_world import JwtGateway
from tests.auth.kit import NOW, Adapter
from tests.auth.users import user
from tests.plan_world import Fields


def bearer(token: bytes) -> Fields:
    return [(b"Authorization", b"Bearer " + token)]


class Counting:
    """Counts the signatures that an algorithm has checked."""

    def __init__(self, real: object) -> None:
        self.real = real
        self.checked = 0

    def verify(self, *arguments: object) -> bool:
        self.checked += 1
        return bool(self.real.verify(*arguments))  # type: ignore[attr-defined]

    def sign(self, *arguments: object) -> bytes:
        signature: bytes = self.real.sign(*arguments)  # type: ignore[attr-defined]
        return signature


@cache
def counting(algorithm: str) -> Counting:
    made = Counting(tokens._IMPLEMENTATIONS[algorithm])
    tokens._IMPLEMENTATIONS[algorithm] = made  # type: ignore[assignment]
    return made


class JwtAdapter(Adapter):
    name = "JWT"
    field = b"authorization"
    prefix = b"Bearer "
    algorithm = "EdDSA"

    def __init__(self, gateway: str = "kit") -> None:
        super().__init__(gateway)
        self._gateway = JwtGateway(gateway, self.algorithm, self.consumers)
        self._gateway.add(user("brief", "no hash", expires_at=NOW + 50))
        self._counter = counting(self.algorithm)
        self._good = self._gateway.token()

    def authenticator(self) -> Authenticator:
        return self._gateway.authenticator

    def good(self) -> Fields:
        return bearer(self._good)

    def identity_lines(self) -> bytes:
        return b"X-Consumer-Id: ann\r\nX-Consumer-Roles: reader\r\nX-Credential-Id: jti-of-ann\r\n"

    def brief(self) -> tuple[Fields, float]:
        return bearer(self._gateway.token(exp=int(NOW) + 100)), NOW + 100

    def missing(self) -> list[Fields]:
        values = (b"", b"Basic YTpi", b"Bearerx abc", b"ApiKey abc")
        return [[(b"Authorization", value)] for value in values]

    def malformed(self) -> list[Fields]:
        token = self._good
        head, payload, signature = token.split(b".")
        values = [
            b"",
            b" ",
            b"abc",
            b"a.b",
            b"..",
            b"a.b.c",
            b"a.b.c.d.e",
            b"." + payload + b"." + signature,
            head + b"." + payload + b".",
            head + b".." + signature,
            token + b"=",
            token + b".",
            b"." + token,
            token + b" " + token,
            token[:20] + b" " + token[20:],
            token.replace(b".", b",", 1),
            encode_base64url(b"[]") + b"." + payload + b"." + signature,
            encode_base64url(b"\xff") + b"." + payload + b"." + signature,
        ]
        return [[(b"Authorization", b"Bearer" + (b" " if value else b"") + value)] for value in values]

    def oversized(self) -> Fields:
        return bearer(self._gateway.token(padding="x" * MAX_TOKEN_BYTES))

    def bad(self) -> dict[str, Fields]:
        head, payload, signature = self._good.split(b".")
        other = b"B" if signature[5:6] != b"B" else b"C"
        return {
            "wrong": bearer(b".".join((head, payload, signature[:5] + other + signature[6:]))),
            "expired": bearer(self._gateway.token(exp=int(NOW))),
            "long expired": bearer(self._gateway.token(exp=int(NOW) - 9_000)),
            "disabled": bearer(self._gateway.token(sub="gone", preferred_username="gone")),
            "renamed": bearer(self._gateway.token(sub="gone")),
        }

    def end_access(self) -> bool:
        del self.consumers.users[b"ann"]
        return True

    def resolve(self, pending: Pending, now: float) -> Identity | Denial:
        return self._gateway.answer(pending, now)

    def costly_operations(self) -> int:
        return self._counter.checked


class JwtEs256Adapter(JwtAdapter):
    name = "JWT-ES256"
    algorithm = "ES256"


class JwtRs256Adapter(JwtAdapter):
    name = "JWT-RS256"
    algorithm = "RS256"


ADAPTERS: list[type[Adapter]] = [JwtAdapter, JwtEs256Adapter, JwtRs256Adapter]
