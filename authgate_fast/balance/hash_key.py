"""What a request is hashed on, so that equal ones go to one target: a field, or a cookie in it. Pure, linear time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.http.request import RequestHead
    from authgate_fast.snapshot import Balancing


def hash_key(balancing: Balancing, head: RequestHead, presented: list[tuple[bytes, bytes]]) -> bytes:
    """Return the value, or b"" when the request has none. `presented` are the credential fields: they are no lines."""
    name = balancing.hash_field or b"cookie"
    values = [head.host] if name == b"host" else head.values(name)
    for field, value in presented:
        if field == name:
            values.append(value)
    return _cookie(values, balancing.hash_cookie) if balancing.hash_cookie else b", ".join(values)


def _cookie(fields: list[bytes], wanted: bytes) -> bytes:
    """Return the first value of a cookie (RFC 6265 section 4.2.1); what is malformed is passed over."""
    for field in fields:
        for part in field.split(b";"):
            name, equals, value = part.strip(b" \t").partition(b"=")
            if equals and name == wanted:
                return value
    return b""
