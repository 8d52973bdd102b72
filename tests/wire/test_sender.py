"""Who sent a frame: link types, VLAN tags, TTLs, and bytes that are none of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from egressd.model import Observation
from egressd.wire.dissector import Dissector
from egressd.wire.sender import Sender, read_sender
from tests.detect.scene import packed

MAC = bytes.fromhex("021a2b000001")
A, SIX = packed("10.1.1.7"), packed("2001:db8::7")
ETH = Ether(src="02:1a:2b:00:00:01", dst="02:00:00:00:00:01")
IN4 = IP(src="10.1.1.7", dst="192.0.2.1", ttl=64) / TCP(dport=443, flags="S")
IN6 = IPv6(src="2001:db8::7", dst="2001:db8:a::1", hlim=255) / UDP(dport=53)
SLL = CookedLinux(pkttype=0, lladdrtype=1, lladdrlen=6, src=MAC + b"\0\0")
SLL2 = CookedLinuxV2(pkttype=0, lladdrtype=1, lladdrlen=6, src=MAC + b"\0\0")

FRAMES = {
    "ethernet": (1, ETH / IN4, A, True),
    "ethernet, IPv6": (1, ETH / IN6, SIX, True),
    "vlan": (1, ETH / Dot1Q(vlan=7) / IN4, A, True),
    "qinq": (1, ETH / Dot1AD(vlan=7) / Dot1Q(vlan=9) / IN6, SIX, True),
    "cooked": (113, SLL / IN4, A, True),
    "cooked 2": (276, SLL2 / IN4, A, True),
    "behind a router": (1, ETH / IP(src="10.1.1.7", dst="192.0.2.1", ttl=63) / TCP(), A, False),
    "behind two, IPv6": (1, ETH / IPv6(src="2001:db8::7", dst="2001:db8:a::1", hlim=126) / TCP(), SIX, False),
    "Windows": (1, ETH / IP(src="10.1.1.7", dst="192.0.2.1", ttl=128) / TCP(), A, True),
}


@pytest.mark.parametrize("name", FRAMES)
def test_sender(name: str) -> None:
    link, frame, client, attached = FRAMES[name]
    assert read_sender(link, b"\xaa" * 5 + bytes(frame), 5, client) == Sender(MAC, attached)


OTHERS: dict[str, tuple[int, Packet, bytes]] = {
    "the other side": (1, ETH / IN4, packed("192.0.2.1")),
    "a tunnel's inside": (1, ETH / IP(src="10.9.9.9", dst="192.0.2.1") / IN4, A),
    "no IP": (1, Ether(src="02:1a:2b:00:00:01", type=0x0806) / (b"\0" * 40), A),
    "raw IP": (101, IN4, A),
    "cooked, another length": (113, CookedLinux(lladdrlen=4, src=MAC + b"\0\0") / IN4, A),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nobody(name: str) -> None:
    link, frame, client = OTHERS[name]
    assert read_sender(link, bytes(frame), 0, client) is None


@given(st.sampled_from((1, 113, 276, 101, 0)), st.binary(max_size=80), st.integers(0, 90))
def test_any_bytes(link: int, octets: bytes, start: int) -> None:
    found = read_sender(link, octets, start, A)
    assert found is None or len(found.mac) == 6


def test_the_dissector_knows_the_frame_at_hand() -> None:
    seen: list[tuple[str, Sender | None]] = []
    dissector = Dissector(lambda one: seen.append((one.kind, dissector.sender(one.flow.client))))
    for number, frame in enumerate((ETH / IN4, ETH / IP(src="10.1.1.8", dst="192.0.2.1", ttl=63) / TCP(flags="S"))):
        octets = bytes(frame)
        dissector.packet(number, number, 1, octets, 0, len(octets), len(octets))
    assert seen == [("flow", Sender(MAC, True)), ("flow", Sender(MAC, False))]


def test_between_packets_it_names_nobody_else() -> None:
    def emit(_: Observation) -> None: ...

    dissector = Dissector(emit)
    assert dissector.sender(A) is None
    octets = bytes(ETH / IN4)
    dissector.packet(0, 1, 1, octets, 0, len(octets), len(octets))
    assert dissector.sender(packed("10.1.1.9")) is None
