"""What the plan makes of a request that asks to leave HTTP."""

from __future__ import annotations

import pytest

from authgate_fast.config.compile import build_snapshot
from authgate_fast.decision import Forward
from authgate_fast.errors import Reason
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import Snapshot
from tests.plan_world import (
    BACKEND,
    Fields,
    Service,
    changed,
    forward,
    make_snapshot,
    refusal,
    route,
)

ASK: Fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")]


def snapshot(*allowed: bytes) -> Snapshot:
    service = Service("catalog", (BACKEND,))
    items = [
        route("ANY", "/open", "/open", service, upgrades=frozenset(allowed)),
        route("ANY", "/private", "/private", service, secure=True, upgrades=frozenset(allowed)),
        route("ANY", "/readers", "/r", service, secure=True, upgrades=frozenset(allowed), roles=frozenset({"reader"})),
    ]  # fmt: skip
    shop = make_snapshot().gateways["shop"]
    return build_snapshot(3, [changed(shop, trie=build_trie(items))])


def lines_of(decision: Forward) -> list[bytes]:
    return decision.head.split(b"\r\n")


def test_an_upgrade_that_the_route_allows_goes_on_written_anew() -> None:
    found = lines_of(forward(target=b"/open", fields=ASK, snapshot=snapshot(b"websocket")))
    assert found[0] == b"GET /open HTTP/1.1"
    assert [line for line in found if b"pgrade" in line] == [b"Connection: upgrade", b"Upgrade: websocket"]
    assert b"Sec-WebSocket-Version: 13" in found
    assert not [line for line in found if line.startswith(b"Content-Length")]


def test_an_empty_body_s_length_does_not_go_with_it() -> None:
    fields = [*ASK, (b"Content-Length", b"0")]
    found = lines_of(forward(target=b"/open", fields=fields, snapshot=snapshot(b"websocket")))
    assert b"Upgrade: websocket" in found
    assert not [line for line in found if line.startswith(b"Content-Length")]


@pytest.mark.parametrize("allowed", [(), (b"my-proto",)])
def test_an_upgrade_that_the_route_does_not_allow_is_an_ordinary_request(allowed: tuple[bytes, ...]) -> None:
    found = lines_of(forward(target=b"/open", fields=ASK, snapshot=snapshot(*allowed)))
    assert not [line for line in found if b"pgrade" in line]


def test_it_is_checked_like_any_other_request() -> None:
    world = snapshot(b"websocket")
    assert refusal(target=b"/private", fields=ASK, snapshot=world).reason is Reason.CREDENTIALS_MISSING
    wrong = [*ASK, (b"X-Api-Key", b"no")]
    assert refusal(target=b"/private", fields=wrong, snapshot=world).reason is Reason.CREDENTIALS_INVALID
    one = [*ASK, (b"X-Api-Key", b"one")]
    assert refusal(target=b"/readers", fields=one, snapshot=world).reason is Reason.FORBIDDEN
    assert b"X-Consumer-Id: one" in lines_of(forward(target=b"/private", fields=one, snapshot=world))
    assert refusal(target=b"/nowhere", fields=ASK, snapshot=world).reason is Reason.ROUTE_NOT_FOUND
    elsewhere = refusal(target=b"/open", fields=ASK, snapshot=world, host=b"other.localhost")
    assert elsewhere.reason is Reason.GATEWAY_NOT_FOUND


def test_connection_cannot_take_what_a_handshake_needs_into_the_tunnel_unseen() -> None:
    fields = [(b"Connection", b"upgrade, sec-websocket-version, host, upgrade"), *ASK[1:]]
    found = lines_of(forward(target=b"/open", fields=fields, snapshot=snapshot(b"websocket")))
    assert b"Sec-WebSocket-Version: 13" not in found
    assert [line for line in found if line.startswith(b"Host")] == [b"Host: backend.internal:8080"]
