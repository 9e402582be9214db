"""From the ``auth`` of a gateway document to what checks its callers. Pure: no IO, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.addresses import parse_target_url
from authgate_fast.auth.api_key import ApiKeyAuthenticator
from authgate_fast.auth.basic import BasicAuthenticator
from authgate_fast.auth.bff import BffAuthenticator, BffSettings
from authgate_fast.auth.jwt import JwtAuthenticator
from authgate_fast.auth.oauth2 import OAuth2Authenticator, OAuth2Settings
from authgate_fast.auth.secret import SecretRef
from authgate_fast.model_auth import ApiKeyAuth, BasicAuth, BffAuth, JwtAuth, OAuth2Auth, SecretDocument
from authgate_fast.snapshot import Consumers, Route, Service, Target

if TYPE_CHECKING:
    from authgate_fast.auth.interface import Authenticator
    from authgate_fast.model import GatewayDocument
    from authgate_fast.model_auth import Auth
    from authgate_fast.snapshot import TimeoutSettings


def make_authenticator(gateway: str, document: GatewayDocument, consumers: Consumers) -> Authenticator:
    """Make what checks the callers of a gateway. It remembers checks, so keep it while `auth_key` is the same."""
    auth = document.auth
    if isinstance(auth, ApiKeyAuth):
        return ApiKeyAuthenticator(gateway, auth.header, consumers)
    if isinstance(auth, BasicAuth):
        return BasicAuthenticator(gateway, auth.realm or gateway, consumers)
    if isinstance(auth, JwtAuth):
        return JwtAuthenticator(
            gateway,
            jwt_issuer(auth, document),
            consumers,
            access_ttl_s=auth.access_ttl_s,
            refresh_ttl_s=auth.refresh_ttl_s,
            algorithm=auth.algorithm,
        )
    if isinstance(auth, OAuth2Auth):
        return OAuth2Authenticator(
            gateway,
            OAuth2Settings(
                issuer=auth.issuer,
                client_id=auth.client_id,
                client_secret=_secret(auth.client_secret),
                audience=auth.audience,
                introspect=auth.introspect,
                introspection_cache_s=auth.introspection_cache_s,
                roles_claim=auth.roles_claim,
            ),
        )
    assert isinstance(auth, BffAuth)
    return BffAuthenticator(
        gateway,
        BffSettings(
            issuer=auth.issuer,
            client_id=auth.client_id,
            client_secret=_secret(auth.client_secret),
            scopes=auth.scopes,
            idle_ttl_s=auth.idle_ttl_s,
            absolute_ttl_s=auth.absolute_ttl_s,
            roles_claim=auth.roles_claim,
        ),
    )


def auth_key(document: GatewayDocument) -> tuple[Auth, str]:
    """Return all that an authenticator depends on: while it is equal, the authenticator can stay."""
    auth = document.auth
    return auth, jwt_issuer(auth, document) if isinstance(auth, JwtAuth) else ""


def jwt_issuer(auth: JwtAuth, document: GatewayDocument) -> str:
    """Return what a JWT gateway calls itself in ``iss`` (DESIGN section 7)."""
    if auth.issuer is not None:
        return auth.issuer
    first = next((host for host in document.hosts if not host.startswith("*")), "localhost")
    return f"https://{first}"


def make_frontend(auth: Auth, settings: TimeoutSettings) -> Route | None:
    """Return the route to a BFF gateway's frontend, which serves what no other route matches."""
    if not isinstance(auth, BffAuth) or auth.frontend_url is None:
        return None
    url = parse_target_url(auth.frontend_url)
    target = Target(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        base_path=url.base_path.encode("ascii"),
        host_line=f"Host: {url.authority}\r\n".encode("ascii"),
    )
    name = "frontend_url"
    return Route(name, b"GET", "/{path*}", False, name, Service(name, (target,)), (), settings)


def _secret(document: SecretDocument | None) -> SecretRef | None:
    if document is None:
        return None
    return SecretRef(text=document.text, env=document.env, file=document.file)
