"""Which gateway a host belongs to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.auth.api_key import ApiKeyAuthenticator
from authgate_fast.config.compile import build_snapshot
from authgate_fast.http.request import normalise_host
from authgate_fast.routing.path_policy import PathPolicy
from authgate_fast.routing.trie import build_trie
from authgate_fast.snapshot import MAX_KNOWN_KEYS, Consumers, Gateway, Identity, Keys, Snapshot, find_gateway


def gateway(name: str, *hosts: str) -> Gateway:
    authenticator = ApiKeyAuthenticator(name, "X-Api-Key", Consumers())
    return Gateway(name, hosts, authenticator, Consumers(), build_trie([]), PathPolicy(), (), b"")


def name_for(snapshot: Snapshot, host: str) -> str | None:
    normal = normalise_host(host.encode())
    assert normal is not None
    found = find_gateway(snapshot, normal)
    return None if found is None else found.name


SHOPS = build_snapshot(
    1,
    [
        gateway("exact", "shop.example.com", "localhost", "[::1]", "127.0.0.1"),
        gateway("wide", "*.example.com"),
        gateway("deep", "*.eu.example.com", "*.localhost"),
    ],
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("shop.example.com", "exact"),
        ("SHOP.Example.COM:8080", "exact"),
        ("shop.example.com.", "exact"),
        ("other.example.com", "wide"),
        ("a.shop.example.com", "wide"),
        ("eu.example.com", "wide"),
        ("a.eu.example.com", "deep"),
        ("a.b.eu.example.com", "deep"),
        ("eu-example.com", None),
        ("example.com", None),
        ("xexample.com", None),
        ("com", None),
        ("example.com.evil.org", None),
        ("localhost", "exact"),
        ("a.localhost", "deep"),
        ("[::1]:80", "exact"),
        ("[::2]", None),
        ("127.0.0.1:80", "exact"),
        ("127.0.0.2", None),
    ],
)
def test_exact_before_the_longest_wildcard_before_nothing(host: str, expected: str | None) -> None:
    assert name_for(SHOPS, host) == expected


@pytest.mark.parametrize("host", ["shop.example.com", "x.example.com", "anything", "[::2]"])
def test_the_star_serves_every_other_host(host: str) -> None:
    snapshot = build_snapshot(1, [gateway("rest", "*"), gateway("shop", "shop.example.com", "*.example.com")])
    assert name_for(snapshot, host) == ("shop" if host.endswith("example.com") else "rest")


def test_no_host_is_served_by_the_star_only() -> None:
    assert find_gateway(SHOPS, b"") is None
    rest = gateway("rest", "*")
    assert find_gateway(build_snapshot(1, [rest]), b"") is rest


def test_an_empty_snapshot_knows_nobody() -> None:
    assert find_gateway(Snapshot(), b"a.b") is None
    assert not Snapshot().ready


labels = st.sampled_from(["a", "b", "com", "xn--a"])
hosts = st.lists(labels, min_size=1, max_size=5).map(".".join)


@given(st.lists(hosts, max_size=4), st.lists(hosts, max_size=4), hosts)
def test_it_finds_what_a_naive_search_finds(exact: list[str], wild: list[str], host: str) -> None:
    gateways = [gateway(f"e-{name}", name) for name in exact] + [
        gateway(f"w-{name}", f"*.{name}") for name in wild
    ]
    expected = None
    if host in exact:
        expected = f"e-{host}"
    else:
        fitting = [name for name in wild if host.endswith("." + name)]
        if fitting:
            expected = f"w-{max(fitting, key=len)}"
    assert name_for(build_snapshot(1, gateways), host) == expected


def identity(consumer: str) -> Identity:
    return Identity(consumer, "default", frozenset(), math.inf, b"")


def test_what_a_key_stands_for_is_made_once_and_again_when_it_may_have_changed() -> None:
    made: list[tuple[str, bytes]] = []

    def make(consumer: str, digest: bytes) -> Identity | None:
        made.append((consumer, digest))
        return identity(consumer)

    keys = Keys({b"1": "a", b"2": "b"}, make)
    one = keys.get(b"1")
    assert one is not None
    assert keys.get(b"1") is one
    assert keys.get(b"3") is None
    assert made == [("a", b"1")]
    keys.forget(b"1")
    keys.forget(b"3")
    assert keys.get(b"1") is not one
    assert made == [("a", b"1")] * 2
    del keys.holders[b"2"]
    assert keys.get(b"2") is None


def test_a_key_whose_document_says_nothing_of_it_is_nobodys() -> None:
    keys = Keys({b"1": "a"}, lambda consumer, digest: None)
    assert keys.get(b"1") is None
    assert keys.known == {}


def test_only_so_many_keys_are_known() -> None:
    digests = [b"%d" % number for number in range(MAX_KNOWN_KEYS + 10)]
    keys = Keys(dict.fromkeys(digests, "a"), lambda consumer, digest: identity(consumer))
    for digest in digests:
        assert keys.get(digest) is not None
        assert len(keys.known) <= MAX_KNOWN_KEYS
    assert len(keys.known) > MAX_KNOWN_KEYS * 0.9  # those of the others are still known
    assert digests[-1] in keys.known
    assert digests[0] not in keys.known
