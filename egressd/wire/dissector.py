"""One packet in, observations out: the one way through layers 2 to 7.

The same object serves replay and live. It holds all state that packets create, every table of it bounded, and counts
what it could not or need not read. It never raises for any bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.model import TCP, UDP, FlowKey, Observation
from egressd.wire.frame import Frames
from egressd.wire.octets import COMPILED
from egressd.wire.portless import Portless, PortlessTracker, portless_flow
from egressd.wire.quiet import Quiet, Recent
from egressd.wire.sender import Sender, read_sender
from egressd.wire.tcp import TcpTracker
from egressd.wire.udp import UdpTracker

DEFAULT_CONVERSATIONS: Final = 32_768


class Dissector:
    """Reads packets and hands each observation to `emit`, in the order of the packets that completed them.

    `quiet` and `quiet_udp` are what the prefilter may throw away, `recent` what it asks when
    compiled (egressd/wire/quiet.py).
    """

    def __init__(self, emit: Callable[[Observation], None], conversations: int = DEFAULT_CONVERSATIONS) -> None:
        """`conversations` bounds the TCP and the UDP conversations remembered at once."""
        self.frames = Frames()
        self.recent: Recent | None = Recent() if COMPILED else None
        self.tcp = TcpTracker(emit, conversations, Quiet(conversations, None, self.recent))
        self.udp = UdpTracker(emit, conversations, Quiet(conversations, None, self.recent))
        self.portless = PortlessTracker(emit, conversations)
        self.quiet = self.tcp.quiet.until
        self.quiet_udp = self.udp.quiet.until
        self.packets = 0
        self._link = 0  # of the packet at hand, for `sender`: two small numbers are all that it costs each packet
        self._start = 0
        self._around: Portless = (0, b"", False)  # what the packet at hand is carried in, if it is
        self.incoming = False  # live: the packet at hand came in from the hosts, and is not on its way to them

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """Read the packet `buf[start:end]` of link type `link` (a libpcap DLT), seen at `ts_us`, `number`-th in its
        capture. `orig_len` is its length on the wire, which a short snapshot length makes larger."""
        self.packets += 1
        self._link = link
        self._start = start
        frames = self.frames
        frames.incoming = self.incoming
        proto = frames.decode(link, buf, start, end, ts_us)
        if frames.outer:
            self._around = frames.outer[0]
            self.portless.packets(frames.outer, self.incoming, ts_us, number)
        while proto or frames.rival:
            if proto == TCP:
                self.tcp.segment(frames, ts_us, number)
            elif proto == UDP:
                self.udp.datagram(frames, ts_us, number)
            if not frames.rival:
                return
            proto = frames.decode_rival()

    def came_in(self, proto: int) -> bool:
        """Live: whether what is told came from the hosts' side, from within `emit`; of TCP (`proto`) whether any of it
        did, for it may be read when another packet is at hand."""
        return self.tcp.incoming if proto == TCP else self.incoming

    def is_carried(self, proto: int) -> bool:
        """Whether what is told, or any of it, came inside another packet (a tunnel), as `came_in`."""
        return self.tcp.is_carried if proto == TCP else self.frames.depth > 1

    def carrier(self) -> FlowKey:
        """What the packet that is told of came in, if it is carried, as the conversation of its sender."""
        proto, key, _ = self._around
        return portless_flow(proto, key)

    def sender(self, client: bytes) -> Sender | None:
        """Who sent the frame at hand, from within `emit`; None when that is not a plain packet from `client`."""
        return read_sender(self._link, self.frames.buf, self._start, client)

    def flush(self) -> None:
        """The source has ended: emit what unfinished messages still tell."""
        self.tcp.flush()
        self.udp.flush()

    def counts(self) -> dict[str, int]:
        """What was read and what was left out, by reason; zero counts are left out."""
        return {**self.frames.counts, **left_out(self.tcp, self.udp)}


def left_out(tcp: TcpTracker, udp: UdpTracker) -> dict[str, int]:
    """What conversations left out, by reason; zero counts are left out."""
    counts = {
        "tcp_malformed": tcp.malformed,
        "tcp_ambiguous": tcp.ambiguous,
        "tcp_holes": tcp.holes,
        "tcp_lost_bytes": tcp.lost_bytes,
        "tcp_flooded_bytes": tcp.flooded_bytes,
        "tcp_over_memory": tcp.memory.given_up,
        "tcp_evicted": tcp.evicted,
        "udp_malformed": udp.malformed,
        "udp_evicted": udp.evicted,
        "client_over_share": tcp.over_share + udp.over_share,
        "mdns": udp.mdns,
        "llmnr": udp.llmnr,
        "multicast": udp.group,
        "quic_undecryptable": udp.quic.undecryptable,
        "quic_over_share": udp.quic.over_share,
    }
    return {name: count for name, count in counts.items() if count}
