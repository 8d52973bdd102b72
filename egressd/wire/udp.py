"""UDP conversations: DNS on any port by content, QUIC Initials, and the first packet each way of everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from egressd.errors import Malformed
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    EARLIER,
    FLOW,
    QUIC_SNI,
    REPLY,
    UDP,
    ClientHello,
    DnsMessage,
    FlowKey,
    Observation,
)
from egressd.native import mypyc_attr
from egressd.wire.direction import flow_of, flow_toward, goes_out, is_group, is_private, reverse_key, sender_is_client
from egressd.wire.dns import looks_like_dns, parse_message
from egressd.wire.frame import Frames
from egressd.wire.octets import read_u16
from egressd.wire.quic import QuicConnections, quic_version
from egressd.wire.quiet import Quiet
from egressd.wire.table import Pair, PairTable
from egressd.wire.tunnels import PORTS

if TYPE_CHECKING:  # four bytes to mypyc instead of eight, and nothing at run time
    from mypy_extensions import i32

Emit = Callable[[Observation], None]

DNS_PORT: Final = 53
MDNS_PORT: Final = 5353  # RFC 6762
LLMNR_PORT: Final = 5355  # RFC 4795
_LINK_LOCAL_PORTS: Final = (MDNS_PORT, LLMNR_PORT)
# Datagrams of an unknown direction that are looked at before it is quiet. A scrambled post-quantum hello takes two
# to four Initials; retransmissions may double that.
TRIES: Final = 12
LEAST_CONTENT_BYTES: Final = 12  # of a datagram that is DNS or QUIC
QUIET_US: Final = 30_000_000  # UDP has no SYN to end quiet: look again after this
IDLE_ROTATE_US: Final = 120_000_000


@mypyc_attr(acyclic=True)
class UdpFlow(Pair):
    """A UDP conversation. `sure` when content told the client, `announced` once that is seen to send."""

    __slots__ = ("announced", "backward_seen", "forward_seen", "replied", "sure")

    def __init__(self, forward: bytes, sure: bool, flow: FlowKey | None = None) -> None:
        super().__init__(UDP, forward, flow)
        self.sure = sure
        self.announced = False
        self.replied = False
        self.forward_seen: i32 = 0
        self.backward_seen: i32 = 0

    def turn_round(self) -> None:
        """The guess was wrong: the other side is the client."""
        self.swap()
        if not self.announced:
            self.replied = False  # that was the client
        self.forward_seen, self.backward_seen = self.backward_seen, self.forward_seen


class UdpTracker:
    """Reads datagrams and emits DNS_QUERY, DNS_ANSWER, QUIC_SNI, FLOW and REPLY observations.

    A DNS exchange emits no FLOW: its question is the contact with the server.
    """

    def __init__(self, emit: Emit, limit: int, quiet: Quiet | None = None, quic: QuicConnections | None = None) -> None:
        """`limit` bounds the conversations held at once."""
        self.quiet = Quiet(limit) if quiet is None else quiet
        self.quic = QuicConnections() if quic is None else quic
        self._emit = emit
        self._table: PairTable[UdpFlow] = PairTable(limit, IDLE_ROTATE_US, self._finish)
        self._ts_us = 0
        self._number = 0
        self._incoming = False  # the datagram at hand came in from the hosts
        self.skipped_quiet = 0
        self.malformed = 0
        self.mdns = 0
        self.llmnr = 0
        self.group = 0

    @property
    def evicted(self) -> int:
        """Conversations forgotten because the table was full or they were idle."""
        return self._table.evicted

    @property
    def over_share(self) -> int:
        """Conversations of clients that opened more than their share of the table."""
        return self._table.over_share

    def datagram(self, frame: Frames, ts_us: int, number: int) -> None:
        """Take the UDP datagram that `frame` has just decoded."""
        key = frame.key
        buf = frame.buf
        start = frame.payload_start
        end = frame.payload_end
        is_quiet = self.quiet.until.get(key, 0) > ts_us
        version = quic_version(buf, start, end) if end - start >= LEAST_CONTENT_BYTES else 0
        if is_quiet and not version:
            self.skipped_quiet += 1
            return
        self._ts_us = ts_us
        self._number = number
        self._incoming = frame.incoming
        sport = frame.sport
        dport = frame.dport
        if sport == DNS_PORT or dport == DNS_PORT:
            if self._dns(key, buf, start, end, ts_us, number):
                return
        elif sport in _LINK_LOCAL_PORTS or dport in _LINK_LOCAL_PORTS:
            if self._stays_inside(key):
                if MDNS_PORT in (sport, dport):
                    self.mdns += 1
                else:
                    self.llmnr += 1
                return
        if version:
            self._quic(key, buf, start, end, ts_us, number, version, is_quiet)
            return
        if end - start >= LEAST_CONTENT_BYTES and looks_like_dns(buf, start, end):
            if self._dns(key, buf, start, end, ts_us, number):
                return
        self._other(key, ts_us, number)

    def flush(self) -> None:
        """The capture has ended: tell what half-received ClientHellos still reveal."""
        for conversation in self._table.all():
            self._finish(conversation)

    def _stays_inside(self, key: bytes) -> bool:
        """mDNS and LLMNR are link-local talk (RFC 6762 section 3), kept apart from egress; a question to a public
        address on those ports is not, it is a tunnel or a mistake, and is read as DNS."""
        width = 4 if len(key) == 12 else 16
        source = key[:width]
        target = key[width : 2 * width]
        return is_group(target) or (is_private(target) and is_private(source)) or target == source

    # -- DNS

    def _dns(self, key: bytes, buf: bytes, start: int, end: int, ts_us: int, number: int) -> bool:
        try:
            message: DnsMessage = parse_message(buf, start, end)
        except Malformed:
            self.malformed += 1
            return False
        flow: FlowKey = flow_toward(UDP, key) if message.is_response else flow_of(UDP, key)
        name = raw_name = ""
        if message.questions:
            question = message.questions[0]
            name = question.name
            raw_name = question.raw_name
        kind = DNS_ANSWER if message.is_response else DNS_QUERY
        self._emit(Observation(kind, ts_us, number, flow, name, raw_name, message))
        return True

    # -- QUIC

    def _quic(
        self, key: bytes, buf: bytes, start: int, end: int, ts_us: int, number: int, version: int, is_quiet: bool
    ) -> None:
        """A datagram with a long header: it is never quiet, since any may open the next connection."""
        conversation = self._table.get(key)
        hellos: list[ClientHello] = []
        if (
            conversation is None
            or key == conversation.forward
            or not self.quic.answers(conversation.forward, buf, start, end)
        ):
            hellos = self.quic.feed(key, buf, start, end, ts_us)
        conversation = self._flow(conversation, key, ts_us, number, bool(hellos))
        if not hellos:
            if not is_quiet:
                self._count(conversation, key, ts_us)
            return
        conversation.sure = True
        for hello in hellos:
            self._hello(conversation, hello, ts_us, number, "", version)
        if not is_quiet:
            self._quieten(key, ts_us)

    def _finish(self, conversation: UdpFlow) -> None:
        """Nothing more will come of a conversation: tell what its half-received ClientHello still reveals."""
        hello = self.quic.finish(conversation.forward)
        if hello is not None:
            self._hello(conversation, hello, self._ts_us, self._number, "partial")

    def _hello(
        self, conversation: UdpFlow, hello: ClientHello, ts_us: int, number: int, note: str, version: int = 0
    ) -> None:
        seen = Observation(QUIC_SNI, ts_us, number, conversation.flow, hello.sni, hello.raw_sni, hello, version, note)
        self._emit(seen)

    # -- everything else

    def _other(self, key: bytes, ts_us: int, number: int) -> None:
        width = 4 if len(key) == 12 else 16
        if is_group(key[width : 2 * width]):
            self.group += 1
            self._quieten(key, ts_us)
            return
        self._count(self._flow(self._table.get(key), key, ts_us, number, False), key, ts_us)

    def _flow(self, conversation: UdpFlow | None, key: bytes, ts_us: int, number: int, from_client: bool) -> UdpFlow:
        """The conversation of a packet, None when it is not known yet. `from_client`: content has told who sent it.

        It is told of once its client is seen to send: anybody can send a host what looks like an answer, under any
        address. A host whose own datagrams are all large is met by the live filter's sample of those.
        """
        if conversation is None:
            flow = flow_of(UDP, key)
            if from_client or self._incoming or goes_out(flow) or sender_is_client(flow):
                conversation = UdpFlow(key, from_client, flow)
            else:
                conversation = UdpFlow(reverse_key(key), False)
            self._table.keep(conversation, ts_us)
        elif from_client and key != conversation.forward:
            conversation.turn_round()
        if key == conversation.forward:
            if conversation.announced:
                return conversation
            conversation.announced = True
            self._emit(Observation(FLOW, ts_us, number, conversation.flow, "", "", None))
            if conversation.replied:  # from outside: who sends first, from within, is the client
                self._emit(Observation(REPLY, ts_us, number, conversation.flow, "", "", None, 0, EARLIER))
        elif not conversation.replied:
            conversation.replied = True
            if conversation.announced:
                self._emit(Observation(REPLY, ts_us, number, conversation.flow, "", "", None))
        return conversation

    def _count(self, conversation: UdpFlow, key: bytes, ts_us: int) -> None:
        """One more datagram that told nothing; enough of them make the direction quiet."""
        if key == conversation.forward:
            conversation.forward_seen += 1
            if conversation.forward_seen < TRIES:
                return
        else:
            conversation.backward_seen += 1
            if conversation.backward_seen < TRIES and not conversation.sure:
                return
        self._quieten(key, ts_us)

    def _quieten(self, key: bytes, ts_us: int) -> None:
        """Nothing more is expected of a direction, unless its ports are a tunnel's: any datagram may carry a packet. Or
        those of DNS: a resolver answers the question that follows any number of datagrams which it cannot read."""
        ports = len(key) - 4
        sport, dport = read_u16(key, ports), read_u16(key, ports + 2)
        if sport not in PORTS and dport not in PORTS and sport != DNS_PORT and dport != DNS_PORT:
            self.quiet.begin(key, ts_us + QUIET_US)
