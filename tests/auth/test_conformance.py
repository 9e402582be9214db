"""The rules that all auth types keep to (`kit` says how a type joins)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authgate_fast.auth.failures import FailureGuard
from authgate_fast.auth.interface import Denial, Lookup
from authgate_fast.decision import Client, Forward, Redirect, Refusal
from authgate_fast.errors import Reason
from authgate_fast.http.request import RequestHead
from authgate_fast.plan import still_admitted
from tests.auth.kit import NOW, PEER, PUBLIC, SECURE, TOKENS, Adapter, World, shown
from tests.plan_world import Fields, changed

FORGED: Fields = [
    (b"X-Consumer-Id", b"forged"),
    (b"x_consumer_roles", b"forged"),
    (b"X.Credential.Id", b"forged"),
    (b"X-User-Id", b"forged"),
    (b"X-USER-Roles", b"forged"),
    (b"X-Client-Id", b"forged"),
    (b"X-Gateway-Id", b"forged"),
    (b"X-Authenticated-User", b"forged"),
]


def adapters() -> Iterator[type[Adapter]]:
    for path in sorted(Path(__file__).parent.glob("adapters_*.py")):
        yield from importlib.import_module(f"tests.auth.{path.stem}").ADAPTERS


@pytest.fixture(params=list(adapters()), ids=lambda kind: kind.name)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    made: Adapter = request.param()
    return made


@pytest.fixture
def world(adapter: Adapter) -> World:
    return World(adapter)


def bad_ones(adapter: Adapter) -> list[Fields]:
    return [
        *adapter.malformed(),
        *adapter.duplicated(),
        adapter.oversized(),
        *adapter.bad().values(),
    ]


def field_lines(decision: Forward) -> list[bytes]:
    return decision.head.split(b"\r\n")[1:]


def test_a_right_credential_is_let_in_and_the_backend_is_told_who_it_is(world: World) -> None:
    decision = world.admitted(world.adapter.good())
    assert world.adapter.identity_lines() in decision.head
    assert decision.identity is not None


def test_a_right_credential_is_known_the_second_time(world: World) -> None:
    if not world.adapter.remembers:
        return
    first = world.admitted(world.adapter.good())
    lookups = world.lookups
    second = world.admitted(world.adapter.good())
    assert world.lookups == lookups
    assert second.head == first.head


def test_without_a_credential_it_is_missing_and_the_answer_says_how_to_show_one(world: World) -> None:
    for fields in ([], *world.adapter.missing()):
        refusal = world.refused(fields)
        assert refusal.reason is Reason.CREDENTIALS_MISSING
        assert refusal.extra_lines.startswith(b"WWW-Authenticate: ")
        assert refusal.extra_lines.endswith(b"\r\n")
        assert world.lookups == 0


def test_malformed_doubled_and_oversized_credentials_are_refused(world: World) -> None:
    adapter = world.adapter
    for fields in (*adapter.malformed(), *adapter.duplicated(), adapter.oversized()):
        assert world.refused(fields).reason is adapter.invalid, fields
    assert world.lookups == 0


def test_a_wrong_unknown_expired_or_disabled_credential_gets_one_and_the_same_answer(world: World) -> None:
    bad = world.adapter.bad()
    assert {"wrong", "expired"} <= set(bad)
    answers = {why: shown(world.refused(fields)) for why, fields in bad.items()}
    assert len(set(answers.values())) == 1, answers
    assert world.refused(bad["wrong"]).reason is world.adapter.invalid


def test_why_a_credential_is_bad_cannot_be_told_by_the_work_it_costs(world: World) -> None:
    adapter, costs = world.adapter, {}
    for why, fields in adapter.bad().items():
        before = adapter.costly_operations()
        world.refused(fields)
        costs[why] = adapter.costly_operations() - before
    assert len(set(costs.values())) == 1, costs


def test_a_refused_credential_is_refused_again(world: World) -> None:
    world.admitted(world.adapter.good())
    for fields in bad_ones(world.adapter):
        for _ in range(2):
            assert world.refused(fields).reason is world.adapter.invalid
    world.admitted(world.adapter.good())


def test_a_public_route_never_asks_and_tells_nothing_of_a_caller(adapter: Adapter) -> None:
    class Strict:
        def __init__(self) -> None:
            real = adapter.authenticator()
            self.credential_fields = real.credential_fields
            self.keeps_lines = real.keeps_lines
            self.reserved = real.reserved
            self.endpoints = real.endpoints
            self.kept_lines = real.kept_lines
            self.forbidden_lines = real.forbidden_lines

        def identify(self, *_: object) -> Denial:
            raise AssertionError("a PUBLIC route asked for a credential")

    world = World(adapter)
    world.snapshot.gateways[adapter.gateway].authenticator = Strict()
    for fields in ([], adapter.good(), *adapter.missing(), *bad_ones(adapter)):
        decision = world.admitted(fields, PUBLIC)
        assert decision.identity is None
        names = {line.partition(b":")[0].lower() for line in field_lines(decision)}
        assert not {name for name in names if name.startswith((b"x-consumer-", b"x-user-", b"x-credential"))}


@pytest.mark.parametrize("target", [PUBLIC, SECURE, TOKENS])
def test_no_claim_of_the_client_reaches_the_backend(world: World, target: bytes) -> None:
    good = world.adapter.good()
    honest = world.admitted(good, target)
    for fields in (FORGED + good, good + FORGED):
        forged = world.admitted(fields, target)
        assert b"forged" not in forged.head
        assert forged.head == honest.head


@pytest.mark.parametrize("target", [PUBLIC, SECURE])
def test_the_credential_does_not_reach_the_backend(world: World, target: bytes) -> None:
    decision = world.admitted(world.adapter.good(), target)
    for secret in world.adapter.secrets():
        assert secret not in decision.head
    names = [line.partition(b":")[0].lower() for line in field_lines(decision)]
    assert world.adapter.field not in names


def test_bad_credentials_do_not_reach_the_backend_of_a_public_route(world: World) -> None:
    for fields in bad_ones(world.adapter):
        decision = world.admitted(fields, PUBLIC)
        names = [line.partition(b":")[0].lower() for line in field_lines(decision)]
        assert world.adapter.field not in names


def test_a_backend_that_takes_tokens_gets_what_the_type_has_to_give(world: World) -> None:
    decision = world.admitted(world.adapter.good(), TOKENS)
    line = world.adapter.token_line()
    lines = [one + b"\r\n" for one in field_lines(decision) if one.lower().startswith(b"authorization:")]
    assert lines == ([line] if line else [])


def test_no_refusal_holds_the_credential(world: World) -> None:
    adapter = world.adapter
    for fields in bad_ones(adapter):
        refusal = world.refused(fields)
        told = f"{refusal.detail} {refusal.extra_lines!r} {refusal.why}"
        for name, value in fields:
            if name.lower() == adapter.field and len(value) > len(adapter.prefix) + 5:
                assert value[len(adapter.prefix) :].decode("latin-1") not in told
        for secret in adapter.secrets():
            assert secret.decode("latin-1") not in told


def test_a_credential_ends_at_its_moment_although_memory_knows_it(world: World) -> None:
    brief = world.adapter.brief()
    if brief is None:
        return
    fields, end = brief
    world.admitted(fields)
    world.admitted(fields, now=end - 1)
    assert world.refused(fields, now=end).reason is world.adapter.invalid
    assert world.refused(fields, now=end).reason is world.adapter.invalid


def test_access_that_is_taken_away_ends_although_memory_knows_the_credential(world: World) -> None:
    world.admitted(world.adapter.good())
    if world.adapter.end_access():
        assert world.refused(world.adapter.good()).reason is world.adapter.invalid


def test_who_was_let_in_may_stay_until_its_access_is_taken_away(world: World) -> None:
    forward = world.admitted(world.adapter.good())
    identity = forward.identity
    assert identity is not None
    assert still_admitted(forward, identity, world.snapshot, NOW)
    assert still_admitted(forward, identity, world.snapshot, NOW + 1_000_000)
    if (
        identity.session is None and world.adapter.end_access()
    ):  # the end of a session is its resolver's to tell
        assert identity.consumer == "" or not still_admitted(forward, identity, world.snapshot, NOW)
    del world.snapshot.gateways[forward.gateway.name]
    assert not still_admitted(forward, identity, world.snapshot, NOW)


def test_nobody_stays_whom_another_type_let_in(world: World) -> None:
    forward = world.admitted(world.adapter.good())
    assert forward.identity is not None
    for kind in adapters():
        other = kind().authenticator()
        if type(other) is not type(world.authenticator):
            world.snapshot.gateways[forward.gateway.name] = changed(forward.gateway, authenticator=other)
            assert not still_admitted(forward, forward.identity, world.snapshot, NOW), kind.name


def test_a_credential_counts_at_its_own_gateway_only(adapter: Adapter) -> None:
    other = type(adapter)("other")
    World(other).admitted(other.good())
    if (
        other.good() == adapter.good()
    ):  # chosen by people, so both gateways may know it: not the rule's business
        return
    assert World(adapter).refused(other.good()).reason is adapter.invalid


def test_too_many_failures_are_answered_with_429_before_any_costly_work(adapter: Adapter) -> None:
    if not adapter.counts_failures:
        return
    world = World(adapter, FailureGuard(3, 100, 60.0))
    world.admitted(adapter.good())
    for _ in range(3):
        assert world.refused(adapter.bad()["wrong"]).reason is adapter.invalid
    before, lookups = adapter.costly_operations(), world.lookups
    for fields in adapter.bad().values():
        refusal = world.refused(fields)
        assert refusal.reason is Reason.TOO_MANY_FAILURES
        assert refusal.retry_after_s >= 1
    assert adapter.costly_operations() == before
    assert world.lookups == lookups
    if adapter.remembers:
        world.admitted(adapter.good())
    world.admitted(adapter.bad()["wrong"], PUBLIC)


def test_showing_nothing_is_no_failure(adapter: Adapter) -> None:
    world = World(adapter, FailureGuard(1, 1, 60.0))
    for _ in range(3):
        for fields in ([], *adapter.missing()):
            assert world.refused(fields).reason is Reason.CREDENTIALS_MISSING


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rubbish=st.binary(max_size=200), prefixed=st.booleans())
def test_rubbish_is_never_an_identity_and_never_an_error(
    adapter: Adapter, rubbish: bytes, prefixed: bool
) -> None:
    value = (adapter.prefix if prefixed else b"") + rubbish
    head = RequestHead(b"GET", SECURE, 1, [])
    found = adapter.authenticator().identify(head, [(adapter.field, value)], Client(PEER), NOW)
    assert isinstance(found, Denial | Lookup)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_right_credential_with_one_byte_changed_is_refused(adapter: Adapter, data: st.DataObject) -> None:
    world = World(adapter)
    world.admitted(adapter.good())
    fields = adapter.good()
    (index,) = [at for at, (name, _) in enumerate(fields) if name.lower() == adapter.field]
    name, value = fields[index]
    at = data.draw(st.integers(len(adapter.prefix), len(value) - 1))
    byte = data.draw(
        st.sampled_from([b"A", b"b", b"7", b"-", b".", b"="]).filter(lambda b: b != value[at : at + 1])
    )
    fields[index] = (name, value[:at] + byte + value[at + 1 :])
    decision = world.ask(fields)
    assert isinstance(decision, Refusal | Redirect), decision


def test_the_kit_has_all_types() -> None:
    names = [kind.name for kind in adapters()]
    assert len(names) == len(set(names))
    assert {"API_KEY", "BASIC"} <= set(names)
