"""Which field of a message means what to a gateway: one table for requests, one for responses.

A name is classified once per spelling and remembered (`classify_request` with the snapshot's memo,
`classify_response` with the module's), so a field on the request path costs one dict look-up. Names
are compared folded (lower case, all that is neither letter nor digit read as ``-``), because many backends fold them
into variables (RFC 3875 section 4.1.18; lighttpd writes ``_`` for all of them): a client must not smuggle
``X_Consumer_Id`` or ``X~Consumer~Id`` past us. Everything here is bytes.
"""

from __future__ import annotations

from typing import Final

END_TO_END: Final = 0
DROP: Final = 1
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
EXPECT: Final = 6
REQUEST_ID: Final = 7
FORWARDED_FOR: Final = 8
FORWARDED_PROTO: Final = 9
FORWARDED_HOST: Final = 10
CREDENTIAL: Final = 11
DATE: Final = 12
KEEP_ALIVE: Final = 13
UPGRADE: Final = 14
VIA: Final = 15
MAX_FORWARDS: Final = 16
TRACEPARENT: Final = 17
TRACESTATE: Final = 18

MEMO_LIMIT: Final = 4_096
"""Spellings remembered at most; a memo that is full starts again: who invents names must not keep the others' out."""
MEMO_NAME_BYTES: Final = 64
"""Longer names are not remembered, so that a memo full of invented names stays below a megabyte."""

_FOLD: Final = bytes.maketrans(
    b"!#$%&'*+.^_`|~ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"--------------abcdefghijklmnopqrstuvwxyz"
)
_LOWER: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")

# RFC 9110 section 7.6.1. TE and Trailer go too, because trailers are not forwarded.
HOP_BY_HOP: Final = frozenset(
    {
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
    }
)

# Who is calling is for the gateway to say (DESIGN section 5).
_IDENTITY: Final = frozenset(
    {
        b"x-gateway-id",
        b"x-credential-id",
        b"x-client-id",
        b"x-tenant-id",
        b"x-anonymous-consumer",
        b"x-consumer",
        b"x-user",
        b"x-remote-user",
        b"remote-user",
        b"x-webauth-user",
        b"client-cert",  # RFC 9440 section 2.4
        b"client-cert-chain",
        b"x-client-cert",
    }
)
_IDENTITY_PREFIXES: Final = (
    b"x-consumer-",
    b"x-user-",
    b"x-authenticated-",
    b"x-credential-",
    b"x-auth-request-",
    b"x-client-cert-",
)

# Fields by which a client could tell a backend another address, path or method than the one that was
# routed and authorised. ``Proxy`` is the httpoxy trick.
_CLAIMS: Final = frozenset(
    {
        b"forwarded",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        b"client-ip",
        b"x-originating-ip",
        b"x-remote-ip",
        b"x-remote-addr",
        b"x-proxyuser-ip",
        b"x-forwarded",
        b"x-forward-for",
        b"x-envoy-original-path",
        b"x-host",
        b"x-http-host-override",
        b"x-rewrite-url",
        b"x-override-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"proxy",
    }
)
_PREFIXES: Final = (*_IDENTITY_PREFIXES, b"x-forwarded-", b"x-original-")

_REQUEST: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"x-request-id": REQUEST_ID,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"upgrade": UPGRADE,
}

# Fields of anybody's that a gateway reads too (RFC 9110 sections 7.6.2 and 7.6.3, W3C Trace Context); other spellings
# are other fields.
_READ_AND_KEPT: Final = {
    b"via": VIA,
    b"max-forwards": MAX_FORWARDS,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
}

_RESPONSE: Final = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": KEEP_ALIVE,
    b"date": DATE,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authentication-info": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
    b"trailer": DROP,
    b"upgrade": UPGRADE,
    b"x-request-id": DROP,
}

# What Connection may not nominate for removal (CONVENTIONS section 6): without them the backend would
# see another request than the one that was checked.
PROTECTED: Final = frozenset(
    {b"authorization", b"cookie", b"via", b"content-type", b"content-encoding", b"range"}
)

_response_memo: dict[bytes, int] = {}
plain_response_names: Final[set[bytes]] = set()
"""Spellings of response fields that were seen and mean nothing to a proxy; filled by `classify_response`."""


def lower(text: bytes) -> bytes:
    """Lower ASCII letters only, whatever the locale."""
    return text.translate(_LOWER)


def is_reserved(name: bytes) -> bool:
    """Tell whether the gateway itself gives meaning to a request field, in any spelling."""
    folded = name.translate(_FOLD)
    return (
        folded in _REQUEST
        or folded in HOP_BY_HOP
        or folded in _IDENTITY
        or folded in _CLAIMS
        or folded.startswith(_PREFIXES)
    )


def classify_request(name: bytes, memo: dict[bytes, int], credential_fields: frozenset[bytes]) -> int:
    """Return the code of a request field's name and remember it in `memo`."""
    folded = name.translate(_FOLD)
    lowered = name.translate(_LOWER)
    code = _REQUEST.get(lowered) or _READ_AND_KEPT.get(lowered, END_TO_END)
    if lowered in credential_fields:
        code = CREDENTIAL
    elif not code and (
        is_reserved(name) or any(folded == field.translate(_FOLD) for field in credential_fields)
    ):
        code = DROP
    if len(name) <= MEMO_NAME_BYTES:
        if len(memo) >= MEMO_LIMIT:
            memo.clear()
        memo[name] = code
    return code


def classify_response(name: bytes) -> int:
    """Return the code of a response field's name and remember it."""
    code = _RESPONSE.get(name.translate(_LOWER), END_TO_END)
    if len(name) <= MEMO_NAME_BYTES:
        if len(_response_memo) >= MEMO_LIMIT:
            _response_memo.clear()
            plain_response_names.clear()
        _response_memo[name] = code
        if not code:
            plain_response_names.add(name)
    return code


response_codes = _response_memo.get


def connection_options(value: bytes) -> list[bytes]:
    """Split a Connection value into its options, lower-cased (RFC 9110 section 7.6.1)."""
    return [option for part in lower(value).split(b",") if (option := part.strip(b" \t"))]


def without_fields(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """Return the field `lines` whose lower-case name is not in `names`."""
    return [line for line in lines if lower(line[: line.index(b":")]) not in names]
