"""The ``auth`` of a gateway document: each type, each mistake with its place and what to do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from authgate_fast.config.authenticators import jwt_issuer
from authgate_fast.config.documents import read_document
from authgate_fast.config.keys import DocumentKey
from authgate_fast.model import GatewayDocument
from authgate_fast.model_auth import BffAuth, JwtAuth, OAuth2Auth

KEY = DocumentKey("gateway", "shop", "shop")
OAUTH2 = {"type": "OAUTH2", "issuer": "https://iam.test", "client_id": "c"}
BFF = {**OAUTH2, "type": "BFF"}


def read(auth: Any, hosts: list[str] | None = None) -> GatewayDocument | list[str]:
    found = read_document(KEY, orjson.dumps({"hosts": hosts or ["shop.test"], "auth": auth}))
    if isinstance(found, list):
        return [str(problem).removeprefix("authgate:gateway:shop: ") for problem in found]
    assert isinstance(found, GatewayDocument)
    return found


def good(auth: Any, hosts: list[str] | None = None) -> GatewayDocument:
    found = read(auth, hosts)
    assert isinstance(found, GatewayDocument), found
    return found


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("BASIC", 'auth: found "BASIC"; allowed: a mapping with a type: API_KEY, BASIC, JWT, OAUTH2 or BFF (write {type: BASIC})'),
        ({}, "auth.type: found nothing; this field is required: one of API_KEY, BASIC, JWT, OAUTH2, BFF"),
        ({"type": "BASC"}, 'auth.type: found "BASC"; allowed: one of API_KEY, BASIC, JWT, OAUTH2, BFF (did you mean `BASIC`?)'),
        ({"type": "BASIC", "relm": "x"}, "auth.relm: found a field that does not exist; the fields here are type, realm (did you mean `realm`?)"),
        ({"type": "BASIC", "realm": 'a"b'}, "auth.realm: found"),
        ({"type": "JWT", "access_ttl_s": "5"}, 'auth.access_ttl_s: found "5"; allowed: a whole number of seconds from 1 to 86400'),
        ({"type": "JWT", "access_ttl_s": 0}, "auth.access_ttl_s: found 0"),
        ({"type": "JWT", "algorithm": "HS256"}, 'auth.algorithm: found "HS256"; allowed: EdDSA, ES256 or RS256'),
        ({"type": "JWT", "algorithm": "none"}, "auth.algorithm: found"),
        ({"type": "JWT", "issuer": "shop.test"}, "auth.issuer: found"),
        ({**OAUTH2, "issuer": "http://iam.test"}, 'auth.issuer: found "http://iam.test"; tokens over plain http can be read and changed on the way (use https)'),
        ({**OAUTH2, "issuer": "https://iam.test/.well-known/openid-configuration"}, "auth.issuer: found"),
        ({"type": "OAUTH2", "client_id": "c"}, "auth.issuer: found nothing; this field is required"),
        ({**OAUTH2, "introspect": True}, "auth.client_secret: a provider answers introspection only to a client with a secret"),
        ({**OAUTH2, "roles_claim": "a..b"}, "auth.roles_claim: found"),
        ({**OAUTH2, "client_secret": {"envv": "X"}}, "auth.client_secret.envv: found a field that does not exist; the fields here are env, file (did you mean `env`?)"),
        ({**OAUTH2, "client_secret": {"env": "X", "file": "y"}}, "auth.client_secret: found a mapping of fields; a secret is a text, or a mapping with either env or file"),
        ({**OAUTH2, "client_secret": {"text": "hidden"}}, "auth.client_secret.text : found a field that does not exist"),
        ({**OAUTH2, "client_secret": 5}, "auth.client_secret: found a number; allowed: a text, or where it stands"),
        ({**BFF, "scopes": ["profile"]}, "auth.scopes: found a list; without the scope openid the provider sends no ID token (add openid)"),
        ({**BFF, "scopes": ["openid", "a b"]}, "auth.scopes[1]: found"),
        ({**BFF, "frontend_url": "http://169.254.169.254/"}, "auth.frontend_url: found"),
        ({**BFF, "idle_ttl_s": 5}, "auth.idle_ttl_s: found 5"),
        ({**BFF, "introspect": True}, "auth.introspect: found a field that does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place_and_says_what_is_allowed(auth: Any, said: str) -> None:
    (problem,) = read(auth)  # type: ignore[misc]  # a list of one
    assert problem.startswith(said)


def test_defaults_are_those_of_the_design() -> None:
    jwt = good({"type": "JWT"}).auth
    assert isinstance(jwt, JwtAuth)
    assert (jwt.access_ttl_s, jwt.refresh_ttl_s, jwt.algorithm) == (900, 1_209_600, "EdDSA")
    oauth2 = good(OAUTH2).auth
    assert isinstance(oauth2, OAuth2Auth)
    assert (oauth2.audience, oauth2.introspect, oauth2.forward_token) == (None, False, True)
    bff = good(BFF).auth
    assert isinstance(bff, BffAuth)
    assert (bff.idle_ttl_s, bff.absolute_ttl_s, bff.scopes) == (1_800, 43_200, ("openid", "profile", "email"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "iam.localhost", "[::1]"])
def test_a_provider_on_this_machine_may_speak_plain_http(host: str) -> None:
    good({**OAUTH2, "issuer": f"http://{host}:9000/realm"})


def test_an_issuer_stays_as_it_was_written() -> None:
    auth = good({**OAUTH2, "issuer": "https://iam.test/"}).auth
    assert isinstance(auth, OAuth2Auth)
    assert auth.issuer == "https://iam.test/"


@pytest.mark.parametrize("secret", ["geheim", {"env": "STORE_SECRET"}, {"file": "/run/secrets/store"}])
def test_a_secret_is_never_shown(secret: Any) -> None:
    document = good({**BFF, "client_secret": secret})
    assert "geheim" not in repr(document)
    assert "geheim" not in str(read({**BFF, "client_secret": secret, "wrong": 1}))


def test_the_issuer_of_a_jwt_gateway_is_its_first_named_host() -> None:
    for hosts, issuer in (
        (["shop.test", "b.test"], "https://shop.test"),
        (["*.shop.test", "b.test"], "https://b.test"),
        (["*"], "https://localhost"),
    ):
        document = good({"type": "JWT"}, hosts)
        assert isinstance(document.auth, JwtAuth)
        assert jwt_issuer(document.auth, document) == issuer
    document = good({"type": "JWT", "issuer": "https://me.test/x"})
    assert isinstance(document.auth, JwtAuth)
    assert jwt_issuer(document.auth, document) == "https://me.test/x"
