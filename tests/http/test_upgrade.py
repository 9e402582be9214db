"""When a request asks to leave HTTP, and when a response may."""

from __future__ import annotations

import pytest

from authgate_fast.errors import Reason
from authgate_fast.http.fields import classify_response
from authgate_fast.http.request import RequestHead
from authgate_fast.http.response import ResponseHead
from authgate_fast.http.upgrade import is_allowed, switch_problem, upgrade_lines

Fields = list[tuple[bytes, bytes]]
HOST = (b"Host", b"a")
CONNECTION = (b"Connection", b"Upgrade")
WEBSOCKET = (b"Upgrade", b"websocket")


def read(fields: Fields, method: bytes = b"GET", minor: int = 1) -> RequestHead:
    head = RequestHead(method, b"/", minor, [HOST, *fields])
    assert head.read({}, frozenset()) is None
    return head


ASKED: dict[str, tuple[Fields, bytes]] = {
    "plain": ([CONNECTION, WEBSOCKET], b"websocket"),
    "any_case": ([(b"CONNECTION", b"UPGRADE"), (b"upgrade", b"WebSocket")], b"WebSocket"),
    "among_options": ([(b"Connection", b"keep-alive, Upgrade"), WEBSOCKET], b"websocket"),
    "second_connection_field": ([(b"Connection", b"keep-alive"), CONNECTION, WEBSOCKET], b"websocket"),
    "white_space": ([CONNECTION, (b"Upgrade", b"websocket \t")], b"websocket"),
    "with_a_version": ([CONNECTION, (b"Upgrade", b"my-proto/2.1")], b"my-proto/2.1"),
    "empty_body": ([CONNECTION, WEBSOCKET, (b"Content-Length", b"0")], b"websocket"),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_request_asks_for_one_protocol(name: str) -> None:
    fields, protocol = ASKED[name]
    head = read(fields)
    assert head.upgrade == protocol
    assert head.close
    assert head.lines == []


NOT_ASKED: dict[str, tuple[Fields, bytes, int]] = {
    "no_upgrade": ([CONNECTION], b"GET", 1),
    "no_connection": ([WEBSOCKET], b"GET", 1),
    "connection_names_another": ([(b"Connection", b"upgrades"), WEBSOCKET], b"GET", 1),
    "two_fields": ([CONNECTION, WEBSOCKET, WEBSOCKET], b"GET", 1),
    "two_fields_one_empty": ([CONNECTION, (b"Upgrade", b""), WEBSOCKET], b"GET", 1),
    "list": ([CONNECTION, (b"Upgrade", b"websocket, my-proto")], b"GET", 1),
    "list_with_nothing": ([CONNECTION, (b"Upgrade", b"websocket,")], b"GET", 1),
    "two_words": ([CONNECTION, (b"Upgrade", b"websocket websocket")], b"GET", 1),
    "empty": ([CONNECTION, (b"Upgrade", b"")], b"GET", 1),
    "two_versions": ([CONNECTION, (b"Upgrade", b"my/1/2")], b"GET", 1),
    "no_version_behind_the_slash": ([CONNECTION, (b"Upgrade", b"my/")], b"GET", 1),
    "no_name": ([CONNECTION, (b"Upgrade", b"/1")], b"GET", 1),
    "not_ascii": ([CONNECTION, (b"Upgrade", b"websocket\xff")], b"GET", 1),
    "too_long": ([CONNECTION, (b"Upgrade", b"w" * 65)], b"GET", 1),
    "post": ([CONNECTION, WEBSOCKET], b"POST", 1),
    "head": ([CONNECTION, WEBSOCKET], b"HEAD", 1),
    "http_1_0": ([CONNECTION, WEBSOCKET], b"GET", 0),
    "body": ([CONNECTION, WEBSOCKET, (b"Content-Length", b"1")], b"GET", 1),
    "chunked": ([CONNECTION, WEBSOCKET, (b"Transfer-Encoding", b"chunked")], b"GET", 1),
    "expect": ([CONNECTION, WEBSOCKET, (b"Expect", b"100-continue")], b"GET", 1),
    "close": ([(b"Connection", b"close, upgrade"), WEBSOCKET], b"GET", 1),
    "another_name": ([CONNECTION, (b"Up-grade", b"websocket")], b"GET", 1),
}


@pytest.mark.parametrize("name", NOT_ASKED)
def test_what_is_not_exactly_that_asks_for_nothing(name: str) -> None:
    fields, method, minor = NOT_ASKED[name]
    head = read(fields, method, minor)
    assert head.upgrade == b""
    assert head.close == (minor == 0 or name == "close")
    assert not [line for line in head.lines if line.lower().startswith((b"upgrade", b"connection"))]


def test_a_host_that_is_wrong_is_still_refused() -> None:
    head = RequestHead(b"GET", b"/", 1, [CONNECTION, WEBSOCKET])
    assert head.read({}, frozenset()) is Reason.INVALID_HOST


def test_an_upgrade_that_is_ignored_closes_nothing() -> None:
    head = read([CONNECTION, WEBSOCKET])
    head.ignore_upgrade()
    assert (head.upgrade, head.close) == (b"", False)


@pytest.mark.parametrize(
    ("protocol", "allowed", "is_so"),
    [
        (b"websocket", {b"websocket"}, True),
        (b"WebSocket", {b"websocket"}, True),
        (b"websocket/13", {b"websocket"}, False),
        (b"websocket/13", {b"websocket", b"websocket/13"}, False),
        (b"websocket", set(), False),
        (b"my-proto", {b"websocket"}, False),
        (b"My-Proto/2", {b"my-proto"}, True),
        (b"my-proto/2", {b"my-proto/2"}, True),
        (b"my-proto/3", {b"my-proto/2"}, False),
        (b"my-proto", {b"my-proto/2"}, False),
        (b"h2c", {b"websocket", b"my-proto"}, False),
    ],
)
def test_a_route_allows_by_name_or_by_name_and_version(
    protocol: bytes, allowed: set[bytes], is_so: bool
) -> None:
    assert is_allowed(protocol, allowed) is is_so


def test_what_goes_on_is_written_anew() -> None:
    assert upgrade_lines(b"WebSocket") == b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    assert upgrade_lines(b"My-Proto/2") == b"Connection: upgrade\r\nUpgrade: My-Proto/2\r\n"


def response(*fields: tuple[bytes, bytes]) -> ResponseHead:
    head = ResponseHead(101, 1)
    special = [(name, value) for name, value in fields if classify_response(name)]
    block = b"\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields)
    head.read(special, block)
    return head


@pytest.mark.parametrize(
    "fields",
    [
        (WEBSOCKET, CONNECTION),
        ((b"upgrade", b"WebSocket"), (b"connection", b"keep-alive, UPGRADE")),
        (WEBSOCKET, CONNECTION, (b"Sec-WebSocket-Accept", b"x")),
    ],
)
def test_a_101_switches_to_what_was_asked_for(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    head = response(*fields)
    assert switch_problem(b"websocket", head) == ""
    assert b"pgrade" not in head.block
    assert (b"Sec-WebSocket-Accept: x\r\n" in head.block) == (len(fields) == 3)


REFUSED = {
    "nothing_asked": (b"", (WEBSOCKET, CONNECTION)),
    "no_connection": (b"websocket", (WEBSOCKET,)),
    "no_upgrade": (b"websocket", (CONNECTION,)),
    "neither": (b"websocket", ()),
    "another_protocol": (b"websocket", ((b"Upgrade", b"h2c"), CONNECTION)),
    "a_list": (b"websocket", ((b"Upgrade", b"websocket, h2c"), CONNECTION)),
    "twice": (b"websocket", (WEBSOCKET, WEBSOCKET, CONNECTION)),
    "another_version": (b"my-proto/2", ((b"Upgrade", b"my-proto/3"), CONNECTION)),
    "no_version": (b"my-proto/2", ((b"Upgrade", b"my-proto"), CONNECTION)),
    "length": (b"websocket", (WEBSOCKET, CONNECTION, (b"Content-Length", b"0"))),
    "chunked": (b"websocket", (WEBSOCKET, CONNECTION, (b"Transfer-Encoding", b"chunked"))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_101_is_an_error(name: str) -> None:
    asked, fields = REFUSED[name]
    assert switch_problem(asked, response(*fields)) != ""
