"""How a service document spreads requests over its targets, watches them and limits itself. Part of `model`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from authgate_fast.addresses import parse_target_url
from authgate_fast.http.fields import is_reserved
from authgate_fast.model_fields import Seconds, Strict, Url, read_with, refusal

AS_TEXT = "(text)"
AS_MAPPING = "(mapping)"
UNION_TAGS = frozenset({AS_TEXT, AS_MAPPING})
"""What pydantic puts into the place of a mistake to say which form it looked at; no field has such a name."""

_SECONDS_RULE = "seconds, above zero and at most 86400"
MAX_SLOW_START_S = 3_600


def _form(value: object) -> str:
    return AS_TEXT if isinstance(value, str) else AS_MAPPING


def _check_hash_field(text: str) -> str:
    name = text.lower()
    if is_reserved(name.encode("ascii")) and name not in ("host", "authorization"):
        raise refusal("a field that HTTP or the gateway writes anew cannot choose a target", "use address")
    return name


def _check_host(text: str) -> str:
    if "/" in text:
        raise refusal("a Host is a name and maybe a port, without scheme and path")
    return read_with(parse_target_url, f"http://{text}").authority


class TargetDocument(Strict):
    """One of several targets, with its share."""

    url: Url = Field(description="the backend's URL, such as http://catalog:8080")
    weight: int = Field(
        1, ge=0, le=1_000, description="a whole number from 0 (no new requests) to 1000, its share of all"
    )


TargetEntry = Annotated[
    Annotated[Url, Tag(AS_TEXT)] | Annotated[TargetDocument, Tag(AS_MAPPING)], Discriminator(_form)
]


class HashOnDocument(Strict):
    """What a request is hashed on: a field or a cookie."""

    header: (
        Annotated[
            str, Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$"), AfterValidator(_check_hash_field)
        ]
        | None
    ) = Field(None, description="the name of a request field, such as X-Tenant")
    cookie: str | None = Field(
        None, pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$", description="the name of a cookie"
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise refusal("a hash is on one header or on one cookie", "write {header: NAME}")
        return self


HashOn = Annotated[
    Annotated[Literal["address"], Tag(AS_TEXT)] | Annotated[HashOnDocument, Tag(AS_MAPPING)],
    Discriminator(_form),
]
Status = Annotated[int, Field(ge=100, le=599)]
FailureStatus = Annotated[int, Field(ge=400, le=599)]


class HealthCheckDocument(Strict):
    """A request that asks each target regularly how it does."""

    path: str = Field(
        pattern=r"^/[!-\"$-~]{0,2047}$",
        description="a path such as /healthz, maybe with a query, sent as it stands",
    )
    interval_s: Seconds = Field(10.0, ge=0.1, description="seconds, from 0.1 to 86400")
    timeout_s: Seconds = Field(2.0, description=_SECONDS_RULE)
    healthy: int = Field(2, ge=1, le=100, description="a whole number from 1 to 100: good answers in a row")
    unhealthy: int = Field(3, ge=1, le=100, description="a whole number from 1 to 100: bad answers in a row")
    statuses: tuple[Status, ...] | None = Field(
        None, max_length=100, description="a list of good statuses, such as [200, 204]"
    )
    host: Annotated[str, Field(max_length=300), AfterValidator(_check_host)] | None = Field(
        None, description="the Host that a check sends, such as health.example.com"
    )

    @model_validator(mode="after")
    def _check_statuses(self) -> Self:
        if self.statuses == ():
            raise refusal(
                "without a good status no target is ever healthy", "leave statuses out", ("statuses",)
            )
        return self


class BalancingFields(Strict):
    """The fields of a service that this module is about."""

    balance: Literal["least_connections", "round_robin", "hash"] = Field(
        "least_connections", description="one of least_connections, round_robin, hash"
    )
    hash_on: HashOn | None = Field(
        None, description="address, or a mapping: {header: NAME} or {cookie: NAME}"
    )
    max_failures: int = Field(
        5, ge=1, le=1_000, description="a whole number from 1 to 1000: failures in a row that eject a target"
    )
    eject_s: Seconds = Field(10.0, description=_SECONDS_RULE)
    failure_statuses: tuple[FailureStatus, ...] = Field(
        (), max_length=100, description="a list of statuses from 400 to 599, such as [502, 503, 504]"
    )
    slow_start_s: float = Field(
        10.0, ge=0, le=MAX_SLOW_START_S, allow_inf_nan=False, description="seconds, from 0 (none) to 3600"
    )
    health_check: HealthCheckDocument | None = Field(
        None, description="a mapping such as {path: /healthz, interval_s: 10}"
    )
    max_connections: int | None = Field(
        None, ge=1, le=1_000_000, description="a whole number above zero: requests at once, per worker"
    )
    max_queue: int = Field(
        100, ge=0, le=1_000_000, description="a whole number: requests that wait for one of max_connections"
    )
    queue_timeout_s: Seconds = Field(5.0, description=_SECONDS_RULE)

    @model_validator(mode="after")
    def _check_balancing(self) -> Self:
        if self.balance == "hash" and self.hash_on is None:
            raise refusal("balance: hash needs hash_on", "write hash_on: address", ("hash_on",))
        if self.balance != "hash" and self.hash_on is not None:
            raise refusal("hash_on belongs to balance: hash", "write balance: hash", ("hash_on",))
        if self.max_connections is None:
            for name in ("max_queue", "queue_timeout_s"):
                if name in self.model_fields_set:
                    raise refusal("nobody waits without max_connections", "set max_connections too", (name,))
        return self
