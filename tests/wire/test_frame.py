"""Frames against packets that scapy built, and against bytes that nobody built."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.layers.dot11 import Dot11, Dot11QoS, RadioTap
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, LLC, SNAP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from egressd.wire.frame import L4_TCP, L4_UDP, MAX_DEPTH, Frames

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ETH_IP = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x0800)
ETH_2 = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
OUTER = IP(src="198.51.100.1", dst="198.51.100.2", id=7)
OUTER_6 = IPv6(src="2001:db8::a", dst="2001:db8::b")
IN4 = IP(src="10.0.0.1", dst="203.0.113.9")
IN6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
TEREDO = IPv6(src="2001:0:c633:6401::1", dst="2001:db8::2")
BODY = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
SEG = TCP(sport=40000, dport=80, seq=0xFEDCBA98, flags="PA") / Raw(BODY)
GRAM = UDP(sport=40001, dport=53) / Raw(BODY)
WIFI = {"addr1": "02:00:00:00:00:01", "addr2": "02:00:00:00:00:02", "addr3": "02:00:00:00:00:03"}
SNAP_IP = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0800)


def udp_tunnel(port: int) -> Packet:
    return ETH / OUTER / UDP(sport=50000, dport=port, chksum=0)


def raw(*parts: bytes | Packet) -> bytes:
    return b"".join(bytes(part) for part in parts)


# name: (link type, packet, depth, VLAN id)
CASES: dict[str, tuple[int, Packet | bytes, int, int]] = {
    "plain tcp": (1, ETH / IN4 / SEG, 1, -1),
    "plain udp": (1, ETH / IN4 / GRAM, 1, -1),
    "tcp options": (1, ETH / IN4 / TCP(sport=1, dport=2, options=[("MSS", 1460), ("NOP", None)]) / Raw(BODY), 1, -1),
    "ip options": (1, ETH / IP(src="10.0.0.1", dst="203.0.113.9", options=[b"\x94\x04\0\0"]) / SEG, 1, -1),
    "ipv6 tcp": (1, ETH / IN6 / SEG, 1, -1),
    "ipv6 udp": (1, ETH / IN6 / GRAM, 1, -1),
    "ipv6 extensions": (
        1,
        ETH / IN6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["2001:db8::7"]) / IPv6ExtHdrDestOpt() / GRAM,
        1,
        -1,
    ),
    "ipv6 many extensions": (
        1,
        raw(ETH / IPv6(src=IN6.src, dst=IN6.dst, nh=60, plen=1400 + len(GRAM)), b"\x3c\0\1\4\0\0\0\0" * 174)
        + raw(b"\x11\0\1\4\0\0\0\0", GRAM),
        1,
        -1,
    ),
    "ipv6 atomic fragment": (1, ETH / IN6 / IPv6ExtHdrFragment(id=9) / SEG, 1, -1),
    "vlan": (1, ETH / Dot1Q(vlan=100, prio=5) / IN4 / SEG, 1, 100),
    "qinq": (1, ETH / Dot1AD(vlan=200) / Dot1Q(vlan=100) / IN6 / SEG, 1, 200),
    "four tags": (1, ETH / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / Dot1Q(vlan=4) / IN4 / SEG, 1, 1),
    "802.3 snap": (1, Dot3(src=ETH.src, dst=ETH.dst) / SNAP_IP / IN4 / SEG, 1, -1),
    "pppoe": (1, ETH / PPPoE(sessionid=1) / PPP(proto=0x21) / IN4 / SEG, 1, -1),
    "pppoe compressed protocol": (1, raw(ETH / PPPoE(sessionid=1, len=200), b"\x57", IN6 / SEG), 1, -1),
    "mpls": (1, ETH / MPLS(label=16, s=0) / MPLS(label=17, s=1) / IN4 / SEG, 1, -1),
    "mpls pseudowire": (
        1,
        raw(Ether(type=0x8847, dst=ETH.dst), struct.pack("!I", 17 << 12 | 0x1FF), bytes(4), ETH_2 / IN4 / SEG),
        1,
        -1,
    ),
    "mpls ethernet": (
        1,
        raw(
            Ether(type=0x8847, dst=ETH.dst),
            struct.pack("!I", 17 << 12 | 0x1FF),
            Ether(dst="45:00:11:22:33:44") / IN4 / SEG,
        ),
        1,
        -1,
    ),
    "null, little endian": (0, raw(b"\x02\0\0\0", IN4 / SEG), 1, -1),
    "null, big endian": (0, raw(b"\0\0\0\x1e", IN6 / SEG), 1, -1),
    "loop": (108, raw(b"\0\0\0\x18", IN6 / GRAM), 1, -1),
    "null with hdlc": (0, raw(b"\x0f\0\x08\0", IN4 / GRAM), 1, -1),
    "raw 12": (12, IN4 / SEG, 1, -1),
    "raw 101": (101, IN6 / GRAM, 1, -1),
    "raw 228": (228, IN4 / GRAM, 1, -1),
    "raw 229": (229, IN6 / SEG, 1, -1),
    "sll": (113, CookedLinux(proto=0x0800) / IN4 / SEG, 1, -1),
    "sll vlan": (113, CookedLinux(proto=0x8100) / Dot1Q(vlan=9) / IN4 / SEG, 1, 9),
    "sll2": (276, CookedLinuxV2(proto=0x86DD) / IN6 / SEG, 1, -1),
    "ppp": (9, raw(b"\xff\x03\0\x21", IN4 / SEG), 1, -1),
    "ppp bare": (9, raw(b"\0\x57", IN6 / SEG), 1, -1),
    "ppp serial": (50, raw(b"\xff\x03\x21", IN4 / SEG), 1, -1),
    "ppp hdlc": (50, raw(b"\x0f\0\x08\0", IN4 / SEG), 1, -1),
    "ppp pppd": (166, raw(b"\x01\x03\0\x21", IN4 / SEG), 1, -1),
    "ppp direction": (204, raw(b"\x00\xff\x03\0\x21", IN4 / SEG), 1, -1),
    "pppoe link": (51, PPPoE(sessionid=1) / PPP(proto=0x57) / IN6 / GRAM, 1, -1),
    "cisco hdlc": (104, raw(b"\x0f\0\x86\xdd", IN6 / SEG), 1, -1),
    "802.11": (105, Dot11(type=2, FCfield=1, **WIFI) / SNAP_IP / IN4 / SEG, 1, -1),
    "802.11 qos": (105, Dot11(type=2, subtype=8, FCfield=2, **WIFI) / Dot11QoS() / SNAP_IP / IN4 / SEG, 1, -1),
    "802.11 four addresses": (
        105,
        Dot11(type=2, subtype=8, FCfield=3, addr4=ETH.src, **WIFI) / Dot11QoS() / SNAP_IP / IN4 / GRAM,
        1,
        -1,
    ),
    "radiotap": (127, RadioTap() / Dot11(type=2, FCfield=1, **WIFI) / SNAP_IP / IN4 / SEG, 1, -1),
    "radiotap padded": (
        127,
        raw(
            b"\0\0\x11\0\x03\0\0\0" + bytes(8) + b"\x20",
            bytes(Dot11(type=2, subtype=8, FCfield=1, **WIFI) / Dot11QoS())[:26] + bytes(2),
            SNAP_IP / IN4 / SEG,
        ),
        1,
        -1,
    ),
    "prism": (
        119,
        raw(struct.pack("<II", 0x44, 144) + bytes(136), Dot11(type=2, FCfield=1, **WIFI) / SNAP_IP / IN4 / SEG),
        1,
        -1,
    ),
    "ppi": (192, raw(b"\0\0\x08\0\x01\0\0\0", ETH / Dot1Q(vlan=3) / IN4 / SEG), 1, 3),
    "nflog": (
        239,
        raw(b"\x02\0\0\0", b"\x08\0\x01\0\x08\0\0\0", b"\x06\0\x0a\0ab\0\0", b"\x60\0\x09\0", IN4 / SEG),
        1,
        -1,
    ),
    "pf log": (117, raw(b"\x3d\x02\0\0", bytes(60), IN4 / SEG), 1, -1),
    "enc": (109, raw(b"\x02\0\0\0", bytes(8), IN4 / SEG), 1, -1),
    "ip in ip": (1, ETH / OUTER / IN4 / SEG, 2, -1),
    "6in4": (1, ETH / OUTER / IN6 / SEG, 2, -1),
    "4in6": (1, ETH / OUTER_6 / IN4 / SEG, 2, -1),
    "gre": (1, ETH / OUTER / GRE() / IN4 / SEG, 2, -1),
    "gre all fields": (1, ETH / OUTER / GRE(chksum_present=1, key_present=1, seqnum_present=1) / IN6 / SEG, 2, -1),
    "gre ethernet": (1, ETH / OUTER / GRE(proto=0x6558, key_present=1) / ETH_2 / Dot1Q(vlan=4) / IN4 / SEG, 2, -1),
    "gre mpls": (1, ETH / OUTER / GRE(proto=0x8847) / MPLS(label=16, s=1) / IN4 / SEG, 2, -1),
    "pptp": (
        1,
        ETH
        / IP(src="198.51.100.1", dst="198.51.100.2", proto=47)
        / Raw(raw(bytes.fromhex("3081880b006717800000000600000001"), b"\xff\x03\0\x21", IN4 / SEG)),
        2,
        -1,
    ),
    "pptp by scapy": (1, ETH / OUTER / GRE_PPTP(seqnum_present=1) / PPP(proto=0x21) / IN4 / GRAM, 2, -1),
    "erspan i": (1, ETH / OUTER / GRE(proto=0x88BE) / ETH_2 / IN4 / SEG, 2, -1),
    "erspan ii": (1, ETH / OUTER / GRE(proto=0x88BE, seqnum_present=1) / Raw(raw(bytes(8), ETH_2 / IN4 / SEG)), 2, -1),
    "erspan iii": (
        1,
        ETH / OUTER / GRE(proto=0x22EB, seqnum_present=1) / Raw(raw(bytes(12), ETH_2 / IN4 / SEG)),
        2,
        -1,
    ),
    "etherip": (
        1,
        ETH / IP(src="198.51.100.1", dst="198.51.100.2", proto=97) / Raw(raw(b"\x30\0", ETH_2 / IN4 / SEG)),
        2,
        -1,
    ),
    "vxlan": (1, udp_tunnel(4789) / VXLAN(vni=5, flags=8) / ETH_2 / IN4 / SEG, 2, -1),
    "vxlan vlan outside": (
        1,
        ETH / Dot1Q(vlan=77) / OUTER / UDP(dport=8472) / VXLAN(vni=5, flags=8) / ETH_2 / IN6 / SEG,
        2,
        77,
    ),
    "vxlan gpe": (1, udp_tunnel(4790) / Raw(raw(b"\x0c\0\0\x01\0\0\x01\0", IN4 / SEG)), 2, -1),
    "geneve": (1, udp_tunnel(6081) / GENEVE(vni=5) / ETH_2 / IN4 / GRAM, 2, -1),
    "geneve options": (1, udp_tunnel(6081) / Raw(raw(b"\x02\0\x08\0\0\0\x05\0", bytes(8), IN4 / GRAM)), 2, -1),
    "gtp-u": (1, udp_tunnel(2152) / GTP_U_Header(teid=1) / IN4 / SEG, 2, -1),
    "gtp-u sequence": (1, udp_tunnel(2152) / GTP_U_Header(teid=1, S=1, seq=4) / IN6 / SEG, 2, -1),
    "gtp-u extension": (
        1,
        udp_tunnel(2152) / GTP_U_Header(teid=1, E=1, next_ex=0x85) / GTPPDUSessionContainer(type=1, QFI=3) / IN4 / GRAM,
        2,
        -1,
    ),
    "teredo": (1, udp_tunnel(3544) / Raw(raw(TEREDO / SEG)), 2, -1),
    "teredo indications": (1, udp_tunnel(3544) / Raw(raw(b"\0\x01\0\0" + bytes(9), bytes(8), TEREDO / SEG)), 2, -1),
    "l2tp": (1, udp_tunnel(1701) / Raw(raw(b"\0\x02\0\x01\0\x02\xff\x03\0\x21", IN4 / SEG)), 2, -1),
    "l2tp all fields": (
        1,
        udp_tunnel(1701) / Raw(raw(b"\x4a\x02\0\x40\0\x01\0\x02\0\0\0\0\0\x02ab\0\x21", IN4 / SEG)),
        2,
        -1,
    ),
    "capwap 802.3": (1, udp_tunnel(5247) / Raw(raw(b"\0\x10\0\0\0\0\0\0", ETH_2 / IN4 / SEG)), 2, -1),
    "capwap 802.11": (
        1,
        udp_tunnel(5247) / Raw(raw(b"\0\x10\x03\0\0\0\0\0", Dot11(type=2, FCfield=1, **WIFI) / SNAP_IP / IN4 / SEG)),
        2,
        -1,
    ),
    "capwap 802.11 swapped": (
        1,
        udp_tunnel(5247)
        / Raw(
            raw(
                b"\0\x10\x03\0\0\0\0\0\x01\x08",
                bytes(Dot11(type=2, FCfield=1, **WIFI))[2:22] + b"\x01\x10",
                SNAP_IP / IN4 / SEG,
            )
        ),
        2,
        -1,
    ),
    "four deep": (1, ETH / OUTER / OUTER_6 / GRE() / IN6 / IN4 / SEG, 4, -1),
    "vxlan in gtp": (
        1,
        udp_tunnel(2152) / GTP_U_Header(teid=1) / OUTER / UDP(dport=4789) / VXLAN(flags=8) / ETH_2 / IN4 / SEG,
        3,
        -1,
    ),
}


WIRES = {name: (case[0], bytes(case[1])) for name, case in CASES.items()}


def inner(packet: bytes) -> tuple[bytes, Packet]:
    """The innermost packet, which every case of the table ends with, taken apart by scapy."""
    for header, layer in ((b"\x0a\0\0\x01\xcb\0\x71\x09", IP), (bytes(TEREDO)[8:40], IPv6), (bytes(IN6)[8:40], IPv6)):
        at = packet.rfind(header)
        if at >= 0:
            start = at - (12 if layer is IP else 8)
            return header, layer(packet[start:])
    raise AssertionError("no inner packet")


def decoded(link: int, packet: bytes, frames: Frames | None = None) -> tuple[object, ...]:
    frames = frames or Frames()
    status = frames.decode(link, packet, 0, len(packet), 0)
    if not status:
        return (0, *sorted(frames.counts.items()))
    payload = frames.buf[frames.payload_start : frames.payload_end]
    tcp = (frames.seq, frames.flags) if status == L4_TCP else ()
    return (status, frames.key, frames.sport, frames.dport, payload, frames.cut, frames.depth, frames.vlan, *tcp)


@pytest.mark.parametrize("name", CASES)
def test_as_scapy(name: str) -> None:
    link, wire = WIRES[name]
    _, _, depth, vlan = CASES[name]
    addresses, theirs = inner(wire)
    segment = theirs[TCP] if TCP in theirs else theirs[UDP]
    ports = struct.pack("!HH", segment.sport, segment.dport)
    expected: tuple[object, ...] = (addresses + ports, segment.sport, segment.dport, BODY, False, depth, vlan)
    if TCP in theirs:
        expected = (L4_TCP, *expected, segment.seq, int(segment.flags))
    else:
        expected = (L4_UDP, *expected)
    assert bytes(segment.payload) == BODY
    assert decoded(link, wire) == expected


@pytest.mark.parametrize("name", CASES)
def test_neighbours_in_the_buffer_are_not_read(name: str) -> None:
    """The packet amid other bytes, and every prefix of it, gives the same as alone: nothing past `end` is looked at."""
    link, wire = WIRES[name]
    for size in range(len(wire) + 1):
        alone = decoded(link, wire[:size])
        for junk in (b"\xff", b"\x45"):
            frames = Frames()
            buf = junk * 64 + wire[:size] + junk * 256
            status = frames.decode(link, buf, 64, 64 + size, 0)
            assert status == alone[0], size
            if status:
                payload = frames.buf[frames.payload_start : frames.payload_end]
                assert (frames.key, frames.cut, payload) == (alone[1], alone[5], alone[4]), size
            else:
                assert tuple(sorted(frames.counts.items())) == alone[1:], size


@pytest.mark.parametrize("name", CASES)
def test_padding_is_cut(name: str) -> None:
    link, wire = WIRES[name]
    assert decoded(link, wire + b"\xee" * 20) == decoded(link, wire)


@pytest.mark.parametrize("packet", [ETH / IN4 / SEG, ETH / IN4 / GRAM, ETH / IN6 / GRAM, ETH / OUTER / IN4 / SEG])
def test_short_snapshot(packet: Packet) -> None:
    wire = bytes(packet)
    for missing in range(1, len(BODY) + 1):
        frames = Frames()
        assert frames.decode(1, wire, 0, len(wire) - missing, 0)
        assert frames.cut
        assert frames.buf[frames.payload_start : frames.payload_end] == BODY[: len(BODY) - missing]


def test_header_cut_in_its_options() -> None:
    wire = bytes(ETH / IN4 / TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)]))
    frames = Frames()
    assert frames.decode(1, wire, 0, 54, 0) == L4_TCP
    assert frames.cut and frames.payload_start == frames.payload_end == 54
    assert frames.decode(1, wire, 0, 47, 0) == 0
    assert frames.counts == {"malformed": 1}


@pytest.mark.parametrize("base", [IN4, IN6])
def test_authentication_header(base: Packet) -> None:
    wire = bytes(ETH / base / AH(nh=6, payloadlen=4, icv=b"0123456789ab") / Raw(bytes(SEG)))
    result = decoded(1, wire)
    assert result[0] == L4_TCP and result[2:8] == (40000, 80, BODY, False, 1, -1)


def test_segmentation_offload() -> None:
    for packet in (ETH / IP(src="10.0.0.1", dst="203.0.113.9", len=0) / SEG, ETH / IPv6(plen=0, nh=6) / SEG):
        frames = Frames()
        assert frames.decode(1, bytes(packet), 0, len(packet), 0) == L4_TCP
        assert frames.buf[frames.payload_start : frames.payload_end] == BODY
        assert not frames.cut


REFUSED = {
    "arp": (1, ETH / ARP() / Raw(bytes(30)), "not_ip"),
    "stp": (1, Dot3(src=ETH.src, dst=ETH.dst) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(40)), "not_ip"),
    "unknown link": (147, ETH / IN4 / SEG, "not_ip"),
    "encrypted 802.11": (105, Dot11(type=2, FCfield=0x41, **WIFI) / SNAP_IP / IN4 / SEG, "not_ip"),
    "beacon": (105, Dot11(type=0, subtype=8, **WIFI) / Raw(bytes(60)), "not_ip"),
    "icmp echo": (1, ETH / IN4 / ICMP() / Raw(bytes(40)), "other_l4"),
    "icmp error": (1, ETH / OUTER / ICMP(type=3, code=3) / IPerror(bytes(IN4 / GRAM)), "icmp_quoted"),
    "icmpv6 error": (1, ETH / OUTER_6 / ICMPv6DestUnreach() / Raw(bytes(IN6 / GRAM)), "icmp_quoted"),
    "icmp error in gre": (1, ETH / OUTER / GRE() / IN4 / ICMP(type=11) / IPerror(bytes(IN4 / GRAM)), "icmp_quoted"),
    "esp": (1, ETH / IP(proto=50) / Raw(bytes(40)), "other_l4"),
    "five tags": (1, ETH / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / IN4 / SEG, "too_deep"),
    "five deep": (1, ETH / OUTER / OUTER / OUTER / OUTER / IN4 / SEG, "too_deep"),
    "200 extensions": (1, raw(ETH / IPv6(nh=60, plen=1600), (b"\x3c" + bytes(7)) * 200), "too_deep"),
    "ppi in ppi without end": (192, b"\0\0\x08\0\xc0\0\0\0" * 40, "too_deep"),
    "ethernet in mpls in ethernet": (
        1,
        raw(Ether(type=0x8847), *[raw(struct.pack("!I", 0x11FF), Ether(type=0x8100), b"\0\x05\x88\x47")] * 40),
        "too_deep",
    ),
    "ip in gre in ip without end": (
        1,
        raw(ETH_IP, *[IP(proto=47, len=2000) / GRE(proto=0x0800)] * 40),
        "too_deep",
    ),
    "labels without end": (1, raw(Ether(type=0x8847), struct.pack("!I", 0x10000) * 40), "too_deep"),
    "short header length": (1, raw(ETH_IP, b"\x44", bytes(IN4 / SEG)[1:]), "malformed"),
    "short tcp header": (1, ETH / IN4 / TCP(dataofs=4) / Raw(BODY), "malformed"),
    "long tcp header": (1, ETH / IN4 / TCP(dataofs=15), "malformed"),
    "long udp length": (1, ETH / IN4 / UDP(len=200) / Raw(BODY), "malformed"),
    "short udp length": (1, ETH / IN4 / UDP(len=7) / Raw(BODY), "malformed"),
    "total below header": (1, ETH / IP(len=12) / SEG, "malformed"),
    "fragment of a fragment": (
        1,
        ETH / IN6 / IPv6ExtHdrFragment(nh=44) / IPv6ExtHdrFragment(m=1) / Raw(bytes(40)),
        "malformed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    link, packet, reason = REFUSED[name]
    wire = bytes(packet)
    frames = Frames()
    assert frames.decode(link, wire, 0, len(wire), 0) == 0
    assert frames.counts == {reason: 1}


@pytest.mark.parametrize("port", [1701, 2152, 3544, 4789, 4790, 5247, 6081, 8472])
@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b"",
        bytes(60),
        b"\x08" + bytes(7) + bytes(ETH_2 / ARP()),
        b"\x08" + bytes(7) + bytes(ETH_2 / IN4 / SEG)[:-4],  # claims more than its carrier has
        b"\x30\xff\0\x40\0\0\0\x01" + bytes(IN4 / SEG)[:-4],
        b"\x30\x1a\0\x08\0\0\0\x01" + bytes(IN4 / SEG),  # a GTP-U message that is not user traffic
        b"\0\x02\0\x01\0\x02\xff\x03\xc0\x21" + bytes(IN4 / SEG),  # LCP
    ],
)
def test_ordinary_traffic_on_a_tunnel_port(port: int, body: bytes) -> None:
    for sport, dport in ((50000, port), (port, 50000)):
        wire = bytes(ETH / IN4 / UDP(sport=sport, dport=dport) / Raw(body))
        status, _, *got = decoded(1, wire)
        assert (status, got) == (L4_UDP, [sport, dport, body, False, 1, -1])


def test_too_deep_in_udp_gives_the_last_carrier() -> None:
    packet = ETH / OUTER / OUTER / OUTER / OUTER / UDP(sport=50000, dport=2152) / GTP_U_Header(teid=1) / IN4 / SEG
    result = decoded(1, bytes(packet))
    assert result[0] == L4_UDP and result[3] == 2152 and result[6] == MAX_DEPTH


def test_nothing_is_left_over_from_the_packet_before() -> None:
    frames = Frames()
    for name in ("vlan", "ipv6 udp", "vxlan", "plain tcp", "sll2", "plain udp", "four deep", "plain udp"):
        link, wire = WIRES[name]
        assert decoded(link, wire, frames) == decoded(link, wire)


def fragments_of(packet: bytes, size: int, version: int) -> list[bytes]:
    """The Ethernet frames that carry `packet` (an IP payload) as fragments of `size` bytes."""
    frames = []
    for at in range(0, len(packet), size):
        more = at + size < len(packet)
        if version == 4:
            head = IP(src="10.0.0.1", dst="203.0.113.9", id=99, proto=17, flags="MF" if more else 0, frag=at // 8)
        else:
            head = IN6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=99, nh=17, offset=at // 8, m=int(more))
        frames.append(bytes(ETH / head / Raw(packet[at : at + size])))
    return frames


@pytest.mark.parametrize("version", [4, 6])
@given(st.randoms(use_true_random=False), st.sampled_from([8, 16, 24, 48, 104]))
@settings(max_examples=40, deadline=None)
def test_fragments_in_any_order(version: int, random: object, size: int) -> None:
    whole = bytes((IN4 if version == 4 else IN6) / UDP(sport=40001, dport=53) / Raw(BODY * 4))
    head = 20 if version == 4 else 40
    wires = fragments_of(whole[head:], size, version)
    wires += wires[:2]
    random.shuffle(wires)  # type: ignore[attr-defined]
    frames = Frames()
    results = [decoded(1, wire, frames) for wire in wires]
    done = [result for result in results if result[0]]
    assert done
    key = whole[12:24] if version == 4 else whole[8:44]
    for result in done:
        assert result == (L4_UDP, key, 40001, 53, BODY * 4, False, 1, -1)
    assert frames.counts["fragment_held"] == len(wires) - len(done)


def test_fragments_inside_a_tunnel() -> None:
    whole = bytes(UDP(sport=40001, dport=53, chksum=0) / Raw(BODY * 4))
    frames = Frames()
    results = []
    for wire in fragments_of(whole, 64, 4):
        packet = udp_tunnel(4789) / VXLAN(vni=5, flags=8) / Raw(wire)
        results.append(decoded(1, bytes(packet), frames))
    assert [result[0] for result in results] == [0] * (len(results) - 1) + [L4_UDP]
    assert results[-1][4] == BODY * 4 and results[-1][6] == 2


def test_tunnel_in_fragments() -> None:
    whole = bytes(GRE() / IN4 / SEG)
    frames = Frames()
    results = []
    for at in range(0, len(whole), 32):
        more = "MF" if at + 32 < len(whole) else 0
        head = IP(src="198.51.100.1", dst="198.51.100.2", id=3, proto=47, flags=more, frag=at // 8)
        results.append(decoded(1, bytes(ETH / head / Raw(whole[at : at + 32])), frames))
    assert results[-1][:2] == (L4_TCP, bytes(IN4)[12:20] + bytes(SEG)[:4])
    assert results[-1][4:7] == (BODY, False, 2)


def test_cut_fragments() -> None:
    wires = fragments_of(bytes(UDP(sport=40001, dport=53, chksum=0) / Raw(BODY * 4)), 64, 4)
    frames = Frames()
    assert frames.decode(1, wires[0], 0, len(wires[0]) - 10, 0) == L4_UDP
    assert frames.cut and frames.payload_end - frames.payload_start == 64 - 8 - 10
    assert frames.decode(1, wires[1], 0, len(wires[1]) - 10, 0) == 0
    assert frames.counts == {"fragment_cut": 1}
    assert len(frames.fragments) == 0


def test_fragments_of_a_fragment_do_not_nest() -> None:
    """A chain of datagrams that complete one another must not recurse: a Fragment header is read once for a packet."""
    nested = bytes(IPv6ExtHdrFragment(id=2, nh=17, m=1)) + bytes(40)
    frames = Frames()
    for at, more in ((0, 1), (24, 0)):
        packet = ETH / IN6 / IPv6ExtHdrFragment(id=1, nh=44, offset=at // 8, m=more) / Raw(nested[at : at + 24])
        assert frames.decode(1, bytes(packet), 0, len(packet), 0) == 0
    assert frames.counts == {"fragment_held": 1, "malformed": 1}


LINKS = sorted({case[0] for case in CASES.values()} | {6, 163, 147, 65535, -1})


@given(st.sampled_from(LINKS), st.binary(max_size=300))
@settings(max_examples=600, deadline=None)
def test_any_bytes(link: int, junk: bytes) -> None:
    check_sane(link, junk)


@given(
    st.sampled_from(sorted(CASES)),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 400),
)
@settings(max_examples=600, deadline=None)
def test_mutations(name: str, changes: list[tuple[int, int]], size: int) -> None:
    link, whole = WIRES[name]
    wire = bytearray(whole)
    for at, value in changes:
        wire[at % len(wire)] = value
    check_sane(link, bytes(wire[:size]))


@given(st.sampled_from(sorted(CASES)), st.integers(0, 150), st.binary(max_size=80))
@settings(max_examples=600, deadline=None)
def test_spliced(name: str, keep: int, junk: bytes) -> None:
    link, wire = WIRES[name]
    check_sane(link, wire[:keep] + junk)


def check_sane(link: int, wire: bytes) -> None:
    frames = Frames()
    buf = b"\x45" * 16 + wire + b"\x45" * 16
    status = frames.decode(link, buf, 16, 16 + len(wire), 0)
    assert decoded(link, wire)[0] == status
    if not status:
        assert sum(frames.counts.values()) >= 1
        return
    assert status in (L4_TCP, L4_UDP)
    assert len(frames.key) in (12, 36)
    assert struct.pack("!HH", frames.sport, frames.dport) == frames.key[-4:]
    low, high = (16, 16 + len(wire)) if frames.buf is buf else (0, len(frames.buf))
    assert low <= frames.payload_start <= frames.payload_end <= high
    assert 1 <= frames.depth <= MAX_DEPTH


def test_offsets_outside_the_buffer() -> None:
    frames = Frames()
    assert frames.decode(1, b"\0" * 10, 0, 400, 0) == 0
    assert frames.decode(127, b"", 0, 400, 0) == 0
    assert frames.counts == {"malformed": 2}
