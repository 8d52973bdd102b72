"""The dissector of replays: conversations in a fixed number of shards, so that several processes can share them out.

Nothing that is said of a packet depends on a packet of another shard: each has its own tables with its own part of
every bound. So one process with all shards, and several with some of them each, tell the same packet by packet;
`runtime/parallel_replay.py` puts those of several into order again. (Live, the kernel shares out conversations in the
same way, PACKET_FANOUT_HASH, each process with a dissector of its own.)

Which shard a packet belongs to is known from its addresses and ports when it is *plain*: Ethernet, then IPv4 without
options and fragmentation or IPv6, then TCP, or UDP that is no tunnel's. All other packets are decoded by every process,
and so are fragments put together in each, until the innermost addresses and ports are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from egressd.model import TCP, UDP, Observation
from egressd.wire.dissector import DEFAULT_CONVERSATIONS, left_out
from egressd.wire.frame import Frames
from egressd.wire.memory import MAX_SENDER_BYTES, MAX_WAITING_BYTES, Memory
from egressd.wire.meter import OnVolume
from egressd.wire.octets import COMPILED, read_u16
from egressd.wire.portless import PortlessTracker
from egressd.wire.quic import MAX_CONNECTIONS, MAX_KEPT_BYTES, QuicConnections
from egressd.wire.quiet import Quiet, Recent
from egressd.wire.sender import Sender, read_sender
from egressd.wire.tcp import TcpTracker
from egressd.wire.tunnels import PORTS
from egressd.wire.udp import DNS_PORT, UdpTracker

if TYPE_CHECKING:  # a machine integer to mypyc, and nothing at run time
    from mypy_extensions import i64

SHARDS: Final = 8
MAX_FOREIGN: Final = 65_536  # flow-directions of other processes that the gate is told to throw away
NOT_PLAIN: Final = -1
_FOR_EVER_US: Final = 1 << 62
_TCP4_END: Final = 38  # Ethernet 14, IPv4 20, ports 4
_TCP6_END: Final = 58
_SYN: Final = 2


def plain_shard(link: int, buf: bytes, start: i64, end: i64) -> i64:
    """The shard of a plain packet, NOT_PLAIN of another; that of both directions of a conversation is the same."""
    return ethernet_shard(buf, start, end) if link == 1 else NOT_PLAIN


def is_others(buf: bytes, start: i64, end: i64, others: i64) -> bool:
    """Whether an Ethernet frame is plain and in one of the shards whose bits are set in `others`."""
    shard: i64 = ethernet_shard(buf, start, end)
    return shard >= 0 and others >> shard & 1 != 0


def ethernet_shard(buf: bytes, start: i64, end: i64) -> i64:
    """`plain_shard` of an Ethernet frame."""
    if end - start < _TCP4_END:
        return NOT_PLAIN
    kind: i64 = read_u16(buf, start + 12)
    proto: i64
    if kind == 0x0800:
        if buf[start + 14] != 0x45 or read_u16(buf, start + 20) & 0x3FFF:
            return NOT_PLAIN
        proto = buf[start + 23]
        return _shard_at(buf, start + 26, 4, proto)
    if kind != 0x86DD or end - start < _TCP6_END or buf[start + 14] >> 4 != 6:
        return NOT_PLAIN
    proto = buf[start + 20]
    return _shard_at(buf, start + 22, 16, proto)


def _shard_at(buf: bytes, key: i64, width: i64, proto: i64) -> i64:
    ports: i64 = key + 2 * width
    if proto == UDP:
        if read_u16(buf, ports) in PORTS or read_u16(buf, ports + 2) in PORTS:
            return NOT_PLAIN
    elif proto != TCP:
        return NOT_PLAIN
    return _mixed(buf, key, width)


def shard_of(key: bytes) -> int:
    """The shard of a packet with this `key` (addresses and ports as on the wire)."""
    return _mixed(key, 0, 4 if len(key) == 12 else 16)


def _mixed(buf: bytes, key: i64, width: i64) -> i64:
    """Hosts differ in the last byte of their address, conversations of two hosts in the last of a port."""
    client: i64 = buf[key + width - 1]
    server: i64 = buf[key + 2 * width - 1]
    ports: i64 = key + 2 * width
    source: i64 = buf[ports + 1]
    target: i64 = buf[ports + 3]
    mixed: i64 = client ^ server ^ source ^ target
    return (mixed ^ mixed >> 3) & (SHARDS - 1)


class Shards:
    """Reads packets and hands each observation to `emit`, in the order of the packets that completed them: those of all
    conversations, or, as process `worker` of `workers`, of every so many-th shard.

    `quiet` and `quiet_udp` are what the prefilter may throw away: what tells nothing more, and what others read;
    `recent` is for compiled readers.
    """

    def __init__(
        self,
        emit: Callable[[Observation], None],
        conversations: int = DEFAULT_CONVERSATIONS,
        worker: int = 0,
        workers: int = 1,
        on_volume: OnVolume | None = None,
    ) -> None:
        """`conversations` bounds the TCP and the UDP conversations remembered at once, in all shards. `on_volume` is
        told what connections carried, in the order of packets too."""
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = Recent() if COMPILED else None
        self.packets = 0
        self.number = 0  # of the packet at hand
        self.flushing = -1  # the shard that `flush` is at
        self._link = 0  # of the packet at hand, for `sender`
        self._buf = b""
        self._start = 0
        self.others = 0  # a bit for each shard that other processes read: what readers may leave out
        self._alone = workers == 1
        self._first = worker == 0
        self._own = [shard % workers == worker for shard in range(SHARDS)]
        for shard in range(SHARDS):
            if not self._own[shard]:
                self.others |= 1 << shard
        self._frames = Frames()  # of plain packets
        self._common = self._frames if self._alone else Frames()  # of the others, the same in every process
        part = max(1, conversations // SHARDS)
        self._tcp: list[TcpTracker] = []
        self._udp: list[UdpTracker] = []
        for _ in range(SHARDS):
            memory = Memory(MAX_WAITING_BYTES // SHARDS, MAX_SENDER_BYTES // SHARDS)
            tcp = TcpTracker(emit, part, Quiet(part, self.quiet, self.recent), memory)
            tcp.on_volume = on_volume
            self._tcp.append(tcp)
            connections = QuicConnections(MAX_CONNECTIONS // SHARDS, MAX_KEPT_BYTES // SHARDS)
            self._udp.append(UdpTracker(emit, part, Quiet(part, self.quiet_udp, self.recent), connections))
        # All in the first process: what a packet is carried in is told before what it carries, by one or by several.
        self._portless = PortlessTracker(emit, conversations)
        self._foreign = Quiet(MAX_FOREIGN, self.quiet, self.recent)
        self._foreign_udp = Quiet(MAX_FOREIGN, self.quiet_udp, self.recent)

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """Read a packet: see `Dissector.packet`."""
        self.packets += 1
        self.number = number
        self._link = link
        self._buf = buf
        self._start = start
        frames = self._frames
        if not self._alone:
            plain = plain_shard(link, buf, start, end)
            if plain < 0:
                frames = self._common
            elif not self._own[plain]:
                self._leave(buf, start, end)
                return
        proto = frames.decode(link, buf, start, end, ts_us)
        if frames.outer:
            if self._first:
                self._portless.packets(frames.outer, False, ts_us, number)
            else:
                frames.outer.clear()
        while proto or frames.rival:
            if proto:
                shard = shard_of(frames.key)
                if self._own[shard]:
                    if proto == TCP:
                        self._tcp[shard].segment(frames, ts_us, number)
                    else:
                        self._udp[shard].datagram(frames, ts_us, number)
            if not frames.rival:
                return
            proto = frames.decode_rival()

    def sender(self, client: bytes) -> Sender | None:
        """See Dissector.sender; None within `flush`, where no frame is at hand."""
        if self.flushing >= 0:
            return None
        return read_sender(self._link, self._buf, self._start, client)

    def _leave(self, buf: bytes, start: int, end: int) -> None:
        """A plain packet of another process: the gate throws away what follows it."""
        narrow = buf[start + 14] == 0x45
        key = buf[start + 26 : start + 38] if narrow else buf[start + 22 : start + 58]
        at = start + (34 if narrow else 54)
        if buf[start + (23 if narrow else 20)] == TCP:
            if at + 14 <= end and not buf[at + 13] & _SYN:
                self._foreign.begin(key, _FOR_EVER_US)
        elif read_u16(buf, at) != DNS_PORT and read_u16(buf, at + 2) != DNS_PORT:
            self._foreign_udp.begin(key, _FOR_EVER_US)

    def flush(self) -> None:
        """The source has ended: emit what unfinished messages still tell, shard after shard."""
        for shard in range(SHARDS):
            self.flushing = shard
            if self._own[shard]:
                self._tcp[shard].flush()
                self._udp[shard].flush()

    def counts(self) -> dict[str, int]:
        """What was read and what was left out, by reason, in order of the reasons; zero counts are left out. Counts of
        several processes add up: what all of them decode is counted by the first."""
        totals = dict(self._frames.counts)
        if self._first and not self._alone:
            add_counts(totals, self._common.counts)
        for shard in range(SHARDS):
            add_counts(totals, left_out(self._tcp[shard], self._udp[shard]))
        return dict(sorted(totals.items()))


def add_counts(totals: dict[str, int], more: dict[str, int]) -> None:
    """Add counts to others."""
    for name, count in more.items():
        totals[name] = totals.get(name, 0) + count
