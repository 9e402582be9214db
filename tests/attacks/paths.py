"""Ways around a check by the path: each must be refused, be another route's, or ask for the key (DESIGN section 4)."""

from __future__ import annotations

from tests.attacks.cases import (
    INVALID_PATH,
    KEY,
    NO_KEY,
    NOT_FOUND,
    REFUSED,
    Answered,
    Cases,
    Forwarded,
    get,
    head,
    show,
)

# What two servers may read differently, as a part of a path.
_AMBIGUOUS = [
    b"/..", b"/.", b"/../", b"/./", b"/%2e", b"/%2e%2e", b"/.%2e", b"/%2e.", b"/%2E%2E/", b"/..;", b"/..;/", b"/.;/", b"/..;a=b/", b"/%2e%2e;/", b"/..%3b/", b"/..%2f", b"/..%5c",
    b"/..\\", b"/%252e%252e", b"/%252e%252e/", b"/%25252e%25252e/", b"/%2525252e", b"/..%252f", b"/%c0%ae%c0%ae/", b"/%c0%ae", b"/%e0%80%ae/", b"/%f0%80%80%ae/", b"/..%c0%af",
    b"/%u002e%u002e/", b"/%uff0e%uff0e/", b"//", b"///", b"/%2f", b"/%2F", b"%2f", b"%5c", b"%5C", b"\\", b"/\\", b"%252f", b"%252F", b"%255c", b"%25252f", b"%c0%af",
    b"%e0%80%af", b"%f0%80%80%af", b"%c1%9c", b"%c0%2f", b"%u002f", b"%u2215", b"%uff0f", b"%00", b"%2500", b"%2561", b"%25%37%33", b"%252573", b"%0d%0a", b"%0a", b"%0d", b"%09", b"%0b", b"%1f", b"%7f", b"%250a",
    b";", b";/", b";a=b", b";jsessionid=1", b"%3b", b"%3B", b"%253b", b"#", b"#a", b"%", b"%2", b"%zz", b"%%", b"%%32%65", b"%ff", b"%80", b"%c3", b"%ed%a0%80", b"%fe", b"%fc%80%80%80%80%af",
    b"<", b">", b"\"", b"^", b"`", b"{", b"}", b"/..%00/", b"/%20/..", b"/%ef%bc%8f/..", b"/.%00./", b"/a/..%2f", b"/a/%2e%2e/",
]  # fmt: skip
# With more letters behind them these are names.
_ENDS_IN_DOTS = (
    b"/..", b"/.", b"/%2e", b"/%2e%2e", b"/.%2e", b"/%2e.", b"/%20/..", b"/%ef%bc%8f/..",
)  # fmt: skip
# Other names to a strict reader, and the same to a lax one: they are not the SECURE route's.
_SIMILAR = [
    b"/Admin", b"/ADMIN", b"/aDMIN", b"/admin.", b"/admin%20", b"/admin%2b", b"/admin+", b"/admin~", b"/admin.json", b"/admin.html", b"/admin,", b"/admin:", b"/admin%3f", b"/admin%23", b"/admin%26",
    b"/admin%ef%bc%8f", b"/%ef%bd%81dmin", b"/admin%e2%80%8b", b"/admin%c2%a0", b"/admin%e2%81%84", b"/adm%c4%b1n", b"/admin'", b"/admin*", b"/admin$", b"/admin@", b"/admin!", b"/admin|", b"/%25xadmin",
]  # fmt: skip
_OPEN = b"open.test"

PATHS: Cases = {
    **{f"/p{show(text)}": (get(target=b"/p" + text), REFUSED if text == b"\x00" else INVALID_PATH) for text in _AMBIGUOUS},
    **{f"/p/a{show(text)}s/a": (get(target=b"/p/a" + text + b"s/a"), INVALID_PATH) for text in _AMBIGUOUS if text not in _ENDS_IN_DOTS},
    **{f"/s{show(text)} with a key": (get(KEY, target=b"/s" + text), INVALID_PATH) for text in _AMBIGUOUS},
    **{f"beside a catch-all, /admin{show(text)}": (get(target=b"/admin" + text, host=_OPEN), INVALID_PATH) for text in _AMBIGUOUS},
    **{f"beside a catch-all, /x{show(text)}/admin": (get(target=b"/x" + text + b"/admin", host=_OPEN), INVALID_PATH) for text in _AMBIGUOUS},
    **{f"beside a catch-all, an absolute form of /x{show(text)}/admin": (head(b"GET http://open.test/x" + text + b"/admin HTTP/1.1", b"Host: open.test"), INVALID_PATH) for text in _AMBIGUOUS},
    **{f"beside a catch-all, {show(path)} is another path": (get(target=path, host=_OPEN), Forwarded(b"GET " + path + b" HTTP/1.1")) for path in _SIMILAR},
    **{f"beside a catch-all, {show(path)} asks for the key": (get(target=path, host=_OPEN), NO_KEY) for path in (
        b"/admin", b"/admin?", b"/admin?a=b", b"/admin?/../p", b"/admin?;", b"/admin/", b"/admin/x", b"/admin/x/", b"/%61dmin", b"/%61%64%6d%69%6e", b"/adm%69n", b"/admi%6e", b"/%61dmin/", b"/%61dmin/%78",
        b"/admin/.x", b"/admin/..x", b"/admin/x..", b"/admin/%20", b"/api/users/1", b"/api/users/%31", b"/%61pi/users/1", b"/api/%75sers/1", b"/api/users/a.b", b"/api/users/%20",
    )},
    **{f"beside a catch-all, an absolute form of {show(path)} asks for the key": (head(b"GET http://open.test" + path + b" HTTP/1.1", b"Host: open.test"), NO_KEY)
       for path in (b"/admin", b"/%61dmin", b"/admin?x", b"/admin/x")},
    **{f"beside a catch-all, {method} /admin asks for the key": (get(target=b"/admin", method=method.encode(), host=_OPEN), NO_KEY) for method in ("HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PROPFIND")},
    **{f"{show(path)} is nobody's": (get(target=path), NOT_FOUND) for path in (b"/", b"/P/a", b"/S/a", b"/pp/a", b"/p%20/a", b"/P/../s", b"/p.", b"/%50/a", b"/index", b"/small/", b"/Small", b"/smal%6c/") if b".." not in path},
    **{f"{show(path)} is the SECURE route": (get(target=path), NO_KEY) for path in (b"/s", b"/s/", b"/s/a", b"/%73/a", b"/s/a?b", b"/s/a/b/c", b"/s?/p/a")},
    **{f"{name} does not move a request to another route": (get(name.encode() + b": " + value, target=b"/s/a"), NO_KEY)
       for name in ("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Override-URL", "X-Envoy-Original-Path", "X-Forwarded-Path", "X-HTTP-Path", "Referer", "Destination")
       for value in (b"/p/a",)},
    "a path that is long and deep": (get(target=b"/p" + b"/x" * 1_000), Forwarded(b"GET " + b"/x" * 1_000 + b" HTTP/1.1")),
    "a SECURE path in the query of a PUBLIC one": (get(target=b"/p/a?/../../s/a"), Forwarded(b"GET /a?/../../s/a HTTP/1.1")),
    "an encoded question mark is a part of the path": (get(target=b"/p/a%3fb"), Forwarded(b"GET /a%3fb HTTP/1.1")),
    "an encoded space stays encoded": (get(target=b"/p/a%20b"), Forwarded(b"GET /a%20b HTTP/1.1")),
    "an encoded letter stays as it was sent": (get(target=b"/p/%61"), Forwarded(b"GET /%61 HTTP/1.1")),
    "UTF-8, encoded": (get(target=b"/p/%c3%a4"), Forwarded(b"GET /%c3%a4 HTTP/1.1")),
    "an encoded percent sign": (get(target=b"/p/100%25"), Forwarded(b"GET /100%25 HTTP/1.1")),
    "a percent sign, encoded twice": (get(target=b"/p/100%2525"), Forwarded(b"GET /100%2525 HTTP/1.1")),
    "a percent sign, encoded without end": (get(target=b"/p/100%" + b"25" * 9), INVALID_PATH),
    **{f"beside a catch-all, {show(path)} is no way to the SECURE route": (get(target=path, host=_OPEN), INVALID_PATH)
       for path in (b"/%2561dmin", b"/%25%36%31dmin", b"/%252561dmin", b"/adm%2569n", b"/admin%252f", b"/api/%2575sers/1", b"/%2541dmin")},
    "an overlong slash, encoded twice": (get(target=b"/p/a%25c0%25afb"), INVALID_PATH),
    "a byte that is no UTF-8, encoded twice": (get(target=b"/p/a%25ff"), INVALID_PATH),
    "dots inside a segment": (get(target=b"/p/..a/b../.c/..."), Forwarded(b"GET /..a/b../.c/... HTTP/1.1")),
    "a body that is refused by its path is stepped over": (get(b"Content-Length: 5", target=b"/p/..", method=b"POST") + b"hello", Answered(400, closes=None)),
    "a chunked body that is refused by its path closes": (get(b"Transfer-Encoding: chunked", target=b"/p/..", method=b"POST") + b"0\r\n\r\n", Answered(400, closes=True)),
}  # fmt: skip
