"""The demo's backend: a small product catalog over HTTP/1.1, as a service behind the gateway sees requests.

It trusts the identity fields of its caller, as a real backend behind the gateway may, and shows them at
``/private-data``. Everything is in memory and bounded; nothing is kept when it ends.
"""

from __future__ import annotations

import asyncio
import re
from itertools import repeat
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from authgate_fast.demo.catalog import Catalog, Product
from authgate_fast.server.small_http import Bounds, Request, Response, SmallServer, json_response

DOWNLOAD_BYTES = 64 * 1024 * 1024
SLOW_S = 1.0
_CHUNK = bytes(range(256)) * 256
_NUMBER = re.compile(r"[0-9]{1,6}")
_PRODUCT_PATH = re.compile(rb"/products/([0-9]{1,9})")
_MAX_PAGE = 100
_METHODS = {
    b"/products": (b"GET", b"POST"),
    b"/products/search": (b"GET",),
    b"/private-data": (b"GET",),
    b"/slow": (b"GET",),
    b"/download": (b"GET",),
}
_SEEN_FIELDS = (
    "X-Consumer-Id",
    "X-Consumer-Roles",
    "X-Credential-Id",
    "X-User-Id",
    "X-User-Roles",
    "X-Client-Id",
    "X-Gateway-Id",
    "X-Request-ID",
)

# A gateway keeps idle connections and holds up a download for a slow client: be more patient than it is.
_BOUNDS = Bounds(
    max_head_bytes=65_536,
    max_body_bytes=65_536,
    max_connections=4_096,
    idle_timeout_s=120.0,
    request_timeout_s=30.0,
    send_timeout_s=120.0,
)


class NewProduct(BaseModel):
    """What a client sends to create a product."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = Field(min_length=1, max_length=120)
    price_cents: int = Field(gt=0, le=100_000_000)
    category: str = Field(default="other", min_length=1, max_length=40)
    description: str = Field(default="", max_length=2_000)


class _BadQueryError(ValueError):
    """A query parameter that cannot be used; the text is for the client."""


class Backend:
    """One running catalog; made by `start_backend`."""

    def __init__(self) -> None:
        self._catalog = Catalog()
        self._server = SmallServer("demo backend", self._handle, _BOUNDS)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._server.port

    async def start(self, host: str, port: int) -> None:
        """Listen on `host` and `port` (0: a free one). Raises OSError."""
        await self._server.start(host, port)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self._server.close()

    async def _handle(self, request: Request) -> Response:
        path = request.path
        product_path = _PRODUCT_PATH.fullmatch(path)
        methods = (b"GET",) if product_path else _METHODS.get(path)
        if methods is None:
            return _error(404, "not_found", "There is nothing here.")
        method = b"GET" if request.method == b"HEAD" else request.method
        if method not in methods:
            allow = b", ".join((*methods, b"HEAD"))
            return _error(405, "method_not_allowed", "Not with this method.", ((b"Allow", allow),))
        try:
            if product_path:
                return self._read(int(product_path[1]))
            if path == b"/products":
                return self._create(request) if method == b"POST" else self._list(request)
            if path == b"/products/search":
                return self._search(request)
        except _BadQueryError as error:
            return _error(400, "bad_query", str(error))
        if path == b"/private-data":
            return _private_data(request)
        if path == b"/download":
            return _download()
        await asyncio.sleep(SLOW_S)
        return json_response(200, {"waited_s": SLOW_S})

    def _read(self, number: int) -> Response:
        product = self._catalog.get(number)
        if product is None:
            return _error(404, "product_not_found", f"There is no product {number}.")
        return json_response(200, product)

    def _list(self, request: Request) -> Response:
        query = _query(request)
        skip, limit = _whole(query, "skip", 0), _whole(query, "limit", 30)
        page = self._catalog.page(skip, min(limit, _MAX_PAGE))
        return json_response(200, _page(page, len(self._catalog), skip))

    def _search(self, request: Request) -> Response:
        words = _query(request).get("q", "")
        if not words:
            raise _BadQueryError("Say what to search for, for instance ?q=lamp.")
        found = self._catalog.search(words, _MAX_PAGE)
        return json_response(200, _page(found, len(found), 0))

    def _create(self, request: Request) -> Response:
        try:
            new = NewProduct.model_validate_json(request.body)
        except ValidationError as error:
            places = sorted({".".join(str(part) for part in e["loc"]) or "body" for e in error.errors()})
            return _error(422, "invalid_product", f"Not valid: {', '.join(places)}.")
        product = self._catalog.create(new.title, new.category, new.description, new.price_cents)
        return json_response(201, product)


async def start_backend(host: str = "127.0.0.1", port: int = 0) -> Backend:
    """Start a catalog on `host` and `port` (0: a free one; see its ``port``). Raises OSError."""
    backend = Backend()
    await backend.start(host, port)
    return backend


def _error(status: int, code: str, message: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return json_response(status, {"error": {"code": code, "message": message}}, fields)


def _page(products: list[Product], total: int, skip: int) -> dict[str, object]:
    return {"products": products, "total": total, "skip": skip, "count": len(products)}


def _query(request: Request) -> dict[str, str]:
    try:
        parsed = parse_qs(request.query.decode("ascii"), max_num_fields=20, errors="strict")
    except ValueError:
        raise _BadQueryError("The query cannot be read.") from None
    return {name: values[0] for name, values in parsed.items()}


def _whole(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise _BadQueryError(f"{name} must be a whole number.")
    return int(text)


def _private_data(request: Request) -> Response:
    seen = {}
    for name in _SEEN_FIELDS:
        value = request.field(name.casefold().encode("ascii"))
        if value is not None:
            seen[name] = value.decode("latin-1")
    # That there is a token is worth showing; the token itself is nobody's business.
    if request.field(b"authorization") is not None:
        seen["Authorization"] = "Bearer ..."
    return json_response(200, {"message": "Only who the gateway knows gets here.", "the_gateway_says": seen})


def _download() -> Response:
    return Response(
        200,
        content_type=b"application/octet-stream",
        fields=((b"Content-Disposition", b'attachment; filename="demo.bin"'),),
        chunks=repeat(_CHUNK, DOWNLOAD_BYTES // len(_CHUNK)),
        length=DOWNLOAD_BYTES,
    )
