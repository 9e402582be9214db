"""Streams by name: attacks that broke others, and what the fuzzer found here. They also feed the mutators.

What must become of each is not written here: the strict parser and the plain model of the routes say it.
"""

from __future__ import annotations

_HOST = b"Host: shop.test\r\n"
_KEY = b"X-Api-Key: agk_right\r\n"
INNER = b"GET /s/inner HTTP/1.1\r\n" + _HOST + _KEY + b"\r\n"
"""What an attacker would like to be taken for a request of its own."""
NEXT = b"GET /p/next HTTP/1.1\r\n" + _HOST + b"\r\n"


def _post(fields: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1", path: bytes = b"/p/a") -> bytes:
    return b"POST %b %b\r\n%b%b\r\n%b" % (path, version, _HOST, fields, body)


def _get(
    path: bytes = b"/p/a", fields: bytes = b"", version: bytes = b"HTTP/1.1", host: bytes = _HOST
) -> bytes:
    return b"GET %b %b\r\n%b%b\r\n" % (path, version, host, fields)


_MEMBERS = b"Host: members.test\r\n"


def _own(fields: bytes, body: bytes) -> bytes:
    return (
        b"POST /auth/refresh HTTP/1.1\r\n%bContent-Type: application/json\r\n%b\r\n%b"
        % (_MEMBERS, fields, body)
        + NEXT
    )


_CHUNKED = b"Transfer-Encoding: chunked\r\n"
CASES: dict[str, bytes] = {
    # two faults: the one that comes first is told, however the bytes are cut
    "bad-line-and-too-large": b"HEAD http://a#b.test/ HTTP/1.1\r\nHost: shop.test\r\nX-Long: %b\r\n\r\n" % (b"l" * 5_000) + NEXT,
    "foreign-method-and-too-large": b"SETUP /p/a HTTP/1.1\r\nHost: shop.test\r\nX-Long: %b\r\n\r\n" % (b"l" * 5_000) + NEXT,
    "bad-byte-and-too-large": b"GET /p/a HTTP/1.1\r\nHost: shop.test\r\nX: \x01\r\nX-Long: %b\r\n\r\n" % (b"l" * 5_000) + NEXT,
    "too-large-and-bad-byte": b"GET /p/a HTTP/1.1\r\nHost: shop.test\r\nX-Long: %b\r\nX: \x01\r\n\r\n" % (b"l" * 5_000) + NEXT,
    "too-long-and-bad-line": b"GET /p/%b HTTP/3.0\r\nHost: shop.test\r\n\r\n" % (b"l" * 2_000) + NEXT,
    "bad-byte-and-too-long": b"GET /p/\x01%b HTTP/1.1\r\nHost: shop.test\r\n\r\n" % (b"l" * 2_000) + NEXT,
    "other-version-and-bad-byte": b"GET /p/a HTTP/3.0\r\nHost: shop.test\r\nX: \x01\r\n\r\n" + NEXT,
    "preface-and-bad-line": b"PRI * HTTP/2.0\r\nBad line\r\n\r\n" + NEXT,
    # names and hosts that are unusual
    "percent-in-length": _post(b"Content%Length: 5\r\n", b"hello" + NEXT),
    "plus-in-key": b"GET /p/a HTTP/1.1\r\nHost: shop.test\r\nX+API-KEY: agk_right\r\n\r\n" + NEXT,
    "hyphen-first-in-host": b"GET /s/a HTTP/1.1\r\nHost: shop.-test\r\n\r\n" + NEXT,
    # two framings
    "cl-te": _post(b"Content-Length: %d\r\n" % (5 + len(INNER)) + _CHUNKED, b"0\r\n\r\n" + INNER),
    "te-cl": _post(_CHUNKED + b"Content-Length: 4\r\n", b"5c\r\n" + INNER + b"\r\n0\r\n\r\n"),
    "te-te-odd": _post(_CHUNKED + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-twice": _post(_CHUNKED + _CHUNKED, b"0\r\n\r\n" + NEXT),
    "te-vertical-tab": _post(b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-xchunked": _post(b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-gzip-chunked": _post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n" + NEXT),
    "te-chunked-identity": _post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n" + INNER),
    "te-folded": _post(b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-space-before-colon": _post(b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-underscore": _post(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + NEXT),
    "te-in-1.0": _post(_CHUNKED, b"0\r\n\r\n" + INNER, b"HTTP/1.0"),
    "te-empty": _post(b"Transfer-Encoding:\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-quoted": _post(b'Transfer-Encoding: "chunked"\r\nContent-Length: 5\r\n', b"0\r\n\r\n" + INNER),
    "te-behind-lf": _post(b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-behind-cr": _post(b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "te-kelvin": _post(b"Transfer-Encoding: chun\xe2\x84\xaaed\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    # lengths
    "cl-twice-equal": _post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello" + NEXT),
    "cl-twice": _post(b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(INNER), INNER),
    "cl-list": _post(b"Content-Length: 5, 5\r\n", b"hello" + NEXT),
    "cl-plus": _post(b"Content-Length: +5\r\n", b"hello" + NEXT),
    "cl-minus": _post(b"Content-Length: -0\r\n", NEXT),
    "cl-hex": _post(b"Content-Length: 0x5\r\n", b"hello" + NEXT),
    "cl-underscore": _post(b"Content-Length: 1_0\r\n", b"0123456789" + NEXT),
    "cl-empty": _post(b"Content-Length:\r\n", INNER),
    "cl-superscript": _post(b"Content-Length: \xb2\r\n", b"he" + NEXT),
    "cl-overflow": _post(b"Content-Length: 18446744073709551617\r\n", b"h" + NEXT),
    "cl-nul": _post(b"Content-Length: 5\x00\r\n", b"hello" + NEXT),
    "cl-leading-zeros": _post(b"Content-Length: 0000005\r\n", b"hello" + NEXT),
    "cl-space-inside": _post(b"Content-Length: 1 0\r\n", b"0123456789" + NEXT),
    "cl-on-get": _get(fields=b"Content-Length: %d\r\n" % len(INNER)) + INNER + NEXT,
    "cl-space-before-colon": _post(b"Content-Length : %d\r\n" % len(INNER), INNER),
    "body-without-length": _post(b"", INNER),
    # chunks
    "chunk-lf": _post(_CHUNKED, b"5\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-size-plus": _post(_CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-size-hex-prefix": _post(_CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-size-underscore": _post(_CHUNKED, b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n" + NEXT),
    "chunk-size-space": _post(_CHUNKED, b"5 \r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-size-overflow": _post(_CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-size-empty": _post(_CHUNKED, b"\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-end-two-other-bytes": _post(_CHUNKED, b"5\r\nhelloXX0\r\n\r\n" + INNER),
    "chunk-end-lf": _post(_CHUNKED, b"5\r\nhello\n0\r\n\r\n" + NEXT),
    "chunk-too-long": _post(_CHUNKED, b"3\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-extension-lf": _post(_CHUNKED, b"5;a=b\nc\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-extension-cr": _post(_CHUNKED, b"5;a\rb\r\nhello\r\n0\r\n\r\n" + NEXT),
    "chunk-extension-good": _post(_CHUNKED, b'5;a=b;c;d="e\\"f"\r\nhello\r\n0;z\r\n\r\n' + NEXT),
    "chunk-extension-open-quote": _post(_CHUNKED, b'5;a="b\r\nhello\r\n0\r\n\r\n"\r\n' + INNER),
    "chunk-zeros": _post(_CHUNKED, b"00005\r\nhello\r\n0000\r\n\r\n" + NEXT),
    "chunk-last-unfinished": _post(_CHUNKED, b"5\r\nhello\r\n0\r\n"),
    "chunk-last-lf": _post(_CHUNKED, b"0\r\n\n" + INNER),
    "chunk-last-behind-cr": _post(_CHUNKED, b"0\r\n\rX" + INNER),
    "trailers": _post(_CHUNKED, b"5\r\nhello\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n" + NEXT),
    "trailer-without-colon": _post(_CHUNKED, b"0\r\n" + INNER),
    "trailer-identity": _post(_CHUNKED, b"0\r\nX-Consumer-Id: root\r\n\r\n" + NEXT),
    "trailer-bare-lf": _post(_CHUNKED, b"0\r\nX-T: 1\nX-U: 2\r\n\r\n" + NEXT),
    # lines, names and values
    "lf-only": _get().replace(b"\r\n", b"\n") + NEXT,
    "head-ends-lf": b"GET /p/a HTTP/1.1\r\n" + _HOST + b"\n" + INNER,
    "head-ends-cr-lf-cr": b"GET /p/a HTTP/1.1\r\n" + _HOST + b"X: y\r\n\rZ: " + INNER,
    "obs-fold": _get(fields=b"X-A: b\r\n c\r\n") + NEXT,
    "obs-fold-first": b"GET /p/a HTTP/1.1\r\n " + _HOST + b"\r\n" + NEXT,
    "nul-in-value": _get(fields=b"X-A: a\x00b\r\n") + NEXT,
    "nul-in-name": _get(fields=b"X\x00A: b\r\n") + NEXT,
    "empty-name": _get(fields=b": b\r\n" + _CHUNKED) + NEXT,
    "no-colon": _get(fields=b"X-A\r\n") + NEXT,
    "high-bytes-in-value": _get(fields=b"X-A: \xff\xfe\xe9\r\n") + NEXT,
    "cr-in-value": _get(fields=b"X-A: a\rb\r\n") + NEXT,
    "empty-lines-first": b"\r\n\r\n" + _get() + b"\r\n" + NEXT,
    "nothing-but-empty-lines": b"\r\n\r\n\r\n",
    # request line
    "version-0.9": b"GET /p/a\r\n\r\n" + NEXT,
    "version-1.0": _get(version=b"HTTP/1.0") + NEXT,
    "version-1.0-keep-alive": _get(fields=b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + NEXT,
    "version-2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT,
    "version-1.2": _get(version=b"HTTP/1.2") + NEXT,
    "version-lower-case": _get(version=b"http/1.1") + NEXT,
    "two-spaces": b"GET  /p/a HTTP/1.1\r\n" + _HOST + b"\r\n" + NEXT,
    "tab-in-line": b"GET\t/p/a HTTP/1.1\r\n" + _HOST + b"\r\n" + NEXT,
    "request-in-target": b"GET /p/a HTTP/1.1 /s/a HTTP/1.1\r\n" + _HOST + b"\r\n" + NEXT,
    "method-lower-case": b"get /p/a HTTP/1.1\r\n" + _HOST + b"\r\n" + NEXT,
    "method-connect": b"CONNECT shop.test:80 HTTP/1.1\r\n" + _HOST + b"\r\n" + INNER,
    "method-trace": b"TRACE /p/a HTTP/1.1\r\n" + _HOST + b"\r\n" + NEXT,
    "method-rtsp": b"SETUP /p/a RTSP/1.0\r\n" + _HOST + b"\r\n" + NEXT,
    # Host
    "host-none": _get(host=b"") + NEXT,
    "host-none-1.0": _get(host=b"", version=b"HTTP/1.0"),
    "host-twice": _get(fields=b"Host: partner.test\r\n") + NEXT,
    "host-list": _get(host=b"Host: shop.test, partner.test\r\n") + NEXT,
    "host-changes-on-connection": _get() + _get(host=b"Host: partner.test\r\n") + _get(b"/s/a", _KEY, host=b"Host: partner.test\r\n") + NEXT,
    "host-not-the-authority": _get(b"http://partner.test/p/a") + NEXT,
    "host-with-path": _get(host=b"Host: shop.test/s/a\r\n") + NEXT,
    "absolute-form": _get(b"http://shop.test/p/a?b") + NEXT,
    # paths
    "path-dots": _get(b"/p/../s/a") + NEXT,
    "path-dots-encoded": _get(b"/p/%2e%2e/s/a") + NEXT,
    "path-slash-encoded": _get(b"/p/..%2fs/a") + NEXT,
    "path-twice-encoded": _get(b"/p/%252e%252e/s/a") + NEXT,
    "path-semicolon": _get(b"/p/..;/s/a") + NEXT,
    "path-backslash": _get(b"/p\\..\\s\\a") + NEXT,
    "path-literal-encoded": _get(b"/items/%73pecial") + _get(b"/items/special", _KEY) + NEXT,
    "path-two-slashes": _get(b"//s/a") + NEXT,
    "path-fragment": _get(b"/p/a#/../s/a") + NEXT,
    "path-overlong-utf8": _get(b"/p/%c0%ae%c0%ae/s/a") + NEXT,
    # who is calling
    "secure-without-key": _get(b"/s/a") + NEXT,
    "secure-with-key": _get(b"/s/a", _KEY) + NEXT,
    "secure-with-other-gateways-key": _get(b"/s/a", b"X-Api-Key: partner-right\r\nX-Partner-Key: partner-right\r\n") + NEXT,
    "secure-with-two-keys": _get(b"/s/a", _KEY + b"X-Api-Key: agk_wrong\r\n") + NEXT,
    "secure-with-folded-key-name": _get(b"/s/a", b"X_Api_Key: agk_right\r\n") + NEXT,
    "same-path-other-method": _get(b"/same") + _post(_KEY + b"Content-Length: 0\r\n", path=b"/same") + _get(b"/same") + _post(b"Content-Length: 0\r\n", path=b"/same"),
    "identity-claimed": _get(fields=b"X-Consumer-Id: root\r\nX_Consumer_Id: root\r\nx.user.id: 0\r\nX-Gateway-Id: none\r\n") + NEXT,
    "identity-nominated": _get(b"/s/a", _KEY + b"Connection: X-Consumer-Id, X-Gateway-Id, Host, X-Forwarded-For, Via\r\n") + NEXT,
    "length-nominated": _post(b"Content-Length: 5\r\nConnection: Content-Length\r\n", b"hello" + NEXT),
    # refused bodies, expectations, upgrades
    "refused-with-body": _post(b"Content-Length: %d\r\n" % len(INNER), INNER, path=b"/s/a") + NEXT,
    "refused-with-chunks": _post(_CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", path=b"/s/a") + NEXT,
    "too-large-for-the-route": _post(b"Content-Length: 17\r\n", b"0" * 17, path=b"/small") + NEXT,
    "too-large-in-chunks": _post(_CHUNKED, b"11\r\n" + b"0" * 17 + b"\r\n0\r\n\r\n", path=b"/small") + NEXT,
    "expect-continue": _post(b"Content-Length: 5\r\nExpect: 100-continue\r\n", b"hello" + NEXT),
    "expect-continue-unfinished": _post(b"Content-Length: 5\r\nExpect: 100-continue\r\n"),
    "expect-other": _post(b"Content-Length: 5\r\nExpect: 200-ok\r\n", b"hello" + NEXT),
    "upgrade-websocket": _get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n") + INNER,
    "upgrade-h2c": _get(fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n") + NEXT,
    "pipeline": _get() + _post(b"Content-Length: 5\r\n", b"hello") + _post(_CHUNKED, b"5\r\nhello\r\n0\r\n\r\n") + NEXT,
    "behind-a-close": _get(fields=b"Connection: close\r\n") + INNER,
    "behind-a-fault": b"\x00" + INNER,
    # endpoints of the gateway's own read bodies too
    "own-endpoint-length": _own(b"Content-Length: 22\r\n", b'{"refresh_token": "x"}'),
    "own-endpoint-chunks": _own(_CHUNKED, b'16\r\n{"refresh_token": "x"}\r\n0\r\n\r\n'),
    "own-endpoint-request-in-body": _own(b"Content-Length: %d\r\n" % len(INNER), INNER),
    "own-endpoint-chunk-end": _own(_CHUNKED, b"5\r\nhelloXX0\r\n\r\n" + INNER),
    "own-endpoint-both-framings": _own(_CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n" + INNER),
    "own-endpoint-get-with-body": b"GET /auth/jwks HTTP/1.1\r\n" + _MEMBERS + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER + NEXT,
    "own-endpoint-expect": _own(b"Content-Length: 5\r\nExpect: 100-continue\r\n", b"hello"),
    "own-endpoint-unfinished": _own(b"Content-Length: 99\r\n", b"hello"),
    # what the fuzzer found
    "unknown-method-of-a-head-that-is-too-large": b"xDELETE /s/a HTTP/1.1\r\nX-Long: " + b"l" * 33_000 + b"\r\n\r\n",
    "head-of-unknown-method-cut": b"OPTIONBS * HTTP/1.1\r\nHost: shop./est\r\nX-API-KEY:agk_right\r\r\n\r\n",
    "te-tab-behind": b"POST /p/a HTTP/1.1\r\nHost:shop.test\r\nTransfer-Encoding:chunked\t\r\n\r\n0\r\n\r\n" + NEXT,
    "claim-misspelt": _get(fields=b"X-Credential-I-Id: q\r\nX-Client-Cert-Chain: q\r\nX-Auth-Request-User: root\r\n") + NEXT,
    "too-large-or-broken": _post(_CHUNKED, b"e;x\r\nGET /s/inner H\r\n1\r\nT\r\n3\r\nunke", path=b"/small"),
    "traceparent-twice": _get(fields=(b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n") * 2) + NEXT,
    "traceparent-once": _get(fields=b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n") + NEXT,
    "traceparent-invalid": b"PROPFIND / HTTP/1.1\r\nHost:shop.test\r\na:\r\ntraceparent:\r\n\r\n",
    "head-unfinished": b"HEAD \n",
    "http-1.0-with-an-empty-host": b"GET /p/%61 HTTP/1.0\r\nHost:\r\nX-Partner-Key: wrong\r\n\r\n",
    "head-method-malformed": b"HEAD /p/a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\x00\r\n\r\n",
}  # fmt: skip
