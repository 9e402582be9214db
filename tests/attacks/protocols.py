"""What is no HTTP/1 at all, and what stands behind a refusal or an answer."""

from __future__ import annotations

from tests.attacks.cases import REFUSED, SMUGGLED, Answered, Cases, Forwarded, Refused, get, post, posted

_TLS = bytes.fromhex(
    "16030100c8010000c4030300000000000000000000000000000000000000000000000000000000000000002000"
)
_BAD = Refused((400, 501, 505))

PROTOCOLS: Cases = {
    "TLS": (_TLS, REFUSED),
    "SSLv2": (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", REFUSED),
    "PROXY v1": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(), _BAD),
    "PROXY v2": (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x01" * 12, REFUSED),
    "HTTP/2 frames": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", REFUSED),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", _BAD),
    "SMTP": (b"EHLO a\r\n", _BAD),
    "SMTP, a whole talk": (b"HELO a\r\nMAIL FROM:<a@a>\r\nRCPT TO:<a@a>\r\nDATA\r\n\r\nx\r\n.\r\n", _BAD),
    "FTP": (b"USER anonymous\r\n", _BAD),
    "POP3": (b"QUIT\r\n", _BAD),
    "IMAP": (b"a1 LOGIN a b\r\n", _BAD),
    "IRC": (b"NICK a\r\n", _BAD),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", _BAD),
    "Redis inline": (b"FLUSHALL\r\n", _BAD),
    "memcached": (b"get a\r\n", _BAD),
    "SOCKS4": (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", REFUSED),
    "SOCKS5": (b"\x05\x01\x00", REFUSED),
    "RDP": (b"\x03\x00\x00\x13\x0e\xe0\x00\x00", REFUSED),
    "SMB": (b"\x00\x00\x00\x85\xffSMB", REFUSED),
    "MQTT": (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd", REFUSED),
    "AMQP": (b"AMQP\x00\x00\x09\x01", Refused((400, 501))),
    "SIP": (b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a\r\n\r\n", REFUSED),
    "RTSP": (b"OPTIONS rtsp://a/p/a RTSP/1.0\r\nCSeq: 1\r\n\r\n", REFUSED),
    "a response": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", REFUSED),
    "JSON": (b'{"a": 1}\r\n', REFUSED),
    "XML": (b"<?xml?>\r\n", REFUSED),
    "UTF-16": ("GET /p/a HTTP/1.1\r\n".encode("utf-16"), REFUSED),
    "UTF-16 without a mark": ("GET /p/a HTTP/1.1\r\n".encode("utf-16-le"), REFUSED),
    "NULs": (b"\x00" * 100, REFUSED),
    "a high byte alone": (b"\xff", REFUSED),
    "a brace alone": (b"{", REFUSED),
    "a space alone": (b" ", REFUSED),
    "a CR and another byte": (b"GET /\rX", REFUSED),
    "a lone LF": (b"\n", REFUSED),
}  # fmt: skip

_NOTHING_BEHIND = {
    "a bad field": get(b"X : y"),
    "Host twice": get(b"Host: a"),
    "a bad length": post(b"Content-Length: x"),
    "both framings": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "an unknown method": get(method=b"BREW"),
    "an unknown version": b"GET /p/a HTTP/2.0\r\nHost: a\r\n\r\n",
    "a failed expectation": get(b"Expect: x"),
    "a body that is too large": get(b"Content-Length: 11", target=b"/small", method=b"POST"),
}

PIPELINES: Cases = {
    **{f"many requests behind {name}": (data + SMUGGLED * 20, Refused((400, 413, 417, 501, 505))) for name, data in _NOTHING_BEHIND.items()},
    "behind a 404": (get(target=b"/x"), Answered(404)),
    "behind a 404 with a body": (get(b"Content-Length: 5", target=b"/x", method=b"POST") + b"hello", Answered(404, closes=None)),
    "behind a 404 with a body that looks like a request": (get(b"Content-Length: %d" % len(SMUGGLED), target=b"/x", method=b"POST") + SMUGGLED, Answered(404, closes=None)),
    "behind a 404 with a chunked body": (get(b"Transfer-Encoding: chunked", target=b"/x", method=b"POST") + b"0\r\n\r\n", Answered(404, closes=True)),
    "behind a 404 with close": (get(b"Connection: close", target=b"/x"), Answered(404, closes=True)),
    "behind a 401": (get(target=b"/s/a"), Answered(401)),
    "behind a body": (post(b"Content-Length: 5", body=b"hello"), posted(b"hello")),
    "behind a HEAD": (get(method=b"HEAD"), Forwarded(b"HEAD /a HTTP/1.1")),
    "behind a HEAD that is refused": (get(method=b"HEAD", target=b"/x"), Answered(404)),
    "behind a HEAD that is malformed": (get(b"X : y", method=b"HEAD"), REFUSED),
}  # fmt: skip
