"""What one packet may cost: bursts of the shortest messages are put off, in order and in bounds, and lose nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.model import DNS_QUERY, HTTP_HOST, TLS_SNI, Observation
from egressd.wire import http
from egressd.wire.content import MAX_PUT_OFF_BYTES, MAX_RIVAL_NAMES, MAX_TOLD, SLICE_BYTES, WHOLE_BYTES
from egressd.wire.http_head import Field, read_fields
from egressd.wire.stream import MAX_RIVALS
from pcaps.hellos import hello
from pcaps.packets import framed, get, raw_question, wire_name
from tests.wire.frames_made import ACK, CLIENT, FIN, PSH, RST, SERVER, Line, Tap, tcp

LEAST_BYTES = 16  # of a request or a question
MOST_PUT_OFF = MAX_TOLD + SLICE_BYTES // LEAST_BYTES
MOST_OF_ONE_PACKET = MOST_PUT_OFF + WHOLE_BYTES // LEAST_BYTES


def requests(first: int, count: int) -> bytes:
    return b"".join(b"GET / HTTP/1.1\nHost:n%d.a\n\n" % number for number in range(first, first + count))


def names(first: int, count: int) -> list[str]:
    return [f"n{number}.a" for number in range(first, first + count)]


def most_of_one_packet(seen: list[Observation]) -> int:
    counts: dict[int, int] = {}
    for one in seen:
        counts[one.number] = counts.get(one.number, 0) + 1
    return max(counts.values())


def pass_time(tap: Tap, packets: int) -> None:
    """Packets of others, that say nothing."""
    for port in range(packets):
        Line(tap, ("10.0.9.9", 1_000 + port), (SERVER, 9)).syn()


def test_a_burst_is_told_over_the_packets_that_follow_and_in_order() -> None:
    tap = Tap()
    Line(tap, server=(SERVER, 80)).open().send(requests(0, 2_000))
    assert MAX_TOLD <= len(tap.names()) <= MOST_OF_ONE_PACKET
    pass_time(tap, 2_000 // MAX_TOLD)
    assert tap.names() == names(0, 2_000)
    assert most_of_one_packet(tap.seen) <= MOST_OF_ONE_PACKET + 3
    assert tap.dissector.counts() == {}


def test_a_burst_of_questions() -> None:
    tap = Tap()
    wire = b"".join(framed(raw_question(wire_name(b"n%d" % number), number)) for number in range(2_000))
    Line(tap, server=("10.0.0.53", 53)).open().send(wire)
    assert most_of_one_packet(tap.seen) <= MOST_OF_ONE_PACKET
    assert tap.flush().told() == [(DNS_QUERY, f"n{number}", "") for number in range(2_000)]


def test_what_comes_behind_a_burst_waits_for_its_turn() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(requests(0, 1_500))
    line.send(requests(1_500, 1)).send(requests(1_501, 500))
    other = Line(tap, ("10.0.0.6", 1)).open().send(hello("www.shop.example"))  # others do not wait
    other.close()
    assert "www.shop.example" in tap.names()
    assert len(tap.names()) < 2_000
    tap.flush()
    assert [name for name in tap.names() if name != "www.shop.example"] == names(0, 2_001)


def test_a_burst_held_behind_a_missing_segment() -> None:
    tap = Tap()
    wire = requests(0, 2_000)
    line = Line(tap, server=(SERVER, 80)).open()
    for at in range(1_000, len(wire), 1_000):
        line.send(wire[at : at + 1_000], at)
    line.send(wire[:1_000], 0)
    assert most_of_one_packet(tap.seen) <= MOST_OF_ONE_PACKET
    assert tap.flush().names() == names(0, 2_000)


@pytest.mark.parametrize("flags", [FIN | ACK, RST])
def test_the_end_of_a_connection_waits_for_what_was_put_off(flags: int) -> None:
    tap = Tap()
    wire = requests(0, 1_000) + b"GET / HTTP/1.1\nHost: last.example\nX:"
    line = Line(tap, server=(SERVER, 80)).open().send(wire)
    tap.put(line.made(0, len(wire), b"", flags))
    pass_time(tap, 40)
    assert tap.told()[-1] == (HTTP_HOST, "last.example", "partial")
    assert tap.names() == [*names(0, 1_000), "last.example"]


def test_a_hole_behind_a_burst_is_a_hole_in_its_turn() -> None:
    tap = Tap()
    wire = requests(0, 1_000) + b"GET /half HTTP/1.1\nHost: half.example\n"
    line = Line(tap, server=(SERVER, 80)).open().send(wire)
    line.send(get("next.example"), len(wire) + 500)
    Line(tap, isn=(9_999_999, 1), server=(SERVER, 80)).syn().syn_ack()  # ports used anew: the hole is given up
    pass_time(tap, 40)
    assert tap.told()[-2:] == [(HTTP_HOST, "half.example", "partial"), (HTTP_HOST, "next.example", "")]


def test_too_much_at_once_is_counted_and_what_follows_is_read() -> None:
    tap = Tap()
    burst = requests(0, 2_000)
    lines = [Line(tap, (CLIENT, 1_000 + number), (SERVER, 80)).open() for number in range(60)]
    for line in lines:
        line.send(burst)
    content = tap.dissector.tcp._content
    assert content._put_off_bytes <= MAX_PUT_OFF_BYTES
    assert tap.dissector.counts()["tcp_flooded_bytes"] > 60 * len(burst) - 2 * MAX_PUT_OFF_BYTES
    pass_time(tap, 3_000)
    assert content._put_off_bytes == 0 and not content.put_off
    lines[-1].send(requests(7_777, 1))
    assert tap.names()[-1] == "n7777.a"


def test_the_body_of_a_request_is_no_work() -> None:
    tap = Tap()
    wire = get("post.example", method="POST", body="b" * 50_000) + get("next.example")
    Line(tap, server=(SERVER, 80)).open().send(wire)
    assert tap.names() == ["post.example", "next.example"]


def test_a_large_segment_of_nothing_known_is_looked_at_once() -> None:
    """A request inside it is none: only the beginning of a segment can be one."""
    tap = Tap()
    Line(tap, server=(SERVER, 9_999)).open().send(bytes(WHOLE_BYTES) + get("inside.example") * 50)
    assert tap.told() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.integers(1, 60_000), max_size=8))
def test_any_cut_of_a_long_pipeline_tells_the_same(seed: int, edges: list[int]) -> None:
    draw = random.Random(seed)
    parts = []
    wanted = []
    for number in range(900):
        body = draw.choice([0, 0, 0, 0, 30, 5_000 if draw.random() < 0.02 else 0])
        parts.append(get(f"n{number}.a", method="POST", body="b" * body) if body else requests(number, 1))
        wanted.append(f"n{number}.a")
    wire = b"".join(parts)
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    cuts = sorted({0, len(wire), *(edge % len(wire) for edge in edges), *range(0, len(wire), 60_000)})
    for first, last in zip(cuts, cuts[1:], strict=False):  # noqa: RUF007
        line.send(wire[first:last])
    assert tap.flush().names() == wanted
    assert most_of_one_packet([one for one in tap.seen if one.number < tap.number]) <= MOST_OF_ONE_PACKET


def test_reading_other_copies_is_bounded() -> None:
    """Each packet disagrees with a full window of the shortest requests."""
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    window = requests(0, 150)
    for at in range(0, len(window), 1_000):
        line.send(window[at : at + 1_000])
    before = len(tap.seen)
    for number in range(50):
        line.send(b"GET / HTTP/1.1\nHost:m%d.a\n\n" % (number + 10), len(requests(0, 140)))
    found = tap.seen[before:]
    assert all(one.note == "ambiguous" for one in found)
    assert len(found) <= 50 and most_of_one_packet(found) <= MAX_RIVAL_NAMES
    assert len(tap.dissector.tcp._table.all()[0].client.rivals) <= MAX_RIVALS


def heads_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each head is that is read from now on."""
    read: list[int] = []

    def counted(text: str, first: int) -> tuple[list[Field], int]:
        read.append(len(text))
        return read_fields(text, first)

    monkeypatch.setattr(http, "read_fields", counted)
    return read


@pytest.mark.parametrize("flags", [FIN | ACK, RST])
@pytest.mark.parametrize("more", [b"", b"h"], ids=["alone", "with a byte"])
def test_ends_in_the_middle_of_a_long_head_do_not_each_read_it_again(
    monkeypatch: pytest.MonkeyPatch, flags: int, more: bytes
) -> None:
    """60 bytes of a packet had 64 KB read: 12 ms."""
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    head = b"GET / HTTP/1.1\r\nHost: www.evil.example\r\n" + b"h:\n" * 10_000
    for at in range(0, len(head), 1_400):
        line.send(head[at : at + 1_400])
    read = heads_read(monkeypatch)
    for _ in range(100):
        tap.put(tcp((CLIENT, 40_000), (SERVER, 80), 1_001 + line.sent[0], flags))
        line.send(more, flags=FIN | PSH | ACK)
    assert len(read) <= 2
    assert tap.names() == ["www.evil.example"]


@pytest.mark.parametrize("flags", [FIN | PSH | ACK, PSH | ACK], ids=["ends", "over"])
def test_copies_that_lost_are_not_read_again_with_each_byte(monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    """A packet with one byte, and an end or behind a hello, had four of 4 KB read twice: 12 ms."""
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    lines = b"h:\n" * 800
    whole = (
        b"GET / HTTP/1.1\r\nHost: www.good.example\r\n" + lines
        if flags & FIN
        else hello("www.good.example") + bytes(2_000)
    )
    for at in range(0, len(whole), 1_400):
        line.send(whole[at : at + 1_400])
    for number in range(MAX_RIVALS):
        line.send((b"GET / HTTP/1.1\r\nHost: www.evi%d.example\r\n" % number + lines)[:1_400], 0)
    read = heads_read(monkeypatch)
    for _ in range(100):
        line.send(b"h", flags=flags)
    assert len(read) <= 100  # as they grow: 1, 2, 4 ... bytes
    assert {f"www.evi{number}.example" for number in range(MAX_RIVALS)} <= set(tap.flush().names())


def test_a_name_that_comes_behind_an_end_is_told_with_the_next_end() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(b"GET / HTTP/1.1\r\nX: 1\r\n", flags=FIN | PSH | ACK)
    assert not tap.names()
    line.send(b"Host: www.evil.example\r\n", flags=FIN | PSH | ACK)
    assert tap.names() == ["www.evil.example"]


def test_names_of_one_other_copy_are_bounded() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(b"x" * 4_000)
    line.send(requests(0, 100), 0)
    assert len(tap.told()) == MAX_RIVAL_NAMES


def test_a_name_cut_in_the_other_copy_is_found_when_it_is_whole() -> None:
    good = hello("www.good.example")
    evil = good.replace(b"www.good", b"www.evil")
    place = good.index(b"www.good")
    tap = Tap()
    line = Line(tap).open().send(good[: place + 6]).send(evil[place : place + 6], place)
    for at in range(place + 6, len(good)):
        line.send(good[at : at + 1])
    assert (TLS_SNI, "www.evod.example", "ambiguous") in tap.told()


def test_a_request_cut_in_the_other_copy_is_found_at_the_end() -> None:
    good = b"GET / HTTP/1.1\r\nHost: www.good.example\r\n\r\n"
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(get("first.example")).send(good[:-5])
    at = len(get("first.example"))
    place = good.index(b"good")
    line.send(b"evil", at + place)
    for byte in (good[-5:-4], good[-4:-3], good[-3:-2], good[-2:]):
        line.send(byte)
    tap.put(tcp((CLIENT, 40_000), (SERVER, 80), 1_001 + line.sent[0], FIN | PSH | ACK))
    assert sorted(tap.told()) == [
        (HTTP_HOST, "first.example", ""),
        (HTTP_HOST, "www.evil.example", "ambiguous"),
        (HTTP_HOST, "www.good.example", ""),
    ]
