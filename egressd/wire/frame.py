"""From a captured packet to its TCP or UDP segment: link layer, VLAN, IP, fragments, tunnels.

Strategy: one `unpack_from` (or `_plain`) judges whether a packet is what nearly all are, Ethernet with IPv4 without
options or with IPv6, not a fragment, not a tunnel; everything else takes the general way (`links.find_ip`, then header
by header). No object is
made for a packet: the result stays in the attributes of `Frames` until the next call.

Checksums are not looked at: captures on the sending host do not have them yet, and a tap sees what the host will judge.
Reads never pass `end`: the buffer may hold other packets behind it.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812  (a lower-case class name)
from typing import TYPE_CHECKING, Final

from egressd.wire.direction import SYSTEM_PORTS_END
from egressd.wire.fragments import Fragments
from egressd.wire.links import ETHERNET, LINK, MALFORMED, NOT_IP, RAW_IP, RAW_LINKS, TOO_DEEP, find_ip
from egressd.wire.octets import COMPILED, read_u16, read_u32
from egressd.wire.portless import Portless, ends_of
from egressd.wire.tunnels import PORTS, gre_inner, udp_inner

if TYPE_CHECKING:
    from mypy_extensions import i64

L4_TCP: Final = 6
L4_UDP: Final = 17

MAX_DEPTH: Final = 4  # IP headers, the innermost included: PPTP inside 6in4 is three
# IPv6 extension headers. Each should stand once but destination options, and hosts must take any number in any order
# (RFC 8200 section 4.1): as many of the shortest as fit in front of a question in 1,500 bytes.
MAX_EXTENSIONS: Final = 182

# Reasons beside those of links.py, all negative.
_HELD: Final = -4
_OTHER: Final = -5
_QUOTED: Final = -6
_CUT_FRAGMENT: Final = -7
_REASONS: Final = {
    NOT_IP: "not_ip",
    MALFORMED: "malformed",
    TOO_DEEP: "too_deep",
    _HELD: "fragment_held",
    _OTHER: "other_l4",
    _QUOTED: "icmp_quoted",
    _CUT_FRAGMENT: "fragment_cut",
}

# Ethernet + IPv4 + ports + TCP: type, version and header length, total length, flags and fragment offset, protocol,
# ports, sequence number (for UDP: length and checksum), header length and flags of TCP (54 bytes at least).
_PLAIN: Final = Struct("!12xHBxH2xHxB10xHHI4xBB")
_PLAIN_BYTES: Final = 54
_PLAIN6_BYTES: Final = 68  # the same with IPv6
_SEGMENT: Final = Struct("!HHI4xBB")  # TCP: ports, sequence number, header length, flags (RFC 9293 section 3.1)
_DATAGRAM: Final = Struct("!HHH")  # UDP: ports, length (RFC 768)

_FRAGMENTED: Final = 0x3FFF  # "more fragments" and the offset; "don't fragment" and the reserved bit do not count
_MORE: Final = 0x2000
_OPTIONS_HEADERS: Final = frozenset(
    (0, 43, 60, 135, 139, 140)
)  # 8-byte units without the first: RFC 8200, 6275, 7401, 5533
_SEGMENTS: Final = frozenset((L4_TCP, L4_UDP, 51))  # and what may stand before one
_ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))  # RFC 792: these quote the packet they are about


class Frames:
    """Decodes packets, one at a time. One for each pipeline: it holds the fragments of all links.

    After `decode` returned `L4_TCP` or `L4_UDP` these tell of the innermost segment, until the next call:
    `buf` what the offsets refer to (the packet's own buffer or a reassembled datagram) · `key` source address,
    destination address, source port, destination port as on the wire: 12 bytes for IPv4, 36 for IPv6 · `sport`, `dport`
    · `payload_start`, `payload_end` · `cut` the capture lacks bytes of the payload · `depth` IP headers, 1 = not
    tunnelled · `vlan` outermost VLAN id or -1 · `seq`, `flags` for TCP only.

    `rival` is what `decode_rival` is to decode then: fragments may disagree, and the segment be read in two ways.

    `outer`, which the caller empties, holds the ends of every packet that carries no segment of its own, or another
    packet, from the outermost on (`portless.ends_of`), whether there is a segment or not.

    `counts` holds why other packets gave no segment (not_ip, fragment_held, malformed, other_l4, too_deep, icmp_quoted,
    fragment_cut) and what became of fragments (see `Fragments`).
    """

    __slots__ = (
        "_rival_addresses",
        "_rival_depth",
        "_ts_us",
        "buf",
        "counts",
        "cut",
        "depth",
        "dport",
        "flags",
        "fragments",
        "incoming",
        "key",
        "outer",
        "payload_end",
        "payload_start",
        "rival",
        "seq",
        "sport",
        "vlan",
    )

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.fragments = Fragments(self.counts)
        self.incoming = False  # live: the packet at hand came in from the hosts
        self.buf = b""
        self.key = b""
        self.sport = 0
        self.dport = 0
        self.payload_start = 0
        self.payload_end = 0
        self.cut = False
        self.seq = 0
        self.flags = 0
        self.depth = 0
        self.vlan = -1
        self.outer: list[Portless] = []
        self.rival = b""
        self._rival_addresses = b""
        self._rival_depth = 0
        self._ts_us = 0

    def decode(self, link: int, buf: bytes, start: int, end: int, ts_us: int) -> int:
        """Decode the packet `buf[start:end]` of a capture's link type `link`; `ts_us` is its time, used for fragments.

        Returns `L4_TCP` or `L4_UDP` when there is a segment, else 0. Never raises, whatever the bytes.
        """
        try:
            if COMPILED:
                status = self._plain(buf, start, end) if link == 1 else 0
                if status > 0:
                    return status
            elif link == 1 and end - start >= _PLAIN_BYTES:
                kind, version, total, fragment, proto, sport, dport, seq, size, flags = _PLAIN.unpack_from(buf, start)
                if kind == 0x0800 and version == 0x45 and not fragment & _FRAGMENTED:
                    ip_end = start + 14 + total
                    if proto == 6:
                        body = start + 34 + (size >> 4 << 2)
                        if size >= 0x50 and body <= ip_end <= end:
                            self.buf = buf
                            self.key = buf[start + 26 : start + 38]
                            self.sport = sport
                            self.dport = dport
                            self.seq = seq
                            self.flags = flags
                            self.payload_start = body
                            self.payload_end = ip_end
                            self.cut = False
                            self.depth = 1
                            self.vlan = -1
                            return L4_TCP
                    elif proto == 17 and dport not in PORTS and sport not in PORTS:
                        stop = start + 34 + (seq >> 16)
                        if start + 42 <= stop <= ip_end <= end:
                            self.buf = buf
                            self.key = buf[start + 26 : start + 38]
                            self.sport = sport
                            self.dport = dport
                            self.payload_start = start + 42
                            self.payload_end = stop
                            self.cut = False
                            self.depth = 1
                            self.vlan = -1
                            return L4_UDP
                elif kind == 0x86DD:
                    status = self._plain(buf, start, end)
                    if status > 0:
                        return status
            status = self._any(link, buf, start, end, ts_us)
        except (IndexError, StructError):
            status = MALFORMED
        if status > 0:
            return status
        reason = _REASONS[status]
        self.counts[reason] = self.counts.get(reason, 0) + 1
        return 0

    def decode_rival(self) -> int:
        """Decode the other reading of the fragments that `decode` put together last, as `decode` does."""
        whole = self.rival
        self.rival = b""
        self.depth = self._rival_depth
        self.cut = False
        try:
            status = self._rival_carried(whole, self._rival_addresses)
        except (IndexError, StructError):
            status = MALFORMED
        self.outer.clear()  # told of the first reading
        return max(status, 0)

    def _plain(self, buf: bytes, start: i64, end: i64) -> int:
        """What nearly all packets are, as compiled code judges it best, and Python for IPv6; 0 when it is not that."""
        if end - start < _PLAIN_BYTES:
            return 0
        kind: i64 = read_u16(buf, start + 12)
        proto: i64
        if kind == 0x0800:
            if buf[start + 14] != 0x45 or read_u16(buf, start + 20) & _FRAGMENTED:
                return 0
            proto = buf[start + 23]
            return self._segment(buf, start + 26, 8, proto, start + 14 + read_u16(buf, start + 16), end)
        if kind != 0x86DD or end - start < _PLAIN6_BYTES or buf[start + 14] >> 4 != 6:
            return 0
        size: i64 = read_u16(buf, start + 18)
        proto = buf[start + 20]
        return self._segment(buf, start + 22, 32, proto, start + 54 + size, end) if size else 0

    def _segment(self, buf: bytes, key: i64, width: i64, proto: i64, stop: i64, end: i64) -> int:
        """The segment behind the addresses at `key`, `width` bytes of them, in an IP packet that ends at `stop`; 0 when
        it is not a plain one."""
        ports: i64 = key + width
        body: i64
        if proto == L4_TCP:
            size: i64 = buf[ports + 12]
            body = ports + (size >> 4 << 2)
            if size < 0x50 or body > stop or stop > end:
                return 0
            self.seq = read_u32(buf, ports + 4)
            self.flags = buf[ports + 13]
        elif proto == L4_UDP:
            body = ports + 8
            inside: i64 = ports + read_u16(buf, ports + 4)
            if inside < body or inside > stop or stop > end:
                return 0
            if read_u16(buf, ports) in PORTS or read_u16(buf, ports + 2) in PORTS:
                return 0
            stop = inside
        else:
            return 0
        self.buf = buf
        self.key = buf[key : ports + 4]
        self.sport = read_u16(buf, ports)
        self.dport = read_u16(buf, ports + 2)
        self.payload_start = body
        self.payload_end = stop
        self.cut = False
        self.depth = 1
        self.vlan = -1
        return L4_TCP if proto == L4_TCP else L4_UDP

    def _any(self, link: int, buf: bytes, start: int, end: int, ts_us: int) -> int:
        """The general way, for every link type. Like all below it returns L4_TCP, L4_UDP or a negative reason."""
        self._ts_us = ts_us
        self.buf = buf
        self.outer.clear()
        self.depth = 0
        kind = RAW_IP if link in RAW_LINKS else LINK + link
        offset, self.vlan = find_ip(kind, buf, start, end)
        return self._ip(buf, offset, end) if offset >= 0 else offset

    def _ip(self, buf: bytes, offset: int, end: int) -> int:
        if self.depth >= MAX_DEPTH:
            return TOO_DEEP
        if offset >= end:
            return MALFORMED
        self.depth += 1
        version = buf[offset] >> 4
        if version == 4:
            return self._ipv4(buf, offset, end)
        if version == 6:
            return self._ipv6(buf, offset, end)
        return NOT_IP

    def _ipv4(self, buf: bytes, offset: int, end: int) -> int:
        """RFC 791 section 3.1."""
        body = offset + ((buf[offset] & 15) << 2)
        if body < offset + 20 or body > end:
            return MALFORMED
        total = buf[offset + 2] << 8 | buf[offset + 3]
        stop = offset + total if total else end  # 0: segmentation offload, the length is not known yet (or > 65535)
        if stop < body:
            return MALFORMED
        self.cut = stop > end
        if self.cut:
            stop = end
        proto = buf[offset + 9]
        addresses = buf[offset + 12 : offset + 20]
        fragment = buf[offset + 6] << 8 | buf[offset + 7]
        if not fragment & _FRAGMENTED:
            return self._carried(proto, addresses, buf, body, stop, False)
        key = addresses + buf[offset + 4 : offset + 6] + buf[offset + 9 : offset + 10]
        more = fragment & _MORE != 0
        return self._fragment(key, proto, (fragment & 0x1FFF) << 3, more, addresses, buf, body, stop)

    def _ipv6(self, buf: bytes, offset: int, end: int) -> int:
        """RFC 8200 section 3."""
        body = offset + 40
        if body > end:
            return MALFORMED
        size = buf[offset + 4] << 8 | buf[offset + 5]
        stop = body + size if size else end  # 0: jumbogram (RFC 2675) or segmentation offload
        self.cut = stop > end
        if self.cut:
            stop = end
        return self._carried(buf[offset + 6], buf[offset + 8 : offset + 40], buf, body, stop, False)

    def _fragment(
        self, key: bytes, proto: int, place: int, more: bool, addresses: bytes, buf: bytes, start: int, end: int
    ) -> int:
        if self.cut:
            # Short captures can never be put together; names mostly lie in the first fragment, so read what is there.
            return _CUT_FRAGMENT if place else self._carried(proto, addresses, buf, start, end, True)
        if not place and not (proto in _SEGMENTS or proto in _OPTIONS_HEADERS):
            ends = ends_of(proto, addresses, buf, start, end)
            if ends is not None:
                self.outer.append(ends)
        fragments = self.fragments
        if self.incoming:  # a host could add to what its resolver sends: these are put together apart
            key += b"\1"
        whole = fragments.add(key, addresses[: len(addresses) >> 1], proto, place, more, buf[start:end], self._ts_us)
        if whole is None:
            if not fragments.rival:
                return _HELD
            return self._rival_carried(fragments.rival, addresses)
        if fragments.rival:
            self.rival = fragments.rival
            self._rival_addresses = addresses
            self._rival_depth = self.depth
        return self._carried(fragments.next_header, addresses, whole, 0, len(whole), True)

    def _rival_carried(self, whole: bytes, addresses: bytes) -> int:
        """What the other reading carries. Only clients are believed: an address is blocked because of an answer, and
        anybody can send a fragment that makes one say something else."""
        status = self._carried(self.fragments.rival_header, addresses, whole, 0, len(whole), True)
        return _HELD if status > 0 and self.sport < SYSTEM_PORTS_END else status

    def _carried(self, proto: int, addresses: bytes, buf: bytes, start: int, end: int, fragmented: bool) -> int:
        """What an IP header carries: extension headers, then a segment or another packet."""
        for _ in range(MAX_EXTENSIONS + 1):
            if proto == L4_TCP:
                return self._tcp(addresses, buf, start, end)
            if proto == L4_UDP:
                return self._udp(addresses, buf, start, end)
            if proto == 51:  # authentication header: 4-byte units without the first two (RFC 4302 section 2.2)
                if start + 12 > end:
                    return MALFORMED
                proto, start = buf[start], start + (buf[start + 1] + 2 << 2)
            elif len(addresses) == 32 and proto in _OPTIONS_HEADERS:
                if start + 8 > end:
                    return MALFORMED
                proto, start = buf[start], start + (buf[start + 1] + 1 << 3)
            elif len(addresses) == 32 and proto == 44:
                if fragmented or start + 8 > end:  # a fragment of a fragment is nothing a host may send
                    return MALFORMED
                fragmented = True
                proto, place = buf[start], buf[start + 2] << 8 | buf[start + 3]
                start += 8
                if place & 0xFFF9:  # else "atomic": whole in one fragment, apart from all others (RFC 6946)
                    key = addresses + buf[start - 4 : start]
                    return self._fragment(key, proto, place & 0xFFF8, place & 1 != 0, addresses, buf, start, end)
            else:
                ends = ends_of(proto, addresses, buf, start, end)
                if ends is not None:
                    self.outer.append(ends)
                return self._other(proto, buf, start, end)
            if start > end:
                return MALFORMED
        return TOO_DEEP

    def _other(self, proto: int, buf: bytes, start: int, end: int) -> int:
        """Protocols that carry a packet (IP in IP, 6in4, GRE, EtherIP, MPLS), and those that carry nothing for us."""
        if proto == 4 or proto == 41:
            return self._ip(buf, start, end)
        if proto == 47:
            kind, start = gre_inner(buf, start, end)
        elif proto == 97:  # EtherIP (RFC 3378): version 3, twelve bits of zero
            kind, start = ETHERNET, start + 2
        elif proto == 137:
            kind = 0x8847
        elif start < end and ((proto == 1 and buf[start] in _ICMP_ERRORS) or (proto == 58 and buf[start] < 128)):
            return _QUOTED
        else:
            return _OTHER
        return self._inside(kind, buf, start, end) if kind else _OTHER

    def _inside(self, kind: int, buf: bytes, start: int, end: int) -> int:
        offset, _ = find_ip(kind, buf, start, end)
        return self._ip(buf, offset, end) if offset >= 0 else offset

    def _tcp(self, addresses: bytes, buf: bytes, start: int, end: int) -> int:
        """RFC 9293 section 3.1. The capture may have cut the header's end off, but not the flags."""
        if start + 14 > end:
            return MALFORMED
        self.sport, self.dport, self.seq, size, self.flags = _SEGMENT.unpack_from(buf, start)
        body = start + (size >> 4 << 2)
        if size < 0x50:
            return MALFORMED
        if body > end:
            if not self.cut:
                return MALFORMED
            body = end
        self.buf = buf
        self.key = addresses + buf[start : start + 4]
        self.payload_start = body
        self.payload_end = end
        return L4_TCP

    def _udp(self, addresses: bytes, buf: bytes, start: int, end: int) -> int:
        """RFC 768; a length of 0 means "to the end" (RFC 2675 section 4)."""
        body = start + 8
        if body > end:
            return MALFORMED
        sport, dport, length = _DATAGRAM.unpack_from(buf, start)
        cut = self.cut
        stop = end
        if length:
            stop = start + length
            if stop < body or (stop > end and not cut):
                return MALFORMED
            cut = stop > end
            if cut:
                stop = end
        if dport in PORTS or sport in PORTS:
            depth = self.depth
            around = len(self.outer)
            self.outer.append((L4_UDP, addresses + buf[start : start + 4], False))
            status = self._tunnelled(sport, dport, buf, body, stop, cut)
            if status:
                return status
            self.depth = depth
            del self.outer[around:]
        self.cut = cut
        self.buf = buf
        self.key = addresses + buf[start : start + 4]
        self.sport = sport
        self.dport = dport
        self.payload_start = body
        self.payload_end = stop
        return L4_UDP

    def _tunnelled(self, sport: int, dport: int, buf: bytes, start: int, end: int, cut: bool) -> int:
        """The packet in a UDP payload, or 0 when the payload is not a tunnel after all, or carries no IP."""
        kind, start = udp_inner(sport, dport, buf, start, end)
        if not kind:
            return 0
        self.cut = False
        status = self._inside(kind, buf, start, end)
        if status in (NOT_IP, MALFORMED, TOO_DEEP):
            return 0
        if self.cut and not cut:  # claims more bytes than its carrier has: not a packet
            return 0
        return status
