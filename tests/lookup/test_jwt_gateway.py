"""A JWT gateway over real sockets and a real Redis: login, use, refresh, reuse, logout, rotation, several workers."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import jwt as pyjwt
import orjson
import pytest
from jwt import PyJWKSet

from authgate_fast.auth.signing import parse_keyring
from authgate_fast.limits import DEFAULTS
from authgate_fast.lookup.memory_store import MemoryStore
from authgate_fast.lookup.redis_store import RedisStateStore
from authgate_fast.lookup.rotation import rotate
from tests.auth.users import cheap_hash
from tests.lookup.jwt_kit import PASSWORD, basic, consumer, jwt_worker
from tests.lookup.store_kit import eventually
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
FEW = replace(DEFAULTS, max_failures_per_address=4, max_failures_per_account=100)


def spoilt(token: str) -> str:
    """Return a token with another signature; its last characters may say the same in more than one way."""
    return token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = pyjwt.decode(token, options={"verify_signature": False})
    return found


async def test_login_gives_a_token_and_the_backend_learns_whose_it_is(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        got = await worker.login()
        assert got.status == 200
        assert got.field("Content-Type") == "application/json"
        assert got.field("Cache-Control") == "no-store"
        assert got.json.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
        assert got.json["token_type"] == "Bearer"
        assert got.json["expires_in"] == 900
        token = got.json["access_token"]
        claims = claims_of(token)
        assert claims["iss"] == "https://shop.test"
        assert claims["aud"] == "shop"
        assert claims["sub"] == "ann"
        assert claims["roles"] == ["reader"]
        assert claims["exp"] == claims["iat"] + 900
        assert pyjwt.get_unverified_header(token).keys() == {"typ", "alg", "kid"}
        for _ in range(3):
            assert await worker.use(token, "X-Consumer-Id: forged") == 200
        for head in worker.received:
            expected = (
                f"X-Consumer-Id: ann\r\nX-Consumer-Roles: reader\r\nX-Credential-Id: {claims['jti']}\r\n"
            )
            assert expected.encode() in head
            assert b"uthorization" not in head
            assert b"forged" not in head


async def test_login_with_http_basic(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        got = await worker.send("POST", "/auth/login", b"", basic("ann", PASSWORD))
        assert got.status == 200
        assert await worker.use(got.json["access_token"]) == 200
        assert (await worker.send("POST", "/auth/login", b"", basic("ann", "wrong"))).status == 401


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_anybody_can_verify_a_token_with_the_published_keys(
    redis_server: RedisServer, algorithm: str
) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url), auth={"algorithm": algorithm}) as worker:
        token = (await worker.tokens())["access_token"]
        got = await worker.send("GET", "/auth/jwks")
        assert got.status == 200
        assert got.field("Content-Type") == "application/jwk-set+json"
        assert got.field("Cache-Control") == "public, max-age=60"
        header = pyjwt.get_unverified_header(token)
        assert header["alg"] == algorithm
        key = PyJWKSet.from_json(got.body.decode())[header["kid"]]
        claims = pyjwt.decode(token, key, algorithms=[algorithm], audience="shop", issuer="https://shop.test")
        assert claims["sub"] == "ann"
        private = {"d", "p", "q", "dp", "dq", "qi", "k"}
        assert not any(private & published.keys() for published in got.json["keys"])
        head = await worker.send("HEAD", "/auth/jwks")
        assert head.status == 200
        assert head.body == b""


async def test_endpoints_have_their_methods_and_come_before_routes(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        for path, allow in (("/auth/login", "POST, OPTIONS"), ("/auth/jwks", "GET, HEAD, OPTIONS")):
            got = await worker.send("PUT", path)
            assert got.status == 405
            assert got.field("Allow") == allow
        assert (await worker.send("GET", "/auth/nothing")).status == 404
        assert (await worker.send("GET", "/auth/login/more")).status == 404
        assert worker.received == []


async def test_a_bad_login_is_byte_for_byte_the_same_whatever_is_wrong(redis_server: RedisServer) -> None:
    people = {
        "ann": consumer(),
        "off": consumer(enabled=False),
        "old": consumer(expires_at="2001-01-01T00:00:00Z"),
    }
    async with jwt_worker(RedisStateStore(redis_server.url), consumers=people) as worker:
        answers = set()
        for username, password in (
            ("ann", "wrong"),
            ("nobody", PASSWORD),
            ("off", PASSWORD),
            ("old", PASSWORD),
            ("ann", ""),
        ):
            body = orjson.dumps({"username": username, "password": password})
            got = await worker.send(
                "POST", "/auth/login", body, "Content-Type: application/json", "X-Request-ID: same"
            )
            assert got.status == 401
            assert got.code == "credentials_invalid"
            assert got.field("WWW-Authenticate") == 'Bearer realm="shop"'
            lines = [line for line in got.head.split(b"\r\n") if not line.startswith(b"Date: ")]
            answers.add((*lines, got.body))
        assert len(answers) == 1
        assert not any(PASSWORD in what for _, what in worker.stack.reports)


@pytest.mark.parametrize(
    ("body", "fields", "said"),
    [
        (b"{", (), "not JSON"),
        (b"[]", (), "not a JSON object"),
        (b'{"username":"ann"}', (), "no other fields"),
        (b'{"username":"ann","password":"x","more":1}', (), "no other fields"),
        (b'{"username":"ann","password":7}', (), "no other fields"),
        (b'{"username":"ann","username":"bob","password":"x"}', (), "stands twice"),
        (b'{"username":"ann","password":"x","password":"x"}', (), "stands twice"),
        (b'{"username":"","password":"x"}', (), "1 to 512 bytes"),
        (b'{"username":"%b","password":"x"}' % (b"a" * 513), (), "1 to 512 bytes"),
        (b'{"username":"ann","password":"%b"}' % (b"x" * 4_097), (), "at most 4096"),
        (b'{"username":"ann","password":"\xff"}', (), "not JSON"),
        (b'{"username":"ann","password":"x"}', (basic("ann", "x"),), "not both"),
        (b'{"username":"ann","password":"x"}', ("Authorization: a", "Authorization: b"), "sent twice"),
        (b"", ("Authorization: Basic !!!",), "malformed"),
        (b"[" * 5_000, (), "not JSON"),
    ],
)
async def test_a_login_that_cannot_be_read_is_told_how_to_be_one(
    body: bytes, fields: tuple[str, ...], said: str
) -> None:
    async with jwt_worker(MemoryStore()) as worker:
        got = await worker.send("POST", "/auth/login", body, "Content-Type: application/json", *fields)
        assert got.status == 400
        assert got.code == "bad_request"
        assert said in got.json["detail"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/jsonp",
        "text/plain; application/json",
        "",
    ],
)
async def test_a_body_that_a_html_form_could_send_is_no_login(kind: str) -> None:
    body = orjson.dumps({"username": "ann", "password": PASSWORD})
    async with jwt_worker(MemoryStore()) as worker:
        lines = [f"Content-Type: {kind}"] if kind else []
        got = await worker.send("POST", "/auth/login", body, *lines)
        assert got.status == 400
        assert "Content-Type: application/json" in got.json["detail"]
        good = await worker.send("POST", "/auth/login", body, "Content-Type: Application/JSON; charset=utf-8")
        assert good.status == 200


async def test_nothing_shown_is_told_what_to_show() -> None:
    async with jwt_worker(MemoryStore()) as worker:
        for path in ("/auth/login", "/auth/logout"):
            got = await worker.send("POST", path)
            assert got.status == 401
            assert got.code == "credentials_missing"
        got = await worker.send("POST", "/auth/login", b"x" * 20_000, "Content-Type: application/json")
        assert got.status == 413
        got = await worker.send("POST", "/auth/refresh")
        assert got.status == 400


async def test_an_old_bearer_token_beside_a_login_is_no_second_credential() -> None:
    async with jwt_worker(MemoryStore()) as worker:
        got = await worker.post(
            "/auth/login", {"username": "ann", "password": PASSWORD}, "Authorization: Bearer old"
        )
        assert got.status == 200


async def test_past_the_limit_a_guesser_gets_429_before_any_password_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from authgate_fast.lookup import passwords

    checked: list[bytes] = []
    real = passwords._find_match

    def find_match(hashes: tuple[str, ...], password: bytes) -> str | None:
        checked.append(password)
        return real(hashes, password)

    monkeypatch.setattr(passwords, "_find_match", find_match)
    async with jwt_worker(MemoryStore(), limits=FEW) as worker:
        token = (await worker.tokens())["access_token"]
        refresh_token = (await worker.tokens())["refresh_token"]
        assert await worker.use(token) == 200
        checked.clear()
        for _ in range(4):
            assert (await worker.login(password="wrong")).status == 401
        assert len(checked) == 4
        for got in (await worker.login(), await worker.refresh(refresh_token)):
            assert got.status == 429
            assert int(str(got.field("Retry-After"))) >= 1
        assert len(checked) == 4
        assert await worker.use(token) == 200, "a token that is known costs nothing and still works"
        forged = spoilt(token)
        assert await worker.use(forged) == 429


async def test_bad_tokens_are_counted_for_the_caller_behind_a_trusted_proxy() -> None:
    async with jwt_worker(MemoryStore(), limits=FEW, trusted_proxies=["127.0.0.1/32"]) as worker:
        token = (await worker.tokens())["access_token"]
        guesser, honest = "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 198.51.100.2"
        statuses = [await worker.use(spoilt(token), guesser) for _ in range(6)]
        assert statuses == [401, 401, 401, 401, 429, 429]
        assert await worker.use(token, guesser) == 429, "no signature is checked for a guesser"
        assert await worker.use(token, honest) == 200
        assert await worker.use(token, guesser) == 200, "what is known is not checked"


async def test_refresh_rotates_and_the_new_tokens_work(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        first = await worker.tokens()
        got = await worker.refresh(first["refresh_token"])
        assert got.status == 200
        assert got.field("Cache-Control") == "no-store"
        second = got.json
        assert second["refresh_token"] != first["refresh_token"]
        assert await worker.use(second["access_token"]) == 200
        assert await worker.use(first["access_token"]) == 200, "an access token lives until its end"
        third = await worker.refresh(second["refresh_token"])
        assert third.status == 200


async def test_a_refresh_token_used_twice_ends_its_family(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        other = await worker.tokens()
        stolen = (await worker.tokens())["refresh_token"]
        thief = (await worker.refresh(stolen)).json["refresh_token"]
        with caplog.at_level(logging.WARNING, "authgate.jwt"):
            again = await worker.refresh(stolen)
        assert again.status == 401
        assert again.code == "credentials_invalid"
        assert "consumer shop/ann was used twice" in caplog.text
        assert stolen not in caplog.text
        assert (await worker.refresh(thief)).status == 401, "the family has ended for both"
        assert (await worker.refresh(other["refresh_token"])).status == 200, "another login goes on"


async def test_of_refreshes_at_once_one_wins_and_then_the_family_ends(redis_server: RedisServer) -> None:
    stores = [RedisStateStore(redis_server.url) for _ in range(2)]
    async with jwt_worker(stores[0]) as one, jwt_worker(stores[1]) as two:
        token = (await one.tokens())["refresh_token"]
        got = await asyncio.gather(*(worker.refresh(token) for worker in (one, two) * 4))
        winners = [answer for answer in got if answer.status == 200]
        assert len(winners) == 1
        assert (await two.refresh(winners[0].json["refresh_token"])).status == 401


async def test_who_loses_the_swap_was_a_second_use_and_ends_the_family() -> None:
    class Together(MemoryStore):
        """Lets two refreshes read the record before either of them changes it."""

        readers = 0

        async def get(self, name: str) -> bytes | None:
            value = await super().get(name)
            if self.readers and ":refresh:" in name:
                self.readers -= 1
                await eventually(lambda: not self.readers)
            return value

    store = Together()
    async with jwt_worker(store) as worker:
        token = (await worker.tokens())["refresh_token"]
        store.readers = 2
        got = await asyncio.gather(worker.refresh(token), worker.refresh(token))
        assert sorted(one.status for one in got) == [200, 401]
        assert await store.names("authgate:state:refresh:", 10) == []


@pytest.mark.parametrize(
    "token",
    [
        "",
        "agr_",
        "agr_" + "A" * 65,
        "agr_" + "A" * 64,
        "x" * 69,
        "agr_" + "\u00e9" * 65,
        "agr_" + "*" * 65,
        "A" * 5_000,
    ],
)
async def test_what_is_no_refresh_token(token: str) -> None:
    async with jwt_worker(MemoryStore()) as worker:
        got = await worker.refresh(token)
        assert got.status == 401
        assert got.code == "credentials_invalid"
        assert 'error="invalid_token"' in str(got.field("WWW-Authenticate"))


async def test_who_does_not_know_a_refresh_token_cannot_end_its_family() -> None:
    async with jwt_worker(MemoryStore()) as worker:
        tokens = await worker.tokens()
        sid = claims_of(tokens["access_token"])["sid"]
        for made_up in (f"agr_{sid[:22]}{'A' * 43}", f"agr_{'A' * 65}"):
            assert (await worker.refresh(made_up)).status == 401
        assert (await worker.refresh(tokens["refresh_token"])).status == 200


async def test_a_refresh_token_counts_at_its_own_gateway_only(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        tokens = await worker.tokens()
        got = await worker.post(
            "/auth/refresh", {"refresh_token": tokens["refresh_token"]}, host="other.test"
        )
        assert got.status == 401
        assert await worker.use(tokens["access_token"], host="other.test") == 401
        assert (await worker.refresh(tokens["refresh_token"])).status == 200


async def test_logout_ends_the_family_with_either_token(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        one, two, three = [await worker.tokens() for _ in range(3)]
        got = await worker.post("/auth/logout", {"refresh_token": one["refresh_token"]})
        assert got.status == 204
        assert got.body == b""
        assert (await worker.refresh(one["refresh_token"])).status == 401
        got = await worker.send("POST", "/auth/logout", b"", f"Authorization: Bearer {two['access_token']}")
        assert got.status == 204
        assert (await worker.refresh(two["refresh_token"])).status == 401
        assert (await worker.refresh(three["refresh_token"])).status == 200
        for unknown in (one["refresh_token"], "agr_" + "A" * 65, "rubbish"):
            assert (await worker.post("/auth/logout", {"refresh_token": unknown})).status == 204
        assert (await worker.send("POST", "/auth/logout", b"", "Authorization: Bearer rubbish")).status == 401


@pytest.mark.parametrize(
    "fields",
    [
        None,
        consumer(enabled=False),
        consumer(expires_at="2001-01-01T00:00:00Z"),
        consumer(username="another"),
    ],
    ids=["deleted", "disabled", "expired", "renamed"],
)
async def test_a_consumer_that_may_not_any_more_is_out_at_once(
    redis_server: RedisServer, fields: dict[str, Any] | None
) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        tokens = await worker.tokens()
        assert await worker.use(tokens["access_token"]) == 200
        worker.put("consumer", "ann", fields)
        assert await worker.use(tokens["access_token"]) == 401
        assert (await worker.refresh(tokens["refresh_token"])).status == 401
        worker.put("consumer", "ann", consumer())
        assert (await worker.refresh(tokens["refresh_token"])).status == 401, "its family has ended"


async def test_another_password_ends_the_families_and_other_roles_count_at_once(
    redis_server: RedisServer,
) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        tokens = await worker.tokens()
        assert await worker.use(tokens["access_token"], path="/admin") == 403
        worker.put("consumer", "ann", consumer(roles=["admin"]))
        assert await worker.use(tokens["access_token"], path="/admin") == 200
        got = await worker.refresh(tokens["refresh_token"])
        assert got.status == 200
        assert claims_of(got.json["access_token"])["roles"] == ["admin"]
        worker.put("consumer", "ann", consumer("another password"))
        assert (await worker.refresh(got.json["refresh_token"])).status == 401
        assert await worker.use(tokens["access_token"], path="/admin") == 403


async def test_a_route_that_asks_for_more_says_so_as_rfc_6750_does(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        token = (await worker.tokens())["access_token"]
        got = await worker.send("GET", "/scoped", b"", f"Authorization: Bearer {token}")
        assert got.status == 403
        challenge = 'Bearer realm="shop", error="insufficient_scope", scope="orders:write"'
        assert got.field("WWW-Authenticate") == challenge
        got = await worker.send("GET", "/s")
        assert got.status == 401
        assert got.field("WWW-Authenticate") == 'Bearer realm="shop"'
        got = await worker.send("GET", "/s", b"", "Authorization: Bearer bad")
        assert str(got.field("WWW-Authenticate")).startswith('Bearer realm="shop", error="invalid_token", ')


async def test_refresh_tokens_and_passwords_are_not_in_the_store(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        tokens = await worker.tokens()
        family, secret = tokens["refresh_token"][4:26], tokens["refresh_token"][26:]
        with redis_server.client() as client:
            found: Any = client.keys("*")
            texts = b"\n".join(name + b" " + client.get(name) for name in found)
            assert len(found) == 3
            (name,) = [name for name in found if name.startswith(b"authgate:state:refresh:shop:")]
            assert 1_209_500 < client.ttl(name) <= 1_209_600
        for text in (family, secret, PASSWORD, cheap_hash(PASSWORD), tokens["access_token"]):
            assert text.encode() not in texts


async def test_two_workers_share_keys_and_tokens(redis_server: RedisServer) -> None:
    stores = [RedisStateStore(redis_server.url) for _ in range(2)]
    async with jwt_worker(stores[0]) as one, jwt_worker(stores[1]) as two:
        first, second = await asyncio.gather(one.tokens(), two.tokens())
        for worker in (one, two):
            for tokens in (first, second):
                assert await worker.use(tokens["access_token"]) == 200
        with redis_server.client() as client:
            text: Any = client.get("authgate:secret:shop")
        assert len(parse_keyring(text, "x").keys) == 1
        assert (await two.refresh(first["refresh_token"])).status == 200


async def test_rotation_cuts_no_live_token_and_every_worker_signs_with_the_new_key(
    redis_server: RedisServer,
) -> None:
    stores = [RedisStateStore(redis_server.url) for _ in range(3)]
    async with jwt_worker(stores[0]) as one, jwt_worker(stores[1]) as two:
        before = await one.tokens()
        old_kid = pyjwt.get_unverified_header(before["access_token"])["kid"]
        statuses: set[int] = set()
        rotating = asyncio.create_task(rotate(stores[2], "shop", "EdDSA"))
        made: list[str] = []
        while not rotating.done():
            token = (await one.tokens())["access_token"]
            made.append(token)
            statuses.add(await two.use(token))
            statuses.add(await one.use(before["access_token"]))
        key = await rotating
        await stores[2].close()
        assert statuses == {200}
        for worker in (one, two):
            for token in (before["access_token"], *made[-5:]):
                assert await worker.use(token) == 200
            token = (await worker.tokens())["access_token"]
            assert pyjwt.get_unverified_header(token)["kid"] == key.kid != old_kid
            assert await one.use(token) == await two.use(token) == 200
        got = await two.send("GET", "/auth/jwks")
        assert [item["kid"] for item in got.json["keys"]] == [old_kid, key.kid]
        with redis_server.client() as client:
            text: Any = client.get("authgate:secret:shop")
        old, new = json.loads(text)["keys"]
        assert "private" not in old
        assert new["private"]


async def test_revoked_keys_end_every_token_at_once(redis_server: RedisServer) -> None:
    stores = [RedisStateStore(redis_server.url) for _ in range(2)]
    async with jwt_worker(stores[0]) as worker:
        tokens = await worker.tokens()
        assert await worker.use(tokens["access_token"]) == 200
        await rotate(stores[1], "shop", "EdDSA", revoke=True)
        await stores[1].close()
        authenticator: Any = worker.configuration.snapshot.gateways["shop"].authenticator
        kid = pyjwt.get_unverified_header(tokens["access_token"])["kid"]
        await eventually(lambda: kid not in authenticator.keys)
        assert await worker.use(tokens["access_token"]) == 401
        got = await worker.refresh(tokens["refresh_token"])
        assert await worker.use(got.json["access_token"]) == 200


async def test_redis_away_known_tokens_go_on_and_the_rest_waits(redis_server: RedisServer) -> None:
    store = RedisStateStore(redis_server.url)
    async with jwt_worker(store) as worker:
        one, two = await worker.tokens(), await worker.tokens()
        assert await worker.use(one["access_token"]) == 200
        redis_server.stop(save=True)
        await eventually(lambda: not store.connected)
        assert await worker.use(one["access_token"]) == 200
        assert await worker.use(two["access_token"]) == 200, "the keys are known"
        for got in (await worker.login(), await worker.refresh(two["refresh_token"])):
            assert got.status == 503
            assert got.code == "auth_unavailable"
        redis_server.start()
        await eventually(lambda: store.connected)
        assert (await worker.refresh(two["refresh_token"])).status == 200
        assert (await worker.login()).status == 200


async def test_a_worker_that_starts_without_redis_cannot_judge_and_says_so(redis_server: RedisServer) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as one:
        token = (await one.tokens())["access_token"]
    store = RedisStateStore(redis_server.url)
    async with jwt_worker(store) as two:
        redis_server.stop(save=True)
        await eventually(lambda: not store.connected)
        assert await two.use(token) == 503
        assert await two.use("rubbish") == 401, "what is no token needs no keys"
        redis_server.start()
        await eventually(lambda: store.connected)
        assert await two.use(token) == 200


async def test_sealed_keys_are_of_no_use_to_who_reads_redis(redis_server: RedisServer) -> None:
    key, stores = bytes(range(32)), [RedisStateStore(redis_server.url) for _ in range(3)]
    async with jwt_worker(stores[0], sealing_key=key) as one, jwt_worker(stores[1], sealing_key=key) as two:
        token = (await one.tokens())["access_token"]
        assert await two.use(token) == 200
        assert await one.use((await two.tokens())["access_token"]) == 200
        with redis_server.client() as client:
            text: Any = client.get("authgate:secret:shop")
        (stored,) = json.loads(text)["keys"]
        assert "private" not in stored
        async with jwt_worker(stores[2], sealing_key=b"x" * 32) as wrong:
            assert await wrong.use(token) == 200, "verifying needs no private key"
            got = await wrong.login()
            assert got.status == 503
            assert any("another key-encryption key" in what for _, what in wrong.stack.reports)
        with redis_server.client() as client:
            assert client.get("authgate:secret:shop") == text


async def test_another_algorithm_in_the_document_makes_the_next_key_of_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authgate_fast.lookup import keyring

    monkeypatch.setattr(keyring, "SETTLE_S", 0.0)
    monkeypatch.setattr(keyring, "PUBLISH_S", 0.0)
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        old = (await worker.tokens())["access_token"]
        worker.put("gateway", "shop", {"hosts": ["shop.test"], "auth": {"type": "JWT", "algorithm": "ES256"}})
        new = (await worker.tokens())["access_token"]
        assert pyjwt.get_unverified_header(new)["alg"] == "ES256"
        assert await worker.use(new) == await worker.use(old) == 200
        with redis_server.client() as client:
            text: Any = client.get("authgate:secret:shop")
        assert [key["alg"] for key in json.loads(text)["keys"]] == ["EdDSA", "ES256"]


async def test_a_consumer_that_took_over_the_username_does_not_get_the_family(
    redis_server: RedisServer,
) -> None:
    async with jwt_worker(RedisStateStore(redis_server.url)) as worker:
        tokens = await worker.tokens()
        worker.put("consumer", "ann", None)
        worker.put("consumer", "bob", consumer(username="ann"))
        assert (await worker.login("ann")).status == 200
        assert (await worker.refresh(tokens["refresh_token"])).status == 401


async def test_a_shorter_refresh_ttl_counts_for_tokens_that_are_out_already(
    redis_server: RedisServer,
) -> None:
    store = RedisStateStore(redis_server.url)
    async with jwt_worker(store) as worker:
        one, two = await worker.tokens(), await worker.tokens()
        for name in await store.names("authgate:state:refresh:shop:", 10):
            record = orjson.loads(await store.get(name) or b"")
            record["issued_at"] -= 7_200
            await store.put(name, orjson.dumps(record), 3_600)
        assert (await worker.refresh(one["refresh_token"])).status == 200
        auth = {"type": "JWT", "refresh_ttl_s": 3_600}
        worker.put("gateway", "shop", {"hosts": ["shop.test"], "auth": auth})
        assert (await worker.refresh(two["refresh_token"])).status == 401


@pytest.mark.parametrize("fields", [None, consumer(enabled=False), consumer("another password")])
async def test_a_consumer_that_changes_while_its_password_is_checked_gets_nothing(
    fields: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from authgate_fast.lookup import passwords

    real, begun, go_on = passwords._find_match, threading.Event(), threading.Event()

    def find_match(hashes: tuple[str, ...], password: bytes) -> str | None:
        begun.set()
        assert go_on.wait(10)
        return real(hashes, password)

    monkeypatch.setattr(passwords, "_find_match", find_match)
    store = MemoryStore()
    async with jwt_worker(store) as worker:
        login = asyncio.create_task(worker.login())
        await eventually(begun.is_set)
        worker.put("consumer", "ann", fields)
        go_on.set()
        assert (await login).status == 401
        assert await store.names("authgate:state:", 10) == []


async def test_a_spoilt_record_of_a_family_is_no_family() -> None:
    store = MemoryStore()
    async with jwt_worker(store) as worker:
        for text in (b"rubbish", b"{}", b"[]", b'{"current":null}'):
            tokens = await worker.tokens()
            (name,) = await store.names("authgate:state:refresh:", 10)
            await store.put(name, text, 60)
            assert (await worker.refresh(tokens["refresh_token"])).status == 401
            assert await store.get(name) is None
