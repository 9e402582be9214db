"""Host, and the forms of a request target (RFC 9112 section 3.2, RFC 9110 section 7.2)."""

from __future__ import annotations

from tests.attacks.cases import (
    INVALID_PATH,
    NOT_FOUND,
    REFUSED,
    Answered,
    Cases,
    Forwarded,
    Refused,
    get,
    head,
    show,
)

_START = b"GET /p/a HTTP/1.1"
_BAD_HOSTS = [
    b"", b" ", b"a b", b"a\tb", b"a,b", b"a, a", b"a;b", b"user@a", b"user:pw@a", b"@a", b"a@", b"a/", b"a/b", b"/", b"a?b", b"a#b", b"a\\b", b"http://a",
    b"//a", b"a:", b"a:x", b"a:80x", b"a:-1", b"a:+80", b"a: 80", b"a :80", b"a:80:80", b"a:65536", b"a:99999", b"a:100000", b"a:0x50", b"a:8_0", b"a:80,b",
    b":80", b":", b".", b"..", b".a", b"a..b", b"a..", b"%61", b"a%00b", b"a%2eb", b"a%0d%0ab", b"a\xe4", "\u00e4.test".encode(), "\uff41".encode(), b"a\xa0",
    b"a\x7f", b"[", b"]", b"[]", b"[a]", b"[::1", b"::1", b"::1]", b"[::1]a", b"[::1]:", b"[::1]:x", b"[::1]:65536", b"[::g]", b"[1::2::3]", b"[::1%25eth0]",
    b"[::1%eth0]", b"[v1.a]", b"[127.0.0.1]", b"[:::]", b"[1:2:3:4:5:6:7:8:9]", b"[12345::]", b"[ ::1]", b"[::1 ]", b"a[::1]", b"[[::1]]", b"-", b"a\"b", b"a'b",
    b"a(b)", b"a*b", b"*", b"*.a", b"a=b", b"a&b", b"a|b", b"a<b>", b"{a}", b"a$b", b"a!b", b"a+b", b"a~b", b"a^b", b"a`b", b"l" * 64, b"l" * 300,
    b".".join([b"l" * 60] * 5), b"a.test/../b", b"a:80/p", b"localhost\\@a", b"a.", b"-a", b"a.-b", b"\"a\"", b"[::ffff:1.2.3.400]",
]  # fmt: skip
_GOOD_HOSTS = [
    b"a", b"A", b"a:80", b"a:0", b"a:65535", b"a.b.c", b"a_b.test", b"_a.test", b"1.2.3.4", b"1.2.3.4:8080", b"[::1]", b"[::1]:8080", b"[2001:DB8::1]",
    b"[::ffff:1.2.3.4]", b"xn--bcher-kva.test", b"a--b.test", b"9.test", b"l" * 63, b"a.b.", b"a.b.:80", b"0", b"a-b",
]  # fmt: skip

HOSTS: Cases = {
    **{f"Host {show(host)}": (get(host=host), REFUSED) for host in _BAD_HOSTS if host not in (b"a.",)},
    **{f"Host {show(host)} is good": (get(host=host), Forwarded()) for host in _GOOD_HOSTS},
    "Host missing": (head(_START, b"X: y"), REFUSED),
    "Host missing, no fields at all": (head(_START), REFUSED),
    "Host missing, absolute form": (head(b"GET http://a/p/a HTTP/1.1", b"X: y"), REFUSED),
    "Host twice": (get(b"Host: b"), REFUSED),
    "Host twice, equal": (get(b"Host: a"), REFUSED),
    "Host twice, in two spellings": (get(b"hOST: a"), REFUSED),
    "Host twice, second empty": (get(b"Host:"), REFUSED),
    "Host twice, first empty": (head(_START, b"Host:", b"Host: a"), REFUSED),
    "Host twice, far apart": (get(*[b"X-%d: y" % n for n in range(50)], b"Host: a"), REFUSED),
    "Host twice on HTTP/1.0": (head(b"GET /p/a HTTP/1.0", b"Host: a", b"Host: a"), REFUSED),
    "Host bad on HTTP/1.0": (head(b"GET /p/a HTTP/1.0", b"Host: a b"), REFUSED),
    "Host three times": (get(b"Host: a", b"Host: a"), REFUSED),
    "Host, space before colon": (head(_START, b"Host : a"), REFUSED),
    "Host, space before colon, beside a good one": (get(b"Host : evil"), REFUSED),
    "Host, space before name": (head(_START, b" Host: a"), REFUSED),
    "Host, space before name, behind a good one": (get(b" Host: evil"), REFUSED),
    "Host with bare CR": (head(_START, b"Host: a\rHost: b"), REFUSED),
    "Host with bare LF": (head(_START, b"Host: a\nHost: b"), REFUSED),
    "Host with NUL": (head(_START, b"Host: a\x00b"), REFUSED),
    "Host in small letters, no space": (head(_START, b"host:a"), Forwarded()),
    "Host between spaces": (head(_START, b"Host:   a   "), Forwarded(has=(b"X-Forwarded-Host: a",))),
    "Host that is no gateway's is the one of '*'": (get(host=b"nobody.test"), Forwarded()),
    "Host in another field does not route": (
        get(b"X-Forwarded-Host: open.test", b"X-Host: open.test", b"Forwarded: host=open.test", target=b"/elsewhere"),
        NOT_FOUND,
    ),
    "Host with underscore name is no Host": (head(_START, b"X_Host: a"), REFUSED),
    **{f"Host beside {show(name)}: the backend gets neither": (get(name + b": evil.test"), Forwarded(lacks=(b"x-host", b"x-original-host", b"x-forwarded-server", b"x-http-host-override")))
       for name in (b"X-Host", b"X-Forwarded-Server", b"X-HTTP-Host-Override", b"X-Original-Host", b"X_Host")},
}  # fmt: skip


def absolute(
    target: bytes, host: bytes = b"a", method: bytes = b"GET", version: bytes = b"HTTP/1.1"
) -> bytes:
    return head(b"%b %b %b" % (method, target, version), b"Host: " + host)


_BAD_TARGETS = [
    b"p/a", b"a", b"a:80", b"a:443", b"*", b"**", b"*/p/a", b"?a", b"?", b"#", b"#a", b".", b"..", b"./p/a", b"../p/a", b"\\p\\a", b"\\\\a\\p", b"@a/p", b"~/p", b"%2fp/a",
    b"%2Fp%2Fa", b"http:", b"http:/", b"http:/p/a", b"http:///p/a", b"http://", b"http:p/a", b"http:\\\\a\\p\\a", b"http://a@a/p/a", b"http://user:pw@a/p/a", b"http://@a/p/a",
    b"http://b/p/a", b"http://a.b/p/a", b"http://a:80:80/p/a", b"http://a:/p/a", b"http://a:81/p/a", b"http://a%00/p/a", b"http://a%2fp/a", b"http://a\\@b/p/a",
    b"http://[::1]/p/a", b"http://a,b/p/a", b"http://a;b/p/a", b"http:// a/p/a", b"ftp://a/p/a", b"ws://a/p/a", b"file:///p/a", b"file://a/p/a", b"gopher://a/p/a",
    b"javascript:alert(1)", b"data:a", b"mailto:a@a", b"about:blank", b"urn:a", b"x://a/p/a", b"://a/p/a", b"htp://a/p/a", b"httpx://a/p/a", b"https+x://a/p/a", b"https://a/p/a",
    b"http://a./p/a", b"http//a/p/a", b"http:a/p/a", b"[::1]:80", b"user@a:80", b"http://b?http://a/p/a", b"http://b#@a/p/a",
]  # fmt: skip

TARGETS: Cases = {
    **{f"target {show(target)}": (get(target=target), REFUSED) for target in _BAD_TARGETS},
    "target empty": (head(b"GET  HTTP/1.1", b"Host: a"), REFUSED),
    "absolute form": (absolute(b"http://a/p/a"), Forwarded()),
    "absolute form in capitals": (absolute(b"HTTP://A/p/a"), Forwarded()),
    "absolute form, Host in capitals": (absolute(b"http://a/p/a", b"A"), Forwarded()),
    "absolute form with a port": (absolute(b"http://a:8080/p/a", b"a:8080"), Forwarded()),
    "absolute form with a query": (absolute(b"http://a/p/a?b=c"), Forwarded(b"GET /a?b=c HTTP/1.1")),
    "absolute form with a URL in the query": (absolute(b"http://a/p/a?b=http://evil/"), Forwarded(b"GET /a?b=http://evil/ HTTP/1.1")),
    "absolute form with an IPv6 address": (absolute(b"http://[::1]:80/p/a", b"[::1]:80"), Forwarded()),
    "absolute form on HTTP/1.0": (absolute(b"http://a/p/a", version=b"HTTP/1.0"), Forwarded(closes=True)),
    "absolute form on HTTP/1.0 without Host": (head(b"GET http://a/p/a HTTP/1.0", b"X: y"), REFUSED),
    "absolute form without a path": (absolute(b"http://a"), NOT_FOUND),
    "absolute form without a path, with an @ in the query": (absolute(b"http://a?x@b/"), NOT_FOUND),
    "absolute form without a path, with a query": (absolute(b"http://a?x=/p/a"), NOT_FOUND),
    "absolute form with a fragment": (absolute(b"http://a/p/a#b"), INVALID_PATH),
    "absolute form with a dot segment": (absolute(b"http://a/p/../s/a"), INVALID_PATH),
    "absolute form with two slashes": (absolute(b"http://a//p/a"), INVALID_PATH),
    "absolute form of a SECURE route": (absolute(b"http://a/s/a"), Answered(401)),
    "absolute form of another gateway": (absolute(b"http://open.test/p/a"), REFUSED),
    "absolute form, Host of another gateway": (absolute(b"http://a/p/a", b"open.test"), REFUSED),
    "absolute form with a control byte": (absolute(b"http://a\x01/p/a"), REFUSED),
    "absolute form with a high byte": (absolute(b"http://a\xff/p/a"), REFUSED),
    "authority form": (head(b"CONNECT a:443 HTTP/1.1", b"Host: a:443"), Refused((501,))),
    "authority form without port": (head(b"CONNECT a HTTP/1.1", b"Host: a"), Refused((400, 501))),
    "authority form with userinfo": (head(b"CONNECT u@a:443 HTTP/1.1", b"Host: a:443"), Refused((400, 501))),
    "CONNECT with a path": (get(method=b"CONNECT"), Refused((400, 501))),
    "CONNECT with an absolute form": (absolute(b"http://a/p/a", method=b"CONNECT"), Refused((400, 501))),
    "CONNECT on HTTP/1.0": (head(b"CONNECT a:443 HTTP/1.0", b"Host: a:443"), Refused((400, 501))),
    "asterisk with OPTIONS": (get(target=b"*", method=b"OPTIONS"), Answered(204)),
    **{f"asterisk with {method}": (get(target=b"*", method=method.encode()), REFUSED) for method in ("HEAD", "POST", "DELETE", "PUT")},
    "asterisk with OPTIONS and more": (get(target=b"*/", method=b"OPTIONS"), REFUSED),
    "asterisk with OPTIONS and a query": (get(target=b"*?a", method=b"OPTIONS"), REFUSED),
    # RFC 9112 section 3.2.4: an absolute form without path and query is the asterisk.
    "absolute form without a path with OPTIONS": (absolute(b"http://a", method=b"OPTIONS"), Answered(204)),
    "absolute form with a path with OPTIONS": (absolute(b"http://a/", method=b"OPTIONS"), NOT_FOUND),
    "absolute form with a query with OPTIONS": (absolute(b"http://a?b", method=b"OPTIONS"), NOT_FOUND),
}  # fmt: skip
