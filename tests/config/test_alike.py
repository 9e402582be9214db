"""Consumers whose documents differ in a key's hash alone are taken in without being read, and no others are."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authgate_fast.config.credentials import Credentials
from authgate_fast.config.keys import ConsumerKeys, DocumentKey, parse_redis_key
from authgate_fast.config.store import Configuration
from authgate_fast.config.texts import Texts

GATEWAY = {DocumentKey("gateway", "shop", "shop"): b'{"hosts": ["*"], "auth": {"type": "API_KEY"}}'}


def consumer(name: str) -> DocumentKey:
    return DocumentKey("consumer", "shop", name)


def hash_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


PASSWORD = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
FORMS = [
    '{"api_key_sha256": "%s"}',
    '{"api_key_sha256":"%s","enabled":true}',
    '{"api_key_sha256": "%s", "enabled": false}',
    '{"api_key_sha256": "%s", "roles": ["reader"], "description": "a \\u00fc"}',
    '{"api_keys": [{"id": "a", "sha256": "%s"}]}',
    '{"api_keys": [{"id": "a", "sha256": "%s"}, {"id": "b", "sha256": "' + hash_of("b") + '"}]}',
    '{"api_key_sha256": "%s", "expires_at": "2030-01-31T00:00:00Z"}',
    '{"api_key_sha256": "%s", "expires_at": "2030-01-31"}',
    '{"api_key_sha256": "' + hash_of("c") + '", "description": "%s"}',
    '{"description": "%s", "api_key_sha256": "' + hash_of("0") + '"}',
    '{"description": "%s", "api_key_sha256": "' + hash_of("0").upper() + '"}',
    '{"description": "%s", "api_key_sha256": "\\u00'
    + hash_of("0")[0].encode().hex()
    + hash_of("0")[1:]
    + '"}',
    '{"api_key_sha256": "%s", "api_key_sha256": "' + hash_of("0") + '"}',
    '{"api_key_sha256": "%s", "username": "somebody"}',
    '{"api_key_sha256": "%s", "unknown": 1}',
    '{"api_key_sha256": "%s", "password_hash": "' + PASSWORD + '"}',
    '{"api_key_sha256": "%s", "passwords": [{"id": "a", "hash": "' + PASSWORD + '"}]}',
    '{"api_key_sha256": "%s"',
    '["%s"]',
    '"%s"',
]
DIGITS = ["0", "1", "2", "3", "b", "c", "short", "upper", "zeros", "no hex"]


def text_of(form: str, digits: str) -> bytes:
    written = {
        "short": hash_of("0")[:-1],
        "upper": hash_of("0").upper(),
        "zeros": "0" * 64,
        "no hex": "g" * 64,
    }.get(digits, hash_of(digits))
    return (form % written).encode()


class Oracle:
    """Gives each text a length of its own, so that none is like another."""

    def __init__(self) -> None:
        self.texts = 0

    def unlike(self, text: bytes) -> bytes:
        self.texts += 1
        return text + b" " * self.texts


def state_of(configuration: Configuration) -> tuple[object, ...]:
    consumers = configuration.snapshot.gateways["shop"].consumers
    keys = consumers.keys
    identities = {digest: keys.get(digest) for digest in keys.holders}
    return (
        dict(keys.holders),
        {username: user.consumer for username, user in consumers.users.items()},
        {digest: identity and identity.identity_lines for digest, identity in identities.items()},
        {key: text.rstrip() for key, text in configuration.documents.items() if key.kind == "consumer"},
        set(configuration.bad),
        set(configuration.refused),
    )


TAUGHT = {
    consumer(f"t{number}-{count}"): (form % hash_of(f"{number}-{count}")).encode()
    for number, form in enumerate(FORMS)
    for count in range(3)
}
Steps = list[tuple[str, str, str]]
names = st.sampled_from("abcdef")


@settings(max_examples=200)
@given(
    st.lists(st.tuples(names, st.sampled_from([*FORMS, None]), st.sampled_from(DIGITS)), max_size=40),
    st.integers(1, 5),
    st.booleans(),
)
def test_what_is_like_others_comes_out_as_if_it_had_been_read(
    steps: list[tuple[str, str | None, str]], size: int, is_ready: bool
) -> None:
    alike, unlike, oracle = Configuration(), Configuration(), Oracle()
    for configuration in (alike, unlike):
        if is_ready:
            configuration.replace_all(GATEWAY)
    alike.apply(TAUGHT)
    unlike.apply({key: oracle.unlike(text) for key, text in TAUGHT.items()})
    for start in range(0, len(steps), size):
        changes = {
            consumer(name): None if form is None else text_of(form, digits)
            for name, form, digits in steps[start : start + size]
        }
        alike.apply(changes)
        unlike.apply({key: text and oracle.unlike(text) for key, text in changes.items()})
    if not is_ready:
        for configuration in (alike, unlike):
            configuration.apply(GATEWAY, becomes_ready=True)
    assert state_of(alike) == state_of(unlike)


def held(form: str, *digits: str, taught: str = "012") -> list[bytes | None]:
    """Show what each text, put in alone after three of its form, is taken for."""
    configuration = Configuration()
    configuration.replace_all(GATEWAY)
    configuration.apply({consumer(f"t{n}"): text_of(form, one) for n, one in enumerate(taught)})
    return [
        configuration.documents.add_alike(consumer(f"n{n}"), text_of(form, one))
        for n, one in enumerate(digits)
    ]


@pytest.mark.parametrize("form", [FORMS[0], FORMS[1], FORMS[4], FORMS[6]])
def test_a_hash_alone_makes_no_difference(form: str) -> None:
    digest = bytes.fromhex(hash_of("3"))
    assert held(form, "3", "zeros", "upper", "short", "no hex") == [digest, bytes(32), None, None, None]


@pytest.mark.parametrize("taught", ["012", "000"])
@pytest.mark.parametrize("form", [FORMS[2], FORMS[3], FORMS[5], *FORMS[7:13], *FORMS[14:]])
def test_what_is_off_refused_or_has_its_hash_elsewhere_is_read_each_time(form: str, taught: str) -> None:
    assert held(form, "3", taught=taught) == [None]


def test_a_form_is_forgotten_with_the_last_that_has_it() -> None:
    configuration = Configuration()
    keys = [consumer(f"t{n}") for n in range(3)]
    texts = [text_of(FORMS[0], str(n)) for n in range(4)]
    configuration.apply({consumer("other"): b"{}"})
    configuration.apply(dict(zip(keys, texts, strict=False)))
    configuration.apply(dict.fromkeys(keys))
    assert configuration.documents.add_alike(consumer("n"), texts[3]) is None
    assert list(configuration.documents) == [consumer("other")]


def test_who_takes_a_key_from_another_is_known_by_it_at_once() -> None:
    texts, digest = Texts(), bytes.fromhex(hash_of("0"))
    credentials = Credentials("shop", texts)
    for name in "za":
        texts[consumer(name)] = text_of(FORMS[0], "0")
        credentials.take_key(name, digest, by_name=True)
        identity = credentials.consumers.keys.get(digest)
        assert identity is not None
        assert identity.consumer == name


def test_alike_or_not_a_document_that_is_there_is_left_alone() -> None:
    texts = Texts()
    for number in range(3):
        texts[consumer(f"c{number}")] = text_of(FORMS[0], str(number))
    texts.learn(consumer("c2"), bytes.fromhex(hash_of("2")))
    assert texts.add_alike(consumer("c1"), text_of(FORMS[0], "3")) is None
    assert texts[consumer("c1")] == text_of(FORMS[0], "1")
    assert texts.add_alike(consumer("c3"), text_of(FORMS[0], "3")) == bytes.fromhex(hash_of("3"))
    assert texts[consumer("c3")] == text_of(FORMS[0], "3")
    assert len(texts) == 4


def test_a_digest_that_is_not_the_one_in_the_text_teaches_nothing() -> None:
    texts = Texts()
    for number in range(3):
        texts[consumer(f"c{number}")] = text_of(FORMS[0], str(number))
    texts.learn(consumer("c2"), bytes(32))
    assert texts.add_alike(consumer("c3"), text_of(FORMS[0], "3")) is None


PARTS = ["authgate", "consumer", "route", "shop", "a", "-a", "", "A", "x" * 63, "x" * 64, "a.b_c-d", "\u00e4"]


@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map(":".join), max_size=20))
def test_keys_of_consumers_are_those_that_parse_as_such(written: list[str]) -> None:
    texts = ["authgate:consumer:shop:a", "authgate:consumer:a:a", *written]
    texts += [f"authgate:consumer:{one}:{two}" for one, two in pairwise(written)]
    texts += [f"authgate:consumer:shop:{name}" for name in PARTS]
    found, others = ConsumerKeys().split([text.encode() for text in texts])
    wanted = [(parse_redis_key(text), text.encode()) for text in texts]
    assert found == [(key, raw) for key, raw in wanted if key is not None and key.kind == "consumer"]
    assert all(isinstance(key, DocumentKey) for key, _ in found)
    assert others == [raw for key, raw in wanted if key is None or key.kind != "consumer"]


def test_clashes_of_a_start_are_told_once_when_all_of_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    configuration = Configuration()
    text = b'{"api_key_sha256": "%s"}' % hash_of("one").encode()
    for name in ("c", "b", "a"):  # each page holds one that comes before the others by name
        for _ in configuration.take_consumers_steps([(consumer(name), text)]):
            pass
    assert not configuration.refused
    configuration.apply({}, becomes_ready=True)
    assert sorted(configuration.refused) == ["consumer shop/b key default", "consumer shop/c key default"]
    assert len(caplog.records) == 2
    for _ in configuration.take_consumers_steps([(consumer("d"), text)]):
        pass
    assert len(configuration.refused) == 3, "afterwards at once"


def test_a_clash_goes_with_the_last_consumers_of_a_gateway_that_has_no_document() -> None:
    configuration = Configuration()
    configuration.apply({}, becomes_ready=True)
    text = b'{"api_key_sha256": "%s"}' % hash_of("one").encode()
    configuration.apply({consumer("a"): text, consumer("b"): text})
    assert configuration.refused
    configuration.apply({consumer("a"): None, consumer("b"): None})
    assert not configuration.refused
