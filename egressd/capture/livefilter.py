"""Which packets the kernel hands over: the filter of live capture, as a classic BPF program made from settings.

It is stateless and runs for every packet of an interface, so it asks for what names and openings look like, not for
what a conversation is known to be; the gate (prefilter.py) and the dissector then leave out what they know. Kept:

TCP 1. SYN, FIN and RST, any port: openings, answers, ends.
    2. Anything with payload from or to port 53.
    3. Payload that begins like a TLS handshake record or an SSLv2 hello, an HTTP request of any method that the parser
       knows, a SOCKS request, a PROXY header, or a DNS message that fills the segment: any port, any size. And any
       payload too short to tell, so that a request sent in morsels stays whole.
    4. Young client payload: less than `client_payload_bytes`, toward a web port or toward the lower of the two ports.
       Half of today's ClientHellos have their name in the second segment, which begins like nothing; STARTTLS comes
       this way too, and the beacons of connections older than egressd.
UDP 5. Port 53.
    6. QUIC long headers: of the versions that can be read on any port, of any version on port 443.
    7. DNS responses of any size by content, on any port.
    8. Everything else of at most `small_udp_bytes`, but for QUIC short headers on port 443 (bulk in both directions).
IP  9. Fragments of TCP and UDP, all of them: a name may end in a later one. IPv6 extension headers, but for
       hop-by-hop options before ICMPv6 to a group (listener reports). Authentication headers.
   10. With `tunnels`: IP in IP, 6in4, GRE, EtherIP, MPLS, and UDP on the ports of tunnels.py, whole, bulk and all.
       Without, tunnels are ordinary datagrams or nothing.
   11. Of what is neither: ICMP requests and answers; ESP's first packets; else packets with no more bytes than UDP may
       have. Fragments behind the first tell nothing of it.
   12. One in `bulk_sample` of other payload, by chance: conversations of nothing but large packets are seen too. Of
       small short headers on port 443 one in an eighth of it.

Dropped: bare acknowledgements, bulk, what goes to multicast and broadcast addresses (mDNS, SSDP: not egress), errors of
ICMP, neighbour discovery, ARP and all that is not IP. VLAN tags (two in the frame, beside the one that the kernel takes
off) and PPPoE are looked through.

What this loses: on other than web ports, when the server's port is not the lower one, later segments of a hello in
several; full-size middle segments of hellos above some 3 KB (let `client_payload_bytes` be 65535 to keep them); the
moment at which a conversation of nothing but bulk, older than egressd, is noticed (of one in which the host only
acknowledges, when it sends or ends it); names in IP behind 802.3 LLC, which
Linux does not forward either. tests/capture/test_livefilter.py measures it: of 2,606 names in 376 real captures none,
and of a synthetic link with 98 % bulk it keeps 15 % of the packets and all names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from egressd.capture.bpf import PACKET_OUTGOING, PACKET_TYPE, PROTOCOL, RANDOM, Assembler, Instruction
from egressd.model import ICMP, ICMP6
from egressd.wire.http_head import METHODS
from egressd.wire.portless import REQUESTS
from egressd.wire.quic_keys import SCHEMES
from egressd.wire.tunnels import PORTS

KEEP: Final = 0x40000  # bytes: more than any packet has
WEB_PORTS: Final = (80, 443, 1080, 3128, 8000, 8008, 8080, 8081, 8088, 8118, 8443, 8444, 8888, 9050)

ETHERNET: Final = "ethernet"  # the packet begins with an Ethernet header
IP: Final = "ip"  # with an IP header: tunnels, PPP, WireGuard

_TCP, _UDP = 6, 17
_IGMP, _ESP, _AH, _NO_HEADER = 2, 50, 51, 59
_CARRIERS: Final = (4, 41, 47, 97, 137)  # IP in IP, 6in4, GRE, EtherIP, MPLS in IP
_EXTENSIONS: Final = (43, 44, 51, 60, 135, 139, 140)  # RFC 8200, 4302, 6275, 7401, 5533
_VLAN_TYPES: Final = (0x8100, 0x88A8, 0x9100)
_TAGS_IN_FRAME: Final = 2
_DNS: Final = 53
_QUIC: Final = 443
_DRAFTS: Final = 0xFF000000  # of QUIC, with their numbers in the last byte
_ALL_DRAFTS: Final = 0xFFFFFF00
_FIRST_OF_ESP: Final = 16  # packets of an association, which counts them from 1 (RFC 4303 section 2.2)
_HEADERS_BYTES: Final = 42  # Ethernet, IPv4 and UDP: what a small datagram has beside its payload
_SMALL_OFTENER: Final = 8  # so many times as often as bulk: what only looks like QUIC is met after a few packets
_LEAST_CONTENT_BYTES: Final = 8  # what the tests of content read
_SIGN: Final = 0x80000000

# Memory words of the program.
_NEXT_HEADER, _SEGMENT_BYTES, _L4, _HEADER_BYTES, _PAYLOAD_BYTES, _PORT, _IP_HEADER_BYTES, _GROUP = range(8)


@dataclass(frozen=True)
class FilterSettings:
    """What the filter lets through. Raises ValueError for numbers that cannot be.

    `client_payload_bytes`: TCP payload shorter than this goes through toward web ports and toward lower ports.
    `small_udp_bytes`: the largest UDP payload that goes through whatever it is. `bulk_sample`: of the other UDP
    payloads one in so many goes through, a power of two, 0 for none. `tunnels`: whether tunnels are kept whole.
    """

    web_ports: tuple[int, ...] = WEB_PORTS
    client_payload_bytes: int = 1300
    small_udp_bytes: int = 256
    bulk_sample: int = 64
    tunnels: bool = True

    def __post_init__(self) -> None:
        if len(self.web_ports) > 64 or not all(0 < port < 65536 for port in self.web_ports):
            raise ValueError("web_ports: at most 64 port numbers")
        if not 0 <= self.client_payload_bytes < 65536 or not 0 <= self.small_udp_bytes < 65536:
            raise ValueError("payload sizes lie between 0 and 65535 bytes")
        sample = self.bulk_sample
        if sample < 0 or sample & (sample - 1):
            raise ValueError("bulk_sample: a power of two, or 0")


def live_filter(settings: FilterSettings, begins_with: str, *, loopback: bool = False) -> list[Instruction]:
    """The program for packets that begin with `begins_with` (ETHERNET or IP). On loopback every packet passes twice,
    out and in: with `loopback` the first is dropped."""
    asm = Assembler()
    if loopback:
        asm.load_ancillary(PACKET_TYPE)
        asm.when("==", PACKET_OUTGOING, "drop-link")
    if begins_with == ETHERNET:
        _link(asm, settings.tunnels)
    else:
        asm.load_x_constant(0)
        asm.load_ancillary(PROTOCOL)
        asm.when("==", 0x0800, "ipv4")
        asm.when("==", 0x86DD, "ipv6")
    _end(asm, "link")
    _ipv4(asm, settings)
    _end(asm, "ip")
    _ipv6(asm, settings)
    _tcp(asm, settings)
    _udp(asm, settings)
    return asm.assemble()


def drop_all() -> list[Instruction]:
    """Nothing goes through: until a socket is where it should be."""
    asm = Assembler()
    asm.ret(0)
    return asm.assemble()


def _end(asm: Assembler, part: str) -> None:
    """The two ends, again for each part of the program: conditional jumps reach 255 instructions."""
    asm.label(f"drop-{part}")
    asm.ret(0)
    asm.label(f"keep-{part}")
    asm.ret(KEEP)


def _link(asm: Assembler, tunnels: bool) -> None:
    """Ethernet, VLAN tags, PPPoE: X = place of the IP header."""
    for tag in range(_TAGS_IN_FRAME + 1):
        asm.load_x_constant(14 + 4 * tag)
        asm.load(2, 12 + 4 * tag)
        asm.when("==", 0x0800, "ipv4")
        asm.when("==", 0x86DD, "ipv6")
        if tag < _TAGS_IN_FRAME:
            following = asm.new_label()
            asm.when("==", _VLAN_TYPES[0], following)
            asm.when("==", _VLAN_TYPES[1], following)
            asm.when("==", _VLAN_TYPES[2], following, "not-ip")
            asm.label(following)
    asm.label("not-ip")
    if tunnels:
        asm.when("==", 0x8847, "keep-link")  # MPLS
        asm.when("==", 0x8848, "keep-link")
    asm.when("==", 0x8864, "", "drop-link")
    asm.load(2, 6, indexed=True)  # PPP's protocol field, behind six bytes (RFC 2516 section 4)
    asm.store(_NEXT_HEADER)
    asm.x_to_a()
    asm.alu("+", 8)
    asm.a_to_x()
    asm.load_memory(_NEXT_HEADER)
    asm.when("==", 0x0021, "ipv4")
    asm.when("==", 0x0057, "ipv6")
    if tunnels:
        asm.when("==", 0x0281, "keep-link")


def _ipv4(asm: Assembler, settings: FilterSettings) -> None:
    """RFC 791. Fragments are kept, multicast and broadcast marked; else on to `segment`. X = place of the header."""
    asm.label("ipv4")
    asm.load(4, 16, indexed=True)
    asm.when("==", 0xFFFFFFFF, "ipv4-group")
    asm.alu("&", 0xF0000000)
    asm.when("==", 0xE0000000, "ipv4-group")
    asm.load_constant(0)
    asm.label("ipv4-group")
    asm.store(_GROUP)
    asm.load(1, 9, indexed=True)
    asm.store(_NEXT_HEADER)
    for proto in (_AH, *(_CARRIERS if settings.tunnels else ())):
        asm.when("==", proto, "keep-ip")
    asm.when("==", _TCP, "ipv4-known")
    asm.when("==", _UDP, "ipv4-known", "ipv4-other")
    asm.label("ipv4-known")
    asm.load(2, 6, indexed=True)
    asm.when("&", 0x3FFF, "keep-ip")  # more fragments, or not at place 0
    asm.load(1, 0, indexed=True)
    asm.alu("&", 15)
    asm.alu("<<", 2)
    asm.store(_IP_HEADER_BYTES)
    asm.when(">=", 20, "", "drop-ip")
    asm.load(2, 2, indexed=True)
    asm.when("==", 0, "", "ipv4-sized")
    asm.load_length()  # more than 64 KB by offloading (BIG TCP): no length in the header
    asm.alu_x("-")
    asm.label("ipv4-sized")
    asm.store(_SEGMENT_BYTES)
    asm.load_memory(_IP_HEADER_BYTES)
    asm.alu_x("+")
    asm.store(_L4)
    asm.load_memory(_SEGMENT_BYTES)
    asm.load_x_memory(_IP_HEADER_BYTES)
    asm.alu_x("-")
    asm.store(_SEGMENT_BYTES)
    asm.go("segment")
    asm.label("ipv4-other")
    asm.when("==", _IGMP, "drop-ip")
    asm.load(2, 6, indexed=True)
    asm.when("&", 0x1FFF, "drop-ip")
    asm.load(1, 0, indexed=True)
    asm.alu("&", 15)
    asm.alu("<<", 2)
    asm.alu_x("+")
    asm.store(_L4)
    _neither(asm, settings, ICMP, "ip")


def _ipv6(asm: Assembler, settings: FilterSettings) -> None:
    """RFC 8200. Extension headers are kept, multicast marked; else on to `segment`."""
    asm.label("ipv6")
    asm.load(1, 6, indexed=True)
    asm.store(_NEXT_HEADER)
    asm.load(1, 24, indexed=True)
    asm.when("==", 0xFF, "ipv6-group")
    asm.load_constant(0)
    asm.label("ipv6-group")
    asm.store(_GROUP)  # before any return: the kernel takes a return for a way on, and asks what is written on all ways
    asm.load_memory(_NEXT_HEADER)
    asm.when("==", _TCP, "ipv6-known")
    asm.when("==", _UDP, "ipv6-known")
    for proto in _EXTENSIONS + (_CARRIERS if settings.tunnels else ()):
        asm.when("==", proto, "keep-ipv6")
    asm.when("==", _NO_HEADER, "drop-ipv6")
    asm.when("==", 0, "", "ipv6-other")
    asm.load(1, 40, indexed=True)
    asm.when("==", ICMP6, "", "keep-ipv6")
    asm.load_memory(_GROUP)
    asm.when("==", 0xFF, "drop-ipv6", "keep-ipv6")
    asm.label("ipv6-other")
    asm.x_to_a()
    asm.alu("+", 40)
    asm.store(_L4)
    _neither(asm, settings, ICMP6, "ipv6")
    _end(asm, "ipv6")
    asm.label("ipv6-known")
    asm.x_to_a()
    asm.alu("+", 40)
    asm.store(_L4)
    asm.load(2, 4, indexed=True)
    asm.when("==", 0, "", "ipv6-sized")
    asm.load_length()
    asm.alu_x("-")
    asm.alu("-", 40)
    asm.label("ipv6-sized")
    asm.store(_SEGMENT_BYTES)
    asm.label("segment")
    asm.load_x_memory(_L4)
    asm.load_memory(_NEXT_HEADER)
    asm.when("==", _TCP, "tcp")
    asm.go("udp")


def _neither(asm: Assembler, settings: FilterSettings, icmp: int, part: str) -> None:
    """What is neither TCP nor UDP and carries no packet: `icmp` is ICMP's number in this family. The place behind the
    IP header is in memory."""
    asm.load_memory(_GROUP)
    asm.when("==", 0, "", f"drop-{part}")
    asm.load_x_memory(_L4)
    asm.load_memory(_NEXT_HEADER)
    asm.when("==", icmp, f"icmp-{part}")
    asm.when("==", _ESP, f"esp-{part}")
    asm.load_length()
    asm.when(">", settings.small_udp_bytes + _HEADERS_BYTES, f"{part}-bulk", f"keep-{part}")
    asm.label(f"esp-{part}")
    asm.load(4, 4, indexed=True)
    asm.when(">=", _FIRST_OF_ESP, f"{part}-bulk", f"keep-{part}")
    asm.label(f"icmp-{part}")
    asm.load(1, 0, indexed=True)
    for asked, answer in REQUESTS[icmp].items():
        asm.when("==", asked, f"keep-{part}")
        asm.when("==", answer, f"keep-{part}")
    asm.go(f"drop-{part}")
    _sample(asm, settings, part)


def _tcp(asm: Assembler, settings: FilterSettings) -> None:
    """RFC 9293 section 3.1; X = place of the header."""
    asm.label("tcp")
    asm.load(1, 13, indexed=True)
    asm.when("&", 7, "keep-tcp")
    asm.load(1, 12, indexed=True)
    asm.alu(">>", 4)
    asm.alu("<<", 2)
    asm.store(_HEADER_BYTES)
    asm.load_memory(_SEGMENT_BYTES)
    asm.load_x_memory(_HEADER_BYTES)
    asm.alu_x("-")
    asm.store(_PAYLOAD_BYTES)
    asm.load_x_memory(_L4)
    asm.when("==", 0, "drop-tcp")
    asm.when(">=", _SIGN, "drop-tcp")
    asm.load(2, 0, indexed=True)
    asm.when("==", _DNS, "keep-tcp")
    asm.store(_PORT)
    asm.load(2, 2, indexed=True)
    asm.when("==", _DNS, "keep-tcp")
    for port in settings.web_ports:
        asm.when("==", port, "client")
    asm.load_x_memory(_PORT)
    asm.when_x(">=", "content")
    asm.label("client")
    asm.load_memory(_PAYLOAD_BYTES)
    asm.when(">=", settings.client_payload_bytes, "content", "keep-tcp")
    asm.label("content")
    asm.load_memory(_PAYLOAD_BYTES)
    asm.when(">=", _LEAST_CONTENT_BYTES, "", "keep-tcp")
    asm.load_memory(_HEADER_BYTES)
    asm.load_x_memory(_L4)
    asm.alu_x("+")
    asm.a_to_x()
    _content(asm)
    _sample(asm, settings, "tcp")
    _end(asm, "tcp")


def _content(asm: Assembler) -> None:
    """X = place of a TCP payload of at least `_LEAST_CONTENT_BYTES`: does it begin like something with a name?"""
    asm.load(4, 0, indexed=True)
    asm.when("&", 0x80808080, "not-text")
    asm.when(">=", 0x5B000000, "not-text")
    asm.when(">=", 0x41000000, "", "not-text")
    for word in sorted({(method + b" ")[:4] for method in METHODS} | {b"PROX"}):  # and HAProxy's PROXY header
        asm.when("==", int.from_bytes(word, "big"), "keep-tcp")
    asm.label("not-text")
    asm.when("==", 0x0D0A0D0A, "keep-tcp")  # PROXY header, version 2
    asm.alu(">>", 16)
    asm.when("==", 0x1603, "keep-tcp")
    asm.when("==", 0x0401, "keep-tcp")  # SOCKS: a request to connect, of version 4 and 5, and Tor's to resolve
    asm.when("==", 0x0501, "keep-tcp")
    asm.when("==", 0x05F0, "keep-tcp")
    asm.alu("+", 2)  # a DNS message behind its length (RFC 1035 section 4.2.2) that fills the segment, one question
    asm.store(_PORT)
    asm.load_memory(_PAYLOAD_BYTES)
    asm.store_x(_L4)
    asm.load_x_memory(_PORT)
    asm.when_x("==", "", "not-dns")
    asm.load_x_memory(_L4)
    asm.load(2, 6, indexed=True)
    asm.when("==", 1, "keep-tcp", "tcp-bulk")
    asm.label("not-dns")
    asm.load_x_memory(_L4)
    asm.load(4, 0, indexed=True)  # SSLv2's form of a hello: a length with its upper bit, type 1, version 3 or 2
    asm.alu("&", 0x8000FFFF)
    asm.when("==", 0x80000103, "keep-tcp")
    asm.when("==", 0x80000100, "keep-tcp")


def _udp(asm: Assembler, settings: FilterSettings) -> None:
    """RFC 768; X = place of the header."""
    asm.label("udp")
    asm.load_memory(_SEGMENT_BYTES)
    asm.alu("-", 8)
    asm.when(">=", _SIGN, "drop-udp")
    asm.store(_PAYLOAD_BYTES)
    for place in (0, 2):
        asm.load(2, place, indexed=True)
        asm.when("==", _DNS, "keep-udp")
        if settings.tunnels:
            for port in sorted(PORTS):
                asm.when("==", port, "keep-udp")
    asm.load_memory(_GROUP)
    asm.when("==", 0, "", "drop-udp")
    for place in (0, 2):
        asm.load(2, place, indexed=True)
        asm.when("==", _QUIC, "udp-web")
    asm.load_memory(_PAYLOAD_BYTES)
    asm.when(">", settings.small_udp_bytes, "udp-large", "keep-udp")
    asm.label("udp-web")
    asm.load_memory(_PAYLOAD_BYTES)
    asm.when("==", 0, "keep-udp")
    asm.load(1, 8, indexed=True)
    asm.when(">=", 0xC0, "keep-udp")  # any long header (RFC 9000 section 17.2)
    asm.when("&", 0x80, "udp-other")
    asm.when("&", 0x40, "", "udp-other")  # short header, section 17.3
    if settings.bulk_sample:
        asm.load_memory(_PAYLOAD_BYTES)
        asm.when(">", settings.small_udp_bytes, "udp-bulk")
        asm.load_ancillary(RANDOM)
        asm.when("&", max(1, settings.bulk_sample // _SMALL_OFTENER) - 1, "drop-udp", "keep-udp")
    asm.go("drop-udp")
    asm.label("udp-other")
    asm.load_memory(_PAYLOAD_BYTES)
    asm.when(">", settings.small_udp_bytes, "", "keep-udp")
    asm.label("udp-large")
    asm.when(">=", 20, "", "udp-bulk")  # with a small bound: shorter than what is read below
    asm.load(1, 8, indexed=True)
    asm.when(">=", 0x80, "", "udp-dns")  # a long header, perhaps without its second bit (RFC 9287)
    asm.load(4, 9, indexed=True)
    versions = [scheme.version for scheme in SCHEMES.values()]
    for version in sorted(one for one in versions if one & _ALL_DRAFTS != _DRAFTS):
        asm.when("==", version, "keep-udp")
    asm.alu("&", _ALL_DRAFTS)
    asm.when("==", _DRAFTS, "keep-udp")
    asm.label("udp-dns")
    asm.load(4, 10, indexed=True)  # flags and number of questions: a response to one, Z clear (RFC 1035 section 4.1.1)
    asm.alu("&", 0x8040FFFF)
    asm.when("==", 0x80000001, "", "udp-bulk")
    asm.load(4, 14, indexed=True)  # answers and authorities: at most 127 each
    asm.when("&", 0xFF80FF80, "", "keep-udp")
    _sample(asm, settings, "udp")
    _end(asm, "udp")


def _sample(asm: Assembler, settings: FilterSettings, part: str) -> None:
    """One in so many of what nothing else let through."""
    asm.label(f"{part}-bulk")
    if settings.bulk_sample:
        asm.load_ancillary(RANDOM)
        asm.when("&", settings.bulk_sample - 1, f"drop-{part}", f"keep-{part}")
