"""Frame Streams in any pieces, and streams that are none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.logs.framestream import DATA, DNSTAP, READY, START, STOP, Frame, FrameStream, render_control

STREAM = render_control(START, DNSTAP) + b"\0\0\0\3abc" + b"\0\0\0\1d" + render_control(STOP)
FRAMES = [Frame(START, b"", (DNSTAP,)), Frame(DATA, b"abc"), Frame(DATA, b"d"), Frame(STOP, b"")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_the_same_frames_in_whatever_pieces(cuts: list[int]) -> None:
    stream = FrameStream()
    found: list[Frame] = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        found += stream.feed(STREAM[start:end])
    assert found == FRAMES
    assert stream.consumed == len(STREAM)


def test_what_is_not_whole_is_not_consumed() -> None:
    stream = FrameStream()
    assert stream.feed(STREAM[:-1]) == FRAMES[:3]
    assert stream.consumed == len(STREAM) - len(render_control(STOP))


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x10\x00\x00",
        b"\0\0\0\0\0\0\2\1",
        b"\0\0\0\0\0\0\0\3",
        b"\0\0\0\0\0\0\0\4\0\0\0\x09",
        b"\0\0\0\0\0\0\0\6\0\0\0\2\0\0",
        b"\0\0\0\0\0\0\0\x0c\0\0\0\2\0\0\0\1\0\0\0\x09",
    ],
)
def test_what_is_no_stream(data: bytes) -> None:
    with pytest.raises(Malformed):
        FrameStream().feed(data + b"\0" * 4)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    stream = FrameStream()
    try:
        for frame in stream.feed(data):
            assert frame.kind <= READY + 1
    except Malformed:
        pass
