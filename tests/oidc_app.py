"""The OpenID provider of `oidc_provider` itself: its pages and what Authlib asks of it."""

from __future__ import annotations

import html
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import ECKey, KeySet, RSAKey

if TYPE_CHECKING:
    from tests.oidc_provider import Provider

ENDPOINTS = {
    "/.well-known/openid-configuration": "discovery",
    "/jwks": "jwks",
    "/authorize": "authorize",
    "/token": "token",
    "/userinfo": "userinfo",
    "/revoke": "revoke",
    "/introspect": "introspect",
    "/end_session": "end_session",
}
_SECRET = ("client_secret_basic", "client_secret_post")
_FORM = """<!doctype html><title>Sign in</title><form method="post">
<p>{error}</p><input id="username" name="username"><input id="password" name="password" type="password">
<button id="sign-in" name="action" value="sign-in">Sign in</button>
<button id="deny" name="action" value="deny">Cancel</button></form>"""


@dataclass
class Client:
    """A client as it is registered here; Authlib asks it through these methods."""

    client_id: str
    secret: str | None
    redirect_uris: list[str] = field(default_factory=list)
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
    scopes: frozenset[str] = frozenset({"openid", "profile", "email", "offline_access", "read", "write"})

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(name for name in (scope or "").split() if name in self.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret is not None and secrets.compare_digest(self.secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (self.secret is None)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


@dataclass
class User:
    """Somebody who can sign in; `claims` are what the scopes open."""

    password: str
    claims: dict[str, Any]

    def get_user_id(self) -> str:
        return str(self.claims["sub"])


@dataclass
class Code:
    """An authorization code that waits to be swapped."""

    code: str
    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    user: User
    auth_time: int

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class Token:
    """What was given to a client: an access token and maybe a refresh token."""

    access_token: str
    refresh_token: str | None
    client_id: str
    scope: str
    user: User | None
    expires_at: float
    audiences: list[str]
    access_ended: bool = False
    refresh_ended: bool = False

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return time.time() >= self.expires_at

    def is_revoked(self) -> bool:
        return self.access_ended


def make_key(alg: str) -> Any:
    """Make a private key for `alg` (RS256 or ES256) with a name of its own."""
    parameters: dict[str, Any] = {"kid": secrets.token_hex(4), "alg": alg, "use": "sig"}
    if alg.startswith("RS"):
        return RSAKey.generate_key(2048, parameters)
    return ECKey.generate_key("P-256", parameters)


class _AccessTokens(JWTBearerTokenGenerator):
    """Access tokens as RFC 9068 writes them, or opaque ones, as the provider is set."""

    def __init__(self, idp: Provider) -> None:
        super().__init__("", refresh_token_generator=lambda **_: secrets.token_urlsafe(32))
        self.idp = idp
        self.expires_generator = lambda client, grant_type: idp.access_ttl_s

    def get_jwks(self) -> Any:
        return KeySet([self.idp.key])

    def get_audiences(self, client: Client, user: User | None, scope: str) -> Any:
        return self.idp.audiences or client.client_id

    def get_extra_claims(
        self, client: Client, grant_type: str, user: User | None, scope: str
    ) -> dict[str, Any]:
        return {"roles": user.claims["roles"]} if user else {}

    def access_token_generator(self, client: Client, grant_type: str, user: User | None, scope: str) -> str:
        self.issuer, self.alg = self.idp.issuer, self.idp.key.get("alg")
        made = super().access_token_generator(client, grant_type, user, scope)
        return secrets.token_urlsafe(32) if self.idp.opaque else str(made)


def make_app(idp: Provider) -> flask.Flask:
    app = flask.Flask("oidc_provider")
    server = AuthorizationServer()

    def save_token(token: dict[str, Any], request: Any) -> None:
        idp.tokens.append(
            Token(
                token["access_token"], token.get("refresh_token"), request.client.client_id, token.get("scope", ""),
                request.user, time.time() + token["expires_in"], list(idp.audiences or [request.client.client_id]),
            )
        )  # fmt: skip

    server.init_app(app, query_client=idp.clients.get, save_token=save_token)
    server.register_token_generator("default", _AccessTokens(idp))

    class CodeGrant(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = (*_SECRET, "none")

        def save_authorization_code(self, code: str, request: Any) -> None:
            asked = request.payload.data
            idp.codes[code] = Code(
                code, request.client.client_id, request.payload.redirect_uri, request.scope, asked.get("nonce"),
                asked.get("code_challenge"), asked.get("code_challenge_method"), request.user, int(time.time()),
            )  # fmt: skip

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            found = idp.codes.get(code)
            return found if found and found.client_id == client.client_id else None

        def delete_authorization_code(self, authorization_code: Code) -> None:
            idp.codes.pop(authorization_code.code, None)

        def authenticate_user(self, authorization_code: Code) -> User:
            return authorization_code.user

    class RefreshGrant(grants.RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = (*_SECRET, "none")

        @property
        def INCLUDE_NEW_REFRESH_TOKEN(self) -> bool:
            return idp.rotates_refresh_tokens

        def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
            found = idp.find(refresh_token, refresh=True)
            return None if found is None or found.refresh_ended else found

        def authenticate_user(self, refresh_token: Token) -> User | None:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: Token) -> None:
            refresh_token.access_ended = True
            refresh_token.refresh_ended = idp.rotates_refresh_tokens

    class IdTokens(OpenIDCode):
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(code.nonce == nonce for code in idp.codes.values())

        def resolve_client_private_key(self, client: Client) -> Any:
            return idp.key

        def get_client_algorithm(self, client: Client) -> str:
            return str(idp.key.get("alg"))

        def get_encode_header(self, client: Client) -> dict[str, Any]:
            return {"alg": idp.key.get("alg"), "kid": idp.key.kid}

        def get_client_claims(self, client: Client) -> dict[str, Any]:
            return {"iss": idp.issuer, "aud": [client.client_id]}

        def generate_user_info(self, user: User, scope: str) -> dict[str, Any]:
            return idp.claims_of(user, scope)

    class Revocation(RevocationEndpoint):
        CLIENT_AUTH_METHODS = (*_SECRET, "none")

        def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
            return idp.find(token_string, refresh=True) or idp.find(token_string)

        def revoke_token(self, token: Token, request: Any) -> None:
            token.access_ended = token.refresh_ended = True

    class Introspection(IntrospectionEndpoint):
        CLIENT_AUTH_METHODS = _SECRET

        def check_permission(self, token: Token, client: Client, request: Any) -> bool:
            return True

        def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
            return idp.find(token_string)

        def introspect_token(self, token: Token) -> dict[str, Any]:
            found = {
                "active": True, "client_id": token.client_id, "scope": token.scope, "token_type": "Bearer",
                "exp": int(token.expires_at), "iss": idp.issuer, "aud": token.audiences,
            }  # fmt: skip
            user = token.user
            return found | (
                {"sub": user.get_user_id(), "roles": user.claims["roles"]}
                if user
                else {"sub": token.client_id}
            )

    class Issuer(IssuerParameter):
        def get_issuer(self) -> str:
            return idp.issuer

    server.register_grant(CodeGrant, [CodeChallenge(required=True), IdTokens(require_nonce=False)])
    server.register_grant(RefreshGrant, [])
    server.register_grant(grants.ClientCredentialsGrant)
    grants.ClientCredentialsGrant.TOKEN_ENDPOINT_AUTH_METHODS = list(_SECRET)
    server.register_endpoint(Revocation)
    server.register_endpoint(Introspection)
    server.register_extension(Issuer())
    _add_pages(app, server, idp)
    return app


def _add_pages(app: flask.Flask, server: Any, idp: Provider) -> None:
    @app.before_request
    def record() -> None:
        request = flask.request
        endpoint = ENDPOINTS.get(request.path, "other")
        headers = {name.lower(): value for name, value in request.headers.items()}
        idp.requests.append((endpoint, headers, request.form.to_dict()))

    @app.get("/.well-known/openid-configuration")
    def discovery() -> Any:
        return idp.discovery()

    @app.get("/jwks")
    def jwks() -> Any:
        return {"keys": [key.as_dict(private=False) for key in idp.published]}

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant(end_user=None)
        except OAuth2Error as error:
            return f"<h1>Error</h1><p id='error'>{html.escape(error.error or '')}</p>", 400
        if flask.request.method == "GET":
            return _FORM.format(error="")
        user = idp.users.get(flask.request.form.get("username", ""))
        if flask.request.form.get("action") == "deny":
            return server.create_authorization_response(grant=grant, grant_user=None)
        if user is None or user.password != flask.request.form.get("password"):
            return _FORM.format(error="That is not right."), 403
        return server.create_authorization_response(grant=grant, grant_user=user)

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    @app.post("/revoke")
    def revoke() -> Any:
        return server.create_endpoint_response("revocation")

    @app.post("/introspect")
    def introspect() -> Any:
        return server.create_endpoint_response("introspection")

    @app.route("/userinfo", methods=["GET", "POST"])
    def userinfo() -> Any:
        scheme, _, text = flask.request.headers.get("Authorization", "").partition(" ")
        found = idp.find(text) if scheme.lower() == "bearer" else None
        if found is None or found.user is None or found.is_expired() or found.is_revoked():
            return {"error": "invalid_token"}, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return idp.claims_of(found.user, found.scope)

    @app.route("/end_session", methods=["GET", "POST"])
    def end_session() -> Any:
        target = flask.request.values.get("post_logout_redirect_uri")
        if target is None:
            return "<h1 id='signed-out'>Signed out</h1>"
        state = flask.request.values.get("state")
        return flask.redirect(f"{target}?{urlencode({'state': state})}" if state else target)
