"""TCP conversations: who opened them, which protocol they carry, and what names the client sends in them.

Content decides which parser reads a direction, never the port alone. A direction is *quiet* once nothing more can be
learned from it; quiet directions are what the prefilter throws away, and `segment` leaves them out by the same table,
so results do not depend on the prefilter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.errors import Malformed
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    REPLY,
    SOCKS_HOST,
    TCP,
    TLS_SNI,
    ClientHello,
    DnsMessage,
    FlowKey,
    HttpRequest,
    Observation,
    SocksRequest,
)
from egressd.wire.conversation import (
    DNS,
    HTTP,
    MAX_HEAD,
    MORE,
    OVER,
    TLS,
    TRIES,
    UNKNOWN,
    Conversation,
    Side,
    identify,
    new_parser,
    past_proxy_header,
)
from egressd.wire.direction import flow_of, reverse_key, sender_is_client
from egressd.wire.dns import DnsStream
from egressd.wire.frame import Frames
from egressd.wire.http import HttpStream
from egressd.wire.quiet import Quiet
from egressd.wire.socks import SocksStream
from egressd.wire.stream import MAX_RIVAL_BYTES, Rival
from egressd.wire.table import PairTable
from egressd.wire.tls import TlsStream

Emit = Callable[[Observation], None]

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

# After the name was found, this many more client segments are compared with what was sent before (an attacker may send
# a harmless copy first), unless the server's answer shows earlier which copy it took.
SEGMENTS_AFTER: Final = 3
QUIET_US: Final = 300_000_000  # then a conversation is looked at anew; a SYN ends quiet at once
HOLE_US: Final = 3_000_000  # a missing segment that has not come by then was not captured
OVERTAKEN_US: Final = 500_000  # the same once a FIN came: little is so much out of order, and nothing may follow
# Conversations idle for one to two of these are forgotten: longer than quiet, or a busy one would be met as new.
IDLE_ROTATE_US: Final = 600_000_000
# Segments in a row outside any plausible window, after which they are believed: the connection was replaced without
# its SYN being captured, or a SYN that no server took came before.
MAX_STRAYS: Final = 3


class TcpTracker:
    """Reads TCP segments and emits FLOW, REPLY, TLS_SNI, HTTP_HOST, SOCKS_HOST and DNS observations."""

    def __init__(self, emit: Emit, limit: int) -> None:
        """`limit` bounds the conversations held at once."""
        self.quiet = Quiet(limit)
        self._emit = emit
        self._table: PairTable[Conversation] = PairTable(limit, IDLE_ROTATE_US, self._finish)
        self._ts_us = 0
        self._number = 0
        self.skipped_quiet = 0
        self.malformed = 0
        self.ambiguous = 0
        self.strays = 0
        self.holes = 0
        self.lost_bytes = 0

    @property
    def evicted(self) -> int:
        """Conversations forgotten while they may have had more to say."""
        return self._table.evicted

    @property
    def over_share(self) -> int:
        """Conversations of clients that opened more than their share of the table."""
        return self._table.over_share

    def segment(self, frame: Frames, ts_us: int, number: int) -> None:
        """Take the TCP segment that `frame` has just decoded."""
        key = frame.key
        flags = frame.flags
        size = frame.payload_end - frame.payload_start
        if not flags & (FIN | SYN | RST):
            if size <= 0:
                return
            if self.quiet.until.get(key, 0) > ts_us:
                self.skipped_quiet += 1
                return
        self._ts_us = ts_us
        self._number = number
        conversation = self._table.get(key)
        seq = frame.seq
        if flags & SYN and not flags & RST:
            conversation = self._opening(conversation, key, seq, bool(flags & ACK))
            seq = (seq + 1) & 0xFFFFFFFF
        elif conversation is None:
            if size <= 0:
                return
            conversation = self._midway(key)
        from_client = key == conversation.forward
        side = conversation.client if from_client else conversation.server
        if size > 0 and not flags & RST:
            self._payload(conversation, side, seq, frame.buf[frame.payload_start : frame.payload_end])
            if key == conversation.backward:  # content may just have told who is who
                self._replied(conversation)
            if frame.cut:
                self._lose_tail(conversation, side)
        if not conversation.announced:
            self._announce(conversation)
        if flags & RST:
            self._reset(conversation, side, seq)
        elif flags & FIN:
            side.end_seq = (seq + size) & 0xFFFFFFFF
            if side.stream.held and ts_us - side.stalled_us > OVERTAKEN_US:
                self._give_up_holes(conversation, side)
        if side.end_seq >= 0 and side.stream.next_seq in (side.end_seq, -1):
            self._salvage(conversation, side)

    def flush(self) -> None:
        """The capture has ended: tell what half-received messages still reveal."""
        for conversation in self._table.all():
            self._finish(conversation)

    # -- opening and closing

    def _opening(self, known: Conversation | None, key: bytes, seq: int, from_server: bool) -> Conversation:
        """A SYN or SYN-ACK: rule 1 of the direction rule."""
        if known is not None:
            if known.syn_seen and self._belongs(known, key, seq, from_server):
                return known
            self._finish(known)
            self._table.forget(known)
        conversation = Conversation(reverse_key(key) if from_server else key, True)
        conversation.syn_seen = True
        self.quiet.end(conversation.forward)
        self.quiet.end(conversation.backward)
        if from_server:
            conversation.server.stream.next_seq = (seq + 1) & 0xFFFFFFFF
            self._replied(conversation)
        else:
            conversation.isn = seq
            conversation.client.stream.next_seq = (seq + 1) & 0xFFFFFFFF
            self._announce(conversation)
        self._table.keep(conversation, self._ts_us)
        return conversation

    def _belongs(self, known: Conversation, key: bytes, seq: int, from_server: bool) -> bool:
        """Whether a SYN or SYN-ACK is that of a known conversation, perhaps sent again or captured in the wrong order;
        else ports are used anew."""
        if (key == known.backward) != from_server:
            return False
        if not from_server:
            if known.isn < 0 and known.client.stream.next_seq < 0:
                known.isn = seq
                known.client.stream.next_seq = (seq + 1) & 0xFFFFFFFF
            return known.isn == seq
        # Even with another number: balancers answer a SYN twice, and it must not hide the rest of a hello.
        if known.server.stream.next_seq < 0:
            known.server.stream.next_seq = (seq + 1) & 0xFFFFFFFF
        self._replied(known)
        return True

    def _midway(self, key: bytes) -> Conversation:
        """A conversation whose beginning was not captured: rules 3 to 6, until content says more."""
        flow = flow_of(TCP, key)
        conversation = Conversation(key if sender_is_client(flow) else reverse_key(key), False)
        self._table.keep(conversation, self._ts_us)
        return conversation

    def _announce(self, conversation: Conversation) -> None:
        conversation.announced = True
        self._emit(Observation(FLOW, self._ts_us, self._number, conversation.flow, "", "", None))

    def _replied(self, conversation: Conversation) -> None:
        if not conversation.replied:
            conversation.replied = True
            if not conversation.announced:
                self._announce(conversation)
            self._emit(Observation(REPLY, self._ts_us, self._number, conversation.flow, "", "", None))

    def _reset(self, conversation: Conversation, side: Side, seq: int) -> None:
        """A RST of `side`. While a name may be half-way only one that its receiver would take is believed (RFC 9293
        section 3.10.7.4): others are sent to make observers forget. After a FIN it is one further."""
        next_seq = side.stream.next_seq
        if next_seq >= 0 and (seq - next_seq) & 0xFFFFFFFF > 1:
            followed = side is conversation.client or conversation.client.kind in (UNKNOWN, DNS)
            if followed and (conversation.client.is_half_way() or conversation.server.is_half_way()):
                return
        self._finish(conversation)
        self._table.forget(conversation)

    def _finish(self, conversation: Conversation) -> None:
        for side in (conversation.client, conversation.server):
            self._give_up_holes(conversation, side)
            self._salvage(conversation, side)

    def _give_up_holes(self, conversation: Conversation, side: Side) -> None:
        while side.stream.held and side.kind != OVER:
            self._give_up_hole(conversation, side)

    def _salvage(self, conversation: Conversation, side: Side) -> None:
        """What a message whose end will not come has told so far."""
        parser = side.parser
        if isinstance(parser, TlsStream):
            for hello in parser.finish():
                self._hello(conversation, side, hello, "partial")
                side.kind = OVER
        elif isinstance(parser, HttpStream):
            for request in parser.finish():
                self._request(conversation, side, request, "partial")

    # -- payload

    def _payload(self, conversation: Conversation, side: Side, seq: int, data: bytes) -> None:
        from_client = side is conversation.client
        if not from_client and conversation.sure and conversation.client.kind not in (UNKNOWN, DNS):
            self._quieten(conversation)
            return
        stream = side.stream
        if side.kind == UNKNOWN and not conversation.syn_seen and stream.overtaken_by(seq, data):
            side.head = b""
            stream.window = data + stream.window
            self._consume(conversation, side, stream.window)
            return
        ready = stream.add(seq, data)
        if stream.rivals:
            self._other_copies(conversation, side)
        if stream.strayed:
            self._stray(conversation, side, seq, data)
        elif side.strays:
            side.strays = 0
        if side.kind == OVER:
            self._after(conversation, side)
            return
        if ready:
            self._consume(conversation, side, ready)
        if stream.held:
            if side.stalled_us == 0:
                side.stalled_us = self._ts_us
            elif self._ts_us - side.stalled_us > HOLE_US:
                self._give_up_hole(conversation, side)
            while stream.over_bound():
                self._give_up_hole(conversation, side)
        else:
            side.stalled_us = 0

    def _after(self, conversation: Conversation, side: Side) -> None:
        """A segment of a direction that has told its name: only other copies of what was sent are of interest."""
        side.stream.held.clear()
        side.stream.held_bytes = 0
        side.since_over += 1
        if side.since_over > SEGMENTS_AFTER:
            key = conversation.forward if side is conversation.client else conversation.backward
            self.quiet.begin(key, self._ts_us + QUIET_US)
            side.stream.let_go()

    def _stray(self, conversation: Conversation, side: Side, seq: int, data: bytes) -> None:
        """A segment outside any plausible window: read by itself, and believed when more of the kind come."""
        self.strays += 1
        side.strays += 1
        self._other_copy(conversation, side, Rival(b"", data))
        if side.strays > MAX_STRAYS and side.kind != OVER:
            self._salvage(conversation, side)
            self._start_over(side)
            side.strays = 0
            side.stream.let_go()
            side.stream.next_seq = (seq + len(data)) & 0xFFFFFFFF

    def _quieten(self, conversation: Conversation) -> None:
        """The client's protocol is known and is none that answers with names: the server's side is of no interest. When
        the client's name was found too, this answer shows that it was taken."""
        until_us = self._ts_us + QUIET_US
        self.quiet.begin(conversation.backward, until_us)
        conversation.server.stream.let_go()
        if conversation.client.kind == OVER:
            self.quiet.begin(conversation.forward, until_us)
            conversation.client.stream.let_go()

    def _give_up_hole(self, conversation: Conversation, side: Side) -> None:
        lost = side.stream.skip_hole()
        self.holes += 1
        self.lost_bytes += lost
        side.stalled_us = 0
        if isinstance(side.parser, HttpStream) and side.parser.skip >= lost:
            side.parser.skipped(lost)  # the hole lies in a body: nothing is missed
        else:
            self._salvage(conversation, side)
            self._start_over(side)
        for ready in side.stream.drain():  # one by one: a request may begin at any of them, but not inside
            if side.kind != OVER:
                self._consume(conversation, side, ready)
        if side.stream.rivals:
            self._other_copies(conversation, side)

    def _lose_tail(self, conversation: Conversation, side: Side) -> None:
        """The packet was captured in part: what follows in sequence is not what comes next in the buffer."""
        side.stream.lose_place()
        self._salvage(conversation, side)
        if side.kind != OVER:
            self._start_over(side)

    def _start_over(self, side: Side) -> None:
        if side.parser is not None:  # it was read before: the next request may be a long body away
            side.tries = TRIES
        if side.kind != OVER:
            side.kind = UNKNOWN
        side.parser = None
        side.head = b""
        side.resumes = True

    def _consume(self, conversation: Conversation, side: Side, data: bytes) -> None:
        """Feed contiguous bytes to the side's parser; identify it first where that is still open."""
        for _ in range(
            TRIES
        ):  # each turn is another protocol inside the last (CONNECT, SOCKS): they cannot nest for ever
            if side.kind == UNKNOWN:
                data = self._identified(conversation, side, data)
                if not data:
                    return
            rest = self._feed(conversation, side, data)
            if not rest:
                return
            data = rest

    def _identified(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """Give `side` a parser if its bytes so far tell which; returns what that parser is to read, else b""."""
        # Only a direction whose beginning was seen is believed to be DNS because of its port alone.
        port = conversation.flow.server_port if conversation.syn_seen and not side.resumes else 0
        joined = side.head + data if side.head else data
        whole = past_proxy_header(joined)
        kind = identify(whole, port) if whole else MORE
        if kind <= UNKNOWN and side.head:
            # A keep-alive byte or another protocol's short lines may have come first (STARTTLS): begin at this segment.
            alone = identify(data, port)
            if alone > UNKNOWN:
                kind = alone
                whole = data
        if kind == MORE and len(joined) < MAX_HEAD:
            side.head = joined
            return b""
        side.head = b""
        if kind <= UNKNOWN:
            side.tries -= 1
            if side.tries <= 0:
                side.kind = OVER
            return b""
        side.kind = kind
        side.parser = new_parser(kind)
        return whole

    def _feed(self, conversation: Conversation, side: Side, data: bytes) -> bytes:
        """One parser's turn; returns the bytes that belong to another protocol, b"" when there are none."""
        parser = side.parser
        try:
            if isinstance(parser, TlsStream):
                for hello in parser.feed(data):
                    self._hello(conversation, side, hello, "")
                if parser.server_side and not conversation.sure:
                    self._decide(conversation, side, False)
            elif isinstance(parser, HttpStream):
                if parser.skip >= len(data):
                    parser.skipped(len(data))
                else:
                    for request in parser.feed(data):
                        self._request(conversation, side, request, "")
                    if parser.failed:
                        raise Malformed(parser.failed)
            elif isinstance(parser, DnsStream):
                for message in parser.feed(data):
                    self._dns(conversation, side, message)
            elif isinstance(parser, SocksStream):
                for asked in parser.feed(data):
                    self._socks(conversation, side, asked)
        except Malformed:
            self.malformed += 1
            side.tries -= 1
            side.kind = UNKNOWN if side.tries > 0 else OVER
            side.parser = None
            side.resumes = True
            return b""
        if parser is None:
            return b""
        rest: bytes | None = parser.rest
        if rest is not None:
            side.kind = UNKNOWN
            side.parser = None
            side.tries = TRIES
            return rest
        if parser.done:
            side.kind = OVER
            side.parser = None
        return b""

    def _other_copies(self, conversation: Conversation, side: Side) -> None:
        """Read the copies that lost. Those too short to tell yet grow with the stream."""
        stream = side.stream
        self.ambiguous += stream.disagreed
        stream.disagreed = 0
        for rival in stream.rivals:
            self._other_copy(conversation, side, rival)
        stream.rivals = [rival for rival in stream.rivals if len(rival.other) <= MAX_RIVAL_BYTES]

    def _other_copy(self, conversation: Conversation, side: Side, rival: Rival) -> None:
        """A name in a copy that lost, and not in what was taken, counts too, marked as ambiguous."""
        hellos, requests = self._read_alone(rival.other)
        if not hellos and not requests:
            return
        known_hellos, known_requests = self._read_alone(rival.taken)
        rival.told.update(hello.raw_sni for hello in known_hellos)
        rival.told.update(request.raw_host for request in known_requests)
        for hello in hellos:
            if hello.raw_sni not in rival.told:
                rival.told.add(hello.raw_sni)
                self._hello(conversation, side, hello, "ambiguous")
        for request in requests:
            if request.raw_host not in rival.told:
                rival.told.add(request.raw_host)
                self._request(conversation, side, request, "ambiguous")

    def _read_alone(self, data: bytes) -> tuple[list[ClientHello], list[HttpRequest]]:
        """What bytes tell that begin a hello or a request and may end anywhere."""
        kind = identify(data, 0) if data else UNKNOWN
        try:
            if kind == TLS:
                tls = TlsStream()
                return tls.feed(data) or tls.finish(), []
            if kind == HTTP:
                http = HttpStream()
                return [], http.feed(data) + http.finish()
        except Malformed:
            self.malformed += 1
        return [], []

    # -- what was found

    def _decide(self, conversation: Conversation, side: Side, is_client: bool) -> FlowKey:
        """Rule 2 of the direction rule: `side` sent what only a client (or only a server) sends. Returns the flow as
        its client sees it; a request from the side that took the SYN (a back door) has that side as client."""
        if not conversation.sure:
            conversation.sure = True
            if (side is conversation.client) != is_client:
                conversation.turn_round()
        if not conversation.announced:
            self._announce(conversation)
        if (side is conversation.client) != is_client:
            return flow_of(TCP, conversation.backward)
        return conversation.flow

    def _hello(self, conversation: Conversation, side: Side, hello: ClientHello, note: str) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(TLS_SNI, flow, hello.sni, hello.raw_sni, hello, note or _proxied(side))

    def _request(self, conversation: Conversation, side: Side, request: HttpRequest, note: str) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(HTTP_HOST, flow, request.host, request.raw_host, request, note or _proxied(side))
        if request.method == "CONNECT":
            side.proxied = True

    def _socks(self, conversation: Conversation, side: Side, asked: SocksRequest) -> None:
        flow = self._decide(conversation, side, True)
        self._tell(SOCKS_HOST, flow, asked.host, asked.raw_host, asked, "")
        side.proxied = True

    def _dns(self, conversation: Conversation, side: Side, message: DnsMessage) -> None:
        flow = self._decide(conversation, side, not message.is_response)
        name, raw_name = (message.questions[0][0], message.questions[0][1]) if message.questions else ("", "")
        self._tell(DNS_ANSWER if message.is_response else DNS_QUERY, flow, name, raw_name, message, "")

    def _tell(
        self,
        kind: str,
        flow: FlowKey,
        name: str,
        raw_name: str,
        detail: DnsMessage | HttpRequest | ClientHello | SocksRequest,
        note: str,
    ) -> None:
        self._emit(Observation(kind, self._ts_us, self._number, flow, name, raw_name, detail, 0, note))


def _proxied(side: Side) -> str:
    return "proxied" if side.proxied else ""
