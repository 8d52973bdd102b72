"""Segments in order: any order, any overlap, wrapped numbers; what differs is offered; what is held is bounded."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.wire.stream import (
    MAX_HELD_BYTES,
    MAX_HELD_SEGMENTS,
    MAX_JUMP,
    MAX_RIVALS,
    WINDOW_BYTES,
    Stream,
)

TEXT = bytes(range(256)) * 4
STARTS = st.sampled_from([0, 1, 0x7FFFFFF0, 0x80000000, 0xFFFFFE00, 0xFFFFFFFF])


def at(start: int, offset: int) -> int:
    return (start + offset) & 0xFFFFFFFF


def run(start: int, segments: list[tuple[int, int]], text: bytes = TEXT) -> tuple[bytes, Stream]:
    stream = Stream(start)
    got = b"".join(stream.add(at(start, first), text[first:last]) for first, last in segments)
    return got, stream


@st.composite
def covering(draw: st.DrawFn, size: int = len(TEXT)) -> list[tuple[int, int]]:
    """Segments that cover the text, with overlaps and copies, in any order."""
    cuts = sorted({0, size, *draw(st.lists(st.integers(1, size - 1), max_size=20))})
    segments = [
        (max(0, first - draw(st.integers(0, 30))), min(size, last + draw(st.integers(0, 30))))
        for first, last in pairwise(cuts)
    ]
    segments += draw(st.lists(st.sampled_from(segments), max_size=5))
    return draw(st.permutations(segments))


@given(STARTS, covering())
def test_any_order_with_copies_and_overlaps_gives_the_bytes_once(start: int, segments: list[tuple[int, int]]) -> None:
    got, stream = run(start, segments)
    assert got == TEXT
    assert stream.next_seq == at(start, len(TEXT))
    assert (stream.held, stream.held_bytes, stream.rivals) == ([], 0, [])


@given(STARTS, covering(300), st.integers(0, 299))
def test_what_is_handed_on_is_always_a_beginning(start: int, segments: list[tuple[int, int]], missing: int) -> None:
    segments = [(first, last) for first, last in segments if not first <= missing < last]
    got, stream = run(start, segments)
    assert TEXT.startswith(got) and len(got) <= missing
    assert stream.held_bytes == sum(len(data) for _, data in stream.held)


def test_the_first_segment_sets_the_place_when_no_syn_was_seen() -> None:
    stream = Stream(-1)
    assert stream.add(0xFFFFFFFE, b"abcd") == b"abcd"
    assert stream.next_seq == 2
    assert stream.add(2, b"ef") == b"ef"


def rivals(stream: Stream) -> list[tuple[bytes, bytes]]:
    return [(rival.taken, rival.other) for rival in stream.rivals]


def test_a_retransmission_gives_nothing_and_a_longer_one_its_rest() -> None:
    stream = Stream(10)
    assert stream.add(10, b"hello") == b"hello"
    assert stream.add(10, b"hello") == b""
    assert stream.add(12, b"llo world") == b" world"
    assert rivals(stream) == []


def test_another_copy_of_delivered_bytes_is_kept_as_the_stream_it_would_make() -> None:
    stream = Stream(10)
    stream.add(10, b"GET /good")
    assert stream.add(15, b"evil and") == b" and"
    assert rivals(stream) == [(b"GET /good and", b"GET /evil and")]
    stream.add(23, b" more")
    assert rivals(stream) == [(b"GET /good and more", b"GET /evil and more")]
    assert stream.disagreed == 1


def test_another_copy_of_the_middle_keeps_what_is_around_it() -> None:
    stream = Stream(0)
    stream.add(0, b"GET /good and more")
    assert stream.add(5, b"evil") == b""
    assert rivals(stream) == [(b"GET /good and more", b"GET /evil and more")]


def test_copies_that_differ_before_either_was_delivered_are_both_kept() -> None:
    stream = Stream(10)
    assert stream.add(14, b"good") == b""
    assert stream.add(14, b"evil") == b""
    assert stream.add(14, b"evil") == b""
    assert stream.add(18, b"!") == b""
    assert stream.add(10, b"GET ") == b"GET good!"
    assert rivals(stream) == [(b"GET good!", b"GET evil!")]


def test_copies_that_differ_are_kept_up_to_a_bound_and_all_counted() -> None:
    stream = Stream(0)
    for number in range(40):
        stream.add(1, bytes((number,)))
    assert stream.add(0, b"-") == b"-\0"
    assert len(stream.rivals) == MAX_RIVALS
    assert stream.disagreed == 39


def test_a_copy_that_begins_before_the_window_stands_for_itself() -> None:
    stream = Stream(0)
    stream.add(0, b"a" * WINDOW_BYTES)
    stream.add(WINDOW_BYTES, b"b" * 10)
    stream.add(0, b"a" * WINDOW_BYTES + b"c" * 4)
    assert rivals(stream) == [(b"b" * 10, b"a" * WINDOW_BYTES + b"c" * 4 + b"b" * 6)]
    stream.add(0, b"z" * 10)  # older than anything that is kept: cannot be compared
    assert len(stream.rivals) == 1


@given(st.lists(st.binary(min_size=1, max_size=3 * WINDOW_BYTES), max_size=12))
def test_the_window_is_bounded_and_ends_with_the_last_bytes(parts: list[bytes]) -> None:
    stream = Stream(0)
    for part in parts:
        stream.add(stream.next_seq, part)
        assert len(stream.window) <= WINDOW_BYTES
    whole = b"".join(parts)
    assert whole.endswith(stream.window) and (stream.window or not whole)


def test_a_segment_far_away_is_astray_and_changes_nothing() -> None:
    for jump in (MAX_JUMP + 1, -MAX_JUMP - 1, 0x7FFFFFFF, -0x80000000):
        stream = Stream(5)
        stream.add(5, b"ab")
        assert stream.add(at(7, jump), b"x") == b""
        assert stream.strayed and not stream.held and stream.next_seq == 7
        assert stream.add(7, b"c") == b"c" and not stream.strayed
    stream = Stream(5)
    assert stream.add(5 + MAX_JUMP, b"x") == b"" and not stream.strayed and stream.held


def test_a_hole_is_given_up_at_the_first_held_segment() -> None:
    stream = Stream(0xFFFFFFF0)
    stream.add(0xFFFFFFF0, b"abc")
    stream.add(at(0xFFFFFFF0, 40), b"later")
    stream.add(at(0xFFFFFFF0, 20), b"first")
    stream.add(at(0xFFFFFFF0, 25), b"second")
    assert stream.skip_hole() == 17
    assert stream.drain() == [b"first", b"second"]
    assert stream.window == b"firstsecond"  # nothing of before the hole
    assert stream.skip_hole() == 9
    assert stream.drain() == [b"later"]
    assert stream.skip_hole() == 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 1 << 22), st.integers(1, 9_000)), min_size=1, max_size=200))
def test_a_caller_that_keeps_the_bound_never_holds_much_more(segments: list[tuple[int, int]]) -> None:
    stream = Stream(0)
    for seq, size in segments:
        stream.add(seq, bytes(size))
        assert stream.held_bytes <= MAX_HELD_BYTES + 9_000 and len(stream.held) <= MAX_HELD_SEGMENTS + 1
        while stream.over_bound():
            before = len(stream.held)
            stream.skip_hole()
            stream.drain()
            assert len(stream.held) < before
        assert stream.held_bytes == sum(len(data) for _, data in stream.held)


def test_the_same_copy_is_held_once() -> None:
    stream = Stream(0)
    for _ in range(1_000):
        stream.add(10, b"copy")
        stream.add(10, b"co")
    assert stream.held == [(10, b"copy")]
    assert stream.held_bytes == 4


def test_what_lies_just_before_the_beginning_is_recognised() -> None:
    stream = Stream(-1)
    assert not stream.overtaken_by(6, b"abcd")  # nothing was delivered
    stream.add(10, b"efgh")
    assert stream.overtaken_by(6, b"abcd")
    assert not stream.overtaken_by(6, b"abc")
    assert not stream.overtaken_by(10 - WINDOW_BYTES, b"x" * WINDOW_BYTES)  # would make the window too long


def test_losing_the_place_takes_the_next_segment_as_it_comes() -> None:
    stream = Stream(0)
    stream.add(0, b"abc")
    stream.lose_place()
    assert stream.add(500, b"def") == b"def"
    assert stream.next_seq == 503 and stream.window == b"def" and not stream.rivals


def test_letting_go_keeps_no_bytes() -> None:
    stream = Stream(0)
    stream.add(0, b"abc")
    stream.add(9, b"x")
    stream.add(0, b"z")
    assert stream.rivals
    stream.let_go()
    assert (stream.window, stream.held, stream.held_bytes, stream.rivals) == (b"", [], 0, [])


@given(st.lists(st.binary(min_size=1, max_size=3 * WINDOW_BYTES), max_size=12))
def test_until_there_is_an_answer_the_first_bytes_are_kept(parts: list[bytes]) -> None:
    stream = Stream(0)
    stream.keeps_first = True
    for part in parts:
        assert stream.add(stream.next_seq, part) == part
    whole = b"".join(parts)
    assert stream.window == whole[:WINDOW_BYTES]
    assert stream.window_gap == len(whole) - len(stream.window)
    stream.answered()
    assert stream.window == (whole if len(whole) <= WINDOW_BYTES else b"")
    stream.add(stream.next_seq, b"more")
    assert stream.window.endswith(b"more") and stream.window_gap == 0


@settings(max_examples=200)
@given(
    st.binary(min_size=1, max_size=300), st.integers(0, 6_000), st.lists(st.integers(0, 299), max_size=4), st.randoms()
)
def test_another_copy_in_any_segments_is_put_together(real: bytes, junk: int, cuts: list[int], order: object) -> None:
    """Whatever was sent first, in its place and behind it, and whatever comes between."""
    stream = Stream(0)
    stream.keeps_first = True
    decoy = bytes(byte ^ 0xFF for byte in real)
    stream.add(0, decoy)
    for _ in range(junk // 1_000):
        stream.add(stream.next_seq, bytes(1_000))
    edges = sorted({0, len(real), *(cut % len(real) for cut in cuts)})
    segments = [(first, real[first:last]) for first, last in pairwise(edges)]
    order.shuffle(segments)  # type: ignore[attr-defined]
    for at, segment in segments:
        assert stream.add(at, segment) == b""
        stream.add(0, decoy)
    assert any(rival.other.startswith(real) for rival in stream.rivals)
    assert len(stream.rivals) <= MAX_RIVALS
