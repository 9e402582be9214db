"""What is remembered of credentials is counted by gateway, with how often that was enough."""

from __future__ import annotations

import pytest

from authgate_fast.observe.auth_metrics import auth_metrics
from tests.auth.adapters_basic import BasicAdapter
from tests.auth.adapters_bff import BffAdapter
from tests.auth.adapters_jwt import JwtAdapter
from tests.auth.adapters_keys import ApiKeyAdapter
from tests.auth.adapters_oauth2 import IntrospectedAdapter, OAuth2Adapter
from tests.auth.kit import Adapter, World


def numbers(world: World) -> dict[str, float]:
    """Return the metrics by their names, those of refused credentials apart."""
    found = {}
    for family in auth_metrics(world.snapshot.gateways):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("gateway") == "kit"
            found[family.name.removeprefix("authgate_auth_cache_") + labels.get("kind", "")] = sample.value
    return found


@pytest.mark.parametrize("kind", [BasicAdapter, JwtAdapter, OAuth2Adapter, IntrospectedAdapter, BffAdapter])
def test_a_credential_is_a_miss_once_and_a_hit_from_then_on(kind: type[Adapter]) -> None:
    world = World(kind())
    world.admitted(world.adapter.good())
    first = numbers(world)
    for _ in range(3):
        world.admitted(world.adapter.good())
    after = numbers(world)
    assert after["hits_total"] - first["hits_total"] == 3
    assert after["misses_total"] == first["misses_total"]
    assert first["entriesgood"] == after["entriesgood"] > 0


@pytest.mark.parametrize("kind", [BasicAdapter, JwtAdapter, OAuth2Adapter, IntrospectedAdapter, BffAdapter])
def test_a_credential_that_is_refused_is_no_hit(kind: type[Adapter]) -> None:
    world = World(kind())
    world.refused(world.adapter.bad()["wrong"])
    assert numbers(world)["hits_total"] == 0
    assert numbers(world)["misses_total"] == 1


def test_a_request_without_a_credential_is_neither() -> None:
    world = World(BasicAdapter())
    world.refused([])
    assert numbers(world) == {"entriesgood": 0, "hits_total": 0, "misses_total": 0}


@pytest.mark.parametrize("kind", [IntrospectedAdapter, BffAdapter])
def test_what_need_not_be_asked_about_again_is_counted_apart(kind: type[Adapter]) -> None:
    world = World(kind())
    before = numbers(world).get("entriesrefused")
    for _ in range(2):
        world.refused(world.adapter.bad()["wrong"])
    assert (before, numbers(world)["entriesrefused"]) == (0, 1)
    assert numbers(world)["misses_total"] == 1


def test_a_gateway_of_api_keys_has_no_such_cache() -> None:
    world = World(ApiKeyAdapter())
    world.admitted(world.adapter.good())
    assert numbers(world) == {}
