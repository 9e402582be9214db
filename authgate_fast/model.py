"""The documents: gateway, service, route, consumer. The only schema there is.

A document is judged from JSON bytes, strictly: nothing is coerced, unknown fields are refused, and the
value that passed never changes. Each field's description says what is allowed; the messages that users
read are made of it. What needs more than one document to judge is not judged here.

Consumers are validated by the hundred thousand: only their rare fields may cost a Python call.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from authgate_fast.addresses import TargetUrl, is_guarded, parse_network, parse_public_host, parse_target_url
from authgate_fast.decision import UNIX
from authgate_fast.model_auth import Auth
from authgate_fast.model_balance import BalancingFields, TargetEntry
from authgate_fast.model_fields import (
    DEFAULT_KEY_ID,
    MAX_LIST,
    NAME_RULE,
    PASSWORD_RULE,
    ROLE_RULE,
    KeyHash,
    Moment,
    Name,
    Network,
    PasswordHash,
    PublicPath,
    Roles,
    Seconds,
    Strict,
    TargetPath,
    Upgrade,
    Url,
    read_with,
    refusal,
    seconds_of,
)
from authgate_fast.model_tls import BackendTlsDocument
from authgate_fast.routing.template import (
    Pieces,
    Template,
    TemplateError,
    parse_public,
    parse_target,
    target_pieces,
)


class Document(Strict):
    """What every document may carry."""

    enabled: bool = Field(True, description="true or false; false is as if the document were not there")
    description: str | None = Field(None, max_length=1_000, description="a text of at most 1000 characters")


class Narrowing(Document):
    """Limits that a service or route may set below the node's (``limits.NARROWABLE``)."""

    max_body_bytes: int | None = Field(
        None, gt=0, lt=1 << 63, description="a whole number of bytes above zero"
    )
    body_timeout_s: Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    connect_timeout_s: Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    first_byte_timeout_s: Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    between_bytes_timeout_s: Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    tunnel_idle_timeout_s: Seconds | None = Field(None, description="seconds, above zero and at most 86400")


class PathPolicyDocument(Strict):
    """What a gateway lets pass besides the strict path policy."""

    allow: tuple[Literal["double_slash", "semicolon", "encoded_slash"], ...] = Field(
        (), max_length=3, description="a list of double_slash, semicolon, encoded_slash"
    )


class GatewayDocument(Document):
    """A public front door, chosen by the request's host."""

    hosts: tuple[Annotated[str, Field(max_length=300)], ...] = Field(
        min_length=1,
        max_length=MAX_LIST,
        description='a list with at least one host, such as [shop.example.com, "*"]',
    )
    auth: Annotated[Auth, Field(discriminator="type")] = Field(
        description="a mapping with a type: API_KEY, BASIC, JWT, OAUTH2 or BFF"
    )
    path_policy: PathPolicyDocument = Field(
        PathPolicyDocument(allow=()), description="a mapping such as {allow: [double_slash]}"
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        max_length=MAX_LIST,
        description='a list of addresses, ranges and "unix:", such as [10.0.0.0/8, "unix:"]',
    )

    @field_validator("hosts", mode="after")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        parsed: list[str] = []
        for index, text in enumerate(hosts):
            host = read_with(parse_public_host, text, (index,))
            if host in parsed:
                raise refusal(f"the host {host} stands here twice; write it once", at=(index,))
            parsed.append(host)
        return tuple(parsed)

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(parse_network(text) for text in self.trusted_proxies if text != UNIX)


class ServiceDocument(Narrowing, BalancingFields):
    """A backend API: one or more target URLs."""

    target_url: Url | None = Field(
        None, description="the backend's URL, such as http://catalog:8080 or https://example.com/v1"
    )
    target_urls: tuple[TargetEntry, ...] | None = Field(
        None,
        max_length=MAX_LIST,
        description="a list of at least one URL or {url, weight}, instead of target_url",
    )
    preserve_host: bool = Field(False, description="true (the backend sees the client's Host) or false")
    forward_token: bool = Field(
        True, description="true or false; false keeps OAuth2 and BFF tokens from this backend"
    )
    allow_link_local: bool = Field(
        False, description="true or false; true lets link-local addresses be targets"
    )
    tls: BackendTlsDocument | None = Field(
        None, description="a mapping for https targets, such as {ca_file: /etc/authgate/backends.pem}"
    )

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if (self.target_url is None) == (self.target_urls is None):
            raise refusal("a service has either target_url or target_urls", at=("target_url",))
        if self.target_urls == ():
            raise refusal("target_urls lists at least one URL", at=("target_urls",))
        if not self.allow_link_local:
            for index, target in enumerate(self.targets):
                if is_guarded(target.host):
                    raise refusal(
                        "link-local addresses and cloud metadata services cannot be targets",
                        "set allow_link_local: true if this is meant",
                        ("target_url",) if self.target_url is not None else ("target_urls", index),
                    )
        for index, target in enumerate(self.targets):
            if target in self.targets[:index]:
                raise refusal("this target stands here twice; give it a weight", at=("target_urls", index))
        if not any(self.weights):
            raise refusal(
                "a target needs a weight above 0", "enabled: false switches a service off", ("target_urls",)
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls is not None and not any(target.scheme == "https" for target in self.targets):
            raise refusal("none of the targets is spoken to over TLS", "write https://", ("tls",))
        return self

    @cached_property
    def targets(self) -> tuple[TargetUrl, ...]:
        """All target URLs, taken apart."""
        entries = self.target_urls if self.target_url is None else (self.target_url,)
        texts = [entry if isinstance(entry, str) else entry.url for entry in entries or ()]
        return tuple(parse_target_url(text) for text in texts)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The share of each target."""
        return tuple(1 if isinstance(entry, str) else entry.weight for entry in self.target_urls or ("",))


class RouteDocument(Narrowing):
    """A method and public path, and the path on a service that answers it."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY"] = Field(
        description="one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, or ANY for all methods"
    )
    public_path: PublicPath = Field(description="a path such as /api/products/{id}")
    target_path: TargetPath | None = Field(
        None, description="a path such as /products/{id}; left out, it is the public_path"
    )
    service: Name = Field(description=f"the name of a service: {NAME_RULE}")
    security: Literal["PUBLIC", "SECURE"] = Field(
        description="PUBLIC (anybody may call) or SECURE (a credential is checked)"
    )
    roles: Roles = Field((), description=f"a list of names, each {ROLE_RULE}")
    scopes: Roles = Field((), description=f"a list of names, each {ROLE_RULE}")
    consumers: tuple[Name, ...] = Field(
        (), max_length=10_000, description=f"a list of consumers' names: {NAME_RULE}"
    )
    upgrades: tuple[Upgrade, ...] = Field(
        ("websocket",),
        max_length=MAX_LIST,
        description="a list of protocols that a request may switch to, such as [websocket]; [] forbids all",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        try:
            self.pieces  # noqa: B018  # computed here, once, so that a wrong pair is refused
        except TemplateError as error:
            raise refusal(str(error), at=("target_path",)) from None
        if self.security == "PUBLIC":
            for name in ("roles", "scopes", "consumers"):
                if getattr(self, name):
                    raise refusal(
                        "a PUBLIC route asks nobody who they are, so it cannot narrow who may call",
                        "set security: SECURE",
                        (name,),
                    )
        return self

    @cached_property
    def template(self) -> Template:
        return parse_public(self.public_path)

    @cached_property
    def pieces(self) -> Pieces:
        """How to build the backend's path (``snapshot.Route.pieces``)."""
        return target_pieces(self.template, parse_target(self.target_path or self.public_path))


class KeyDocument(Strict):
    """One of several keys of a consumer."""

    id: str = Field(
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="a name for this key: 1 to 64 letters, digits, '.', '_' and '-'",
    )
    sha256: KeyHash = Field(description="the SHA-256 of the key, 64 hex digits (`authgate key` makes both)")
    expires_at: Moment | None = Field(None, description="a moment such as 2030-01-31T00:00:00Z")


class PasswordDocument(Strict):
    """One of several passwords of a consumer, so that one can be changed without an outage."""

    id: str = Field(
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="a name for this password: 1 to 64 letters, digits, '.', '_' and '-'",
    )
    hash: PasswordHash = Field(repr=False, description=PASSWORD_RULE)
    expires_at: Moment | None = Field(None, description="a moment such as 2030-01-31T00:00:00Z")


class ConsumerDocument(Document):
    """An app, user or partner that may call the SECURE routes of its gateway."""

    api_key_sha256: KeyHash | None = Field(
        None, description="the SHA-256 of the key, 64 hex digits (`authgate key` makes both)"
    )
    api_keys: tuple[KeyDocument, ...] = Field(
        (), max_length=64, description="a list of keys, each {id, sha256, expires_at}"
    )
    roles: Roles = Field((), description=f"a list of names, each {ROLE_RULE}")
    expires_at: Moment | None = Field(None, description="a moment such as 2030-01-31T00:00:00Z")
    username: str | None = Field(
        None,
        pattern=r"^[^:\x00-\x1f\x7f]{1,128}$",
        description="a text of at most 128 characters without ':'",
    )
    password_hash: PasswordHash | None = Field(None, repr=False, description=PASSWORD_RULE)
    passwords: tuple[PasswordDocument, ...] = Field(
        (), max_length=4, description="a list of at most 4 passwords, each {id, hash, expires_at}"
    )

    @field_validator("api_keys", mode="after")
    @classmethod
    def _check_keys(cls, keys: tuple[KeyDocument, ...], info: ValidationInfo) -> tuple[KeyDocument, ...]:
        first = info.data.get("api_key_sha256")
        ids: set[str] = {DEFAULT_KEY_ID} if first is not None else set()
        hashes: set[str | None] = {first}
        for index, key in enumerate(keys):
            if key.id in ids:
                taken = (
                    " (the id of api_key_sha256)" if first is not None and key.id == DEFAULT_KEY_ID else ""
                )
                raise refusal(f"each key of a consumer has its own id{taken}", at=(index, "id"))
            if key.sha256 in hashes:
                raise refusal("the same key stands here twice; write it once", at=(index, "sha256"))
            ids.add(key.id)
            hashes.add(key.sha256)
        return keys

    @field_validator("passwords", mode="after")
    @classmethod
    def _check_passwords(
        cls, passwords: tuple[PasswordDocument, ...], info: ValidationInfo
    ) -> tuple[PasswordDocument, ...]:
        ids = {DEFAULT_KEY_ID} if info.data.get("password_hash") is not None else set()
        for index, password in enumerate(passwords):
            if password.id in ids:
                raise refusal("each password of a consumer has its own id", at=(index, "id"))
            ids.add(password.id)
        return passwords

    def login_name(self, consumer: str) -> bytes:
        """Return the username in UTF-8: the consumer's own name if the document has none."""
        return (self.username or consumer).encode("utf-8")

    def all_passwords(self) -> list[tuple[str, str, float]]:
        """Return (id, PHC string, end in seconds since the epoch) of each password."""
        end = seconds_of(self.expires_at)
        passwords = []
        if self.password_hash is not None:
            passwords.append((DEFAULT_KEY_ID, self.password_hash, end))
        for password in self.passwords:
            passwords.append((password.id, password.hash, min(end, seconds_of(password.expires_at))))
        return passwords

    def key_digests(self) -> list[bytes]:
        """Return the SHA-256 digest of each key."""
        digests = [bytes.fromhex(key.sha256) for key in self.api_keys] if self.api_keys else []
        return digests if self.api_key_sha256 is None else [bytes.fromhex(self.api_key_sha256), *digests]

    def all_keys(self) -> list[tuple[str, bytes, float]]:
        """Return (id, SHA-256 digest, end in seconds since the epoch) of each key."""
        end = seconds_of(self.expires_at)
        keys = []
        if self.api_key_sha256 is not None:
            keys.append((DEFAULT_KEY_ID, bytes.fromhex(self.api_key_sha256), end))
        for key in self.api_keys:
            keys.append((key.id, bytes.fromhex(key.sha256), min(end, seconds_of(key.expires_at))))
        return keys


AnyDocument = GatewayDocument | ServiceDocument | RouteDocument | ConsumerDocument

MODELS: dict[str, type[AnyDocument]] = {
    "gateway": GatewayDocument,
    "service": ServiceDocument,
    "route": RouteDocument,
    "consumer": ConsumerDocument,
}
