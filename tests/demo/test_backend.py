from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from authgate_fast.demo import backend as backend_module
from authgate_fast.demo.backend import DOWNLOAD_BYTES, Backend, start_backend
from authgate_fast.demo.catalog import BUILT_IN, MAX_CREATED, Catalog
from tests.plain_client import ask


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    server = await start_backend()
    yield server
    await server.close()


async def read(backend: Backend, target: str) -> tuple[int, dict]:
    answer = await ask(backend.port, target)
    assert answer.fields["content-type"] == "application/json"
    return answer.status, json.loads(answer.body)


async def create(backend: Backend, body: object) -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await ask(backend.port, "/products", "POST", data)
    return answer.status, json.loads(answer.body)


async def test_a_product_is_read_by_its_id(backend: Backend) -> None:
    status, product = await read(backend, "/products/1")
    assert status == 200
    assert product["id"] == 1
    assert set(product) == {"id", "title", "category", "description", "price_cents", "stock"}


@pytest.mark.parametrize("path", ["/products/0", "/products/101", "/products/999999999"])
async def test_a_missing_product_is_404(backend: Backend, path: str) -> None:
    status, problem = await read(backend, path)
    assert status == 404
    assert problem["error"]["code"] == "product_not_found"


@pytest.mark.parametrize(
    "path", ["/", "/products/", "/products/x", "/products/1/", "/products/-1", "/api/products"]
)
async def test_an_unknown_path_is_404(backend: Backend, path: str) -> None:
    status, problem = await read(backend, path)
    assert (status, problem["error"]["code"]) == (404, "not_found")


async def test_pages_cover_all_products_once(backend: Backend) -> None:
    seen: list[int] = []
    while True:
        status, page = await read(backend, f"/products?limit=30&skip={len(seen)}")
        assert status == 200
        assert page["total"] == BUILT_IN
        if not page["products"]:
            break
        seen += [product["id"] for product in page["products"]]
    assert seen == list(range(1, BUILT_IN + 1))


async def test_a_page_has_a_largest_size(backend: Backend) -> None:
    for number in range(3):
        await create(backend, {"title": f"One more {number}", "price_cents": 100})
    _, page = await read(backend, "/products?limit=999999")
    assert len(page["products"]) == 100


@pytest.mark.parametrize(
    "query",
    ["limit=x", "skip=-1", "limit=1e3", "limit=%D9%A3", "skip=%ff", "&".join("a=1" for _ in range(21))],
)
async def test_a_query_that_cannot_be_used_is_400(backend: Backend, query: str) -> None:
    status, problem = await read(backend, f"/products?{query}")
    assert (status, problem["error"]["code"]) == (400, "bad_query")


async def test_search_finds_words_in_any_case(backend: Backend) -> None:
    _, page = await read(backend, "/products/search?q=DESK%20lamp")
    assert page["total"] == len(page["products"]) == 10
    assert all("desk lamp" in product["title"] for product in page["products"])
    assert (await read(backend, "/products/search?q=submarine"))[1]["products"] == []


async def test_search_for_nothing_is_400(backend: Backend) -> None:
    assert (await read(backend, "/products/search"))[0] == 400


async def test_a_created_product_can_be_read_and_found(backend: Backend) -> None:
    status, product = await create(backend, {"title": "Tea towel", "price_cents": 750, "category": "kitchen"})
    assert status == 201
    assert product["id"] == BUILT_IN + 1
    assert (await read(backend, f"/products/{product['id']}"))[1] == product
    assert (await read(backend, "/products/search?q=tea%20towel"))[1]["products"] == [product]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "body"),
        (b"{", "body"),
        ([], "body"),
        ({"price_cents": 1}, "title"),
        ({"title": "", "price_cents": 1}, "title"),
        ({"title": "a", "price_cents": "1"}, "price_cents"),
        ({"title": "a", "price_cents": 0}, "price_cents"),
        ({"title": "a", "price_cents": 1, "id": 1}, "id"),
        ({"title": "a" * 121, "price_cents": 1}, "title"),
    ],
)
async def test_an_invalid_product_is_422_and_says_where(backend: Backend, body: object, place: str) -> None:
    status, problem = await create(backend, body)
    assert status == 422
    assert place in problem["error"]["message"]
    assert (await read(backend, "/products"))[1]["total"] == BUILT_IN


def test_created_products_are_bounded_and_the_oldest_goes_first() -> None:
    catalog = Catalog()
    for number in range(MAX_CREATED + 1):
        catalog.create(f"product {number}", "other", "", 100)
    assert len(catalog) == BUILT_IN + MAX_CREATED
    assert catalog.get(BUILT_IN) is not None
    assert catalog.get(BUILT_IN + 1) is None
    assert catalog.get(BUILT_IN + 2) is not None


async def test_private_data_shows_whom_the_gateway_names(backend: Backend) -> None:
    answer = await ask(
        backend.port, "/private-data", X_Consumer_Id="mobile-app", X_Gateway_Id="shop-api", X_Request_ID="r1"
    )
    seen = json.loads(answer.body)["the_gateway_says"]
    assert seen == {
        "X-Consumer-Id": "mobile-app",
        "X-Gateway-Id": "shop-api",
        "X-Request-ID": "r1",
    }


async def test_private_data_shows_that_there_is_a_token_and_not_the_token(backend: Backend) -> None:
    answer = await ask(backend.port, "/private-data", X_User_Id="ann", Authorization="Bearer secret")
    seen = json.loads(answer.body)["the_gateway_says"]
    assert seen == {"X-User-Id": "ann", "Authorization": "Bearer ..."}


async def test_slow_takes_its_time(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "SLOW_S", 0.05)
    began_s = asyncio.get_running_loop().time()
    assert (await ask(backend.port, "/slow")).status == 200
    assert asyncio.get_running_loop().time() - began_s >= 0.05


async def test_the_download_is_as_long_as_it_says(backend: Backend) -> None:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
        writer.write(b"GET /download HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\ncontent-length: %d\r\n" % DOWNLOAD_BYTES in head.lower()
        length = 0
        while data := await reader.read(1 << 20):
            length += len(data)
        writer.close()
    assert length == DOWNLOAD_BYTES


@pytest.mark.parametrize("path", ["/products", "/products/1", "/private-data", "/download"])
async def test_head_is_get_without_the_body(backend: Backend, path: str) -> None:
    answer = await ask(backend.port, path, "HEAD")
    assert answer.status == 200
    assert int(answer.fields["content-length"]) > 0
    assert answer.body == b""


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/products/1", "GET, HEAD"),
        ("PUT", "/products", "GET, POST, HEAD"),
        ("POST", "/slow", "GET, HEAD"),
    ],
)
async def test_another_method_is_405_with_allow(backend: Backend, method: str, path: str, allow: str) -> None:
    answer = await ask(backend.port, path, method)
    assert answer.status == 405
    assert answer.fields["allow"] == allow


async def test_two_backends_share_nothing(backend: Backend) -> None:
    second = await start_backend()
    try:
        await create(backend, {"title": "Only here", "price_cents": 1})
        assert (await read(second, "/products"))[1]["total"] == BUILT_IN
    finally:
        await second.close()
