"""What a gateway asks a provider as its client: codes, refreshes, introspection, userinfo, revocation."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from authgate_fast.auth.secret import SecretRef
from authgate_fast.lookup import issuer as issuer_module
from authgate_fast.lookup.issuer import IssuerUnavailableError, TokenRefusedError
from tests.lookup.idp import Relying, World, idp, world
from tests.oidc_provider import Provider

__all__ = ["idp", "world"]

CALLBACK = "http://127.0.0.1/cb"


def code_for(idp: Provider, client_id: str = "shop") -> tuple[str, str]:
    """Sign in as a browser would; return the code and the verifier."""
    idp.clients[client_id].redirect_uris.append(CALLBACK)
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "scope": "openid profile read",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    form = {"username": "ann", "password": "ann-password", "action": "sign-in"}
    _, headers, _ = idp._post(f"/authorize?{query}", form)
    return parse_qs(urlsplit(headers["location"]).query)["code"][0], verifier


# The token endpoint


@pytest.mark.parametrize("client_id", ["shop", "spa"])
async def test_a_code_is_swapped_for_tokens(idp: Provider, world: World, client_id: str) -> None:
    code, verifier = code_for(idp, client_id)
    tokens = await world.issuers.exchange_code(world.client(client_id), code, verifier, CALLBACK)
    assert tokens.access_token
    assert tokens.refresh_token
    assert tokens.id_token
    assert tokens.expires_in == 300
    assert tokens.scope == "openid profile read"
    assert tokens.access_token not in repr(tokens)


@pytest.mark.parametrize("wrong", ["code", "verifier", "callback", "client", "replay"])
async def test_a_code_is_good_once_for_its_client_its_verifier_and_its_callback(
    idp: Provider, world: World, wrong: str
) -> None:
    code, verifier = code_for(idp)
    client, callback = world.shop, CALLBACK
    if wrong == "code":
        code = "x" + code[1:]
    elif wrong == "verifier":
        verifier = secrets.token_urlsafe(48)
    elif wrong == "callback":
        callback += "/other"
    elif wrong == "client":
        client = world.client("other")
    else:
        await world.issuers.exchange_code(client, code, verifier, callback)
    with pytest.raises(TokenRefusedError) as caught:
        await world.issuers.exchange_code(client, code, verifier, callback)
    assert caught.value.error == "invalid_grant"


async def test_a_refresh_token_is_swapped_once(idp: Provider, world: World) -> None:
    first = idp.login("shop")["refresh_token"]
    second = await world.issuers.refresh(world.shop, first)
    assert second.refresh_token not in (None, first)
    with pytest.raises(TokenRefusedError, match="invalid_grant"):
        await world.issuers.refresh(world.shop, first)
    assert second.refresh_token is not None
    await world.issuers.refresh(world.shop, second.refresh_token)


@pytest.mark.parametrize(
    "methods", [["client_secret_basic"], ["client_secret_post"], None, ["private_key_jwt"]]
)
async def test_the_client_shows_its_secret_as_the_provider_says(
    idp: Provider, world: World, methods: list[str] | None
) -> None:
    idp.metadata["token_endpoint_auth_methods_supported"] = methods
    token = idp.login("shop")["refresh_token"]
    if methods == ["private_key_jwt"]:
        with pytest.raises(IssuerUnavailableError, match="client_secret_basic"):
            await world.issuers.refresh(world.shop, token)
        return
    await world.issuers.refresh(world.shop, token)
    endpoint, headers, form = idp.requests[-1]
    assert endpoint == "token"
    assert ("authorization" in headers) is (methods != ["client_secret_post"])
    assert ("client_secret" in form) is (methods == ["client_secret_post"])


async def test_a_public_client_shows_its_name_only(idp: Provider, world: World) -> None:
    await world.issuers.refresh(world.client("spa"), idp.login("spa")["refresh_token"])
    _, headers, form = idp.requests[-1]
    assert form["client_id"] == "spa"
    assert "client_secret" not in form
    assert "authorization" not in headers


async def test_a_wrong_secret_is_refused_and_no_error_holds_it(idp: Provider, world: World) -> None:
    client = world.client("shop", "the-wrong-secret")
    with pytest.raises(TokenRefusedError) as caught:
        await world.issuers.refresh(client, idp.login("shop")["refresh_token"])
    assert caught.value.error == "invalid_client"
    assert "the-wrong-secret" not in str(caught.value)


async def test_a_secret_that_cannot_be_read_is_told_by_its_place(idp: Provider, world: World) -> None:
    client = Relying(idp.issuer, "shop", SecretRef(file="/nowhere/secret"))
    with pytest.raises(IssuerUnavailableError, match="/nowhere/secret cannot be read"):
        await world.issuers.refresh(client, "r")
    assert idp.calls["token"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 429, "body": b'{"error": "slow_down"}'},
        {"status": 400, "body": b"<html>"},
        {"status": 400, "body": b'{"error": 7}'},
        {"status": 400, "body": b'{"error": "a\\r\\nb"}'},
        {"status": 302, "body": b"{}"},
        {"status": 200, "body": b"not json"},
        {"body": b"{}"},
        {"body": b'{"access_token": "a"}'},
        {"body": b'{"access_token": "a", "token_type": "mac"}'},
        {"body": b'{"access_token": "", "token_type": "Bearer"}'},
        {"body": b'{"access_token": "a\\r\\nX-Admin: 1", "token_type": "Bearer"}'},
        {"body": b'{"access_token": "a b", "token_type": "Bearer"}'},
        {"body": b'{"access_token": 7, "token_type": "Bearer"}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "expires_in": "3600"}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "expires_in": -1}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "expires_in": true}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "expires_in": 1e300}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "refresh_token": 7}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "refresh_token": ""}'},
        {"body": b'{"access_token": "a", "token_type": "Bearer", "scope": ["a"]}'},
        {"body": b'{"access_token": "a", "access_token": "b", "token_type": "Bearer"}'},
        {"size": 2_000_000},
        {"cut": True},
        {"delay_s": 30},
    ],
)
async def test_an_answer_of_no_use_ends_no_login_and_no_session(
    idp: Provider, world: World, fault: dict[str, Any]
) -> None:
    world.issuers._http.total_timeout_s = 0.5
    idp.fail("token", **fault)
    with pytest.raises(IssuerUnavailableError):
        await world.issuers.refresh(world.shop, "r")


async def test_the_least_that_a_provider_may_answer_is_enough(idp: Provider, world: World) -> None:
    idp.fail("token", body=b'{"access_token": "abc", "token_type": "bearer"}')
    tokens = await world.issuers.refresh(world.shop, "r")
    assert (tokens.access_token, tokens.token_type) == ("abc", "Bearer")
    assert tokens.expires_in is tokens.refresh_token is tokens.id_token is tokens.scope is None


async def test_the_description_of_an_error_is_kept_if_it_is_plain(idp: Provider, world: World) -> None:
    for text, kept in (("Session not active", "Session not active"), ("a\\u0000b", "")):
        idp.fail(
            "token", status=400, body=b'{"error": "invalid_grant", "error_description": "%b"}' % text.encode()
        )
        with pytest.raises(TokenRefusedError) as caught:
            await world.issuers.refresh(world.shop, "r")
        assert caught.value.description == kept


# Userinfo, revocation, metadata


async def test_userinfo_says_who_the_user_is(idp: Provider, world: World) -> None:
    claims = await world.issuers.userinfo(world.shop, idp.login("shop")["access_token"])
    assert claims == {"sub": "u-1", "name": "Ann", "roles": ["buyer", "admin"]}
    assert await world.issuers.userinfo(world.shop, "stranger") is None


async def test_without_userinfo_there_is_none(idp: Provider, world: World) -> None:
    idp.metadata["userinfo_endpoint"] = None
    assert await world.issuers.userinfo(world.shop, "token") is None
    assert idp.calls["userinfo"] == 0


async def test_a_token_that_is_no_header_value_is_not_sent(idp: Provider, world: World) -> None:
    with pytest.raises(IssuerUnavailableError):
        await world.issuers.userinfo(world.shop, "a\r\nX: y")
    assert idp.calls["userinfo"] == 0


async def test_userinfo_that_fails_is_unavailable(idp: Provider, world: World) -> None:
    idp.fail("userinfo", status=500)
    with pytest.raises(IssuerUnavailableError):
        await world.issuers.userinfo(world.shop, "token")


async def test_revocation_ends_the_tokens_and_never_fails(idp: Provider, world: World) -> None:
    token = idp.login("shop")["refresh_token"]
    await world.issuers.revoke(world.shop, token, "refresh_token")
    with pytest.raises(TokenRefusedError):
        await world.issuers.refresh(world.shop, token)
    idp.fail("revoke", status=500)
    await world.issuers.revoke(world.shop, token, "refresh_token")
    idp.down()
    await world.issuers.revoke(world.shop, token, "refresh_token")


async def test_revocation_without_an_endpoint_is_nothing(idp: Provider, world: World) -> None:
    idp.metadata["revocation_endpoint"] = None
    await world.issuers.revoke(world.shop, "r", "refresh_token")
    assert idp.calls["revoke"] == 0


async def test_metadata_tell_what_a_login_needs(idp: Provider, world: World) -> None:
    found = await world.issuers.metadata(world.shop)
    assert found.authorization_endpoint == f"{idp.issuer}/authorize"
    assert found.end_session_endpoint == f"{idp.issuer}/end_session"
    assert found.code_challenge_methods_supported == {"S256"}
    assert found.authorization_response_iss_parameter_supported


# Introspection


async def test_an_opaque_token_is_introspected_once_for_a_while(idp: Provider, world: World) -> None:
    idp.opaque = True
    token = idp.login("shop")["access_token"]
    checker = world.authenticator(introspect=True)
    assert await asyncio.gather(*(world.outcome(checker, token) for _ in range(50))) == ["u-1"] * 50
    assert await world.outcome(checker, token) == "u-1"
    assert idp.calls["introspect"] == 1
    _, headers, form = idp.requests[-1]
    assert form == {"token": token, "token_type_hint": "access_token"}
    assert headers["authorization"].startswith("Basic ")


async def test_a_revoked_token_ends_within_the_cache_time(idp: Provider, world: World) -> None:
    idp.opaque = True
    token = idp.login("shop")["access_token"]
    checker = world.authenticator(introspect=True)
    assert await world.outcome(checker, token) == "u-1"
    idp.revoke_all()
    assert await world.outcome(checker, token) == "u-1"
    world.offset_s += 31
    assert await world.outcome(checker, token) == "credentials_invalid"


async def test_an_unknown_token_is_asked_about_once_for_a_moment(idp: Provider, world: World) -> None:
    checker = world.authenticator(introspect=True)
    for _ in range(20):
        assert await world.outcome(checker, "unknown") == "credentials_invalid"
    assert idp.calls["introspect"] == 1


async def test_introspection_is_bound_to_client_and_audience_too(idp: Provider, world: World) -> None:
    idp.opaque = True
    token = idp.login("other")["access_token"]
    assert await world.outcome(world.authenticator(introspect=True), token) == "credentials_invalid"
    checker = world.authenticator(introspect=True, audience="api://shop")
    assert await world.outcome(checker, idp.login("shop")["access_token"]) == "credentials_invalid"
    idp.audiences = ["api://shop"]
    assert await world.outcome(checker, idp.login("shop")["access_token"]) == "u-1"


async def test_two_gateways_judge_one_token_each_for_itself(idp: Provider, world: World) -> None:
    idp.opaque = True
    token = idp.login("shop")["access_token"]
    checkers = [world.authenticator(introspect=True), world.authenticator("other", introspect=True)]
    found = await asyncio.gather(*(world.outcome(checker, token) for checker in checkers))
    assert found == ["u-1", "credentials_invalid"]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 404},
        {"status": 401, "body": b"{}"},
        {"status": 200, "body": b"active"},
        {"status": 200, "body": b"{}"},
        {"status": 200, "body": b'{"active": "true"}'},
        {"size": 2_000_000},
        {"cut": True},
        {"delay_s": 30},
    ],
)
async def test_introspection_that_fails_is_503_and_known_tokens_go_on(
    idp: Provider, world: World, fault: dict[str, Any]
) -> None:
    idp.opaque = True
    world.issuers._http.total_timeout_s = 0.5
    checker = world.authenticator(introspect=True)
    known, fresh = idp.login("shop")["access_token"], idp.login("shop")["access_token"]
    assert await world.outcome(checker, known) == "u-1"
    idp.fail("introspect", **fault)
    assert await world.outcome(checker, fresh) == "auth_unavailable"
    assert await world.outcome(checker, known) == "u-1"
    idp.heal()
    assert await world.outcome(checker, fresh) == "u-1", "a failure is not remembered as an answer"


async def test_a_dead_introspection_endpoint_is_not_hammered(idp: Provider, world: World) -> None:
    checker = world.authenticator(introspect=True)
    idp.fail("introspect", status=500)
    for number in range(50):
        assert await world.outcome(checker, f"token-{number}") == "auth_unavailable"
    assert 1 < idp.calls["introspect"] <= 5
    idp.heal()
    world.offset_s += 5
    assert await world.outcome(checker, "token-1") == "credentials_invalid"


async def test_without_an_introspection_endpoint_it_is_503(idp: Provider, world: World) -> None:
    idp.metadata["introspection_endpoint"] = None
    assert await world.outcome(world.authenticator(introspect=True), "token") == "auth_unavailable"


async def test_the_number_of_questions_at_once_is_bounded(
    idp: Provider, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "MAX_INTROSPECTIONS", 3)
    checker = world.authenticator(introspect=True)
    found = await asyncio.gather(*(world.outcome(checker, f"token-{number}") for number in range(10)))
    assert found.count("auth_unavailable") == 7
    assert idp.calls["introspect"] == 3
    assert await world.outcome(checker, "token-9") == "credentials_invalid"


async def test_a_client_that_leaves_does_not_end_the_question_for_the_others(
    idp: Provider, world: World
) -> None:
    idp.opaque = True
    idp.fail("introspect", delay_s=0.2)
    token = idp.login("shop")["access_token"]
    checker = world.authenticator(introspect=True)
    first = asyncio.create_task(world.outcome(checker, token))
    second = asyncio.create_task(world.outcome(checker, token))
    await asyncio.sleep(0.05)
    first.cancel()
    assert await second == "u-1"
    assert idp.calls["introspect"] == 1


async def test_the_settings_of_a_gateway_are_a_client() -> None:
    client = Relying("https://idp.example.com", "shop")
    assert replace(client, client_id="other").client_id == "other"
