from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.config.compile import STEP
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.store import Configuration
from authgate_fast.limits import Limits
from authgate_fast.snapshot import Gateway, Route, Snapshot, find_gateway
from tests.known_keys import all_identities, identity_of

K1, K2 = "ab" * 32, "cd" * 32
D1, D2 = bytes.fromhex(K1), bytes.fromhex(K2)


def _key(text: str) -> DocumentKey:
    kind, *names = text.split(":")
    return DocumentKey(kind, names[0], names[-1])


def _docs(**documents: Any) -> dict[DocumentKey, Any]:
    """``route__shop__r={...}`` for a document, None for one that is gone."""
    return {
        _key(name.replace("__", ":")): None if document is None else json.dumps(document).encode()
        for name, document in documents.items()
    }


def _gateway(*hosts: str, **more: Any) -> dict[str, Any]:
    return {"hosts": hosts, "auth": {"type": "API_KEY"}} | more


def _route(path: str = "/a", **more: Any) -> dict[str, Any]:
    return {"method": "GET", "public_path": path, "service": "s", "security": "SECURE"} | more


def _consumer(*digests: str, **more: Any) -> dict[str, Any]:
    return {"api_keys": [{"id": f"k{n}", "sha256": digest} for n, digest in enumerate(digests)]} | more


SHOP = _docs(
    gateway__shop=_gateway("shop.test"),
    service__shop__s={"target_url": "http://s"},
    route__shop__r=_route(),
    consumer__shop__c=_consumer(K1),
)


@pytest.fixture
def configuration() -> Configuration:
    configuration = Configuration()
    configuration.replace_all(SHOP)
    return configuration


def _owner(configuration: Configuration, host: str) -> str | None:
    gateway = find_gateway(configuration.snapshot, host.encode())
    return gateway.name if gateway is not None else None


def _served(configuration: Configuration, path: str = "a", gateway: str = "shop") -> Route | None:
    leaf = configuration.snapshot.gateways[gateway].trie.match([path.encode()])
    return leaf.by_method.get(b"GET") if leaf is not None else None


def _holders(configuration: Configuration, gateway: str = "shop") -> dict[bytes, str]:
    keys = configuration.snapshot.gateways[gateway].consumers.keys
    assert {digest: found.consumer for digest, found in all_identities(keys).items()} == keys.holders
    return dict(keys.holders)


def test_the_first_snapshot_is_empty_and_not_ready_until_everything_was_read() -> None:
    configuration = Configuration()
    assert not configuration.snapshot.ready
    configuration.apply(SHOP)
    assert not configuration.snapshot.ready
    assert _served(configuration) is not None
    configuration.replace_all(SHOP)
    assert configuration.snapshot.ready
    configuration.apply(_docs(gateway__shop=_gateway("b.test")))
    assert configuration.snapshot.ready


def test_an_empty_configuration_is_ready_too() -> None:
    configuration = Configuration()
    configuration.replace_all({})
    assert configuration.snapshot.ready
    assert configuration.snapshot.gateways == {}


def test_documents_in_force_are_kept_as_they_were_written(configuration: Configuration) -> None:
    assert configuration.documents == SHOP
    configuration.apply(_docs(route__shop__r=None, consumer__shop__c=None))
    assert configuration.documents.keys() == {_key("gateway:shop"), _key("service:shop:s")}


def test_a_consumer_change_is_live_at_once_and_compiles_nothing(configuration: Configuration) -> None:
    swaps: list[Snapshot] = []
    configuration.on_swap.append(swaps.append)
    snapshot = configuration.snapshot
    gateway = snapshot.gateways["shop"]
    trie, credentials, revision = gateway.trie, gateway.consumers.keys, configuration.revision
    configuration.apply(_docs(consumer__shop__d=_consumer(K2, roles=["reader"])))
    assert configuration.snapshot is snapshot
    assert snapshot.gateways["shop"] is gateway
    assert gateway.trie is trie
    assert gateway.consumers.keys is credentials
    assert identity_of(credentials, D2).roles == {"reader"}
    assert swaps == []
    assert configuration.revision == revision + 1


def test_credentials_outlive_a_recompilation(configuration: Configuration) -> None:
    before = configuration.snapshot.gateways["shop"]
    configuration.apply(_docs(route__shop__r2=_route("/b")))
    after = configuration.snapshot.gateways["shop"]
    assert after is not before
    assert after.trie is not before.trie
    assert after.consumers.keys is before.consumers.keys


def test_only_the_gateways_concerned_are_compiled(configuration: Configuration) -> None:
    configuration.apply(_docs(gateway__zoo=_gateway("zoo.test"), route__zoo__r=_route()))
    shop, zoo = configuration.snapshot.gateways["shop"], configuration.snapshot.gateways["zoo"]
    configuration.apply(_docs(service__zoo__s={"target_url": "http://zoo"}))
    assert configuration.snapshot.gateways["shop"] is shop
    assert configuration.snapshot.gateways["zoo"] is not zoo


def test_each_swap_is_told_once_with_a_new_snapshot(configuration: Configuration) -> None:
    swaps: list[Snapshot] = []
    configuration.on_swap.append(swaps.append)
    before = configuration.snapshot
    configuration.apply(_docs(route__shop__r2=_route("/b"), route__shop__r3=_route("/c")))
    assert swaps == [configuration.snapshot]
    assert swaps[0] is not before
    assert swaps[0].revision == configuration.revision > before.revision
    assert before.gateways["shop"].trie.match([b"b"]) is None


def test_what_is_the_same_changes_nothing(configuration: Configuration) -> None:
    snapshot, revision = configuration.snapshot, configuration.revision
    configuration.replace_all(SHOP)
    configuration.apply(SHOP)
    configuration.apply(_docs(route__shop__none=None, consumer__none__none=None))
    assert configuration.snapshot is snapshot
    assert configuration.revision == revision


def test_a_full_read_removes_what_it_does_not_hold(configuration: Configuration) -> None:
    configuration.replace_all({key: raw for key, raw in SHOP.items() if key.kind == "gateway"})
    assert _served(configuration) is None
    assert _holders(configuration) == {}
    configuration.replace_all({})
    assert _owner(configuration, "shop.test") is None
    assert configuration.documents == {}
    assert configuration._houses == {}


def test_a_missing_or_disabled_service_leaves_its_routes_without_one(configuration: Configuration) -> None:
    for service, is_there in (
        (None, False),
        ({"target_url": "http://s", "enabled": False}, False),
        ({"target_url": "http://s"}, True),
    ):
        configuration.apply(_docs(service__shop__s=service))
        route = _served(configuration)
        assert route is not None
        assert (route.service is not None) == is_there


def test_a_disabled_gateway_is_as_if_it_were_not_there(configuration: Configuration) -> None:
    configuration.apply(_docs(gateway__shop=_gateway("shop.test", enabled=False)))
    assert _owner(configuration, "shop.test") is None
    configuration.apply(_docs(consumer__shop__d=_consumer(K2)))
    configuration.apply(_docs(gateway__shop=_gateway("shop.test")))
    assert _owner(configuration, "shop.test") == "shop"
    assert _holders(configuration) == {D1: "c", D2: "d"}


def test_consumers_services_and_routes_may_come_before_their_gateway() -> None:
    configuration = Configuration()
    for key, raw in reversed(SHOP.items()):
        configuration.apply({key: raw})
    assert _holders(configuration) == {D1: "c"}
    route = _served(configuration)
    assert route is not None
    assert route.service is not None


def test_consumers_of_one_gateway_are_nobody_at_another(configuration: Configuration) -> None:
    configuration.apply(_docs(gateway__zoo=_gateway("zoo.test"), consumer__zoo__z=_consumer(K2)))
    assert _holders(configuration) == {D1: "c"}
    assert _holders(configuration, "zoo") == {D2: "z"}


@pytest.mark.parametrize("change", [None, _consumer(K1, enabled=False), _consumer(K2), _consumer()])
def test_a_key_that_is_taken_away_is_gone_at_once(configuration: Configuration, change: Any) -> None:
    configuration.apply(_docs(consumer__shop__c=change))
    assert D1 not in _holders(configuration)


def test_a_rotated_consumer_has_both_keys_and_then_the_new_one(configuration: Configuration) -> None:
    configuration.apply(_docs(consumer__shop__c=_consumer(K1, K2, roles=["a"])))
    found = all_identities(configuration.snapshot.gateways["shop"].consumers.keys).values()
    assert {identity.credential_id for identity in found} == {"k0", "k1"}
    assert all(identity.roles == {"a"} for identity in found)
    configuration.apply(_docs(consumer__shop__c=_consumer(K2)))
    assert _holders(configuration) == {D2: "c"}


def test_a_shared_key_stays_with_the_older_consumer(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    configuration.apply(_docs(consumer__shop__a=_consumer(K1, K2)))
    assert _holders(configuration) == {D1: "c", D2: "a"}
    (name,) = configuration.refused
    assert name == "consumer shop/a key k0"
    assert "`c` keeps it" in configuration.refused[name].message
    configuration.apply(_docs(consumer__shop__c=_consumer(K1, roles=["x"])))
    assert _holders(configuration)[D1] == "c"
    assert caplog.text.count("consumer shop/a key k0") == 1
    assert K1 not in caplog.text
    configuration.apply(_docs(consumer__shop__c=None))
    assert _holders(configuration) == {D1: "a", D2: "a"}
    assert configuration.refused == {}


def test_until_it_is_ready_all_is_one_batch_in_which_names_say_who_is_first() -> None:
    configuration = Configuration()
    configuration.apply(_docs(gateway__shop=_gateway("shop.test"), consumer__shop__c=_consumer(K1)))
    for consumer in ("d", "b", "a", "e"):
        configuration.apply(_docs(**{f"consumer__shop__{consumer}": _consumer(K1)}))
    assert _holders(configuration) == {D1: "a"}
    assert not configuration.refused, "clashes are told when all of it is there"
    for gone, holder in (("a", "b"), ("c", "b"), ("b", "d"), ("d", "e")):
        configuration.apply(_docs(**{f"consumer__shop__{gone}": None}))
        assert _holders(configuration) == {D1: holder}
    configuration.apply({}, becomes_ready=True)
    assert configuration.snapshot.ready
    configuration.apply(_docs(consumer__shop__a=_consumer(K1)))
    assert _holders(configuration) == {D1: "e"}


def test_what_a_key_stands_for_follows_its_document(configuration: Configuration) -> None:
    keys = configuration.snapshot.gateways["shop"].consumers.keys
    first = identity_of(keys, D1)
    assert keys.get(D1) is first
    configuration.apply(_docs(consumer__shop__d=_consumer(K2)))
    assert keys.get(D1) is first
    configuration.apply(_docs(consumer__shop__c=_consumer(K1, roles=["new"])))
    assert identity_of(keys, D1).roles == {"new"}
    assert identity_of(keys, D1).identity_lines.startswith(b"X-Consumer-Id: c\r\nX-Consumer-Roles: new\r\n")
    configuration.apply(_docs(consumer__shop__c=_consumer(K2, K1), consumer__shop__d=None))
    assert identity_of(keys, D1).credential_id == "k1"
    assert identity_of(keys, D2).credential_id == "k0"
    configuration.apply(_docs(consumer__shop__c=_consumer(K1, enabled=False)))
    assert keys.get(D1) is None
    configuration.apply(_docs(consumer__shop__c=None, consumer__shop__d=_consumer(K1)))
    assert identity_of(keys, D1).consumer == "d"


def test_a_later_claim_on_a_key_can_be_withdrawn(configuration: Configuration) -> None:
    for consumer in ("a", "b"):
        configuration.apply(_docs(**{f"consumer__shop__{consumer}": _consumer(K1)}))
    assert set(configuration.refused) == {"consumer shop/a key k0", "consumer shop/b key k0"}
    configuration.apply(_docs(consumer__shop__a=_consumer(K1, roles=["new"])))
    configuration.apply(_docs(consumer__shop__b=None))
    assert set(configuration.refused) == {"consumer shop/a key k0"}
    assert _holders(configuration) == {D1: "c"}
    configuration.apply(_docs(consumer__shop__c=_consumer(K2)))
    assert identity_of(configuration.snapshot.gateways["shop"].consumers.keys, D1).roles == {"new"}
    assert configuration.refused == {}


def test_a_key_that_moves_within_one_batch_is_no_clash(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    for before, after in (("c", "a"), ("a", "z")):
        configuration.apply(
            _docs(**{f"consumer__shop__{before}": None, f"consumer__shop__{after}": _consumer(K1)})
        )
        assert _holders(configuration) == {D1: after}
    configuration.apply(_docs(consumer__shop__z=_consumer(K2), consumer__shop__b=_consumer(K1)))
    assert _holders(configuration) == {D1: "b", D2: "z"}
    assert configuration.refused == {}
    assert caplog.text == ""


def test_a_host_stays_with_the_older_gateway_and_goes_to_the_next(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    configuration.apply(_docs(gateway__a=_gateway("shop.test", "a.test"), gateway__b=_gateway("shop.test")))
    assert _owner(configuration, "shop.test") == "shop"
    assert _owner(configuration, "a.test") == "a"
    assert configuration.snapshot.gateways["a"].hosts == ("a.test",)
    assert set(configuration.refused) == {"gateway a host shop.test", "gateway b host shop.test"}
    assert "`shop`" in configuration.refused["gateway a host shop.test"].message
    configuration.apply(_docs(route__shop__more=_route("/more")))
    assert caplog.text.count("gateway a host shop.test") == 1
    configuration.apply(_docs(gateway__shop=_gateway("other.test")))
    assert _owner(configuration, "shop.test") == "a"
    assert _owner(configuration, "other.test") == "shop"
    assert set(configuration.refused) == {"gateway b host shop.test"}
    configuration.apply(_docs(gateway__a=None))
    assert _owner(configuration, "shop.test") == "b"
    assert configuration.refused == {}


def test_each_host_has_its_own_first_claim(configuration: Configuration) -> None:
    configuration.apply(_docs(gateway__zoo=_gateway("zoo.test")))
    configuration.apply(
        _docs(gateway__shop=_gateway("shop.test", "zoo.test"), gateway__zoo=_gateway("zoo.test", "shop.test"))
    )
    assert (_owner(configuration, "shop.test"), _owner(configuration, "zoo.test")) == ("shop", "zoo")


def test_hosts_swapped_in_one_batch_are_no_clash(configuration: Configuration) -> None:
    configuration.apply(_docs(gateway__a=_gateway("a.test")))
    configuration.apply(_docs(gateway__a=_gateway("shop.test"), gateway__shop=_gateway("a.test")))
    assert (_owner(configuration, "shop.test"), _owner(configuration, "a.test")) == ("a", "shop")
    assert configuration.refused == {}


def test_within_one_batch_the_first_by_name_has_the_claim() -> None:
    configuration = Configuration()
    configuration.replace_all(
        _docs(
            gateway__b=_gateway("x.test"),
            gateway__a=_gateway("x.test"),
            route__a__z=_route(),
            route__a__y=_route(),
            consumer__a__n=_consumer(K1),
            consumer__a__m=_consumer(K1),
        )
    )
    route = _served(configuration, gateway="a")
    assert _owner(configuration, "x.test") == "a"
    assert route is not None
    assert route.name == "y"
    assert _holders(configuration, "a") == {D1: "m"}
    assert set(configuration.refused) == {
        "gateway b host x.test",
        "route a/z conflict",
        "consumer a/n key k0",
    }


def test_a_route_conflict_keeps_the_older_route_until_it_goes(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    configuration.apply(_docs(route__shop__a=_route()))
    route = _served(configuration)
    assert route is not None
    assert route.name == "r"
    assert set(configuration.refused) == {"route shop/a conflict"}
    configuration.apply(_docs(route__shop__r=_route(roles=["x"])))
    assert caplog.text.count("route shop/a conflict") == 1
    configuration.apply(_docs(route__shop__r=_route("/elsewhere")))
    route = _served(configuration)
    assert route is not None
    assert route.name == "a"
    assert configuration.refused == {}
    configuration.apply(_docs(route__shop__r=_route()))
    assert set(configuration.refused) == {"route shop/r conflict"}
    configuration.apply(_docs(route__shop__r=None))
    assert configuration.refused == {}


def test_a_malformed_key_is_reported_once_until_it_goes(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        configuration.report_malformed("authgate:route:shop\nX", "a key is authgate:route:GATEWAY:ROUTE")
        configuration.replace_all(SHOP)
    assert list(configuration.refused) == ["authgate:route:shop?X"]
    assert len(caplog.records) == 1
    configuration.forget_malformed("authgate:route:shop\nX")
    assert configuration.refused == {}


def test_the_limits_of_the_node_are_in_every_route() -> None:
    configuration = Configuration(Limits(body_timeout_s=7.0))
    configuration.replace_all(SHOP)
    route = _served(configuration)
    assert route is not None
    assert route.settings.body_timeout_s == 7.0


def _many(routes: int, consumers: int) -> dict[DocumentKey, bytes]:
    documents = {**SHOP}
    for n in range(routes):
        documents[DocumentKey("route", "shop", f"r{n}")] = json.dumps(_route(f"/{n}")).encode()
    for n in range(consumers):
        documents[DocumentKey("consumer", "shop", f"c{n}")] = json.dumps(_consumer(f"{n:064x}")).encode()
    return documents


def test_work_comes_in_steps_and_routes_are_published_only_at_the_end() -> None:
    configuration = Configuration()
    steps = configuration.replace_all_steps(_many(STEP * 4, STEP * 4))
    empty = configuration.snapshot
    count = 0
    for _ in steps:
        count += 1
        assert configuration.snapshot is empty
    assert count >= 12
    assert len(configuration.documents) == len(SHOP) + STEP * 8


def test_one_change_must_end_before_the_next_begins(configuration: Configuration) -> None:
    steps = configuration.replace_all_steps(_many(STEP * 2, 0))
    next(steps)
    with pytest.raises(RuntimeError, match="before the next begins"):
        configuration.apply({})
    steps.close()
    configuration.apply({})


@pytest.mark.parametrize("count", range(1, 14))
def test_abandoned_steps_leave_every_document_wholly_in_force_or_not_at_all(count: int) -> None:
    configuration = Configuration()
    configuration.replace_all(SHOP)
    wanted = _many(STEP * 3, STEP * 3)
    wanted[_key("gateway:shop")] = json.dumps(_gateway("new.test")).encode()
    wanted[_key("consumer:shop:c")] = json.dumps(_consumer(K2)).encode()
    steps: Iterator[None] = configuration.replace_all_steps(wanted)
    for _ in zip(range(count), steps, strict=False):
        pass
    del steps
    keys = {key.name for key in configuration.documents if key.kind == "consumer"}
    assert set(_holders(configuration).values()) == keys
    is_published = _key("route:shop:r0") in configuration.documents
    assert is_published == (_served(configuration, "0") is not None)
    assert is_published == (_owner(configuration, "new.test") is not None)
    configuration.replace_all(wanted)
    assert configuration.documents == wanted
    assert _served(configuration, "0") is not None
    assert D1 not in _holders(configuration)


_states = st.fixed_dictionaries(
    {},
    optional={
        "gateway__a": st.sampled_from(
            [_gateway("x.test"), _gateway("x.test", "y.test"), _gateway("y.test", enabled=False)]
        ),
        "gateway__b": st.sampled_from([_gateway("x.test"), _gateway("y.test"), {"hosts": []}]),
        "service__a__s": st.sampled_from([{"target_url": "http://s"}, {"target_url": "s"}]),
        "route__a__q": st.sampled_from([_route(), _route("/b"), _route("/b", enabled=False)]),
        "route__a__r": st.sampled_from([_route(), _route("/b"), _route(method="BAD")]),
        "consumer__a__c": st.sampled_from([_consumer(K1), _consumer(K2, K1), _consumer(K1, enabled=False)]),
        "consumer__a__d": st.sampled_from([_consumer(K1), _consumer(K2), {"roles": "x"}]),
        "consumer__b__c": st.sampled_from([_consumer(K1), _consumer()]),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_states, min_size=1, max_size=5))
def test_what_is_served_follows_from_the_documents_in_force(states: list[dict[str, Any]]) -> None:
    """After any history: no host, route, key or report is left of what is gone, none is missing."""
    logging.disable(logging.CRITICAL)
    try:
        configuration = Configuration()
        for state in states:
            configuration.replace_all(_docs(**state))
    finally:
        logging.disable(logging.NOTSET)
    live = {key: json.loads(raw) for key, raw in configuration.documents.items()}
    assert live.keys() <= _docs(**states[-1]).keys()
    on = {key: document for key, document in live.items() if document.get("enabled", True)}
    gateways = {key.gateway: document for key, document in on.items() if key.kind == "gateway"}
    snapshot = configuration.snapshot
    assert snapshot.gateways.keys() == gateways.keys()
    wanted = {host for document in gateways.values() for host in document["hosts"]}
    assert {host.decode() for host in snapshot.exact} == wanted
    for host, gateway in snapshot.exact.items():
        assert host.decode() in gateways[gateway.name]["hosts"]
    clashes = sum(len(document["hosts"]) for document in gateways.values()) - len(wanted)
    for gateway in snapshot.gateways.values():
        clashes += _judge_gateway(gateway, on)
    hidden = sum(
        name.partition("/")[0].split(" ")[1] not in gateways
        for name in configuration.refused
        if " key " in name
    )
    bad = sum(
        " host " not in name and " conflict" not in name and " key " not in name
        for name in configuration.refused
    )
    assert bad == len(configuration.bad)
    assert len(configuration.refused) - bad - hidden == clashes


def _judge_gateway(gateway: Gateway, on: dict[DocumentKey, Any]) -> int:
    """Compare what a gateway serves with its documents; return how many claims it had to refuse."""
    clashes = 0
    consumers = {key.name: d for key, d in on.items() if key[:2] == ("consumer", gateway.name)}
    digests = [bytes.fromhex(key["sha256"]) for d in consumers.values() for key in d["api_keys"]]
    found = all_identities(gateway.consumers.keys)
    assert found.keys() == set(digests)
    for digest, credential in found.items():
        assert digest.hex() in [key["sha256"] for key in consumers[credential.consumer]["api_keys"]]
    clashes += len(digests) - len(set(digests))
    routes = {key.name: d for key, d in on.items() if key[:2] == ("route", gateway.name)}
    paths = [d["public_path"] for d in routes.values()]
    clashes += len(paths) - len(set(paths))
    for path in ("/a", "/b"):
        leaf = gateway.trie.match([path[1:].encode()])
        assert (leaf is not None) == (path in paths)
        if leaf is not None:
            route = leaf.by_method[b"GET"]
            assert routes[route.name]["public_path"] == path
            assert (route.service is not None) == (DocumentKey("service", gateway.name, "s") in on)
    return clashes
