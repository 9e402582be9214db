"""Fields by which a client could speak as the gateway, as somebody else, or about the connection."""

from __future__ import annotations

from tests.attacks.cases import (
    KEY,
    NO_KEY,
    REFUSED,
    Answered,
    Cases,
    Forwarded,
    Refused,
    get,
    head,
    post,
    posted,
    show,
)

# --- who is calling (DESIGN section 5) ----------------------------------------------------------------

_IDENTITY = [
    "X-Consumer-Id", "X-Consumer-Roles", "X-Consumer-Username", "X-Consumer-Custom-Id", "X-Consumer-Groups", "X-Credential-Id", "X-Credential-Identifier",
    "X-User-Id", "X-User-Roles", "X-User-Email", "X-Client-Id", "X-Gateway-Id", "X-Tenant-Id", "X-Anonymous-Consumer", "X-Authenticated-Userid",
    "X-Authenticated-Scope", "X-Consumer", "X-User", "X-Remote-User", "Remote-User",
]  # fmt: skip
_CLAIMS = [
    "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-User",
    "X-Forwarded-Email", "X-Forwarded-Client-Cert", "X-Forwarded-Access-Token", "X-Forwarded-Ssl", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Scheme",
    "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "Client-IP", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "X-ProxyUser-Ip",
    "X-Original-URL", "X-Original-URI", "X-Original-Host", "X-Original-Method", "X-Original-Forwarded-For", "X-Rewrite-URL", "X-Envoy-Original-Path",
    "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Host", "X-HTTP-Host-Override", "Proxy", "X-Forwarded", "X-Forward-For", "X-Forwarded-By",
    "X-Auth-Request-User", "X-WebAuth-User", "X-Override-URL",
]  # fmt: skip


def _spellings(name: str) -> dict[str, bytes]:
    plain = name.encode()
    return {
        "": plain,
        " in small letters": plain.lower(),
        " in capitals": plain.upper(),
        " with underscores": plain.replace(b"-", b"_"),
        " with dots": plain.replace(b"-", b"."),
        " with tildes": plain.replace(b"-", b"~"),
        " with the last dash as underscore": b"_".join(plain.rsplit(b"-", 1)),
    }


def _never_evil(name: str) -> tuple[bytes, ...]:
    """The gateway writes some of these names itself; what the client wrote must not be in any of them."""
    own = {
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-gateway-id",
        "x-consumer-id",
        "x-credential-id",
        "x-consumer-roles",
    }
    return () if name.lower() in own else (name.lower().encode(),)


IDENTITY: Cases = {
    **{
        f"{name}{how}": (get(spelt + b": evil"), Forwarded(lacks=_never_evil(name), has=(b"X-Gateway-Id: main", b"X-Forwarded-For: 127.0.0.1")))
        for name in (*_IDENTITY, *_CLAIMS)
        for how, spelt in _spellings(name).items()
    },
    **{
        f"{name} on a SECURE route": (
            get(KEY, name.encode() + b": evil", name.upper().encode() + b": evil", target=b"/s/a"),
            Forwarded(b"GET /s/a HTTP/1.1", consumer=True, lacks=_never_evil(name), has=(b"X-Consumer-Id: app",)),
        )
        for name in _IDENTITY
    },
    **{
        f"{name} nominated by Connection stays out": (get(b"Connection: " + name.encode(), name.encode() + b": evil"), Forwarded(lacks=_never_evil(name)))
        for name in (*_IDENTITY, *_CLAIMS)
    },
    **{
        f"Connection cannot take away {name}": (
            get(KEY, b"Connection: close, " + name, name.lower() + b": evil", target=b"/s/a"),
            Forwarded(b"GET /s/a HTTP/1.1", consumer=True, closes=True, has=(b"X-Consumer-Id: app", b"X-Gateway-Id: main", b"X-Forwarded-Host: a", b"X-Forwarded-Proto: http")),
        )
        for name in (b"X-Consumer-Id", b"X-Consumer-Roles", b"X-Credential-Id", b"X-Gateway-Id", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Request-ID", b"Via")
    },
    "X-Consumer-Id in a trailer": (
        get(KEY, b"Transfer-Encoding: chunked", target=b"/s/a") + b"0\r\nX-Consumer-Id: evil\r\n\r\n",
        Forwarded(b"GET /s/a HTTP/1.1", consumer=True),
    ),
    "X-Request-ID that is sane is kept": (get(b"X-Request-ID: abc.1-2_3"), Forwarded(has=(b"X-Request-ID: abc.1-2_3",))),
    **{f"X-Request-ID {show(value)} is replaced": (get(b"X-Request-ID: " + value), Forwarded()) for value in (b"a b", b"a,b", b"<x>", b"a" * 129, b"", b"%0a", b"\xe4", b"a;b", b"'")},
    "X-Request-ID twice": (get(b"X-Request-ID: one", b"X-Request-ID: two"), Forwarded()),
    "X_Request_ID": (get(b"X_Request_ID: mine"), Forwarded()),
    "the gateway's own Via is added": (get(b"Via: 1.1 other"), Forwarded(has=(b"Via: 1.1 other", b"Via: 1.1 authgate"))),
    "Via with our name a few times, as in a chain of gateways": (get(*[b"Via: 1.1 authgate"] * 3), Forwarded()),
    "Via with our name in a comment": (get(*[b"Via: 1.1 other (authgate)"] * 9), Forwarded()),
    "Via with our name in a comment with commas": (
        get(*[b"Via: 1.1 other (a, 1.1 authgate, b)"] * 9),
        Forwarded(),
    ),
    "Via of names like ours": (get(*[b"Via: 1.1 authgate-2, 1.1 xauthgate, 1.1 authgate.test"] * 9), Forwarded()),
    "Via with our name too often: a loop": (get(*[b"Via: 1.1 authgate"] * 9), Refused((508,))),
    "Via with our name too often, in one field": (get(b"Via: " + b", ".join([b"1.1 authgate"] * 9)), Refused((508,))),
    "Via with our name too often, with comments and ports": (get(b"Via: " + b",".join([b"HTTP/1.1 AuthGate:80 (a)"] * 9)), Refused((508,))),
    "Via with our name too often on a SECURE route": (get(*[b"Via: 1.1 authgate"] * 9, target=b"/s/a"), Refused((508,))),
}  # fmt: skip

# --- credentials ----------------------------------------------------------------------------------------

_IN = Forwarded(b"GET /s/a HTTP/1.1", consumer=True, has=(b"X-Consumer-Id: app",))


def _secure(*lines: bytes, host: bytes = b"a") -> bytes:
    return get(*lines, target=b"/s/a", host=host)


CREDENTIALS: Cases = {
    "no key": (_secure(), NO_KEY),
    "the key": (_secure(KEY), _IN),
    "the key in small letters": (_secure(b"x-api-key: agk_test"), _IN),
    "the key between white space": (_secure(b"X-Api-Key: \t agk_test \t"), _IN),
    "the key on a PUBLIC route does not reach the backend": (get(KEY), Forwarded()),
    "the key spelt with underscores is none": (_secure(b"X_Api_Key: agk_test"), NO_KEY),
    "the key spelt with dots is none": (_secure(b"X.Api.Key: agk_test"), NO_KEY),
    "the key spelt with underscores on a PUBLIC route does not reach the backend": (
        get(b"X_Api_Key: agk_test", b"x.api.key: agk_test"),
        Forwarded(),
    ),
    "the key twice": (_secure(KEY, KEY), NO_KEY),
    "the key twice, second wrong": (_secure(KEY, b"X-Api-Key: x"), NO_KEY),
    "the key twice, first wrong": (_secure(b"X-Api-Key: x", KEY), NO_KEY),
    "the key twice, one empty": (_secure(KEY, b"X-Api-Key:"), NO_KEY),
    "the key twice, in two spellings": (_secure(KEY, b"x-aPI-kEY: agk_test"), NO_KEY),
    "the key in a list": (_secure(b"X-Api-Key: agk_test, agk_test"), NO_KEY),
    "the key in a list with another": (_secure(b"X-Api-Key: x, agk_test"), NO_KEY),
    "the key in quotes": (_secure(b'X-Api-Key: "agk_test"'), NO_KEY),
    "the key with a scheme": (_secure(b"X-Api-Key: Bearer agk_test"), NO_KEY),
    "the key in capitals": (_secure(b"X-Api-Key: AGK_TEST"), NO_KEY),
    "the key cut short": (_secure(b"X-Api-Key: agk_tes"), NO_KEY),
    "the key and more": (_secure(b"X-Api-Key: agk_test1"), NO_KEY),
    "the key, encoded": (_secure(b"X-Api-Key: agk%5ftest"), NO_KEY),
    "the key with an inner space": (_secure(b"X-Api-Key: agk_ test"), NO_KEY),
    "the key with NUL": (_secure(b"X-Api-Key: agk_test\x00"), REFUSED),
    "the key with a high byte": (_secure(b"X-Api-Key: agk_test\xa0"), NO_KEY),
    "the key empty": (_secure(b"X-Api-Key:"), NO_KEY),
    "the key of white space": (_secure(b"X-Api-Key: \t "), NO_KEY),
    "the key very long": (_secure(b"X-Api-Key: " + b"a" * 5_000), NO_KEY),
    "the key in the query": (get(target=b"/s/a?X-Api-Key=agk_test&api_key=agk_test"), NO_KEY),
    "the key in a cookie": (_secure(b"Cookie: X-Api-Key=agk_test"), NO_KEY),
    "the key in Authorization": (_secure(b"Authorization: Bearer agk_test"), NO_KEY),
    "the key in Proxy-Authorization": (_secure(b"Proxy-Authorization: agk_test"), NO_KEY),
    "the key nominated by Connection": (_secure(KEY, b"Connection: X-Api-Key"), _IN),
    "the key in a trailer": (get(b"Transfer-Encoding: chunked", target=b"/s/a") + b"0\r\n" + KEY + b"\r\n\r\n", Answered(401, closes=True)),
    "the key of another gateway": (_secure(KEY, host=b"other.test"), NO_KEY),
    "the key of this gateway in another's field": (_secure(b"X-Other-Key: agk_test"), NO_KEY),
    "another gateway's field is an ordinary one here": (_secure(KEY, b"X-Other-Key: b"), Forwarded(b"GET /s/a HTTP/1.1", consumer=True, has=(b"x-other-key: b",))),
    "an identity instead of a key": (_secure(b"X-Consumer-Id: app", b"X-Gateway-Id: main", b"X-Credential-Id: default"), NO_KEY),
    "a method override instead of a key": (_secure(b"X-HTTP-Method-Override: OPTIONS"), NO_KEY),
    "HEAD asks for a key too": (get(target=b"/s/a", method=b"HEAD"), NO_KEY),
    "OPTIONS asks for a key too, where a route takes it": (get(target=b"/s/a", method=b"OPTIONS"), NO_KEY),
    "HTTP/1.0 asks for a key too": (head(b"GET /s/a HTTP/1.0", b"Host: a"), Answered(401, closes=True)),
    "cookies pass untouched": (get(b"Cookie: a=b; c=d", b"Cookie: e=f"), Forwarded(has=(b"Cookie: a=b; c=d", b"Cookie: e=f"))),
    "Authorization passes untouched": (get(b"Authorization: Basic eDp5"), Forwarded(has=(b"Authorization: Basic eDp5",))),
}  # fmt: skip

# --- the connection (RFC 9110 section 7.6.1) --------------------------------------------------------------

_HOP = [
    b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eDp5", b"Proxy-Authenticate: Basic", b"TE: trailers", b"TE: trailers, deflate;q=0.5",
    b"TE: chunked", b"TE: gzip", b"TE:", b"Trailer: X", b"Upgrade: h2c", b"Upgrade: TLS/1.0", b"Upgrade: HTTP/2.0", b"Upgrade: foo", b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: upgrade", b"Connection:", b"Connection: ,", b"Connection: , keep-alive,", b"Connection: te",
    b"Proxy_Connection: close", b"Keep.Alive: 1", b"HTTP2_Settings: AA", b"Proxy_Authorization: x",
]  # fmt: skip
_KEPT = [
    b"Authorization: Basic eDp5",
    b"Cookie: a=b",
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Range: bytes=0-1",
    b"Via: 1.1 other",
]

CONNECTION: Cases = {
    **{f"{show(line)} does not go on": (get(line), Forwarded(lacks=(line.partition(b":")[0].lower().replace(b"_", b"-"),))) for line in _HOP},
    **{f"Connection cannot take away {show(line)}": (get(line, b"Connection: " + line.partition(b":")[0]), Forwarded(has=(line,))) for line in _KEPT},
    **{f"Connection takes away what it names, written {show(value)}": (get(b"X-Hop: 1", b"X-Stays: 2", b"Connection: " + value), Forwarded(lacks=(b"x-hop",), has=(b"X-Stays: 2",)))
       for value in (b"X-Hop", b"x-hop", b"keep-alive, X-Hop", b"X-Hop,keep-alive", b",X-Hop,", b"\tX-Hop\t", b"X-Hop , x-other")},
    "Connection in two fields": (get(b"Connection: keep-alive", b"X-Hop: 1", b"Connection: X-Hop"), Forwarded(lacks=(b"x-hop",))),
    "Connection before the field it names": (get(b"Connection: X-Hop", b"X-Hop: 1", b"x-hop: 2"), Forwarded(lacks=(b"x-hop",))),
    "Connection close": (get(b"Connection: close"), Forwarded(closes=True)),
    "Connection CLOSE": (get(b"Connection: CLOSE"), Forwarded(closes=True)),
    "Connection close in a list": (get(b"Connection: X-Hop, close"), Forwarded(closes=True)),
    "Connection close and keep-alive": (get(b"Connection: close, keep-alive"), Forwarded(closes=True)),
    "Connection close in a second field": (get(b"Connection: keep-alive", b"Connection: close"), Forwarded(closes=True)),
    "Connection names Host": (get(b"Connection: Host"), Forwarded()),
    "Connection names Content-Length and Transfer-Encoding": (post(b"Content-Length: 5", b"Connection: Content-Length, Transfer-Encoding", body=b"hello"), posted(b"hello")),
    "Connection with underscore is taken out": (get(b"Connection_: x", b"X-A: b"), Forwarded(has=(b"X-A: b",))),
    "Connection with an option that is no token": (get(b"Connection: a b", b"A: 1"), Forwarded(has=(b"A: 1",))),
    "Connection with a quoted option": (get(b'Connection: "close"'), Forwarded()),
    "Connection with a high byte": (get(b"Connection: close\xa0"), Forwarded()),
    "h2c upgrade": (get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), Forwarded(lacks=(b"upgrade", b"http2-settings"))),
    "h2c upgrade without its Connection": (get(b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), Forwarded(lacks=(b"upgrade", b"http2-settings"))),
    "h2c upgrade in other letters": (get(b"connection: UPGRADE, http2-settings", b"uPGRADE: H2C", b"http2-SETTINGS: AA"), Forwarded(lacks=(b"upgrade", b"http2-settings"))),
    "h2c upgrade in a list": (get(b"Connection: Upgrade", b"Upgrade: foo, h2c"), Forwarded(lacks=(b"upgrade",))),
    "h2c upgrade with a body": (post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"), posted(b"hello", lacks=(b"upgrade",))),
    "h2c upgrade of a SECURE route": (get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", target=b"/s/a"), NO_KEY),
    "h2c upgrade with a preface behind it": (
        get(b"Connection: Upgrade, HTTP2-Settings, close", b"Upgrade: h2c", b"HTTP2-Settings: AA") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        Forwarded(closes=True),
    ),
    **{f"Max-Forwards {show(value)} on GET means nothing": (get(b"Max-Forwards: " + value), Forwarded()) for value in (b"0", b"5", b"x")},
    # RFC 9110 section 7.6.2
    "Max-Forwards 0 on OPTIONS is answered here": (get(b"Max-Forwards: 0", method=b"OPTIONS"), Answered(204)),
    "Max-Forwards 00 on OPTIONS is answered here": (get(b"Max-Forwards: 00", method=b"OPTIONS"), Answered(204)),
    "Max-Forwards 0 on OPTIONS of a SECURE route": (get(b"Max-Forwards: 0", method=b"OPTIONS", target=b"/s/a"), Answered(204)),
    "Max-Forwards 5 on OPTIONS goes on as 4": (get(b"Max-Forwards: 5", method=b"OPTIONS"), Forwarded(b"OPTIONS /a HTTP/1.1", has=(b"Max-Forwards: 4",))),
    **{f"Max-Forwards {show(value)} on OPTIONS": (get(b"Max-Forwards: " + value, method=b"OPTIONS"), REFUSED) for value in (b"x", b"-1", b"+1", b"1, 2", b"", b"9" * 20)},
    "Max-Forwards twice on OPTIONS": (get(b"Max-Forwards: 0", b"Max-Forwards: 5", method=b"OPTIONS"), REFUSED),
}  # fmt: skip

# --- Expect (RFC 9110 section 10.1.1) ------------------------------------------------------------------------

_FAILED = Refused((417,))
_EXPECTS = [b"", b" ", b"100", b"continue", b"100-continue, 100-continue", b"100-continue,", b"100-continue; a=b", b"100-continue x", b'"100-continue"', b"200-ok", b"x", b"100-continue, x",
            b"100_continue", b"100-continue\xa0", b"xx100-continue"]  # fmt: skip

EXPECT: Cases = {
    **{f"Expect {show(value)}": (post(b"Content-Length: 5", b"Expect: " + value, body=b"hello"), _FAILED) for value in _EXPECTS},
    "Expect with the body behind it": (post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"), posted(b"hello", lacks=(b"expect",))),
    "Expect in capitals": (post(b"Content-Length: 5", b"EXPECT: 100-CONTINUE", body=b"hello"), posted(b"hello", lacks=(b"expect",))),
    "Expect twice": (post(b"Content-Length: 5", b"Expect: 100-continue", b"Expect: 100-continue", body=b"hello"), _FAILED),
    "Expect with a chunked body": (post(b"Transfer-Encoding: chunked", b"Expect: 100-continue", body=b"5\r\nhello\r\n0\r\n\r\n"), posted(b"hello", lacks=(b"expect",))),
    "Expect without a body": (get(b"Expect: 100-continue"), Forwarded(lacks=(b"expect",))),
    "Expect with a body of nothing": (post(b"Content-Length: 0", b"Expect: 100-continue"), posted(lacks=(b"expect",))),
    "Expect nominated by Connection": (post(b"Content-Length: 5", b"Expect: 100-continue", b"Connection: Expect", body=b"hello"), posted(b"hello", lacks=(b"expect",))),
    "Expect on HTTP/1.0 is ignored": (head(b"POST /p/a HTTP/1.0", b"Host: a", b"Content-Length: 5", b"Expect: 100-continue") + b"hello", posted(b"hello", lacks=(b"expect",), closes=True)),
    "Expect of something else on HTTP/1.0": (head(b"POST /p/a HTTP/1.0", b"Host: a", b"Content-Length: 5", b"Expect: x") + b"hello", posted(b"hello", lacks=(b"expect",), closes=True)),
    "Expect in another spelling is taken out": (post(b"Content-Length: 5", b"EXPECT_: x", b"Expect.: x", body=b"hello"), posted(b"hello")),
    "Expect of a SECURE route without a key": (get(b"Content-Length: 5", b"Expect: 100-continue", target=b"/s/a", method=b"POST") + b"hello", Answered(401, closes=True)),
    "Expect of a body over the limit": (get(b"Content-Length: 11", b"Expect: 100-continue", target=b"/small", method=b"POST") + b"hello worl!", Refused((413,))),
    "Expect of a path that is no route's": (get(b"Content-Length: 5", b"Expect: 100-continue", target=b"/x", method=b"POST") + b"hello", Answered(404, closes=True)),
}  # fmt: skip
