"""Good requests, as a client that knows the gateway would write them. Everything comes from one `Random`."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.fuzz.world import KEY, PARTNER_KEY

CRLF = b"\r\n"
PATHS = (
    b"/auth/refresh", b"/auth/login", b"/auth/jwks", b"/auth/logout", b"/auth/none", b"/auth",
    b"/p/a", b"/p/a", b"/p", b"/p/", b"/p/a/b/c", b"/p/%61%62", b"/p/caf%C3%A9", b"/s/a", b"/s/a", b"/s/x/y", b"/s", b"/items/7",
    b"/items/special", b"/items/", b"/items/7/8", b"/same", b"/same", b"/small", b"/", b"/other/one", b"/P/a", b"/p/a.b~c", b"/p/a,b=c@d",
    b"/s/x;y", b"/items/%73pecial",
)  # fmt: skip
QUERIES = (b"", b"", b"", b"", b"?", b"?a=b", b"?a=b&c=%20d", b"?u=http://x/../y", b"??")
HOSTS = (b"shop.test", b"shop.test", b"shop.test", b"shop.test", b"partner.test", b"partner.test", b"shop.test:80", b"SHOP.test",
         b"a.shop.test", b"other.test", b"members.test", b"members.test", b"127.0.0.1", b"shop.test.")  # fmt: skip
METHODS = (
    b"GET",
    b"GET",
    b"GET",
    b"POST",
    b"POST",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"PROPFIND",
)
PLAIN_FIELDS = (
    b"User-Agent: fuzz/1", b"Accept: */*", b"accept:text/html", b"Cookie: a=b; c=d", b"Cookie: AUTHGATE_BFF_SESSION=x; k=v",
    b"Authorization: Bearer abc.def.ghi", b"Authorization: Basic dTpw", b"X-A: 1", b"X-A:\t2 ", b"X-Empty:", b"X-High: caf\xe9", b"Range: bytes=0-1",
    b"Content-Type: text/plain", b"Content-Type: application/json", b"Content-Type: application/json", b"Accept-Encoding: gzip, deflate", b"Via: 1.0 other", b"Referer: http://x/y", b"If-None-Match: \"q\"",
    b"X-Long: " + b"y" * 150, b"X-Request-ID: mine-1", b"X-Request-Id: not sane", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)  # fmt: skip
CLAIMS = (
    b"X-Consumer-Id: root", b"X_Consumer_Id: root", b"x-consumer-roles: admin", b"X.Consumer.Id: root", b"X-Gateway-Id: no", b"X-User-Id: 0",
    b"x_user_roles: admin", b"X-Credential-Id: q", b"X-Client-Id: q", b"X-Forwarded-For: 9.9.9.9", b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil.test", b"Forwarded: for=9.9.9.9", b"X-Real-IP: 9.9.9.9", b"X_Forwarded_For: 9.9.9.9", b"X-Original-URL: /s/a",
    b"X-Rewrite-URL: /s/a", b"X-HTTP-Method-Override: DELETE", b"Proxy: http://x", b"X-Authenticated-User: root", b"Remote-User: root",
    b"X-Tenant-Id: 1", b"X_Api_Key: agk_right", b"Proxy-Authorization: Basic dTpw",
)  # fmt: skip
HOP_FIELDS = (
    b"Connection: keep-alive", b"Connection: close", b"Connection: X-A", b"Connection: keep-alive, X-A, te", b"Keep-Alive: timeout=5", b"TE: trailers",
    b"Trailer: X-T", b"Proxy-Connection: keep-alive", b"Connection: ", b"Connection: close, X-Consumer-Id", b"Connection: Host, Content-Length",
    b"Connection: X-Api-Key, X-Forwarded-For, X-Gateway-Id, Via", b"Connection: Transfer-Encoding", b"Connection: Cookie, Authorization",
)  # fmt: skip
UPGRADES = (
    (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    ),
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    (b"Connection: upgrade", b"Upgrade: TLS/1.0"),
    (b"Upgrade: websocket",),
)
TRAILERS = (
    b"X-T: 1",
    b"Content-Length: 3",
    b"Host: evil.test",
    b"Transfer-Encoding: chunked",
    b"X-Consumer-Id: root",
    b"X-Api-Key: agk_right",
)
EXTENSIONS = (b"", b"", b"", b"", b";x", b";x=y", b' ; x = "y;z"', b';a="\\""', b"\t;b")
SIZES = (0, 0, 1, 2, 5, 5, 10, 16, 17, 100, 300)
INNER = b"GET /s/inner HTTP/1.1\r\nHost: shop.test\r\n\r\n"
"""A request inside a body, where it must stay."""


@dataclass(slots=True)
class Draft:
    """A request that can still be changed: lines without their ends, body as the pieces that go on the wire."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[bytes]
    body: list[bytes] = field(default_factory=list)

    def render(self) -> bytes:
        """Write it."""
        line = b"%b %b %b" % (self.method, self.target, self.version)
        return CRLF.join([line, *self.fields, b"", b""]) + b"".join(self.body)


def draft(rng: Random, *, last: bool = True) -> Draft:
    """Make one good request; only the `last` one of a stream may ask for a close."""
    method, host = rng.choice(METHODS), rng.choice(HOSTS)
    target = rng.choice(PATHS) + rng.choice(QUERIES)
    version = b"HTTP/1.0" if last and rng.random() < 0.06 else b"HTTP/1.1"
    if rng.random() < 0.08:
        target = b"http://" + host + target
    elif method == b"OPTIONS" and rng.random() < 0.3:
        target = b"*"
    fields = [b"Host: " + host]
    if rng.random() < 0.5:
        fields.append(_key_line(rng, host))
    fields += rng.sample(PLAIN_FIELDS, rng.choice((0, 1, 1, 2, 4)))
    if rng.random() < 0.2:
        fields += rng.sample(CLAIMS, rng.choice((1, 2, 3)))
    if rng.random() < 0.15:
        fields.append(rng.choice([f for f in HOP_FIELDS if last or b"close" not in f]))
    if rng.random() < 0.04 and version == b"HTTP/1.1":
        fields += rng.choice(UPGRADES)
    made = Draft(method, target, version, fields)
    if method in (b"POST", b"PUT", b"PATCH", b"PROPFIND") or rng.random() < 0.05:
        _add_body(rng, made)
    if rng.random() < 0.5:
        rng.shuffle(made.fields)
    return made


def stream(rng: Random) -> list[Draft]:
    """Make a pipeline of good requests."""
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    return [draft(rng, last=at == count - 1) for at in range(count)]


def _key_line(rng: Random, host: bytes) -> bytes:
    partner = b"partner" in host
    if rng.random() < 0.2:
        return rng.choice(
            (
                b"X-Api-Key: wrong",
                b"X-Partner-Key: agk_right",
                b"X-Api-Key: partner-right",
                b"x-api-key:",
                b"X-Partner-Key: wrong",
            )
        )
    name = (
        rng.choice((b"X-Partner-Key", b"x-partner-key"))
        if partner
        else rng.choice((b"X-Api-Key", b"x-api-key", b"X-API-KEY"))
    )
    return name + b": " + (PARTNER_KEY if partner else KEY)


def content(rng: Random) -> bytes:
    """Make a body's content."""
    size = rng.choice(SIZES)
    kind = rng.random()
    if kind < 0.25:
        return INNER[:size] if kind < 0.1 else INNER
    if kind < 0.3:
        return b'{"refresh_token": "x"}'
    if kind < 0.45:
        return rng.randbytes(size)
    return (b"0123456789\r\n" * 30)[:size]


def _add_body(rng: Random, made: Draft) -> None:
    body = content(rng)
    if made.version == b"HTTP/1.1" and rng.random() < 0.5:
        made.fields.append(
            rng.choice(
                (
                    b"Transfer-Encoding: chunked",
                    b"transfer-encoding: chunked",
                    b"Transfer-Encoding:chunked",
                    b"Transfer-Encoding: Chunked",
                )
            )
        )
        made.body = chunks(rng, body)
    else:
        made.fields.append(
            rng.choice(
                (b"Content-Length: %d", b"Content-Length: %d", b"content-length:%d", b"Content-Length: 0%d")
            )
            % len(body)
        )
        made.body = [body] if body else []
    if rng.random() < 0.1 and made.version == b"HTTP/1.1":
        made.fields.append(b"Expect: 100-continue")


def chunks(rng: Random, body: bytes) -> list[bytes]:
    """Cut `body` into chunks; sizes, data and line ends are pieces of their own."""
    pieces: list[bytes] = []
    while body:
        size = rng.randint(1, len(body))
        digits = rng.choice((b"%x", b"%x", b"%X", b"0%x", b"000%x")) % size
        pieces += [digits + rng.choice(EXTENSIONS) + CRLF, body[:size], CRLF]
        body = body[size:]
    pieces.append(rng.choice((b"0", b"0", b"0", b"000", b"0;x=y")) + CRLF)
    if rng.random() < 0.15:
        pieces += [line + CRLF for line in rng.sample(TRAILERS, rng.choice((1, 2)))]
    pieces.append(CRLF)
    return pieces
