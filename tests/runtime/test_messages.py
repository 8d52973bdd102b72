"""What travels to the core: every event as it was, nothing worse than Malformed, frames in any pieces."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.model import Attempt, Decision, Event, Match, Sighting
from egressd.runtime.messages import (
    HEAD,
    MAX_ITEMS,
    MAX_NUMBER,
    MAX_TEXT,
    UP_BATCH,
    Frames,
    Values,
    pack_event,
    pack_match,
    parse_batch,
    render_batch,
    render_frame,
    unpack_event,
    unpack_match,
)
from tests.runtime.events import ANY_JSON, EVENTS, MATCHES, places, put_at
from tests.runtime.scene import attempt, sighting, verdict

UNPACK = [
    "next", "text", "number", "count", "flag", "address", "host", "decision_id", "flow", "match", "target", "targets",
    "counts", "parts",
]  # fmt: skip


def through_json(packed: Any) -> Any:
    """As it arrives."""
    return parse_batch(json.dumps({"x": packed}).encode())["x"]


@given(EVENTS)
def test_every_event_arrives_as_it_was(event: Event) -> None:
    assert unpack_event(through_json(pack_event(event))) == event


@given(MATCHES)
def test_every_match_arrives_as_it_was(found: Match) -> None:
    assert unpack_match(through_json(pack_match(found))) == found


def test_events_keep_their_sorts() -> None:
    events: list[Event] = [sighting(), verdict(), attempt()]
    assert [type(unpack_event(pack_event(one))) for one in events] == [Sighting, Decision, Attempt]


def test_what_no_packet_process_tells_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        pack_event(object())  # type: ignore[arg-type]


@given(ANY_JSON)
def test_any_value_is_an_event_or_malformed(value: Any) -> None:
    with suppress(Malformed):
        unpack_event(value)
    with suppress(Malformed):
        unpack_match(value)


@given(EVENTS, st.data())
def test_an_event_with_anything_in_any_place_is_an_event_or_malformed(event: Event, data: st.DataObject) -> None:
    packed = pack_event(event)
    spoilt = put_at(packed, data.draw(st.sampled_from(places(packed))), data.draw(ANY_JSON))
    with suppress(Malformed):
        unpack_event(spoilt)


@given(EVENTS, st.data())
def test_an_event_cut_short_is_malformed(event: Event, data: st.DataObject) -> None:
    packed = pack_event(event)
    with pytest.raises(Malformed):
        unpack_event(packed[: data.draw(st.integers(0, len(packed) - 1))])


@pytest.mark.parametrize("method", UNPACK)
@given(value=ANY_JSON)
def test_values_take_the_type_or_are_malformed(method: str, value: Any) -> None:
    values = Values([value])
    with suppress(Malformed):
        getattr(values, method)()
    assert len(values) == 0
    with pytest.raises(Malformed):
        getattr(values, method)()


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", 1), ("text", None), ("text", "x" * (MAX_TEXT + 1)),
        ("number", True), ("number", 1.0), ("number", "1"), ("number", MAX_NUMBER), ("number", -MAX_NUMBER),
        ("flag", 1), ("flag", 0), ("flag", None),
        ("address", "0a0000"), ("address", "zz"), ("address", "0a00000500"), ("address", 5),
        ("flow", [6, "0a000005", 1, "c6336407"]), ("flow", {}), ("flow", [256, "0a000005", 1, "c6336407", 2]),
        ("flow", [6, "", 1, "", 2]), ("flow", [6, "0a000005", 65_536, "c6336407", 2]),
        ("flow", [6, "0a000005", 1, "ff" * 16, 2]), ("flow", [6, "0a000005", 1, "c6336407", -1]),
        ("host", ""), ("count", -1), ("decision_id", ""), ("decision_id", "D0"), ("decision_id", "D1\n"),
        ("decision_id", "I1"), ("decision_id", "D" + "1" * 19), ("counts", {"a": -1}),
        ("targets", "x"), ("targets", [["address"]]),
        ("counts", [["a", 1]]), ("counts", {"a": "1"}), ("counts", {"a": True}), ("counts", {"x" * (MAX_TEXT + 1): 1}),
    ],
)  # fmt: skip
def test_refused_values(method: str, value: Any) -> None:
    with pytest.raises(Malformed):
        getattr(Values([value]), method)()


@pytest.mark.parametrize(
    ("method", "value", "taken"),
    [
        ("text", "x" * MAX_TEXT, "x" * MAX_TEXT),
        ("number", MAX_NUMBER - 1, MAX_NUMBER - 1), ("number", 1 - MAX_NUMBER, 1 - MAX_NUMBER),
        ("flag", False, False),
        ("address", "", b""), ("address", "0a000005", bytes((10, 0, 0, 5))), ("address", "ff" * 16, b"\xff" * 16),
        ("counts", {"a": 1, "b": 0}, {"a": 1, "b": 0}), ("counts", {}, {}),
    ],
)  # fmt: skip
def test_taken_values(method: str, value: Any, taken: Any) -> None:
    assert getattr(Values([value]), method)() == taken


def test_lists_are_bounded() -> None:
    Values([0] * MAX_ITEMS)
    with pytest.raises(Malformed):
        Values([0] * (MAX_ITEMS + 1))
    with pytest.raises(Malformed):
        Values([{str(number): 1 for number in range(MAX_ITEMS + 1)}]).counts()


def test_unknown_words_are_malformed() -> None:
    for event, place in ((sighting(), 5), (verdict(), 3), (attempt(), 4)):
        packed = pack_event(event)
        assert isinstance(packed[place], str)
        with pytest.raises(Malformed):
            unpack_event(put_at(packed, (place,), "other"))
    with pytest.raises(Malformed):
        unpack_event(["x", *pack_event(sighting())[1:]])


def test_a_decision_about_nothing_is_malformed() -> None:
    with pytest.raises(Malformed):
        unpack_event(put_at(pack_event(verdict()), (4,), []))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_batch_or_malformed(body: bytes) -> None:
    with suppress(Malformed):
        assert isinstance(parse_batch(body), dict)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'"x"', b"null", b"{", b"{}{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_no_batches(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_batch(body)


def test_a_batch_as_a_frame() -> None:
    batch = {"n": 1, "events": [["ü", "\x00", 2**61]]}
    ((kind, body),) = Frames(1_000).feed(render_batch(batch))
    assert (kind, parse_batch(body)) == (UP_BATCH, batch)
    assert body.isascii()


# -- frames

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=30)), max_size=6)


@given(FRAMES, st.data())
def test_frames_are_the_same_in_whatever_pieces_they_come(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(render_frame(kind, body) for kind, body in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    cutter = Frames(30)
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += cutter.feed(stream[start:end])
    assert found == frames
    assert cutter.feed(b"") == []


def test_frames_byte_by_byte() -> None:
    cutter = Frames(10)
    stream = render_frame(1, b"") + render_frame(2, b"abc")
    fed = [cutter.feed(bytes((byte,))) for byte in stream]
    assert [one for one in fed if one] == [[(1, b"")], [(2, b"abc")]]
    assert fed[HEAD.size - 1] == [(1, b"")] and fed[-1] == [(2, b"abc")]


@pytest.mark.parametrize("size", [11, 1 << 20, 0xFFFFFFFF])
def test_an_over_long_frame_is_refused_before_it_has_come(size: int) -> None:
    cutter = Frames(10)
    assert cutter.feed(render_frame(1, b"x" * 10)) == [(1, b"x" * 10)]
    assert cutter.feed(HEAD.pack(size, 1)[:4]) == []
    with pytest.raises(Malformed):
        cutter.feed(HEAD.pack(size, 1)[4:])


def test_a_contact_of_history_need_not_have_connected() -> None:
    past = sighting()
    past.flow = past.flow._replace(proto=0, client_port=0, server=b"", server_port=0)
    assert unpack_event(through_json(pack_event(past))) == past
    packed = pack_event(past)
    packed[2][0] = 6  # of a conversation on the wire both ends are known
    with pytest.raises(Malformed):
        unpack_event(packed)
