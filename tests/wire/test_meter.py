"""How many bytes TCP connections carried, by sequence numbers: however they were cut, sent again or thrown away."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.prefilter import frame_is_quiet
from egressd.model import FlowKey
from egressd.wire.meter import BEHIND, TELL_BYTES
from egressd.wire.tcp import QUIET_US
from pcaps.hellos import SERVER_HELLO, hello
from tests.wire.frames_made import ACK, FIN, RST, SYN, Line, Tap

HELLO = hello("www.shop.example")
SEGMENT = 1_400


class Meter:
    """A tap that adds up what it is told of bytes. `gate` throws away what the prefilter would."""

    def __init__(self, gate: bool = False) -> None:
        self.tap = Tap()
        self.told: list[tuple[FlowKey, int, int, int]] = []
        self.tap.dissector.tcp.on_volume = self._take
        if gate:
            self._put = self.tap.put
            self.tap.put = self._gated  # type: ignore[method-assign]

    def _take(self, flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int) -> None:
        self.told.append((flow, ts_us, out_bytes, in_bytes))

    def _gated(self, octets: bytes, cut: int = 0) -> None:
        dissector = self.tap.dissector
        if frame_is_quiet(octets, 0, len(octets), self.tap.now_us, dissector.quiet, dissector.quiet_udp):
            self.tap.number += 1
            self.tap.wait(0.001)
            return
        self._put(octets, cut)

    def sums(self) -> tuple[int, int]:
        return sum(one[2] for one in self.told), sum(one[3] for one in self.told)

    def bulk(self, line: Line, size: int, seconds: float = 0.0, side: int = 0) -> None:
        """`size` bytes pass of which only a segment now and then is captured: each of them is a sample at most."""
        steps = 16
        for _ in range(steps):
            self.tap.wait(seconds / steps)
            line.sent[side] += size // steps - SEGMENT
            line.send(b"\xab" * SEGMENT, side=side)


@pytest.mark.parametrize("gate", [False, True])
def test_an_upload_is_counted_to_the_byte_though_its_bulk_is_never_read(gate: bool) -> None:
    meter = Meter(gate)
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(2_000):
        line.send(b"\xab" * SEGMENT)
    line.close()
    assert meter.sums() == (len(HELLO) + 2_000 * SEGMENT, len(SERVER_HELLO))
    assert len(meter.told) < 10
    if gate:
        assert meter.tap.dissector.packets < 50


def test_a_download_is_what_came_in() -> None:
    meter = Meter(True)
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(500):
        line.receive(b"\xab" * SEGMENT)
    line.close()
    assert meter.sums() == (len(HELLO), len(SERVER_HELLO) + 500 * SEGMENT)


def test_who_is_client_may_turn_out_later() -> None:
    meter = Meter()
    line = Line(meter.tap, client=("192.0.2.10", 443), server=("10.0.0.5", 40_000))  # without its handshake
    line.send(b"\x01" * 1_000).receive(HELLO).send(SERVER_HELLO)
    meter.tap.flush()
    assert sum(one[2] for one in meter.told) == len(HELLO)
    assert {one[0].client_port for one in meter.told} == {40_000}


def test_a_connection_that_lasts_is_told_as_it_goes_on() -> None:
    meter = Meter(True)
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(5):
        meter.bulk(line, 64 << 20, QUIET_US / 1e6)
    before = len(meter.told)
    assert before >= 4
    out_bytes, _ = meter.sums()
    assert (256 << 20) < out_bytes <= line.sent[0]
    line.close()
    assert meter.sums() == (line.sent[0], len(SERVER_HELLO))
    assert all(one[1] <= other[1] for one, other in pairwise(meter.told))


def test_a_connection_without_its_end_counts_up_to_its_last_sample() -> None:
    meter = Meter(True)
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(100):
        line.send(b"\xab" * SEGMENT)
    meter.tap.flush()
    assert 0 < meter.sums()[0] < line.sent[0]
    meter.tap.flush()
    assert meter.sums()[0] < line.sent[0]  # and is told once


def test_numbers_may_wrap_more_than_once() -> None:
    meter = Meter(True)
    line = Line(meter.tap, isn=((1 << 32) - 5_000, (1 << 32) - 10)).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(4):
        meter.bulk(line, 3 << 30, QUIET_US / 1e6 + 1)
    line.close()
    assert meter.sums() == (line.sent[0], len(SERVER_HELLO))
    assert line.sent[0] > 3 * (1 << 32) - (1 << 31)


@pytest.mark.parametrize("flags", [RST, RST | ACK])
def test_a_reset_ends_the_count_where_it_stands(flags: int) -> None:
    meter = Meter(True)
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    for _ in range(100):
        line.send(b"\xab" * SEGMENT)
    meter.tap.put(line.made(0, line.sent[0], b"", flags))
    assert meter.sums() == (line.sent[0], len(SERVER_HELLO))


def test_numbers_that_nobody_would_take_count_nothing() -> None:
    meter = Meter()
    line = Line(meter.tap).open().send(HELLO).receive(SERVER_HELLO)
    meter.tap.put(line.made(0, 1 << 31, b"\xab" * 10))  # far ahead within a millisecond
    meter.tap.put(line.made(0, -1_000_000, b"\xab" * 10))  # long sent
    meter.tap.wait(30)
    meter.tap.put(line.made(0, -1_001, b"", RST | ACK))  # number 0
    meter.tap.flush()
    assert meter.sums() == (len(HELLO), len(SERVER_HELLO))


def test_a_handshake_that_was_answered_twice() -> None:
    meter = Meter()
    line = Line(meter.tap, isn=(1_000, 9_000)).syn().syn_ack()
    other = Line(meter.tap, isn=(1_000, 3_000_000_000))
    other.syn_ack()
    line.send(HELLO).receive(SERVER_HELLO).close()
    assert meter.sums() == (len(HELLO), len(SERVER_HELLO))


def test_data_in_a_syn_counts_once() -> None:
    meter = Meter()
    line = Line(meter.tap).syn(HELLO).syn(HELLO).syn_ack()
    line.sent[0] = len(HELLO)
    line.receive(SERVER_HELLO).close()
    assert meter.sums() == (len(HELLO), len(SERVER_HELLO))


def test_what_does_not_answer_carried_nothing() -> None:
    meter = Meter()
    Line(meter.tap).syn().syn()
    refused = Line(meter.tap, client=("10.0.0.5", 40_001)).syn()
    meter.tap.put(refused.made(1, -9_001, b"", RST | ACK))
    meter.tap.flush()
    assert meter.told == []


def test_nothing_is_metered_where_nobody_asks() -> None:
    tap = Tap()
    Line(tap).open().send(HELLO).receive(SERVER_HELLO).close()
    tap.flush()
    assert tap.kinds().count("flow") == 1


@given(
    isn=st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1)),
    size=st.integers(1, 60_000),
    cuts=st.lists(st.integers(0, 60_000), max_size=12),
    again=st.lists(st.integers(0, 12), max_size=6),
    swaps=st.lists(st.integers(0, 11), max_size=4),
    gate=st.booleans(),
    ends=st.sampled_from(["fin", "fin with data", "reset"]),
)
def test_however_bytes_are_cut_and_sent_again_they_are_as_many(
    isn: tuple[int, int], size: int, cuts: list[int], again: list[int], swaps: list[int], gate: bool, ends: str
) -> None:
    data = HELLO + b"\xab" * size
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = list(pairwise(places))
    for at in swaps:
        if at + 1 < len(pieces) - 1:  # what ends the connection comes last
            pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
    pieces = [*(pieces[at] for at in again if at < len(pieces) - 1), *pieces] if pieces[0][0] == 0 else pieces
    meter = Meter(gate)
    line = Line(meter.tap, isn=isn).open()
    for number, (start, end) in enumerate(pieces):
        last = number == len(pieces) - 1
        line.send(data[start:end], start, flags=ACK | FIN if last and ends == "fin with data" else ACK)
    line.receive(SERVER_HELLO)
    if ends == "fin":
        meter.tap.put(line.made(0, len(data), b"", FIN | ACK))
        meter.tap.put(line.made(0, len(data), b"", FIN | ACK))
    elif ends == "reset" and (isn[0] + 1 + len(data)) % (1 << 32):
        meter.tap.put(line.made(0, len(data), b"", RST))
    meter.tap.put(line.made(0, len(data) + 1, b"", RST))
    meter.tap.flush()
    out_bytes, in_bytes = meter.sums()
    assert in_bytes == len(SERVER_HELLO)
    assert out_bytes in ((len(data),) if ends != "reset" else (len(data), len(data) + 1))


@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 32) - 1), st.sampled_from([0, SYN, FIN, RST, SYN | ACK, FIN | RST])), max_size=20
    )
)
def test_any_numbers_give_amounts_that_are_possible(segments: list[tuple[int, int]]) -> None:
    meter = Meter()
    line = Line(meter.tap)
    for seq, flags in segments:
        line.tap.put(line.made(0, seq, b"\xab" * 10, flags | ACK))
    meter.tap.flush()
    assert all(one[2] >= 0 and one[3] >= 0 for one in meter.told)
    assert meter.sums()[0] <= len(segments) * (BEHIND + TELL_BYTES + 1_250 * 1_000)
