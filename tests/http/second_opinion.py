"""h11 as the second reader of what we emit and accept. It shares no code with the gateway."""

from __future__ import annotations

import h11


def read_request(data: bytes) -> tuple[h11.Request, bytes]:
    """Read exactly one request as a server does; return its head and body. Raises h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    body = b""
    while True:
        event_after = connection.next_event()
        if isinstance(event_after, h11.Data):
            body += event_after.data
            continue
        assert isinstance(event_after, h11.EndOfMessage), event_after
        break
    assert connection.trailing_data[0] == b"", "bytes after the end of the message"
    return event, body


def read_request_head(data: bytes) -> h11.Request:
    """Read a request head whose body has not come yet; nothing may be left over behind it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    assert connection.trailing_data[0] == b"", "bytes after the end of the head"
    return event


def read_response(data: bytes, method: bytes = b"GET") -> tuple[h11.Response, bytes]:
    """Read exactly one response to `method` as a client does; return its head and body."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Response), event
    body = b""
    while True:
        event_after = connection.next_event()
        if isinstance(event_after, h11.Data):
            body += event_after.data
            continue
        assert isinstance(event_after, h11.EndOfMessage), event_after
        break
    assert connection.trailing_data[0] == b"", "bytes after the end of the response"
    return event, body


def read_chunked(data: bytes) -> bytes | None:
    """Return the body that h11 reads from a chunked message, None if it refuses it or wants more."""
    try:
        _, body = read_request(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except h11.RemoteProtocolError:
        return None
    except AssertionError:
        return None
    return body


def values(request: h11.Request | h11.Response, name: bytes) -> list[bytes]:
    """Return all values of the field `name` (lower case)."""
    return [bytes(value) for field, value in request.headers if field == name]
