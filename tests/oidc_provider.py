"""An OpenID provider on loopback, made with Authlib and Flask: a second opinion, not our own assumptions.

    with provider() as idp:                              # or: idp = Provider(); ...; idp.close()
        idp.issuer                                       # "http://127.0.0.1:41231"
        idp.clients["shop"].redirect_uris.append("http://127.0.0.1:8080/bff/callback")
        idp.login("shop", redirect_uri)                  # a real code flow with PKCE, without a browser: token answer
        idp.client_token("machine")                      # client credentials: token answer

It offers discovery, JWKS, /authorize (GET shows the form: `username`, `password`, a button with the id `sign-in` and one
with the id `deny`; users and passwords: `idp.users`), /token (code + PKCE, refresh with rotation, client
credentials), /userinfo, /revoke, /introspect and /end_session (redirects to `post_logout_redirect_uri`).
Clients: "shop" (confidential), "spa" (public), "other" (confidential), "machine" (client credentials). Settings of
the provider and of its clients are attributes, and may be changed while it runs:

    idp.opaque = True               # access tokens are opaque instead of JWTs (RFC 9068)
    idp.access_ttl_s = 5            # how long the next access tokens live
    idp.audiences = ["api://shop"]  # `aud` of the next access tokens (default: the client's id)
    idp.rotate_keys(keep_old=True)  # sign with a new key from now on; RS256, or rotate_keys(alg="ES256")
    idp.metadata["issuer"] = "..."  # overrides of the discovery document; None removes a member
    idp.revoke_all()                # ends every access and refresh token
    idp.sign({...claims}, **header) # any token, signed with the current key: for attacks

Faults, by endpoint name ("discovery", "jwks", "authorize", "token", "userinfo", "revoke", "introspect",
"end_session") or "*": `idp.fail("token", status=500)`, `delay_s=2`, `body=b"..."`, `size=5_000_000` (a huge answer),
`cut=True` (breaks off in the middle); `idp.heal()` ends them. `idp.down()` closes the port, `idp.up()` opens it again.
`idp.calls["jwks"]` counts the requests received; `idp.requests` lists them as (endpoint, headers, form).

`python -m tests.oidc_provider --port 9400` runs one by hand, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import logging
import secrets
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from werkzeug.serving import make_server

from tests.oidc_app import ENDPOINTS, Client, Code, Token, User, make_app, make_key

BOUND_S = 20.0
_spare_keys: list[Any] = []  # of providers that are closed: an RSA key takes long to make


def _bound(port: int) -> socket.socket:
    """Return a socket at a port of 127.0.0.1 (0: a free one) that leaves room for others of ours there."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


@dataclass
class Fault:
    """How an endpoint misbehaves."""

    status: int | None = None
    delay_s: float = 0.0
    body: bytes | None = None
    size: int | None = None
    cut: bool = False


class Provider:
    """The provider. `port` 0 takes a free one; `tls` is (certificate file, key file) for https on 127.0.0.1."""

    def __init__(self, port: int = 0, tls: tuple[str, str] | None = None) -> None:
        self.users = {
            "ann": User(
                "ann-password",
                {"sub": "u-1", "name": "Ann", "email": "ann@example.com", "roles": ["buyer", "admin"]},
            ),
            "bob": User(
                "bob-password", {"sub": "u-2", "name": "Bøb", "email": "bob@example.com", "roles": ["buyer"]}
            ),
        }
        self.clients = {
            client.client_id: client
            for client in (
                Client("shop", "shop secret: 50%25+1"),
                Client("spa", None),
                Client("other", "other-secret"),
                Client("machine", "machine-secret", grant_types=("client_credentials",)),
            )
        }
        self.opaque = False
        self.access_ttl_s = 300
        self.audiences: list[str] | None = None
        self.rotates_refresh_tokens = True
        self.metadata: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.key = self._first_key = _spare_keys.pop() if _spare_keys else make_key("RS256")
        self.published = [self.key]
        self.codes: dict[str, Code] = {}
        self.tokens: list[Token] = []
        self._faults: dict[str, Fault] = {}
        self._closing = threading.Event()
        self._tls = tls
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._app = make_app(self)
        self._place = _bound(port)
        """Not listening: it keeps the port ours while the provider is down, and connections are refused."""
        self.port: int = self._place.getsockname()[1]
        self.up()
        self.issuer = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    # What tests do to it

    def up(self) -> None:
        """Open the port (again)."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        listening = _bound(self.port)
        listening.listen(128)
        self._server = make_server(
            "127.0.0.1", self.port, self._respond, threaded=True, ssl_context=self._tls, fd=listening.fileno()
        )
        listening.close()  # the server has a descriptor of its own
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Close the port: connections are refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(BOUND_S)
            self._server = None

    def close(self) -> None:
        self._closing.set()
        self.down()
        self._place.close()
        _spare_keys.append(self._first_key)

    def fail(self, endpoint: str, **fault: Any) -> None:
        self._faults[endpoint] = Fault(**fault)

    def heal(self, endpoint: str | None = None) -> None:
        if endpoint is None:
            self._faults.clear()
        else:
            self._faults.pop(endpoint, None)

    def rotate_keys(self, *, keep_old: bool = True, alg: str = "RS256") -> None:
        self.key = make_key(alg)
        self.published = [*(self.published if keep_old else []), self.key]

    def revoke_all(self) -> None:
        for token in self.tokens:
            token.access_ended = token.refresh_ended = True

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Sign any claims with the current key. A header value of None leaves the name out."""
        complete = {"alg": self.key.get("alg"), "kid": self.key.kid, "typ": "at+jwt"} | header
        return jwt.encode(
            {name: value for name, value in complete.items() if value is not None},
            claims,
            self.key,
            algorithms=[self.key.get("alg")],
        )

    def login(
        self, client_id: str, redirect_uri: str = "http://127.0.0.1/cb", *, user: str = "ann", scope: str = "openid profile read",
        nonce: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Sign in as a browser and a client would, and return the token endpoint's answer."""
        client = self.clients[client_id]
        if redirect_uri not in client.redirect_uris:
            client.redirect_uris.append(redirect_uri)
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code", "client_id": client_id, "redirect_uri": redirect_uri, "scope": scope, "state": "s",
            "code_challenge": challenge, "code_challenge_method": "S256",
        } | ({"nonce": nonce} if nonce else {})  # fmt: skip
        form = {"username": user, "password": self.users[user].password, "action": "sign-in"}
        status, headers, _ = self._post(f"/authorize?{urlencode(query)}", form)
        assert status == 302, status
        code = parse_qs(urlsplit(headers["location"]).query)["code"][0]
        return self.swap(client_id, code, redirect_uri, verifier)

    def swap(self, client_id: str, code: str, redirect_uri: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier,
        }  # fmt: skip
        return self._ask_token(client_id, form)

    def client_token(self, client_id: str = "machine", scope: str = "read") -> dict[str, Any]:
        return self._ask_token(client_id, {"grant_type": "client_credentials", "scope": scope})

    def _ask_token(self, client_id: str, form: dict[str, str]) -> dict[str, Any]:
        secret = self.clients[client_id].secret
        form |= {"client_id": client_id} | ({"client_secret": secret} if secret else {})
        status, _, body = self._post("/token", form)
        assert status == 200, body
        return dict(json.loads(body))

    def _post(self, target: str, form: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)
        if self._tls is not None:
            trusting = ssl.create_default_context(cafile=self._tls[0])
            trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is the anchor
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=BOUND_S, context=trusting
            )
        try:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", target, urlencode(form), kind)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    # The server's side: count, misbehave if told to, else let the application answer

    def _respond(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        endpoint = ENDPOINTS.get(environ["PATH_INFO"], "other")
        self.calls[endpoint] += 1
        fault = self._faults.get(endpoint) or self._faults.get("*")
        if fault is not None:
            if fault.delay_s:
                self._closing.wait(fault.delay_s)
            if fault.status is not None or fault.body is not None or fault.size is not None or fault.cut:
                body = fault.body if fault.body is not None else b"{" + b" " * (fault.size or 0) + b"}"
                length = len(body) + (100 if fault.cut else 0)
                lines = [("Content-Type", "application/json"), ("Content-Length", str(length))]
                start_response(f"{fault.status or 200} Fault", lines)
                return [body]
        return self._app.wsgi_app(environ, start_response)

    def discovery(self) -> dict[str, Any]:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "introspection_endpoint": f"{self.issuer}/introspect",
            "end_session_endpoint": f"{self.issuer}/end_session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata
        return {name: value for name, value in found.items() if value is not None}

    def claims_of(self, user: User, scope: str) -> dict[str, Any]:
        opened = (
            {"sub", "roles"}
            | ({"name"} if "profile" in scope else set())
            | ({"email"} if "email" in scope else set())
        )
        return {name: value for name, value in user.claims.items() if name in opened}

    def find(self, text: str, *, refresh: bool = False) -> Token | None:
        for token in self.tokens:
            if text == (token.refresh_token if refresh else token.access_token):
                return token
        return None


@contextmanager
def provider(**settings: Any) -> Iterator[Provider]:
    """Run a provider until the block ends."""
    made = Provider(**settings)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    """Run a provider in the foreground."""
    parser = argparse.ArgumentParser(description="An OpenID provider on loopback, for trying things out.")
    parser.add_argument("--port", type=int, default=9400)
    parser.add_argument("--opaque", action="store_true", help="give opaque access tokens instead of JWTs")
    parser.add_argument(
        "--callback", action="append", default=[], help="a redirect URI of the clients shop and spa"
    )
    arguments = parser.parse_args()
    with provider(port=arguments.port) as idp:
        idp.opaque = arguments.opaque
        for name in ("shop", "spa"):
            idp.clients[name].redirect_uris.extend(arguments.callback)
        print(f"issuer {idp.issuer}")
        for client in idp.clients.values():
            print(
                f"client {client.client_id}, " + (f"secret {client.secret!r}" if client.secret else "public")
            )
        for username, user in idp.users.items():
            print(f"user {username}, password {user.password}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
