"""Cases: interim answers, answers without a body, and the many ways in which one can break off."""

from __future__ import annotations

from tests.attacks.responses_case import CHUNKED, CUT, OK, REFUSED, STOLEN, TOO_LATE, TWO, Case, fields, good

_103 = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
_100 = b"HTTP/1.1 100 Continue\r\n\r\n"

INTERIM = [
    good("interim: 100 that nobody asked for", _100 + TWO),
    good("interim: 103", _103 + TWO, interim=(103,), has=(b"Link: </a>",)),
    good("interim: 100, 102, 103 and 199", _100 + b"HTTP/1.1 102 P\r\n\r\n" + _103 + b"HTTP/1.1 199 X\r\n\r\n" + TWO, interim=(102, 103, 199)),
    good("interim: 103 in a read of its own", (_103, TWO), interim=(103,)),
    good("interim: 103 of HTTP/1.0", _103.replace(b"1.1", b"1.0") + TWO, interim=(103,)),
    good("interim: 103 that says close", b"HTTP/1.1 103 X\r\nConnection: close\r\n\r\n" + TWO, interim=(103,)),
    good("interim: 103 with a length and no body", b"HTTP/1.1 103 X\r\nContent-Length: 9\r\n\r\n" + TWO, interim=(103,), lacks=(b"Content-Length: 9",)),
    good("interim: 103 with hop-by-hop fields", b"HTTP/1.1 103 X\r\nConnection: x-a\r\nX-A: 1\r\nTrailer: x\r\n\r\n" + TWO, interim=(103,), lacks=(b"X-A", b"Trailer")),
    good("interim: sixteen", _103 * 16 + TWO, interim=(103,) * 16),
    good("interim: sixteen, swallowed", _100 * 16 + TWO),
    Case("interim: seventeen", _103 * 17 + TWO),
    Case("interim: seventeen, swallowed", _100 * 17 + TWO),
    Case("interim: without an end", _100 * 500),
    Case("interim: 100 with a body", b"HTTP/1.1 100 X\r\nContent-Length: 4\r\n\r\nbody" + TWO),
    Case("interim: 103 with a body", b"HTTP/1.1 103 X\r\nContent-Length: 4\r\n\r\nbody" + TWO),
    Case("interim: 103 with a chunked body", b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + TWO),
    Case("interim: 103 with a coding on HTTP/1.0", b"HTTP/1.0 103 X\r\nTransfer-Encoding: chunked\r\n\r\n" + TWO),
    Case("interim: 103 with two lengths", b"HTTP/1.1 103 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + TWO),
    Case("interim: 103 with a NUL", b"HTTP/1.1 103 X\r\nX: \x00\r\n\r\n" + TWO),
    Case("interim: 103 with a fold", b"HTTP/1.1 103 X\r\nX: 1\r\n 2\r\n\r\n" + TWO),
    Case("interim: 103 over 32 KiB", b"HTTP/1.1 103 X\r\nX: " + b"a" * 33_000 + b"\r\n\r\n" + TWO),
    Case("interim: 103 in bare LF", b"HTTP/1.1 103 X\n\n" + TWO),
    Case("interim: then nothing but the end", _103, then="close"),
    Case("interim: then a reset", _103, then="reset"),
    Case("interim: 100, then nothing but the end", _100, then="close"),
    Case("interim: then silence", _103, TOO_LATE, hasty=True),
    Case("interim: then no HTTP", _103 + b"hello\r\n\r\n"),
    Case("interim: code 099", b"HTTP/1.1 099 X\r\n\r\n" + TWO),
    Case("interim: 101 that nobody asked for", b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + STOLEN, lacks=(b"X-Stolen",)),
    Case("interim: 101 without Upgrade", b"HTTP/1.1 101 X\r\n\r\n" + STOLEN, lacks=(b"X-Stolen",)),
    Case("interim: 101 with a length", b"HTTP/1.1 101 X\r\nContent-Length: 0\r\n\r\n" + TWO),
    Case("interim: 101 behind a 103", _103 + b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"),
]  # fmt: skip

WITHOUT_BODY = [
    good("no body: HEAD", b"HTTP/1.1 200 OK\r\n\r\n", b"", method=b"HEAD", reused=False),
    good("no body: HEAD with a body until the end", (b"HTTP/1.1 200 OK\r\n\r\n", STOLEN), b"", method=b"HEAD", reused=False, lacks=(b"X-Stolen",)),
    good("no body: HEAD with length zero", fields(b"Content-Length: 0", body=b""), b"", method=b"HEAD"),
    good("no body: HEAD with a length", fields(b"Content-Length: 9", body=b""), b"", method=b"HEAD", reused=False, has=(b"Content-Length: 9",)),
    good("no body: HEAD with a coding", CHUNKED, b"", method=b"HEAD", reused=False),
    good("no body: HEAD with a body", TWO, b"", method=b"HEAD", reused=False),
    good("no body: HEAD with chunks", CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"", method=b"HEAD", reused=False),
    good("no body: HEAD with another answer", fields(b"Content-Length: 0", body=b"") + STOLEN, b"", method=b"HEAD", reused=False, lacks=(b"X-Stolen",)),
    good("no body: HEAD with a body that is an answer", OK + b"Content-Length: %d\r\n\r\n" % len(STOLEN) + STOLEN, b"", method=b"HEAD", reused=False, lacks=(b"X-Stolen",)),
    good("no body: HEAD with a body in another read", (OK + b"Content-Length: %d\r\n\r\n" % len(STOLEN), STOLEN), b"", method=b"HEAD", reused=False, lacks=(b"X-Stolen",)),
    Case("no body: HEAD with length and coding", fields(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b""), method=b"HEAD"),
    good("no body: 204", b"HTTP/1.1 204 X\r\n\r\n", b"", status=204),
    good("no body: 204 with length zero", b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", b"", status=204, lacks=(b"Content-Length",)),
    good("no body: 204 with a length", b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", b"", status=204, reused=False, lacks=(b"Content-Length",)),
    good("no body: 204 with a body", b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello", b"", status=204, reused=False, lacks=(b"hello",)),
    good("no body: 204 with a body and no length", b"HTTP/1.1 204 X\r\n\r\nhello", b"", status=204, reused=False, lacks=(b"hello",)),
    good("no body: 204 with chunks", b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"", status=204, reused=False, lacks=(b"Transfer",)),
    good("no body: 204 with another answer", b"HTTP/1.1 204 X\r\n\r\n" + STOLEN, b"", status=204, reused=False, lacks=(b"X-Stolen",)),
    good("no body: 304", b"HTTP/1.1 304 X\r\nETag: \"e\"\r\n\r\n", b"", status=304),
    good("no body: 304 with a length", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", b"", status=304, reused=False, has=(b"Content-Length: 5",)),
    good("no body: 304 with a body", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nhello", b"", status=304, reused=False, lacks=(b"hello",)),
    good("no body: 304 with chunks", b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"", status=304, reused=False),
    good("no body: 304 with another answer", b"HTTP/1.1 304 X\r\n\r\n" + STOLEN, b"", status=304, reused=False, lacks=(b"X-Stolen",)),
    good("no body: 304 with a coding", b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"", status=304, reused=False, lacks=(b"Transfer",)),
    good("no body: 204 with a coding", b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"", status=204, reused=False, lacks=(b"Transfer",)),
    good("no body: 205 with length zero", b"HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n", b"", status=205),
    good("no body: 205 with no chunks", b"HTTP/1.1 205 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", status=205),
    good("no body: 205 with a body is framed like any", b"HTTP/1.1 205 X\r\nContent-Length: 2\r\n\r\nok", status=205),
    good("no body: HEAD of HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n", b"", method=b"HEAD", reused=False),
]  # fmt: skip


def _ends(name: str, sends: bytes | tuple[bytes, ...], sees: str, **more: object) -> list[Case]:
    return [
        Case(f"{name}, then {then}", sends, sees, then=then, **more)  # type: ignore[arg-type]
        for then in ("close", "reset", "half_close")
    ]


UNTIL_THE_END = [
    good("until the end: HTTP/1.1", OK + b"\r\nok", then="close", reused=False),
    good("until the end: HTTP/1.1, half a close", OK + b"\r\nok", then="half_close", reused=False),
    good("until the end: keep-alive and no length", OK + b"Connection: keep-alive\r\n\r\nok", then="close", reused=False),
    good("until the end: nothing", OK + b"\r\n", b"", then="close", reused=False),
    good("until the end: HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nok", then="close", reused=False),
    good("until the end: an answer as a body", OK + b"\r\n" + STOLEN, STOLEN, then="close", reused=False),
    good("until the end: in pieces", (OK + b"\r\n", b"o", b"k"), then="close", reused=False),
    good("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", then="close", reused=False),
    good("HTTP/1.0 with keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", reused=False),
    Case("until the end: a reset", OK + b"\r\nok", CUT, then="reset"),
    Case("until the end: a reset of HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nok", CUT, then="reset"),
    Case("until the end: silence", OK + b"\r\nok", CUT, hasty=True),
]  # fmt: skip

BROKEN = [
    *_ends("nothing", b"", REFUSED),
    *_ends("one byte", b"H", REFUSED),
    *_ends("half a status line", b"HTTP/1.1 20", REFUSED),
    *_ends("a status line", OK, REFUSED),
    *_ends("half a head", OK + b"Content-Length: 2\r\n", REFUSED),
    *_ends("a head but for its last byte", OK + b"Content-Length: 2\r\n\r", REFUSED),
    *_ends("a head", OK + b"Content-Length: 2\r\n\r\n", CUT),
    *_ends("half a body", OK + b"Content-Length: 2\r\n\r\no", CUT),
    *_ends("half a body in two reads", (OK + b"Content-Length: 4\r\n\r\n", b"ok"), CUT),
    *_ends("half a chunk", CHUNKED + b"5\r\nok", CUT),
    *_ends("a chunked head", CHUNKED, CUT),
    good("a whole answer, then a close", TWO, then="close", reused=False),
    good("a whole answer, then half a close", TWO, then="half_close", reused=False),
    Case("silence", b"", TOO_LATE, hasty=True),
    Case("silence in a status line", b"HTTP/1.1", TOO_LATE, hasty=True),
    Case("silence in a head", OK + b"Content-Length: 2\r\n", TOO_LATE, hasty=True),
    Case("silence in a body", OK + b"Content-Length: 9\r\n\r\nok", CUT, hasty=True),
    Case("silence in a chunk", CHUNKED + b"9\r\nok", CUT, hasty=True),
    Case("a head that drips", OK + b"X-A: ", TOO_LATE, then="drip", hasty=True),
    Case("a head that drips in an interim answer", b"HTTP/1.1 103 X\r\nX-A: ", TOO_LATE, then="drip", hasty=True),
    Case("a reason that drips", b"HTTP/1.1 200 ", TOO_LATE, then="drip", hasty=True),
]  # fmt: skip

CASES = [*INTERIM, *WITHOUT_BODY, *UNTIL_THE_END, *BROKEN]
