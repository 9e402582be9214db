"""What the fields of documents may hold: types, rules and the errors whose words are ours. Pure.

The documents themselves are in `model` and `model_auth`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from authgate_fast.addresses import AddressError, is_guarded, is_loopback, parse_network, parse_target_url
from authgate_fast.auth.password import hash_problem
from authgate_fast.decision import UNIX
from authgate_fast.http.fields import is_reserved
from authgate_fast.routing.template import TemplateError, parse_public, parse_target

NAME_PATTERN = "[a-z0-9][a-z0-9._-]{0,62}"
NAME_RULE = "1 to 63 characters a-z, 0-9, '.', '_' and '-', the first a letter or digit"
DEFAULT_KEY_ID = "default"
MAX_LIST = 256
ROLE_RULE = "visible ASCII characters without commas and quotes, at most 128"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_is_time = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
# Fields that describe the message itself; one that carried a key would be taken out of every request.
_MESSAGE_FIELDS = frozenset(
    {"via", "cookie", "date", "range", "origin", "referer", "user-agent", "baggage", "max-forwards"}
)
# By a switch to these, requests would go past the gateway's checks (h2c smuggling).
_HTTP_PROTOCOLS = frozenset({"http", "https", "h2", "h2c", "h3"})
_MESSAGE_PREFIXES = ("accept", "access-control-", "content-", "if-", "proxy-", "sec-", "trace")

_Read = TypeVar("_Read")


def refusal(message: str, hint: str = "", at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Make an error whose words are ours. `at` is the place inside the value that is being judged."""
    return PydanticCustomError("authgate", "{message}", {"message": message, "hint": hint, "at": at})


def read_with(parse: Callable[[str], _Read], text: str, at: tuple[str | int, ...] = ()) -> _Read:
    try:
        return parse(text)
    except AddressError as error:
        raise refusal(str(error), error.hint, at) from None
    except TemplateError as error:
        raise refusal(str(error), at=at) from None


def _check_header(text: str) -> str:
    folded = text.encode("ascii").lower().decode("ascii").replace("_", "-").replace(".", "-")
    if is_reserved(text.encode("ascii")) or folded in _MESSAGE_FIELDS or folded.startswith(_MESSAGE_PREFIXES):
        raise refusal("a field that HTTP or the gateway uses cannot carry the key", "use X-Api-Key")
    return text


def _check_target_url(text: str) -> str:
    read_with(parse_target_url, text)
    return text


def _check_public_path(text: str) -> str:
    read_with(parse_public, text)
    return text


def _check_target_path(text: str) -> str:
    read_with(parse_target, text)
    return text


def _check_network(text: str) -> str:
    if text != UNIX:
        read_with(parse_network, text)
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
    raise refusal("a moment is written with its zone (RFC 3339), such as 2030-01-31T00:00:00Z", hint)


def seconds_of(moment: datetime | None) -> float:
    return float("inf") if moment is None else (moment - _EPOCH) / timedelta(seconds=1)


def _check_issuer(text: str) -> str:
    if text.endswith("/.well-known/openid-configuration"):
        raise refusal(
            "the issuer is the part before /.well-known/",
            f"write {text.removesuffix('/.well-known/openid-configuration')}",
        )
    target = read_with(parse_target_url, text)
    if target.scheme == "http" and not is_loopback(target.host):
        raise refusal("tokens over plain http can be read and changed on the way", "use https")
    return text


def _check_frontend_url(text: str) -> str:
    target = read_with(parse_target_url, text)
    if is_guarded(target.host):
        raise refusal("link-local addresses and cloud metadata services cannot be targets")
    return text


def _check_password_hash(text: str) -> str:
    problem = hash_problem(text)
    if problem:
        raise refusal(f"this hash cannot be used: {problem}", "`authgate password` makes one")
    return text


def _check_upgrade(text: str) -> str:
    name, slash, _ = text.partition("/")
    if name in _HTTP_PROTOCOLS:
        raise refusal(
            "a request cannot switch to another version of HTTP, whose requests nobody would check",
            "leave it out; HTTP/1.1 goes on as it is",
        )
    if name == "tls":
        raise refusal("TLS begins with the connection and never in the middle of it", "leave it out")
    if name == "websocket" and slash:
        raise refusal("websocket is written without a version", "write websocket")
    return text


Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[!#-&(-+\-./0-9:-~]{1,128}$")]
HeaderName = Annotated[
    str, Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$"), AfterValidator(_check_header)
]
Url = Annotated[str, Field(max_length=2_048), AfterValidator(_check_target_url)]
Upgrade = Annotated[
    str,
    Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9a-z]{1,64}(/[!#$%&'*+\-.^_`|~0-9a-z]{1,64})?$"),
    AfterValidator(_check_upgrade),
]
PublicPath = Annotated[str, Field(max_length=4_096), AfterValidator(_check_public_path)]
TargetPath = Annotated[str, Field(max_length=4_096), AfterValidator(_check_target_path)]
Network = Annotated[str, Field(max_length=64), AfterValidator(_check_network)]
Issuer = Annotated[str, Field(max_length=2_048), AfterValidator(_check_issuer)]
FrontendUrl = Annotated[str, Field(max_length=2_048), AfterValidator(_check_frontend_url)]
ClientId = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,256}$")]
ClaimPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$", max_length=256)
]
ScopeName = Annotated[str, StringConstraints(pattern=r"^[!#-\[\]-~]{1,128}$")]
KeyHash = Annotated[str, StringConstraints(pattern="^[0-9A-Fa-f]{64}$", to_lower=True)]
Moment = Annotated[datetime, BeforeValidator(_read_time)]
Roles = Annotated[tuple[RoleName, ...], Field(max_length=MAX_LIST)]
PasswordHash = Annotated[
    str,
    StringConstraints(
        max_length=512,
        pattern=r"^\$argon2id\$v=19\$m=[1-9][0-9]{0,9},t=[1-9][0-9]{0,9},p=[1-9][0-9]{0,7}"
        r"\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,128}$",
    ),
    AfterValidator(_check_password_hash),
]
PASSWORD_RULE = "an Argon2id hash as a PHC string: $argon2id$v=19$m=...,t=...,p=...$salt$hash"
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
