"""Packets and whole conversations for the cases: fixed times, numbers and addresses, so the same bytes each run.

Only reserved names and addresses stand for made-up sites. Layers below IP come from scapy, DNS messages from dnspython,
what those two would not send is made by hand in the cases.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rrset
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layer

EPOCH_US: Final = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
STEP_US: Final = 1_000  # between two packets

# Link types of capture files (tcpdump.org/linktypes.html).
NULL: Final = 0
ETHERNET: Final = 1
RAW: Final = 101
LINUX_SLL: Final = 113
LINUX_SLL2: Final = 276

CLIENT: Final = "10.0.0.5"
RESOLVER: Final = "10.0.0.53"
SERVER: Final = "192.0.2.10"


class Packet(NamedTuple):
    """One captured packet: when, what of it, and how long it was on the wire."""

    ts_us: int
    octets: bytes
    wire_bytes: int
    link: int


# Clients and resolvers of the cases; every other address is beyond the gateway.
_HOSTS: Final = ip_network("10.0.0.0/8")
_HOSTS6: Final = ip_network("2001:db8:5::/48")
GATEWAY_MAC: Final = "02:00:00:00:00:01"


Wrap = Callable[[Layer], bytes]


def ethernet(packet: Layer) -> bytes:
    """An IP packet in an Ethernet frame as the link on the hosts' side shows it: each host sends under its own MAC, and
    what comes from servers under the gateway's."""
    return bytes(Ether(src=mac_of(packet.src), dst=mac_of(packet.dst)) / packet)


def mac_of(address: str) -> str:
    """Under which MAC an address is met on the hosts' link: the host's own, or the gateway's."""
    packed = ip_address(address)
    if packed.version == 4:
        own = packed in _HOSTS
    else:
        own = packed in _HOSTS6
    return "02:" + packed.packed[-5:].rjust(5, b"\0").hex(":") if own else GATEWAY_MAC


def frame() -> Layer:
    """An Ethernet header with locally administered addresses."""
    return Ether(src="02:00:00:00:00:05", dst="02:00:00:00:00:01")


class Capture:
    """Packets in the order in which they were captured. `wrap` puts an IP packet into the link layer of `link`."""

    def __init__(self, link: int = ETHERNET, wrap: Wrap = ethernet, snaplen: int = 262_144) -> None:
        self.link = link
        self.wrap = wrap
        self.snaplen = snaplen
        self.packets: list[Packet] = []
        self.now_us = EPOCH_US
        self._identification = 0

    def wait(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.now_us += round(seconds * 1_000_000)

    def add(self, packet: Layer) -> None:
        """Capture one IP packet now."""
        self.add_frame(self.wrap(packet))

    def add_frame(self, octets: bytes) -> None:
        """Capture one frame now."""
        self.packets.append(Packet(self.now_us, octets[: self.snaplen], len(octets), self.link))
        self.now_us += STEP_US

    def ip(self, source: str, target: str) -> Layer:
        """An IP header, of version 6 when the addresses are."""
        if ":" in source:
            return IPv6(src=source, dst=target, hlim=64)
        self._identification += 1
        return IP(src=source, dst=target, id=self._identification, ttl=64)

    def udp(self, source: tuple[str, int], target: tuple[str, int], payload: bytes) -> None:
        """Capture one datagram."""
        self.add(self.ip(source[0], target[0]) / UDP(sport=source[1], dport=target[1]) / payload)


class Tcp:
    """A TCP connection. Offsets count the bytes of a direction from 0."""

    def __init__(
        self,
        capture: Capture,
        client: tuple[str, int] = (CLIENT, 40_000),
        server: tuple[str, int] = (SERVER, 443),
        isn: tuple[int, int] = (1_000_000, 2_000_000),
    ) -> None:
        self._capture = capture
        self._ends = (client, server)
        self._isn = isn
        self._sent = [0, 0]

    def packet(self, data: bytes = b"", flags: str = "A", *, server: bool = False, at: int | None = None) -> Layer:
        """A segment, not captured yet; `at` is the offset of its first byte, the next one when left out."""
        here, there = (1, 0) if server else (0, 1)
        source, target = self._ends[here], self._ends[there]
        offset = self._sent[here] if at is None else at
        self._sent[here] = max(self._sent[here], offset + len(data))
        seq = self._isn[here] + (0 if "S" in flags else 1 + offset)
        ack = self._isn[there] + 1 + self._sent[there] if "A" in flags else 0
        segment = TCP(sport=source[1], dport=target[1], seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, flags=flags)
        segment.window = 64_240
        return self._capture.ip(source[0], target[0]) / segment / data

    def segment(self, data: bytes = b"", flags: str = "A", *, server: bool = False, at: int | None = None) -> None:
        """Capture a segment."""
        self._capture.add(self.packet(data, flags, server=server, at=at))

    def open(self) -> Tcp:
        """The handshake."""
        self.segment(flags="S")
        self.segment(flags="SA", server=True)
        self.segment()
        return self

    def send(self, data: bytes, size: int = 0) -> Tcp:
        """The client sends, in segments of `size` bytes, or all at once."""
        for at in range(0, len(data), size or len(data)):
            self.segment(data[at : at + size] if size else data, "PA")
        return self

    def receive(self, data: bytes) -> Tcp:
        """The server sends, and the client acknowledges."""
        self.segment(data, "PA", server=True)
        self.segment()
        return self

    def close(self) -> None:
        """Both sides end."""
        self.segment(flags="FA")
        self._sent[0] += 1
        self.segment(flags="FA", server=True)
        self._sent[1] += 1
        self.segment()


# -- DNS


def question(name: str, txid: int, rrtype: str = "A", edns: int = -1) -> bytes:
    """A question as stub resolvers send it; `edns` is the version of EDNS, -1 for none."""
    message = dns.message.make_query(name, rrtype, use_edns=edns, payload=1232 if edns >= 0 else None)
    message.id = txid
    return message.to_wire()


def answer(name: str, txid: int, *records: str, rrtype: str = "A", rcode: int = 0) -> bytes:
    """An answer; each of `records` is "owner type rdata", with a time to live of 60 s."""
    message = dns.message.make_query(name, rrtype)
    message.id = txid
    message.flags |= dns.flags.QR | dns.flags.RA
    message.set_rcode(rcode)
    for record in records:
        owner, kind, rdata = record.split(" ", 2)
        rrset = dns.rrset.from_text_list(owner + ".", 60, "IN", kind, [rdata], origin=dns.name.root, relativize=False)
        message.answer.append(rrset)
    return message.to_wire()


def resolve(
    capture: Capture,
    name: str,
    *addresses: str,
    client: str = CLIENT,
    resolver: str = RESOLVER,
    port: int = 50_000,
    txid: int = 0x1001,
) -> None:
    """A client asks and is answered with addresses (A and AAAA as they are)."""
    rrtype = "AAAA" if addresses and ":" in addresses[0] else "A"
    capture.udp((client, port), (resolver, 53), question(name, txid, rrtype))
    records = [f"{name} {'AAAA' if ':' in address else 'A'} {address}" for address in addresses]
    capture.udp((resolver, 53), (client, port), answer(name, txid, *records, rrtype=rrtype))


def framed(message: bytes) -> bytes:
    """A DNS message as TCP carries it (RFC 7766 section 8)."""
    return struct.pack(">H", len(message)) + message


def wire_name(*labels: bytes) -> bytes:
    """A name of any bytes (RFC 1035 section 3.1)."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def raw_question(name: bytes, txid: int, rrtype: int = 1) -> bytes:
    """A question for a name that is given in wire form."""
    return struct.pack(">HHHHHH", txid, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", rrtype, 1)


# -- HTTP


def get(host: str, path: str = "/", *, method: str = "GET", more: str = "", body: str = "") -> bytes:
    """A request of HTTP/1.1."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: case/1.0\r\n{more}"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode("latin-1")


OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
