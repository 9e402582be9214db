"""The ``auth`` of a gateway document: one mapping for each auth type (DESIGN section 3). Part of `model`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from authgate_fast.model_fields import (
    ClaimPath,
    ClientId,
    FrontendUrl,
    HeaderName,
    Issuer,
    ScopeName,
    Strict,
    refusal,
)


class ApiKeyAuth(Strict):
    """A key in a request field."""

    type: Literal["API_KEY"] = Field(description="API_KEY")
    header: HeaderName = Field("X-Api-Key", description="the name of a request field, such as X-Api-Key")


def _read_secret(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, dict) and "text" in value:  # not a field for users: refused like any unknown one
        return {f"{name} " if name == "text" else name: item for name, item in value.items()}
    return value


class SecretDocument(BaseModel):
    """A secret: the text itself, or where it stands; there it is read when it is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = Field(None, min_length=1, max_length=4_096, repr=False)
    env: str | None = Field(
        None, pattern="^[A-Za-z_][A-Za-z0-9_]{0,127}$", description="the name of an environment variable"
    )
    file: str | None = Field(None, min_length=1, max_length=4_096, description="the path of a file")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(place is not None for place in (self.text, self.env, self.file)) != 1:
            raise refusal("a secret is a text, or a mapping with either env or file", "write {env: NAME}")
        return self


Secret = Annotated[SecretDocument, BeforeValidator(_read_secret)]
_SECRET_RULE = "a text, or where it stands: {env: NAME} or {file: PATH}"
_TTL_RULE = "a whole number of seconds"


class BasicAuth(Strict):
    """A username and a password in every request (RFC 7617)."""

    type: Literal["BASIC"] = Field(description="BASIC")
    realm: str | None = Field(
        None,
        pattern=r"^[ !#-\[\]-~]{1,128}$",
        description="a text of visible ASCII characters without '\"' and \"\\\"; left out, the gateway's name",
    )


class JwtAuth(Strict):
    """Tokens that the gateway itself gives to a consumer that logs in."""

    type: Literal["JWT"] = Field(description="JWT")
    access_ttl_s: int = Field(900, ge=1, le=86_400, description=f"{_TTL_RULE} from 1 to 86400")
    refresh_ttl_s: int = Field(
        1_209_600, ge=60, le=31_536_000, description=f"{_TTL_RULE} from 60 to 31536000 (a year)"
    )
    issuer: str | None = Field(
        None,
        pattern=r"^https?://[\x21\x23-\x5b\x5d-\x7e]{1,1024}$",
        description="an http or https URL; left out, https:// and the first host of the gateway",
    )
    algorithm: Literal["EdDSA", "ES256", "RS256"] = Field(
        "EdDSA", description="EdDSA, ES256 or RS256: how new tokens are signed"
    )


class OAuth2Auth(Strict):
    """Access tokens of an identity provider."""

    type: Literal["OAUTH2"] = Field(description="OAUTH2")
    issuer: Issuer = Field(description="the URL of the identity provider, as its tokens name it in `iss`")
    client_id: ClientId = Field(description="the client whose tokens are accepted")
    client_secret: Secret | None = Field(
        None, repr=False, description=f"{_SECRET_RULE}; needed with introspect: true"
    )
    audience: str | None = Field(
        None,
        min_length=1,
        max_length=1_024,
        description="what `aud` of a token must hold; null: tokens must name the client instead",
    )
    introspect: bool = Field(
        False, description="true (ask the provider about each new token, RFC 7662) or false"
    )
    introspection_cache_s: int = Field(
        30, ge=0, le=3_600, description=f"{_TTL_RULE} from 0 to 3600 for which an answer is believed"
    )
    roles_claim: ClaimPath = Field("roles", description="a claim, such as roles or realm_access.roles")
    forward_token: bool = Field(True, description="true (the backend gets the token) or false")

    @model_validator(mode="after")
    def _check_introspection(self) -> Self:
        if self.introspect and self.client_secret is None:
            raise refusal(
                "a provider answers introspection only to a client with a secret", at=("client_secret",)
            )
        return self


class BffAuth(Strict):
    """A browser's session; the tokens stay on the server."""

    type: Literal["BFF"] = Field(description="BFF")
    issuer: Issuer = Field(description="the URL of the identity provider, as its tokens name it in `iss`")
    client_id: ClientId = Field(description="the client that this gateway is to the provider")
    client_secret: Secret | None = Field(None, repr=False, description=_SECRET_RULE)
    scopes: tuple[ScopeName, ...] = Field(
        ("openid", "profile", "email"), max_length=64, description="a list of scopes; openid is one of them"
    )
    frontend_url: FrontendUrl | None = Field(
        None, description="the URL that serves what no route matches, such as https://shop.example.app"
    )
    idle_ttl_s: int = Field(1_800, ge=60, le=31_536_000, description=f"{_TTL_RULE} from 60 to 31536000")
    absolute_ttl_s: int = Field(43_200, ge=60, le=31_536_000, description=f"{_TTL_RULE} from 60 to 31536000")
    roles_claim: ClaimPath = Field("roles", description="a claim, such as roles or realm_access.roles")

    @field_validator("scopes", mode="after")
    @classmethod
    def _check_scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise refusal("without the scope openid the provider sends no ID token", "add openid")
        return scopes


Auth = ApiKeyAuth | BasicAuth | JwtAuth | OAuth2Auth | BffAuth
AUTH_MODELS: dict[str, type[Auth]] = {
    "API_KEY": ApiKeyAuth,
    "BASIC": BasicAuth,
    "JWT": JwtAuth,
    "OAUTH2": OAuth2Auth,
    "BFF": BffAuth,
}
