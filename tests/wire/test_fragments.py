"""The fragment table: order does not matter, overlaps are judged, bounds hold."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.wire.fragments import (
    MAX_BYTES,
    MAX_DATAGRAMS,
    MAX_PIECES,
    MAX_READ_BYTES,
    MAX_READ_DATAGRAMS,
    MAX_READINGS,
    MAX_SOURCE_BYTES,
    MAX_SOURCE_DATAGRAMS,
    TIMEOUT_US,
    Fragments,
)
from egressd.wire.patchwork import PIECE_OVERHEAD

SOURCE = b"\x0a\0\0\x01"
KEY = SOURCE + b"\xcb\0\x71\x09\0\x07\x11"
WHOLE = bytes(range(256)) * 2 + b"tail"  # 516 bytes: the last fragment is no multiple of eight


def add(table: Fragments, start: int, body: bytes, more: bool, ts_us: int = 0) -> bytes | None:
    return table.add(KEY, SOURCE, 17, start, more, body, ts_us)


def check_books(table: Fragments) -> None:
    """The invariants of the module's docstring."""
    datagrams = list(table._table.items())
    assert table.held_bytes == sum(datagram.size for _, datagram in datagrams)
    assert {key for source in table._sources.values() for key in source.keys} == {key for key, _ in datagrams}
    for name, source in table._sources.items():
        own = [datagram for _, datagram in datagrams if datagram.source == name]
        assert len(source.keys) == len(own) and source.size == sum(datagram.size for datagram in own)
    for _, datagram in datagrams:
        readings = [datagram.first, *([datagram.rival] if datagram.rival is not None else [])]
        assert datagram.size == sum(reading.cost for reading in readings)
        for reading in readings:
            assert reading.have == sum(map(len, reading.pieces))
            ends = [start + len(piece) for start, piece in zip(reading.starts, reading.pieces, strict=True)]
            assert all(end <= start for end, start in zip(ends, reading.starts[1:], strict=False))


@given(st.integers(1, 30), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_any_order_with_duplicates(units: int, shuffle: random.Random) -> None:
    size = units * 8
    pieces = [(at, WHOLE[at : at + size], at + size < len(WHOLE)) for at in range(0, len(WHOLE), size)]
    again = shuffle.sample(pieces, len(pieces) // 2)
    order = pieces + again
    shuffle.shuffle(order)
    table = Fragments({})
    results = [add(table, *piece) for piece in order]
    done = [result for result in results if result is not None]
    assert done and set(done) == {WHOLE}
    assert "overlap_conflict" not in table.counts
    check_books(table)


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(1, 64)), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_agreeing_overlaps(extra: list[tuple[int, int]], shuffle: random.Random) -> None:
    """Whatever overlapping fragments of one datagram come, in whatever order, the result is that datagram."""
    spans = [(at * 8, min((at + size) * 8, len(WHOLE))) for at, size in extra]
    spans += [(0, 200), (200, 400), (400, len(WHOLE))]
    shuffle.shuffle(spans)
    table = Fragments({})
    done = []
    for start, stop in spans:
        if start < stop:
            done.append(add(table, start, WHOLE[start:stop], stop < len(WHOLE)))
            check_books(table)
    assert {result for result in done if result is not None} == {WHOLE}
    assert table.counts == {}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.binary(min_size=1, max_size=64), st.booleans()), max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_first_wins(fragments: list[tuple[int, bytes, bool]]) -> None:
    """Against a model that paints bytes one by one, for any fragments at all."""
    table = Fragments({})
    painted: dict[int, int] = {}
    for unit, body, more in fragments:
        refused = table.counts.get("fragment_refused", 0)
        result = add(table, unit * 8, body, more)
        check_books(table)
        if table.counts.get("fragment_refused", 0) > refused:
            continue
        for at, byte in enumerate(body, unit * 8):
            painted.setdefault(at, byte)
        if result is not None:
            assert result == bytes(painted[at] for at in range(len(painted)))
            painted = {}


def test_conflict_in_ipv4_first_wins_and_counts() -> None:
    table = Fragments({})
    add(table, 8, b"B" * 16, True)
    add(table, 0, b"a" * 16, True)
    assert table.counts == {"overlap_conflict": 1}
    assert add(table, 24, b"end", False) == b"a" * 8 + b"B" * 16 + b"end"


def read(table: Fragments, *fragments: tuple[int, bytes, bool]) -> list[bytes]:
    """All readings of what these fragments make."""
    readings = []
    for fragment in fragments:
        readings += [whole for whole in (add(table, *fragment), table.rival) if whole]
        check_books(table)
    return readings


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_fragments_that_disagree_are_read_both_ways(order: tuple[int, ...]) -> None:
    """Whatever comes first: a harmless fragment, the one that arrives, or what they share."""
    fragments = ((0, b"harmless", True), (0, b"listed! ", True), (8, b".example", False))
    wholes = {b"harmless.example", b"listed! .example"}
    assert set(read(Fragments({}), *(fragments[at] for at in order))) == wholes


def test_the_other_reading_goes_on_when_the_first_is_whole() -> None:
    table = Fragments({})
    decoy = [(0, b"harmless", True), (8, b".example", False)]
    real = [(0, b"listed! ", True), (8, b".at.last.example", False)]
    assert read(table, decoy[0], real[0], decoy[1], real[1]) == [
        b"harmless.example",
        b"listed! .example",
        b"listed! .at.last.example",
    ]
    assert table.counts == {"overlap_conflict": 1}
    assert read(table, *real) == [b"listed! .at.last.example"]  # sent again: as a datagram of its own


def test_ends_that_disagree_are_read_both_ways() -> None:
    for decoy, more in ((b"x", False), (b"12345678" * 4, False), (b"12345678" * 4, True)):
        real = [(0, b"listed! ", True), (8, b".at.last.example", False)]
        assert b"listed! .at.last.example" in read(Fragments({}), (8, decoy, more), *real)
        assert b"listed! .at.last.example" in read(Fragments({}), (8, decoy, more), *reversed(real))
        assert b"listed! .at.last.example" in read(Fragments({}), real[0], (8, decoy, more), real[1])


@given(st.lists(st.tuples(st.integers(0, 6), st.binary(min_size=8, max_size=40), st.booleans()), max_size=30))
@settings(max_examples=200, deadline=None)
def test_what_came_last_is_read_too(fragments: list[tuple[int, bytes, bool]]) -> None:
    """Against a model that paints over what is there, once there is a rival."""
    table = Fragments({})
    sent = [(unit * 8, body[: len(body) & ~7] if more else body, more) for unit, body, more in fragments]
    painted: dict[int, int] = {}
    for start, body, more in sent:
        end = start + len(body)
        painted = {at: byte for at, byte in painted.items() if more or at < end}
        painted.update(enumerate(body, start))
        add(table, start, body, more)
        check_books(table)
        if table.rival:
            assert table.rival == bytes(painted[at] for at in range(len(painted)))


def test_what_was_read_is_kept_within_bounds() -> None:
    table = Fragments({})
    for number in range(1_000):
        table.add(number.to_bytes(4, "big"), SOURCE, 17, 0, True, bytes(8 * (number % 900 + 1)), number)
        assert table.add(number.to_bytes(4, "big"), SOURCE, 17, 8 * (number % 900 + 1), False, b"end", number)
        assert len(table._read) <= MAX_READ_DATAGRAMS
        assert sum(len(whole) for whole, _, _ in table._read.values()) == table._read_bytes <= MAX_READ_BYTES
    assert len(table) == 0


def test_another_copy_long_after_is_another_datagram() -> None:
    table = Fragments({})
    assert read(table, (0, b"harmless", True), (8, b".example", False)) == [b"harmless.example"]
    assert add(table, 0, b"listed! ", True, ts_us=TIMEOUT_US + 1) is None
    assert table.rival == b""


def test_readings_are_bounded() -> None:
    table = Fragments({})
    add(table, 8, b"end", False)
    readings = [read(table, (0, b"%8d" % number, True)) for number in range(50)]
    assert sum(map(len, readings)) <= 50 + MAX_READINGS
    assert [len(one) for one in readings[MAX_READINGS + 1 :]] == [0] * (49 - MAX_READINGS)
    for at in range(0, 16 * (MAX_PIECES + 50), 16):
        read(table, (at, bytes(8), True), (at, b"x" * 8, True))
    assert table.held_bytes == 0


@pytest.mark.parametrize(
    ("start", "body", "more"),
    [(0, b"", True), (0, b"1234567", True), (65528, b"12345678", True), (65528, b"12345678", False)],
)
def test_refused(start: int, body: bytes, more: bool) -> None:
    table = Fragments({})
    assert add(table, start, body, more) is None
    assert table.counts == {"fragment_refused": 1}
    assert len(table) == 0


def test_second_end_is_refused() -> None:
    table = Fragments({})
    add(table, 16, b"end", False)
    add(table, 8, b"other end", False)
    add(table, 16, b"beyond the end!!", True)
    assert table.counts == {"fragment_refused": 2}
    assert add(table, 0, b"x" * 16, True) == b"x" * 16 + b"end"


def test_greatest_datagram() -> None:
    table = Fragments({})
    body = bytes(1480)
    for at in range(0, 65120, 1480):
        assert add(table, at, body, True) is None
    assert add(table, 65120, bytes(415), False) == bytes(65535)
    assert len(table) == 0 and table.held_bytes == 0


def test_next_header_is_that_of_the_first_fragment() -> None:
    table = Fragments({})
    table.add(KEY, SOURCE, 6, 8, False, b"x", 0)
    assert table.add(KEY, SOURCE, 17, 0, True, b"12345678", 0) == b"12345678x"
    assert table.next_header == 17


@pytest.mark.parametrize("later_us", [TIMEOUT_US + 1, -TIMEOUT_US - 1])
def test_time_out(later_us: int) -> None:
    table = Fragments({})
    add(table, 0, b"a" * 8, True, ts_us=10**15)
    assert add(table, 8, b"b", False, ts_us=10**15 + later_us) is None
    assert table.counts == {"fragment_expired": 1}
    assert add(table, 0, b"A" * 8, True, ts_us=10**15 + later_us) == b"A" * 8 + b"b"


def test_old_ones_leave_when_new_ones_come() -> None:
    table = Fragments({})
    for number in range(50):
        table.add(number.to_bytes(2, "big"), SOURCE, 17, 0, True, bytes(8), number)
    table.add(KEY, SOURCE, 17, 0, True, bytes(8), TIMEOUT_US + 30)
    assert table.counts == {"fragment_expired": 30}
    check_books(table)


def test_flood_from_one_source_leaves_the_others_alone() -> None:
    table = Fragments({})
    add(table, 0, WHOLE[:256], True)
    flooder = b"\x0a\0\0\x66"
    for number in range(5000):
        table.add(flooder + number.to_bytes(4, "big"), flooder, 17, 0, True, bytes(1480), number)
    assert len(table) <= MAX_SOURCE_DATAGRAMS + 1
    assert table.held_bytes <= MAX_SOURCE_BYTES + 256 + PIECE_OVERHEAD
    check_books(table)
    assert add(table, 256, WHOLE[256:], False) == WHOLE


def test_addresses_of_an_ipv6_network_are_one_source() -> None:
    table = Fragments({})
    add(table, 0, WHOLE[:256], True)
    for number in range(5000):
        flooder = bytes.fromhex("20010db800000001") + number.to_bytes(8, "big")
        table.add(flooder, flooder, 17, 0, True, bytes(1480), number)
    assert len(table) <= MAX_SOURCE_DATAGRAMS + 1
    check_books(table)
    assert add(table, 256, WHOLE[256:], False) == WHOLE


def test_flood_from_many_sources_stays_in_bounds() -> None:
    table = Fragments({})
    for number in range(5000):
        source = number.to_bytes(4, "big")
        table.add(source + b"key", source, 17, 0, True, bytes(8000 + number % 7 * 8), number)
        assert len(table) <= MAX_DATAGRAMS
        assert table.held_bytes <= MAX_BYTES
    check_books(table)
    assert len(table) + table.counts["fragment_evicted"] == 5000


def test_flood_of_small_ones_is_bounded_in_number() -> None:
    table = Fragments({}, max_datagrams=100)
    for number in range(5000):
        source = number.to_bytes(4, "big")
        table.add(source, source, 17, 0, True, bytes(8), number)
    assert len(table) == 100 == len(table._sources)


def test_many_small_pieces_end_a_datagram() -> None:
    table = Fragments({})
    for at in range(0, 16 * (MAX_PIECES + 50), 16):
        assert add(table, at, bytes(8), True) is None
    assert table.counts == {"fragment_refused": 1}
    assert len(table) == 1 and table.held_bytes == 0
    check_books(table)


def test_large_ones_from_one_source_leave_the_others_alone() -> None:
    table = Fragments({})
    add(table, 0, WHOLE[:256], True)
    flooder = b"\x0a\0\0\x66"
    for number in range(100):
        table.add(flooder + bytes([number]), flooder, 17, 0, True, bytes(64000), number)
        assert table.held_bytes <= MAX_SOURCE_BYTES + 256 + PIECE_OVERHEAD
    check_books(table)
    assert add(table, 256, WHOLE[256:], False) == WHOLE
