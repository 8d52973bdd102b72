"""Cases of what lies around IP: link layers, tags, tunnels, fragments, extension headers, file formats.

Each carries the same three contacts of one client, one by UDP and two by TCP, so that a link type that is read for one
of them only shows.
"""

from __future__ import annotations

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    fragment6,
)
from scapy.layers.l2 import GRE, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as Layer

from pcaps.cases import Made, case
from pcaps.files import gzip_members, pcap, pcapng
from pcaps.hellos import APPLICATION, SERVER_HELLO, hello
from pcaps.packets import (
    CLIENT,
    ETHERNET,
    LINUX_SLL,
    LINUX_SLL2,
    NULL,
    OK,
    RAW,
    RESOLVER,
    SERVER,
    Capture,
    Packet,
    Tcp,
    Wrap,
    frame,
    get,
    question,
    resolve,
)

CLIENT_6 = "2001:db8:5::5"
SERVER_6 = "2001:db8:a::10"
RESOLVER_6 = "2001:db8:5::53"


def three_contacts(capture: Capture, *, v6: bool = False) -> Capture:
    """A question for cdn.good.example, a request to www.good.example, a hello for www.bad.example."""
    client, server = (CLIENT_6, SERVER_6) if v6 else (CLIENT, SERVER)
    if v6:
        resolve(capture, "cdn.good.example", "2001:db8:a::20", client=client, resolver=RESOLVER_6)
    else:
        resolve(capture, "cdn.good.example", "192.0.2.20")
    web = Tcp(capture, (client, 40_001), (server, 80)).open()
    web.send(get("www.good.example", "/index.html")).receive(OK).close()
    Tcp(capture, (client, 40_002), (server, 443)).open().send(hello("www.bad.example")).receive(SERVER_HELLO).close()
    return capture


def on_link(link: int, wrap: Wrap) -> Capture:
    """The three contacts on a link of another kind."""
    return three_contacts(Capture(link, wrap))


@case("vlan", "One 802.1Q tag (VLAN 100) before IP: names are found behind it.")
def vlan() -> Made:
    return on_link(ETHERNET, lambda packet: bytes(frame() / Dot1Q(vlan=100) / packet))


@case("qinq", "Two tags, 802.1ad outside and 802.1Q inside, as carriers hand over customers' networks.")
def qinq() -> Made:
    return on_link(ETHERNET, lambda packet: bytes(frame() / Dot1AD(vlan=7) / Dot1Q(vlan=100) / packet))


@case("pppoe", "A PPPoE session (RFC 2516), the usual access line of small offices.")
def pppoe() -> Made:
    return on_link(ETHERNET, lambda packet: bytes(frame() / PPPoE(sessionid=17) / PPP() / packet))


@case("mpls", "Two MPLS labels (RFC 3032). Nothing in the header says that IP follows, its first nibble must.")
def mpls() -> Made:
    labels = MPLS(label=100, s=0, ttl=64) / MPLS(label=200, s=1, ttl=64)
    return on_link(ETHERNET, lambda packet: bytes(frame() / labels / packet))


@case("sll", "Linux cooked capture, what tcpdump -i any wrote for twenty years.")
def sll() -> Made:
    header = {"pkttype": 4, "lladdrtype": 1, "lladdrlen": 6, "src": b"\x02\0\0\0\0\x05"}
    return on_link(LINUX_SLL, lambda packet: bytes(CookedLinux(**header, proto=_ethertype(packet)) / packet))


@case("sll2", "Linux cooked capture, version 2: the type of the packet stands first, the interface is told.")
def sll2() -> Made:
    header = {"ifindex": 3, "lladdrtype": 1, "pkttype": 4, "lladdrlen": 6, "src": b"\x02\0\0\0\0\x05"}
    return on_link(LINUX_SLL2, lambda packet: bytes(CookedLinuxV2(**header, proto=_ethertype(packet)) / packet))


@case("raw-ip", "No link layer at all (tun devices, some firewalls): the first nibble tells IPv4 from IPv6.")
def raw_ip() -> Made:
    capture = on_link(RAW, bytes)
    return three_contacts(capture, v6=True)


@case(
    "bsd-loopback",
    """BSD loopback: four bytes of address family in the byte order of the host that captured; IPv6 has another number
    on each system.""",
)
def bsd_loopback() -> Made:
    capture = on_link(NULL, lambda packet: bytes(Loopback(type=2) / packet))
    capture.wrap = lambda packet: (30).to_bytes(4, "big") + bytes(packet)  # macOS's AF_INET6, the other byte order
    return three_contacts(capture, v6=True)


def _ethertype(packet: Layer) -> int:
    return 0x86DD if isinstance(packet, IPv6) else 0x0800


@case(
    "ipv6-extension-headers",
    """Hop-by-hop options, destination options, a routing header and an atomic fragment (RFC 6946) stand between IPv6
    and the segment of every packet.""",
)
def ipv6_extension_headers() -> Made:
    def wrap(packet: Layer) -> bytes:
        above = packet.payload
        packet.remove_payload()
        between = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0")]) / IPv6ExtHdrDestOpt(
            options=[PadN(optdata=b"\0\0")]
        )
        between = between / IPv6ExtHdrRouting(addresses=[]) / IPv6ExtHdrFragment(offset=0, m=0, id=77)
        packet.nh = 0
        return bytes(frame() / packet / between / above)

    return three_contacts(Capture(ETHERNET, wrap), v6=True)


@case(
    "ip-fragments",
    """A long ClientHello in three IPv4 fragments, the last one first, and a DNS question in two IPv6 fragments, the
    second one first. Between them fragments whose others never come.""",
)
def ip_fragments() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_002), (SERVER, 443)).open()
    first, second, third = fragment(tcp.packet(hello("www.bad.example", post_quantum=True), "PA"), fragsize=800)
    lonely = capture.ip(CLIENT, SERVER) / UDP(sport=40_009, dport=53) / question("lost.bad.example", 9)
    for piece in (third, fragment(lonely, fragsize=16)[0], first, second):
        capture.add(piece)
    tcp.receive(SERVER_HELLO).close()
    datagram = capture.ip(CLIENT_6, RESOLVER_6) / IPv6ExtHdrFragment(id=4711)
    datagram = datagram / UDP(sport=50_001, dport=53) / question("a-rather-long-name-to-cut.news.bad.example", 0x2002)
    datagram[UDP].chksum = 0x1234  # never looked at: a tap sees what the host will judge
    for piece in reversed(fragment6(datagram, 40 + 8 + 40)):
        capture.add(piece)
    return capture


@case(
    "ip-fragments-decoy",
    """A DNS question in three fragments, IPv4 and IPv6, and a fourth that has a harmless name in the place of the
    listed one and does not reach the resolver: it comes first, or behind all others.""",
)
def ip_fragments_decoy() -> Made:
    capture = Capture()
    for number, is_first in enumerate((True, False, True, False), 1):
        name = f"{number}-with-a-name-in-the-middle"
        made = []
        for domain in ("news.bad.example", "news.fan.example"):
            datagram = UDP(sport=50_000 + number, dport=53) / question(f"{name}.{domain}", 0x2000 + number)
            datagram.chksum = 0x1234
            if number < 3:
                whole = capture.ip(CLIENT, RESOLVER) / datagram
                whole.id = number
                made.append(fragment(whole, fragsize=24))
            else:
                whole = capture.ip(CLIENT_6, RESOLVER_6) / IPv6ExtHdrFragment(id=number) / datagram
                made.append(fragment6(whole, 40 + 8 + 24))
        real, decoy = made
        differing = [at for at, piece in enumerate(real) if bytes(piece) != bytes(decoy[at])]
        for piece in (*(decoy[at] for at in differing if is_first), *real):
            capture.add(piece)
        for at in differing:
            if not is_first:
                capture.add(decoy[at])
    return capture


@case("gre", "GRE with a key and a sequence number (RFC 2890) between two routers; the clients are inside.")
def gre() -> Made:
    outer = IP(src="198.51.100.1", dst="198.51.100.2", id=1, ttl=64)
    header = GRE(key_present=1, seqnum_present=1, key=5, sequence_number=9)
    return on_link(ETHERNET, lambda packet: bytes(frame() / outer / header / packet))


@case("ipip", "IPv4 in IPv4 (RFC 2003): the inner addresses are the ones that count.")
def ipip() -> Made:
    outer = IP(src="198.51.100.1", dst="198.51.100.2", id=1, ttl=64)
    return on_link(ETHERNET, lambda packet: bytes(frame() / outer / packet))


@case("6in4", "IPv6 in IPv4 (RFC 4213), the tunnel of hosts whose provider has no IPv6.")
def six_in_four() -> Made:
    outer = IP(src="198.51.100.1", dst="198.51.100.2", id=1, ttl=64)
    return three_contacts(Capture(ETHERNET, lambda packet: bytes(frame() / outer / packet)), v6=True)


@case("vxlan", "VXLAN (RFC 7348): whole Ethernet frames in UDP. No contact of the tunnel's own ends is told.")
def vxlan() -> Made:
    outer = IP(src="198.51.100.1", dst="198.51.100.2", id=1, ttl=64) / UDP(sport=49_999, dport=4789, chksum=0)
    inner = Ether(src="02:00:00:00:01:05", dst="02:00:00:00:01:01")
    return on_link(ETHERNET, lambda packet: bytes(frame() / outer / VXLAN(vni=42, flags=8) / inner / packet))


@case(
    "icmp-quotes",
    """An ICMP error quotes the packet that it is about. The quoted question was never sent by the host that the error
    goes to, so it is no contact.""",
)
def icmp_quotes() -> Made:
    capture = Capture()
    quoted = IP(src="10.0.0.99", dst=SERVER, id=3) / UDP(sport=5_000, dport=53) / question("quoted.bad.example", 1)
    capture.add(capture.ip("10.0.0.1", "10.0.0.99") / ICMP(type=3, code=3) / bytes(quoted))
    return three_contacts(capture)


@case(
    "neither-tcp-nor-udp",
    """A listed address is reached by echo requests, ESP, and a datagram in GRE and in VXLAN, each from its own host:
    contacts like any other. Somebody else's echo request to a host inside is none, nor is what goes elsewhere.""",
)
def neither_tcp_nor_udp() -> Made:
    listed = "203.0.113.66"
    inner = IP(src="10.9.9.9", dst="10.9.9.1", id=2) / UDP(sport=4_000, dport=4_001) / b"carried"
    inner_frame = Ether(src="02:00:00:00:01:05", dst="02:00:00:00:01:01") / inner
    capture = Capture()
    for sequence in range(3):
        capture.add(capture.ip("10.0.0.5", listed) / ICMP(id=7, seq=sequence) / bytes(32))
    capture.add(capture.ip(listed, "10.0.0.5") / ICMP(type=0, id=7) / bytes(32))
    capture.add(IP(src="10.0.0.6", dst=listed, proto=50, id=3) / (bytes(7) + b"\1" + bytes(40)))
    capture.add(capture.ip("10.0.0.7", listed) / GRE() / inner)
    capture.add(capture.ip("10.0.0.8", listed) / UDP(sport=4_789, dport=4_789) / VXLAN(vni=1, flags=8) / inner_frame)
    capture.add(capture.ip(listed, "10.0.0.9") / ICMP(id=8) / bytes(32))
    capture.add(capture.ip("10.0.0.9", listed) / ICMP(type=0, id=8) / bytes(32))
    capture.add(capture.ip("10.0.0.9", "203.0.113.67") / ICMP(id=9) / bytes(32))
    return capture


@case(
    "pcapng-two-interfaces",
    """pcapng with an Ethernet and a raw IP interface, the second with nanoseconds: times must come out in one clock,
    and each packet by its own interface's link type.""",
)
def pcapng_two_interfaces() -> Made:
    lan = three_contacts(Capture())
    tun = Capture(RAW, bytes)
    tun.now_us += 500  # between the packets of the other interface
    resolve(tun, "tunnel.bad.example", "192.0.2.30", client="10.8.0.2", resolver="10.8.0.1")
    merged = sorted(lan.packets + tun.packets)
    return {"input.pcapng": pcapng(merged, (6, 9))}


@case(
    "snaplen-cut",
    """A snapshot length of 220 bytes. The name of the first hello lies before the cut and counts, marked as partial;
    that of the second lies behind and cannot be seen; a question is whole.""",
)
def snaplen_cut() -> Made:
    capture = Capture(snaplen=220)
    resolve(capture, "cdn.good.example", "192.0.2.20")
    early = hello("www.bad.example", post_quantum=True)
    Tcp(capture, (CLIENT, 40_002)).open().send(early, 1400).receive(SERVER_HELLO).close()
    web = Tcp(capture, (CLIENT, 40_003), (SERVER, 80)).open()
    web.send(get("late.bad.example").replace(b"Host:", b"Accept: " + b"x" * 300 + b"\r\nHost:")).receive(OK).close()
    return capture


@case(
    "truncated-file",
    """The capture ends in the middle of a record, as when the disk was full: everything before it is read, the summary
    tells, and that is no failure.""",
)
def truncated_file() -> Made:
    capture = three_contacts(Capture())
    resolve(capture, "last.bad.example", "192.0.2.44", port=50_009)
    return {"input.pcap": pcap(capture.packets, ETHERNET)[:-30]}


@case("gzip", "A gzip file of two members, the second beginning in the middle of a record.")
def gzip() -> Made:
    octets = pcap(three_contacts(Capture()).packets, ETHERNET)
    return {"input.pcap.gz": gzip_members((octets[:1000], octets[1000:]))}


@case(
    "tap-of-two-files",
    """A tap writes each direction into a file of its own. Merged by time they are one conversation: the answer finds
    its question, the hello its connection.""",
)
def tap_of_two_files() -> Made:
    capture = three_contacts(Capture())
    resolve(capture, "again.bad.example", "198.51.100.66", txid=0x3003)
    tls = (
        Tcp(capture, (CLIENT, 40_005), ("198.51.100.66", 443))
        .open()
        .send(hello("again.bad.example"))
        .receive(SERVER_HELLO)
    )
    tls.receive(APPLICATION).close()
    sides: tuple[list[Packet], list[Packet]] = ([], [])
    for packet in capture.packets:
        sides[packet.octets[26:30] != bytes((10, 0, 0, 5))].append(packet)
    return {f"input-{at}.pcap": pcap(side, ETHERNET) for at, side in enumerate(sides, 1)}


@case(
    "tcp-port-reuse",
    """The same addresses and ports are used again two seconds later. The first connection has gone quiet, and its SYN
    must make the second one heard.""",
)
def tcp_port_reuse() -> Made:
    capture = Capture()
    first = Tcp(capture, (CLIENT, 40_002)).open().send(hello("www.good.example")).receive(SERVER_HELLO)
    for _ in range(4):
        first.send(APPLICATION).receive(APPLICATION)
    capture.wait(2)
    Tcp(capture, (CLIENT, 40_002), isn=(7_000_000, 8_000_000)).open().send(hello("www.bad.example")).receive(
        SERVER_HELLO
    )
    return capture


@case(
    "sequence-wraps",
    """Sequence numbers pass 2^32 in the middle of a hello that comes in three segments.""",
)
def sequence_wraps() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_002), isn=(2**32 - 150, 2**32 - 10)).open()
    tcp.send(hello("www.bad.example"), 100).receive(SERVER_HELLO).close()
    return capture
