"""Properties of the whole way through layers 2 to 7: nothing that the network does to segments changes what is told."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture.merge import Replay
from egressd.model import FLOW, HTTP_HOST, REPLY, SOCKS_HOST, TLS_SNI, Observation
from egressd.wire.dissector import Dissector
from pcaps.files import pcap
from pcaps.hellos import APPLICATION, QUIC_V1, SERVER_HELLO, client_hello, crypto, handshake, hello, initial, records
from pcaps.packets import OK, Packet, answer, framed, get, question
from tests.wire.frames_made import (
    ACK,
    CLIENT,
    EPOCH_US,
    FIN,
    MODULUS,
    PSH,
    RST,
    SERVER,
    SYN,
    Line,
    Tap,
    frame,
    tcp,
    udp,
)

CHUNKED = (
    b"POST /up HTTP/1.1\r\nHost: chunks.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nGET /\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: 1\r\n\r\n"
)
PIPELINED = (
    get("one.example")
    + get("two.example", method="POST", body="Host: not.example\r\n\r\nGET / HTTP/1.1\r\n")
    + CHUNKED
    + get("three.example", more="X: y\r\n" * 20)
    + get("four.example")
)
STREAMS = {
    "http": (80, PIPELINED),
    "tls": (443, hello("www.shop.example", post_quantum=True) + APPLICATION * 3),
    "tls in records": (8443, records(client_hello(b"www.shop.example"), 2, 9, 70, 71) + APPLICATION),
    "dns": (53, b"".join(framed(question(f"n{number}.example", number)) for number in range(8))),
    "dns elsewhere": (5_300, b"".join(framed(question(f"n{number}.example", number)) for number in range(8))),
    "socks then http": (
        1080,
        b"\x05\x01\x00" + b"\x05\x01\x00\x03\x0cwww.one.test\x00\x50" + get("one.example") + get("two.example"),
    ),
    "connect then tls": (
        3128,
        b"CONNECT out.example:443 HTTP/1.1\r\nHost: out.example:443\r\n\r\n" + hello("inner.example") + APPLICATION,
    ),
    "proxy header then tls": (8443, b"PROXY TCP4 10.0.0.5 192.0.2.1 40000 443\r\n" + hello("inner.example")),
}
NAMES = {
    "http": [(HTTP_HOST, f"{name}.example", "") for name in ("one", "two", "chunks", "three", "four")],
    "tls": [(TLS_SNI, "www.shop.example", "")],
    "tls in records": [(TLS_SNI, "www.shop.example", "")],
    "dns": [("dns_query", f"n{number}.example", "") for number in range(8)],
    "dns elsewhere": [("dns_query", f"n{number}.example", "") for number in range(8)],
    "socks then http": [
        (SOCKS_HOST, "www.one.test", ""),
        (HTTP_HOST, "one.example", "proxied"),
        (HTTP_HOST, "two.example", "proxied"),
    ],
    "connect then tls": [(HTTP_HOST, "out.example", ""), (TLS_SNI, "inner.example", "proxied")],
    "proxy header then tls": [(TLS_SNI, "inner.example", "")],
}
KINDS = st.sampled_from(sorted(STREAMS))
STARTS = st.sampled_from([0, 1_000, 0x7FFFFF00, MODULUS - 1, MODULUS - 2, MODULUS - 50, MODULUS - 700])


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """Segments that make up a stream, few or many."""
    edges = sorted({0, size, *draw(st.lists(st.integers(1, size - 1), max_size=40))})
    return list(pairwise(edges))


@st.composite
def mangled(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """The same with overlaps, copies, and in any order."""
    segments = [
        (max(0, first - draw(st.integers(0, 40))), min(size, last + draw(st.integers(0, 40))))
        for first, last in draw(cuts(size))
    ]
    segments += draw(st.lists(st.sampled_from(segments), max_size=6))
    return draw(st.permutations(segments))


def deliver(kind: str, segments: list[tuple[int, int]], isn: int, fin: bool) -> Tap:
    port, wire = STREAMS[kind]
    tap = Tap()
    line = Line(tap, server=(SERVER, port), isn=(isn, 9)).open()
    for first, last in segments:
        tap.put(line.made(0, first, wire[first:last], ACK | (FIN if fin and last == len(wire) else PSH)))
    return tap


@pytest.mark.parametrize("kind", sorted(STREAMS))
def test_whole_and_byte_by_byte(kind: str) -> None:
    size = len(STREAMS[kind][1])
    assert deliver(kind, [(0, size)], 1_000, False).told() == NAMES[kind]
    assert deliver(kind, [(at, at + 1) for at in range(size)], 1_000, True).told() == NAMES[kind]


@pytest.mark.parametrize("kind", sorted(STREAMS))
def test_every_cut_in_two_in_both_orders(kind: str) -> None:
    size = len(STREAMS[kind][1])
    for at in range(1, size, 1 if size < 800 else 3):
        assert deliver(kind, [(0, at), (at, size)], MODULUS - at, True).told() == NAMES[kind], at
        assert deliver(kind, [(at, size), (0, at)], MODULUS - at, True).told() == NAMES[kind], at


@settings(max_examples=300, deadline=None)
@given(st.data(), KINDS, STARTS, st.booleans())
def test_any_order_copies_and_overlaps_give_the_same_names(data: st.DataObject, kind: str, isn: int, fin: bool) -> None:
    segments = data.draw(mangled(len(STREAMS[kind][1])))
    tap = deliver(kind, segments, isn, fin)
    assert tap.told() == NAMES[kind]
    assert tap.count(FLOW) == 1
    assert tap.flush().told() == NAMES[kind]


@settings(max_examples=150, deadline=None)
@given(st.data(), KINDS, st.booleans())
def test_midstream_starts_give_the_same_names(data: st.DataObject, kind: str, server_first: bool) -> None:
    """No SYN was captured; the client's segments come in order, and what the server says stands anywhere."""
    port, wire = STREAMS[kind]
    tap = Tap()
    line = Line(tap, server=(SERVER, port))
    if server_first:
        line.receive(b"\x00\x01\x02 nothing that is known")
    for first, last in data.draw(cuts(len(wire))):
        line.send(wire[first:last])
    assert tap.told() == NAMES[kind]
    assert tap.count(FLOW) == 1 and tap.count(REPLY) == int(server_first)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(0, 11))
def test_a_lost_segment_costs_at_most_the_requests_it_touches(data: st.DataObject, count: int, lost: int) -> None:
    """Each request is a segment of its own, or two, of which one may be body."""
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    wanted: list[str] = []
    at = 0
    for number in range(count):
        body = data.draw(st.integers(0, 3_000))
        wire = get(f"n{number}.example", method="POST", body="b" * body)
        head = len(wire) - body
        keep = number != lost % count or data.draw(st.booleans())
        if keep:
            line.send(wire[:head], at)
            wanted.append(f"n{number}.example")
        if body and (keep and number != lost % count):
            line.send(wire[head:], at + head)
        at += len(wire)
    tap.wait(4)
    line.send(get("last.example"), at)
    tap.wait(4)
    line.send(get("after.example"))
    tap.flush()
    assert tap.names() == [*wanted, "last.example", "after.example"]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_where_copies_disagree_both_names_are_told(data: st.DataObject, evil_first: bool) -> None:
    good = hello("www.good.example", post_quantum=True)
    evil = good.replace(b"www.good", b"www.evil")
    place = good.index(b"www.good")
    first = data.draw(st.integers(0, place))
    last = data.draw(st.integers(place + 8, len(good)))
    one, other = (evil, good) if evil_first else (good, evil)
    taken, lost = ("evil", "good") if evil_first else ("good", "evil")
    tap = Tap()
    line = Line(tap).open()
    pieces = [(0, one[:first]), (first, one[first:last]), (first, other[first:last]), (last, one[last:])]
    # The order of the two copies stays; the others come at any time.
    order = data.draw(st.sampled_from([(0, 1, 2, 3), (1, 2, 0, 3), (1, 2, 3, 0), (3, 1, 2, 0), (0, 3, 1, 2)]))
    for number in order:
        at, piece = pieces[number]
        if piece:
            line.send(piece, at)
    line.receive(SERVER_HELLO)
    tap.flush()
    assert (TLS_SNI, f"www.{taken}.example", "") in tap.told()
    assert (TLS_SNI, f"www.{lost}.example", "ambiguous") in tap.told()
    assert len(tap.told()) == 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=120), max_size=30), st.integers(0, 300))
def test_no_bytes_raise(packets: list[bytes], link: int) -> None:
    seen: list[Observation] = []
    dissector = Dissector(seen.append, 20)
    for number, octets in enumerate(packets):
        for kind in (link, 1, 101):
            dissector.packet(number, number, kind, octets, 0, len(octets), len(octets))
    dissector.flush()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, MODULUS - 1) | st.integers(0, 3_000),
            st.integers(0, 31),
            st.sampled_from([b"", hello("a.example"), get("b.example"), OK, SERVER_HELLO]) | st.binary(max_size=60),
            st.integers(0, 10_000_000),
        ),
        max_size=30,
    )
)
def test_no_conversation_raises_or_tells_flow_and_reply_out_of_turn(
    segments: list[tuple[int, int, int, bytes, int]],
) -> None:
    tap = Tap(20)
    line = Line(tap)
    opened = 0
    for side, seq, flags, data, gap_us in segments:
        tap.put(tcp(line.ends[side], line.ends[1 - side], seq, flags, data))
        tap.wait(gap_us / 1e6)
        opened += bool(flags & SYN) + bool(flags & RST)
    tap.flush()
    assert tap.count(FLOW) <= opened + 1
    assert tap.count(REPLY) <= tap.count(FLOW)
    told = [kind for kind in tap.kinds() if kind in (FLOW, REPLY)]
    assert not told or told[0] == FLOW


def test_counts_say_what_was_left_out_and_nothing_else() -> None:
    tap = Tap()
    Line(tap).open().send(hello("www.shop.example")).receive(SERVER_HELLO).close()
    assert tap.dissector.counts() == {}
    tap.put(bytes(12) + b"\x08\x06" + bytes(28))
    assert tap.dissector.counts() == {"not_ip": 1}
    assert tap.dissector.packets == tap.number


# -- the gate


def conversation_packets(draw: random.Random, number: int) -> list[bytes]:
    """A conversation of any kind, with retransmissions, bare acknowledgements and some disorder."""
    tap_frames: list[bytes] = []

    class Recorder(Tap):
        def put(self, octets: bytes, cut: int = 0) -> None:
            tap_frames.append(octets[: len(octets) - cut])

    client = (draw.choice([CLIENT, "10.0.0.6", "fd00::7"]), draw.randrange(1_024, 1_040))
    server = "2001:db8::10" if ":" in client[0] else SERVER
    kind = draw.choice([*STREAMS, "udp", "quic", "dns udp", "unknown"])
    if kind == "udp":
        for _ in range(draw.randrange(1, 40)):
            ends = [client, (server, 9_999)]
            draw.shuffle(ends)
            tap_frames.append(udp(ends[0], ends[1], draw.randbytes(20)))
        return tap_frames
    if kind == "quic":
        octets = initial(QUIC_V1, draw.randbytes(8), 0, crypto(0, client_hello(f"q{number}.example".encode())))
        there, back = udp(client, (server, 443), octets), udp((server, 443), client, handshake(QUIC_V1, bytes(8)))
        return [there, back, there, back, there, udp(client, (server, 443), b"\x40" + bytes(30))] * 3
    if kind == "dns udp":
        name = f"d{number}.example"
        asked = udp(client, (server, 53), question(name, number))
        return [asked, asked, udp((server, 53), client, answer(name, number, f"{name} A 192.0.2.1"))]
    port, wire = STREAMS.get(kind, (9_999, draw.randbytes(6_000)))
    line = Line(Recorder(), client, (server, port), (draw.randrange(MODULUS), draw.randrange(MODULUS)))
    if draw.random() < 0.8:
        line.open()
    size = draw.choice([100, 500, 1_400])
    for at in range(0, len(wire), size):
        line.send(wire[at : at + size], at)
        if draw.random() < 0.2:
            line.send(wire[at : at + size], at)
        if draw.random() < 0.5:
            tap_frames.append(line.made(1, line.sent[1]))
        if draw.random() < 0.5:
            line.receive(draw.choice([OK, SERVER_HELLO, APPLICATION, draw.randbytes(900)]))
            tap_frames.append(line.made(0, line.sent[0]))
    if draw.random() < 0.5:
        line.close()
    elif draw.random() < 0.5:
        tap_frames.append(line.made(draw.randrange(2), draw.randrange(200), b"", RST))
    return tap_frames


def mixed_capture(seed: int, conversations: int) -> list[Packet]:
    """Conversations woven into one another, ports used again and again, frames that break off, time that jumps."""
    draw = random.Random(seed)
    queues = [conversation_packets(draw, number) for number in range(conversations)]
    packets: list[Packet] = []
    now_us = EPOCH_US
    open_queues: list[list[bytes]] = []
    while queues or open_queues:
        while queues and len(open_queues) < 6:
            open_queues.append(queues.pop())
        queue = draw.choice(open_queues)
        if not queue:
            open_queues.remove(queue)
            continue
        octets = queue.pop(1 if len(queue) > 1 and draw.random() < 0.05 else 0)
        if draw.random() < 0.01:
            octets = octets[: draw.randrange(len(octets))]
        packets.append(Packet(now_us, octets, max(len(octets), 60), 1))
        now_us += draw.choice([10, 1_000, 50_000, -20, 40_000_000 if draw.random() < 0.02 else 5])
    return packets


@pytest.mark.parametrize(("seed", "conversations"), [(1, 5), (2, 20), (3, 20), (4, 400), (5, 400)])
def test_the_gate_changes_nothing(tmp_path: Path, seed: int, conversations: int) -> None:
    path = tmp_path / "mixed.pcap"
    path.write_bytes(pcap(mixed_capture(seed, 300), 1))
    told: list[list[Observation]] = []
    gated = []
    for prefilter in (True, False):
        seen: list[Observation] = []
        dissector = Dissector(seen.append, conversations)
        replay = Replay([path], dissector, prefilter=prefilter)
        replay.run()
        dissector.flush()
        told.append(seen)
        gated.append(replay.files[0].gated)
    assert told[0] == told[1]
    assert gated[0] > 500 and gated[1] == 0
    assert len({seen.kind for seen in told[0]}) == 8


def test_frames_that_are_no_packets_of_ours_lead_nowhere() -> None:
    tap = Tap()
    tap.put(frame(CLIENT, SERVER, 1, b"\x03\0" + bytes(30)))
    tap.put(frame(CLIENT, SERVER, 1, b"\x00\0" + bytes(30)))
    tap.put(b"")
    assert tap.flush().seen == []
    assert tap.dissector.counts() == {"icmp_quoted": 1, "other_l4": 1, "malformed": 1}
