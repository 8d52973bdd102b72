"""Packets that a host makes so that they look like its resolver's answer. Each test tells the harm it prevents."""

from __future__ import annotations

import struct

import pytest

from egressd.wire.dissector import Dissector
from tests.detect.live_scene import LiveScene
from tests.detect.scene import RESOLVER, A, B, at, packed
from tests.detect.test_harm_shared import C2, held
from tests.wire.frames_made import ACK, PSH, RST, SYN, frame, tcp, udp

FORGED = "203.0.113.99"
TRUE = "198.51.100.7"
PORT = 50_000
ASKED = b"".join(bytes((len(label),)) + label for label in C2.encode().split(b".")) + b"\0\0\1\0\1"
QUESTION = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + ASKED


def answered(address: str) -> bytes:
    """The answer to QUESTION."""
    head = struct.pack(">6H", 7, 0x8180, 1, 1, 0, 0)
    return head + ASKED + struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + packed(address)


class Gateway(LiveScene):
    """A gateway's tap, which knows whether a frame comes from the hosts or goes to them."""

    def __init__(self, lists: str = f"{C2} threat=case") -> None:
        super().__init__(lists)
        self.packets = self.engine.packets = Dissector(self.engine.observe)
        self.now_us = at(0)

    def put(self, octets: bytes, inside: bool) -> None:
        """A frame from the hosts' side (`inside`) or on its way to them."""
        self.packets.incoming = inside
        self.packets.packet(self.now_us, 0, 1, octets, 0, len(octets), len(octets))
        self.now_us += 1_000

    def ask(self) -> None:
        """A asks its resolver by UDP."""
        self.put(udp((A, PORT), (RESOLVER, 53), QUESTION), True)

    def connect(self) -> None:
        """A asks its resolver by TCP. Its sequence numbers begin at 1001, the resolver's at 9001."""
        self.put(tcp((A, PORT), (RESOLVER, 53), 1_000, SYN), True)
        self.put(tcp((RESOLVER, 53), (A, PORT), 9_000, SYN | ACK, b"", 1_001), False)
        asked = struct.pack(">H", len(QUESTION)) + QUESTION
        self.put(tcp((A, PORT), (RESOLVER, 53), 1_001, ACK | PSH, asked, 9_001), True)

    def receive(self, place: int, data: bytes, inside: bool) -> None:
        """A segment under the resolver's address, `place` bytes behind the first."""
        self.put(tcp((RESOLVER, 53), (A, PORT), 9_001 + place, ACK | PSH, data, 1_100), inside)


def fragment(place: int, more: bool, body: bytes) -> bytes:
    """One fragment of a datagram from the resolver to A."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 77, place >> 3 | more << 13, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + head + packed(RESOLVER) + packed(A) + body


def test_an_answer_as_it_should_be() -> None:
    """What makes a block must not be taken for a forgery, or nothing would be blocked.

    An answer that came from beyond the gateway counts, by UDP, in fragments and by TCP."""
    scene = Gateway()
    scene.ask()
    scene.put(udp((RESOLVER, 53), (A, PORT), answered(TRUE)), False)
    assert held(scene)[0] == [TRUE]
    scene = Gateway()
    scene.ask()
    whole = udp((RESOLVER, 53), (A, PORT), answered(TRUE))[34:]
    scene.put(fragment(0, True, whole[:24]), False)
    scene.put(fragment(24, False, whole[24:]), False)
    assert held(scene)[0] == [TRUE]
    scene = Gateway()
    scene.connect()
    message = struct.pack(">H", len(answered(TRUE))) + answered(TRUE)
    scene.receive(20, message[20:], False)
    scene.receive(0, message[:20], False)
    assert held(scene)[0] == [TRUE]


@pytest.mark.parametrize("first", [True, False])
def test_a_host_finishes_its_resolvers_answer(first: bool) -> None:
    """A host asks by TCP and sends a part of the answer itself, under the resolver's address; the resolver's own
    segment makes it whole, and it would pass for the resolver's.

    An answer of which anything came from the hosts' side ties nothing for everybody."""
    scene = Gateway()
    scene.connect()
    forged = struct.pack(">H", len(answered(FORGED))) + answered(FORGED)
    true = struct.pack(">H", len(answered(TRUE))) + answered(TRUE)
    if first:  # all but the last byte, then the resolver's whole answer
        scene.receive(0, forged[:-1], True)
        scene.receive(0, true, False)
    else:  # the end, ahead of the resolver's first small segment
        scene.receive(20, forged[20:], True)
        scene.receive(0, true[:20], False)
    assert held(scene)[0] == []


def test_a_host_sends_a_fragment_of_its_resolvers_answer() -> None:
    """A host sends the last fragment of a long answer itself, under the resolver's address, and the resolver's first
    one makes it whole.

    Fragments from the hosts' side are put together with none that go to them."""
    scene = Gateway()
    scene.ask()
    whole = udp((RESOLVER, 53), (A, PORT), answered(FORGED))[34:]
    scene.put(fragment(24, False, whole[24:]), True)
    scene.put(fragment(0, True, whole[:24]), False)
    assert held(scene)[0] == []


@pytest.mark.parametrize("carrier", ["IP in IP", "VXLAN"])
def test_a_server_sends_an_answer_in_a_tunnel(carrier: str) -> None:
    """A host asks its resolver, and an accomplice outside sends it a packet with the resolver's answer inside (IP in
    IP, VXLAN), right in every field: it comes from outside, as the resolver's would.

    On a gateway no answer inside another packet is evidence: who sends the outer one writes the inner as he likes."""
    scene = Gateway()
    scene.ask()
    inner = udp((RESOLVER, 53), (A, PORT), answered(FORGED))
    if carrier == "VXLAN":
        octets = udp(("203.0.113.5", 4_789), (A, 4_789), bytes.fromhex("0800000000000100") + inner)
    else:
        octets = frame("203.0.113.5", A, 4, inner[14:])
    scene.put(octets, False)
    assert held(scene)[0] == []


def test_an_answer_that_is_read_later() -> None:
    """More than can be read at once is put off, so that the host's own forged answer is told while another host's
    packet is at hand, which goes the other way.

    What counts is where its bytes came from, not which packet is at hand."""
    scene = Gateway()
    scene.connect()
    filler = struct.pack(">6H", 9, 0x8180, 1, 0, 0, 0) + ASKED
    many = (struct.pack(">H", len(filler)) + filler) * 600
    forged = struct.pack(">H", len(answered(FORGED))) + answered(FORGED)
    scene.receive(0, many + forged, True)
    for port in range(40_000, 40_400):
        scene.put(tcp((TRUE, 443), (B, port), 1, ACK | PSH, b"x"), False)
    assert held(scene)[0] == []


def test_a_host_answers_for_a_blocked_server() -> None:
    """A host sends the answer of a blocked server itself, as often as it likes and for whom it likes: each would be a
    leak, the loudest alarm there is, and people would look for what is wrong with a block that holds.

    On a gateway what answers from outside goes to the hosts; what comes from them is no answer."""
    scene = Gateway()
    scene.ask()
    scene.put(udp((RESOLVER, 53), (A, PORT), answered(TRUE)), False)
    for inside, leaks in ((True, 0), (False, 1)):
        scene.now_us += 60_000_000
        scene.put(tcp((A, 41_000 + leaks), (TRUE, 443), 1_000, SYN), True)
        scene.put(tcp((TRUE, 443), (A, 41_000 + leaks), 9_000, SYN | ACK, b"", 1_001), inside)
        scene.put(tcp((TRUE, 443), (A, 41_000 + leaks), 9_001, ACK | PSH, b"x", 1_001), inside)
        assert len(scene.leaks) == leaks


def test_a_server_that_was_seen_before_its_client() -> None:
    """The packet process begins in the middle of a conversation that leaks, and the server's packet is the first: it is
    told with the host's next one, which came from the hosts, and passed for a host's own answer.

    What counts is where the server's packet came from, not with which it is told."""
    for to_client, to_server in (
        (udp((TRUE, 443), (A, 41_000), b"data"), udp((A, 41_000), (TRUE, 443), b"data")),
        (
            tcp((TRUE, 443), (A, 41_000), 9_001, ACK, b"x", 1_001),
            tcp((A, 41_000), (TRUE, 443), 1_001, ACK, b"x", 9_002),
        ),
        (tcp((TRUE, 443), (A, 41_000), 9_000, SYN | ACK, b"", 1_001), tcp((A, 41_000), (TRUE, 443), 1_001, ACK, b"x")),
    ):
        for inside, leaks in ((True, 0), (False, 1)):
            scene = Gateway()
            scene.ask()
            scene.put(udp((RESOLVER, 53), (A, PORT), answered(TRUE)), False)
            scene.now_us += 60_000_000
            scene.put(to_client, inside)
            scene.put(to_server, True)
            assert len(scene.attempts) == 1 or inside
            assert len(scene.leaks) == leaks


def test_what_a_listed_server_only_sends_accuses_nobody() -> None:
    """Anybody can send under a listed address, and would have any host of ours taken for infected.

    It is a contact once the host itself sends something there, more than its system's RST."""
    sent = [
        udp((FORGED, 443), (A, PORT), b"data"),
        tcp((FORGED, 443), (A, PORT), 9_000, ACK | PSH, b"data", 1_001),
        tcp((FORGED, 443), (A, PORT), 9_000, SYN | ACK, b"", 1_001),
    ]
    for knows_ways in (True, False):
        scene = Gateway(FORGED)
        scene.engine.knows_ways = knows_ways
        for octets in sent:
            scene.put(octets, False)
        scene.put(tcp((A, PORT), (FORGED, 443), 1_001, RST), True)
        assert scene.events == []
    scene.put(udp((A, PORT), (FORGED, 443), b"data"), True)
    assert [one.client for one in scene.opened] == [packed(A)], "it speaks with the listed server"
