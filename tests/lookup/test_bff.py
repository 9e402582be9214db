"""The endpoints of a BFF gateway and what follows for its routes, over sockets, with an independent provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lookup.bff_kit import SESSION, serving
from tests.oidc_provider import Provider
from tests.oidc_provider import provider as running_provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as made:
        yield made


async def test_a_login_makes_a_session_whose_token_the_backend_gets(provider: Provider) -> None:
    async with serving(provider) as site:
        browser = site.browser()
        landed = await browser.log_in("/cart?item=1")
        assert (landed.status, landed.get("location")) == (302, "/cart?item=1")
        assert landed.get("cache-control") == "no-store"
        answer = await browser.go("/api/orders?x=1", "GET", ("Authorization", "Bearer of-the-client"))
        assert answer.status == 200
        seen = answer.body.decode()
        assert seen.startswith("GET /orders?x=1 HTTP/1.1\r\n")
        token = provider.tokens[-1].access_token
        assert f"\r\nAuthorization: Bearer {token}\r\n" in seen
        assert "\r\nX-User-Id: u-1\r\nX-User-Roles: buyer,admin\r\nX-Client-Id: shop\r\n" in seen
        assert "of-the-client" not in seen
        assert SESSION not in seen
        assert browser.session not in seen
