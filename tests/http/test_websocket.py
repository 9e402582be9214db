"""Frame boundaries, against a second implementation that is as plain as it can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close
from websockets.protocol import CLIENT, SERVER, Protocol

from authgate_fast.http.websocket import GOING_AWAY, POLICY_VIOLATION, FrameTracker, close_frame

LENGTHS = (0, 1, 2, 125, 126, 127, 65_535, 65_536, 70_000)


def frame(opcode: int, size: int, *, masked: bool, fin: bool = True, rsv: int = 0) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 65_536:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"\x01\x02\x03\x04" if masked else b"") + b"\x88" * size


FRAMES = st.one_of(
    st.builds(
        lambda opcode, size, fin, rsv: (opcode, size, fin, rsv),
        st.sampled_from((0, 1, 2)),
        st.sampled_from(LENGTHS),
        st.booleans(),
        st.integers(0, 7),
    ),
    st.builds(
        lambda opcode, size: (opcode, size, True, 0), st.sampled_from((9, 10)), st.sampled_from((0, 2, 125))
    ),
)


@given(
    frames=st.lists(FRAMES, min_size=1, max_size=8),
    masked=st.booleans(),
    cuts=st.lists(st.integers(1, 100_000), max_size=30),
)
def test_boundaries_are_where_frames_end_however_the_stream_is_cut(
    frames: list[tuple[int, int, bool, int]], masked: bool, cuts: list[int]
) -> None:
    stream = b""
    ends = {0}
    for opcode, size, fin, rsv in frames:
        stream += frame(opcode, size, masked=masked, fin=fin, rsv=rsv)
        ends.add(len(stream))
    tracker = FrameTracker(masked=masked)
    at = 0
    for size in [*cuts, len(stream)]:
        piece = stream[at : at + size]
        assert tracker.feed(piece) == len(piece)
        at += len(piece)
        assert tracker.at_boundary == (at in ends)
        assert not tracker.broken
    assert not tracker.closed


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", LENGTHS)
def test_it_stops_behind_the_frame_that_is_under_way_and_no_later(masked: bool, size: int) -> None:
    first, second = frame(2, size, masked=masked), frame(1, 5, masked=masked)
    for begun in sorted({1, 2, 3, 6, len(first) // 2, len(first) - 1}):
        if not 0 < begun < len(first):
            continue
        tracker = FrameTracker(masked=masked)
        tracker.feed(first[:begun])
        assert not tracker.at_boundary
        rest = first[begun:] + second
        assert tracker.feed(rest, stop=True) == len(first) - begun
        assert tracker.at_boundary
        assert tracker.feed(second, stop=True) == len(second)


def test_a_frame_byte_by_byte() -> None:
    data = frame(1, 130, masked=True)
    tracker = FrameTracker(masked=True)
    for at in range(len(data)):
        assert tracker.at_boundary == (at == 0)
        tracker.feed(data[at : at + 1])
    assert tracker.at_boundary


@pytest.mark.parametrize("masked", [True, False])
def test_a_close_frame_counts_when_it_is_whole(masked: bool) -> None:
    data = frame(1, 3, masked=masked) + frame(8, 2, masked=masked)
    tracker = FrameTracker(masked=masked)
    tracker.feed(data[:-1])
    assert not tracker.closed
    tracker.feed(data[-1:])
    assert tracker.closed
    assert tracker.at_boundary
    empty = FrameTracker(masked=masked)
    empty.feed(frame(8, 0, masked=masked))
    assert empty.closed


NOT_FRAMES = {
    "masked_by_a_server": (False, frame(1, 5, masked=True)),
    "unmasked_by_a_client": (True, frame(1, 5, masked=False)),
    "reserved_opcode": (False, frame(3, 5, masked=False)),
    "reserved_control_opcode": (False, frame(0xB, 5, masked=False)),
    "long_ping": (False, frame(9, 126, masked=False)),
    "fragmented_close": (False, frame(8, 2, masked=False, fin=False)),
    "length_over_63_bits": (False, b"\x82\x7f" + b"\xff" * 8),
    "text": (True, b"GET / HTTP/1.1\r\n\r\n"),
}


@pytest.mark.parametrize("name", NOT_FRAMES)
def test_what_is_no_frame_ends_the_tracking_for_good(name: str) -> None:
    masked, data = NOT_FRAMES[name]
    tracker = FrameTracker(masked=masked)
    good = frame(1, 3, masked=masked)
    assert tracker.feed(good + data + good) == len(good + data + good)
    assert tracker.broken
    assert not tracker.at_boundary
    assert tracker.feed(good, stop=True) == len(good)
    assert tracker.broken


@given(data=st.binary(max_size=200), masked=st.booleans())
def test_rubbish_is_never_an_error_and_every_byte_is_passed(data: bytes, masked: bool) -> None:
    assert FrameTracker(masked=masked).feed(data) == len(data)
    tracker = FrameTracker(masked=masked)
    at = 0
    while at < len(data):
        moved = tracker.feed(data[at:], stop=True)
        assert moved > 0
        at += moved
    assert at == len(data)


@pytest.mark.parametrize("code", [GOING_AWAY, POLICY_VIOLATION])
@pytest.mark.parametrize("masked", [True, False])
def test_a_close_frame_is_one_that_others_read(code: int, masked: bool) -> None:
    reader = Protocol(SERVER if masked else CLIENT)
    reader.receive_data(close_frame(code, masked=masked))
    (received,) = reader.events_received()
    assert Close.parse(bytes(received.data)) == Close(code, "")
    tracker = FrameTracker(masked=masked)
    tracker.feed(close_frame(code, masked=masked))
    assert tracker.closed


def test_masks_are_not_the_same_twice() -> None:
    assert len({close_frame(1001, masked=True) for _ in range(8)}) == 8
