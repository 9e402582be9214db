"""Answers of backends by name: lies that broke others, and what the fuzzer found here. They also feed the mutators."""

from __future__ import annotations

from tests.fuzz.replies import OTHER, Lie

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
_LENGTH = _OK + b"Content-Length: 5\r\n\r\n"


CASES: dict[str, Lie] = {
    "length": Lie(b"GET", 1, _LENGTH + b"hello"),
    "chunks": Lie(b"GET", 1, _CHUNKED + b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n"),
    "until-close": Lie(b"GET", 1, _OK + b"\r\nhello", then="close"),
    "until-close-1.0": Lie(b"GET", 0, b"HTTP/1.0 200 OK\r\n\r\nhello", then="half"),
    "until-reset": Lie(b"GET", 1, _OK + b"\r\nhello", then="reset"),
    "until-reset-1.0": Lie(b"GET", 0, _OK + b"\r\nhello", [20], then="reset"),
    "cut-in-length": Lie(b"GET", 1, _LENGTH + b"hel", then="close"),
    "cut-in-chunk": Lie(b"GET", 1, _CHUNKED + b"5\r\nhel", then="close"),
    "cut-before-last-chunk": Lie(b"GET", 1, _CHUNKED + b"5\r\nhello\r\n", then="close"),
    "cut-before-last-chunk-1.0": Lie(b"GET", 0, _CHUNKED + b"5\r\nhello\r\n", then="close"),
    "cut-in-head": Lie(b"GET", 1, _OK + b"Content-Le", then="close"),
    "cut-in-last-line": Lie(b"GET", 1, _CHUNKED + b"5\r\nhello\r\n0\r\n", then="half"),
    "nothing": Lie(b"GET", 1, b"", then="close"),
    "two-answers": Lie(b"GET", 1, _LENGTH + b"hello" + OTHER),
    "two-answers-second-late": Lie(b"GET", 1, _LENGTH + b"hello" + OTHER, [len(_LENGTH) + 5], late=True),
    "bytes-behind-chunks": Lie(b"GET", 1, _CHUNKED + b"0\r\n\r\n" + OTHER),
    "bytes-behind-chunks-late": Lie(b"GET", 1, _CHUNKED + b"0\r\n\r\nx", [len(_CHUNKED) + 5], late=True),
    "head-with-body": Lie(b"HEAD", 1, _LENGTH + b"hello"),
    "head-with-body-late": Lie(b"HEAD", 1, _LENGTH + OTHER, [len(_LENGTH)], late=True),
    "204-with-body": Lie(b"GET", 1, b"HTTP/1.1 204 No Content\r\n\r\n" + OTHER),
    "304-with-length": Lie(b"GET", 1, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "length-twice": Lie(b"GET", 1, _OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "lengths-differ": Lie(b"GET", 1, _OK + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
    "length-and-chunked": Lie(b"GET", 1, _OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "length-plus": Lie(b"GET", 1, _OK + b"Content-Length: +5\r\n\r\nhello"),
    "coding-unknown": Lie(b"GET", 1, _OK + b"Transfer-Encoding: gzip\r\n\r\nhello", then="close"),
    "coding-list": Lie(b"GET", 1, _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "coding-in-1.0": Lie(b"GET", 1, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", then="close"),
    "chunk-lf": Lie(b"GET", 1, _CHUNKED + b"5\nhello\r\n0\r\n\r\n", then="close"),
    "chunk-end": Lie(b"GET", 1, _CHUNKED + b"5\r\nhelloXX0\r\n\r\n", then="close"),
    "chunk-size": Lie(b"GET", 1, _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", then="close"),
    "trailer-malformed": Lie(b"GET", 1, _CHUNKED + b"0\r\nX T: 1\r\n\r\n", then="close"),
    "early-hints": Lie(b"GET", 1, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _LENGTH + b"hello"),
    "continue": Lie(b"GET", 1, b"HTTP/1.1 100 Continue\r\n\r\n" + _LENGTH + b"hello"),
    "interim-flood": Lie(b"GET", 1, b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + _LENGTH + b"hello"),
    "switching": Lie(b"GET", 1, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + OTHER),
    "websocket": Lie(b"GET", 1, _SWITCH + b"Upgrade: websocket\r\n\r\n\x81\x02hi", then="close", asks=b"websocket"),
    "websocket-not-granted": Lie(b"GET", 1, _LENGTH + b"hello", asks=b"websocket"),
    "websocket-other-protocol": Lie(b"GET", 1, _SWITCH + b"Upgrade: h2c\r\n\r\n" + OTHER, then="close", asks=b"websocket"),
    "websocket-with-length": Lie(b"GET", 1, _SWITCH + b"Upgrade: websocket\r\nContent-Length: 0\r\n\r\n", then="close", asks=b"websocket"),
    "status-099": Lie(b"GET", 1, b"HTTP/1.1 099 X\r\n\r\n", then="close"),
    "status-999": Lie(b"GET", 1, b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
    "version-2": Lie(b"GET", 1, b"HTTP/2.0 200 OK\r\n\r\n", then="close"),
    "no-second-space": Lie(b"GET", 1, b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"),
    "obs-fold": Lie(b"GET", 1, _OK + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", then="close"),
    "nul-in-value": Lie(b"GET", 1, _OK + b"X-A: a\x00b\r\nContent-Length: 5\r\n\r\nhello", then="close"),
    "lf-only": Lie(b"GET", 1, b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", then="close"),
    "nominated": Lie(b"GET", 1, _OK + b"Connection: X-A, Content-Length\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello"),
    "answer-before-the-body": Lie(b"POST", 1, _LENGTH + b"hello"),
    "answer-before-the-body-and-more": Lie(b"POST", 1, _LENGTH + b"hello" + OTHER),
    # what the fuzzer found
    "interim-with-coding-before-a-switch": Lie(b"GET", 1, b"HTTP/1.1 100 X\r\nTransfer-Encoding: q\r\n\r\n" + _SWITCH + b"Upgrade: websocket\r\n\r\n", asks=b"websocket"),
    "nul-in-reason": Lie(b"HEAD", 0, b"HTTP/1.1 200 \x00\r\nr:\r\n\r\n", then="close"),
}  # fmt: skip
