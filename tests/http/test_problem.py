"""The gateway's own answers: valid HTTP for a second reader, the documented members, nothing more."""

from __future__ import annotations

import json

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.errors import TABLE, Reason
from authgate_fast.http.problem import CONTINUE, STATUS_LINES, own_response, problem_response
from tests.http.second_opinion import read_response, values

DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


def make(reason: Reason, *, close: bool = False, with_body: bool = True, **more: bytes) -> bytes:
    return problem_response(
        reason,
        request_id=b"r-1",
        date_line=DATE,
        close=close,
        with_body=with_body,
        extra_lines=more.get("lines", b""),
    )


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_is_a_problem_document(reason: Reason) -> None:
    row = TABLE[reason]
    event, body = read_response(make(reason))
    assert event.status_code == row.status
    assert json.loads(body) == {
        "type": "about:blank",
        "title": row.title,
        "status": row.status,
        "code": reason.value,
        "detail": row.detail,
        "request_id": "r-1",
    }
    assert values(event, b"content-type") == [b"application/problem+json"]
    assert values(event, b"content-length") == [b"%d" % len(body)]
    assert values(event, b"cache-control") == [b"no-store"]
    assert values(event, b"x-request-id") == [b"r-1"]
    assert values(event, b"date") == [b"Sun, 06 Nov 1994 08:49:37 GMT"]
    assert values(event, b"retry-after") == ([b"%d" % row.retry_after_s] if row.retry_after_s else [])


@pytest.mark.parametrize("reason", Reason)
def test_head_gets_the_fields_without_the_body(reason: Reason) -> None:
    whole, bare = make(reason), make(reason, with_body=False)
    assert whole.startswith(bare)
    assert bare.endswith(b"\r\n\r\n")
    event, body = read_response(bare, b"HEAD")
    assert body == b""
    assert values(event, b"content-length") == [b"%d" % (len(whole) - len(bare))]


@pytest.mark.parametrize("close", [True, False])
def test_connection_close_is_said_exactly_when_it_is_meant(close: bool) -> None:
    event, _ = read_response(make(Reason.FORBIDDEN, close=close))
    assert values(event, b"connection") == ([b"close"] if close else [])
    event, _ = read_response(
        own_response(204, b"Allow: GET\r\n", request_id=b"r", date_line=DATE, close=close)
    )
    assert values(event, b"connection") == ([b"close"] if close else [])


def test_extra_lines_are_fields_of_the_answer() -> None:
    event, _ = read_response(make(Reason.METHOD_NOT_ALLOWED, lines=b"Allow: GET, HEAD\r\n"))
    assert values(event, b"allow") == [b"GET, HEAD"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_detail_stays_inside_its_json_string(detail: str) -> None:
    data = problem_response(Reason.FORBIDDEN, request_id=b"r", date_line=DATE, close=False, detail=detail)
    _, body = read_response(data)
    assert json.loads(body)["detail"] == (detail or TABLE[Reason.FORBIDDEN].detail)
    assert b"\n" not in body


def test_options_is_answered_with_allow_and_no_body() -> None:
    event, body = read_response(
        own_response(204, b"Allow: GET, HEAD, OPTIONS\r\n", request_id=b"r-1", date_line=DATE, close=False),
        b"OPTIONS",
    )
    assert event.status_code == 204
    assert body == b""
    assert values(event, b"allow") == [b"GET, HEAD, OPTIONS"]
    assert values(event, b"x-request-id") == [b"r-1"]
    assert values(event, b"date") == [b"Sun, 06 Nov 1994 08:49:37 GMT"]
    assert values(event, b"content-length") == []  # RFC 9110 section 8.6: never with 204


def test_there_is_a_status_line_for_every_code_a_backend_can_send() -> None:
    assert set(STATUS_LINES) == set(range(100, 1000))
    for status, line in STATUS_LINES.items():
        assert line.startswith(b"HTTP/1.1 %d " % status)
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == line.count(b"\n") == 1


@pytest.mark.parametrize(("status", "phrase"), [(200, b"OK"), (404, b"Not Found"), (599, b""), (999, b"")])
def test_a_status_line_has_the_registered_phrase_or_none(status: int, phrase: bytes) -> None:
    assert STATUS_LINES[status] == b"HTTP/1.1 %d %b\r\n" % (status, phrase)


def test_continue_is_an_interim_response() -> None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(
        h11.Request(method=b"POST", target=b"/", headers=[(b"host", b"h"), (b"content-length", b"1")])
    )
    connection.receive_data(CONTINUE)
    event = connection.next_event()
    assert isinstance(event, h11.InformationalResponse)
    assert event.status_code == 100
