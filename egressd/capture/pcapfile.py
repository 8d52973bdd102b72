"""Capture files: what their formats have in common, and the classic pcap format.

Format: draft-ietf-opsawg-pcap: magic a1b2c3d4 (microseconds) or a1b23c4d (nanoseconds) in either byte order; also
Kuznetzov's a1b2cd34, whose record headers are 8 bytes longer.

Strategy. A reader holds one buffer of some 120 KB (larger ones fall out of the cache and are slower) and judges the
records in it where they lie. Records are not turned into objects: one `unpack_from` covers the record header and as
much of the packet as the gate needs, so the unpack may run past a short packet into the next record; every use of
such a field stands behind a test of the length. `step` works through one buffer and comes back, so that the caller
can stop, count or merge.

Invariants: no input makes a reader raise anything; memory is one buffer of at most `bytesource.MAX_CHUNK_BYTES`, or
one record of at most `MAX_PACKET_BYTES` if larger; results do not depend on where the chunks end.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from egressd.capture.bytesource import ByteSource
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
    LONG_HEADER,
    NEVER,
    QUICK_FIELDS,
    TCP4_END,
    TCP6_END,
    UDP4_END,
    UDP6_END,
    UNPACK_IPV4,
    UNPACK_IPV6,
    Sink,
    frame_is_quiet,
    ipv6_is_quiet,
    opens_quic,
    read_u32,
)
from egressd.plural import count
from egressd.wire.shards import is_others

if TYPE_CHECKING:
    from mypy_extensions import i64

USUAL_PACKET_BYTES: Final = 262_144  # MAXIMUM_SNAPLEN of tcpdump; files may claim a snaplen that is too small
MAX_PACKET_BYTES: Final = (
    1024 * 1024
)  # above Linux's largest aggregated packet (512 KB): a snaplen of 4 GB is no reason
PADDING: Final = bytes(128)  # at the end of a file: lets the last header be unpacked in one go
FILE_HEADER_BYTES: Final = 24
FRACTION_MAX_US: Final = 1 << 32  # a broken file may count further than a second
QUICK_US: Final = 1 << 24  # more than any fraction whose upper byte is 0, and than any in nanoseconds


class CaptureReader:
    """What the formats have in common: the buffer, and what is known of the file so far.

    `packets` were read, `gated` of them were thrown away by the gate. `content_bytes` (after gunzip) were read;
    `truncated_bytes` of them, at the end, made no packet. `first_us` and `last_us` are the times of the first and the
    last packet in file order, `error` why the file ended other than at the end of a record, or empty. `snaplen` is how
    many bytes of a packet were captured at most, as the file says, 0 where it sets no limit.
    """

    format = ""

    def __init__(self, source: ByteSource, buf: bytes) -> None:
        self.source = source
        self.packets = 0
        self.gated = 0
        self.content_bytes = len(buf)
        self.truncated_bytes = 0
        self.last_us = 0
        self.next_us = 0  # after `step` returned True: the time of the packet that waits
        self.error = ""
        self.snaplen = 0
        self.done = False
        self.others = 0  # shards whose packets the sink does not want: readers may leave them out, where that is cheap
        self.links: list[int] = []  # link types, in order of appearance
        self._buf = buf
        self._pos = 0
        self._end = len(buf)  # of the bytes that are the file's; padding may follow
        self._last = -1  # the last position that the loop may unpack at
        self._eof = False

    def step(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """Give the packets of the buffer to `sink`, then refill it. True: the next packet's time `next_us` is later
        than `limit_us` and it waits. False: call again, unless `done`. With `gate`, quiet packets are left out."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def _refill(self, want: int, span: int, shortest: int) -> None:
        """Have `want` bytes at the position, or be at the end of the file. The loop may unpack `span` bytes; at the
        end of the file, padding stands in for what a record of at least `shortest` bytes may lack."""
        left = self._end - self._pos
        self._buf = self.source.refill(self._buf, self._pos, want)
        self._pos = 0
        self._end = len(self._buf)
        self.content_bytes += self._end - left
        if self._end < want:
            self._eof = True
            self._buf += PADDING
            self._last = self._end - shortest
        else:
            self._last = self._end - span

    def _finish(self, error: str) -> None:
        rest = self.source.unread_bytes()
        self.done = True
        self.content_bytes += rest
        self.truncated_bytes += self._end - self._pos + rest
        self.error = error
        if self.source.error:
            self.error = f"{self.source.error}; {error}" if error else self.source.error

    def _damaged(self, what: str) -> None:
        self._finish(f"has {what}, which cannot be: damaged from packet {self.packets + 1} on")

    def _finish_inside(self, what: str) -> None:
        left = self._end - self._pos + self.truncated_bytes
        self._finish(f"ends in the middle of {what}: {count(left, 'byte')} left over" if left else "")


class PcapReader(CaptureReader):
    """A classic pcap file. `buf` begins with its magic number, which the caller has recognised."""

    format = "pcap"

    def __init__(self, source: ByteSource, buf: bytes) -> None:
        super().__init__(source, buf)
        magic = buf[:4]
        little = magic[3] == 0xA1
        number = int.from_bytes(magic, "little" if little else "big")
        self.nano = number == 0xA1B23C4D
        self.head = 24 if number == 0xA1B2CD34 else 16
        self.little = little
        self.link = 0
        self.max_caplen = USUAL_PACKET_BYTES
        self._span = self.head + GATE_SPAN
        order = "<" if little else ">"
        self._unpack = Struct(f"{order}III4x{self.head - 16}x{GATE_FIELDS}").unpack_from
        self._lengths = Struct(f"{order}8xII").unpack_from
        self._record = Struct(f"{order}IIII").unpack_from
        upper = "xxxB" if little else "Bxxx"
        self._unpack_quick = Struct(f"{order}I{upper}I4x{self.head - 16}x{QUICK_FIELDS}").unpack_from
        self._as_read = (IPV4_LITTLE, IPV6_LITTLE, FRAGMENT_LITTLE) if little else (IPV4_BIG, IPV6_BIG, FRAGMENT_BIG)
        self._read_file_header(Struct(f"{order}4xHH8xII"))

    def _read_file_header(self, layout: Struct) -> None:
        if self._end < FILE_HEADER_BYTES:
            self._refill(FILE_HEADER_BYTES, self._span, self.head)
        if self._end < FILE_HEADER_BYTES:
            self._finish_inside("its file header")
            return
        major, minor, snaplen, network = layout.unpack_from(self._buf, 0)
        self.link = network & 0x03FFFFFF  # the upper bits tell of frame check sequences
        self.links.append(self.link)
        self.snaplen = snaplen
        self.max_caplen = min(max(snaplen, USUAL_PACKET_BYTES), MAX_PACKET_BYTES)
        if major != 2:
            self._finish(f"is of pcap version {major}.{minor}, only version 2 can be read")
            return
        self._pos = FILE_HEADER_BYTES
        if not self._eof:
            self._last = self._end - self._span

    def step(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """See `CaptureReader.step`."""
        if COMPILED:
            return self.step_indexed(sink, gate, limit_us)
        judged = gate and self.link == ETHERNET
        if judged and self._step_quickly(sink, limit_us):
            self._next_buffer()
            return False
        ipv4 = (IPV4_LITTLE if self.little else IPV4_BIG) if judged else NEVER
        ipv6 = (IPV6_LITTLE if self.little else IPV6_BIG) if judged else NEVER
        fragment = FRAGMENT_LITTLE if self.little else FRAGMENT_BIG
        quiet = sink.quiet
        quiet_udp = sink.quiet_udp
        link, nano, head, unpack, lengths = self.link, self.nano, self.head, self._unpack, self._lengths
        buf, pos, end, last = self._buf, self._pos, self._end, self._last
        number, passed, ts_us = self.packets, 0, self.last_us
        second, second_us, near_limit = -1, 0, False  # most packets are of the same second as the one before
        waits = False
        while pos <= last:
            sec, frac, caplen, ethertype, version, high, low, frag, proto, key, offset, flags = unpack(buf, pos)
            start = pos + head
            stop = start + caplen
            if stop > end:
                break
            if sec != second:
                second, second_us = sec, sec * 1_000_000
                near_limit = second_us + FRACTION_MAX_US > limit_us
            now_us = second_us + (frac // 1000 if nano else frac)
            if near_limit and now_us > limit_us:
                self.next_us = now_us
                waits = True
                break
            pos = stop
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
                        if not opens_quic(buf, start + UDP4_END, stop):
                            continue
            elif ethertype == ipv6 and ipv6_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp):
                continue
            passed += 1
            sink.packet(ts_us, number, link, buf, start, stop, lengths(buf, start - head)[1])
        self.gated += number - self.packets - passed
        self.packets = number
        self.last_us = ts_us
        self._pos = pos
        if not waits and not self.done:
            self._next_buffer()
        return waits

    def _step_quickly(self, sink: Sink, limit_us: int) -> bool:
        """`step` with the gate, as far as no record needs its careful loop; whether that was to the buffer's end. Most
        packets are of a direction that is quiet for long: then the fraction of the second need not be read."""
        quiet, quiet_other = sink.quiet, sink.quiet_udp
        quiet_tcp, quiet_udp = quiet.get, quiet_other.get
        ipv4, ipv6, fragment = self._as_read
        highest = 0xFF if self.nano else 0  # of the fraction's upper byte: it stands for less than QUICK_US then
        head, unpack, unpack4, unpack6 = self.head, self._unpack_quick, UNPACK_IPV4, UNPACK_IPV6
        buf, pos, end, last = self._buf, self._pos, self._end, self._last
        number = first = self.packets + 1
        passed, second, latest_us, before, place = 0, -1, 0, -1, -1
        for number in range(first, first + len(buf)):  # counts at less cost than an addition
            if pos > last:
                break
            sec, upper, caplen, ethertype, version, frag, proto, key, first_byte, flags = unpack(buf, pos)
            if sec != second:
                second = sec
                latest_us = sec * 1_000_000 + QUICK_US
                if latest_us + FRACTION_MAX_US > limit_us:
                    break
            if upper > highest:
                break
            before = place
            place = pos
            pos += head + caplen
            if ethertype == ipv4:
                if version == 0x45 and not frag & fragment:
                    if proto == 6:
                        if not flags & 7 and caplen >= TCP4_END:
                            until_us = quiet_tcp(key, 0)
                            if until_us > latest_us:
                                continue
                            size, offset = unpack4(buf, place + head)
                            if size == 20 + (offset >> 4 << 2) and size >= 40:
                                continue
                            if until_us and pos <= end and until_us > self._time_at(buf, place):
                                continue
                    elif proto == 17 and caplen >= UDP4_END:
                        until_us = quiet_udp(key, 0)
                        if until_us > latest_us or (until_us and pos <= end and until_us > self._time_at(buf, place)):
                            if first_byte < LONG_HEADER:
                                continue
                            if not opens_quic(buf, place + head + UDP4_END, min(pos, end)):
                                continue
            elif ethertype == ipv6 and pos <= end:
                if caplen < TCP6_END:
                    if ipv6_is_quiet(buf, place + head, caplen, self._time_at(buf, place), quiet, quiet_other):
                        continue
                elif version >> 4 == 6:
                    size, proto, key, offset, flags = unpack6(buf, place + head)
                    if proto == 6:
                        if not flags & 7:
                            until_us = quiet_tcp(key, 0)
                            if until_us > latest_us or (size == offset >> 4 << 2 and size >= 20):
                                continue
                            if until_us and until_us > self._time_at(buf, place):
                                continue
                    elif proto == 17:
                        until_us = quiet_udp(key, 0)
                        if until_us > latest_us or (until_us and until_us > self._time_at(buf, place)):
                            if not opens_quic(buf, place + head + UDP6_END, pos):
                                continue
            if pos > end:
                number += 1
                break
            passed += 1
            self._hand_on(sink, number, place)
        cut = pos > end and place >= 0  # the last record is not all there
        if cut:
            number -= 1
            pos, place = place, before
        if place >= 0:
            self.last_us = self._time_at(buf, place)
        self._pos = pos
        self.gated += number - first - passed
        self.packets = number - 1
        return cut or pos > last

    def _time_at(self, buf: bytes, place: int) -> int:
        """The time of the record at `place`."""
        sec, frac, _, _ = self._record(buf, place)
        ts_us: int = sec * 1_000_000 + (frac // 1000 if self.nano else frac)
        return ts_us

    def _hand_on(self, sink: Sink, number: int, place: int) -> None:
        """Give the packet of the record at `place` to `sink`."""
        sec, frac, caplen, orig_len = self._record(self._buf, place)
        ts_us = sec * 1_000_000 + (frac // 1000 if self.nano else frac)
        start = place + self.head
        sink.packet(ts_us, number, self.link, self._buf, start, start + caplen, orig_len)

    def step_indexed(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """`step` as compiled code does it best, with the same results."""
        quiet = sink.quiet
        quiet_udp = sink.quiet_udp
        recent = sink.recent
        link, nano, little = self.link, self.nano, self.little
        judged = gate and link == ETHERNET
        buf = self._buf
        pos: i64 = self._pos
        end: i64 = self._end
        last: i64 = self._last
        head: i64 = self.head
        limit: i64 = limit_us
        ts_us: i64 = self.last_us
        number: i64 = self.packets
        others: i64 = self.others if link == ETHERNET else 0
        gated: i64 = 0
        waits = False
        while pos <= last:
            caplen: i64 = read_u32(buf, pos + 8, little)
            start: i64 = pos + head
            if start + caplen > end:
                break
            frac: i64 = read_u32(buf, pos + 4, little)
            now_us: i64 = read_u32(buf, pos, little) * 1_000_000 + (frac // 1000 if nano else frac)
            if now_us > limit:
                self.next_us = now_us
                waits = True
                break
            pos = start + caplen
            number += 1
            ts_us = now_us
            if others and is_others(buf, start, pos, others):
                gated += 1
                continue
            if judged and frame_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp, recent):
                gated += 1
                continue
            sink.packet(ts_us, number, link, buf, start, pos, read_u32(buf, start - head + 12, little))
        self.gated += gated
        self.packets = number
        self.last_us = ts_us
        self._pos = pos
        if not waits and not self.done:
            self._next_buffer()
        return waits

    def _next_buffer(self) -> None:
        """The loop could not go on at the position: get more, or end the file."""
        want = self._span
        if self._end - self._pos >= self.head:
            caplen, _ = self._lengths(self._buf, self._pos)
            if caplen > self.max_caplen:
                self._damaged(f"a record that claims {caplen} bytes")
                return
            want = max(want, self.head + caplen)
        if self._eof:
            self._finish_inside("a record")
        else:
            self._refill(want, self._span, self.head)
