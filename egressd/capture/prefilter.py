"""The gate: which packets of a capture file cannot matter, judged before anything is made of them.

A bulk capture is nearly all full-size segments and bare acknowledgements of conversations whose names are known
already. The readers (`pcapfile`, `pcapng`) judge plain IPv4 with the fields of one `Struct.unpack_from`
(`GATE_FIELDS`); the functions here are the same judgement for IPv6 and for a frame in any other place.

What may be thrown away, of frames that are plain Ethernet (link type 1, no VLAN tag) with IPv4 without options and
without fragmentation, or IPv6 whose fixed header is directly followed by TCP or UDP:

- TCP without FIN, SYN and RST and without payload: a bare acknowledgement, whoever sends it;
- TCP without FIN, SYN and RST of a flow-direction that `Sink.quiet` says is quiet at this packet's time;
- UDP of a flow-direction that `Sink.quiet_udp` says is quiet at this packet's time, but for long headers of QUIC, which
  may open another connection with a name of its own (`opens_quic`).

Everything else goes to the sink, also whatever is too short to judge. A sink that asks the same dictionaries itself
gives the same results with the gate and without it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from egressd.wire.quic import quic_version
from egressd.wire.quiet import Recent

if TYPE_CHECKING:  # a machine integer to mypyc, and nothing at run time
    from mypy_extensions import i64

# CPython is quickest with one unpack a packet, compiled code with indexing: the readers have a loop for each.
COMPILED: Final = not __file__.endswith(".py")

ETHERNET: Final = 1  # LINKTYPE_ETHERNET

# 48 bytes from the first of an Ethernet frame: EtherType, version and IHL, the two bytes of the total length, flags and
# fragment offset, protocol, the twelve bytes of addresses and ports, TCP data offset, TCP flags (RFC 791, RFC 9293).
GATE_FIELDS: Final = "12xHBxBB2xHxB2x12s8xBB"
# The same without the total length and the TCP data offset, and with the first byte behind a UDP header.
QUICK_FIELDS: Final = "12xHB5xHxB2x12s4xB4xB"
GATE_SPAN: Final = 48
# What is needed of few packets beside those. IPv4 with TCP: total length, TCP data offset. IPv6, beside EtherType and
# version: payload length, next header, the 36 bytes of addresses and ports, TCP data offset, TCP flags (RFC 8200
# section 3); that reaches to byte 68, beyond UDP6_END.
UNPACK_IPV4: Final = Struct("!16xH28xB").unpack_from
UNPACK_IPV6: Final = Struct("!18xHBx36s8xBB").unpack_from

# EtherTypes and the mask of "more fragments" and fragment offset, as the file's byte order makes a number of them.
IPV4_BIG: Final = 0x0800
IPV4_LITTLE: Final = 0x0008
IPV6_BIG: Final = 0x86DD
IPV6_LITTLE: Final = 0xDD86
FRAGMENT_BIG: Final = 0x3FFF
FRAGMENT_LITTLE: Final = 0xFF3F
NEVER: Final = -1  # instead of an EtherType when nothing may be thrown away

TCP4_END: Final = 54  # Ethernet 14, IPv4 20, TCP 20: the shortest frame whose TCP header is all there
UDP4_END: Final = 42
TCP6_END: Final = 74
UDP6_END: Final = 62
LONG_HEADER: Final = 0x80  # the first byte of one, at least (RFC 9000 section 17.2, RFC 9287)


class Sink(Protocol):
    """Takes the packets of a capture.

    `quiet` (TCP) and `quiet_udp` map one direction of a flow to the time, in epoch microseconds, until which its
    packets carry nothing of interest. The key is the bytes as they lie in the packet, source address, destination
    address, source port, destination port: 12 for IPv4, 36 for IPv6. Both dictionaries are changed in place, never
    replaced, while a capture is read. `recent`, if there is one, is kept true to both (wire/quiet.py).
    """

    quiet: dict[bytes, int]
    quiet_udp: dict[bytes, int]
    recent: Recent | None

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """Packet `number` (1-based in its file, Wireshark's frame number) of link type `link` lies in
        `buf[start:end]`; other bytes of `buf` are not its own. `orig_len` is its length on the wire, `end - start`
        what was captured of it.
        """


def read_u32(buf: bytes, at: i64, little: bool) -> i64:
    """Four bytes as a number, for compiled code: each goes into a machine integer before it is shifted."""
    first: i64 = buf[at]
    second: i64 = buf[at + 1]
    third: i64 = buf[at + 2]
    fourth: i64 = buf[at + 3]
    if little:
        return first | second << 8 | third << 16 | fourth << 24
    return first << 24 | second << 16 | third << 8 | fourth


def opens_quic(buf: bytes, at: i64, end: i64) -> bool:
    """Whether the payload `buf[at:end]` of a quiet flow-direction begins with a long header of QUIC, of a version that
    can be read. A byte tells it of bulk, which has short headers (RFC 9000 section 17)."""
    return at < end and buf[at] >= LONG_HEADER and quic_version(buf, at, end) != 0


def ipv6_is_quiet(
    buf: bytes,
    start: i64,
    caplen: i64,
    ts_us: i64,
    quiet: dict[bytes, int],
    quiet_udp: dict[bytes, int],
    recent: Recent | None = None,
) -> bool:
    """Whether the gate drops the frame of EtherType IPv6 at `start` (RFC 8200 section 3)."""
    if caplen < UDP6_END or buf[start + 14] >> 4 != 6:
        return False
    proto: i64 = buf[start + 20]
    if proto == 6:
        if caplen < TCP6_END or buf[start + 67] & 7:
            return False
        header: i64 = buf[start + 66]
        header = header >> 4 << 2
        if buf[start + 19] == header and buf[start + 18] == 0 and header >= 20:
            return True
    elif proto != 17:
        return False
    until = quiet if proto == 6 else quiet_udp
    if recent is not None:
        is_quiet = recent.is_quiet6(buf, start + 22, proto, ts_us, until)
    else:
        is_quiet = until.get(buf[start + 22 : start + 58], 0) > ts_us
    return is_quiet and (proto == 6 or not opens_quic(buf, start + UDP6_END, start + caplen))


def frame_is_quiet(
    buf: bytes,
    start: i64,
    caplen: i64,
    ts_us: i64,
    quiet: dict[bytes, int],
    quiet_udp: dict[bytes, int],
    recent: Recent | None = None,
) -> bool:
    """Whether the gate drops the Ethernet frame of `caplen` bytes at `start`: the whole rule, for compiled code
    and for rare places. `recent` is that of the sink."""
    if caplen < UDP4_END:
        return False
    upper: i64 = buf[start + 12]
    lower: i64 = buf[start + 13]
    ethertype = upper << 8 | lower
    if ethertype == IPV6_BIG:
        return ipv6_is_quiet(buf, start, caplen, ts_us, quiet, quiet_udp, recent)
    if ethertype != IPV4_BIG or buf[start + 14] != 0x45 or buf[start + 20] & 0x3F or buf[start + 21]:
        return False
    proto: i64 = buf[start + 23]
    if proto == 6:
        if caplen < TCP4_END or buf[start + 47] & 7:
            return False
        header: i64 = buf[start + 46]
        header = header >> 4 << 2
        if buf[start + 17] == header + 20 and buf[start + 16] == 0 and header >= 20:
            return True
    elif proto != 17:
        return False
    until = quiet if proto == 6 else quiet_udp
    if recent is not None:
        is_quiet = recent.is_quiet4(buf, start + 26, proto, ts_us, until)
    else:
        is_quiet = until.get(buf[start + 26 : start + 38], 0) > ts_us
    return is_quiet and (proto == 6 or not opens_quic(buf, start + UDP4_END, start + caplen))
