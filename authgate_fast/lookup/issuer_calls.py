"""A gateway as the client of a provider: the token, userinfo, revocation and introspection endpoints.

Answers are checked in type and size before anybody sees them, and a secret goes to its provider's endpoints only. The
texts of errors are for operators and hold neither secrets nor tokens.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from authgate_fast.auth.json_object import JsonError, read_object
from authgate_fast.auth.tokens import MAX_TOKEN_BYTES, Claims
from authgate_fast.lookup.fetched import IssuerUnavailableError
from authgate_fast.lookup.http_client import Answer, CallError, HttpClient
from authgate_fast.lookup.secrets import SecretError, read_secret

if TYPE_CHECKING:
    from authgate_fast.auth.secret import SecretRef

MAX_REFRESH_TOKEN_CHARACTERS = 16_384
MAX_SCOPE_CHARACTERS = 8_192
MAX_EXPIRES_IN_S = 315_360_000  # ten years: more is no answer but a mistake
_FORM = (b"Content-Type", b"application/x-www-form-urlencoded")
_is_bearer_token = re.compile(rf"[A-Za-z0-9._~+/-]{{1,{MAX_TOKEN_BYTES}}}={{0,2}}").fullmatch
_is_visible = re.compile(rf"[ -~]{{1,{MAX_REFRESH_TOKEN_CHARACTERS}}}").fullmatch  # RFC 6749 appendix A.17
_is_error_code = re.compile(r"[!#-\[\]-~]{1,64}").fullmatch


class TokenRefusedError(Exception):
    """The token endpoint said no (RFC 6749 section 5.2): ``error`` is its code, such as invalid_grant."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(f"the provider answered {error}" + (f" ({description})" if description else ""))
        self.error = error
        self.description = description


class OidcClient(Protocol):
    """Who calls: the settings of an OAUTH2 or BFF gateway."""

    @property
    def issuer(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def client_secret(self) -> SecretRef | None: ...


@dataclass(frozen=True, slots=True)
class TokenSet:
    """A token endpoint's answer (RFC 6749 section 5.1). ``expires_in`` in seconds; None for what is not in it."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: float | None
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(repr=False)
    scope: str | None


def needed(url: str, issuer: str, name: str) -> str:
    """Return an endpoint that the provider must have for what is asked. Raises IssuerUnavailableError."""
    if not url:
        raise IssuerUnavailableError(f"{issuer} publishes no {name}")
    return url


async def ask_token(
    http: HttpClient, client: OidcClient, url: str, methods: frozenset[str], form: dict[str, str]
) -> TokenSet:
    """Ask the token endpoint. Raises TokenRefusedError or IssuerUnavailableError."""
    answer = await post(http, client, url, methods, form)
    document = _document(answer)
    if answer.status == 200:
        if document is None:
            raise IssuerUnavailableError(f"{url}: the answer is not a JSON object")
        return _read_tokens(url, document)
    error = document.get("error") if document is not None else None
    if (
        400 <= answer.status < 500
        and answer.status != 429
        and isinstance(error, str)
        and _is_error_code(error)
    ):
        description = document.get("error_description") if document is not None else None
        is_text = isinstance(description, str) and len(description) <= 300 and description.isprintable()
        raise TokenRefusedError(error, str(description) if is_text else "")
    raise IssuerUnavailableError(f"{url}: answered with status {answer.status}")


async def ask_userinfo(http: HttpClient, url: str, access_token: str) -> Claims | None:
    """Ask who the token's user is; None: the provider does not say. Whether ``sub`` is right, the caller checks."""
    if not _is_bearer_token(access_token):
        raise IssuerUnavailableError(f"{url}: the access token cannot be sent")
    authorization = (b"Authorization", b"Bearer " + access_token.encode("ascii"))
    try:
        answer = await http.get(url, [authorization])
    except CallError as error:
        raise IssuerUnavailableError(f"{url}: {error}") from None
    if answer.status in (401, 403):
        return None
    if answer.status != 200:
        raise IssuerUnavailableError(f"{url}: answered with status {answer.status}")
    return _document(answer)  # a signed answer (application/jwt) was not asked for: as if there were none


async def ask_introspection(
    http: HttpClient, client: OidcClient, url: str, methods: frozenset[str], token: str
) -> Claims:
    """Ask whether a token is good (RFC 7662). Raises IssuerUnavailableError."""
    form = {"token": token, "token_type_hint": "access_token"}
    answer = await post(http, client, url, methods, form)
    if answer.status in (400, 401, 403):
        raise IssuerUnavailableError(
            f"{url}: answered with status {answer.status}; are client_id and client_secret right?"
        )
    document = _document(answer)
    if answer.status != 200 or document is None or not isinstance(document.get("active"), bool):
        raise IssuerUnavailableError(f"{url}: answered with status {answer.status} and no introspection")
    return document


async def post(
    http: HttpClient, client: OidcClient, url: str, methods: frozenset[str], form: dict[str, str]
) -> Answer:
    """Send a form as an authenticated client (RFC 6749 section 2.3). Raises IssuerUnavailableError."""
    fields = [_FORM]
    secret = await _secret(client)
    if secret is None:
        form = form | {"client_id": client.client_id}
    elif "client_secret_basic" in methods:
        # Both are form-encoded first. %20 instead of + for a space: every decoder reads it so.
        pair = f"{quote(client.client_id, safe='')}:{quote(secret, safe='')}"
        fields.append((b"Authorization", b"Basic " + b64encode(pair.encode("ascii"))))
    elif "client_secret_post" in methods:
        form = form | {"client_id": client.client_id, "client_secret": secret}
    else:
        raise IssuerUnavailableError(f"{url}: takes neither client_secret_basic nor client_secret_post")
    try:
        return await http.call(b"POST", url, fields, urlencode(form).encode("ascii"))
    except CallError as error:
        raise IssuerUnavailableError(f"{url}: {error}") from None


async def _secret(client: OidcClient) -> str | None:
    ref = client.client_secret
    if ref is None:
        return None
    try:
        # A file may stand on a slow disk or on the network.
        return read_secret(ref) if ref.file is None else await asyncio.to_thread(read_secret, ref)
    except SecretError as error:
        raise IssuerUnavailableError(f"the client secret of {client.client_id}: {error}") from None


def _document(answer: Answer) -> dict[str, Any] | None:
    if answer.media_type != b"application/json":
        return None
    try:
        return read_object(answer.body)
    except JsonError:
        return None


def _read_tokens(url: str, document: Mapping[str, Any]) -> TokenSet:
    """Check a token answer, member by member. Raises IssuerUnavailableError."""
    kind = document.get("token_type")
    if not isinstance(kind, str) or not kind.isascii() or kind.lower() != "bearer":
        raise IssuerUnavailableError(f"{url}: the answer holds no bearer token (token_type)")
    access_token = document.get("access_token")
    if not isinstance(access_token, str) or not _is_bearer_token(access_token):
        raise IssuerUnavailableError(f"{url}: the answer holds no usable access_token")
    expires_in = document.get("expires_in")
    if expires_in is not None and (
        isinstance(expires_in, bool)
        or not isinstance(expires_in, int | float)
        or not 0 < expires_in <= MAX_EXPIRES_IN_S
    ):
        raise IssuerUnavailableError(f"{url}: expires_in is not a number of seconds")
    refresh_token = _optional(url, document, "refresh_token")
    id_token = _optional(url, document, "id_token")
    scope = document.get("scope")
    if scope is not None and (not isinstance(scope, str) or len(scope) > MAX_SCOPE_CHARACTERS):
        raise IssuerUnavailableError(f"{url}: scope is not a usable text")
    return TokenSet(
        access_token,
        "Bearer",
        None if expires_in is None else float(expires_in),
        refresh_token,
        id_token,
        scope,
    )


def _optional(url: str, document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _is_visible(value):
        raise IssuerUnavailableError(f"{url}: {name} is not a usable text")
    return value
