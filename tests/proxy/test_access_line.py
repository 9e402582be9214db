"""One line for one answered request: JSON that any reader takes, and nothing that a client could forge."""

from __future__ import annotations

import json
import re

import pytest

from authgate_fast.proxy import line_parts
from authgate_fast.proxy.access_line import Clock, Entry, Lines, combined_line, json_line
from authgate_fast.proxy.line_parts import MAX_TEXT_BYTES, MEMO_TEXT_BYTES, MEMO_TEXTS

HOSTILE = [
    b'"',
    b"\\",
    b"a\nb",
    b"a\r\nb",
    b"\x00\x01\x1f\x7f",
    b"\xff\xfe",
    "straße 東京".encode(),
    b'","status":200,"x":"',
    b"a" * 5_000,
    b"\xc3" * 2_000,
]


def entry(**changes: object) -> Entry:
    made = Entry(b"1-1", "192.0.2.1", 200, b"complete")
    made.method = b"GET"
    made.host = b"shop.example.com"
    made.path = b"/p/1"
    made.protocol = b"HTTP/1.1"
    made.agent = b"curl/8"
    made.referrer = b"https://shop.example.com/cart?token=secret"
    made.gateway = "shop"
    made.route = "product"
    made.service = "catalog"
    made.consumer = "app"
    made.credential = "default"
    made.upstream = "http://127.0.0.1:9000"
    made.request_bytes = 120
    made.response_bytes = 300
    made.wall_s = 1_700_000_000.1239
    made.duration_s = 0.0123456
    made.upstream_s = 0.01
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_json_line_holds_every_fact_once() -> None:
    line = json_line(entry(), Clock())
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "request_id": "1-1",
        "client": "192.0.2.1",
        "gateway": "shop",
        "route": "product",
        "service": "catalog",
        "consumer": "app",
        "credential_id": "default",
        "method": "GET",
        "host": "shop.example.com",
        "path": "/p/1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "outcome": "complete",
        "code": "",
        "request_bytes": 120,
        "response_bytes": 300,
        "duration_ms": 12.346,
        "upstream": "http://127.0.0.1:9000",
        "upstream_ms": 10.0,
        "retries": 0,
        "user_agent": "curl/8",
    }


def test_without_a_backends_answer_its_time_is_null() -> None:
    assert json.loads(json_line(entry(upstream_s=-1.0), Clock()))["upstream_ms"] is None


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["path", "agent", "host", "method"])
def test_what_a_client_sent_neither_ends_a_json_line_nor_forges_a_field(name: str, text: bytes) -> None:
    line = json_line(entry(**{name: text}), Clock())
    assert line.count(b"\n") == 1
    assert all(byte >= 0x20 or byte == 0x0A for byte in line)
    read = json.loads(line)
    assert len(read) == 22
    assert read["status"] == 200
    key = {"agent": "user_agent"}.get(name, name)
    assert read[key] == text[:MAX_TEXT_BYTES].decode("utf-8", "replace")


def test_remembered_texts_are_bounded_and_stay_right() -> None:
    for number in range(3 * MEMO_TEXTS):
        made = entry(agent=b"agent/%d" % number, consumer=f"consumer-{number}")
        for _ in range(2):
            read = json.loads(json_line(made, Clock()))
            assert (read["user_agent"], read["consumer"]) == (f"agent/{number}", f"consumer-{number}")
    assert 0 < len(line_parts._texts) <= MEMO_TEXTS
    assert 0 < len(line_parts._names) <= MEMO_TEXTS


def test_neither_a_path_nor_a_long_text_is_remembered() -> None:
    made = entry(path=b"/reset/one-time-token", agent=b"b" * (MEMO_TEXT_BYTES + 1))
    assert json.loads(json_line(made, Clock()))["path"] == "/reset/one-time-token"
    assert made.path not in line_parts._texts
    assert made.agent not in line_parts._texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.000"),
        (0.0000004, "0.000"),
        (0.0000006, "0.001"),
        (0.9999996, "1000.000"),
        (61.002003, "61002.003"),
    ],
)
def test_a_duration_is_in_milliseconds_to_the_microsecond(seconds: float, text: str) -> None:
    assert f'"duration_ms":{text},'.encode() in json_line(entry(duration_s=seconds), Clock())


def test_names_of_callers_may_hold_anything() -> None:
    read = json.loads(json_line(entry(consumer='a"b\n', credential="ключ"), Clock()))
    assert (read["consumer"], read["credential_id"]) == ('a"b\n', "ключ")


def test_a_combined_line_is_what_log_tools_read() -> None:
    assert combined_line(entry(), Clock()) == (
        b'192.0.2.1 - app [14/Nov/2023:22:13:20 +0000] "GET /p/1 HTTP/1.1" 200 300 '
        b'"https://shop.example.com/cart" "curl/8"\n'
    )


def test_a_combined_line_says_what_is_missing() -> None:
    bare = Entry(b"1-1", "192.0.2.1", 400, b"refused")
    assert (
        combined_line(bare, Clock()) == b'192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] "- - -" 400 0 "-" "-"\n'
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["path", "agent", "referrer", "method"])
def test_what_a_client_sent_neither_ends_a_combined_line_nor_a_quoted_part(name: str, text: bytes) -> None:
    line = combined_line(entry(**{name: text}), Clock())
    shape = rb'[^ ]+ - [^ ]+ \[[^]]+\] "[^"]*" [0-9]+ [0-9]+ "[^"]*" "[^"]*"\n'
    assert re.fullmatch(shape, line) is not None
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in line)


def test_the_second_is_written_anew_when_it_changes() -> None:
    clock = Clock()
    assert clock.json_start(1_700_000_000.9994) == b'{"time":"2023-11-14T22:13:20.999Z","request_id":"'
    assert clock.json_start(1_700_000_001.0) == b'{"time":"2023-11-14T22:13:21.000Z","request_id":"'
    assert clock.combined(1_700_000_002.5) == b"14/Nov/2023:22:13:22 +0000"


def test_a_batch_is_announced_with_its_first_line_and_full_by_its_bytes() -> None:
    told: list[str] = []
    lines = Lines(json_line, 100, lambda: told.append("first"), lambda: told.append("full"))
    for size in (60, 39):
        lines.add(b"x" * size)
    assert told == ["first"]
    lines.add(b"x")
    assert told == ["first", "full"]
    assert [len(line) for line in lines.take()] == [60, 39, 1]
    lines.add(b"x" * 100)
    assert told == ["first", "full"] * 2, "what was taken counts no more"


def test_within_a_millisecond_the_time_is_the_same_text() -> None:
    clock = Clock()
    first = clock.json_start(1_700_000_000.5001)
    assert clock.json_start(1_700_000_000.5008) is first
    assert clock.json_start(1_700_000_000.5011) == b'{"time":"2023-11-14T22:13:20.501Z","request_id":"'
    assert clock.json_start(1_700_000_000.4999) == b'{"time":"2023-11-14T22:13:20.499Z","request_id":"', (
        "a clock may be set back"
    )
