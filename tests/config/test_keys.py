from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.config.keys import (
    KEY_PREFIXES,
    KINDS,
    DocumentKey,
    is_name,
    label,
    parse_redis_key,
    redis_key,
)

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(st.sampled_from(KINDS), names, names)
def test_a_key_survives_the_way_to_redis_and_back(kind: str, gateway: str, name: str) -> None:
    key = DocumentKey(kind, gateway, gateway if kind == "gateway" else name)
    assert redis_key(key).startswith(KEY_PREFIXES)
    assert parse_redis_key(redis_key(key)) == key


@given(st.text())
def test_what_parses_is_exactly_what_would_be_written(text: str) -> None:
    for candidate in (text, *(prefix + text for prefix in KEY_PREFIXES)):
        key = parse_redis_key(candidate)
        assert key is None or redis_key(key) == candidate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "authgate:gateway:",
        "authgate:gateway:Shop",
        "authgate:gateway:shop:extra",
        "authgate:gateway:shop\n",
        "authgate:service:shop",
        "authgate:service:shop:",
        "authgate:service::a",
        "authgate:route:shop:a:b",
        "authgate:consumer:shop:-a",
        "authgate:consumer:shop:" + "a" * 64,
        "authgate:secret:shop",
        "authgate:state:x",
        "Authgate:gateway:shop",
        "authgate:gateway:\u0661",
    ],
)
def test_what_is_no_configuration_key_is_none(text: str) -> None:
    assert parse_redis_key(text) is None


def test_labels_are_for_people() -> None:
    assert label(DocumentKey("gateway", "shop", "shop")) == "gateway shop"
    assert label(DocumentKey("route", "shop", "get-product")) == "route shop/get-product"


def test_names_have_1_to_63_characters() -> None:
    assert all(is_name(text) for text in ("a", "a" * 63, "0.a_b-c"))
    assert not any(is_name(text) for text in ("", "a" * 64, ".a", "A", "a b", "a\n", "\u00e4"))
