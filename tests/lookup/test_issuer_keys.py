"""A provider's keys: found through discovery, kept fresh, renewed for an unknown one, and good while it is away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme

from authgate_fast.auth.oauth2 import KEY_LIFETIME_S, NEWS_PAUSE_S
from authgate_fast.auth.tokens import TokenError
from authgate_fast.lookup.issuer import IssuerUnavailableError
from tests.auth.signer import Signer, claims_at
from tests.lookup.idp import World, idp, world
from tests.oidc_provider import Provider, provider

__all__ = ["idp", "world"]


def access_token(idp: Provider, client_id: str = "shop") -> str:
    return str(idp.login(client_id)["access_token"])


async def test_a_real_token_of_the_provider_is_accepted(idp: Provider, world: World) -> None:
    found = await world.ask(world.authenticator(), access_token(idp))
    assert getattr(found, "identity_lines", found) == (
        b"X-User-Id: u-1\r\nX-User-Roles: buyer,admin\r\nX-Client-Id: shop\r\n"
    )
    assert idp.calls["discovery"] == idp.calls["jwks"] == 1


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
async def test_tokens_of_every_usual_algorithm_are_accepted(idp: Provider, world: World, alg: str) -> None:
    idp.rotate_keys(alg=alg)
    assert await world.outcome(world.authenticator(), access_token(idp)) == "u-1"


async def test_a_machines_own_token_is_accepted(idp: Provider, world: World) -> None:
    token = idp.client_token("machine")["access_token"]
    assert await world.outcome(world.authenticator("machine"), token) == "machine"


async def test_an_id_token_is_no_access_token(idp: Provider, world: World) -> None:
    for nonce in (None, "n"):
        token = idp.login("shop", nonce=nonce)["id_token"]
        assert await world.outcome(world.authenticator(), token) == "credentials_invalid"


async def test_a_token_of_another_client_is_refused(idp: Provider, world: World) -> None:
    assert await world.outcome(world.authenticator(), access_token(idp, "other")) == "credentials_invalid"


async def test_a_token_of_another_client_that_is_meant_for_this_one_is_accepted(
    idp: Provider, world: World
) -> None:
    idp.audiences = ["shop", "another"]
    assert await world.outcome(world.authenticator(), access_token(idp, "spa")) == "u-1"


async def test_the_audience_must_be_in_the_token(idp: Provider, world: World) -> None:
    checker = world.authenticator(audience="api://shop")
    assert await world.outcome(checker, access_token(idp)) == "credentials_invalid"
    idp.audiences = ["api://shop"]
    assert await world.outcome(checker, access_token(idp)) == "u-1"
    assert await world.outcome(checker, access_token(idp, "other")) == "credentials_invalid"


async def test_gateways_with_one_issuer_share_what_is_known_of_it(idp: Provider, world: World) -> None:
    token = access_token(idp)
    assert (
        await asyncio.gather(*(world.outcome(world.authenticator(), token) for _ in range(20)))
        == ["u-1"] * 20
    )
    assert idp.calls["discovery"] == idp.calls["jwks"] == 1


async def test_the_tokens_of_one_provider_mean_nothing_to_a_gateway_of_another(
    idp: Provider, world: World
) -> None:
    other = Provider()
    try:
        elsewhere = World(other)
        token = str(other.login("shop")["access_token"])
        assert await elsewhere.outcome(elsewhere.authenticator(), token) == "u-1"
        assert await world.outcome(world.authenticator(), token) == "credentials_invalid"
        # Signed by the stranger, and saying that it is ours: the key is not ours.
        claims = jwt.decode(access_token(idp), options={"verify_signature": False})
        assert await world.outcome(world.authenticator(), other.sign(claims)) == "credentials_invalid"
        forged = other.sign(claims, kid=idp.key.kid)
        assert await world.outcome(world.authenticator(), forged) == "credentials_invalid"
        await elsewhere.issuers.close()
    finally:
        other.close()


# Rotation


async def test_a_new_key_is_read_once_for_all_who_need_it(idp: Provider, world: World) -> None:
    checker = world.authenticator()
    old = access_token(idp)
    await world.outcome(checker, old)
    idp.rotate_keys()
    new = access_token(idp)
    world.offset_s += NEWS_PAUSE_S
    assert await asyncio.gather(*(world.outcome(checker, new) for _ in range(50))) == ["u-1"] * 50
    assert idp.calls["jwks"] == 2
    assert await world.outcome(checker, old) == "u-1"


async def test_a_gateway_that_comes_later_finds_the_new_key_too(idp: Provider, world: World) -> None:
    await world.outcome(world.authenticator(), access_token(idp))
    idp.rotate_keys()
    world.offset_s += NEWS_PAUSE_S
    assert await world.outcome(world.authenticator(), access_token(idp)) == "u-1"


async def test_an_attackers_kids_do_not_make_a_flood(idp: Provider, world: World) -> None:
    checker = world.authenticator()
    await world.outcome(checker, access_token(idp))
    world.offset_s += NEWS_PAUSE_S
    for number in range(200):
        token = (
            Signer(f"attacker-{number}", name="attacker").token(claims_at(world.now, iss=idp.issuer)).decode()
        )
        assert await world.outcome(checker, token) == "credentials_invalid"
    assert idp.calls["jwks"] == 2
    assert await world.outcome(checker, access_token(idp)) == "u-1"


async def test_a_withdrawn_key_ends_with_the_next_reading(idp: Provider, world: World) -> None:
    checker = world.authenticator()
    idp.access_ttl_s = 100_000
    token = access_token(idp)
    assert await world.outcome(checker, token) == "u-1"
    idp.rotate_keys(keep_old=False)
    assert await world.outcome(checker, token) == "u-1", "read a moment ago"
    world.offset_s += KEY_LIFETIME_S
    await world.outcome(checker, token)  # the old keys go on while the new ones are read
    fetching = world.issuers._issuer(idp.issuer).keys._task
    assert fetching is not None
    await fetching
    world.offset_s += 60
    assert await world.outcome(checker, token) == "credentials_invalid"


# The provider is away


async def test_a_provider_that_is_away_at_the_start_is_503_and_not_hammered(
    idp: Provider, world: World
) -> None:
    checker, token = world.authenticator(), access_token(idp)
    idp.fail("discovery", status=500)
    assert await asyncio.gather(*(world.outcome(checker, token) for _ in range(50))) == ["unavailable"] * 50
    for _ in range(50):
        assert await world.outcome(checker, token) == "unavailable"
    assert idp.calls["discovery"] == 1
    idp.heal()
    world.offset_s += 5
    assert await world.outcome(checker, token) == "u-1"


async def test_known_keys_go_on_while_the_provider_is_away(idp: Provider, world: World) -> None:
    checker = world.authenticator()
    idp.access_ttl_s = 100_000
    known, fresh = access_token(idp), access_token(idp)
    assert await world.outcome(checker, known) == "u-1"
    unknown = Signer("k9").token(claims_at(world.now, iss=idp.issuer, client_id="shop")).decode()
    idp.down()
    for _ in range(6):
        world.offset_s += KEY_LIFETIME_S
        assert await world.outcome(checker, known) == "u-1"
        assert await world.outcome(checker, fresh) == "u-1"
        assert await world.outcome(world.authenticator(), fresh) == "u-1"
    assert await world.outcome(checker, unknown) == "unavailable"
    idp.up()
    world.offset_s += KEY_LIFETIME_S
    assert await world.outcome(checker, unknown) == "credentials_invalid"


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404},
        {"status": 302},
        {"status": 200, "body": b"<html>"},
        {"status": 200, "body": b"[]"},
        {"status": 200, "body": b'{"issuer": "a", "issuer": "b"}'},
        {"status": 200, "body": b'{"issuer": "https://another.example"}'},
        {"status": 200, "body": b'{"keys": []}'},
        {"size": 2_000_000},
        {"cut": True},
        {"delay_s": 30},
    ],
)
@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
async def test_an_answer_of_no_use_is_503(
    idp: Provider, world: World, endpoint: str, fault: dict[str, Any]
) -> None:
    token = access_token(idp)
    world.issuers._http.total_timeout_s = 0.5
    idp.fail(endpoint, **fault)
    assert await world.outcome(world.authenticator(), token) == "unavailable"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"jwks_uri": None},
        {"jwks_uri": "http://idp.example.com/jwks"},
        {"jwks_uri": "http://169.254.169.254/jwks"},
    ],
)
async def test_metadata_that_lead_astray_are_503(
    idp: Provider, world: World, metadata: dict[str, Any]
) -> None:
    idp.metadata.update(metadata)
    assert await world.outcome(world.authenticator(), access_token(idp)) == "unavailable"
    assert idp.calls["jwks"] == 0


async def test_an_issuer_with_a_slash_at_its_end_is_another_issuer(idp: Provider, world: World) -> None:
    token = access_token(idp)
    idp.issuer += "/"
    assert await world.outcome(world.authenticator(), token) == "credentials_invalid"
    slashed = str(idp.login("shop")["access_token"])
    assert await world.outcome(world.authenticator(), slashed) == "u-1"


async def test_a_secret_key_in_the_set_is_no_key(idp: Provider, world: World) -> None:
    keys = {"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}
    idp.fail("jwks", body=json.dumps(keys).encode())
    token = jwt.encode(
        claims_at(world.now, iss=idp.issuer),
        b"secret-secret-secret-secret-secret",
        algorithm="HS256",
        headers={"kid": "k"},
    )
    assert await world.outcome(world.authenticator(), token) == "unavailable"


async def test_a_provider_over_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = trustme.CA()
    certificate, key, anchor = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    issued = ca.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    ca.cert_pem.write_to_path(anchor)
    with provider(tls=(certificate, key)) as idp:
        token = access_token(idp)
        stranger = World(idp)
        assert await stranger.outcome(stranger.authenticator(), token) == "unavailable"
        monkeypatch.setenv("SSL_CERT_FILE", anchor)
        world = World(idp)
        assert await world.outcome(world.authenticator(), token) == "u-1"
        assert (await world.issuers.refresh(world.shop, idp.login("shop")["refresh_token"])).access_token
        idp.metadata["jwks_uri"] = "http://127.0.0.1:1/jwks"
        another = World(idp)
        assert await another.outcome(another.authenticator(), token) == "unavailable"
        for made in (stranger, world, another):
            await made.issuers.close()


# ID tokens


async def test_the_id_token_of_a_login_is_checked(idp: Provider, world: World) -> None:
    answer = idp.login("shop", nonce="n-1")
    claims = await world.issuers.id_token_claims(world.shop, answer["id_token"], "n-1", world.now)
    assert claims["sub"] == "u-1"
    for token, nonce, client in (
        (answer["id_token"], "n-2", "shop"),
        (answer["id_token"], "n-1", "other"),
        (answer["access_token"], "n-1", "shop"),
        (answer["id_token"] + "\xe9", "n-1", "shop"),
    ):
        with pytest.raises(TokenError):
            await world.issuers.id_token_claims(world.client(client), token, nonce, world.now)


async def test_an_id_token_under_a_new_key_has_it_read(idp: Provider, world: World) -> None:
    await world.issuers.id_token_claims(world.shop, idp.login("shop")["id_token"], None, world.now)
    idp.rotate_keys()
    world.offset_s += NEWS_PAUSE_S
    await world.issuers.id_token_claims(world.shop, idp.login("shop")["id_token"], None, world.now)
    assert idp.calls["jwks"] == 2


async def test_without_keys_an_id_token_cannot_be_checked(idp: Provider, world: World) -> None:
    token = idp.login("shop")["id_token"]
    idp.fail("jwks", status=500)
    with pytest.raises(IssuerUnavailableError):
        await world.issuers.id_token_claims(world.shop, token, None, world.now)
