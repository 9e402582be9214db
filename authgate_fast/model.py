"""The documents: gateway, service, route, consumer. The only schema there is.

A document is judged from JSON bytes, strictly: nothing is coerced, unknown fields are refused, and the
value that passed never changes. Each field's description says what is allowed; the messages that users
read are made of it. What needs more than one document to judge is not judged here.

Consumers are validated by the hundred thousand: only their rare fields may cost a Python call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from authgate_fast.addresses import (
    AddressError,
    TargetUrl,
    is_guarded,
    parse_network,
    parse_public_host,
    parse_target_url,
)
from authgate_fast.http.fields import is_reserved
from authgate_fast.routing.template import (
    Pieces,
    Template,
    TemplateError,
    parse_public,
    parse_target,
    target_pieces,
)

NAME_PATTERN = "[a-z0-9][a-z0-9._-]{0,62}"
NAME_RULE = "1 to 63 characters a-z, 0-9, '.', '_' and '-', the first a letter or digit"
DEFAULT_KEY_ID = "default"
MAX_LIST = 256
_ROLE_RULE = "visible ASCII characters without commas and quotes, at most 128"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_is_time = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
# Fields that describe the message itself; one that carried a key would be taken out of every request.
_MESSAGE_FIELDS = frozenset({"via", "cookie", "date", "range", "origin", "referer", "user-agent", "baggage"})
_MESSAGE_PREFIXES = ("accept", "access-control-", "content-", "if-", "proxy-", "sec-", "trace")

_Read = TypeVar("_Read")


def _refusal(message: str, hint: str = "", at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Make an error whose words are ours. `at` is the place inside the value that is being judged."""
    return PydanticCustomError("authgate", "{message}", {"message": message, "hint": hint, "at": at})


def _read(parse: Callable[[str], _Read], text: str, at: tuple[str | int, ...] = ()) -> _Read:
    try:
        return parse(text)
    except AddressError as error:
        raise _refusal(str(error), error.hint, at) from None
    except TemplateError as error:
        raise _refusal(str(error), at=at) from None


def _check_header(text: str) -> str:
    folded = text.encode("ascii").lower().decode("ascii").replace("_", "-").replace(".", "-")
    if is_reserved(text.encode("ascii")) or folded in _MESSAGE_FIELDS or folded.startswith(_MESSAGE_PREFIXES):
        raise _refusal("a field that HTTP or the gateway uses cannot carry the key", "use X-Api-Key")
    return text


def _check_target_url(text: str) -> str:
    _read(parse_target_url, text)
    return text


def _check_public_path(text: str) -> str:
    _read(parse_public, text)
    return text


def _check_target_path(text: str) -> str:
    _read(parse_target, text)
    return text


def _check_network(text: str) -> str:
    _read(parse_network, text)
    return text


def _read_time(value: object) -> object:
    """Read RFC 3339, in which a zone is not optional; other types are left to be refused."""
    if not isinstance(value, str):
        return value
    if _is_time(value) is not None:
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError:  # a 30 February
            pass
    hint = f"write {value}T00:00:00Z" if _is_date(value) is not None else ""
    raise _refusal("a moment is written with its zone (RFC 3339), such as 2030-01-31T00:00:00Z", hint)


def _seconds(moment: datetime | None) -> float:
    return float("inf") if moment is None else (moment - _EPOCH) / timedelta(seconds=1)


def _check_auth(value: object) -> object:
    if isinstance(value, str):
        raise _refusal("auth is a mapping with a type", "write {type: API_KEY}")
    if isinstance(value, dict) and value.get("type") in ("BASIC", "JWT", "OAUTH2", "BFF"):
        raise _refusal("not available in this version; use API_KEY", at=("type",))
    return value


Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[!#-&(-+\-./0-9:-~]{1,128}$")]
HeaderName = Annotated[
    str, Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$"), AfterValidator(_check_header)
]
Url = Annotated[str, Field(max_length=2_048), AfterValidator(_check_target_url)]
PublicPath = Annotated[str, Field(max_length=4_096), AfterValidator(_check_public_path)]
TargetPath = Annotated[str, Field(max_length=4_096), AfterValidator(_check_target_path)]
Network = Annotated[str, Field(max_length=64), AfterValidator(_check_network)]
KeyHash = Annotated[str, StringConstraints(pattern="^[0-9A-Fa-f]{64}$", to_lower=True)]
Moment = Annotated[datetime, BeforeValidator(_read_time)]
Roles = Annotated[tuple[RoleName, ...], Field(max_length=MAX_LIST)]
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Document(_Strict):
    """What every document may carry."""

    enabled: bool = Field(True, description="true or false; false is as if the document were not there")
    description: str | None = Field(None, max_length=1_000, description="a text of at most 1000 characters")


class Narrowing(Document):
    """Limits that a service or route may set below the node's (``limits.NARROWABLE``)."""

    max_body_bytes: int | None = Field(
        None, gt=0, lt=1 << 63, description="a whole number of bytes above zero"
    )
    body_timeout_s: _Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    connect_timeout_s: _Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    first_byte_timeout_s: _Seconds | None = Field(None, description="seconds, above zero and at most 86400")
    between_bytes_timeout_s: _Seconds | None = Field(
        None, description="seconds, above zero and at most 86400"
    )


class ApiKeyAuth(_Strict):
    """A key in a request field."""

    type: Literal["API_KEY"] = Field(description="API_KEY")
    header: HeaderName = Field("X-Api-Key", description="the name of a request field, such as X-Api-Key")


class PathPolicyDocument(_Strict):
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
    auth: Annotated[ApiKeyAuth, BeforeValidator(_check_auth)] = Field(
        description="a mapping, {type: API_KEY} or {type: API_KEY, header: X-Api-Key}"
    )
    path_policy: PathPolicyDocument = Field(
        PathPolicyDocument(), description="a mapping such as {allow: [double_slash]}"
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), max_length=MAX_LIST, description="a list of addresses and ranges, such as [10.0.0.0/8]"
    )

    @field_validator("hosts", mode="after")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        parsed: list[str] = []
        for index, text in enumerate(hosts):
            host = _read(parse_public_host, text, (index,))
            if host in parsed:
                raise _refusal(f"the host {host} stands here twice; write it once", at=(index,))
            parsed.append(host)
        return tuple(parsed)

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(parse_network(text) for text in self.trusted_proxies)


class ServiceDocument(Narrowing):
    """A backend API: one or more target URLs."""

    target_url: Url | None = Field(
        None, description="the backend's URL, such as http://catalog:8080 or https://example.com/v1"
    )
    target_urls: tuple[Url, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_LIST,
        description="a list of at least one URL, instead of target_url",
    )
    preserve_host: bool = Field(False, description="true (the backend sees the client's Host) or false")
    allow_link_local: bool = Field(
        False, description="true or false; true lets link-local addresses be targets"
    )

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if (self.target_url is None) == (self.target_urls is None):
            raise _refusal("a service has either target_url or target_urls", at=("target_url",))
        if not self.allow_link_local:
            for index, target in enumerate(self.targets):
                if is_guarded(target.host):
                    raise _refusal(
                        "link-local addresses and cloud metadata services cannot be targets",
                        "set allow_link_local: true if this is meant",
                        ("target_url",) if self.target_url is not None else ("target_urls", index),
                    )
        return self

    @cached_property
    def targets(self) -> tuple[TargetUrl, ...]:
        """All target URLs, taken apart."""
        texts = self.target_urls if self.target_url is None else (self.target_url,)
        return tuple(parse_target_url(text) for text in texts or ())


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
    roles: Roles = Field((), description=f"a list of names, each {_ROLE_RULE}")
    scopes: Roles = Field((), description=f"a list of names, each {_ROLE_RULE}")
    consumers: tuple[Name, ...] = Field(
        (), max_length=10_000, description=f"a list of consumers' names: {NAME_RULE}"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        try:
            self.pieces  # noqa: B018  # computed here, once, so that a wrong pair is refused
        except TemplateError as error:
            raise _refusal(str(error), at=("target_path",)) from None
        if self.security == "PUBLIC":
            for name in ("roles", "scopes", "consumers"):
                if getattr(self, name):
                    raise _refusal(
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


class KeyDocument(_Strict):
    """One of several keys of a consumer."""

    id: str = Field(
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="a name for this key: 1 to 64 letters, digits, '.', '_' and '-'",
    )
    sha256: KeyHash = Field(description="the SHA-256 of the key, 64 hex digits (`authgate key` makes both)")
    expires_at: Moment | None = Field(None, description="a moment such as 2030-01-31T00:00:00Z")


class ConsumerDocument(Document):
    """An app, user or partner that may call the SECURE routes of its gateway."""

    api_key_sha256: KeyHash | None = Field(
        None, description="the SHA-256 of the key, 64 hex digits (`authgate key` makes both)"
    )
    api_keys: tuple[KeyDocument, ...] = Field(
        (), max_length=64, description="a list of keys, each {id, sha256, expires_at}"
    )
    roles: Roles = Field((), description=f"a list of names, each {_ROLE_RULE}")
    expires_at: Moment | None = Field(None, description="a moment such as 2030-01-31T00:00:00Z")
    username: str | None = Field(
        None,
        pattern=r"^[^:\x00-\x1f\x7f]{1,128}$",
        description="a text of at most 128 characters without ':'",
    )
    password_hash: str | None = Field(
        None,
        max_length=512,
        pattern=r"^\$argon2id\$v=19\$m=[1-9][0-9]{0,9},t=[1-9][0-9]{0,9},p=[1-9][0-9]{0,7}"
        r"\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,128}$",
        description="an Argon2id hash as a PHC string: $argon2id$v=19$m=...,t=...,p=...$salt$hash",
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
                raise _refusal(f"each key of a consumer has its own id{taken}", at=(index, "id"))
            if key.sha256 in hashes:
                raise _refusal("the same key stands here twice; write it once", at=(index, "sha256"))
            ids.add(key.id)
            hashes.add(key.sha256)
        return keys

    def all_keys(self) -> list[tuple[str, bytes, float]]:
        """Return (id, SHA-256 digest, end in seconds since the epoch) of each key."""
        end = _seconds(self.expires_at)
        keys = []
        if self.api_key_sha256 is not None:
            keys.append((DEFAULT_KEY_ID, bytes.fromhex(self.api_key_sha256), end))
        for key in self.api_keys:
            keys.append((key.id, bytes.fromhex(key.sha256), min(end, _seconds(key.expires_at))))
        return keys


AnyDocument = GatewayDocument | ServiceDocument | RouteDocument | ConsumerDocument

MODELS: dict[str, type[AnyDocument]] = {
    "gateway": GatewayDocument,
    "service": ServiceDocument,
    "route": RouteDocument,
    "consumer": ConsumerDocument,
}
