"""The pcapng format: draft-ietf-opsawg-pcapng, section numbers below are of revision 02.

Read are section headers (4.1) of either byte order, interface descriptions (4.2) with if_tsresol and if_tsoffset,
enhanced (4.3) and simple (4.4) packets and the packet block of old (appendix A). Other blocks and other options are
skipped over, whatever their size. A block that contradicts itself ends the file with `error`, as in libpcap and
Wireshark.

The loop in `step` knows one thing only, an enhanced packet that lies whole in the buffer; anything else leaves it for
`_read_block`, which either deals with the block or makes it such that the loop can.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from egressd.capture.bytesource import ByteSource
from egressd.capture.pcapfile import MAX_PACKET_BYTES, CaptureReader
from egressd.capture.pcapng_interface import MAX_TS_HIGH, NO_INTERFACE, Interface
from egressd.capture.prefilter import (
    COMPILED,
    ETHERNET,
    FRAGMENT_BIG,
    FRAGMENT_LITTLE,
    GATE_FIELDS,
    GATE_SPAN,
    IPV4_BIG,
    IPV4_LITTLE,
    IPV6_BIG,
    IPV6_LITTLE,
    NEVER,
    TCP4_END,
    UDP4_END,
    Sink,
    frame_is_quiet,
    ipv6_is_quiet,
    opens_quic,
    read_u32,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE: Final = 1
OLD_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6
# Without a packet, but Wireshark gives them a frame number all the same: custom blocks, journal entries, sysdig events.
NUMBERED_BLOCKS: Final = frozenset((0x0BAD, 0x40000BAD, 9, 0x204, 0x216, 0x221))
BYTE_ORDER_LITTLE: Final = b"\x4d\x3c\x2b\x1a"
BYTE_ORDER_BIG: Final = b"\x1a\x2b\x3c\x4d"

BLOCK_MIN_BYTES: Final = 12
PACKET_HEAD_BYTES: Final = 28  # of an enhanced packet and of the old packet block, before the packet's bytes
PACKET_ROOM_BYTES: Final = 32  # the same with the length at the block's end
SIMPLE_HEAD_BYTES: Final = 12
SIMPLE_ROOM_BYTES: Final = 16
SECTION_HEADER_BYTES: Final = 28
INTERFACE_ROOM_BYTES: Final = 20
SPAN: Final = PACKET_HEAD_BYTES + GATE_SPAN
MAX_PACKET_BLOCK_BYTES: Final = 2 * MAX_PACKET_BYTES  # the packet, and comments as long as it
MAX_INTERFACE_BLOCK_BYTES: Final = 1024 * 1024  # sixteen options of the greatest length
MAX_INTERFACES: Final = 65_536  # per section; the old packet block can name no more


class PcapngReader(CaptureReader):
    """A pcapng file. `buf` begins with the type of a section header block, which the caller has recognised."""

    format = "pcapng"

    def __init__(self, source: ByteSource, buf: bytes) -> None:
        super().__init__(source, buf)
        self.interfaces: list[Interface] = []
        self._numbered_blocks = 0
        self._last = self._end - SPAN
        self._set_order(True)

    def _set_order(self, little: bool) -> None:
        order = "<" if little else ">"
        self.little = little
        self._enhanced = Struct(f"{order}IIIIII4x{GATE_FIELDS}").unpack_from
        self._word = Struct(f"{order}I").unpack_from
        self._halves = Struct(f"{order}HH").unpack_from
        self._packet_head = Struct(f"{order}8xIIIII").unpack_from
        self._old_packet_head = Struct(f"{order}8xHHIIII").unpack_from

    def step(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """See `CaptureReader.step`."""
        if COMPILED:
            return self.step_indexed(sink, gate, limit_us)
        quiet = sink.quiet
        quiet_udp = sink.quiet_udp
        unpack, word, interfaces = self._enhanced, self._word, self.interfaces
        fragment = FRAGMENT_LITTLE if self.little else FRAGMENT_BIG
        buf, pos, end, last = self._buf, self._pos, self._end, self._last
        current, link, max_caplen, ipv4, ipv6, interface = -1, 0, 0, NEVER, NEVER, NO_INTERFACE
        half, half_us, plain = -1, 0, True  # the upper half of a timestamp changes every 72 minutes
        first = self.packets + self._numbered_blocks
        number, passed, ts_us = first, 0, self.last_us
        waits = False
        while pos <= last:
            # fmt: off
            (kind, size, which, ts_high, ts_low, caplen,
             ethertype, version, high, low, frag, proto, key, offset, flags) = unpack(buf, pos)
            # fmt: on
            after = pos + size
            if kind != ENHANCED_PACKET or after > end or caplen > size - PACKET_ROOM_BYTES:
                break
            if which != current:
                if which >= len(interfaces):
                    break
                current = which
                interface = interfaces[which]
                link, max_caplen = interface.link, interface.max_caplen
                half = -1
                judged = gate and link == ETHERNET
                ipv4 = (IPV4_LITTLE if self.little else IPV4_BIG) if judged else NEVER
                ipv6 = (IPV6_LITTLE if self.little else IPV6_BIG) if judged else NEVER
            if caplen > max_caplen or size & 3 or word(buf, after - 4)[0] != size:
                break
            if ts_high != half:
                half, half_us = ts_high, ts_high << 32
                plain = interface.plain and ts_high < MAX_TS_HIGH
            now_us = half_us | ts_low if plain else interface.time_of(ts_high, ts_low)
            if now_us > limit_us:
                self.next_us = now_us
                waits = True
                break
            start = pos + PACKET_HEAD_BYTES
            pos = after
            number += 1
            ts_us = now_us
            if ethertype == ipv4:
                if version == 0x45 and not frag & fragment:
                    if proto == 6:
                        if caplen >= TCP4_END and not flags & 7:
                            if high == 0 and low == 20 + (offset >> 4 << 2) and low >= 40:
                                continue
                            if quiet.get(key, 0) > ts_us:
                                continue
                    elif proto == 17 and caplen >= UDP4_END and quiet_udp.get(key, 0) > ts_us:
                        if not opens_quic(buf, start + UDP4_END, start + caplen):
                            continue
            elif ethertype == ipv6 and ipv6_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp):
                continue
            passed += 1
            sink.packet(ts_us, number, link, buf, start, start + caplen, word(buf, start - 4)[0])
        self.gated += number - first - passed
        self.packets += number - first
        self.last_us = ts_us
        self._pos = pos
        if not waits and not self.done:
            waits = self._read_block(sink, gate, limit_us)
        return waits

    def step_indexed(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """`step` as compiled code does it best, with the same results."""
        quiet = sink.quiet
        quiet_udp = sink.quiet_udp
        recent = sink.recent
        little, interfaces, interface = self.little, self.interfaces, NO_INTERFACE
        buf = self._buf
        pos: i64 = self._pos
        end: i64 = self._end
        last: i64 = self._last
        limit: i64 = limit_us
        ts_us: i64 = self.last_us
        first: i64 = self.packets + self._numbered_blocks
        number: i64 = first
        gated: i64 = 0
        current: i64 = -1
        waits = False
        while pos <= last and read_u32(buf, pos, little) == ENHANCED_PACKET:
            size: i64 = read_u32(buf, pos + 4, little)
            which: i64 = read_u32(buf, pos + 8, little)
            ts_high: i64 = read_u32(buf, pos + 12, little)
            now_us: i64 = read_u32(buf, pos + 16, little)
            caplen: i64 = read_u32(buf, pos + 20, little)
            after: i64 = pos + size
            if after > end or caplen > size - PACKET_ROOM_BYTES or size & 3:
                break
            if which != current:
                if which >= len(interfaces):
                    break
                current = which
                interface = interfaces[which]
            if caplen > interface.max_caplen or read_u32(buf, after - 4, little) != size:
                break
            if interface.plain and ts_high < MAX_TS_HIGH:
                now_us = ts_high << 32 | now_us
            else:
                now_us = interface.time_of(ts_high, now_us)
            if now_us > limit:
                self.next_us = now_us
                waits = True
                break
            start: i64 = pos + PACKET_HEAD_BYTES
            orig_len: i64 = read_u32(buf, pos + 24, little)
            pos = after
            number += 1
            ts_us = now_us
            if gate and interface.link == ETHERNET:
                if frame_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp, recent):
                    gated += 1
                    continue
            sink.packet(ts_us, number, interface.link, buf, start, start + caplen, orig_len)
        self.gated += gated
        self.packets += number - first
        self.last_us = ts_us
        self._pos = pos
        if not waits and not self.done:
            waits = self._read_block(sink, gate, limit_us)
        return waits

    def _need(self, want: int) -> bool:
        if self._end - self._pos < want and not self._eof:
            self._refill(want, SPAN, BLOCK_MIN_BYTES)
        return self._end - self._pos >= want

    def _read_block(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """Deal with the block at the position that stopped the loop; True when it is a packet that waits."""
        if not self._need(SPAN) and not self._need(BLOCK_MIN_BYTES):
            self._finish_inside("a block")
            return False
        kind = self._word(self._buf, self._pos)[0]
        if kind == SECTION_HEADER:  # the same number in either byte order
            self._read_section()
            return False
        size = self._word(self._buf, self._pos + 4)[0]
        if size < BLOCK_MIN_BYTES or size & 3:
            self._damaged(f"a block that claims {size} bytes")
        elif kind in (ENHANCED_PACKET, OLD_PACKET):
            return self._read_packet(kind == OLD_PACKET, size, sink, gate, limit_us)
        elif kind == SIMPLE_PACKET:
            return self._read_simple_packet(size, sink, gate, limit_us)
        elif kind == INTERFACE:
            self._read_interface(size)
        else:
            self._skip(size)
            if kind in NUMBERED_BLOCKS:
                self._numbered_blocks += 1
        return False

    def _whole_block(self, size: int) -> bool:
        """Have all of the block in the buffer, both its lengths being the same; else the file has ended."""
        if not self._need(size):
            self._finish_inside("a block")
        elif self._word(self._buf, self._pos + size - 4)[0] != size:
            self._damaged("a block whose two lengths differ")
        return not self.done

    def _skip(self, size: int) -> None:
        """Leave out a block of any size without keeping it."""
        left = size - 4
        while True:
            take = min(left, self._end - self._pos)
            left -= take
            self._pos += take
            self.truncated_bytes += take  # until its end is seen
            if left == 0 or self._eof:
                break
            self._refill(SPAN, SPAN, BLOCK_MIN_BYTES)
        if left or not self._need(4):
            self._finish_inside("a block")
        elif self._word(self._buf, self._pos)[0] != size:
            self._damaged("a block whose two lengths differ")
        else:
            self._pos += 4
            self.truncated_bytes = 0

    def _read_section(self) -> None:
        if not self._need(SECTION_HEADER_BYTES):
            self._finish_inside("a section header")
            return
        mark = self._buf[self._pos + 8 : self._pos + 12]
        if mark != BYTE_ORDER_LITTLE and mark != BYTE_ORDER_BIG:
            self._damaged("a section header without byte-order mark")
            return
        self._set_order(mark == BYTE_ORDER_LITTLE)
        self.interfaces = []
        size = self._word(self._buf, self._pos + 4)[0]
        major, minor = self._halves(self._buf, self._pos + 12)
        if major != 1:
            self._finish(f"has a section of pcapng version {major}.{minor}, only version 1 can be read")
        elif size < SECTION_HEADER_BYTES or size & 3:
            self._damaged(f"a section header that claims {size} bytes")
        else:
            self._skip(size)

    def _read_interface(self, size: int) -> None:
        if size < INTERFACE_ROOM_BYTES or size > MAX_INTERFACE_BLOCK_BYTES:
            self._damaged(f"an interface description that claims {size} bytes")
        elif len(self.interfaces) >= MAX_INTERFACES:
            self._damaged(f"more than {MAX_INTERFACES} interfaces")
        elif self._whole_block(size):
            link, _ = self._halves(self._buf, self._pos + 8)
            interface = Interface(link, self._word(self._buf, self._pos + 12)[0])
            interface.read_options(self._buf, self._pos + 16, self._pos + size - 4, self.little)
            self.interfaces.append(interface)
            if interface.snaplen and (not self.snaplen or interface.snaplen < self.snaplen):
                self.snaplen = interface.snaplen
            if link not in self.links:
                self.links.append(link)
            self._pos += size

    def _read_packet(self, old: bool, size: int, sink: Sink, gate: bool, limit_us: int) -> bool:
        """An old packet block is read here; an enhanced packet is checked and made whole for the loop."""
        if size < PACKET_ROOM_BYTES or size > MAX_PACKET_BLOCK_BYTES:
            self._damaged(f"a packet block that claims {size} bytes")
            return False
        if not self._need(PACKET_HEAD_BYTES):
            self._finish_inside("a block")
            return False
        if old:
            which, _, ts_high, ts_low, caplen, orig_len = self._old_packet_head(self._buf, self._pos)
        else:
            which, ts_high, ts_low, caplen, orig_len = self._packet_head(self._buf, self._pos)
        if which >= len(self.interfaces):
            self._damaged(f"a packet of interface {which}, which is not described")
            return False
        interface = self.interfaces[which]
        if caplen > interface.max_caplen or caplen > size - PACKET_ROOM_BYTES:
            self._damaged(f"a packet that claims {caplen} bytes")
            return False
        if not self._whole_block(size) or not old:
            return False
        now_us = interface.time_of(ts_high, ts_low)
        return self._give(interface, now_us, PACKET_HEAD_BYTES, caplen, orig_len, size, sink, gate, limit_us)

    def _read_simple_packet(self, size: int, sink: Sink, gate: bool, limit_us: int) -> bool:
        """A simple packet (4.4) is of the first interface and has no time: it gets that of the packet before it."""
        if size < SIMPLE_ROOM_BYTES or size > MAX_PACKET_BLOCK_BYTES:
            self._damaged(f"a packet block that claims {size} bytes")
            return False
        if not self.interfaces:
            self._damaged("a packet of interface 0, which is not described")
            return False
        if not self._whole_block(size):
            return False
        interface = self.interfaces[0]
        orig_len = self._word(self._buf, self._pos + 8)[0]
        caplen = min(orig_len, size - SIMPLE_ROOM_BYTES)
        if interface.snaplen:
            caplen = min(caplen, interface.snaplen)
        if caplen > interface.max_caplen:
            self._damaged(f"a packet that claims {caplen} bytes")
            return False
        return self._give(interface, self.last_us, SIMPLE_HEAD_BYTES, caplen, orig_len, size, sink, gate, limit_us)

    def _give(
        self,
        interface: Interface,
        now_us: int,
        head_bytes: int,
        caplen: int,
        orig_len: int,
        size: int,
        sink: Sink,
        gate: bool,
        limit_us: int,
    ) -> bool:
        """The packet of the block at the position, as the loop does it."""
        if now_us > limit_us:
            self.next_us = now_us
            return True
        buf, start = self._buf, self._pos + head_bytes
        self._pos += size
        self.packets += 1
        self.last_us = now_us
        judged = gate and interface.link == ETHERNET
        if judged and frame_is_quiet(buf, start, caplen, now_us, sink.quiet, sink.quiet_udp):
            self.gated += 1
        else:
            number = self.packets + self._numbered_blocks
            sink.packet(now_us, number, interface.link, buf, start, start + caplen, orig_len)
        return False
